"""Docstrings are reStructuredText: ``code`` between double ticks, :func:`links` by their role.

Sphinx takes single ticks for a title, and a reader for one more way to write the same.
"""

import ast
import re

import pytest
from test_layers import ROOT

FOLDERS = ("benchmarks", "docs", "experiments", "jaxsnn", "tests", "tools")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
CODE, ROLE, LINK = r"``.+?``", r":[\w:]+:`[^`]+`", r"`[^`]+ <[^>]+>`_"
RIGHT = re.compile(f"{CODE}|{ROLE}|{LINK}", re.DOTALL)


def docstrings(tree):
    """Texts that stand alone: of modules, classes and functions, and below what they describe."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text


def wrong_ticks(source):
    """Line of a docstring, and what it has between ticks of another kind."""
    for line, text in docstrings(ast.parse(source)):
        rest = RIGHT.sub("", text)
        if "`" in rest:
            yield line, rest[rest.index("`") :][:40]


def test_code_in_a_docstring_stands_between_double_ticks():
    checked = {
        path.relative_to(ROOT).as_posix(): list(wrong_ticks(path.read_text())) for path in FILES
    }
    assert {name: wrong for name, wrong in checked.items() if wrong} == {}


@pytest.mark.parametrize(
    "source",
    [
        '"""Of `name`."""',
        'def f():\n    """Of ``x`` and `y`."""',
        'x = 1\n"""The `x`."""',
        '"""An odd ``tick`."""',
    ],
)
def test_the_check_sees_single_ticks(source):
    assert list(wrong_ticks(source))


@pytest.mark.parametrize(
    "source",
    [
        '"""Of ``name``, ``[N,\n    C]``, :func:`f` and :py:class:`C`."""',
        '"""See `a page <https://example.org>`_."""',
        'x = "`name`"  # of `x`',
    ],
)
def test_the_check_leaves_other_text_alone(source):
    assert not list(wrong_ticks(source))
