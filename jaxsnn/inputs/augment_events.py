"""Augmentation of sparse recordings as pure functions of their events and a key.

All take codes int32 ``[B, E]`` as :class:`jaxsnn.data.Recordings` holds them, ``((frame * height +
y) * width + x) * polarities + polarity`` with -1 for no event, and return such codes: events are
moved or lost, never images interpolated. They draw anew for every recording, and can be jitted with
sensor and amounts as plain numbers; all raise UserError where the codes are not int32 ``[B, E]``.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsnn.errors import UserError, finite_number, whole_number

Sensor = tuple[int, int, int]

WIDEST = 180  # degrees of a turn, either way
FARTHEST = 1000  # pixels of a shift
LATEST = 1000  # frames, as a standard deviation


class _Places(NamedTuple):
    """Where events are, each int32 ``[B, E]``, and whether there is one, bool ``[B, E]``."""

    frame: jax.Array
    y: jax.Array
    x: jax.Array
    polarity: jax.Array
    real: jax.Array

    @classmethod
    def of(cls, codes: jax.Array, sensor: Sensor) -> _Places:
        """What codes say, on a sensor ``(height, width, polarities)``."""
        if codes.ndim != 2 or codes.dtype != jnp.int32:
            raise UserError(f"events are int32 codes [B, E], not {codes.dtype} {codes.shape}")
        height, width, polarities = sensor
        rest, polarity = jnp.divmod(codes, polarities)
        rest, x = jnp.divmod(rest, width)
        frame, y = jnp.divmod(rest, height)
        return cls(frame, y, x, polarity, codes >= 0)

    def codes(self, sensor: Sensor) -> jax.Array:
        """The codes; what has left the sensor is lost."""
        height, width, polarities = sensor
        inside = (self.x >= 0) & (self.x < width) & (self.y >= 0) & (self.y < height)
        codes = ((self.frame * height + self.y) * width + self.x) * polarities + self.polarity
        return jnp.where(self.real & inside, codes, -1)


def turn(codes: jax.Array, sensor: Sensor, degrees: jax.Array) -> jax.Array:
    """Turn recordings counter-clockwise about the centre of the sensor; rows count downwards.

    Each event goes to the pixel nearest to its turned place; what leaves the sensor is lost.

    Args:
        codes: int32 ``[B, E]``.
        sensor: ``(height, width, polarities)``.
        degrees: float ``[B]``, one angle for each recording.

    Raises:
        UserError: there is not one angle for each recording.

    Example:
        >>> corner = jnp.array([[3, -1]])  # the right end of the top row of 4 x 4 pixels
        >>> turn(corner, (4, 4, 1), jnp.array([90.0])).tolist()
        [[0, -1]]
    """
    height, width, _ = sensor
    places = _Places.of(codes, sensor)
    _one_for_each("degrees", degrees, (len(codes),))
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    radians = jnp.deg2rad(jnp.asarray(degrees, jnp.float32))[:, None]
    cosine, sine = jnp.cos(radians), jnp.sin(radians)
    across, down = places.x - middle_x, places.y - middle_y
    x = jnp.floor(cosine * across + sine * down + middle_x + 0.5).astype(jnp.int32)
    y = jnp.floor(cosine * down - sine * across + middle_y + 0.5).astype(jnp.int32)
    return places._replace(x=x, y=y).codes(sensor)


def shift(codes: jax.Array, sensor: Sensor, pixels: jax.Array) -> jax.Array:
    """Move recordings by whole pixels; what leaves the sensor is lost.

    Args:
        codes: int32 ``[B, E]``.
        sensor: ``(height, width, polarities)``.
        pixels: int32 ``[B, 2]``, how far each recording goes down and to the right.

    Raises:
        UserError: there are not two whole numbers for each recording.

    Example:
        >>> shift(jnp.array([[0, 3]]), (2, 2, 1), jnp.array([[1, 0]])).tolist()
        [[2, -1]]
    """
    places = _Places.of(codes, sensor)
    _one_for_each("pixels", pixels, (len(codes), 2))
    if not jnp.issubdtype(pixels.dtype, jnp.integer):
        raise UserError(f"pixels are {pixels.dtype}; give whole numbers")
    pixels = pixels.astype(jnp.int32)
    down, right = pixels[:, :1], pixels[:, 1:]
    return places._replace(y=places.y + down, x=places.x + right).codes(sensor)


def random_turn(codes: jax.Array, key: jax.Array, sensor: Sensor, degrees: float) -> jax.Array:
    """Turn every recording by an angle uniform in plus and minus ``degrees``; see :func:`turn`.

    Raises:
        UserError: ``degrees`` is not from 0 to 180.
    """
    finite_number("degrees", degrees, 0, WIDEST)
    angles = jax.random.uniform(key, codes.shape[:1], minval=-degrees, maxval=degrees)
    return turn(codes, sensor, angles)


def random_shift(codes: jax.Array, key: jax.Array, sensor: Sensor, pixels: int) -> jax.Array:
    """Move every recording by whole pixels, uniform in plus and minus ``pixels`` on both axes.

    Raises:
        UserError: ``pixels`` is no whole number from 0 to 1,000.
    """
    whole_number("pixels", pixels, 0, FARTHEST)
    drawn = jax.random.randint(key, (len(codes), 2), -pixels, pixels + 1, jnp.int32)
    return shift(codes, sensor, drawn)


def random_drop(codes: jax.Array, key: jax.Array, most: float) -> jax.Array:
    """Drop events at random: of every recording a share uniform in 0 to ``most``.

    Raises:
        UserError: ``most`` is not from 0 to 1.
    """
    finite_number("most", most, 0, 1)
    of_recording, of_event = jax.random.split(key)
    share = jax.random.uniform(of_recording, (len(codes), 1), maxval=most)
    return jnp.where(jax.random.uniform(of_event, codes.shape) < share, -1, codes)


def time_jitter(
    codes: jax.Array, key: jax.Array, sensor: Sensor, lengths: jax.Array, deviation: float
) -> jax.Array:
    """Move every event by a normally distributed number of frames, drawn for each event.

    Its time within its frame is not known and drawn uniformly; it goes to the frame in which the
    sum lies. What leaves the recording is lost.

    Args:
        codes: int32 ``[B, E]``.
        key: PRNG key.
        sensor: ``(height, width, polarities)``.
        lengths: integers ``[B]``, frames of each recording.
        deviation: standard deviation, in frames.

    Raises:
        UserError: ``deviation`` is no number from 0 to 1,000.
    """
    finite_number("deviation", deviation, 0, LATEST)
    within, moved = jax.random.split(key)
    time = jax.random.uniform(within, codes.shape)
    time += deviation * jax.random.normal(moved, codes.shape)
    places = _Places.of(codes, sensor)
    frame = places.frame + jnp.floor(time).astype(jnp.int32)
    kept = places.real & (frame >= 0) & (frame < lengths[:, None])
    return places._replace(frame=jnp.where(kept, frame, 0), real=kept).codes(sensor)


def _one_for_each(name: str, drawn: jax.Array, shape: tuple[int, ...]) -> None:
    if drawn.shape != shape:
        raise UserError(f"{name} of shape {drawn.shape} for {shape[0]} recordings; give {shape}")
