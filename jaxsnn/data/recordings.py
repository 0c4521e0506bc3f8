"""Sets of recordings in sparse form, small enough for a device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from jaxsnn.data.base import Labels, check_labels
from jaxsnn.data.events import Events, Framing, Sensor, check_events, denoise, frame_numbers
from jaxsnn.data.splits import held_out_rows, limited_rows
from jaxsnn.errors import UserError

Integers = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Recordings:
    """Many recordings, cut into frames, as lists of events.

    Attributes:
        codes: int32 ``[N, E]``, every event as
            ``((frame * height + y) * width + x) * polarities + polarity``; -1 fills up the rows.
        lengths: int32 ``[N]``, frames of each recording, at least 1.
        labels: int32 ``[N]``, class numbers from 0.

    Raises:
        UserError: dtypes, shapes or lengths break these rules.
    """

    codes: Integers
    lengths: Integers
    labels: Labels

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        for name, axes in (("codes", 2), ("lengths", 1)):
            array = getattr(self, name)
            if array.dtype != np.int32 or array.ndim != axes:
                problem = f"{array.dtype} of shape {array.shape}"
                raise UserError(
                    f"recordings: {name} is {problem}; int32 with {axes} axes is wanted"
                )
        check_labels(self.labels, np.iinfo(np.int32).max, "recordings: labels")
        counts = [len(self.codes), len(self.lengths), len(self.labels)]
        if len(set(counts)) > 1:
            raise UserError(f"recordings: codes, lengths and labels have {counts} rows")
        if self.codes.size and self.codes.min() < -1:
            raise UserError(f"recordings: code {self.codes.min()}; only -1 stands for no event")
        short = np.flatnonzero(self.lengths < 1)
        if len(short):
            problem = f"recording {short[0]} has {self.lengths[short[0]]} frames"
            raise UserError(f"recordings: {problem}; each has at least 1")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def event_counts(self) -> npt.NDArray[np.int64]:
        """int64 ``[N]``, events of each recording."""
        return np.count_nonzero(self.codes >= 0, axis=1).astype(np.int64)

    def take(self, rows: np.ndarray | slice) -> Recordings:
        """Some recordings, in the order of ``rows`` (indices, a mask or a slice)."""
        return Recordings(self.codes[rows], self.lengths[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class EventDataset:
    """Recordings of one classification task, in host memory.

    Attributes:
        train: at least one recording.
        test: may be empty.
        sensor: size of the camera's image.
        classes: number of classes.
        name: what was asked for, such as ``"nmnist"``.
        source: where the recordings came from, for records and messages.
        framing: how the events became frames.

    Raises:
        UserError: there is no training recording, or a label or a code does not fit.
    """

    train: Recordings
    test: Recordings
    sensor: Sensor
    classes: int
    name: str
    source: str
    framing: Framing

    def __post_init__(self) -> None:
        """Refuse labels beyond the classes and events beyond the last frame."""
        pixels = self.sensor.height * self.sensor.width * self.sensor.polarities
        for part in ("train", "test"):
            rows: Recordings = getattr(self, part)
            check_labels(rows.labels, self.classes, f"{self.source}: {part} labels")
            last = rows.codes.max(axis=1, initial=-1) // pixels
            wrong = np.flatnonzero(last >= rows.lengths)
            if len(wrong):
                problem = f"has an event in frame {last[wrong[0]]} of {rows.lengths[wrong[0]]}"
                raise UserError(f"{self.source}: {part} recording {wrong[0]} {problem} (from 0)")
        if not len(self.train):
            raise UserError(f"{self.source}: there is no training recording")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(height, width, polarities)`` of one frame."""
        return self.sensor.height, self.sensor.width, self.sensor.polarities

    def split_validation(self, count: int) -> tuple[Recordings, Recordings]:
        """Hold out ``count`` training recordings, of every class its share.

        Returns:
            The recordings to train on, and those held out.

        Raises:
            UserError: ``count`` is negative or leaves nothing to train on.
        """
        kept, held = held_out_rows(self.train.labels, count, self.name)
        return self.train.take(kept), self.train.take(held)

    def limited(self, train: int | None, test: int | None) -> EventDataset:
        """Fewer recordings, of every class its share.

        Args:
            train: training recordings that stay; None: all.
            test: test recordings that stay; None: all.
        """
        parts = (self.train, train), (self.test, test)
        kept = (part.take(limited_rows(part.labels, limit)) for part, limit in parts)
        return replace(self, **dict(zip(("train", "test"), kept, strict=True)))


