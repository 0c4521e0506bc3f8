"""Tensors as torch pickles them: views of storages that lie beside the pickle.

A tensor is a storage, an offset into it, sizes and strides, all in elements; several tensors may
share a storage. Nothing is trusted: every number is looked at before memory is touched.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from jaxsnn.errors import UserError, shown
from jaxsnn.exchange.pickle_machine import Function, Name, run
from jaxsnn.exchange.weights import contiguous

MOST_AXES = 32

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}  # fmt: skip
_BEYOND_NUMPY = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
_DTYPES: dict[str, np.dtype[Any]] = {
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in _BEYOND_NUMPY},
    **{name: np.dtype(name) for name in ("uint16", "uint32", "uint64")},
    **{name: np.dtype(name) for name in _STORAGES.values() if name not in _BEYOND_NUMPY},
}


class Storage(NamedTuple):
    """A flat piece of memory beside the pickle: its key there, elements and their type."""

    key: str
    size: int
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of it."""
        return self.size * _DTYPES[self.dtype].itemsize


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
        return math.prod(self.shape) * _DTYPES[self.dtype].itemsize

    @property
    def end(self) -> int:
        """Bytes of its storage up to its last element."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in steps)
        return (last + 1) * _DTYPES[self.dtype].itemsize


def load(file: io.BytesIO) -> tuple[object, dict[str, Storage]]:
    """The value of a pickle of torch, and the storages that it refers to, by key.

    :class:`Tensor` stands in the place of tensors.

    Raises:
        RefusedError: it holds something else than tensors and plain values.
        UserError: it is damaged.
    """
    storages: dict[str, Storage] = {}

    def outside(identifier: object) -> Storage:
        storage = _storage(identifier)
        if storages.setdefault(storage.key, storage) != storage:
            raise UserError(f"two storages with the key {shown(storage.key)}")
        return storage

    return run(file, _NAMES, outside), storages


def values(tensor: Tensor, content: memoryview, order: str = "<") -> NDArray[Any]:
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
    dtype = _DTYPES[tensor.dtype]
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


def _storage(identifier: object) -> Storage:
    """The storage that ``("storage", type, key, device, size[, part])`` names."""
    if not isinstance(identifier, tuple):
        raise UserError(f"a {shown(identifier)} instead of a storage")
    kind, storage, key, _, size, *part = cast("tuple[object, ...]", identifier)
    if kind != "storage" or not isinstance(storage, Name) or not isinstance(key, str):
        raise UserError("not a storage")
    if any(each is not None for each in part):
        raise UserError("a part of a storage, as torch wrote before version 0.4; save it again")
    dtype = _STORAGES.get(storage.text.removeprefix("torch.").removeprefix("storage."))
    if dtype is None:
        raise UserError(f"{storage.text} as a storage")
    return Storage(key, _whole(size, "elements of a storage"), dtype)


def _tensor(
    storage: object, offset: object, shape: object, strides: object, *rest: object
) -> Tensor:
    """Stands in for ``torch._utils._rebuild_tensor`` and ``_rebuild_tensor_v2``.

    The rest says whether there are gradients, and hooks, which are no matter here.
    """
    if any(rest[2:]):
        raise UserError("a conjugated or negated view; save tensor.resolve_conj()")
    return _view(storage, offset, shape, strides, None)


def _tensor_v3(
    storage: object, offset: object, shape: object, strides: object, *rest: object
) -> Tensor:
    """Stands in for ``torch._utils._rebuild_tensor_v3``, whose storage is plain bytes."""
    _, _, dtype, *more = rest
    if any(more):
        raise UserError("a conjugated or negated view; save tensor.resolve_conj()")
    if not isinstance(dtype, Name):
        raise UserError("a tensor without a dtype")
    return _view(storage, offset, shape, strides, dtype.text.removeprefix("torch."))


def _view(
    storage: object, offset: object, shape: object, strides: object, dtype: str | None
) -> Tensor:
    if not isinstance(storage, Storage):
        raise UserError(f"a tensor of a {shown(storage)}")
    sizes, steps = _axes(shape), _axes(strides)
    if len(sizes) != len(steps):
        raise UserError(f"{len(sizes)} sizes and {len(steps)} strides")
    return Tensor(
        storage, _whole(offset, "offset of a tensor"), sizes, steps, dtype or storage.dtype
    )


def _axes(numbers: object) -> tuple[int, ...]:
    if not isinstance(numbers, tuple) or len(cast("tuple[object]", numbers)) > MOST_AXES:
        raise UserError(f"sizes and strides are tuples of at most {MOST_AXES} numbers")
    return tuple(
        _whole(number, "size or stride of a tensor") for number in cast("tuple[object]", numbers)
    )


def _whole(number: object, what: str) -> int:
    """A number below 2^63, as torch's own are."""
    if type(number) is not int or not 0 <= number < 2**63:
        raise UserError(f"the {what} is {shown(number)}, not a whole number of 0 or more")
    return number


def _parameter(tensor: object, *_: object) -> object:
    """Stands in for ``torch._utils._rebuild_parameter``: the tensor that is trained."""
    if not isinstance(tensor, Tensor):
        raise UserError(f"a parameter that is a {shown(tensor)}")
    return tensor


def _ordered(*items: object) -> dict[object, object]:
    """Stands in for ``collections.OrderedDict``; Python 2 hands its items over at once."""
    ordered: dict[object, object] = {}
    for item in cast("list[object]", items[0]) if items else []:
        if not isinstance(item, list | tuple):
            raise UserError("items that are no pairs")
        key, value = cast("list[object]", item)
        if not isinstance(key, str):
            raise UserError(f"a {shown(key)} as the name of an entry")
        ordered[key] = value
    return ordered


_NAMES: Mapping[str, Function | None] = {
    "collections.OrderedDict": _ordered,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.storage.UntypedStorage": None,
    **{f"torch.{name}": None for name in (*_STORAGES, *_DTYPES)},
}
