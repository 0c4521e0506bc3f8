"""Frames of event counts from sparse recordings, on the device."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxsnn.errors import UserError

LARGEST_INDEX = 2**31 - 1


def frames(codes: jax.Array, sensor: tuple[int, int, int], steps: int) -> jax.Array:
    """Count the events of every frame, pixel and polarity.

    An event is one number, ``((frame * height + y) * width + x) * polarities + polarity``, as
    ``jaxsnn.data.Recordings`` holds it.

    Args:
        codes: int32 ``[B, E]``; negative ones are padding.
        sensor: ``(height, width, polarities)``.
        steps: frames to return, T; later events are dropped.

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
    batch = _check(codes, sensor, steps)
    shape = (steps, batch, *sensor)
    size, pixels = math.prod(shape), math.prod(sensor)
    step, pixel = jnp.divmod(codes, pixels)
    row = jnp.arange(batch, dtype=jnp.int32)[:, None]
    place = (step * batch + row) * pixels + pixel
    # Beyond the end an update is dropped; a negative place would count from the end.
    place = jnp.where((codes >= 0) & (step < steps), place, size)
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
