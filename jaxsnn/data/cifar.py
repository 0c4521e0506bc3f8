"""The pickled batches in which the author of CIFAR-10 publishes its images.

A batch is a pickled dict: `data`, uint8 `[N, 3072]`, an image a row, all its red, then all its
green, then all its blue values; `labels`, a list of `N` class numbers; and `batch_label`, which
batch it is. `batches.meta` says how many images a batch has (Krizhevsky, "Learning multiple layers
of features from tiny images", 2009).

A pickle may name any function and have it called. These are read by an unpickler that knows four
names and stands in for each itself: a file runs no code, not even NumPy's.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import pickletools
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxsnn.data.base import Dataset, Images, Labels, check_labels, check_lengths

TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
META = "batches.meta"
FILES = (*TRAIN, TEST, META)
ARCHIVE = "cifar-10-python.tar.gz"
_CALLED = {TEST: b"testing batch 1 of 1"} | {
    file: f"training batch {file[-1]} of 5".encode() for file in TRAIN
}
_META_KEYS = (b"label_names", b"num_cases_per_batch", b"num_vis")
# A batch has 30 MiB; an archive that announces much more is not the author's.
_LARGEST = 2**28


def load_folder(
    folder: Path, name: str, classes: int, shape: tuple[int, int, int]
) -> Dataset | None:
    """Read the batches, or else the author's archive of them, from one folder.

    Args:
        folder: where to look. Batches come before the archive, which is not unpacked to disk.
        name: recorded in the data set.
        classes: number of classes.
        shape: `(H, W, C)` of an image.

    Returns:
        The data set, training images in the order of the batches, or None if the folder holds
        neither a batch nor the archive.

    Raises:
        ValueError: files are missing, one is damaged, asks for anything but an array, is another
            batch than its name says, has a label out of range, or images of another number, shape
            or dtype. The message names the file.
    """
    place, archive = folder, folder / ARCHIVE
    try:
        contents = {
            file: (folder / file).read_bytes() for file in FILES if (folder / file).is_file()
        }
    except OSError as error:
        raise _damaged(str(folder), "file", error) from error
    if not contents:
        if not archive.is_file():
            return None
        place, contents = archive, _members(archive)
    missing = [file for file in FILES if file not in contents]
    if missing:
        msg = f"{place} holds only a part of {name}; missing: {', '.join(missing)}"
        raise ValueError(f"{msg}; get {ARCHIVE} again and unpack it, or leave it alone there")
    count = _count(contents.pop(META), place / META, classes, shape)
    *train, test = (
        _batch(contents.pop(file), place / file, count, classes, shape) for file in (*TRAIN, TEST)
    )
    images, labels = (np.concatenate(part) for part in zip(*train, strict=True))
    return Dataset(images, labels, *test, classes, name, str(place))


def _read_pickle(content: bytes, place: str) -> dict[object, Any]:
    """Read a pickled dict of byte strings, numbers, lists and uint8 arrays, and nothing else.

    Any other global is refused before it is imported. Strings of Python 2 become `bytes`.
    """
    file = io.BytesIO(content)
    try:
        _check_memo(file)
        found = _Unpickler(file, encoding="bytes").load()
    except _ForbiddenError as error:
        msg = f"{place}: refused: it asks for {error}, which no array of bytes needs; nothing of it"
        raise ValueError(f"{msg} was run; get the file again from its author") from error
    except Exception as error:  # a damaged pickle raises nearly anything; the remedy is the same
        raise _damaged(place, "pickle", error) from error
    if not isinstance(found, dict) or file.read(1):
        msg = f"{place}: not a pickled dict and nothing after it; get the file again"
        raise ValueError(msg)
    return {key: getattr(value, "array", value) for key, value in found.items()}


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

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        # Plain and short before anything is formatted or multiplied: both can be made endless.
        code = dtype.code if isinstance(dtype.code, str | bytes) else "?"
        if code not in ("u1", b"u1"):
            raise ValueError(f"an array of type {code[:8]!r}, wanted 'u1', unsigned bytes")
        if not (len(shape) <= 4 and all(type(n) is int and 0 <= n < 2**32 for n in shape)):
            raise ValueError("an array whose shape is not a few whole numbers")
        size = len(content) if isinstance(content, bytes) else 0
        if size != math.prod(shape):
            raise ValueError(f"an array of shape {shape} with {size} bytes")
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
    def find_class(self, module_name: str, global_name: str, /) -> Any:
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
                return _Global(lambda text, _: text.encode("latin1"))
            case _:
                raise _ForbiddenError(f"{module_name:.80}.{global_name:.80}")


def _check_memo(file: io.BytesIO) -> None:
    """Refuse a memo entry that no file of this length has: unpickling would allocate it."""
    length = len(file.getbuffer())
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > length:
            raise pickle.UnpicklingError(f"memo entry {argument} in {length} bytes")
    file.seek(0)


def _count(content: bytes, path: Path, classes: int, shape: tuple[int, int, int]) -> int:
    """How many images every batch must have."""
    meta = _read_pickle(content, str(path))
    names, count, width = (meta.get(key) for key in _META_KEYS)
    named = isinstance(names, list) and len(names) == classes
    fits = type(width) is int and width == math.prod(shape)
    if not named or type(count) is not int or count < 1 or not fits:
        msg = f"{path}: wanted {classes} label_names, num_cases_per_batch of 1 or more, and num_vis"
        raise ValueError(f"{msg} {math.prod(shape)}; get the file again")
    return count


def _batch(
    content: bytes, path: Path, count: int, classes: int, shape: tuple[int, int, int]
) -> tuple[Images, Labels]:
    batch = _read_pickle(content, str(path))
    found, wanted = batch.get(b"batch_label"), _CALLED[path.name]
    if not isinstance(found, bytes) or found != wanted:
        calls = repr(found[:40]) if isinstance(found, bytes) else "nothing"
        msg = f"{path}: its batch_label is {calls}, wanted {wanted!r}; files were mixed up"
        raise ValueError(f"{msg}, get them again")
    images = _images(batch.get(b"data"), f"{path}: data", shape)
    labels = _labels(batch.get(b"labels"), f"{path}: labels", classes)
    check_lengths(images, labels, f"{path}: data", "labels")
    if len(images) != count:
        msg = f"{path}: holds {len(images)} images, but {META} says {count}; get the file again"
        raise ValueError(msg)
    return images, labels


def _images(data: object, place: str, shape: tuple[int, int, int]) -> Images:
    height, width, channels = shape
    if not isinstance(data, np.ndarray) or data.shape[1:] != (math.prod(shape),):
        found = data.shape if isinstance(data, np.ndarray) else type(data).__name__
        msg = f"{place} is {found}, wanted an array [N, {math.prod(shape)}]; this is another file"
        raise ValueError(msg)
    planes = data.reshape(len(data), channels, height, width)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1), np.uint8)


def _labels(labels: object, place: str, classes: int) -> Labels:
    if not isinstance(labels, list) or any(type(label) is not int for label in labels):
        msg = f"{place} is not a list of whole numbers; this is another file"
        raise ValueError(msg)
    # What is out of range stays so, and fits an int32.
    inside = np.array([min(max(label, -1), 2**31 - 1) for label in labels], np.int32)
    check_labels(inside, classes, place)
    return inside


def _members(archive: Path) -> dict[str, bytes]:
    """Contents of the wanted files; others in the archive, links included, are passed over."""
    wanted = {f"cifar-10-batches-py/{file}": file for file in FILES}
    found: dict[str, bytes] = {}
    try:
        with gzip.open(archive) as raw:
            with tarfile.open(fileobj=raw, mode="r|") as members:
                for member in members:
                    if member.name not in wanted or not member.isreg():
                        continue
                    if wanted[member.name] in found or member.size > _LARGEST:
                        raise ValueError(f"{member.name} twice, or of {member.size} bytes")
                    stream = members.extractfile(member)
                    found[wanted[member.name]] = stream.read() if stream else b""
            while raw.read(2**20):  # only at its end does gzip compare the checksum
                pass
    except Exception as error:  # gzip, zlib and tarfile have many types; the remedy is the same
        raise _damaged(str(archive), "archive", error) from error
    return found


def _damaged(place: str, kind: str, error: Exception) -> ValueError:
    reason = f"{type(error).__name__}: {error!s:.120}"
    return ValueError(f"{place}: damaged or incomplete {kind} ({reason}); get the file again")
