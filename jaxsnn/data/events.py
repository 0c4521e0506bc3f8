"""Recordings of an event camera: reading one, filtering it, cutting it into frames.

An event says that the brightness of one pixel rose (polarity 1) or fell (polarity 0) at one
moment. Nothing here loops over events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jaxsnn.errors import UserError

RECORD = 5  # bytes of one event in N-MNIST's files
OVERFLOW_ROW = 240  # y of a record that carries no event, only that the clock has run over
OVERFLOW_TIME = 2**13  # microseconds that each such record adds to all later times
DEFAULT_WINDOW = 1000


class Sensor(NamedTuple):
    """Size of an event camera's image: pixels down, pixels across, polarities (1 or 2)."""

    height: int
    width: int
    polarities: int = 2


NMNIST = Sensor(34, 34)


@dataclass(frozen=True, eq=False)
class Events:
    """One recording, in the order of time.

    Attributes:
        x: integers ``[E]``, column of each event, from 0 at the left.
        y: integers ``[E]``, row, from 0 at the top.
        polarity: integers ``[E]``, 1 where it became brighter, 0 where it became darker.
        time: int64 ``[E]``, microseconds, never decreasing.
    """

    x: np.ndarray
    y: np.ndarray
    polarity: np.ndarray
    time: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, rows: np.ndarray | slice) -> Events:
        """The chosen events; ``rows`` is a mask, an index array or a slice."""
        return Events(self.x[rows], self.y[rows], self.polarity[rows], self.time[rows])


