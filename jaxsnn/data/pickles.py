"""Pickled dicts of plain values and byte arrays, read without running what stands in them.

A pickle may name any function and have it called. These are read by an unpickler that knows four
names and stands in for each itself: a file runs no code, not even NumPy's.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from jaxsnn.data.base import Images
from jaxsnn.errors import UserError
from jaxsnn.types import Untyped


def read_pickle(content: bytes, place: str) -> dict[object, Untyped]:
    """Read a pickled dict of byte strings, numbers, lists and uint8 arrays, and nothing else.

    Any other global is refused before it is imported. Strings of Python 2 become ``bytes``.

    Args:
        content: of the file.
        place: the file's name, for messages.

    Raises:
        UserError: it asks for anything but an array of bytes, is damaged, or is no dict. The
            message names the place.
    """
    file = io.BytesIO(content)
    try:
        _check_memo(file)
        unpickled = _Unpickler(file, encoding="bytes").load()
    except _ForbiddenError as error:
        msg = f"{place}: refused: it asks for {error}, which no array of bytes needs; nothing of it"
        raise UserError(f"{msg} was run; get the file again from its author") from error
    except Exception as error:  # a damaged pickle raises nearly anything; the remedy is the same
        raise damaged(place, "pickle", error) from error
    if not isinstance(unpickled, dict) or file.read(1):
        msg = f"{place}: not a pickled dict and nothing after it; get the file again"
        raise UserError(msg)
    pairs = cast("dict[object, Untyped]", unpickled).items()
    return {key: getattr(value, "array", value) for key, value in pairs}


def as_list(value: object) -> list[object] | None:
    """The value, if it is a list."""
    return cast("list[object]", value) if isinstance(value, list) else None


def as_array(value: object) -> Images | None:
    """The value, if it is an array: ``read_pickle`` lets none in but of bytes."""
    return cast("Images", value) if isinstance(value, np.ndarray) else None


class _ForbiddenError(pickle.UnpicklingError):
    """A pickle asks for a global that is not admitted."""


class _Dtype:
    """Stands in for numpy.dtype: its code. Byte order and alignment are moot for bytes."""

    def __init__(self, code: object, *options: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands in for an array that is being rebuilt; the state brings shape, dtype and bytes."""

    array: Images | None = None

    def __setstate__(self, state: tuple[Untyped, ...]) -> None:
        _, shape, dtype, fortran, content = state
        # Plain and short before anything is formatted or multiplied: both can be made endless.
        code = dtype.code if isinstance(dtype.code, str | bytes) else "?"
        if code not in ("u1", b"u1"):
            raise UserError(f"an array of type {code[:8]!r}, wanted 'u1', unsigned bytes")
        if not (len(shape) <= 4 and all(type(n) is int and 0 <= n < 2**32 for n in shape)):
            raise UserError("an array whose shape is not a few whole numbers")
        size = len(content) if isinstance(content, bytes) else 0
        if size != math.prod(shape):
            raise UserError(f"an array of shape {shape} with {size} bytes")
        flat = np.frombuffer(content, np.uint8)
        self.array = flat.reshape(shape, order="F" if fortran else "C")


@dataclass(frozen=True)
class _Global:
    """What a pickle gets for a name: it can be called, and not be given a state."""

    call: Callable[..., object]

    def __call__(self, *arguments: object) -> object:
        return self.call(*arguments)

    def __setstate__(self, state: object) -> None:
        # Without this method a pickle could set attributes, and so change what later files get.
        raise pickle.UnpicklingError("it gives a state to a global")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Untyped:
        """Admit what an array of bytes needs, under the names of NumPy 1 and 2."""
        match module_name, global_name:
            case (("numpy.core.multiarray" | "numpy._core.multiarray"), "_reconstruct"):
                return _Global(lambda *_: _Array())
            case "numpy", "dtype":
                return _Global(_Dtype)
            case "numpy", "ndarray":
                return None  # an argument of _reconstruct, never called
            case "_codecs", "encode":
                # So Python 3 writes byte strings in the older protocols, always in this encoding.
                return _Global(_latin1)
            case _:
                raise _ForbiddenError(f"{module_name:.80}.{global_name:.80}")


def _latin1(text: str, _: object) -> bytes:
    return text.encode("latin1")


def _check_memo(file: io.BytesIO) -> None:
    """Refuse a memo entry that no file of this length has: unpickling would allocate it."""
    length = len(file.getbuffer())
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > length:
            raise pickle.UnpicklingError(f"memo entry {argument} in {length} bytes")
    file.seek(0)


def damaged(place: str, kind: str, error: Exception) -> UserError:
    """What to raise for a file that cannot be read, whatever its library called the reason."""
    reason = f"{type(error).__name__}: {error!s:.120}"
    return UserError(f"{place}: damaged or incomplete {kind} ({reason}); get the file again")
