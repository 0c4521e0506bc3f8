"""The IDX files in which the authors of MNIST and Fashion-MNIST publish their images.

A file is a magic number (two zero bytes, the element type, the number of axes), the length of
every axis as a big-endian 32-bit integer, and the elements (LeCun, Cortes and Burges, "The MNIST
database of handwritten digits").
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jaxsnn.data.base import Dataset, Images, Labels, check_labels, check_lengths
from jaxsnn.errors import UserError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_UINT8 = 0x08


def read_idx(path: Path, axes: int) -> npt.NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes, compressed (name ending in ``.gz``) or not.

    Args:
        path: the file.
        axes: how many axes it must have, 3 for images and 1 for labels.

    Returns:
        uint8 array with ``axes`` axes.

    Raises:
        UserError: the gzip stream is damaged or broken off, the magic number is not that of
            unsigned bytes with ``axes`` axes, or the content is shorter or longer than the header
            says. The message names the file.
    """
    content = _content(path)
    header = 4 + 4 * axes
    if len(content) < header:
        msg = f"{path}: {len(content)} bytes, too short for an IDX header of {header} bytes"
        raise UserError(f"{msg}; get the file again")
    magic, *shape = struct.unpack(f">{1 + axes}I", content[:header])
    wanted = _UINT8 << 8 | axes
    if magic != wanted:
        msg = f"{path}: magic number {magic:#010x}, wanted {wanted:#010x} (unsigned bytes, "
        raise UserError(f"{msg}{axes} axes); this is another kind of file")
    size, expected = len(content) - header, math.prod(shape)
    if size != expected:
        word = "short" if size < expected else "long"
        msg = f"{path}: too {word}: its header says {tuple(shape)}, that is {expected} bytes, "
        raise UserError(f"{msg}but {size} follow; get the file again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        msg = f"{path}: damaged or incomplete gzip file ({error}); get the file again"
        raise UserError(msg) from error


def find_file(folder: Path, name: str) -> Path | None:
    """The file ``name`` in ``folder``: ``.gz``, plain, or with the dot some unpackers write."""
    dotted = name.replace("-idx", ".idx")
    for candidate in (f"{name}.gz", name, f"{dotted}.gz", dotted):
        if (folder / candidate).is_file():
            return folder / candidate
    return None


def load_folder(
    folder: Path, name: str, classes: int, shape: tuple[int, int, int]
) -> Dataset | None:
    """Read the four files of a data set from one folder.

    Args:
        folder: where to look.
        name: recorded in the data set.
        classes: number of classes.
        shape: ``(H, W, C)`` that the images must have.

    Returns:
        The data set, or None if the folder holds none of the four files.

    Raises:
        UserError: some of the files are missing, one is damaged (see ``read_idx``), the images have
            another shape, lengths differ, or a label is out of range. The message names the file.
    """
    paths = [find_file(folder, file) for file in FILES]
    missing = [file for file, path in zip(FILES, paths, strict=True) if path is None]
    if len(missing) == len(FILES):
        return None
    if missing:
        msg = f"{folder} holds only a part of {name}; missing: {', '.join(missing)} (plain or .gz)"
        raise UserError(msg)
    train_images, train_labels, test_images, test_labels = [path for path in paths if path]
    train = _pair(train_images, train_labels, classes, shape)
    test = _pair(test_images, test_labels, classes, shape)
    return Dataset(*train, *test, classes, name, str(folder))


def _pair(
    images_path: Path, labels_path: Path, classes: int, shape: tuple[int, int, int]
) -> tuple[Images, Labels]:
    images = read_idx(images_path, 3)[:, :, :, None]
    if images.shape[1:] != shape:
        msg = f"{images_path}: images of {images.shape[1]}x{images.shape[2]}, "
        raise UserError(f"{msg}wanted {shape[0]}x{shape[1]}; this is another data set")
    if not len(images):
        msg = f"{images_path}: its header says 0 images; get the file again"
        raise UserError(msg)
    labels = read_idx(labels_path, 1).astype(np.int32)
    check_lengths(images, labels, str(images_path), str(labels_path))
    check_labels(labels, classes, str(labels_path))
    return images, labels
