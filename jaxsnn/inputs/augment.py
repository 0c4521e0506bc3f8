"""Augmentation of image batches as pure functions of the images and a key.

All take float images ``[B, H, W, C]``, can be jitted, and draw anew for every image. Zou et al.
(Advanced Intelligent Systems, 2023) use for CIFAR-10 ``random_crop(size=24)``, ``random_flip``,
``brightness(delta=63)``, ``contrast(lower=0.2, upper=1.8)``, ``per_image_standardise`` on pixels
0..255 in training, and ``central_crop(24)``, ``per_image_standardise`` in testing.
"""

from __future__ import annotations

import functools
from typing import cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.ndimage import map_coordinates

from jaxsnn.errors import UserError


def random_crop(
    images: jax.Array,
    key: jax.Array,
    padding: int = 0,
    size: int | None = None,
    radius: int | None = None,
) -> jax.Array:
    """Surround every image with zeros, then cut a window from a uniformly drawn place.

    Args:
        images: ``[B, H, W, C]``.
        key: PRNG key.
        padding: zeros added on each of the four sides.
        size: height and width of the window; by default those of the image.
        radius: most pixels, in either direction, between the window and the central one; None: as
            many as there are.

    Returns:
        ``[B, size, size, C]``, or ``[B, H, W, C]`` without ``size``; dtype of ``images``.

    Raises:
        UserError: negative padding or radius, or a window that is empty or larger than the padded
            image.
    """
    batch, height, width, channels = _shape(images)
    rows, columns = (height, width) if size is None else (size, size)
    if min(padding, radius or 0) < 0 or min(rows, columns) < 1:
        msg = f"random_crop: padding {padding}, radius {radius} must be 0 or more, size {size} 1"
        raise UserError(msg)
    spare_rows, spare_columns = height + 2 * padding - rows, width + 2 * padding - columns
    if min(spare_rows, spare_columns) < 0:
        msg = f"random_crop: a {rows}x{columns} window does not fit images of {height}x{width} "
        raise UserError(f"{msg}with padding {padding}; lower size or raise padding")
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    spare = jnp.array([spare_rows, spare_columns])
    reach = spare if radius is None else radius
    first, last = jnp.maximum(spare // 2 - reach, 0), jnp.minimum(spare // 2 + reach, spare)
    corners = jax.random.randint(key, (batch, 2), first, last + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return lax.dynamic_slice(image, (corner[0], corner[1], 0), (rows, columns, channels))

    return jax.vmap(cut)(padded, corners)


def central_crop(images: jax.Array, size: int) -> jax.Array:
    """The middle ``size`` x ``size`` window, rounded up and left where the spare pixels are odd.

    Raises:
        UserError: ``size`` is below 1 or larger than the image.

    Example:
        >>> central_crop(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0].tolist()
        [[5.0, 6.0], [9.0, 10.0]]
    """
    _, height, width, _ = _shape(images)
    if not 1 <= size <= min(height, width):
        msg = f"central_crop: size {size} must lie between 1 and {min(height, width)}"
        raise UserError(msg)
    top, left = (height - size) // 2, (width - size) // 2
    return images[:, top : top + size, left : left + size]


def pad_to(images: jax.Array, size: int) -> jax.Array:
    """Surround images with zeros up to ``size`` x ``size``; an odd one goes below and right.

    A side that is long enough stays as it is; dtype of ``images``.

    Example:
        >>> pad_to(jnp.full((1, 1, 2, 1), 7), 3)[0, :, :, 0].tolist()
        [[0, 0, 0], [7, 7, 0], [0, 0, 0]]
    """
    _, height, width, _ = _shape(images)
    rows, columns = max(size - height, 0), max(size - width, 0)
    sides = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))
    return jnp.pad(images, ((0, 0), *sides, (0, 0)))


def rotate(images: jax.Array, degrees: jax.Array) -> jax.Array:
    """Turn every image counter-clockwise about its centre, with bilinear interpolation.

    Every pixel is fetched from where it was before the turn, weighing the four pixels around that
    place; around the image lies 0. No value leaves the range of the pixels and 0.

    Args:
        images: float ``[B, H, W, C]``.
        degrees: ``[B]``, an angle for each image.

    Returns:
        ``[B, H, W, C]``; dtype of ``images``.

    Raises:
        UserError: images are not floats, or there is not one angle per image.

    Example:
        >>> quarter = rotate(jnp.arange(4.0).reshape(1, 2, 2, 1), jnp.array([90.0]))
        >>> quarter.round().astype(int).reshape(2, 2).tolist()
        [[1, 3], [0, 2]]
    """
    batch, height, width, _ = _shape(images, floating=True)
    if degrees.shape != (batch,):
        msg = f"rotate: angles of shape {degrees.shape} for {batch} images; give one for each"
        raise UserError(msg)
    y = jnp.arange(height)[:, None] - (height - 1) / 2
    x = jnp.arange(width)[None, :] - (width - 1) / 2

    def turn(image: jax.Array, angle: jax.Array) -> jax.Array:
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
        row = sine * x + cosine * y + (height - 1) / 2  # y points down
        column = cosine * x - sine * y + (width - 1) / 2
        place = [row.astype(image.dtype), column.astype(image.dtype)]

        def bilinear(channel: jax.Array) -> jax.Array:
            return cast("jax.Array", map_coordinates(channel, place, order=1))

        return jax.vmap(bilinear, in_axes=-1, out_axes=-1)(image)

    return jax.vmap(turn)(images, jnp.deg2rad(degrees))