def collect(
    recordings: Iterable[tuple[Events, int]], sensor: Sensor, framing: Framing, place: str = ""
) -> Recordings:
    """Filter recordings, cut them into frames, and pack their events.

    Args:
        recordings: each with its label.
        sensor: where the events lie.
        framing: the filter and the rule of the frames.
        place: where the recordings come from, for messages.

    Returns:
        The recordings in the order given. One that the filter empties becomes a silent frame.

    Raises:
        UserError: an event does not fit the sensor or the order of time, or a recording has more
            frames than an int32 can count.
    """
    rows: list[Integers] = []
    numbers: list[tuple[int, int]] = []
    for index, (events, label) in enumerate(recordings):
        where = f"{place or 'recordings'}: recording {index}"
        check_events(events, sensor, lambda event, where=where: f"{where}, event {event}")
        row, frames = _codes(events, sensor, framing, where)
        rows.append(row)
        numbers.append((frames, label))
    lengths, labels = np.array(numbers, np.int32).reshape(-1, 2).T
    flat = np.concatenate(rows) if rows else np.zeros(0, np.int32)
    return padded(flat, np.array([len(row) for row in rows], np.int64), lengths, labels)


def dense(
    recordings: Recordings, rows: np.ndarray | Sequence[int], steps: int, sensor: Sensor
) -> npt.NDArray[np.int32]:
    """Frames of some recordings in plain NumPy, for pictures and tests.

    Returns:
        int32 event counts ``[T, n, height, width, polarities]``; frames from ``steps`` on are
        dropped.
    """
    chosen = recordings.codes[rows]
    size = steps * sensor.height * sensor.width * sensor.polarities
    counts = [np.bincount(row[(row >= 0) & (row < size)], minlength=size) for row in chosen]
    shape = (len(chosen), steps, *sensor)
    return np.array(counts, np.int32).reshape(shape).swapaxes(0, 1)


def padded(
    flat: Integers, counts: npt.NDArray[np.int64], lengths: Integers, labels: Labels
) -> Recordings:
    """Recordings of codes that lie one after another.

    Args:
        flat: int32 ``[sum of counts]``, the codes of all recordings.
        counts: int64 ``[N]``, events of each recording.
        lengths: int32 ``[N]``, frames of each.
        labels: int32 ``[N]``.

    Raises:
        UserError: the counts do not add up to the codes, or as ``Recordings``.
    """
    if len(flat) != counts.sum():
        raise UserError(f"recordings: {len(flat)} codes, but counts that add up to {counts.sum()}")
    codes = np.full((len(counts), int(counts.max(initial=1))), -1, np.int32)
    codes[np.arange(codes.shape[1]) < counts[:, None]] = flat
    return Recordings(codes, np.ascontiguousarray(lengths), np.ascontiguousarray(labels))


def _codes(events: Events, sensor: Sensor, framing: Framing, where: str) -> tuple[Integers, int]:
    """The codes of one recording, and its number of frames."""
    if framing.filter_time is not None:
        events = denoise(events, sensor, framing.filter_time)
    number, kept, frames = frame_numbers(events, framing)
    height, width, polarities = sensor
    if frames * height * width * polarities > np.iinfo(np.int32).max:
        extent = f"{frames} frames of {height} x {width} x {polarities}"
        raise UserError(f"{where} has {extent}, beyond 2^31 in all; make the frames longer")
    events = events[kept]
    x, y, polarity = (part.astype(np.int32) for part in (events.x, events.y, events.polarity))
    return ((number * height + y) * width + x) * polarities + polarity, frames
