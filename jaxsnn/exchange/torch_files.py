"""The two containers that ``torch.save`` has written: a zip archive, and before 2020 pickles.

An archive has ``data.pkl`` and a member ``data/<key>`` for each storage. The legacy file is five
pickles (a magic number, a version, facts about the machine, the object, the keys of the storages)
and then, key by key, a storage's number of elements (int64) and its bytes.

Source: ``torch/serialization.py`` of PyTorch 0.4 to 2.13.
"""

from __future__ import annotations

import functools
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import numpy as np

from jaxsnn.errors import UserError, shown
from jaxsnn.exchange import torch_pickle, torch_views
from jaxsnn.exchange.pickle_machine import RefusedError
from jaxsnn.exchange.torch_views import Storage, Tensor
from jaxsnn.exchange.weights import Budget

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_REMEDY = "nothing of it was run; save model.state_dict() alone, with torch.save or as safetensors"


class Checkpoint(NamedTuple):
    """The object in a file, and what turns its tensors into arrays.

    Attributes:
        value: plain values with :class:`Tensor` among them.
        array: ``(name, tensor) -> array``; the name is for messages.
    """

    value: object
    array: Callable[[str, Tensor], np.ndarray]


def read_archive(archive: zipfile.ZipFile, place: str, budget: Budget) -> Checkpoint:
    """Read the zip container.

    Raises:
        UserError: it is damaged, compressed, a compiled TorchScript program, or holds anything but
            tensors and plain values.
    """
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise UserError(f"{place}: {len(pickles)} files data.pkl in it, wanted one; save it again")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in members:
        raise UserError(f"{place}: a compiled TorchScript program; save model.state_dict() instead")

    def member(name: str) -> bytes:
        return _member(archive, members.get(root + name), f"{place}, {name}", budget)

    order = "<"
    if f"{root}byteorder" in members:
        order = {b"little": "<", b"big": ">"}.get(member("byteorder"), "?")
    if order == "?":
        raise UserError(f"{place}, byteorder: neither little nor big; save it again")
    value, _ = _loaded(io.BytesIO(member("data.pkl")), f"{place}, data.pkl")

    def storage(key: str) -> memoryview:
        return memoryview(member(f"data/{key}"))

    return Checkpoint(value, _arrays(functools.cache(storage), place, budget, order))


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, place: str, budget: Budget
) -> bytes:
    """Bytes of a member, which torch stores plainly: so it has no more of them than the file."""
    if info is None:
        raise UserError(f"{place}: missing in the archive; get the file again")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise UserError(f"{place}: compressed, as torch never does; save it with torch.save")
    budget.spend(info.file_size, info.filename[-40:])
    try:
        return archive.read(info)
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{place}: damaged ({error}); get the file again, or if torch left out check sums, "
            "save it with torch.serialization.set_crc32_options(True)"
        ) from error


def read_legacy(content: bytes, place: str, budget: Budget) -> Checkpoint:
    """Read the legacy container.

    Raises:
        UserError: it is damaged, or holds anything but tensors and plain values.
    """
    file = io.BytesIO(content)
    if _loaded(file, place)[0] != MAGIC:
        raise UserError(f"{place}: a pickle, but none of torch; {_REMEDY}")
    if (version := _loaded(file, place)[0]) != PROTOCOL:
        raise UserError(f"{place}: version {shown(version)} of the container; save it again")
    _loaded(file, place)  # facts about the machine that wrote it
    value, storages = _loaded(file, place)
    keys, _ = _loaded(file, place)
    pieces = _pieces(memoryview(content), file.tell(), keys, storages, place)
    return Checkpoint(value, _arrays(pieces.__getitem__, place, budget, "<"))


def _pieces(
    content: memoryview, start: int, keys: object, storages: Mapping[str, Storage], place: str
) -> dict[str, memoryview]:
    """The bytes of every storage from ``start`` on, where they are: nothing is copied."""
    entries = cast("list[object]", keys) if isinstance(keys, list) else []
    listed = [key for key in entries if isinstance(key, str)]  # writing others out may never end
    if len(listed) < len(entries) or sorted(listed) != sorted(storages):
        raise UserError(f"{place}: its list of storages is not that of its tensors; get it again")
    pieces: dict[str, memoryview] = {}
    for key in listed:
        stop = start + 8 + storages[key].nbytes
        if stop > len(content):
            raise UserError(
                f"{place}, storage {shown(key)}: the file ends {stop - len(content):,} bytes too "
                "early; get it again"
            )
        (size,) = struct.unpack("<q", content[start : start + 8])
        if size != storages[key].size:
            raise UserError(
                f"{place}, storage {shown(key)}: {size} elements in the file, "
                f"{storages[key].size} for its tensors; get the file again"
            )
        pieces[key], start = content[start + 8 : stop], stop
    return pieces


def _loaded(file: io.BytesIO, place: str) -> tuple[object, dict[str, Storage]]:
    """The next pickle of a file, and the storages that it refers to."""
    try:
        return torch_pickle.load(file)
    except RefusedError as error:
        raise UserError(f"{place}: refused: {error}; {_REMEDY}") from error
    except ValueError as error:
        reason = shown(str(error)).strip("'\"")
        raise UserError(f"{place}: damaged or incomplete ({reason}); get the file again") from error


def _arrays(
    content: Callable[[str], memoryview], place: str, budget: Budget, order: str
) -> Callable[[str, Tensor], np.ndarray]:
    """What turns tensors into arrays."""

    def array(name: str, tensor: Tensor) -> np.ndarray:
        budget.spend(tensor.nbytes, shown(name))
        piece = content(tensor.storage.key)
        try:
            if len(piece) != tensor.storage.nbytes:
                size = tensor.storage.nbytes
                raise UserError(f"its storage has {len(piece)} bytes instead of {size}")
            return torch_views.values(tensor, piece, order)
        except ValueError as error:
            raise UserError(f"{place}, {shown(name)}: {error}; get the file again") from error

    return array
