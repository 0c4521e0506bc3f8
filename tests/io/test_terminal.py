"""What is printed is what was said, brackets and all; and nothing else prints through Rich."""

import ast
import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from jaxsnn.exchange.table import Table as FitTable
from jaxsnn.io.progress import bar
from jaxsnn.io.terminal import console, show
from jaxsnn.report.results import Results, RunSettings
from jaxsnn.report.table import print_table
from jaxsnn.report.variants import print_variants

ROOT = Path(__file__).resolve().parents[2]
PRINTING = sorted(
    path
    for folder in ("jaxsnn", "benchmarks", "experiments", "tools")
    for path in (ROOT / folder).rglob("*.py")
    if path != ROOT / "jaxsnn" / "io" / "terminal.py"
)
NAMES = ("run[bold]s", "br[/exp]", "a[b] :smile: [red]c[/red]", "[link=x]y")


def callers_own():
    """A console with Rich's defaults, which reads markup."""
    return Console(file=io.StringIO(), width=200, force_terminal=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_line_is_what_was_said(name, capsys):
    show(f"{name}: written")
    assert capsys.readouterr().out == f"{name}: written\n"
    screen = callers_own()
    show(f"{name}/{'x' * 100}", screen)
    assert screen.file.getvalue() == f"{name}/{'x' * 100}\n"


@pytest.mark.parametrize("name", NAMES)
def test_tables_hold_names_as_they_are(name):
    results = Results(
        experiment="made",
        system="made",
        dataset=name,
        setting=name,
        settings=RunSettings(network=name),
        ann_accuracy=0.5,
    )
    for print_it in (
        lambda screen: print_table([results], f"{name}: all settings", screen),
        lambda screen: print_variants([results], screen),
        lambda screen: screen.print(FitTable(name, (), (name,))),
    ):
        screen = callers_own()
        print_it(screen)
        assert name in screen.file.getvalue()
    table = Table("place")
    table.add_row(name)
    screen = console(width=200)
    with screen.capture() as capture:
        show(table, screen)
    assert name in capture.get()


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_bar_is_no_markup(name, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(bar([1, 2], 2, name)) == [1, 2]
    capsys.readouterr()


def test_nothing_is_read_as_markup_by_the_projects_console():
    screen = console()
    with screen.capture() as capture:
        screen.print("[bold]x[/]")
    assert capture.get() == "[bold]x[/]\n"


def offences(source):
    """Lines that make a console of Rich's, print through one, or give a table a bare title."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name == "Console" or (name == "print" and isinstance(node.func, ast.Attribute)):
            yield node.lineno
        titles = [word.value for word in node.keywords if word.arg in ("title", "caption")]
        if name in ("Table", "RichTable") and any(not is_plain(title) for title in titles):
            yield node.lineno


def is_plain(title):
    """Whether a title is written out, a Text, or a name that stands for one of these."""
    if isinstance(title, ast.Call):
        return getattr(title.func, "id", "") == "Text"
    return isinstance(title, ast.Constant) or (isinstance(title, ast.Name) and title.id != "title")


@pytest.mark.parametrize("path", PRINTING, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_everything_prints_through_the_one_helper(path):
    assert list(offences(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    ["Console(stderr=True)", "x.console.print(1)", "Table(title=title)", "Table(title=f'{x}')"],
)
def test_the_walk_finds_what_it_looks_for(source):
    assert list(offences(source)) == [1]
