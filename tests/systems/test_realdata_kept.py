"""Weights that are kept below results/ certify on real images by the command that stands there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jaxsnn.systems.run_folder import KEPT

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
ROW = re.compile(r"\| `([\w/]+)` \| `python (experiments/\w+\.py certify [^`]*)` \| ([\w ]+): ")
ROWS = {cells[0]: cells[1:] for cells in ROW.findall((RESULTS / "README.md").read_text("utf-8"))}
MOST = 25 * 2**20  # bytes of all of them together
# Images here, of the hundreds in the rows: each has more than six million neurons compared.
IMAGES = {"mnist_lenet/k1B2": 300, "cifar10_cnn1/k1": 20, "cifar10_cnn2/k1": 20}


def test_all_that_is_kept_has_its_row_and_is_small() -> None:
    kept = {str(path.parent.relative_to(RESULTS)): path for path in RESULTS.rglob(KEPT)}
    assert kept.keys() == ROWS.keys() == IMAGES.keys()
    assert kept
    assert sum(path.stat().st_size for path in kept.values()) < MOST


@pytest.mark.realdata
@pytest.mark.parametrize("folder", ROWS)
def test_its_command_certifies_it_and_leaves_the_folder_alone(folder: str, data_root: Path) -> None:
    command, word = ROWS[folder]
    words = shlex.split(command)
    place = words.index("--limit-test") + 1
    assert int(words[place]) >= IMAGES[folder]
    words[place] = str(IMAGES[folder])
    before = {path.name: path.stat().st_mtime_ns for path in (RESULTS / folder).iterdir()}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "JAXSNN_DATA": str(data_root), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stderr
    assert f"certificate: {word}: " in said
    assert "0 neurons and 0 predictions differ" in said
    assert f"{IMAGES[folder]} images" in said
    assert {path.name: path.stat().st_mtime_ns for path in (RESULTS / folder).iterdir()} == before
