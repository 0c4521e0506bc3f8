"""Sets of recordings: packing, the cache and what may be wrong with it, N-MNIST's files, tonic."""

import dataclasses
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import isolate
from test_events import record, recording

from jaxsnn import data
from jaxsnn.data import cache as module
from jaxsnn.data import event_sources, nmnist, saccades
from jaxsnn.data.cache import cached
from jaxsnn.data.events import Framing, Sensor
from jaxsnn.data.from_tonic import from_tonic, sensor_of
from jaxsnn.data.recordings import Recordings, collect, dense

UNFILTERED = Framing(time_window=100, filter_time=None)
SMALL = Sensor(3, 4)


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXSNN_CACHE", raising=False)
    return isolate(tmp_path, monkeypatch)


def some(labels=(1, 0), events=5, seed=0):
    """Recordings with random codes in 4 frames of SMALL; every row but the first is short."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4 * 24, (len(labels), events)).astype(np.int32)
    codes[1:, -2:] = -1
    return Recordings(codes, np.full(len(labels), 4, np.int32), np.array(labels, np.int32))


def same(first, second):
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("codes", "lengths", "labels")
    )


# --- packing --------------------------------------------------------------------------------


def test_events_become_codes_by_hand():
    """Windows of 100 from the first event on; 3 rows, 4 columns, 2 polarities: 24 a frame."""
    first = recording([(3, 2, 1, 50), (0, 0, 0, 149), (1, 0, 1, 150), (2, 1, 0, 250)])
    second = recording([(1, 1, 1, 0)])
    rows = collect([(first, 7), (second, 2)], SMALL, UNFILTERED)
    # Two whole windows, so that the event at 250 is dropped.
    expected = [[(0 * 3 + 2) * 8 + 3 * 2 + 1, 0, 24 + 1 * 2 + 1], [8 + 2 + 1, -1, -1]]
    assert rows.codes.tolist() == expected
    assert (rows.lengths.tolist(), rows.labels.tolist()) == ([2, 1], [7, 2])
    assert {rows.codes.dtype, rows.lengths.dtype, rows.labels.dtype} == {np.dtype(np.int32)}
    assert (len(rows), rows.event_counts.tolist()) == (2, [3, 1])


def test_the_filter_comes_first_and_may_empty_a_recording():
    lonely = recording([(0, 0, 1, 50_000)])
    met = recording([(0, 0, 1, 50_000), (1, 0, 1, 50_010), (1, 0, 1, 50_170)])
    rows = collect([(lonely, 0), (met, 1)], SMALL, Framing(time_window=100, filter_time=500))
    assert rows.lengths.tolist() == [1, 1]
    assert rows.codes.tolist() == [[-1], [3]]  # the window starts at the first event that stays


def test_nothing_makes_no_recordings():
    rows = collect([], SMALL, UNFILTERED)
    assert (len(rows), rows.labels.dtype) == (0, np.int32)


def test_wrong_recordings_are_named():
    good, bad = recording([(0, 0, 0, 5)]), recording([(0, 0, 0, 5), (4, 0, 0, 6)])
    with pytest.raises(ValueError, match=r"here: recording 1, event 1: x 4 lies outside 0\.\.3"):
        collect([(good, 0), (bad, 0)], SMALL, UNFILTERED, "here")
    with pytest.raises(ValueError, match="event 1: time 4 us comes after 5 us"):
        collect([(recording([(0, 0, 0, 5), (0, 0, 0, 4)]), 0)], SMALL, UNFILTERED)
    unsigned = recording([(0, 0, 0, 5), (0, 0, 0, 4)])
    unsigned = dataclasses.replace(unsigned, time=unsigned.time.astype(np.uint32))
    with pytest.raises(ValueError, match="event 1: time 4 us comes after 5 us"):
        collect([(unsigned, 0)], SMALL, UNFILTERED)
    endless = recording([(0, 0, 0, 0), (0, 0, 0, 2**40)])
    with pytest.raises(ValueError, match=f"recording 0 has {2**40 // 100} frames .* beyond 2"):
        collect([(endless, 0)], SMALL, UNFILTERED)


def test_dense_frames_by_hand():
    codes = np.array([[24, 24, 47, -1], [0, 95, -1, -1]], np.int32)
    rows = Recordings(codes, np.array([2, 4], np.int32), np.zeros(2, np.int32))
    frames = dense(rows, [1, 0], 2, SMALL)
    assert frames.shape == (2, 2, 3, 4, 2)
    expected = np.zeros((2, 2, 3, 4, 2))
    expected[0, 0, 0, 0, 0] = 1
    expected[1, 1, 0, 0, 0] = 2
    expected[1, 1, 2, 3, 1] = 1
    np.testing.assert_array_equal(frames, expected)


# --- the records ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": np.zeros((2, 5))}, "codes is float64"),
        ({"codes": np.zeros(2, np.int32)}, r"codes is int32 of shape \(2,\)"),
        ({"codes": np.full((2, 5), -2, np.int32)}, "code -2"),
        ({"lengths": np.array([3, 0], np.int32)}, "recording 1 has 0 frames"),
        ({"lengths": np.ones(3, np.int32)}, r"have \[2, 3, 2\] rows"),
        ({"labels": np.array([0, -1], np.int32)}, "label -1 at index 1"),
        ({"labels": np.zeros(2, np.int64)}, "labels is int64"),
    ],
)
def test_recordings_refuse_arrays_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        replace(some(), **change)


def a_dataset(train=None, test=None, classes=3):
    train = some((0, 1, 2, 0, 1)) if train is None else train
    test = some() if test is None else test
    return data.EventDataset(train, test, SMALL, classes, "made", "memory", UNFILTERED)


def test_a_dataset_checks_its_recordings():
    assert a_dataset().input_shape == (3, 4, 2)
    with pytest.raises(ValueError, match=r"memory: train labels: label 2 at index 2 is outside"):
        a_dataset(classes=2)
    with pytest.raises(ValueError, match="memory: there is no training recording"):
        a_dataset(train=some().take(slice(0)))
    late = replace(some(), codes=np.array([[0], [4 * 24]], np.int32))
    with pytest.raises(ValueError, match=r"test recording 1 has an event in frame 4 of 4"):
        a_dataset(test=late)


def test_taking_rows_keeps_what_belongs_together():
    rows = some((5, 6, 7))
    taken = rows.take(np.array([2, 0]))
    assert taken.labels.tolist() == [7, 5]
    np.testing.assert_array_equal(taken.codes, rows.codes[[2, 0]])
    assert len(rows.take(np.array([True, False, True]))) == 2


def test_validation_and_limits_are_of_every_classes_share():
    whole = a_dataset(train=some([0] * 6 + [1] * 3), classes=2)
    train, held = whole.split_validation(3)
    assert (train.labels.tolist(), held.labels.tolist()) == ([0] * 4 + [1] * 2, [0, 0, 1])
    fewer = whole.limited(6, 1)
    assert fewer.train.labels.tolist() == [0] * 4 + [1] * 2
    assert len(fewer.test) == 1
    whole = a_dataset()
    assert [len(part) for part in whole.split_validation(0)] == [5, 0]
    for count in (-1, 5, 9):
        with pytest.raises(ValueError, match=rf"count {count} does not fit made: .* 0 and 4"):
            whole.split_validation(count)


# --- cache ----------------------------------------------------------------------------------

KEY = {"name": "made", "framing": {"frames": 3}}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


class Builder:
    """Builds recordings and counts how often."""

    def __init__(self, seed=0):
        self.parts = {"train": some((0, 1, 2), seed=seed), "test": some(seed=seed + 1)}
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.parts


def check(actual, builder):
    assert actual.keys() == builder.parts.keys()
    for name, part in builder.parts.items():
        assert same(actual[name], part)


def test_the_cache_is_built_once(tmp_path):
    builder = Builder()
    for _ in range(3):
        check(cached(tmp_path / "new" / "folder", KEY, builder), builder)
    assert builder.calls == 1
    (path,) = (tmp_path / "new" / "folder").iterdir()
    assert path.name.startswith("made-")


def test_another_key_or_format_has_another_file(folder, monkeypatch):
    first, second, third = Builder(0), Builder(5), Builder(9)
    other = {**KEY, "framing": {"frames": 4}}
    check(cached(folder, KEY, first), first)
    check(cached(folder, other, second), second)
    check(cached(folder, KEY, second), first)
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    check(cached(folder, KEY, third), third)
    assert len(list(folder.iterdir())) == 3


def test_a_file_of_another_key_under_this_name_is_built_anew(tmp_path):
    first, second = Builder(0), Builder(5)
    cached(tmp_path / "one", KEY, first)
    cached(tmp_path / "two", {**KEY, "framing": {"frames": 4}}, second)
    (mine,), (others,) = (list((tmp_path / name).iterdir()) for name in ("one", "two"))
    shutil.copy(others, mine)
    check(cached(tmp_path / "one", KEY, first), first)
    assert first.calls == 2
    check(cached(tmp_path / "one", KEY, first), first)
    assert first.calls == 2


def damaged(content):
    """Ways in which a file can be damaged."""
    middle = content.index(b"train/codes.npy") + 200
    yield b""
    yield b"nonsense"
    yield content[:-1]
    yield content[: len(content) // 2]
    yield content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    yield content.replace(b"train/codes", b"train/c0des")


def test_a_damaged_cache_is_built_anew(folder):
    builder = Builder()
    builder.parts["train"] = some(tuple(range(9)), events=400)
    cached(folder, KEY, builder)
    (path,) = folder.iterdir()
    content = path.read_bytes()
    for number, wrong in enumerate(damaged(content), start=2):
        path.write_bytes(wrong)
        check(cached(folder, KEY, builder), builder)
        assert builder.calls == number
        assert path.read_bytes() == content


def test_what_a_killed_process_left_is_no_cache_and_goes(folder):
    builder = Builder()
    cached(folder, KEY, builder)
    (path,) = folder.iterdir()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    leftover = folder / f".{path.name}.{process.pid}.tmp"
    leftover.write_bytes(path.read_bytes()[:100])
    path.unlink()
    check(cached(folder, KEY, builder), builder)
    assert builder.calls == 2
    assert list(folder.iterdir()) == [path]


def test_two_that_build_at_once_both_succeed(folder):
    builder = Builder()

    def slow():
        check(cached(folder, KEY, builder), builder)  # the other is quicker
        return builder()

    check(cached(folder, KEY, slow), builder)
    check(cached(folder, KEY, builder), builder)
    assert builder.calls == 2
    assert len(list(folder.iterdir())) == 1


def test_where_nothing_can_be_written_the_recordings_still_come(tmp_path):
    (tmp_path / "file").write_text("in the way")
    builder = Builder()
    with pytest.warns(UserWarning, match="the events were not cached"):
        check(cached(tmp_path / "file" / "below", KEY, builder), builder)


# --- N-MNIST's files ------------------------------------------------------------------------


def files_of(part, each=2):
    """Path and content of small recordings, the digit standing in the first event's x."""
    result = {}
    for digit in range(10):
        for number in range(each):
            events = [(digit, number, 1, 10), (digit + 1, number, 0, 1500), (digit, 0, 1, 3000)]
            name = f"{part}/{digit}/{number:05d}.bin"
            result[name] = b"".join(record(*event) for event in events)
    return result


