"""What every data set is: four arrays, checked once, and ways to hold a part of them out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxsnn.errors import UserError

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


def _no_images() -> Images:
    return np.zeros((0, 0, 0, 0), np.uint8)


def _no_labels() -> Labels:
    return np.zeros(0, np.int32)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels of one classification task, in host memory.

    Attributes:
        train_images: uint8 `[N, H, W, C]`, N at least 1, grey values or colours 0..255.
        train_labels: int32 `[N]`, class numbers 0..classes-1.
        test_images: uint8 `[M, H, W, C]`; M may be 0.
        test_labels: int32 `[M]`.
        classes: number of classes.
        name: what was asked for, such as `"mnist"`.
        source: where the arrays came from, for records and messages.
        validation_images: uint8 `[V, H, W, C]`; empty unless `load(..., validation=V)` was asked.
        validation_labels: int32 `[V]`.

    Raises:
        UserError: shapes, dtypes, lengths or labels break the rules above; the message names
            the source and the array.
    """

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    classes: int
    name: str
    source: str
    validation_images: Images = field(default_factory=_no_images)
    validation_labels: Labels = field(default_factory=_no_labels)

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        if self.classes < 1:
            msg = f"{self.source}: {self.classes} classes; a data set needs at least one"
            raise UserError(msg)
        for part in ("train", "test", "validation"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            check_images(images, f"{self.source}: {part}_images")
            check_labels(labels, self.classes, f"{self.source}: {part}_labels")
            check_lengths(images, labels, f"{self.source}: {part}_images", f"{part}_labels")
            if len(images) and images.shape[1:] != self.train_images.shape[1:]:
                shapes = f"{images.shape[1:]}, training images {self.train_images.shape[1:]}"
                msg = f"{self.source}: {part} images have shape {shapes}; they must be equal"
                raise UserError(msg)
        if not len(self.train_images):
            msg = f"{self.source}: there is no training image"
            raise UserError(msg)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)` of one image."""
        _, height, width, channels = self.train_images.shape
        return height, width, channels


def check_images(images: npt.NDArray[Any], place: str) -> None:
    """Refuse anything but uint8 `[N, H, W, C]` with no empty image axis.

    Raises:
        UserError: naming `place`, the dtype or the shape.
    """
    if images.dtype != np.uint8:
        msg = f"{place} has dtype {images.dtype}; images are uint8, 0..255"
        raise UserError(msg)
    if images.ndim != 4 or (len(images) and not images.size):
        msg = f"{place} has shape {images.shape}; images are [N, height, width, channels]"
        raise UserError(msg)


def check_labels(labels: npt.NDArray[Any], classes: int, place: str) -> None:
    """Refuse anything but int32 `[N]` with values 0..classes-1.

    Raises:
        UserError: naming `place`, and the first label out of range with its index.
    """
    if labels.dtype != np.int32 or labels.ndim != 1:
        msg = f"{place} is {labels.dtype} of shape {labels.shape}; labels are int32 of shape [N]"
        raise UserError(msg)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        value, index = labels[wrong[0]], wrong[0]
        msg = f"{place}: label {value} at index {index} is outside 0..{classes - 1}"
        raise UserError(msg)


def check_lengths(
    images: npt.NDArray[Any], labels: npt.NDArray[Any], images_place: str, labels_place: str
) -> None:
    """Refuse images and labels of different length.

    Raises:
        UserError: naming both places and both lengths.
    """
    if len(images) != len(labels):
        msg = (
            f"{images_place} holds {len(images)} images but {labels_place} holds "
            f"{len(labels)} labels; there must be one label per image"
        )
        raise UserError(msg)


def split_validation(dataset: Dataset, count: int) -> tuple[Images, Labels, Images, Labels]:
    """Hold out the last `count` training images (50,000 / 10,000 for MNIST).

    The test set is not touched. What is returned are views of the data set's arrays.

    Args:
        dataset: any data set.
        count: images to hold out; 0 leaves the validation arrays empty.

    Returns:
        `(train_images, train_labels, validation_images, validation_labels)`.

    Raises:
        UserError: `count` is negative or leaves no image to train on.

    Example:
        >>> from jaxsnn.data import load, split_validation
        >>> [len(part) for part in split_validation(load("digits"), 437)]
        [1000, 1000, 437, 437]
    """
    available = len(dataset.train_images)
    if not 0 <= count < available:
        msg = (
            f"validation count {count} does not fit {dataset.name}: it must lie between 0 and "
            f"{available - 1}, since {available} training images are there and one must remain"
        )
        raise UserError(msg)
    images, labels, edge = dataset.train_images, dataset.train_labels, available - count
    return images[:edge], labels[:edge], images[edge:], labels[edge:]


def stratified_split(
    labels: Labels, test_count: int, seed: int = 0
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Choose a test set in which every class has its share, the same on every machine.

    A class of `n` of the `N` images gives `n * test_count / N` of them, rounded by the method of
    largest remainders so that the total is exact.

    Args:
        labels: int32 `[N]`.
        test_count: size of the test set, 0..N.
        seed: of the shuffle.

    Returns:
        Shuffled indices of the training and of the test images.

    Raises:
        UserError: `test_count` is negative or larger than N.
    """
    if not 0 <= test_count <= len(labels):
        msg = f"test count {test_count} must lie between 0 and the {len(labels)} labels"
        raise UserError(msg)
    values, counts = np.unique(labels, return_counts=True)
    quotas, remainders = np.divmod(counts * test_count, max(len(labels), 1))
    largest = np.argsort(-remainders, kind="stable")[: test_count - int(quotas.sum())]
    quotas[largest] += 1
    # RandomState's stream is frozen for good, unlike that of a Generator: the split may never move.
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = [
        order[labels[order] == value][:quota] for value, quota in zip(values, quotas, strict=True)
    ]
    in_test = np.zeros(len(labels), bool)
    in_test[np.concatenate(chosen) if chosen else []] = True
    return order[~in_test[order]], order[in_test[order]]


def spread(labels: Labels, seed: int = 0) -> npt.NDArray[np.intp]:
    """A shuffled order in which every stretch has every label's share.

    The i-th of n images of a class (in shuffled order) comes after (i + 1/2) / n of all images.

    Args:
        labels: int32 `[N]`.
        seed: of the shuffle.

    Returns:
        Indices `[N]`, the same on every machine.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 1, 1], np.int32)
        >>> labels[spread(labels)].tolist()
        [0, 1, 0, 0, 1, 0]
    """
    order = np.random.RandomState(seed).permutation(len(labels))
    shuffled = labels[order]
    position = np.zeros(len(labels))
    for label in np.unique(labels):
        own = shuffled == label
        position[own] = (np.arange(own.sum()) + 0.5) / own.sum()
    return order[np.argsort(position, kind="stable")]
