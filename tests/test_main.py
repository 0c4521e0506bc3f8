"""The commands of ``python -m jaxsnn``."""

import subprocess
import sys
from importlib import metadata

import pytest

from jaxsnn.__main__ import main


def rows(text: str) -> dict[str, list[str]]:
    """Cells of a printed table by the first one."""
    lines = (line for line in text.splitlines() if line.startswith("│"))
    cells = ([cell.strip() for cell in line.strip("│").split("│")] for line in lines)
    return {row[0]: row[1:] for row in cells}


def test_describe_prints_layers_and_totals(capsys):
    assert main(["describe", "lenet_scatter"]) == 0
    text = capsys.readouterr().out
    table = rows(text)
    assert table["conv2"] == [
        "conv", "28x28x16", "24x24x16", "5x5x16x16", "1x1", "0", "6,400", "64", "9,216",
        "3,686,400", "400",
    ]  # fmt: skip
    assert table["pool1"][0] == "learned pool"
    assert table["total"][6:] == ["158,352", "1,472", "26,880", "5,165,824", ""]
    assert "159,824 with norm statistics" in text
    assert "4,852,224 without the encoder, which takes 313,600" in text
    assert "16C5same-16C5-P2-32C5-P2-256\n" in text
    assert "original   16C5-P2-32C5-P2-256\n" in text


@pytest.mark.parametrize(
    "text", ["lenet_scatter", "4C3p1nb-AP2-[4C3p1-4C3p1]+norm-E-[6C1]+bias-LP2-8b"]
)
def test_describe_prints_the_arrays_that_flax_makes(text, capsys):
    from jaxsnn.arch import parse, zoo
    from jaxsnn.io.arrays import flatten
    from jaxsnn.network.net import Net, template
    from jaxsnn.network.per_site import hidden
    from jaxsnn.neurons import relu

    assert main(["describe", text]) == 0
    printed = rows(capsys.readouterr().out)
    arch = zoo.NAMES[text].arch if text in zoo.NAMES else parse(text)
    arrays = flatten(template(Net(arch, hidden(relu()))))
    shapes = {path: "x".join(map(str, array.shape)) for path, array in arrays.items()}
    assert {name: row[0] for name, row in printed.items() if "/" in name} == shapes
    assert {str(array.dtype) for array in arrays.values()} == {"float32"}


def test_describe_reads_a_string_and_its_options(capsys):
    arguments = ["--classes", "7", "--pool", "max", "--input-shape", "9", "10", "2", "--head-bias"]
    assert main(["describe", "4C3s2same-P2-8", *arguments]) == 0
    table = rows(capsys.readouterr().out)
    # 9x10 -> 5x5 -> 2x2; "same" with stride 2 pads 9 by (1, 1) and 10 by (0, 1)
    assert table["conv1"][:6] == [
        "conv, max pool 2", "9x10x2", "2x2x4", "3x3x2x4", "2x2", "1,1,0,1",
    ]  # fmt: skip
    assert table["dense1"][1:4] == ["2x2x4", "8", "16x8"]
    assert table["readout"][:7] == ["readout dense", "8", "7", "8x7", "", "", str(8 * 7 + 7)]


def test_describe_shows_shortcuts_and_exits(capsys):
    assert main(["describe", "4C3p1-[4C3p1]+identity-E-[6C1]+bias", "--no-norm"]) == 0
    table = rows(capsys.readouterr().out)
    assert table["block1.conv1"][0] == "conv + conv1"
    assert table["block2.conv1"][0] == "conv + block2.shortcut"
    assert table["block2.shortcut"][0] == "shortcut conv"
    assert table["exit1"][0] == "exit dense"
    assert table["total"][7] == "0"


def test_options_override_those_of_a_named_network(capsys):
    assert main(["describe", "fast_alexnet", "--input-shape", "32", "32", "1"]) == 0
    assert rows(capsys.readouterr().out)["conv1"][1] == "32x32x1"


def test_long_strings_are_not_cut(capsys):
    assert main(["describe", "bsf_resnet18"]) == 0
    text = capsys.readouterr().out
    assert "…" not in text
    assert "-[512C3s2p1-512C3p1]+bias-[512C3p1-512C3p1]+bias\n" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["describe", "lenet_scater"], "did you mean lenet_scatter?"),
        (["describe", "16C5-P2"], "token 2 ('P2')"),
        (["describe", "lenet_scatter", "--input-shape", "4", "4", "1"], "token 2 ('16C5')"),
        (["describe", "8", "--classes", "0"], "classes must be"),
        ([], "COMMAND"),
    ],
)
def test_mistakes_end_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_data_lists_places(capsys, tmp_path):
    assert main(["data", "--data-dir", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    names = {row[0] for row in cells if row[0]}
    assert {"digits", "mnist", "fashion_mnist", "nmnist, events"} <= names
    assert any(row[1].endswith("N-MNIST") for row in cells)
    assert {row[2] for row in cells if row[0]} <= {"yes", "no"}


def test_version_names_what_is_installed(capsys):
    assert main(["version"]) == 0
    table = rows(capsys.readouterr().out)
    for name in ("jax", "flax", "optax"):
        assert table[name] == [metadata.version(name)]
    assert table["python"] == [".".join(map(str, sys.version_info[:3]))]
    assert table["devices"][0]


def test_runs_as_a_module():
    command = [sys.executable, "-m", "jaxsnn", "describe", "mlp_negative"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "480,800 with norm statistics" in done.stdout
