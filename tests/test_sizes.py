"""The package stays readable: limits of its modules, functions and untyped values.

A function is counted from ``def`` to its last line, with its docstring.
"""

import ast
import re
import statistics

from test_layers import FILES, ROOT, name_of

MODULE, FUNCTION = 320, 70
MEDIAN_MODULE, MEDIAN_FUNCTION, MOST_FUNCTIONS = 160, 8, 24  # the last: nine of ten functions
UNTYPED = 150  # values and arguments that are Any
PAGES = 12_000  # bytes of ARCHITECTURE.md


def functions(path):
    """Name and lines of every function and method, of those inside functions, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name_of(path)}: {node.name}", node.end_lineno - node.lineno + 1


MODULES = {name_of(path): path.read_text().count("\n") for path in FILES}
FUNCTIONS = [item for path in FILES for item in functions(path)]
LENGTHS = [lines for _, lines in FUNCTIONS]


def test_no_module_and_no_function_is_long():
    assert not {name: lines for name, lines in MODULES.items() if lines > MODULE}
    assert not [item for item in FUNCTIONS if item[1] > FUNCTION]


def test_most_modules_and_functions_are_short():
    assert statistics.median(MODULES.values()) <= MEDIAN_MODULE
    assert statistics.median(LENGTHS) <= MEDIAN_FUNCTION
    assert statistics.quantiles(LENGTHS, n=10)[-1] <= MOST_FUNCTIONS


def test_few_values_are_any():
    """By that name or in a quoted type; of libraries without types the package says Untyped."""
    uses = [
        word
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        for word in quoted_or_named(node)
        if word == "Any"
    ]
    assert 0 < len(uses) < UNTYPED


def quoted_or_named(node):
    """Names in a piece of code, and in a text that is a type."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "[" in node.value:
        yield from re.findall(r"\w+", node.value) if len(node.value) < 60 else ()


def test_the_architecture_stays_short():
    assert (ROOT / "ARCHITECTURE.md").stat().st_size < PAGES


def test_functions_are_counted_with_their_docstrings(tmp_path, monkeypatch):
    monkeypatch.setattr("test_layers.PACKAGE", tmp_path)
    path = tmp_path / "two.py"
    path.write_text('def f():\n    """Nothing.\n    """\n    def g(): ...\n    return g\n')
    assert dict(functions(path)) == {"two.py: f": 5, "two.py: g": 1}
