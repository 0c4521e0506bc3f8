"""Npz files that others have written: every member is looked at before it is unpacked.

A member's header may announce more than the file holds, which NumPy would try to allocate; a zip
archive may be encrypted or compressed in a way that nothing here unpacks. All of it is refused by
name, and nothing that a file contains is run.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from jaxsnn.errors import UserError, shown

HIGHEST_RATIO = 1033  # deflate's: 258 bytes from two bits
SLACK = 1024  # bytes that a small member may be off that ratio
_ENCRYPTED = 0x1
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """Every array of an npz file by name; names end where ``.npy`` begins.

    Raises:
        UserError: no such file, no archive, a damaged one, or a member that is no plain array or
            is not what its header says. The message names the file and the member.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of an npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
            return {
                name: _array(archive, info, f"{path}, array {shown(name)}")
                for name, info in members.items()
            }
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise UserError(
            f"{path}: not a complete npz file of plain arrays ({_reason(path, error)}); write it "
            "again with numpy.savez or jaxsnn.io.save_arrays"
        ) from error


def check_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: str) -> None:
    """Refuse a member that is encrypted, unknown, or announces another size than it has.

    Raises:
        UserError: naming ``place`` and what is wrong.
    """
    if info.flag_bits & _ENCRYPTED:
        raise UserError(f"{place}: it is encrypted; unpack it, and write the arrays without")
    if info.compress_type not in _METHODS:
        raise UserError(
            f"{place}: compression method {info.compress_type} is unknown here; write it again "
            "with numpy.savez or numpy.savez_compressed"
        )
    if info.file_size > HIGHEST_RATIO * info.compress_size + SLACK:
        raise UserError(
            f"{place}: {info.file_size:,} bytes are announced of {info.compress_size:,} compressed "
            "ones, more than deflate can hold; get the file again"
        )
    try:
        with archive.open(info) as member:
            shape, dtype = _header(member)
            there = info.file_size - member.tell()
    except Exception as error:  # whatever decompression and the header's parser raise
        raise UserError(f"{place}: no plain array ({_said(error)}); write it again") from error
    if dtype.hasobject:
        raise UserError(f"{place}: it is pickled, which is never read; save plain arrays")
    announced = math.prod(shape) * dtype.itemsize
    if announced != there:
        raise UserError(
            f"{place}: the header announces {announced:,} bytes (shape {shape}, {dtype}), but "
            f"{there:,} are there; write it again"
        )


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: str) -> np.ndarray:
    check_header(archive, info, place)
    try:
        with archive.open(info) as member:
            return np.lib.format.read_array(member, allow_pickle=False)
    except MemoryError:
        raise UserError(
            f"{place}: {info.file_size:,} bytes do not fit into memory; give a smaller file"
        ) from None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{place}: damaged ({_said(error)}); write it again") from error


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that the header of an array announces."""
    version = np.lib.format.read_magic(member)
    old = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return tuple(int(size) for size in shape), dtype


def _reason(path: Path, error: Exception) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:  # it may be one that we cannot read
        if file.read(6) == b"\x93NUMPY":
            return "it holds one array, as numpy.save writes it"
    return _said(error)


def _said(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]
