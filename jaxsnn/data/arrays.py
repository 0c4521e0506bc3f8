"""A data set of the reader's own: one npz file of plain arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxsnn.data.base import (
    Dataset,
    Images,
    Labels,
    check_images,
    check_labels,
    check_lengths,
)
from jaxsnn.data.splits import parted, stratified_split
from jaxsnn.errors import UserError
from jaxsnn.io.npz import read_npz

KEYS = ("images", "labels", "test_images", "test_labels", "classes")


def load_npz(path: str | Path) -> Dataset:
    """Read ``images`` and ``labels``, and if they are there ``test_images`` and ``test_labels``.

    Images are ``[N, H, W]`` or ``[N, H, W, C]`` of any integer dtype with values 0..255, labels
    ``[N]`` of any integer dtype counted from 0. The number of classes is the scalar ``classes``, or
    else one more than the largest training label. A file without test arrays gives a fifth of its
    images to the test set, drawn once with a fixed seed, every class in proportion; ``source`` says
    so.

    Args:
        path: the file, as written by ``numpy.savez`` or ``numpy.savez_compressed``.

    Returns:
        The data set; its name is the file's name without the ending.

    Raises:
        UserError: the file is missing or damaged, an array is missing or unknown, or an array
            breaks the rules above. The message names the file and the array.
    """
    path = Path(path)
    arrays = _read(path)
    images, labels = _pair(arrays, "", path)
    if not len(labels):
        msg = f"{path}: labels is empty; a data set needs at least one image"
        raise UserError(msg)
    classes = _classes(arrays, labels, path)
    has_test = "test_images" in arrays
    test_images, test_labels = (
        _pair(arrays, "test_", path) if has_test else (images[:0], labels[:0])
    )
    check_labels(labels, classes, f"{path}: labels")
    check_labels(test_labels, classes, f"{path}: test_labels")
    whole = Dataset(images, labels, test_images, test_labels, classes, path.stem, str(path))
    return whole if has_test else _hold_out(whole)


def _hold_out(whole: Dataset) -> Dataset:
    """Give a fifth of the training images to the test set."""
    labels = whole.train_labels
    parts = stratified_split(labels, len(labels) // 5)
    return parted(whole, *parts, f"{whole.source} (a fifth held out as the test set)")


def _read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of the file, after a check of their names."""
    if not path.is_file():
        msg = f"{path}: no such file; give the path of an npz file with 'images' and 'labels'"
        raise UserError(msg)
    arrays = read_npz(path)
    wanted = {"images", "labels"} | ({"test_images", "test_labels"} & arrays.keys())
    if len(wanted) == 3:
        wanted = set(KEYS) - {"classes"}
    missing, unknown = sorted(wanted - arrays.keys()), sorted(arrays.keys() - set(KEYS))
    if missing or unknown:
        problem = f"missing arrays {missing}, unknown arrays {unknown}"
        msg = (
            f"{path}: {problem}; an npz data set holds {', '.join(KEYS)} (the last three optional)"
        )
        raise UserError(msg)
    return arrays


def _pair(arrays: dict[str, np.ndarray], prefix: str, path: Path) -> tuple[Images, Labels]:
    """The images and labels whose names begin with ``prefix``, of equal length."""
    names = f"{path}: {prefix}images", f"{path}: {prefix}labels"
    images = _images(arrays[f"{prefix}images"], names[0])
    labels = _labels(arrays[f"{prefix}labels"], names[1])
    check_lengths(images, labels, *names)
    return images, labels


def _integers(array: np.ndarray, place: str) -> None:
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        msg = f"{place} holds NaN or infinity, and is {array.dtype}; integers are wanted"
        raise UserError(msg)
    if not np.issubdtype(array.dtype, np.integer):
        msg = f"{place} has dtype {array.dtype}; integers are wanted (images: uint8, 0..255)"
        raise UserError(msg)


def _images(array: np.ndarray, place: str) -> Images:
    _integers(array, place)
    if array.size and (array.min() < 0 or array.max() > 255):
        msg = f"{place} has values {array.min()}..{array.max()}; pixels are 0..255"
        raise UserError(msg)
    images = array.astype(np.uint8)
    images = images[..., None] if images.ndim == 3 else images
    check_images(images, place)
    return images


def _labels(array: np.ndarray, place: str) -> Labels:
    _integers(array, place)
    limit = np.iinfo(np.int32).max
    if array.size and (array.min() < 0 or array.max() >= limit):
        msg = f"{place} has values {array.min()}..{array.max()}; labels count from 0"
        raise UserError(msg)
    labels = array.astype(np.int32)
    check_labels(labels, limit, place)
    return labels


def _classes(arrays: dict[str, np.ndarray], labels: Labels, path: Path) -> int:
    if "classes" not in arrays:
        _refuse_counted_from_one(labels, path)
        return int(labels.max()) + 1
    classes = arrays["classes"]
    _integers(classes, f"{path}: classes")
    if classes.shape != ():
        msg = f"{path}: classes has shape {classes.shape}; one number is wanted"
        raise UserError(msg)
    return int(classes)


def _refuse_counted_from_one(labels: Labels, path: Path) -> None:
    if labels.min() == 1:
        raise UserError(
            f"{path}: labels are 1..{labels.max()} and none is 0; labels count from 0: subtract 1, "
            "or store the number of classes as 'classes'"
        )