def write_tree(folder, parts=("Train", "Test")):
    for part in parts:
        for name, content in files_of(part, each=3 if part == "Train" else 1).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return folder


def write_zips(folder, parts=("Train.zip", "Test.zip")):
    folder.mkdir(parents=True, exist_ok=True)
    for packed in parts:
        part = packed.removesuffix(".zip").capitalize()
        with zipfile.ZipFile(folder / packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"__MACOSX/{part}/0/._00000.bin", b"what macOS adds")
            archive.writestr(f"{part}/", b"")
            for name, content in files_of(part, each=3 if part == "Train" else 1).items():
                archive.writestr(name, content)
    return folder


def load(folder, framing=UNFILTERED):
    return data.load_events("nmnist", folder, framing=framing)


def test_nmnist_is_read_with_its_labels_in_shuffled_order(tmp_path):
    events = load(write_tree(tmp_path))
    assert (len(events.train), len(events.test), events.classes) == (30, 10, 10)
    assert (events.sensor, events.source) == (Sensor(34, 34, 2), str(tmp_path))
    assert events.framing == UNFILTERED
    first = events.train.codes[:, 0] % (34 * 2) // 2  # x of the first event is the digit
    np.testing.assert_array_equal(first, events.train.labels)
    assert np.bincount(events.train.labels).tolist() == [3] * 10
    assert events.train.labels.tolist() != sorted(events.train.labels.tolist())
    assert events.train.lengths.tolist() == [29] * 30  # 2,990 microseconds


