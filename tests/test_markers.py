"""Tests that run on request lie where they are looked for."""

from pathlib import Path

import pytest
from conftest import APART

FILES = sorted(Path(__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("marker", ["realdata", "parity"])
def test_files_of_tests_on_request_are_called_so(marker):
    """With ``-m realdata`` or ``-m parity`` no file of another name is collected."""
    marked = [path.name for path in FILES if f"mark.{marker}" in path.read_text("utf-8")]
    assert len(marked) > 3
    assert all(name.startswith(APART) for name in marked), marked
