"""From the uint8 images of a data set to a network's whole input units, in training and in test.

A spiking network that is to equal its ANN exactly takes whole numbers, so every recipe here ends
on a fixed-point grid: what the ANN is trained on is :meth:`jaxsnn.Encoding.decode` of the same
units that the spiking network gets. Training draws its augmentation inside the jitted step.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.data import augment
from jaxsnn.encode import Encoding

PIXELS = Encoding("onset", 1 / 256)  # uint8 images of a network trained on pixels / 256

Shape = tuple[int, int, int]


class Preprocessing(NamedTuple):
    """How a network sees the images of a data set; equal recipes are the same object.

    Attributes:
        train: ``(images uint8 [B, H, W, C], key) -> units [B, h, w, C]``, drawn anew each time.
        test: ``images uint8 [B, H, W, C] -> units [B, h, w, C]``, the same every time.
        encoding: what one unit is worth, and the largest there is.
        shape: ``(H, W, C) -> (h, w, C)``.
    """

    train: Callable[[Array, Array], Array]
    test: Callable[[Array], Array]
    encoding: Encoding
    shape: Callable[[Shape], Shape]


def unchanged(encoding: Encoding = PIXELS) -> Preprocessing:
    """Images that are whole units as they stand, such as grey values of digits.

    >>> unchanged() is unchanged(PIXELS), standardised() is standardised(24)
    (True, True)
    >>> unchanged().shape((28, 28, 1))
    (28, 28, 1)
    """
    return _unchanged(encoding)


@functools.cache
def _unchanged(encoding: Encoding) -> Preprocessing:
    return Preprocessing(lambda images, key: images, lambda images: images, encoding, lambda s: s)


def standardised(size: int = 24, *, flip: bool = True, bits: int = 8) -> Preprocessing:
    """Crop and standardise every image, on a grid of ``2**-bits`` standard deviations.

    Training cuts a random window, mirrors it with probability one half, shifts the brightness by up
    to 63 and stretches the contrast by 0.2 to 1.8 (system A's recipe for CIFAR-10; Zou et al.,
    Advanced Intelligent Systems, 2023); testing takes the central window. Values beyond 16 standard
    deviations are cut there; CIFAR-10 has none beyond 11.

    Args:
        size: height and width of the window.
        flip: mirror images; not for digits and letters.
        bits: fractional bits of the grid.

    Raises:
        ValueError: ``bits`` outside 0 to 11, or (when used) images smaller than the window.

    >>> import numpy as np
    >>> units = standardised(2).test(np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1))
    >>> units.ravel().tolist()  # (5 6 9 10), mean 7.5, deviation 2.062
    [-310, -186, 186, 310]
    """
    return _standardised(size, flip, bits)


@functools.cache
def _standardised(size: int, flip: bool, bits: int) -> Preprocessing:
    if not 0 <= bits <= 11:  # units are kept as int16
        raise ValueError(f"bits={bits}: the grid of the input has 0 to 11 fractional bits")
    encoding = Encoding("onset", 2.0**-bits, 16 * 2**bits - 1)

    def units(images: Array) -> Array:
        """Half up onto the grid, int32."""
        grid = jnp.floor(augment.per_image_standardise(images) * 2**bits + 0.5)
        return jnp.clip(grid, -encoding.highest, encoding.highest).astype(jnp.int32)

    def train(images: Array, key: Array) -> Array:
        cut, mirror, shift, stretch = jax.random.split(key, 4)
        images = augment.random_crop(images, cut, size=size)
        images = augment.random_flip(images, mirror) if flip else images
        images = augment.brightness(images.astype(jnp.float32), shift)
        return units(augment.contrast(images, stretch))

    def test(images: Array) -> Array:
        return units(augment.central_crop(jnp.asarray(images), size).astype(jnp.float32))

    return Preprocessing(train, test, encoding, lambda shape: (size, size, shape[2]))


def units_of(preprocessing: Preprocessing, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """The whole data set as the network sees it: units of ``images [N, H, W, C]``, on the host.

    Computed once, so that ANN, spiking network and certificate are given the same numbers.
    """
    parts = [
        np.asarray(preprocessing.test(jnp.asarray(images[first : first + batch_size])))
        for first in range(0, len(images), batch_size)
    ]
    whole = np.concatenate(parts)
    return whole if whole.dtype == np.uint8 else whole.astype(np.int16)