@pytest.mark.parametrize("folder", ["", "nmnist", "N-MNIST", "NMNIST"])
@pytest.mark.parametrize("write", [write_tree, write_zips])
def test_usual_folders_are_found_unpacked_or_not(tmp_path, monkeypatch, folder, write):
    write(tmp_path / "data" / folder)
    events = load(tmp_path / "data")
    assert same(events.train, load(write_tree(tmp_path / "plain")).train)
    if folder:
        monkeypatch.setenv("JAXSNN_DATA", str(tmp_path / "data"))
        assert same(load(None).test, events.test)


def test_one_part_may_be_packed_and_its_name_small(tmp_path):
    mixed = write_zips(write_tree(tmp_path / "mixed", ["Train"]), ["test.zip"])
    assert same(load(mixed).test, load(write_tree(tmp_path / "plain")).test)


def test_nmnist_that_is_nowhere(tmp_path, alone):
    with pytest.raises(ValueError, match="nmnist was not found") as error:
        load(tmp_path / "given")
    message = str(error.value)
    wanted = [tmp_path / "given", tmp_path / "given/NMNIST", Path("data/N-MNIST")]
    for place in (*wanted, alone / ".cache/jaxsnn/data/nmnist"):
        assert f"  {place}\n" in message
    for word in ("Train/<digit>/*.bin", "Test.zip", "--data-dir", "--dataset digits"):
        assert word in message


