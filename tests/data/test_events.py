"""Events: N-MNIST's records, the noise filter, and the rules of frames."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn.data.events import (
    NMNIST,
    Events,
    Framing,
    Sensor,
    check_events,
    decode_nmnist,
    denoise,
    frame_numbers,
    microseconds,
    read_nmnist,
)
from jaxsnn.data.from_tonic import from_tonic

SENSOR = Sensor(34, 34)


def record(x, y, polarity, time):
    """One of N-MNIST's 40-bit records, by the definition of its bits."""
    return struct.pack(">Q", x << 32 | y << 24 | polarity << 23 | time)[3:]


def recording(rows):
    """Events of rows (x, y, polarity, time)."""
    x, y, polarity, time = np.array(rows, np.int64).reshape(-1, 4).T
    return Events(x, y, polarity, time)


def rows(events):
    columns = (events.x, events.y, events.polarity, events.time)
    return [tuple(int(value) for value in row) for row in zip(*columns, strict=True)]


@st.composite
def recordings(draw, side=5, longest=40, gap=400):
    """Random recordings on few pixels, so that neighbours meet; times may repeat."""
    pixel, polarity = st.integers(0, side - 1), st.integers(0, 1)
    event = st.tuples(pixel, pixel, polarity, st.integers(0, gap))
    drawn = draw(st.lists(event, min_size=1, max_size=longest))
    times = np.cumsum([row[3] for row in drawn])
    return recording([(*row[:3], time) for row, time in zip(drawn, times, strict=True)])


# --- records --------------------------------------------------------------------------------


def test_records_are_read_by_their_bits(tmp_path):
    given_rows = [(0, 33, 1, 0), (33, 0, 0, 65_535), (7, 8, 1, 65_536), (1, 2, 0, 2**23 - 1)]
    path = tmp_path / "00001.bin"
    path.write_bytes(b"".join(record(*row) for row in given_rows))
    events = read_nmnist(path)
    assert rows(events) == given_rows
    assert events.time.dtype == np.int64


def test_an_overflow_record_is_no_event_and_shifts_what_follows():
    content = record(1, 1, 1, 8000) + record(0, 240, 0, 0) + record(2, 2, 0, 5)
    content += record(0, 240, 0, 3) + record(3, 3, 1, 4)
    expected = [(1, 1, 1, 8000), (2, 2, 0, 5 + 2**13), (3, 3, 1, 4 + 2**14)]
    assert rows(decode_nmnist(content, "made up")) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file.bin is empty"),
        (record(1, 1, 1, 9)[:4], "of 4 bytes breaks off within the record at byte 0"),
        (record(1, 1, 1, 9) * 3 + b"ab", "of 17 bytes breaks off within the record at byte 15"),
        (record(1, 1, 1, 9) + record(34, 1, 1, 9), r"at byte 5: x 34 lies outside 0\.\.33"),
        (record(1, 239, 1, 9), r"at byte 0: y 239 lies outside 0\.\.33"),
        (
            record(1, 1, 1, 9) + record(1, 1, 1, 12) + record(1, 1, 1, 11),
            "at byte 10: time 11 us comes after 12 us",
        ),
        # The offset counts the record that carries no event.
        (record(0, 240, 0, 0) + record(1, 1, 1, 9) + record(99, 1, 1, 9), "at byte 10: x 99"),
    ],
)
def test_damaged_files_are_refused_with_file_and_offset(tmp_path, content, message):
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_nmnist(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [((-1, 0, 0, 5), "x -1"), ((0, 3, 0, 5), "y 3"), ((0, 0, 1, 5), r"polarity 1 .* 0\.\.0")],
)
def test_events_outside_any_sensor_are_refused(row, message):
    events = recording([(0, 0, 0, 5), row])
    with pytest.raises(ValueError, match=f"event 1: {message}"):
        check_events(events, Sensor(3, 4, 1), lambda index: f"event {index}")


# --- noise ----------------------------------------------------------------------------------


