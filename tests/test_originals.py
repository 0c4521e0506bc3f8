"""Every command of docs/from_the_originals.md, on digits, and the files that it promises."""

import re
import shlex

import pytest
from experiment_runs import LIMITS, ROOT, TINY, run

from jaxsnn.config import STAGES

DOCUMENT = ROOT / "docs/from_the_originals.md"


def commands(system):
    """Rows (ours, files that it writes) of the table of commands of one system."""
    text = DOCUMENT.read_text(encoding="utf-8")
    start, end = f"<!-- commands: {system} -->\n", "<!-- /commands -->"
    assert text.count(start) == 1
    table = text.split(start)[1].split(end)[0]
    for row in table.strip().splitlines()[2:]:
        _, ours, writes = (cell.strip() for cell in row.strip("|").split(" | "))
        found = re.fullmatch(r"`python (experiments/\w+\.py) (.*)`", ours)
        assert found, f"{ours} is no command of an experiment"
        yield found[1], found[2], re.findall(r"`([\w./]+/[\w./]+)`", writes)


FEW = ("--limit-train", "16", "--limit-test", "2", "--batch-size", "8")
SMALL = {  # limits that keep a system's commands short
    "scatter_gather_lenet": TINY,
    "negative_spikes_cnn1": (*TINY, *FEW),
    "negative_spikes_cnn2": (*TINY, *FEW),
    "negative_spikes_mnist": TINY,
    "surrogate_csnn": (*LIMITS, *FEW, "--limit-test", "8", "--num_steps", "4", "--frames", "6"),
}
ROWS = [(system, number, *row) for system in SMALL for number, row in enumerate(commands(system))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {system: tmp_path_factory.mktemp(system) for system in SMALL}


def test_the_tables_have_the_commands_of_the_originals():
    # two modes of the training scripts, spiking scripts with and without noise, the figures
    text = DOCUMENT.read_text(encoding="utf-8")
    for words in (
        "Quant_LeNet_MNIST.py --k 0 --B 1 --resume False --mode 'training'",
        "Quant_LeNet_MNIST.py --k 0 --B 1 --resume True --mode 'inference'",
        "Spiking_LeNet_MNIST.py --k 0 --B 1 --noise_ratio 0`",
        "FP32_LeNet_MNIST.py",
        "Quant_CNN1_CIFAR10.py --k 0 --resume False --learning_rate 0.001 --mode 'training'",
        "Quant_CNN1_CIFAR10.py --k 0 --resume True --mode 'inference'",
        "Quant_CNN2_CIFAR10.py --k 0 --resume False --learning_rate 0.001 --mode 'training'",
        "Spiking_CNN1_CIFAR10.py --k 0`",
        "Spiking_CNN2_CIFAR10.py --k 0`",
        "python accuracy_speed.py",
        "python sparsity.py",
        "python sops.py",
        "CUDA_VISIBLE_DEVICES=0 python scripts/train.py`",
        "CUDA_VISIBLE_DEVICES=0 python scripts/train.py exp_id=spike data.spike=true`",
    ):
        assert words in text
    for system in SMALL:
        used = {words.split()[0] for name, _, _, words, _ in ROWS if name == system}
        assert "simulate" in used & set(STAGES) or system == "surrogate_csnn"  # one script
    assert all((ROOT / script).is_file() for _, _, script, _, _ in ROWS)


# One folder per system, in the order of its table: what is trained first is used by the rest.
@pytest.mark.parametrize(
    ("system", "number"), [row[:2] for row in ROWS], ids=[f"{row[0]}: {row[3]}" for row in ROWS]
)
def test_a_command_writes_what_the_table_says(system, number, folders, capsys):
    script, words, files = next(row[2:] for row in ROWS if row[:2] == (system, number))
    out = folders[system]
    known = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    script = script.split("/")[1][:-3]
    assert run(*shlex.split(words), out=out, tiny=SMALL[system], script=script) == 0
    for name in files:
        assert (out / name).exists(), f"{words} did not write {name}"
    if not files:
        assert re.search(r"test accuracy \d+\.\d+%", capsys.readouterr().out)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == known