@pytest.mark.parametrize(("there", "missing"), [("Train", "Test"), ("Test", "Train")])
def test_a_part_alone_is_refused(tmp_path, there, missing):
    for write in (write_tree, lambda place, parts: write_zips(place, [f"{parts[0]}.zip"])):
        folder = write(tmp_path / write.__name__.strip("<>"), [there])
        with pytest.raises(ValueError, match=rf"{there}.* is there, but neither .*/{missing} nor"):
            load(folder)


def test_an_empty_class_folder_is_refused(tmp_path):
    folder = write_tree(tmp_path)
    for path in (folder / "Train" / "4").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"Train: 4/\*.bin holds no recording"):
        load(folder)
    (folder / "Train" / "4").rmdir()
    with pytest.raises(ValueError, match=r"Train: 4/\*.bin holds no recording"):
        load(folder)


@pytest.mark.parametrize("name", ["10", "007", "zero", "²"])
def test_a_folder_that_is_no_digit_is_refused(tmp_path, name):
    folder = write_tree(tmp_path)
    shutil.copytree(folder / "Test" / "0", folder / "Test" / name)
    with pytest.raises(ValueError, match=f"Test: folder '{name}' is no digit"):
        load(folder)


def test_files_of_the_system_are_no_recordings(tmp_path):
    folder = write_tree(tmp_path)
    before = load(folder)
    (folder / "Train" / ".DS_Store").write_bytes(b"x")
    (folder / "Train" / "notes").mkdir()
    (folder / "Train" / "3" / "._00000.bin").write_bytes(b"x")
    (folder / "Train" / "3" / "readme.txt").write_bytes(b"x")
    assert same(load(folder).train, before.train)


