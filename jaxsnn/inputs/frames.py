"""Frames of event counts from sparse recordings, on the device, turned by an angle if asked for."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxsnn.errors import UserError

LARGEST_INDEX = 2**31 - 1


def frames(
    codes: jax.Array, sensor: tuple[int, int, int], steps: int, angle: jax.Array | None = None
) -> jax.Array:
    """Count the events of every frame, pixel and polarity.

    An event is one number, ``((frame * height + y) * width + x) * polarities + polarity``, as
    ``jaxsnn.data.Recordings`` holds it. A turn moves events, not images: each goes to the pixel
    nearest to its turned place, and what leaves the sensor is dropped.

    Args:
        codes: int32 ``[B, E]``; negative ones are padding.
        sensor: ``(height, width, polarities)``.
        steps: frames to return, T; later events are dropped.
        angle: float ``[B]``, degrees counter-clockwise about the centre of the image, one for each
            recording; None, as 0, leaves every event where it is.

    Returns:
        float32 ``[T, B, height, width, polarities]``. Memory is that of the result and the codes.

    Raises:
        UserError: codes are not int32 ``[B, E]``, a size is below 1, or the result would have more
            elements than an int32 can count.

    Example:
        >>> one = jnp.array([[1 * 6 + 0 * 3 + 2, -1]])  # frame 1, row 0, column 2
        >>> frames(one, (2, 3, 1), 2)[:, 0, :, :, 0].tolist()
        [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]]
    """
    height, width, polarities = sensor
    batch = _check(codes, sensor, steps)
    shape = (steps, batch, height, width, polarities)
    size = math.prod(shape)
    rest, polarity = jnp.divmod(codes, polarities)
    rest, x = jnp.divmod(rest, width)
    step, y = jnp.divmod(rest, height)
    kept = (codes >= 0) & (step < steps)
    if angle is not None:
        x, y, inside = _turned(x, y, (height, width), angle)
        kept &= inside
    row = jnp.arange(batch, dtype=jnp.int32)[:, None]
    place = (((step * batch + row) * height + y) * width + x) * polarities + polarity
    # Beyond the end an update is dropped; a negative place would count from the end.
    place = jnp.where(kept, place, size)
    counts = jnp.zeros(size, jnp.float32).at[place.ravel()].add(1.0, mode="drop")
    return counts.reshape(shape)


def mask(lengths: jax.Array, steps: int) -> jax.Array:
    """1 where a recording still runs, 0 in the padding after its last frame.

    Args:
        lengths: integers ``[B]``, frames of each recording.
        steps: T.

    Returns:
        float32 ``[T, B]``.

    Example:
        >>> mask(jnp.array([1, 3]), 2).tolist()
        [[1.0, 1.0], [0.0, 1.0]]
    """
    return (jnp.arange(steps)[:, None] < lengths[None, :]).astype(jnp.float32)


def _turned(
    x: jax.Array, y: jax.Array, size: tuple[int, int], angle: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Columns and rows after the turn, and whether they lie on the sensor."""
    height, width = size
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    radians = jnp.deg2rad(jnp.asarray(angle, jnp.float32))[:, None]
    cosine, sine = jnp.cos(radians), jnp.sin(radians)
    across, down = x - middle_x, y - middle_y
    # Rows count downwards, so counter-clockwise takes what is on the right upwards.
    new_x = jnp.floor(cosine * across + sine * down + middle_x + 0.5).astype(jnp.int32)
    new_y = jnp.floor(cosine * down - sine * across + middle_y + 0.5).astype(jnp.int32)
    inside = (new_x >= 0) & (new_x < width) & (new_y >= 0) & (new_y < height)
    return new_x, new_y, inside


def _check(codes: jax.Array, sensor: tuple[int, int, int], steps: int) -> int:
    """The batch size, after a look at shapes and sizes."""
    if codes.ndim != 2 or codes.dtype != jnp.int32:
        raise UserError(f"frames takes int32 codes [B, E], not {codes.dtype} {codes.shape}")
    if steps < 1 or min(sensor) < 1:
        raise UserError(f"frames: steps {steps} and sensor {tuple(sensor)} must be at least 1")
    batch = codes.shape[0]
    if (size := steps * batch * math.prod(sensor)) > LARGEST_INDEX:
        extent = f"{steps} steps of {batch} recordings on a sensor {tuple(sensor)}"
        raise UserError(f"frames: {extent} are {size} numbers, beyond 2^31; lower the batch size")
    return batch