def slow_denoise(events, filter_time):
    """Event by event, with the time at which each pixel's announcement expires.

    At first every pixel counts as announced until ``filter_time``; the map ends with the last
    column and row that have an event.
    """
    width, height = int(events.x.max()) + 1, int(events.y.max()) + 1
    expires = {(x, y): filter_time for x in range(width) for y in range(height)}
    kept = []
    for x, y, polarity, time in rows(events):
        expires[x, y] = time + filter_time
        around = ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1))
        if any(expires.get(place, -1) > time for place in around):
            kept.append((x, y, polarity, time))
    return kept


@given(recordings(), st.integers(1, 1500))
def test_denoise_equals_the_loop(events, filter_time):
    assert rows(denoise(events, Sensor(5, 5), filter_time)) == slow_denoise(events, filter_time)


def test_denoise_by_hand():
    """Filter time 100: the events from 1,000 on need one of four neighbours since t - 100."""
    events = recording(
        [
            (5, 5, 1, 99),  # before 100 all stay
            (5, 5, 1, 100),  # alone, and its own pixel does not count
            (9, 9, 0, 1000),  # alone
            (10, 9, 0, 1099),  # 99 after its left neighbour
            (10, 10, 1, 1198),  # 99 after the one above
            (11, 11, 1, 1199),  # only a diagonal neighbour
            (9, 10, 0, 1298),  # exactly 100 after its right neighbour: too late
            (9, 10, 0, 1299),
            (0, 20, 1, 1400),
            (33, 19, 1, 1401),  # ends of adjacent rows are no neighbours
        ]
    )
    kept = denoise(events, SENSOR, 100)
    assert kept.time.tolist() == [99, 1099, 1198]


def test_at_one_moment_only_earlier_records_announce():
    events = recording([(3, 3, 1, 500), (4, 3, 1, 500)])
    assert rows(denoise(events, SENSOR, 100)) == [(4, 3, 1, 500)]


def test_denoise_of_nothing_and_of_the_corner_alone():
    assert len(denoise(recording([]), SENSOR)) == 0
    assert len(denoise(recording([(0, 0, 1, 5)]), SENSOR)) == 0
    assert len(denoise(recording([(1, 0, 1, 5)]), SENSOR)) == 1


# --- frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("framing", "numbers", "count"),
    [
        # Times 10, 15, 19, 20, 42, 55 after subtracting the first: 0, 5, 9, 10, 32, 45.
        (Framing(time_window=10), [0, 0, 0, 1, 3], 4),  # four whole windows in 45
        (Framing(time_window=46), [0, 0, 0, 0, 0, 0], 1),
        (Framing(time_window=45), [0, 0, 0, 0, 0], 1),  # the last event begins the next one
        (Framing(event_count=4), [0, 0, 0, 0], 1),
        (Framing(event_count=2), [0, 0, 1, 1, 2, 2], 3),
        (Framing(event_count=7), [0, 0, 0, 0, 0, 0], 1),
        (Framing(frames=2), [0, 0, 0, 0, 1], 2),  # 22 each, 44 to 45 is left over
        (Framing(frames=9), [0, 1, 1, 2, 6], 9),
        (Framing(frames=46), [], 46),  # less than a microsecond each
    ],
)
def test_frames_by_hand(framing, numbers, count):
    events = recording([(0, 0, 0, time) for time in (10, 15, 19, 20, 42, 55)])
    number, kept, frames = frame_numbers(events, framing)
    assert number.tolist() == numbers
    assert kept.tolist() == [True] * len(numbers) + [False] * (6 - len(numbers))
    assert (frames, number.dtype) == (count, np.int32)


@pytest.mark.parametrize("framing", [Framing(), Framing(event_count=5), Framing(frames=3)])
def test_no_event_makes_silent_frames(framing):
    number, kept, frames = frame_numbers(recording([]), framing)
    assert (len(number), len(kept), frames) == (0, 0, framing.frames or 1)


RULES = [
    ({"time_window": 300}, {"time_window": 300}),
    ({"event_count": 7}, {"event_count": 7}),
    ({"frames": 6}, {"n_time_bins": 6}),
]