def test_a_damaged_file_is_named_and_nothing_is_cached(tmp_path, alone):
    folder = write_tree(tmp_path / "tree")
    path = folder / "Test" / "6" / "00000.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"Test/6/00000.bin of 14 bytes breaks off"):
        load(folder)
    assert not (alone / ".cache").exists()


def test_damaged_zips_are_named(tmp_path):
    folder = write_zips(tmp_path)
    path = folder / "Test.zip"
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with pytest.raises(ValueError, match=r"Test.zip: not a readable zip file"):
        load(folder)
    place = content.index(b"Test/7/00000.bin") + len("Test/7/00000.bin") + 3
    path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    with pytest.raises(ValueError, match=r"Test.zip: Test/7/00000.bin is damaged"):
        load(folder)


def test_new_files_and_other_frames_are_read_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSNN_CACHE", str(tmp_path / "kept"))
    folder = write_tree(tmp_path / "tree")
    assert load(folder).train.lengths.tolist() == [29] * 30
    assert load(folder, Framing(frames=5, filter_time=None)).train.lengths.tolist() == [5] * 30
    shutil.copy(folder / "Train/2/00001.bin", folder / "Train/2/90001.bin")
    assert np.bincount(load(folder).train.labels)[2] == 4
    assert len(list((tmp_path / "kept").glob("nmnist-*.npz"))) == 3
    monkeypatch.setattr(nmnist.Part, "read", None)  # what is cached is not read again
    assert len(load(folder).train) == 31


def put(folder, name, content):
    """Replace a training file, in the folder or in the zip, a moment after it was written."""
    packed = folder / "Train.zip"
    if not packed.exists():
        written = (folder / name).stat().st_mtime_ns
        (folder / name).write_bytes(content)
        os.utime(folder / name, ns=(written + 1_000_000, written + 1_000_000))
        return
    with zipfile.ZipFile(packed) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    assert len(members[name]) == len(content)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, kept in members.items():
            archive.writestr(member, content if member == name else kept)


@pytest.mark.parametrize("write", [write_tree, write_zips])
def test_a_file_replaced_by_another_of_equal_size_is_read_anew(tmp_path, monkeypatch, write):
    monkeypatch.setenv("JAXSNN_CACHE", str(tmp_path / "kept"))
    folder = write(tmp_path / "data")
    before = load(folder)
    assert same(load(folder).train, before.train)
    assert len(list((tmp_path / "kept").iterdir())) == 1
    name = "Train/2/00001.bin"
    other = b"".join(record(9, 9, 1, time) for time in (10, 1500, 3000))
    assert len(other) == len(files_of("Train")[name])
    put(folder, name, other)
    after = load(folder)
    differ = (after.train.codes != before.train.codes).any(axis=1)
    assert after.train.labels[differ].tolist() == [2]
    assert same(after.test, before.test)


# --- digits, and names ----------------------------------------------------------------------


@pytest.fixture
def few_digits(monkeypatch):
    whole = data.load("digits")
    few = replace(
        whole,
        train_images=whole.train_images[:12],
        train_labels=whole.train_labels[:12],
        test_images=whole.test_images[:5],
        test_labels=whole.test_labels[:5],
    )
    monkeypatch.setattr(event_sources, "load_digits", lambda: few)
    return few


def test_digits_are_events_of_the_images(few_digits):
    from jaxsnn.data.saccades import saccade_events

    events = data.load_events("digits")
    assert events.train.labels.tolist() == few_digits.train_labels.tolist()
    images = few_digits.test_images
    pairs = zip(saccade_events(images), few_digits.test_labels.tolist(), strict=True)
    assert same(events.test, collect(pairs, Sensor(34, 34), Framing()))
    assert events.train.event_counts.mean() > 2500
    assert 250 < events.train.lengths.min() <= events.train.lengths.max() <= 300


