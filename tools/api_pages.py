"""Write a page of the API for each room of the package, from its public names.

    python tools/api_pages.py            # rewrite docs/api/
    python tools/api_pages.py --check    # status 1 where a page is not current

A page names every public symbol of its room and what kind it is; Sphinx takes the rest from the
docstrings. The index says of every name of ``jaxsnn`` which room it comes from.
"""

import argparse
import importlib
import inspect
import pkgutil
import re
import sys
import typing
from pathlib import Path
from types import ModuleType

import jaxsnn

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs/api"
ROOMS = (
    *("arch", "io", "data", "neurons", "inputs", "network", "conversion", "simulation"),
    *("equality", "training", "report", "exchange", "systems"),
)
"""In the order of ARCHITECTURE.md: a room imports from those before it."""


def public(module: ModuleType) -> list[str]:
    """Public names of a module: those that it lists, or what it defines itself."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def directive(module: ModuleType, name: str, title: str) -> str:
    """How Sphinx documents one public name; of a module what is public in it alone.

    Args:
        module: where the name is looked up.
        name: the name.
        title: what it is called in Python, with its module.
    """
    value = getattr(module, name)
    if inspect.ismodule(value):
        again = {id(getattr(module, one)) for one in public(module)}
        fresh = [one for one in public(value) if id(getattr(value, one)) not in again]
        inner = [directive(value, one, f"{title}.{one}") for one in fresh]
        return "\n\n".join([f".. rubric:: {title}", f".. automodule:: {value.__name__}", *inner])
    where = f"{module.__name__}.{name}"
    if inspect.isclass(value):
        defined = f"{value.__module__}.{value.__qualname__}"
        renamed = value.__name__ != name
        heading = f".. rubric:: {title}\n\n" if renamed else ""
        return f"{heading}.. autoclass:: {defined if renamed else where}\n   :members:"
    if callable(value) and typing.get_origin(value) is None:
        return f".. autofunction:: {where}"
    return f".. autodata:: {where}\n   :no-value:"


def documented() -> dict[str, set[str]]:
    """The names under which Sphinx must know a room's public symbols, without its modules."""
    return {room: _documented(importlib.import_module(f"jaxsnn.{room}")) for room in ROOMS}


def _documented(module: ModuleType) -> set[str]:
    names: set[str] = set()
    for line in page_of(module).splitlines():
        kind, separator, name = line.partition(":: ")
        if separator and kind in (".. autoclass", ".. autofunction", ".. autodata"):
            names.add(name)
    return names


def page_of(module: ModuleType) -> str:
    """The Markdown of one room; one without public names lists its modules."""
    parts = [directive(module, name, f"{module.__name__}.{name}") for name in public(module)]
    body = "\n\n".join([f".. automodule:: {module.__name__}", *parts])
    page = f"# `{module.__name__}`\n\n```{{eval-rst}}\n{body}\n```\n"
    return page if parts else f"{page}\n{modules_of(module)}"


def modules_of(package: ModuleType) -> str:
    """A table of the modules below a package and what each is for, by its first sentence."""
    lines = ["| module | what it holds |", "| --- | --- |"]
    for module_info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(module_info.name)
        summary = (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
        plain = re.sub(r":\w+:`(.+?)`|``(.+?)``", r"`\1\2`", summary)
        lines.append(f"| `{module_info.name.removeprefix('jaxsnn.')}` | {plain} |")
    return "\n".join([*lines, ""])


def room_of(name: str) -> str:
    """The room that a name of ``jaxsnn`` comes from; empty for what belongs to none."""
    value = getattr(jaxsnn, name)
    for room in ROOMS:
        module = importlib.import_module(f"jaxsnn.{room}")
        if value is module or getattr(module, name, None) is value:
            return room
    return ""


def index() -> str:
    """Rooms, and the names of ``jaxsnn`` with theirs."""
    lines = [
        "# API by room",
        "",
        "`jaxsnn` has thirteen rooms; each imports only from those above it. What is needed most",
        "is also a name of `jaxsnn` itself.",
        "",
        "| room | what it holds |",
        "| --- | --- |",
    ]
    for room in ROOMS:
        module = importlib.import_module(f"jaxsnn.{room}")
        summary = (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")
        lines.append(f"| [`{room}`]({room}.md) | {summary} |")
    lines += ["", "## Names of `jaxsnn`", "", "| name | room |", "| --- | --- |"]
    for name in public(jaxsnn):
        room = room_of(name)
        lines.append(f"| `{name}` | {f'[`{room}`]({room}.md)' if room else 'errors'} |")
    toctree = ["", "```{toctree}", ":hidden:", "", *ROOMS, "```", ""]
    return "\n".join([*lines, *toctree])


def pages() -> dict[str, str]:
    """Every page by its file's name."""
    modules = {room: importlib.import_module(f"jaxsnn.{room}") for room in ROOMS}
    return {"index.md": index(), **{f"{name}.md": page_of(one) for name, one in modules.items()}}


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    chosen = parser.parse_args(arguments)
    stale = False
    for name, text in pages().items():
        path = PAGES / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale = True
        if chosen.check:
            print(f"{path} is not current; run tools/api_pages.py")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(chosen.check and stale)


if __name__ == "__main__":
    sys.exit(main())