@pytest.mark.parametrize(("ours", "theirs"), RULES)
@given(events=recordings())
def test_filter_and_frames_are_tonics(ours, theirs, events):
    transforms = pytest.importorskip("tonic").transforms
    array = np.zeros(len(events), [("x", int), ("y", int), ("t", int), ("p", int)])
    array["x"], array["y"], array["t"], array["p"] = (
        events.x,
        events.y,
        events.time,
        events.polarity,
    )
    filtered = transforms.Denoise(filter_time=500)(array)
    kept = denoise(events, Sensor(5, 5), 500)
    assert rows(kept) == [tuple(row) for row in filtered[["x", "y", "p", "t"]].tolist()]
    if not len(kept):
        return  # tonic makes no frames of nothing
    expected = transforms.ToFrame(sensor_size=(5, 5, 2), **theirs)(filtered)
    number, stays, count = frame_numbers(kept, Framing(**ours))
    frames = np.zeros((count, 2, 5, 5), int)
    kept = kept[stays]
    np.add.at(frames, (number, kept.polarity, kept.y, kept.x), 1)
    np.testing.assert_array_equal(frames, expected)


def test_framing_has_one_rule():
    assert Framing() == Framing(time_window=1000)
    assert Framing(frames=20).time_window is None
    with pytest.raises(ValueError, match="time_window=1000 and frames=20 cannot both"):
        Framing(time_window=1000, frames=20)
    with pytest.raises(ValueError, match="event_count=5 and frames=20"):
        Framing(event_count=5, frames=20)


@pytest.mark.parametrize("name", ["time_window", "event_count", "frames", "filter_time"])
@pytest.mark.parametrize("value", [0, -3, 1.5, True])
def test_framing_refuses_anything_but_whole_numbers(name, value):
    with pytest.raises(ValueError, match=f"{name} {value} must be a whole number of 1 or more"):
        Framing(**{name: value})


@pytest.mark.parametrize("dtype", [np.float32, np.float64, "timedelta64[us]", bool])
def test_times_without_a_unit_are_refused(dtype):
    """Whole milliseconds written as floats are refused like seconds: nothing tells them apart."""
    times = np.array([0, 1]).astype(dtype)
    for call in (
        lambda: microseconds(times, "here"),
        lambda: check_events(Events(*[np.zeros(2, int)] * 3, times), NMNIST, lambda event: "here"),
    ):
        with pytest.raises(ValueError, match=r"here: times are .*; give whole microseconds"):
            call()


def test_times_of_any_integers_are_microseconds():
    for dtype in (np.uint8, np.int16, np.uint32, np.uint64):
        actual = microseconds(np.array([0, 200], dtype), "here")
        assert actual.dtype == np.int64
        assert actual.tolist() == [0, 200]
    with pytest.raises(ValueError, match=r"time 9223372036854775808 us is beyond int64"):
        microseconds(np.array([2**63], np.uint64), "here")


@pytest.mark.parametrize("name", ["x", "y", "polarity"])
def test_pixels_are_whole_numbers(name):
    fields = {one: np.zeros(2, int) for one in ("x", "y", "polarity")}
    fields[name] = np.array([0.0, 0.9])
    with pytest.raises(ValueError, match=f"here: {name} is float64, not a whole number"):
        check_events(Events(**fields, time=np.arange(2)), NMNIST, lambda event: "here")


class Recorded:
    """What tonic's data sets are: pairs of a structured array and a label."""

    sensor_size = (4, 4, 2)

    def __init__(self, times):
        fields = [("x", "i2"), ("y", "i2"), ("t", times.dtype), ("p", "?")]
        self.events = np.zeros(len(times), fields)
        self.events["t"] = times

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.events, index


def test_recordings_of_tonic_have_whole_microseconds():
    times, framing = np.arange(0, 300_000, 1000), Framing(time_window=10_000, filter_time=None)
    recordings = from_tonic(Recorded(times), framing)
    assert (recordings.lengths.tolist(), recordings.event_counts.tolist()) == ([29], [290])
    for unit in (1, 1e3, 1e6):  # floats: microseconds, milliseconds, seconds
        with pytest.raises(ValueError, match="Recorded: recording 0: times are float64"):
            from_tonic(Recorded(times / unit), framing)
