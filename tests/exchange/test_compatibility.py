"""The table of methods, layers and simulators: what is refused, and what really runs."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from nir_simulators import in_simulators, need

from jaxsnn.exchange.nir import Simulator
from jaxsnn.exchange.nir.sample import Sample

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
DIFFERS = "would compute other"  # of refusals that only a run can find


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "compatibility.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored(methods):
    """(method, layers) -> cells; a number in brackets as the reason that it stands for."""
    tables, notes = DOCUMENT.split("## Why not")
    reasons = dict(re.findall(r"^(\d+)\. (.*)$", notes, re.MULTILINE))
    _, *sections = re.split(r"^## ", tables, flags=re.MULTILINE)
    result = {}
    for method, section in zip(methods, sections, strict=True):
        heading, *lines = section.splitlines()
        assert heading.lower() == method
        rows = [line.strip("|").split("|") for line in lines if line.startswith("|")][2:]
        for layers, *cells in [[cell.strip() for cell in row] for row in rows]:
            result[method, layers] = [
                reasons[cell[4:-1]] if cell.startswith("no (") else cell for cell in cells
            ]
    return result


def test_the_stored_table_is_what_is_refused_and_written(tool, monkeypatch):
    """Everything but the runs on images, which need simulators and are compared below."""
    monkeypatch.setattr(
        sys.modules["jaxsnn.exchange.nir.to_nir"], "compare", lambda *a: Sample(None, 4)
    )
    expected = stored(tool.METHODS)
    assert len(expected) == len(tool.METHODS) * len(tool.LAYERS)
    for method, layers, network in tool.networks():
        row = expected.pop((method, layers))
        for simulator, cell in zip([None, *Simulator], row, strict=True):
            actual = tool.cell(network, simulator, None)
            if actual.word == "compared" and DIFFERS in cell:
                continue
            assert (actual.word or actual.reason) == re.sub(": 0 of [1-9][0-9]*", "", cell)
    assert not expected


def test_whatever_is_written_was_run_and_nothing_differed(tool):
    names = [None, *(one.value for one in Simulator)]
    ran = {name: 0 for name in names}
    for row in stored(tool.METHODS).values():
        for name, cell in zip(names, row, strict=True):
            if not re.fullmatch(r"(exact|compared)(: .*)?", cell):
                continue
            assert re.fullmatch(r"\w+: 0 of [1-9]\d*" if name else r"\w+", cell), (name, cell)
            ran[name] += 1
    assert ran.pop("spyx") == 0
    assert all(ran.values()), ran


@in_simulators
@pytest.mark.slow
def test_the_document_is_current(tool, request):
    for name in ("norse", "sinabs", "spikingjelly", "snntorch"):
        need(request, name)
    assert tool.main(["--check"]) == 0
