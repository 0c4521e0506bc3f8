"""Imports point downwards, and heavy packages stay out of the way until they are used."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "jaxsnn"

# Every module and its layer (ARCHITECTURE.md). A module imports only from rows above its own;
# inside a package (data, pipelines) siblings may import each other.
ROWS = (
    ("L0", "command", "configfile", "shapes"),
    ("L0", "notation", "config"),
    ("L0", "arch"),
    ("L0", "zoo"),
    ("L1", "prices", "certificate"),
    ("L1", "surrogate", "quant", "encode", "frames", "metrics", "energy", "fusion", "grid"),
    ("L1", "alpha", "confidence", "spikesim", "exits"),
    ("L1", "fused_accuracy"),
    ("L1", "losses", "buckets", "clipped"),
    ("L1", "kernel_gradient"),
    ("L2", "neurons", "convolution", "pooling"),
    ("L2", "lowering"),
    ("L2", "sitemap"),
    ("IO", "processes"),
    ("IO", "files", "environment", "progress"),
    ("IO", "results", "arrays", "data"),
    ("IO", "report", "checkpoint"),
    ("IO", "plots", "selection", "comparison"),
    ("IO", "curves", "learning_curves", "bars", "variant_bars", "layer_figures", "rasters", "gifs"),
    ("IO", "figures", "fusion_plots"),
    ("L3", "site_module"),
    ("L3", "net", "preprocess", "stimulus"),
    ("L3", "recipes", "norms"),
    ("L4", "spiking", "method"),
    ("L4", "fold"),
    ("L4", "refusals", "methods"),
    ("L4", "convert", "percentiles"),
    ("L4", "engine"),
    ("L4", "simulate"),
    ("L4", "compaction"),
    ("L4", "settle", "early_exit"),
    ("L4", "streaming"),
    ("L4", "dataset_totals"),
    ("L4", "evaluation"),
    ("L4", "sweep"),
    ("L4", "task", "options", "schedules"),
    ("L4", "update"),
    ("L5", "trainfiles", "tally", "proxy"),
    ("L5", "certify", "finetune", "gaps", "train"),
    ("L5", "classify", "bptt", "store"),
    ("L6", "exchange"),
    ("L6", "pipelines"),
    ("top", "__init__", "__main__"),
)
ROW = {module: number for number, row in enumerate(ROWS) for module in row[1:]}
WITHOUT_JAX = ("command", "configfile", "shapes", "notation", "arch", "config", "zoo")
HEAVY = {"tensorflow", "tensorflow_datasets", "torch", "tonic", "snntorch", "spikingjelly"}
MAY_DRAW = {
    *("plots", "curves", "learning_curves", "bars", "variant_bars", "layer_figures", "rasters"),
    *("gifs", "figures", "fusion_plots"),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def unit(path):
    """Row entry of a file: the module, or the package below jaxsnn that it lies in."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(tree, path):
    """Full dotted names that a tree imports; `from a import b` gives a.b."""
    package = ("jaxsnn", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def inner_units(tree, path):
    """Entries of the table that a tree imports; a name taken from jaxsnn itself is __init__."""
    for name in imported(tree, path):
        parts = name.split(".")
        if parts[0] == "jaxsnn":
            child = parts[1] if len(parts) > 1 else ""
            is_module = (PACKAGE / child).is_dir() or (PACKAGE / f"{child}.py").exists()
            yield child if child and is_module else "__init__"


def executed_on_import(tree):
    """The tree without the bodies of functions and of `if TYPE_CHECKING`."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node):
            node.body = [ast.Pass()]
            return node

        def visit_AsyncFunctionDef(self, node):
            return self.visit_FunctionDef(node)

        def visit_If(self, node):
            if "TYPE_CHECKING" in ast.unparse(node.test):
                node.body = [ast.Pass()]
            return self.generic_visit(node)

    return Strip().visit(tree)


def upward(source, path):
    """Imports of a source file that do not point to a lower row, as (importer, imported)."""
    importer = unit(path)
    siblings = {importer} if (PACKAGE / importer).is_dir() else set()
    for name in inner_units(ast.parse(source), path):
        if name not in siblings and ROW.get(name, len(ROWS)) >= ROW[importer]:
            yield importer, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_stands_in_the_table(path):
    assert unit(path) in ROW, f"jaxsnn/{unit(path)}: add it to the table ROWS of this test"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_downwards(path):
    if unit(path) in ROW:
        assert not set(upward(path.read_text(), path))


@pytest.mark.parametrize(
    ("source", "where", "expected"),
    [
        ("from jaxsnn.net import Net", "report.py", [("report", "net")]),
        ("from jaxsnn import net", "convert.py", []),
        ("def f():\n    import jaxsnn.train", "simulate.py", [("simulate", "train")]),
        ("from jaxsnn import parse", "quant.py", [("quant", "__init__")]),
        ("from .simulate import run", "convert.py", [("convert", "simulate")]),
        ("from ..config import Common", "pipelines/lenet.py", []),
        ("from . import common\nfrom .common import x", "pipelines/lenet.py", []),
        ("from jaxsnn.nothing import x", "train.py", [("train", "__init__")]),
    ],
)
def test_the_check_sees_wrong_imports(source, where, expected):
    if where.startswith("pipelines") and not (PACKAGE / "pipelines").is_dir():
        pytest.skip("jaxsnn/pipelines does not exist")
    assert list(upward(source, PACKAGE / where)) == expected


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if unit(path) in WITHOUT_JAX],
    ids=lambda path: path.relative_to(PACKAGE).as_posix(),
)
def test_specs_and_settings_do_not_import_jax(path):
    roots = {name.split(".")[0] for name in imported(ast.parse(path.read_text()), path)}
    assert not roots & {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
    inner = set(inner_units(ast.parse(path.read_text()), path))
    assert inner <= set(WITHOUT_JAX)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_heavy_packages_are_imported_where_they_are_used(path):
    tree = executed_on_import(ast.parse(path.read_text()))
    banned = HEAVY if unit(path) in MAY_DRAW else HEAVY | {"matplotlib"}
    assert not {name.split(".")[0] for name in imported(tree, path)} & banned


def test_importing_the_package_is_light(run_python):
    code = "import sys, jaxsnn; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(run_python(code).split())
    assert "jax" in loaded
    assert not loaded & {"matplotlib", "tensorflow_datasets", "sklearn", "orbax", *HEAVY}
