"""Both containers of torch, written by hand: pickles from opcodes, storages from bytes."""

import io
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
KINDS = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "complex64": "ComplexFloatStorage",
    "complex128": "ComplexDoubleStorage",
}


@dataclass(frozen=True)
class Global:
    """A name that the reader has to look up."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """A function and its arguments, a tuple."""

    function: Any
    arguments: Any


@dataclass(frozen=True)
class Outside:
    """A reference to something outside the pickle."""

    identifier: Any


@dataclass(frozen=True)
class Raw:
    """Opcodes as they stand."""

    content: bytes


ORDERED = Call(Global("collections", "OrderedDict"), ())


def opcodes(value: Any) -> bytes:
    """What builds a value on the stack of an unpickler."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            size = value.bit_length() // 8 + 1
            return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            text = value.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            return b"}(" + b"".join(opcodes(k) + opcodes(v) for k, v in value.items()) + b"u"
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            return opcodes(value.function) + opcodes(value.arguments) + b"R"
        case Outside():
            return opcodes(value.identifier) + b"Q"
        case Raw():
            return value.content
    raise TypeError(f"no opcodes for {value!r}")


def pickled(value: Any) -> bytes:
    """A pickle of protocol 2."""
    return b"\x80\x02" + opcodes(value) + b"."


def storage(key: str, kind: str, size: int) -> Outside:
    """A reference to a storage of ``size`` elements."""
    return Outside(("storage", Global("torch", kind), key, "cpu", size))


def tensor(where, shape, strides, offset=0, function="_rebuild_tensor_v2") -> Call:
    """A view of a storage."""
    rebuild = Global("torch._utils", function)
    return Call(rebuild, (where, offset, tuple(shape), tuple(strides), False, ORDERED))


def plain(key: str, array: np.ndarray) -> Call:
    """A tensor that is all of its storage."""
    strides = tuple(step // array.itemsize for step in np.array(array, order="C").strides)
    return tensor(storage(key, KINDS[array.dtype.name], array.size), array.shape, strides)


def zipped(value: Any, storages: dict[str, bytes], **members: bytes) -> bytes:
    """The container of a zip archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("net/data.pkl", value if isinstance(value, bytes) else pickled(value))
        for key, piece in storages.items():
            archive.writestr(f"net/data/{key}", piece)
        for name, piece in members.items():
            archive.writestr(f"net/{name}", piece)
        archive.writestr("net/version", b"3\n")
    return content.getvalue()


def legacy(value: Any, storages: dict[str, tuple[int, bytes]]) -> bytes:
    """The container of five pickles, and storages behind them."""
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    pickles = [MAGIC, 1001, facts, value, list(storages)]
    pieces = [struct.pack("<q", size) + piece for size, piece in storages.values()]
    return b"".join(map(pickled, pickles)) + b"".join(pieces)


def both(arrays: dict[str, np.ndarray], wrap=lambda tensors: tensors) -> dict[str, bytes]:
    """Arrays in both containers; ``wrap`` puts their state dict into a checkpoint."""
    tensors = {name: plain(str(n), array) for n, (name, array) in enumerate(arrays.items())}
    pieces = {str(n): array.tobytes() for n, array in enumerate(arrays.values())}
    sizes = {str(n): array.size for n, array in enumerate(arrays.values())}
    counted = {key: (sizes[key], piece) for key, piece in pieces.items()}
    value = wrap(tensors)
    return {"zip": zipped(value, pieces), "legacy": legacy(value, counted)}
