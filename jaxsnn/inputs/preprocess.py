"""From the uint8 images of a data set to a network's whole input units, in training and in test.

A spiking network that is to equal its ANN exactly takes whole numbers, so every recipe here ends
on a fixed-point grid: what the ANN is trained on is :meth:`jaxsnn.Encoding.decode` of the same
units that the spiking network gets. Training draws its augmentation inside the jitted step.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.errors import UserError
from jaxsnn.inputs import augment
from jaxsnn.inputs.checks import check_channels, check_grey, check_whole, checked_images
from jaxsnn.inputs.encoding import Encoding

PIXELS = Encoding("onset", 1 / 256)  # uint8 images of a network trained on pixels / 256

Shape = tuple[int, int, int]
Flip = Literal["none", "random", "alternating"]
Moments = tuple[float, ...]  # one number for each channel


class Moment(NamedTuple):
    """Where in the course of training a batch is drawn.

    Attributes:
        update: int32 scalar, number of the update, from 0.
        epoch: int32 scalar, from 0.
        rows: int32 ``[B]``, places of the batch's examples in the training set.
    """

    update: Array
    epoch: Array
    rows: Array


class Augment(Protocol):
    """Images of a batch, augmented, as whole units."""

    def __call__(self, images: Array, key: Array, moment: Moment | None = None, /) -> Array:
        """Units ``[B, h, w, C]`` of ``images uint8 [B, H, W, C]``, drawn anew each time."""
        ...


class Preprocessing(NamedTuple):
    """How a network sees the images of a data set; equal recipes are the same object.

    Attributes:
        train: :class:`Augment`; where it is ``paced`` it needs to be told the moment.
        test: ``images uint8 [B, H, W, C] -> units [B, h, w, C]``, the same every time.
        encoding: what one unit is worth, and the largest there is.
        shape: ``(H, W, C) -> (h, w, C)``.
        paced: augmentation follows a plan over the epochs.
    """

    train: Augment
    test: Callable[[Array], Array]
    encoding: Encoding
    shape: Callable[[Shape], Shape]
    paced: bool = False


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
    return Preprocessing(_as_it_is, _tested_as_it_is, encoding, _same_shape)


def _as_it_is(images: Array, key: Array, moment: Moment | None = None, /) -> Array:
    del key, moment
    return _tested_as_it_is(images)


def _tested_as_it_is(images: Array) -> Array:
    check_whole(images)
    return images


def _same_shape(shape: Shape) -> Shape:
    return shape


def standardised(
    size: int = 24,
    *,
    flip: Flip = "random",
    radius: int | None = None,
    colours: bool = True,
    bits: int = 8,
) -> Preprocessing:
    """Crop and standardise every image, on a grid of ``2**-bits`` standard deviations.

    By default training cuts a random window, mirrors it with probability one half, shifts the
    brightness by up to 63 and stretches the contrast by 0.2 to 1.8 (for CIFAR-10, as Zou et al.,
    Advanced Intelligent Systems, 2023); testing takes the central window. Values beyond 16 standard
    deviations are cut there; CIFAR-10 has none beyond 11.

    Args:
        size: height and width of the window.
        flip: mirror images "random", "alternating" from epoch to epoch
            (:func:`jaxsnn.inputs.augment.alternating_flip`), or "none", as digits and letters need.
        radius: most pixels between a window in training and the central one; None: anywhere.
        colours: draw brightness and contrast. A shift of brightness alone is undone by the
            standardisation, so that this changes the balance of the colours.
        bits: fractional bits of the grid.

    Raises:
        UserError: ``bits`` outside 0 to 11, or (when used) images smaller than the window.

    >>> import numpy as np
    >>> units = standardised(2).test(np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1))
    >>> units.ravel().tolist()  # (5 6 9 10), mean 7.5, deviation 2.062
    [-310, -186, 186, 310]
    """
    return _standardised(size, flip, radius, colours, bits)


@functools.cache
def _standardised(
    size: int, flip: Flip, radius: int | None, colours: bool, bits: int
) -> Preprocessing:
    _check_flip(flip)
    if not 0 <= bits <= 11:  # units are kept as int16
        raise UserError(f"bits={bits}: the grid of the input has 0 to 11 fractional bits")
    encoding = Encoding("onset", 2.0**-bits, 16 * 2**bits - 1)

    def units(images: Array) -> Array:
        """Half up onto the grid, int32."""
        grid = jnp.floor(augment.per_image_standardise(images) * 2**bits + 0.5)
        return jnp.clip(grid, -encoding.highest, encoding.highest).astype(jnp.int32)

    def train(images: Array, key: Array, moment: Moment | None = None, /) -> Array:
        cut, mirror, shift, stretch = jax.random.split(key, 4)
        check_grey(images)
        images = augment.random_crop(images, cut, size=size, radius=radius)
        images = _mirrored(images, flip, mirror, moment).astype(jnp.float32)
        if colours:
            images = augment.contrast(augment.brightness(images, shift), stretch)
        return units(images)

    def test(images: Array) -> Array:
        check_grey(images)
        return units(augment.central_crop(jnp.asarray(images), size).astype(jnp.float32))

    def cut_shape(shape: Shape) -> Shape:
        return size, size, shape[2]

    return Preprocessing(train, test, encoding, cut_shape, flip == "alternating")


def normalised(
    mean: Sequence[float],
    std: Sequence[float],
    size: int,
    *,
    padding: int = 0,
    flip: Flip = "none",
    radius: int | None = None,
    rotation: float = 0.0,
    bits: int = 8,
) -> Preprocessing:
    """``(pixel / 255 - mean) / std`` for each channel, half up onto a grid of ``2**-bits``.

    Training turns every image counter-clockwise by an angle uniform in 0 to ``rotation`` degrees,
    cuts a window of ``size`` (with ``padding`` a random one of the image in a frame of so many
    black pixels, otherwise the central one) and mirrors it as ``flip`` says. Testing takes the
    central window. An image smaller than the window lies in the middle of black pixels, one of
    28 in a window of 32 with 2 on each side.

    A turned image has whole grey values again (half up), like one that was turned on disk. So there
    are 256 values in each channel, whose units are computed once in float64: no compiled program
    rounds one otherwise, and the encoding's highest is the largest that can occur. Input is held.

    Args:
        mean: of the channels, of grey values in 0 to 1; 1 or 3 of them.
        std: as many deviations.
        size: height and width of the window.
        padding: black pixels around the image, from which training draws its window.
        flip: mirror images "random", with probability one half, "alternating" from epoch to epoch,
            or "none"; see :func:`standardised`.
        radius: with ``padding``, most pixels between a window and the central one; None: anywhere.
        rotation: largest angle in degrees.
        bits: fractional bits of the grid.

    Raises:
        UserError: numbers that make no sense, a unit beyond int16, or (when used) images with
            another number of channels, of another dtype than integers, or too small for a random
            window.

    >>> recipe = normalised((0.5,), (0.25,), 2)
    >>> recipe.test(np.array([0, 51, 204, 255], np.uint8).reshape(1, 2, 2, 1)).ravel().tolist()
    [-512, -307, 307, 512]
    >>> recipe.encoding.highest, recipe is normalised([0.5], [0.25], 2)
    (512, True)
    """
    means, deviations = tuple(map(float, mean)), tuple(map(float, std))
    return _normalised(means, deviations, size, padding, flip, radius, float(rotation), bits)


@functools.cache
def _normalised(
    mean: Moments,
    std: Moments,
    size: int,
    padding: int,
    flip: Flip,
    radius: int | None,
    rotation: float,
    bits: int,
) -> Preprocessing:
    _check_flip(flip)
    if min(size - 1, padding) < 0 or not (0 <= rotation <= 360 and 0 <= bits <= 15):
        raise UserError(
            f"size={size}, padding={padding}, rotation={rotation}, bits={bits}: size is 1 or more, "
            "padding 0 or more, rotation 0 to 360 degrees, bits 0 to 15"
        )
    table = _units_of_pixels(mean, std, bits)
    encoding = Encoding(presentation="held", scale=2.0**-bits, highest=int(np.abs(table).max()))

    def units(images: Array) -> Array:
        """Of whole grey values, int32."""
        return jnp.asarray(table)[jnp.arange(len(mean)), images.astype(jnp.int32)]

    def train(images: Array, key: Array, moment: Moment | None = None, /) -> Array:
        turn, cut, mirror = jax.random.split(key, 3)
        images = checked_images(images, len(mean))
        if rotation:
            turned = augment.random_rotation(images.astype(jnp.float32), turn, rotation)
            images = jnp.floor(turned + 0.5)
        if padding:
            images = augment.random_crop(images, cut, padding, size, radius)
        else:
            images = _central_window(images, size)
        return units(_mirrored(images, flip, mirror, moment))

    def test(images: Array) -> Array:
        return units(_central_window(checked_images(images, len(mean)), size))

    def shape(whole: Shape) -> Shape:
        check_channels(whole[2], len(mean))
        return size, size, whole[2]

    return Preprocessing(train, test, encoding, shape, flip == "alternating")


def _units_of_pixels(mean: Moments, std: Moments, bits: int) -> np.ndarray:
    """What the grey values 0 to 255 are worth in each channel: int32 ``[channels, 256]``."""
    if len(mean) != len(std) or len(mean) not in (1, 3):
        raise UserError(
            f"mean={mean}, std={std}: give one number each for grey images, three for colours"
        )
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and min(std) > 0):
        raise UserError(f"mean={mean}, std={std}: finite numbers, deviations above 0, are needed")
    grey = np.arange(256) / 255
    exact = (grey - np.array(mean)[:, None]) / np.array(std)[:, None]
    table = np.floor(exact * 2.0**bits + 0.5)
    if np.abs(table).max() > 2**15 - 1:  # units of whole data sets are kept as int16
        raise UserError(
            f"bits={bits}: a unit is as large as {np.abs(table).max():.0f}, beyond 32767; use fewer"
        )
    return table.astype(np.int32)


def _check_flip(flip: Flip) -> None:
    if flip not in get_args(Flip):
        raise UserError(f"flip={flip!r} is unknown; choose one of {', '.join(get_args(Flip))}")


def _mirrored(images: Array, flip: Flip, key: Array, moment: Moment | None) -> Array:
    if flip == "random":
        return augment.random_flip(images, key)
    if flip == "none":
        return images
    if moment is None:
        raise UserError('flip="alternating" needs the moment: rows and epoch of the batch')
    return augment.alternating_flip(images, moment.rows, moment.epoch)


def _central_window(images: Array, size: int) -> Array:
    return augment.central_crop(augment.pad_to(images, size), size)


def units_of(preprocessing: Preprocessing, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """The whole data set as the network sees it: units of ``images [N, H, W, C]``, on the host.

    Computed once, so that ANN, spiking network and certificate are given the same numbers. They are
    uint8 or int16.

    Raises:
        UserError: no image, or units beyond int16.
    """
    if not len(images):
        raise UserError("there are no images; give at least one")
    parts = [
        np.asarray(preprocessing.test(jnp.asarray(images[first : first + batch_size])))
        for first in range(0, len(images), batch_size)
    ]
    whole = np.concatenate(parts)
    if whole.dtype == np.uint8:
        return whole
    limits = np.iinfo(np.int16)
    if whole.min() < limits.min or whole.max() > limits.max:
        raise UserError("units are beyond int16; give images of fewer levels")
    return whole.astype(np.int16)