@dataclass(frozen=True)
class Framing:
    """How events become frames; exactly one of the first three is set, the window if none is given.

    Attributes:
        time_window: microseconds of one frame; 1,000 unless another rule is given.
        event_count: events in every frame.
        frames: frames of every recording, equally long in time.
        filter_time: microseconds of ``denoise``, which comes first; None leaves all events.

    Raises:
        UserError: two of the rules are given, or a value is not a whole number of 1 or more.

    Example:
        >>> Framing().time_window, Framing(frames=20).time_window
        (1000, None)
    """

    time_window: int | None = None
    event_count: int | None = None
    frames: int | None = None
    filter_time: int | None = 10_000

    def __post_init__(self) -> None:
        """Set the default rule, and refuse what cannot be meant."""
        rules = ("time_window", "event_count", "frames")
        rules_set = [name for name in rules if getattr(self, name) is not None]
        if len(rules_set) > 1:
            stated = " and ".join(f"{name}={getattr(self, name)}" for name in rules_set)
            raise UserError(f"Framing: {stated} cannot both cut the frames; give one of them")
        if not rules_set:
            object.__setattr__(self, "time_window", DEFAULT_WINDOW)
        for name in (*rules, "filter_time"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and (not whole or value < 1):
                raise UserError(f"Framing: {name} {value!r} must be a whole number of 1 or more")


def read_nmnist(path: str | Path) -> Events:
    """Read one of N-MNIST's files; ``decode_nmnist`` says what it holds and what is refused."""
    return decode_nmnist(Path(path).read_bytes(), str(path))


def decode_nmnist(content: bytes, place: str) -> Events:
    """Events of N-MNIST's 40-bit records (Orchard et al., Front. Neurosci. 9:437, 2015).

    Big-endian: bits 39-32 x, 31-24 y, 23 polarity, 22-0 time in microseconds. A record with y = 240
    is no event: it says that the clock ran over, and adds 2^13 microseconds to all times after it.

    Args:
        content: the bytes of the file.
        place: the name of the file, for messages.

    Returns:
        uint8 coordinates and polarities, int64 times.

    Raises:
        UserError: the file is empty or ends within a record, a coordinate lies outside the 34 x 34
            pixels, or time runs backwards. The message names the file and the byte.

    Example:
        >>> events = decode_nmnist(bytes([3, 7, 0x80, 0x01, 0x02]), "made up")
        >>> int(events.x[0]), int(events.y[0]), int(events.polarity[0]), int(events.time[0])
        (3, 7, 1, 258)
    """
    if not content or len(content) % RECORD:
        rest = f"of {len(content)} bytes breaks off within the record at byte "
        problem = f"{rest}{len(content) // RECORD * RECORD}" if content else "is empty"
        raise UserError(f"{place} {problem}; N-MNIST has {RECORD} bytes an event: fetch it again")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    x, y, high, middle, low = records.T
    time = ((high & 127).astype(np.int64) << 16) | (middle.astype(np.int64) << 8) | low
    overflow = y == OVERFLOW_ROW
    time += OVERFLOW_TIME * np.cumsum(overflow)
    real = np.flatnonzero(~overflow)
    events = Events(x, y, high >> 7, time)[real]
    check_events(events, NMNIST, lambda event: f"{place}: record at byte {RECORD * real[event]}")
    return events


def microseconds(times: np.ndarray, where: str) -> npt.NDArray[np.int64]:
    """Times of events as int64, if they are whole numbers already.

    Floats are refused even where they are whole: they may be seconds, milliseconds or microseconds,
    and the frames of one are those of no other.

    Args:
        times: ``[E]``, of any integer dtype.
        where: names the recording, for the message.

    Raises:
        UserError: another dtype, or a number beyond int64.
    """
    if times.dtype.kind not in "iu":  # a timedelta64 counts as an integer elsewhere
        raise UserError(
            f"{where}: times are {times.dtype}, whose unit is unknown; give whole microseconds, of "
            "seconds (seconds * 1e6).round().astype('int64')"
        )
    if times.dtype == np.uint64 and times.size and times.max() > np.iinfo(np.int64).max:
        raise UserError(f"{where}: time {times.max()} us is beyond int64; the file is damaged")
    return times.astype(np.int64)


def check_events(events: Events, sensor: Sensor, where: Callable[[int], str]) -> None:
    """Refuse events outside the sensor, times that run backwards, and numbers that are not whole.

    Args:
        events: one recording.
        sensor: where its events may lie.
        where: names the event of an index, for the message.

    Raises:
        UserError: with the first such event, its value and the limit.
    """
    limits = (("x", sensor.width), ("y", sensor.height), ("polarity", sensor.polarities))
    times = microseconds(events.time, where(0))
    for name, limit in limits:
        values = getattr(events, name)
        if values.dtype.kind not in "iub":
            problem = f"{name} is {values.dtype}, not a whole number"
            raise UserError(f"{where(0)}: {problem}; give the number of the pixel or polarity")
        wrong = np.flatnonzero((values < 0) | (values >= limit))
        if len(wrong):
            problem = f"{name} {values[wrong[0]]} lies outside 0..{limit - 1}"
            raise UserError(f"{where(int(wrong[0]))}: {problem}; the file is damaged or of another")
    back = np.flatnonzero(np.diff(times) < 0)
    if len(back):
        before, after = times[back[0]], times[back[0] + 1]
        problem = f"time {after} us comes after {before} us"
        raise UserError(f"{where(int(back[0]) + 1)}: {problem}; events must be in order of time")


def denoise(events: Events, sensor: Sensor, filter_time: int = 10_000) -> Events:
    """Keep the events that one of the four adjacent pixels announced.

    An event at time ``t`` stays if the latest earlier event of the pixel left, right, above or
    below it came after ``t - filter_time``. Before ``filter_time`` nothing could have announced an
    event, so all stay there (unless every event lies in the one corner pixel). This is tonic's
    ``Denoise``.

    Args:
        events: one recording, in order of time, times from 0.
        sensor: where its events lie.
        filter_time: microseconds.

    Returns:
        The events that stay, in order.
    """
    count = len(events)
    if not count:
        return events
    # One column that no event can have keeps the ends of neighbouring rows apart.
    stride = sensor.width + 1
    pixel = events.y.astype(np.int64) * stride + events.x
    order = np.argsort(pixel, kind="stable")
    keys = pixel[order] * count + order  # ascending: by pixel, then in order of time
    time = events.time[order]
    kept = (time < filter_time) & bool(pixel.max() > 0)
    for neighbour in (-1, 1, -stride, stride):
        wanted = keys + neighbour * count
        latest = np.maximum(np.searchsorted(keys, wanted) - 1, 0)
        same = keys[latest] // count == wanted // count
        kept |= same & (keys[latest] < wanted) & (time[latest] + filter_time > time)
    mask = np.zeros(count, bool)
    mask[order[kept]] = True
    return events[mask]


def frame_numbers(
    events: Events, framing: Framing
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], int]:
    """Cut a recording into frames as tonic's ``ToFrame`` does without overlap.

    Windows start at the first event. What follows the last whole window (of time or of events) is
    dropped; a recording shorter than one window is one frame. Equal frames last the whole
    microseconds of ``duration / frames``; what the rounding leaves over is dropped. The filter of
    ``framing`` is not applied here, see ``denoise``.

    Args:
        events: one recording, in order of time; may be empty, which makes silent frames.
        framing: the rule.

    Returns:
        int32 ``[E']`` number of the frame (from 0) of each event that stays, bool ``[E]`` which
        events stay, and the number of frames.

    Example:
        >>> zeros = np.zeros(5, np.uint8)
        >>> events = Events(zeros, zeros, zeros, np.array([7, 8, 107, 206, 207]))
        >>> number, kept, count = frame_numbers(events, Framing(time_window=100))
        >>> number.tolist(), kept.tolist(), count
        ([0, 0, 1, 1], [True, True, True, True, False], 2)
    """
    elapsed = events.time - events.time[:1]
    duration = int(elapsed[-1]) if len(events) else 0
    if framing.event_count is not None:
        number = np.arange(len(events)) // framing.event_count
        count = max(len(events) // framing.event_count, 1)
    elif framing.frames is not None:
        count, window = framing.frames, duration // framing.frames
        # Frames of no duration hold nothing.
        number = elapsed // window if window else np.full(len(events), count)
    else:
        window = framing.time_window or DEFAULT_WINDOW
        number, count = elapsed // window, max(duration // window, 1)
    kept = number < count
    return number[kept].astype(np.int32), kept, count
