"""What a spiking network that is trained directly is shown: a held image, or frames of events."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.errors import UserError, finite_number, whole_number
from jaxsnn.inputs import augment, augment_events
from jaxsnn.inputs import frames as events
from jaxsnn.inputs.checks import check_whole
from jaxsnn.types import PyTree

if TYPE_CHECKING:
    from jaxsnn.data.recordings import Recordings


class Shown(NamedTuple):
    """A batch over time.

    Attributes:
        x: ``[T, B, H, W, C]`` float32, or ``[1, B, H, W, C]`` held for all steps.
        steps: T.
        mask: float32 ``[T, B]``, 0 in the padding behind an example; None: no padding.
        padded_loss: let the padding enter the loss; what is counted never includes it.
    """

    x: Array
    steps: int
    mask: Array | None = None
    padded_loss: bool = False


class Stimulus(NamedTuple):
    """How the examples of a data set are shown; of equal arguments the same object.

    Attributes:
        show: ``(examples, key or None, steps or None) -> Shown``; a key asks for augmentation,
            steps are those of a batch of examples that have lengths.
        lengths: examples -> time steps of each; None where all have the same.
    """

    show: Callable[[PyTree, Array | None, int | None], Shown]
    lengths: Callable[[PyTree], np.ndarray] | None = None


def held(steps: int, scale: float = 1 / 255, shift: int = 0) -> Stimulus:
    """The same image as a constant current at each of ``steps`` steps; no rate coding.

    Args:
        steps: T.
        scale: value of one grey level of a uint8 image.
        shift: in training, images are moved by whole pixels, uniform in plus and minus so many.

    Raises:
        UserError: an argument is out of its range.

    >>> shown = held(50).show(jnp.full((2, 4, 4, 1), 255, jnp.uint8), None, None)
    >>> shown.x.shape, float(shown.x.max()), shown.steps
    ((1, 2, 4, 4, 1), 1.0, 50)
    """
    return _held(
        whole_number("steps", steps),
        finite_number("scale", scale, 0, above=True),
        whole_number("shift", shift, 0, augment_events.FARTHEST),
    )


@functools.cache
def _held(steps: int, scale: float, shift: int) -> Stimulus:
    def show(images: Array, key: Array | None, steps_of_batch: int | None) -> Shown:
        del steps_of_batch
        check_whole(images)
        if key is not None and shift:
            images = augment.random_crop(images, key, padding=shift)
        return Shown((images.astype(jnp.float32) * scale)[None], steps)

    return Stimulus(show)


def event_frames(
    sensor: tuple[int, int, int],
    rotation: float = 0.0,
    padded_loss: bool = False,
    *,
    shift: int = 0,
    dropped_events: float = 0.0,
    time_jitter: float = 0.0,
) -> Stimulus:
    """Frames of event counts, made on the device from sparse recordings.

    Examples are trees ``{"codes": int32 [N, E], "lengths": int32 [N]}`` (:func:`examples`). In
    training they are augmented (:mod:`jaxsnn.inputs.augment_events`), anew each time.

    Args:
        sensor: ``(height, width, polarities)``.
        rotation: each recording is turned by an angle uniform in plus and minus so many degrees.
        padded_loss: let the steps behind a recording's end enter the loss.
        shift: each recording is moved by whole pixels, uniform in plus and minus so many.
        dropped_events: each recording loses a share of its events, uniform in 0 to this.
        time_jitter: each event is moved by a normally distributed number of frames of this
            deviation.

    Raises:
        UserError: an argument is out of its range.
    """
    augmentation = _Augmentation(
        finite_number("rotation", rotation, 0, augment_events.WIDEST),
        whole_number("shift", shift, 0, augment_events.FARTHEST),
        finite_number("dropped_events", dropped_events, 0, 1),
        finite_number("time_jitter", time_jitter, 0, augment_events.LATEST),
    )
    return _event_frames(sensor, augmentation, padded_loss)


class _Augmentation(NamedTuple):
    """How much of each of :mod:`jaxsnn.inputs.augment_events`."""

    rotation: float
    shift: int
    dropped_events: float
    time_jitter: float

    def of(self, codes: Array, lengths: Array, key: Array, sensor: tuple[int, int, int]) -> Array:
        """Events ``[B, E]`` as this draw has them."""
        others = jax.random.split(jax.random.fold_in(key, 1), 3)
        if (
            self.rotation
        ):  # by the key itself, so that runs from before the others go on bit for bit
            codes = augment_events.random_turn(codes, key, sensor, self.rotation)
        if self.shift:
            codes = augment_events.random_shift(codes, others[0], sensor, self.shift)
        if self.dropped_events:
            codes = augment_events.random_drop(codes, others[1], self.dropped_events)
        if self.time_jitter:
            codes = augment_events.time_jitter(codes, others[2], sensor, lengths, self.time_jitter)
        return codes


@functools.cache
def _event_frames(
    sensor: tuple[int, int, int], augmentation: _Augmentation, padded_loss: bool
) -> Stimulus:
    def show(batch: PyTree, key: Array | None, steps: int | None) -> Shown:
        if steps is None:
            raise UserError("event frames need the number of steps of their batch")
        codes, lengths = batch["codes"], batch["lengths"]
        if key is not None:
            codes = augmentation.of(codes, lengths, key, sensor)
        x = events.frames(codes, sensor, steps)
        return Shown(x, steps, events.mask(lengths, steps), padded_loss)

    return Stimulus(show, _lengths)


def _lengths(batch: PyTree) -> np.ndarray:
    return np.asarray(batch["lengths"])


def examples(recordings: Recordings) -> dict[str, np.ndarray]:
    """Recordings as the tree of arrays that training takes."""
    return {"codes": recordings.codes, "lengths": recordings.lengths}


class EventStream(NamedTuple):
    """Recordings as a data set of frames, as :class:`jaxsnn.simulation.Streams` describes.

    Attributes:
        recordings: the events.
        sensor: ``(height, width, polarities)``.
    """

    recordings: Recordings
    sensor: tuple[int, int, int]

    def __len__(self) -> int:
        """Number of recordings."""
        return len(self.recordings)

    def batch(self, rows: np.ndarray, steps: int) -> tuple[Array, Array]:
        """Frames ``[T, B, H, W, P]`` of these recordings, T being ``steps``, and their lengths."""
        codes = jnp.asarray(self.recordings.codes[rows])
        return _frames(codes, self.sensor, steps), jnp.asarray(self.recordings.lengths[rows])


_frames = cast(
    "Callable[[Array, tuple[int, int, int], int], Array]",
    jax.jit(events.frames, static_argnums=(1, 2)),
)
