"""Run the notebooks, and store what they print and draw in them.

    python tools/notebook_outputs.py [01 02 ...]        # store the outputs of all, or of some
    python tools/notebook_outputs.py --check [01 ...]   # run again: status 1 where numbers differ

What is stored does not depend on when and where it ran: no times, counters or progress bars. A
notebook's metadata keep a check sum of its code, so that a test sees outputs that belong to other
code without running anything, and the version of JAX, which training depends on: where it is the
same, numbers may differ by a relative 1 % and by 0.02; where it is not, words alone are compared.
"""

import argparse
import hashlib
import importlib.metadata
import math
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PICTURES = ("image/png", "image/svg+xml")
SHOWN = ("text/plain", "text/markdown", *PICTURES)
"""Kinds of output that are kept; HTML repeats the text."""
NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")
RELATIVE, ABSOLUTE = 0.01, 0.02
TEMPORARY = re.compile(re.escape(tempfile.gettempdir()) + r"/tmp\w+")
"""Folders of the moment, whose names are of chance."""

Notebook = Any


def code(notebook: Notebook) -> list[Any]:
    """The cells that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def checksum(notebook: Notebook) -> str:
    """Of the code of all cells."""
    text = "\0".join(cell.source for cell in code(notebook))
    return hashlib.sha256(text.encode()).hexdigest()


def executed(path: Path) -> Notebook:
    """A notebook after a run in its folder, with outputs as they are stored."""
    notebook = nbformat.read(path, as_version=4)
    language = dict(notebook.metadata.get("language_info", {}))
    resources = {"metadata": {"path": str(path.parent)}}
    limits = {"timeout": 7200, "startup_timeout": 300}
    NotebookClient(notebook, kernel_name="python3", resources=resources, **limits).execute()
    for cell in code(notebook):
        cell.execution_count = None
        cell.metadata.pop("execution", None)
        cell.outputs = [kept for output in cell.outputs if (kept := stored(output)) is not None]
    notebook.metadata["language_info"] = language  # without the version that ran it
    jax = importlib.metadata.version("jax")
    notebook.metadata["jaxsnn"] = {"code": checksum(notebook), "jax": jax}
    return notebook


def stored(output: Any) -> Any:
    """An output without what depends on the moment; None for stderr and for progress bars."""
    if output.output_type == "stream":
        output.text = TEMPORARY.sub("FOLDER", output.text)
        return None if output.name == "stderr" else output
    if output.output_type == "execute_result":
        output.execution_count = None
    if "data" in output:
        output.data = {kind: value for kind, value in output.data.items() if kind in SHOWN}
        output.metadata = {}
        if output.output_type == "display_data" and list(output.data) == ["text/plain"]:
            return None
    return output


def texts(notebook: Notebook) -> Iterator[tuple[str, ...]]:
    """What every cell of code prints or returns, a text for each output; figures by their kind."""
    for cell in code(notebook):
        yield tuple(
            output.text if output.output_type == "stream" else _shown(output.get("data", {}))
            for output in cell.outputs
        )


def _shown(data: dict[str, str]) -> str:
    return "a figure" if data.keys() & set(PICTURES) else data.get("text/plain", "")


def differences(one: Notebook, other: Notebook) -> list[str]:
    """Where two runs of a notebook say different things, a line for each.

    Numbers are compared where both ran with the same version of JAX.
    """
    lines: list[str] = []
    numbers = jax_of(one) == jax_of(other) != ""
    for number, (here, there) in enumerate(zip(texts(one), texts(other), strict=True), 1):
        if len(here) != len(there):
            lines.append(f"cell {number}: {len(here)} outputs and {len(there)}")
            continue
        lines += [
            f"cell {number}: {left.strip()!r} and {right.strip()!r}"
            for left, right in zip(here, there, strict=True)
            if not alike(left, right, numbers)
        ]
    return lines


def jax_of(notebook: Notebook) -> str:
    """Version of JAX that a notebook ran with, empty where it does not say."""
    return notebook.metadata.get("jaxsnn", {}).get("jax", "")


def alike(left: str, right: str, numbers: bool = True) -> bool:
    """Whether two texts have the same words, and (if asked for) numbers within the tolerance.

    >>> alike("accuracy 97.22%, exact", "accuracy 97.50%, exact"), alike("exact", "approximate")
    (True, False)
    """
    if NUMBER.sub("#", left).split() != NUMBER.sub("#", right).split():
        return False
    if not numbers:
        return True
    pairs = zip(NUMBER.findall(left), NUMBER.findall(right), strict=True)
    values = ((float(a.replace(",", "")), float(b.replace(",", ""))) for a, b in pairs)
    return all(math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE) for a, b in values)


def repository() -> str:
    """The repository's address, where pyproject.toml has one, else empty."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "")


def in_colab(address: str, name: str) -> str:
    """Where Colab opens a notebook of a repository on GitHub, empty for other addresses."""
    host, _, place = address.partition("github.com/")
    if host != "https://" or not place:
        return ""
    return f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{name}"


def main(arguments: list[str] | None = None) -> int:
    """Run, and store or compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", help="how the names of the notebooks begin")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    chosen = parser.parse_args(arguments)
    starts = tuple(chosen.names) or ("",)
    differ = False
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if not path.name.startswith(starts):
            continue
        print(path.name, flush=True)
        notebook = executed(path)
        if not chosen.check:
            nbformat.write(notebook, path)
            continue
        changed = differences(nbformat.read(path, as_version=4), notebook)
        differ = differ or bool(changed)
        print("\n".join(changed))
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