def random_rotation(images: jax.Array, key: jax.Array, degrees: float) -> jax.Array:
    """Turn every image counter-clockwise by an angle uniform in ``[0, degrees)``; see ``rotate``.

    Args:
        images: float ``[B, H, W, C]``.
        key: PRNG key.
        degrees: the largest angle; 30 for the faces of Fast-SNN (Hu et al., 2023).

    Raises:
        UserError: images are not floats, or ``degrees`` is negative.
    """
    batch, *_ = _shape(images, floating=True)
    if degrees < 0:
        msg = f"random_rotation: degrees {degrees} must not be negative"
        raise UserError(msg)
    return rotate(images, jax.random.uniform(key, (batch,), maxval=degrees))


def random_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Mirror every image left to right with probability one half."""
    batch, *_ = _shape(images)
    flip = jax.random.bernoulli(key, 0.5, (batch, 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def alternating_flip(images: jax.Array, rows: jax.Array, epoch: jax.Array) -> jax.Array:
    """Mirror every image left to right in every second epoch, one half of them in the first.

    An image is seen both ways in any two epochs, where drawn flips show a quarter of them the same
    way thrice (Jordan, arXiv:2404.00498, section 3.6).

    Args:
        images: ``[B, H, W, C]``.
        rows: int ``[B]``, the place of each image in the data set, which decides when its turn is.
        epoch: int scalar, from 0.
    """
    batch, *_ = _shape(images)
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(0)))(rows)
    turn = jax.vmap(jax.random.bernoulli)(keys).astype(jnp.int32)
    flip = (turn + epoch) % 2 == 1
    return jnp.where(flip.reshape(batch, 1, 1, 1), images[:, :, ::-1], images)


def brightness(images: jax.Array, key: jax.Array, delta: float = 63.0) -> jax.Array:
    """Add one number per image, uniform in ``[-delta, delta)``, to all its pixels.

    ``delta`` is in units of the pixels (63 for pixels 0..255); nothing is clipped.

    Raises:
        UserError: images are not floats, or ``delta`` is negative.
    """
    batch, *_ = _shape(images, floating=True)
    if delta < 0:
        msg = f"brightness: delta {delta} must not be negative"
        raise UserError(msg)
    return images + jax.random.uniform(key, (batch, 1, 1, 1), images.dtype, -delta, delta)


def contrast(
    images: jax.Array, key: jax.Array, lower: float = 0.2, upper: float = 1.8
) -> jax.Array:
    """Stretch every image about the mean of each of its channels: ``mean + f * (x - mean)``.

    One factor ``f`` per image, uniform in ``[lower, upper)``; nothing is clipped.

    Raises:
        UserError: images are not floats, or not ``0 <= lower <= upper``.
    """
    batch, *_ = _shape(images, floating=True)
    if not 0 <= lower <= upper:
        msg = f"contrast: factors {lower}..{upper} must satisfy 0 <= lower <= upper"
        raise UserError(msg)
    factor = jax.random.uniform(key, (batch, 1, 1, 1), images.dtype, lower, upper)
    mean = images.mean((1, 2), keepdims=True)
    return mean + factor * (images - mean)


def per_image_standardise(images: jax.Array) -> jax.Array:
    """``(x - mean) / max(std, 1 / sqrt(N))`` per image, with N = H * W * C.

    The floor keeps an image of one colour finite: it becomes zeros.

    Raises:
        UserError: images are not floats.

    Example:
        >>> per_image_standardise(jnp.array([0.0, 2.0]).reshape(1, 1, 2, 1)).ravel().tolist()
        [-1.0, 1.0]
    """
    _, height, width, channels = _shape(images, floating=True)
    mean = images.mean((1, 2, 3), keepdims=True)
    deviation = images.std((1, 2, 3), keepdims=True)
    floor = (height * width * channels) ** -0.5
    return (images - mean) / jnp.maximum(deviation, floor)


def _shape(images: jax.Array, floating: bool = False) -> tuple[int, int, int, int]:
    """The four axis lengths, after a check of rank and dtype."""
    if images.ndim != 4:
        msg = f"augmentation takes images [B, H, W, C], not shape {images.shape}"
        raise UserError(msg)
    if floating and not jnp.issubdtype(images.dtype, jnp.floating):
        msg = f"augmentation takes float images, not {images.dtype}; use images.astype('float32')"
        raise UserError(msg)
    batch, height, width, channels = images.shape
    return batch, height, width, channels
