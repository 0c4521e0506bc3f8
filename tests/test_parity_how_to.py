"""The page on PyTorch runs as it is written, where PyTorch is."""

import pytest
from test_how_to import PAGES, examples_fail

pytestmark = pytest.mark.parity


def test_the_page_runs_with_torch(request, tmp_path, monkeypatch):
    if not request.config.getoption("--require-parity"):
        pytest.importorskip("torch", reason="torch is not installed (extra parity)")
    monkeypatch.chdir(tmp_path)
    failed = examples_fail((PAGES / "pytorch.md").read_text(encoding="utf-8"), "pytorch")
    assert not failed, failed
