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
ROWS = {found[0]: found[1:] for found in ROW.findall((RESULTS / "README.md").read_text("utf-8"))}
MOST = 25 * 2**20  # bytes of all of them together


def test_all_that_is_kept_has_its_row_and_is_small() -> None:
    kept = {str(path.parent.relative_to(RESULTS)): path for path in RESULTS.rglob(KEPT)}
    assert kept.keys() == ROWS.keys()
    assert kept
    assert sum(path.stat().st_size for path in kept.values()) < MOST


@pytest.mark.realdata
@pytest.mark.parametrize("folder", ROWS)
def test_its_command_certifies_it_and_leaves_the_folder_alone(folder: str, data_root: Path) -> None:
    command, word = ROWS[folder]
    before = {path.name: path.stat().st_mtime_ns for path in (RESULTS / folder).iterdir()}
    done = subprocess.run(
        [sys.executable, *shlex.split(command)],
        cwd=ROOT,
        env={**os.environ, "JAXSNN_DATA": str(data_root), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stderr
    assert f"certificate: {word}: " in said
    (images,) = re.findall(r"--limit-test (\d+)", command)
    assert "0 neurons and 0 predictions differ" in said
    assert f"{images} images" in said
    assert {path.name: path.stat().st_mtime_ns for path in (RESULTS / folder).iterdir()} == before
