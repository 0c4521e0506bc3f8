"""Arrays in and out of files: weights as one npz, named by their path in the tree of variables.

The names are those of the tree (``params/conv1/kernel``, ``batch_stats/conv1/norm/mean``), the
arrays plain, never pickled. A file is written whole or not at all.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.io.files import parse_object, write_bytes
from jaxsnn.io.npz import read_npz
from jaxsnn.types import Json, JsonObject, PyTree, Tree, Variables

Arrays: TypeAlias = dict[str, np.ndarray]
META = "meta.json"
UNITS = "kernel_units"  # in a file's description: name -> what one of its whole numbers is worth
_EARLIEST_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def flatten(tree: Variables, prefix: str = "") -> Tree:
    """Nested mapping to one level, names joined with "/"; a flat mapping comes back as it is.

    >>> flatten({"params": {"block1.conv1": {"kernel": 1}}, "batch_stats": {}})
    {'params/block1.conv1/kernel': 1}
    """
    flat: Tree = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(cast("Variables", value), f"{prefix}{name}/")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def unflatten(flat: Variables) -> Tree:
    """Names joined with "/" back to a nested dictionary; the inverse of ``flatten``.

    >>> unflatten({"params/conv1/kernel": 1, "params/conv1/bias": 2})
    {'params': {'conv1': {'kernel': 1, 'bias': 2}}}

    Raises:
        UserError: a name is an array and a folder of arrays at once.
    """
    tree: Tree = {}
    for name, value in flat.items():
        *folders, leaf = name.split("/")
        node = tree
        for folder in folders:
            inner: PyTree = node.setdefault(folder, {})
            if not isinstance(inner, dict):
                raise UserError(f"{name}: {folder!r} is an array and also holds arrays")
            node = cast("Tree", inner)
        if leaf in node:
            raise UserError(f"{name} is an array and also holds arrays; rename one of them")
        node[leaf] = value
    return tree


def save_arrays(
    path: str | Path,
    arrays: Variables,
    meta: Mapping[str, Json] | None = None,
    *,
    compressed: bool = False,
) -> None:
    """Write named arrays and a JSON description to one npz file, atomically and without pickle.

    Equal arrays give byte-identical files: members carry a fixed date.

    Args:
        path: the file to write; its folder is created.
        arrays: name -> array of booleans, integers, floats or strings.
        meta: anything JSON can hold; stored as the entry ``meta.json``.
        compressed: deflate the members: slow, and small for spikes.

    Raises:
        UserError: an array of a type that npz cannot hold without pickle, or the
          name ``meta.json``.
    """
    path = Path(path)
    members = {name: np.asarray(value) for name, value in arrays.items()}
    if META in members:
        raise UserError(f"{path}: the name {META!r} is kept for the description; rename the array")
    for name, array in members.items():
        if array.dtype.kind not in "biufU":
            raise UserError(f"{path}: {name} has dtype {array.dtype}; convert it to float32 first")
    members[META] = np.asarray(json.dumps(dict(meta or {})))
    content = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in members.items():
            info = zipfile.ZipInfo(f"{name}.npy", _EARLIEST_ZIP_DATE)
            info.compress_type = kind
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    write_bytes(path, content.getvalue())


def load_arrays(path: str | Path) -> tuple[Arrays, JsonObject]:
    """Read an npz file of plain arrays: ``(name -> array, description)``.

    A file without ``meta.json`` (written by NumPy itself, say) has an empty description. Kernels
    that were kept as whole numbers come back as what they are worth.

    Raises:
        UserError: the file is missing, truncated, no npz, encrypted, pickled, announces more than
          it holds, or holds a NaN, or its description is no JSON object; the message names the file
          and the array.
    """
    arrays = read_npz(path)
    meta = parse_object(str(arrays.pop(META, "{}")), f"{path}, {META}")
    try:
        arrays |= worth(arrays, meta.get(UNITS, {}))
    except UserError as error:
        raise UserError(f"{path}, {META}: {error}; write the file again") from error
    for name, array in arrays.items():
        _refuse_nan(f"{path}: {name}", array)
    return arrays, meta


def _refuse_nan(place: str, array: np.ndarray) -> None:
    if array.dtype.kind == "f" and np.isnan(array).any():
        first = tuple(int(index) for index in np.argwhere(np.isnan(array))[0])
        count = int(np.isnan(array).sum())
        raise UserError(f"{place} holds {count} NaN, the first at index {first}")


def load_params(source: str | Path | Variables, expected: Variables) -> Tree:
    """Variables from an npz file or a mapping, strictly by name, shape and kind of number.

    Floats may be of another width and whole numbers may stand for floats they equal exactly; every
    array comes back in the dtype that is expected.

    Args:
        source: path of an npz file, or a nested or flat mapping of arrays.
        expected: nested or flat mapping whose leaves have ``shape`` and ``dtype``.

    Returns:
        Nested dictionary of NumPy arrays, ``{"params": {"conv1": {"kernel": ...}}, ...}``.

    Raises:
        UserError: arrays are missing, extra, misshaped or of another kind, or hold NaN; the
          message names each of them and lists what was expected.

    >>> template = {"params/readout/bias": np.zeros(2, np.float32)}
    >>> load_params({"params": {"readout": {"bias": np.array([1, 2])}}}, template)
    {'params': {'readout': {'bias': array([1., 2.], dtype=float32)}}}
    """
    if isinstance(source, Mapping):
        place, arrays = "the given arrays", _as_arrays(source)
    else:
        place, arrays = str(source), load_arrays(source)[0]
    wanted = flatten(expected)
    problems = [f"missing {name}" for name in wanted if name not in arrays]
    problems += [f"unexpected {name}" for name in arrays if name not in wanted]
    loaded: Arrays = {}
    for name in (name for name in wanted if name in arrays):
        array, problem = _fit(name, arrays[name], wanted[name])
        loaded[name] = array
        problems += [problem] if problem else []
    if problems:
        listing = "\n  ".join(f"{n} {tuple(w.shape)} {w.dtype}" for n, w in wanted.items())
        raise UserError(f"{place}: " + "; ".join(problems) + f"\nexpected:\n  {listing}")
    return unflatten(loaded)


def worth(arrays: Arrays, units: Json) -> Arrays:
    """Kernels that are whole numbers as what those are worth, float32.

    Args:
        arrays: integers by name, and others.
        units: name -> what one is worth.

    Raises:
        UserError: units of something else than integers, or no positive finite numbers.

    >>> worth({"params/conv1/kernel": np.array([-3, 2], np.int8)}, {"params/conv1/kernel": 0.25})
    {'params/conv1/kernel': array([-0.75,  0.5 ], dtype=float32)}
    """
    if not isinstance(units, Mapping):
        raise UserError(f"{UNITS} is {units!r}, not a number for each kernel")
    floats: Arrays = {}
    for name, unit in cast("Mapping[str, Json]", units).items():
        codes = arrays.get(name)
        if codes is None or codes.dtype.kind not in "iu":
            raise UserError(f"{UNITS} names {name}, which is no array of whole numbers")
        if not isinstance(unit, float) or not 0 < unit < 2.0**64:
            raise UserError(f"{UNITS} of {name} is {unit!r}, not a positive finite number")
        floats[name] = (codes * np.float64(unit)).astype(np.float32)
    return floats


def _as_arrays(source: Variables) -> Arrays:
    arrays = {name: np.asarray(value) for name, value in flatten(source).items()}
    for name, array in arrays.items():
        _refuse_nan(name, array)
    return arrays


def _fit(name: str, array: np.ndarray, want: PyTree) -> tuple[np.ndarray, str]:
    """The array in the wanted dtype, and what is wrong with it ("" if nothing)."""
    dtype = np.dtype(want.dtype)
    if array.shape != tuple(want.shape):
        return array, f"{name} has shape {array.shape} instead of {tuple(want.shape)}"
    floating = not np.issubdtype(dtype, np.integer) and dtype.kind != "b"  # bfloat16 has kind "V"
    if array.dtype.kind not in ("iuf" if floating else "b" if dtype.kind == "b" else "iu"):
        return array, f"{name} has dtype {array.dtype} where {dtype} is expected"
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if array.dtype.kind == "f":
        lost = bool((np.isfinite(array) & ~np.isfinite(cast.astype(array.dtype))).any())
    else:  # back through Python-sized integers, where neither side wraps around
        lost = cast.astype(object).tolist() != array.astype(object).tolist()
    return cast, f"{name} holds values that {dtype} cannot represent" if lost else ""


def checksum(variables: Variables) -> int:
    """Of all arrays and their names."""
    total = 0
    for name, leaf in sorted(flatten(variables).items()):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return total
