"""What every data set is: four arrays, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from jaxsnn.data.labels import check_range
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
        train_images: uint8 ``[N, H, W, C]``, N at least 1, grey values or colours 0..255.
        train_labels: int32 ``[N]``, class numbers 0..classes-1.
        test_images: uint8 ``[M, H, W, C]``; M may be 0.
        test_labels: int32 ``[M]``.
        classes: number of classes.
        name: what was asked for, such as ``"mnist"``.
        source: where the arrays came from, for records and messages.
        validation_images: uint8 ``[V, H, W, C]``; empty unless ``load(..., validation=V)`` was
            asked.
        validation_labels: int32 ``[V]``.

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
        """``(H, W, C)`` of one image."""
        _, height, width, channels = self.train_images.shape
        return height, width, channels


def check_images(images: np.ndarray, place: str) -> None:
    """Refuse anything but uint8 ``[N, H, W, C]`` with no empty image axis.

    Raises:
        UserError: naming ``place``, the dtype or the shape.
    """
    if images.dtype != np.uint8:
        msg = f"{place} has dtype {images.dtype}; images are uint8, 0..255"
        raise UserError(msg)
    if images.ndim != 4 or (len(images) and not images.size):
        msg = f"{place} has shape {images.shape}; images are [N, height, width, channels]"
        raise UserError(msg)


def check_labels(labels: np.ndarray, classes: int, place: str) -> None:
    """Refuse anything but int32 ``[N]`` with values 0..classes-1.

    Raises:
        UserError: naming ``place``, and the first label out of range with its index.
    """
    if labels.dtype != np.int32 or labels.ndim != 1:
        msg = f"{place} is {labels.dtype} of shape {labels.shape}; labels are int32 of shape [N]"
        raise UserError(msg)
    check_range(labels, classes, place)


def check_lengths(
    images: np.ndarray, labels: np.ndarray, images_place: str, labels_place: str
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
