"""Arrays and texts of an HDF5 file, without following it to other files (h5py, extra ``keras``)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from jaxsnn.errors import UserError, shown
from jaxsnn.exchange.weights import Budget, contiguous
from jaxsnn.types import Untyped

MOST = 100_000  # groups and arrays
DEEPEST = 64  # groups inside each other


@dataclass(frozen=True)
class Hdf5:
    """What a file holds, by path from its root, without a slash in front.

    Attributes:
        arrays: of its datasets, of numbers only.
        texts: group -> attribute -> strings (one, or several); "" is the root.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    texts: dict[str, dict[str, list[str]]] = field(default_factory=dict[str, dict[str, list[str]]])


def read(content: bytes, place: str, budget: Budget, *, without: tuple[str, ...] = ()) -> Hdf5:
    """Read all of a file.

    Args:
        content: of the file.
        place: for messages.
        budget: of memory.
        without: groups of the root that are left out.

    Raises:
        UserError: h5py is missing; the file is damaged, refers to other files or to itself, or
            says that it is larger than it may be.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f"{place}: HDF5 needs h5py, which is not installed: pip install '.[keras]'"
        ) from error
    hdf5 = Hdf5()
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            for path, node in _nodes(h5py, file, place, without):
                budget.spend(len(path), shown(path))
                if isinstance(node, h5py.Dataset):
                    hdf5.arrays[path] = _array(node, f"{place}, {shown(path)}", budget)
                else:
                    hdf5.texts[path] = {name: _strings(value) for name, value in node.attrs.items()}
    except UserError:
        raise
    except Exception as error:  # HDF5 raises nearly anything for a damaged file
        reason = shown(str(error)).strip("'\"")
        raise UserError(f"{place}: damaged or incomplete HDF5 ({reason}); get it again") from error
    return hdf5


def _nodes(
    h5py: Untyped, file: Untyped, place: str, without: tuple[str, ...]
) -> Iterator[tuple[str, Untyped]]:
    """Groups and datasets by path, the root first; links that lead elsewhere are refused."""
    waiting: list[tuple[str, Untyped]] = [("", file)]
    for _ in range(MOST):
        if not waiting:
            return
        path, node = waiting.pop()
        yield path, node
        if isinstance(node, h5py.Group):
            for name in reversed(list(node)):
                inner = f"{path}/{name}" if path else name
                if inner in without:
                    continue
                if not isinstance(node.get(name, getlink=True), h5py.HardLink):
                    raise UserError(f"{place}, {shown(inner)}: leads elsewhere; save it again")
                if inner.count("/") > DEEPEST:
                    raise UserError(f"{place}: groups inside themselves, or in {DEEPEST} others")
                waiting.append((inner, node[name]))
    raise UserError(f"{place}: more than {MOST:,} groups and arrays, or groups inside themselves")


def refuse_other_files(file: Untyped, place: str) -> None:
    """Refuse an open HDF5 file that another library would follow to other files.

    Args:
        file: of h5py.
        place: for messages.

    Raises:
        UserError: a link or an array of it leads to another file, or groups lie inside themselves.
    """
    import h5py

    for path, node in _nodes(h5py, file, place, ()):
        if isinstance(node, h5py.Dataset):
            _refuse_outside(node, f"{place}, {shown(path)}")


def _refuse_outside(dataset: Untyped, place: str) -> None:
    if dataset.is_virtual or dataset.external:
        raise UserError(f"{place}: its numbers are in another file; save it as one file")


def _array(dataset: Untyped, place: str, budget: Budget) -> np.ndarray:
    """The numbers of a dataset whose bytes are in this file."""
    _refuse_outside(dataset, place)
    if dataset.dtype.kind not in "biufc":
        raise UserError(f"{place}: dtype {dataset.dtype}; save it as float32")
    budget.spend(int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize, place)
    return contiguous(np.asarray(dataset[()]))


def _strings(value: Untyped) -> list[str]:
    """An attribute as strings that can be written; whatever is none is left out."""
    is_array = isinstance(value, np.ndarray)
    each: list[Untyped] = cast("np.ndarray", value).ravel().tolist() if is_array else [value]
    texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in each]
    # Where it is no UTF-8, h5py keeps bytes as halves of characters, which nothing can encode.
    return [item.encode("utf-8", "replace").decode() for item in texts if isinstance(item, str)]
