"""What torch writes into a pickle: names that stand for storages and for views of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import cast

from jaxsnn.errors import UserError, shown
from jaxsnn.exchange.pickle_machine import Function, Name, run
from jaxsnn.exchange.torch_views import DTYPES, Storage, Tensor

MOST_AXES = 32

_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}  # fmt: skip


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
    name = dtype.text.removeprefix("torch.") if isinstance(dtype, Name) else ""
    if name not in DTYPES:
        raise UserError(f"a tensor whose dtype is {name or shown(dtype)}")
    return _view(storage, offset, shape, strides, name)


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
    **{f"torch.{name}": None for name in (*_STORAGES, *DTYPES)},
}
