"""Tensors as torch keeps them: views of storages, which several tensors may share.

A view is an offset into a storage, sizes and strides, all in elements. Nothing is trusted: every
number is looked at before memory is touched.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import ml_dtypes
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.exchange.weights import contiguous

_BEYOND_NUMPY = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
_NUMPYS = (
    *("float64", "float32", "float16", "complex64", "complex128", "bool"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
)
DTYPES: dict[str, np.dtype] = {
    **{name: np.dtype(name) for name in _NUMPYS},
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in _BEYOND_NUMPY},
}


class Storage(NamedTuple):
    """A flat piece of memory beside the pickle: its key there, elements and their type."""

    key: str
    size: int
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of it."""
        return self.size * DTYPES[self.dtype].itemsize


class Tensor(NamedTuple):
    """A view of a storage; offset and strides count elements of ``dtype``."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, which may be more than its storage has."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    @property
    def end(self) -> int:
        """Bytes of its storage up to its last element."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in steps)
        return (last + 1) * DTYPES[self.dtype].itemsize


def values(tensor: Tensor, content: memoryview, order: str = "<") -> np.ndarray:
    """Elements of a tensor in the order of its axes, in memory of its own.

    Args:
        tensor: whose storage is ``content``.
        content: bytes of the storage.
        order: of the bytes in an element, "<" (little end first) or ">".

    Returns:
        Array ``tensor.shape``; bfloat16 and 8-bit floats as float32.

    Raises:
        UserError: the tensor reaches beyond its storage.
    """
    dtype = DTYPES[tensor.dtype]
    if tensor.end > len(content):
        raise UserError(
            f"a tensor of shape {tensor.shape} with strides {tensor.strides} at {tensor.offset} "
            f"reaches byte {tensor.end} of a storage of {len(content)}"
        )
    if 0 in tensor.shape:
        return contiguous(np.zeros(tensor.shape, dtype))
    # Numbers that NumPy cannot swap, and bytes that are no booleans, come as integers.
    carrier = dtype if dtype.kind == "c" else np.dtype(f"u{dtype.itemsize}")
    strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
    raw = np.ndarray(
        tensor.shape,
        carrier.newbyteorder(cast("Any", order)),
        content,
        tensor.offset * dtype.itemsize,
        strides,
    )
    whole = np.array(raw, carrier, order="C")
    return whole != 0 if dtype.kind == "b" else contiguous(whole.view(dtype))
