"""Every notebook runs from its first cell to its last, in the checkout that it lies in."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
INLINE = "image/png"


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def test_there_is_a_notebook():
    assert NOTEBOOKS


def test_notebooks_are_short_and_hold_no_outputs(notebook):
    assert len(notebook.cells) < 40
    for cell in code_cells(notebook):
        assert not cell.outputs
        assert cell.execution_count is None
        assert len(cell.source.splitlines()) <= 13, cell.source
        assert "def " not in cell.source  # what is worth a name belongs to the library
    assert "import jaxsnn" in "\n".join(cell.source for cell in notebook.cells)


def test_the_first_cell_asks_for_an_address_where_there_is_no_checkout(
    notebook, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    first = code_cells(notebook)[0].source
    assert 'REPOSITORY = ""' in first
    with pytest.raises(RuntimeError, match="REPOSITORY"):
        exec(first, {})


@pytest.mark.slow
def test_the_notebook_runs(path, notebook, monkeypatch):
    monkeypatch.setenv("SMOKE", "1")
    monkeypatch.delenv("MPLBACKEND")  # the kernel then draws into the notebook
    resources = {"metadata": {"path": str(path.parent)}}
    before = set(path.parent.iterdir())
    limits = {"timeout": 600, "startup_timeout": 300}  # a busy machine is slow, not wrong
    NotebookClient(notebook, kernel_name="python3", resources=resources, **limits).execute()
    assert set(path.parent.iterdir()) == before
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    shown = [output for output in outputs if INLINE in output.get("data", {})]
    drawn = sum(cell.source.count("plt.show()") for cell in code_cells(notebook))
    assert len(shown) == drawn > 0
