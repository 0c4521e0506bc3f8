"""Events made of images: the camera's way, the crossings against a loop, what must hold for all."""

import itertools

import numpy as np
import pytest

from jaxsnn import data
from jaxsnn.data import saccades
from jaxsnn.data.events import NMNIST, check_events


@pytest.fixture(scope="module")
def digits():
    return data.load("digits").train_images[:70]  # more than one chunk


@pytest.fixture(scope="module")
def recordings(digits):
    return list(saccades.saccade_events(digits))


def intensity(image, place):
    """What each of the 34 x 34 pixels sees, as hat functions around the image's pixels."""
    down, across = place
    line = np.arange(34)[:, None] - down - np.arange(28)
    column = np.arange(34)[:, None] - across - np.arange(28)
    lines, columns = (np.maximum(0, 1 - np.abs(part)) for part in (line, column))
    return lines @ (image / 255) @ columns.T


def slow_events(image):
    """Pixel by pixel and sample by sample, in double precision: {pixel: [(time, polarity)]}."""
    step, floor = saccades.THRESHOLD, saccades.DARKNESS
    views = [np.log(intensity(image, place) + floor) for place in saccades.positions()]
    interval = saccades.SACCADE_TIME / saccades.SAMPLES
    result = {}
    for y, x in np.ndindex(34, 34):
        seen = [view[y, x] for view in views]
        level = step * round(seen[0] / step)
        events = result.setdefault((y, x), [])
        for sample, (before, now) in enumerate(itertools.pairwise(seen)):
            while abs(now - level) >= step:
                sign = 1 if now > level else -1
                level += sign * step
                time = (sample + (level - before) / (now - before)) * interval
                events.append((time, (sign + 1) // 2))
    return result


def test_the_camera_goes_round_a_triangle_and_rests_at_its_corners():
    path = saccades.positions()
    assert path.shape == (301, 2)
    np.testing.assert_allclose(path[[0, 100, 200, 300]], [[0, 0], [6, 3], [0, 6], [0, 0]])
    np.testing.assert_allclose(path[[50, 150, 250]], [[3, 1.5], [3, 4.5], [0, 3]])
    speed = np.hypot(*np.diff(path, axis=0).T)
    # Half a cosine: the fastest sample moves pi / 2 times the mean of its saccade.
    for saccade, length in enumerate(np.hypot([6, 6, 0], [3, 3, 6])):
        part = speed[100 * saccade : 100 * saccade + 100]
        assert part.max() == pytest.approx(np.pi / 2 * length / 100, rel=1e-3)
        assert part[[0, -1]].max() < 0.02 * part.max()


def test_events_equal_a_loop_over_pixels(digits, recordings):
    """Rounding to float32 may move a time across a microsecond, and nothing else."""
    for index in (0, 33, 69):
        events, expected = recordings[index], slow_events(digits[index, :, :, 0])
        assert len(events) == sum(map(len, expected.values()))
        for (y, x), wanted in expected.items():
            here = (events.y == y) & (events.x == x)
            assert events.polarity[here].tolist() == [polarity for _, polarity in wanted]
            times = np.array([time for time, _ in wanted])
            # Times are the next whole microsecond; those of slow changes are ill-conditioned.
            assert (np.abs(events.time[here] - times) < 3).all()


def test_recordings_are_like_nmnists(recordings):
    """Orchard et al. report about 4,200 events a recording of 300 ms."""
    counts = [len(events) for events in recordings]
    assert 3000 < np.mean(counts) < 5000
    for events in recordings:
        check_events(events, NMNIST, lambda event: f"event {event}")
        assert 1 <= events.time[0] <= events.time[-1] <= 300_000
        assert events.time.dtype == np.int64


def test_a_closed_way_leaves_every_pixel_where_it_was(recordings):
    """Brighter and darker events of a pixel cancel, but for one at most."""
    for events in recordings:
        net = np.zeros((34, 34), int)
        np.add.at(net, (events.y, events.x), 2 * events.polarity.astype(int) - 1)
        assert np.abs(net).max() <= 1


def test_a_bar_is_bright_in_front_and_dark_behind():
    """In the third saccade the image moves to the left, without a vertical component."""
    image = np.zeros((1, 28, 28, 1), np.uint8)
    image[:, 6:22, 12:16] = 255
    (events,) = saccades.saccade_events(image)
    third = events[events.time > 200_000]
    assert third.x[third.polarity == 1].max() < 12 + 6
    assert third.x[third.polarity == 0].min() > 12 - 1
    assert third.x[third.polarity == 1].mean() + 3 < third.x[third.polarity == 0].mean()
    assert set(third.y.tolist()) == set(range(6, 22))
    # Every pixel that the bar has left saw it leave, and every one that it reached saw it come.
    assert (third.polarity == 1).sum() == (third.polarity == 0).sum()


def test_the_chunk_does_not_matter_and_nothing_is_random(digits, recordings, monkeypatch):
    monkeypatch.setattr(saccades, "CHUNK", 7)
    for first, second in zip(recordings, saccades.saccade_events(digits), strict=True):
        for name in ("x", "y", "polarity", "time"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_black_images_send_nothing():
    black = np.zeros((3, 28, 28, 1), np.uint8)
    assert [len(events) for events in saccades.saccade_events(black)] == [0, 0, 0]
    black[1, 10:18, 10:18] = 255
    counts = [len(events) for events in saccades.saccade_events(black)]
    assert counts[0] == counts[2] == 0 < counts[1]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 32, 32, 3), np.uint8), r"\[N, 28, 28, 1\], not \(2, 32, 32, 3\)"),
        (np.zeros((2, 28, 28, 1), np.float32), "float32"),
    ],
)
def test_other_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        next(saccades.saccade_events(images))
