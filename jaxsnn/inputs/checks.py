"""Images and arrays that come in from outside: their unit and their range, in one place.

NumPy and JAX arrays are looked at in the same way and refused in the same words. Inside a compiled
program there are no values to look at; there the shape and the dtype alone are checked.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxsnn.errors import UserError
from jaxsnn.inputs.encoding import Encoding

AnyArray = Array | np.ndarray


def check_units(images: AnyArray, encoding: Encoding) -> None:
    """Refuse images that are not whole units of an encoding.

    Raises:
        UserError: floats (scaled already), or a unit beyond :attr:`Encoding.highest`.
    """
    check_whole(images, f" worth {encoding.scale} each")
    check_range(images, encoding)


def check_whole(images: AnyArray, worth: str = "") -> None:
    """Refuse images that are scaled already, where whole units are scaled later.

    Args:
        images: of any shape.
        worth: what to say of a unit.

    Raises:
        UserError: they are no integers.
    """
    if not is_whole(images):
        raise UserError(
            f"images are {images.dtype}, but the network takes integers{worth} (uint8 pixels); "
            "pass the images before scaling"
        )


def check_range(images: AnyArray, encoding: Encoding) -> None:
    """Refuse units beyond :attr:`Encoding.highest`, whole ones or not, and what is no number.

    Raises:
        UserError: naming the value and the limit.
    """
    _check_numbers(images)
    if images.dtype == np.uint8 and encoding.highest >= 255:
        return
    if (largest := _largest(images)) > encoding.highest:
        raise UserError(
            f"an input of {largest:g} is beyond Encoding.highest = {encoding.highest}, which "
            "the bounds of the sums rest on; convert with an encoding that admits it"
        )


def check_scaled(images: AnyArray, encoding: Encoding) -> None:
    """Refuse floats that are not units times their scale. Frames of counts have no upper end.

    Raises:
        UserError: naming the value and the limit.
    """
    _check_numbers(images)
    highest = encoding.highest * encoding.scale
    if encoding.presentation == "frames" or (largest := _largest(images)) <= highest * (1 + 1e-6):
        return
    raise UserError(
        f"an image of floats holds {largest:g}, but with Encoding(scale={encoding.scale:g}) the "
        f"network was shown at most {highest:g}; give whole units, or scale the images as for "
        "training"
    )


def check_finite(name: str, array: AnyArray) -> None:
    """Refuse an array with a value that is not finite.

    Raises:
        UserError: with the name and the remedy.
    """
    if is_traced(array) or not jnp.issubdtype(array.dtype, jnp.floating):
        return
    xp = jnp if isinstance(array, jax.Array) else np
    if not bool(xp.isfinite(array).all()):
        raise UserError(f"{name} hold a value that is not finite; look at what was read or scaled")


def is_whole(array: AnyArray) -> bool:
    """Whether an array holds integers."""
    return bool(jnp.issubdtype(array.dtype, jnp.integer))


def is_traced(array: AnyArray) -> bool:
    """Whether it stands for values that are not known yet, inside a compiled program."""
    return isinstance(array, Tracer)


def _check_numbers(images: AnyArray) -> None:
    if not (is_whole(images) or jnp.issubdtype(images.dtype, jnp.floating)):
        raise UserError(f"images are {images.dtype}; give whole units or floats")
    check_finite("images", images)


def _largest(images: AnyArray) -> int | float:
    """The largest magnitude in the images' own dtype, where that of -2^63 exists; 0 of none."""
    if is_traced(images) or not images.size:
        return 0
    ends = images.max().item(), images.min().item()
    return max(abs(end) for end in ends)


def checked_images(images: Array, channels: int) -> Array:
    """Images as a JAX array, after a look at their dtype and channels.

    Raises:
        UserError: as :func:`check_grey` and :func:`check_channels`.
    """
    images = jnp.asarray(images)
    check_channels(images.shape[-1], channels)
    check_grey(images)
    return images


def check_grey(images: Array) -> None:
    """Refuse images that are scaled already, and values that are no grey values.

    Raises:
        UserError: floats, or (outside of a compiled program) a value outside 0 to 255.
    """
    if not jnp.issubdtype(images.dtype, jnp.integer):
        raise UserError(f"images are {images.dtype}; give whole grey values 0 to 255 (uint8)")
    if images.dtype == np.uint8 or isinstance(images, Tracer) or not images.size:
        return
    lowest, highest = images.min().item(), images.max().item()
    if lowest < 0 or highest > 255:
        raise UserError(f"images hold values of {lowest} to {highest}; grey values are 0 to 255")


def check_channels(channels: int, wanted: int) -> None:
    """Refuse images of other channels than a mean and a standard deviation are of.

    Raises:
        UserError: naming both numbers.
    """
    if channels != wanted:
        raise UserError(
            f"images of {channels} channels, but mean and std are of {wanted}; give one for each"
        )
