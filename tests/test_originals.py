"""Every command of docs/from_the_originals.md, on digits, and the files that it promises."""

import re
import shlex

import pytest
from experiment_runs import ROOT, run

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


ROWS = list(commands("scatter_gather_lenet"))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("originals")


def test_the_table_has_the_commands_of_the_original():
    # two modes of two training scripts, the spiking script with and without noise, two figures
    text = DOCUMENT.read_text(encoding="utf-8")
    for words in (
        "Quant_LeNet_MNIST.py --k 0 --B 1 --resume False --mode 'training'",
        "Quant_LeNet_MNIST.py --k 0 --B 1 --resume True --mode 'inference'",
        "Spiking_LeNet_MNIST.py --k 0 --B 1 --noise_ratio 0`",
        "FP32_LeNet_MNIST.py",
        "python sparsity.py",
        "python sops.py",
    ):
        assert words in text
    assert {"train", "simulate", "plot"} <= {words.split()[0] for _, words, _ in ROWS} & set(STAGES)
    assert all((ROOT / script).is_file() for script, _, _ in ROWS)


# One folder for all rows, in the order of the table: what is trained first is used by the rest.
@pytest.mark.parametrize("number", range(len(ROWS)), ids=[words for _, words, _ in ROWS])
def test_a_command_writes_what_the_table_says(number, out, capsys):
    script, words, files = ROWS[number]
    known = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run(*shlex.split(words), out=out, script=script.split("/")[1][:-3]) == 0
    for name in files:
        assert (out / name).exists(), f"{words} did not write {name}"
    if not files:
        assert re.search(r"test accuracy \d+\.\d+%", capsys.readouterr().out)
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == known
