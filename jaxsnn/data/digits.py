"""Scikit-learn's handwritten digits: real images that come with the package, no network needed."""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from jaxsnn.data.base import Dataset, Images
from jaxsnn.data.splits import stratified_split
from jaxsnn.types import Untyped

TEST_COUNT = 360
SIDE = 28


def load_digits() -> Dataset:
    """The 1,797 digits that scikit-learn ships (UCI optical recognition of handwritten digits).

    The originals are 8x8 with values 0..16. Each is scaled to 0..255 (half up) and enlarged to
    28x28 by Pillow's bilinear filter, so that networks made for MNIST take it. The split, 1,437
    training and 360 test images, is drawn once with a fixed seed, every class in proportion;
    it is the same in every run.

    Returns:
        10 classes; ``train_images`` uint8 ``[1437, 28, 28, 1]``, ``test_images``
        ``[360, 28, 28, 1]``.

    Example:
        >>> digits = load_digits()
        >>> digits.train_images.shape, digits.test_images.shape
        ((1437, 28, 28, 1), (360, 28, 28, 1))
    """
    from sklearn import datasets  # about a second to import: only who wants digits pays for it

    bunch: Untyped = cast("Untyped", datasets).load_digits()
    images = np.stack([_enlarge(image) for image in bunch.images])
    labels = np.asarray(bunch.target, np.int32)
    train, test = stratified_split(labels, TEST_COUNT)
    return Dataset(
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        classes=10,
        name="digits",
        source="scikit-learn digits, 8x8 enlarged to 28x28",
    )


def _enlarge(image: npt.NDArray[np.float64]) -> Images:
    """One 8x8 digit with values 0..16 as uint8 ``[28, 28, 1]``."""
    grey = np.floor(image * (255 / 16) + 0.5).astype(np.uint8)
    large = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(large, np.uint8)[:, :, None]
