"""N-MNIST's own files: what they hold, and that tonic makes the same frames of them."""

import numpy as np
import pytest

from jaxsnn import data
from jaxsnn.data import nmnist
from jaxsnn.data.events import NMNIST, decode_nmnist, denoise
from jaxsnn.data.from_tonic import from_tonic
from jaxsnn.data.recordings import dense

pytestmark = pytest.mark.realdata

RULES = {
    "window": ({"time_window": 1000}, {"time_window": 1000}),
    "count": ({"event_count": 100}, {"event_count": 100}),
    "frames": ({"frames": 50}, {"n_time_bins": 50}),
}


@pytest.fixture(scope="module")
def parts(data_root):
    return nmnist.find(data_root)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def chosen(part, count=12):
    """Some files of a part."""
    return [
        (part.place / name, label) for name, label in zip(part.names, part.labels, strict=True)
    ][:count]


class Stored:
    """Some of N-MNIST's files as one of tonic's data sets, read by tonic."""

    def __init__(self, files):
        from tonic.datasets import NMNIST as THEIRS

        self.files, self.sensor_size, self.dtype = files, THEIRS.sensor_size, THEIRS.dtype

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        from tonic.io import read_mnist_file

        path, label = self.files[index]
        return read_mnist_file(str(path), dtype=self.dtype), label


def test_every_file_is_a_recording_of_three_saccades(parts):
    """Orchard et al. 2015: 34 x 34 pixels, about 4,200 events in three saccades of 100 ms."""
    for part in parts.values():
        recordings = list(part.read())
        counts = np.array([len(events) for events, _ in recordings])
        size = sum((part.place / name).stat().st_size for name in part.names)
        assert counts.sum() * 5 == size  # bytes of an event
        assert 3500 < counts.mean() < 5000
        ends = np.array([events.time[-1] for events, _ in recordings])
        assert ends.min() > 280_000
        assert ends.max() < 350_000
        assert sorted({label for _, label in recordings}) == list(range(10))


def test_frames_of_the_whole_set(data_root, cache):
    events = data.load_events("nmnist", data_root)
    parts = nmnist.find(data_root)
    for part, rows in (("train", events.train), ("test", events.test)):
        assert rows.labels.tolist() == parts[part].labels
        assert rows.lengths.min() > 250
        assert rows.lengths.max() < 350
    assert len(list(cache.glob("nmnist-*.npz"))) == 1
    again = data.load_events("nmnist", data_root)
    np.testing.assert_array_equal(again.train.codes, events.train.codes)
    np.testing.assert_array_equal(again.test.lengths, events.test.lengths)
    held = events.split_validation(len(events.train) // 10)[1]
    assert set(held.labels.tolist()) == set(range(10))


@pytest.mark.parametrize("filter_time", [None, 1000, 10_000])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_frames_are_tonics(parts, rule, filter_time):
    tonic = pytest.importorskip("tonic")
    ours, theirs = RULES[rule]
    framing = data.Framing(**ours, filter_time=filter_time)
    stored = Stored(chosen(parts["train"], 6) + chosen(parts["test"], 2))
    rows = from_tonic(stored, framing)
    to_frames = tonic.transforms.ToFrame(sensor_size=stored.sensor_size, **theirs)
    denoised = tonic.transforms.Denoise(filter_time) if filter_time else lambda array: array
    for index in range(len(stored)):
        array, label = stored[index]
        expected = to_frames(denoised(array))
        assert (rows.lengths[index], rows.labels[index]) == (len(expected), label)
        actual = dense(rows, [index], len(expected), NMNIST)[:, 0]
        np.testing.assert_array_equal(actual.transpose(0, 3, 1, 2), expected)


def test_both_readers_find_the_same_recordings(parts, data_root):
    pytest.importorskip("tonic")
    events = data.load_events("nmnist", data_root)
    theirs = from_tonic(Stored(chosen(parts["train"])))
    np.testing.assert_array_equal(theirs.labels, events.train.labels[:12])
    np.testing.assert_array_equal(theirs.lengths, events.train.lengths[:12])
    width = theirs.codes.shape[1]
    np.testing.assert_array_equal(theirs.codes, events.train.codes[:12, :width])
    assert (events.train.codes[:12, width:] == -1).all()


def test_a_shortened_real_file_is_refused(parts):
    path, _ = chosen(parts["train"], 1)[0]
    content = path.read_bytes()
    whole = decode_nmnist(content, "whole")
    assert len(denoise(whole, NMNIST)) < len(whole)
    with pytest.raises(ValueError, match=f"at byte {len(content) - 5}"):
        decode_nmnist(content[:-2], str(path))
