"""Rooms import only the rooms above them, and heavy packages stay away until they are used."""

import ast
import functools
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "jaxsnn"

# Every room and the rooms that it may import, from the first floor to the last (ARCHITECTURE.md).
MODELS = ("arch", "io", "neurons", "inputs", "network", "conversion")
ROOMS = {
    "arch": (),
    "io": (),
    "data": ("io",),
    "neurons": (),
    "inputs": ("data",),
    "network": ("arch", "neurons"),
    "conversion": MODELS[:-1],
    "simulation": MODELS,
    "equality": ("arch", "io", "neurons", "network", "conversion", "simulation"),
    "training": MODELS,
    "report": ("arch", "io", "conversion", "simulation", "equality"),
}
ROOMS["exchange"] = tuple(ROOMS)
ROOMS["systems"] = tuple(ROOMS)
SHARED = ("errors", "options", "types")  # modules of the hall that every room may import
HALL = {"__init__.py", "__main__.py", "py.typed", *(f"{name}.py" for name in SHARED)}
WITHOUT_JAX = ("arch", "data", "systems/settings")
ACCELERATED = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
HEAVY = {"tensorflow", "tensorflow_datasets", "torch", "tonic", "snntorch", "spikingjelly"}
MAY_DRAW = "report/figures"
FILES = sorted(PACKAGE.rglob("*.py"))
INSIDE = [path for path in FILES if path.parent != PACKAGE]


def name_of(path):
    """Path below the package, as the tests are named."""
    return path.relative_to(PACKAGE).as_posix()


def offenders(check, files):
    """What a check of a file objects to, by the file's name, where it objects."""
    objections = {name_of(path): list(check(path)) for path in files}
    return {name: objected for name, objected in objections.items() if objected}


def imported(tree, path):
    """Full dotted names that a tree imports; ``from a import b`` gives a.b."""
    package = ("jaxsnn", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def module_of(parts):
    """The longest part of a dotted name that is a module or a package of jaxsnn."""
    for length in range(len(parts), 0, -1):
        place = PACKAGE.joinpath(*parts[:length])
        if place.is_dir() or place.with_suffix(".py").exists():
            return parts[:length]
    return ()


def inner_modules(tree, path):
    """Modules of jaxsnn that a tree imports; () is the hall, jaxsnn itself."""
    for name in imported(tree, path):
        parts = tuple(name.split("."))
        if parts[0] == "jaxsnn":
            yield module_of(parts[1:])


def forbidden(source, path):
    """Imports that the table does not allow, as (room, imported)."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    room, is_init = parts[0], parts[-1] == "__init__"
    for module in inner_modules(ast.parse(source), path):
        if not module:
            yield room, "jaxsnn"
        elif module in {(name,) for name in SHARED}:
            continue
        elif module[0] != room and module[0] not in ROOMS[room]:
            yield room, ".".join(module)
        elif module == (room,) and not is_init:  # its own room, and not one of its modules
            yield room, room


def executed_on_import(tree):
    """The tree without the bodies of functions and of ``if TYPE_CHECKING``."""

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


def test_the_package_holds_the_rooms_and_nothing_else():
    here = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert here == {*ROOMS, *HALL}
    for room in ROOMS:
        assert (PACKAGE / room / "__init__.py").exists()


def test_the_table_has_no_cycle():
    assert set(graphlib.TopologicalSorter(ROOMS).static_order()) == set(ROOMS)


def test_a_room_imports_only_what_the_table_allows():
    assert offenders(lambda path: forbidden(path.read_text(), path), INSIDE) == {}


def test_modules_import_each_other_in_one_direction():
    needs = {}
    for path in INSIDE:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] != "__init__":
            tree = executed_on_import(ast.parse(path.read_text()))
            needs[parts] = {module for module in inner_modules(tree, path) if module != parts}
    assert set(needs) <= set(graphlib.TopologicalSorter(needs).static_order())


@pytest.mark.parametrize(
    ("source", "where", "expected"),
    [
        ("from jaxsnn.network.net import Net", "report/table.py", [("report", "network.net")]),
        ("from jaxsnn import network", "neurons/leaky.py", [("neurons", "network")]),
        ("from jaxsnn import neurons", "network/net.py", []),
        ("from jaxsnn.arch.plan import plan", "network/net.py", []),
        ("def f():\n    import jaxsnn.io.files", "arch/plan.py", [("arch", "io.files")]),
        ("from jaxsnn import parse", "network/net.py", [("network", "jaxsnn")]),
        ("from jaxsnn.network.site import SiteModule", "network/net.py", []),
        ("from jaxsnn.network import site", "network/net.py", []),
        ("from jaxsnn.network import Net", "network/site.py", [("network", "network")]),
        ("from .site import SiteModule", "network/net.py", []),
        ("from ..systems import stages", "report/table.py", [("report", "systems.stages")]),
        ("from jaxsnn.network.net import Net", "network/__init__.py", []),
        ("from jaxsnn.nothing import x", "network/net.py", [("network", "jaxsnn")]),
    ],
)
def test_the_check_sees_wrong_imports(source, where, expected):
    assert list(forbidden(source, PACKAGE / where)) == expected


@functools.cache
def names_of_systems():
    """The attribute ``system`` of every class below systems/."""
    return sorted(
        ast.literal_eval(node.value)
        for path in (PACKAGE / "systems").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "system"
    )


# A method of conversion may be called as the system that it came from.
OUTSIDE = [p for p in FILES if not name_of(p).startswith(("systems/", "conversion/methods/"))]


def test_five_systems_have_names():
    assert names_of_systems() == [
        *("bayesian_spike_fusion", "fast_snn", "negative_spikes", "scatter_gather"),
        "surrogate_csnn",
    ]


def systems_named(path):
    """Names of systems among a file's strings."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and node.value in names_of_systems():
            yield node.value


def test_nothing_outside_of_systems_knows_a_systems_name():
    assert offenders(systems_named, OUTSIDE) == {}
    inside = offenders(systems_named, [PACKAGE / "systems/fast_snn/system.py"])
    assert inside == {"systems/fast_snn/system.py": ["fast_snn"]}


def accelerated(path):
    """Packages that bring JAX, or come with it, among a file's imports."""
    packages = {name.split(".")[0] for name in imported(ast.parse(path.read_text()), path)}
    return sorted(packages & ACCELERATED)


def test_specs_data_and_settings_do_not_import_jax():
    without = [path for path in FILES if name_of(path).startswith(WITHOUT_JAX)]
    assert offenders(accelerated, without) == {}
    assert set(offenders(accelerated, FILES)) & {"network/net.py", "conversion/convert.py"}


def heavy(path):
    """Packages that a file imports when it is imported, and should not."""
    tree = executed_on_import(ast.parse(path.read_text()))
    banned = HEAVY if name_of(path).startswith(MAY_DRAW) else HEAVY | {"matplotlib"}
    return sorted({name.split(".")[0] for name in imported(tree, path)} & banned)


def test_heavy_packages_are_imported_where_they_are_used():
    assert offenders(heavy, FILES) == {}


def test_importing_the_package_is_light(run_python):
    code = "import sys, jaxsnn; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(run_python(code).split())
    assert "jax" in loaded
    assert not loaded & {"matplotlib", "tensorflow_datasets", "sklearn", "orbax", *HEAVY}
