"""Names say what a value is: five words that say nothing are no names, here and in the package."""

import ast

import pytest
from test_layers import FILES, ROOT, name_of

EMPTY = {"found", "own", "given", "how", "known"}
OTHERS = sorted(
    path
    for folder in ("benchmarks", "docs", "experiments", "tests", "tools")
    for path in (ROOT / folder).rglob("*.py")
)


def names(tree):
    """Every name that a file gives a value, an argument, an attribute, a function or a class.

    Decorators, ``hypothesis.given`` among them, were named elsewhere.
    """
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    elsewhere = {
        part for node in functions for one in node.decorator_list for part in ast.walk(one)
    }
    for node in ast.walk(tree):
        if node in elsewhere:
            continue
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg | ast.keyword):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def empty_names(source):
    return [(line, name) for name, line in names(ast.parse(source)) if name in EMPTY]


def test_a_name_says_what_the_value_is():
    places = {name_of(path): path for path in FILES}
    places |= {path.relative_to(ROOT).as_posix(): path for path in OTHERS}
    checked = {name: empty_names(path.read_text()) for name, path in places.items()}
    assert {name: wrong for name, wrong in checked.items() if wrong} == {}


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "def f(known): ...",
        "f(how=1)",
        "self.own = 1",
        "def given(): ...",
        "[own for own in x]",
        "with f() as known: ...",
        "convert(net, given=net)",
    ],
)
def test_the_check_sees_an_empty_name(source):
    assert empty_names(source)


def test_a_decorator_of_another_library_is_none_of_ours():
    assert not empty_names("@given(numbers)\ndef test(number): ...")
