"""Weights in files without any program: safetensors and NumPy's npz."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
import safetensors

from jaxsnn.errors import UserError, shown
from jaxsnn.exchange.weights import Budget, Weights, contiguous, natural
from jaxsnn.io.arrays import load_arrays
from jaxsnn.io.npz import check_header

_DTYPES: dict[str, Any] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16, "C64": "<c8",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
}  # fmt: skip


def read_safetensors(content: bytes, place: str, budget: Budget) -> Weights:
    """Read a safetensors file, which keeps no order of layers.

    Raises:
        UserError: it is damaged, or has a type that NumPy lacks.
    """
    try:
        entries = cast("list[tuple[str, dict[str, Any]]]", safetensors.deserialize(content))
    except safetensors.SafetensorError as error:
        reason = shown(str(error)).strip("'\"")
        raise UserError(f"{place}: damaged safetensors ({reason}); get the file again") from error
    arrays: dict[str, np.ndarray] = {}
    for name, entry in sorted(entries, key=lambda pair: natural(pair[0])):
        if entry["dtype"] not in _DTYPES:
            raise UserError(
                f"{place}, {shown(name)}: dtype {entry['dtype']}; save it as float32 (F32)"
            )
        budget.spend(len(entry["data"]), shown(name))
        flat = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]])
        try:
            arrays[name] = contiguous(flat.reshape(entry["shape"])).copy()
        except ValueError as error:  # more axes, or longer ones, than an array has
            raise UserError(f"{place}, {shown(name)}: {error}; save it again") from error
    return Weights(arrays, place, "safetensors", ordered=False)


def read_npz(archive: zipfile.ZipFile, path: Path, budget: Budget) -> Weights:
    """Read an npz file of plain arrays.

    Raises:
        UserError: it is damaged, pickled, has NaN, a type that is no single number (bfloat16 as
            NumPy writes it, a record), or says that it is larger than it may be.
    """
    for info in archive.infolist():
        budget.spend(info.file_size, shown(info.filename))
        check_header(archive, info, f"{path}, {shown(info.filename)}")
    arrays, _ = load_arrays(path)
    for name, array in arrays.items():
        if array.dtype.kind == "V":
            raise UserError(f"{path}, {shown(name)}: dtype {array.dtype}; save it as float32")
    return Weights({name: contiguous(array) for name, array in arrays.items()}, str(path), "npz")
