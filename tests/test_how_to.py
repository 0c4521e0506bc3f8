"""The how-to pages run as they are written, in a folder of their own."""

import doctest
import re
from pathlib import Path

import pytest
from nir_simulators import in_simulators, need

PAGES = Path(__file__).resolve().parent.parent / "docs" / "how_to"
NAMES = ("into_jax", "nir_in", "nir_out", "pytorch", "step_by_step")
SLOW = {"pytorch": pytest.mark.slow}  # which trains
ELSEWHERE = re.compile(r"<!-- needs: \w+ -->.*?<!-- /needs -->", re.DOTALL)


def examples_fail(text, name):
    """What doctest says of a page; nothing where all is as written."""
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        assert block.endswith("\n\n"), block  # or the fence would be part of an output
    test = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    assert len(test.examples) > 8
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    return "".join(report) if runner.run(test, out=report.append).failed else ""


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in NAMES])
def test_a_page_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert text.count("<!-- needs: ") == text.count("<!-- /needs -->")
    failed = examples_fail(ELSEWHERE.sub("", text), name)
    assert not failed, failed


@pytest.mark.parametrize(
    "page", ["compatibility", "neurons", "snn_format", *(f"how_to/{name}" for name in NAMES)]
)
def test_links_lead_somewhere(page):
    path = PAGES.parent / f"{page}.md"
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{page} links to {target}"


@in_simulators
def test_the_page_runs_with_what_other_libraries_give(request, tmp_path, monkeypatch):
    for library in ("norse", "sinabs", "spikingjelly", "snntorch", "nirtorch"):
        need(request, library)
    monkeypatch.chdir(tmp_path)
    failed = examples_fail((PAGES / "nir_out.md").read_text(encoding="utf-8"), "nir_out")
    assert not failed, failed
