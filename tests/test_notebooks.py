"""Every notebook runs from its first cell to its last, in the checkout that it lies in."""

import tempfile
from pathlib import Path

import nbformat
import notebook_outputs as tool
import pytest

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


def test_notebooks_are_short(notebook):
    assert len(notebook.cells) < 40
    for cell in code_cells(notebook):
        assert cell.execution_count is None
        assert len(cell.source.splitlines()) <= 13, cell.source
        assert "def " not in cell.source  # what is worth a name belongs to the library
    assert "import jaxsnn" in "\n".join(cell.source for cell in notebook.cells)


def test_outputs_are_those_of_the_code_as_it_is(notebook):
    """Stored by tools/notebook_outputs.py; ``test_a_run_says_what_is_stored`` compares them."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    if "jaxsnn" not in notebook.metadata:
        assert not outputs  # none are stored
        return
    assert notebook.metadata["jaxsnn"]["code"] == tool.checksum(notebook)
    shown = [output for output in outputs if INLINE in output.get("data", {})]
    drawn = sum(cell.source.count("plt.show()") for cell in code_cells(notebook))
    assert len(shown) == drawn > 0
    assert not [one for one in outputs if one.output_type == "error"]


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("accuracy 97.22%\n", "accuracy 97.50%\n", True),
        ("accuracy 97.22%", "accuracy 90.22%", False),
        ("16,297 spikes", "16,400 spikes", True),
        ("16,297 spikes", "17,297 spikes", False),
        ("exact", "exact after settling", False),
        ("[1 2]", "[1 2 3]", False),
        ("1e-05", "2e-05", True),
    ],
)
def test_numbers_of_two_runs_are_compared_within_a_tolerance(left, right, same):
    assert tool.alike(left, right) is same


def test_outputs_are_compared_cell_by_cell():
    def notebook(*printed):
        stream = [nbformat.v4.new_output("stream", text=text) for text in printed]
        metadata = {"jaxsnn": {"jax": "0.12"}}
        cells = [nbformat.v4.new_code_cell("x", outputs=stream)]
        return nbformat.v4.new_notebook(cells=cells, metadata=metadata)

    assert tool.differences(notebook("a 1"), notebook("a 1")) == []
    assert tool.differences(notebook("a 1"), notebook("a 2")) == ["cell 1: 'a 1' and 'a 2'"]
    assert tool.differences(notebook("a 1"), notebook("b 1")) == ["cell 1: 'a 1' and 'b 1'"]
    assert tool.differences(notebook("a"), notebook()) == ["cell 1: 1 outputs and 0"]
    newer = notebook("a 2")
    newer.metadata["jaxsnn"]["jax"] = "0.13"  # training depends on it in its last digits
    assert tool.differences(notebook("a 1"), newer) == []
    assert tool.differences(notebook("b 1"), newer) == ["cell 1: 'b 1' and 'a 2'"]


def test_what_depends_on_the_moment_is_not_stored():
    error = nbformat.v4.new_output("stream", name="stderr", text="99 %")
    assert tool.stored(error) is None
    place = nbformat.v4.new_output("stream", text=f"kept in {tempfile.gettempdir()}/tmpx_1/snn.npz")
    assert tool.stored(place).text == "kept in FOLDER/snn.npz"
    data = {"text/plain": "1", "text/html": "<b>1</b>"}
    result = nbformat.v4.new_output("execute_result", data, execution_count=7)
    kept = tool.stored(result)
    assert kept.data == {"text/plain": "1"}
    assert kept.execution_count is None
    progress = nbformat.v4.new_output("display_data", {"text/plain": "60 % 0:00:02"})
    assert tool.stored(progress) is None


def test_one_line_installs_in_colab(notebook):
    """It names the repository's address as soon as pyproject.toml does."""
    first, *others = code_cells(notebook)
    line, *rest = first.source.splitlines()
    address = tool.repository() or "https://HOST/OWNER/NAME"
    assert line == f"# %pip install -q git+{address}  # in Colab, with this repository's address"
    code = "\n".join([*rest, *(cell.source for cell in others)])
    assert not [word for word in ("pip", "subprocess", "sys.path") if word in code]


def test_colab_opens_what_lies_on_github():
    place = "https://colab.research.google.com/github/a/b/blob/main/notebooks/01.ipynb"
    assert tool.in_colab("https://github.com/a/b", "01.ipynb") == place
    assert tool.in_colab("https://elsewhere.org/a/b", "01.ipynb") == ""
    assert tool.in_colab("", "01.ipynb") == ""


@pytest.mark.slow
def test_a_run_says_what_is_stored(path, notebook, monkeypatch):
    """The one execution of a notebook in the checks: words and numbers are those of its outputs."""
    monkeypatch.delenv("MPLBACKEND")  # the kernel then draws into the notebook
    monkeypatch.delenv("XLA_FLAGS")  # compiled as a reader compiles
    before = set(path.parent.iterdir())
    again = tool.executed(path)
    assert set(path.parent.iterdir()) == before
    outputs = [output for cell in code_cells(again) for output in cell.outputs]
    shown = [output for output in outputs if INLINE in output.get("data", {})]
    drawn = sum(cell.source.count("plt.show()") for cell in code_cells(again))
    assert len(shown) == drawn > 0
    assert tool.differences(notebook, again) == []