def test_digits_are_cached_by_their_recipe(few_digits, monkeypatch):
    first = data.load_events("digits")
    monkeypatch.setattr(saccades, "saccade_events", None)
    assert same(data.load_events("digits").train, first.train)
    monkeypatch.setattr(saccades, "RECIPE", "another")
    with pytest.raises(TypeError):
        data.load_events("digits")


@pytest.mark.parametrize(("name", "nearest"), [("n-mnits", "nmnist"), ("digit", "digits")])
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    match = f"unknown event data set '{name}'; nearest: '{nearest}'; known: digits, nmnist"
    with pytest.raises(ValueError, match=match):
        data.load_events(name)


# --- tonic ----------------------------------------------------------------------------------


class Stored:
    """What from_tonic needs of a data set."""

    def __init__(self, pairs, sensor_size=(4, 3, 2)):
        self.pairs, self.sensor_size = pairs, sensor_size

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]


def structured(rows, names="xytp"):
    return np.array(rows, [(name, np.int16 if name != "t" else np.int64) for name in names])


def test_structured_arrays_become_recordings():
    stored = Stored(
        [(structured([(3, 2, 5, 1), (0, 1, 106, 0)]), 1), (structured([(0, 0, 9, 1)]), 0)]
    )
    assert sensor_of(stored) == SMALL
    rows = from_tonic(stored, UNFILTERED)
    assert rows.codes.tolist() == [[2 * 8 + 3 * 2 + 1], [1]]
    assert rows.labels.tolist() == [1, 0]


def test_a_line_of_one_polarity_becomes_one_row():
    """Sound: channels, and whatever stands for the polarity is one."""
    stored = Stored(
        [(structured([(3, 7, 1), (1, 7, 1), (0, 207, 1)], "xtp"), np.int64(4))], (5, 1, 1)
    )
    rows = from_tonic(stored, UNFILTERED)
    assert (rows.codes.tolist(), rows.lengths.tolist()) == ([[3, 1]], [2])


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((structured([(1, 2, 3)], "xyt"), 0), r"recording 0 lacks the fields \['p'\]"),
        ((np.zeros((3, 4)), 0), r"lacks the fields \['p', 't', 'x'\]"),
        ((structured([(1, 2, 3, 1)]), "zero"), "label 'zero' of recording 0"),
        ((structured([(4, 2, 3, 1)]), 0), "Stored: recording 0, event 0: x 4"),
        ((structured([(1, 2, 3, 1), (1, 2, 2, 1)]), 0), "time 2 us comes after 3 us"),
    ],
)
def test_other_data_sets_are_refused(pair, message):
    with pytest.raises(ValueError, match=message):
        from_tonic(Stored([pair]), UNFILTERED)
    with pytest.raises(ValueError, match=r"sensor_size is None; \(width, height, polarities\)"):
        from_tonic([pair], UNFILTERED)


def test_a_name_is_one_of_tonics(monkeypatch):
    tonic = pytest.importorskip("tonic")

    monkeypatch.setattr(tonic.datasets, "Made", Stored, raising=False)
    pairs = [(structured([(3, 2, 5, 1)]), 6)]
    assert from_tonic("Made", UNFILTERED, pairs=pairs).labels.tolist() == [6]
    with pytest.raises(ValueError, match=r"tonic\.datasets has no 'NMNITS'"):
        from_tonic("NMNITS", UNFILTERED)


def test_without_tonic_the_remedy_is_named(monkeypatch):
    for name in ("tonic", "tonic.datasets"):  # the second stays loaded after another test
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"pip install 'jaxsnn-conversion\[events\]'"):
        from_tonic("NMNIST", UNFILTERED)
