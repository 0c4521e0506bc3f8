"""The site: pages of the API, names that documents use, one version. ``make docs`` builds it."""

import contextlib
import functools
import inspect
import re
import tomllib
from importlib import import_module
from pathlib import Path

import api_pages
import numpy as np
import pytest
from test_layers import ROOMS

import jaxsnn
from jaxsnn.conversion import fold
from jaxsnn.data.labels import class_numbers
from jaxsnn.exchange import from_torch
from jaxsnn.simulation import until_silent

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def test_the_pages_of_the_api_are_current(capsys):
    assert api_pages.main(["--check"]) == 0, capsys.readouterr().out


def test_there_is_a_page_for_every_room():
    assert tuple(ROOMS) == api_pages.ROOMS
    index = (ROOT / "docs/api/index.md").read_text(encoding="utf-8")
    for name in jaxsnn.__all__:
        assert f"| `{name}` |" in index


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_symbol_is_on_its_page_and_explained(room):
    module = import_module(f"jaxsnn.{room}")
    text = (ROOT / f"docs/api/{room}.md").read_text(encoding="utf-8")
    for name in api_pages.public(module):
        value = getattr(module, name)
        if inspect.ismodule(value):
            assert f".. automodule:: {value.__name__}\n" in text
        elif inspect.isclass(value) and value.__name__ != name:
            assert f".. autoclass:: {value.__module__}.{value.__name__}\n" in text
        else:
            assert re.search(rf"\.\. auto\w+:: {re.escape(module.__name__)}\.{name}\n", text), name
        if inspect.isroutine(value) or inspect.isclass(value):
            assert len(inspect.getdoc(value) or "") > 10, f"{room}.{name} has no docstring"


def exists(name):
    """Whether a dotted name is a module, or an attribute in the innermost module of it."""
    parts = name.split(".")
    for inner in range(len(parts), 0, -1):
        with contextlib.suppress(ImportError):
            value = import_module(".".join(parts[:inner]))
            with contextlib.suppress(AttributeError):
                functools.reduce(getattr, parts[inner:], value)
                return True
    return False


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda path: path.stem)
def test_names_of_the_library_in_the_documents_exist(page):
    """``jaxsnn.exchange.from_torch`` and the like, wherever a page names one."""
    names = re.findall(r"`(jaxsnn(?:\.\w+)+)[`(]", page.read_text(encoding="utf-8"))
    assert not [name for name in names if not exists(name)]


def test_a_name_that_does_not_exist_is_seen():
    assert exists("jaxsnn.methods.rate")
    assert not exists("jaxsnn.methods.ratio")
    assert not exists("jaxsnn.nowhere.rate")


held = jaxsnn.Encoding("held", 1 / 256)
SMALL = jaxsnn.parse("4C5-MP2-4C3-MP2-8", pool="max", input_shape=(16, 16, 1))
REFUSED = (
    lambda: jaxsnn.convert({}, SMALL, jaxsnn.methods.negative_spikes(k=1)),
    lambda: jaxsnn.convert({}, SMALL, jaxsnn.methods.rate(scales={}), encoding=held),
    lambda: jaxsnn.convert(
        {"params": {"conv1": {"kernel": np.zeros((3, 3, 1, 4))}}},
        SMALL,
        jaxsnn.methods.negative_spikes(k=1),
    ),
    lambda: jaxsnn.convert({}, SMALL, jaxsnn.methods.negative_spikes(k=1), encoding=held),
    lambda: class_numbers([3, 1, 2], 3, "training labels"),
    lambda: from_torch({"weight": np.zeros((1, 1))}),
)
"""What is refused in the first rows of the page, in another order."""


def test_refusals_are_quoted_as_they_are():
    text = (ROOT / "docs/how_to/refusals.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^|]+)` \|", text, re.MULTILINE)
    said = ""
    for refused in REFUSED:
        with pytest.raises(jaxsnn.UserError) as error:
            refused()
        said += f"{error.value}\n"
    missing = [one for one in quoted if one not in said]
    # these two need a network that was converted
    assert missing == quoted[-2:]
    assert "a silent step does not end this simulation" in inspect.getsource(until_silent)
    assert "a sum of its integer drive can reach" in inspect.getsource(fold)


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "jaxsnn/__init__.py"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {jaxsnn.__version__}\n" in citation
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changes, re.MULTILINE)
    assert not released or released[0] == jaxsnn.__version__


@pytest.mark.slow
def test_the_python_of_the_start_page_runs(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs/start.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert "exact" in capsys.readouterr().out
    assert (tmp_path / "snn.npz").is_file()
