"""Data sets: the embedded digits, IDX files, npz files, prepared folders, and the search order."""

import gzip
import importlib.util
import json
import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from jaxsnn import data
from jaxsnn.data import prepared
from jaxsnn.data.base import stratified_split

TRAIN, TEST = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    (
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ),
)
# Made by: python tools/prepare_tfds.py digits --limit 20 --out FOLDER
#          cd FOLDER && python -m zipfile -c tfds_digits.zip digits
PREPARED = Path(__file__).parent / "data" / "tfds_digits.zip"


def idx_bytes(array):
    """An IDX file by the format's definition, written without the library."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def pixels(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def put(folder, name, content, compress=True):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"{name}.gz" if compress else name)
    path.write_bytes(gzip.compress(content) if compress else content)
    return path


def write_set(folder, seed=0, compress=True):
    """A complete small data set: 30 training and 20 test images."""
    for (images, labels), count in ((TRAIN, 30), (TEST, 20)):
        put(folder, images, idx_bytes(pixels(count, seed)), compress)
        put(folder, labels, idx_bytes(np.arange(count) % 10), compress)
    return folder


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No data but a test's own: an empty home and working folder, and no download."""
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home / "work")
    monkeypatch.delenv("JAXSNN_DATA", raising=False)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr(prepared, "tensorflow_installed", lambda: False)
    return home


# --- digits ---------------------------------------------------------------------------------


def test_digits_are_scikit_learns_and_split_in_proportion():
    from sklearn.datasets import load_digits

    digits = data.load("digits")
    assert digits.train_images.shape == (1437, 28, 28, 1)
    assert digits.test_images.shape == (360, 28, 28, 1)
    assert digits.train_images.dtype == digits.test_images.dtype == np.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == np.int32
    original = np.bincount(load_digits().target)
    train, test = np.bincount(digits.train_labels), np.bincount(digits.test_labels)
    np.testing.assert_array_equal(train + test, original)
    assert np.abs(test - original * 360 / 1797).max() < 1


def bilinear_matrix():
    """28 x 8 weights: pixel centres at (i + 1/2) * 8/28 - 1/2, held at the border."""
    centres = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(8)))


def test_digits_are_the_originals_interpolated():
    """Interpolated in NumPy, every original is found once, with its label, to a grey value."""
    from sklearn.datasets import load_digits

    digits, originals, weights = data.load("digits"), load_digits(), bilinear_matrix()
    expected = weights @ (originals.images * 255 / 16) @ weights.T
    expected = expected.reshape(1797, -1)
    images = (
        np.concatenate([digits.train_images, digits.test_images]).reshape(1797, -1).astype(float)
    )
    distance = (expected**2).sum(1) - 2 * images @ expected.T
    nearest = distance.argmin(1)
    np.testing.assert_array_equal(np.sort(nearest), np.arange(1797))
    assert np.abs(images - expected[nearest]).max() <= 1.5
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    np.testing.assert_array_equal(originals.target[nearest], labels)


def test_digits_are_the_same_every_time():
    first, second = data.load("digits"), data.load("digits")
    np.testing.assert_array_equal(first.train_images, second.train_images)
    np.testing.assert_array_equal(first.test_labels, second.test_labels)


def test_stratified_split_by_hand():
    """4 + 3 + 3 labels, 5 to test: shares 2, 1.5 and 1.5, and the first tie gets the fifth."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2], np.int32)
    train, test = stratified_split(labels, 5)
    assert sorted([*train, *test]) == list(range(10))
    np.testing.assert_array_equal(np.bincount(labels[test]), [2, 2, 1])
    assert list(stratified_split(labels, 0)[1]) == []
    assert list(stratified_split(labels, 10)[0]) == []
    with pytest.raises(ValueError, match="test count 11"):
        stratified_split(labels, 11)


# --- validation -----------------------------------------------------------------------------


def test_split_validation_takes_the_last_images():
    digits = data.load("digits")
    images, labels, held_images, held_labels = data.split_validation(digits, 400)
    assert len(images) == len(labels) == 1037
    np.testing.assert_array_equal(held_images, digits.train_images[1037:])
    np.testing.assert_array_equal(held_labels, digits.train_labels[1037:])
    images, labels, held_images, held_labels = data.split_validation(digits, 0)
    assert (len(images), len(labels), len(held_labels)) == (1437, 1437, 0)
    assert held_images.shape == (0, 28, 28, 1)


@pytest.mark.parametrize("count", [-1, 1437, 5000])
def test_split_validation_refuses_what_leaves_nothing(count):
    with pytest.raises(ValueError, match=rf"validation count {count} .*between 0 and 1436"):
        data.split_validation(data.load("digits"), count)


def test_load_can_hold_out_validation_images():
    whole, parted = data.load("digits"), data.load("digits", validation=437)
    assert len(whole.validation_images) == len(whole.validation_labels) == 0
    np.testing.assert_array_equal(parted.train_images, whole.train_images[:1000])
    np.testing.assert_array_equal(parted.validation_images, whole.train_images[1000:])
    np.testing.assert_array_equal(parted.validation_labels, whole.train_labels[1000:])
    np.testing.assert_array_equal(parted.test_images, whole.test_images)


# --- the record -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train_images": np.zeros((1437, 28, 28, 1), np.float32)},
            "train_images has dtype float32",
        ),
        ({"train_images": np.zeros((1437, 28, 28), np.uint8)}, "train_images has shape"),
        ({"train_images": np.zeros((9, 28, 28, 1), np.uint8)}, "9 images but .* 1437 labels"),
        ({"test_images": np.zeros((360, 8, 8, 1), np.uint8)}, "test images have shape"),
        ({"test_labels": np.full(360, 10, np.int32)}, r"label 10 at index 0 is outside 0\.\.9"),
        ({"test_labels": np.full(360, -1, np.int32)}, "label -1 at index 0"),
        ({"test_labels": np.zeros(360, np.int64)}, "test_labels is int64"),
        ({"classes": 0}, "0 classes"),
        (
            {
                "train_images": np.zeros((0, 28, 28, 1), np.uint8),
                "train_labels": np.zeros(0, np.int32),
            },
            "no training image",
        ),
    ],
)
def test_dataset_refuses_arrays_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        replace(data.load("digits"), **change)


# --- IDX files ------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [True, False])
def test_idx_files_are_read_compressed_and_plain(tmp_path, compress):
    folder = write_set(tmp_path / "mnist", seed=3, compress=compress)
    mnist = data.load("mnist", folder)
    np.testing.assert_array_equal(mnist.train_images[..., 0], pixels(30, 3))
    np.testing.assert_array_equal(mnist.test_images[..., 0], pixels(20, 3))
    np.testing.assert_array_equal(mnist.train_labels, np.arange(30) % 10)
    assert (mnist.classes, mnist.name, mnist.source) == (10, "mnist", str(folder))
    assert mnist.train_labels.dtype == np.int32


def test_idx_files_may_be_mixed_and_dotted(tmp_path):
    folder = write_set(tmp_path / "files", compress=False)
    (folder / TRAIN[0]).rename(folder / "train-images.idx3-ubyte")
    put(folder, TEST[0], idx_bytes(pixels(20)))
    (folder / TEST[0]).unlink()
    assert data.load("mnist", folder).test_images.shape == (20, 28, 28, 1)


def broken(folder, name, content, compress=False):
    (folder / f"{name}.gz").unlink()
    return put(folder, name, content, compress)


def test_a_truncated_gzip_is_named(tmp_path):
    folder = write_set(tmp_path / "mnist")
    path = folder / f"{TRAIN[0]}.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=f"{TRAIN[0]}.gz: damaged or incomplete gzip"):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize("offset", [200, -6])
def test_a_gzip_with_a_flipped_byte_is_named(tmp_path, offset):
    folder = write_set(tmp_path / "mnist")
    path = folder / f"{TRAIN[0]}.gz"
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=f"{TRAIN[0]}.gz: damaged or incomplete gzip"):
        data.load("mnist", tmp_path)


def test_a_plain_file_called_gz_is_named(tmp_path):
    folder = write_set(tmp_path / "mnist")
    (folder / f"{TEST[1]}.gz").write_bytes(idx_bytes(np.arange(20) % 10))
    with pytest.raises(ValueError, match=f"{TEST[1]}.gz: damaged.*[Nn]ot a gzip"):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TRAIN[0], b"", "0 bytes, too short"),
        (TRAIN[1], b"\0\0\x08", "3 bytes, too short"),
        (TRAIN[0], b"\0\0\x0d\x03" + idx_bytes(pixels(30))[4:], "magic number 0x00000d03, wanted"),
        (TRAIN[1], idx_bytes(pixels(30)), "magic number 0x00000803, wanted 0x00000801"),
        (TRAIN[0], idx_bytes(pixels(30))[:-1], "too short: .*23520 bytes, but 23519 follow"),
        (TRAIN[0], idx_bytes(pixels(30)) + b"\0", "too long: .*23520 bytes, but 23521 follow"),
        (TEST[0], idx_bytes(np.zeros((20, 32, 32))), "images of 32x32, wanted 28x28"),
        (TEST[0], idx_bytes(np.zeros((0, 28, 28))), "0 images"),
        (TRAIN[1], idx_bytes(np.arange(29) % 10), "holds 30 images but .*holds 29 labels"),
        (TEST[1], idx_bytes(np.arange(20) % 11), r"label 10 at index 10 is outside 0\.\.9"),
    ],
)
def test_a_broken_idx_file_is_named(tmp_path, monkeypatch, name, content, message):
    folder = write_set(tmp_path / "mnist")
    broken(folder, name, content)
    # An intact set further down the search order must not be taken instead.
    monkeypatch.setenv("JAXSNN_DATA", str(write_set(tmp_path / "other" / "mnist").parent))
    with pytest.raises(ValueError, match=message) as error:
        data.load("mnist", folder)
    assert str(folder / name) in str(error.value)


def test_a_missing_file_among_four_is_named(tmp_path):
    folder = write_set(tmp_path / "mnist")
    (folder / f"{TEST[1]}.gz").unlink()
    with pytest.raises(ValueError, match=f"only a part of mnist; missing: {TEST[1]}"):
        data.load("mnist", tmp_path)


# --- npz files ------------------------------------------------------------------------------


def npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_npz_with_test_arrays(tmp_path):
    path = npz(
        tmp_path / "own.npz",
        images=pixels(12),
        labels=np.arange(12, dtype=np.uint8) % 3,
        test_images=pixels(6, 1).astype(np.int64),
        test_labels=np.arange(6) % 3,
    )
    own = data.load(path)
    np.testing.assert_array_equal(own.train_images[..., 0], pixels(12))
    np.testing.assert_array_equal(own.test_images[..., 0], pixels(6, 1))
    assert (own.classes, own.name, own.source) == (3, "own", path)
    assert own.test_labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.locations(path) == [Path(path)]


def test_npz_without_test_arrays_gives_a_fifth(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (50, 8, 9, 3), np.uint8)
    path = npz(tmp_path / "own.npz", images=colour, labels=np.repeat(np.arange(5), 10))
    own = data.load(path)
    assert own.train_images.shape == (40, 8, 9, 3)
    np.testing.assert_array_equal(np.bincount(own.test_labels), [2] * 5)
    together = np.concatenate([own.train_images, own.test_images]).reshape(50, -1)
    assert sorted(map(bytes, together)) == sorted(map(bytes, colour.reshape(50, -1)))
    assert "fifth held out" in own.source


def test_npz_may_state_its_classes(tmp_path):
    arrays = {"images": pixels(4), "labels": np.zeros(4, int)}
    assert data.load(npz(tmp_path / "a.npz", **arrays, classes=7)).classes == 7
    with pytest.raises(ValueError, match=r"a\.npz: classes has shape"):
        data.load(npz(tmp_path / "a.npz", **arrays, classes=[7]))


GOOD = {"images": pixels(6), "labels": np.arange(6) % 2}
WITH_NAN = np.where(pixels(6) > 99, np.nan, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": pixels(6) / 255}, "images has dtype float64; integers"),
        ({"images": WITH_NAN}, "images holds NaN"),
        ({"images": pixels(6).reshape(6, -1)}, r"images has shape \(6, 784\)"),
        ({"images": pixels(6).astype(int) - 1}, r"images has values -1\.\."),
        ({"images": pixels(6).astype(int) + 1}, r"images has values .*256; pixels are"),
        ({"images": np.zeros((6, 0, 28), np.uint8)}, r"images has shape \(6, 0, 28, 1\)"),
        ({"images": pixels(5)}, r"images holds 5 images but .*labels holds 6"),
        ({"images": np.array([object()] * 6)}, "not a readable npz"),
        ({"labels": np.array([0, 1, np.nan, 0, 1, 0])}, "labels holds NaN"),
        ({"labels": np.array(list("abcdef"))}, "labels has dtype <U1"),
        ({"labels": np.array([0, 1, -1, 0, 1, 0])}, r"labels has values -1\.\.1"),
        ({"labels": np.zeros((6, 1), int)}, r"labels is int32 of shape \(6, 1\)"),
        ({"images": pixels(0), "labels": np.zeros(0, int)}, "labels is empty"),
        ({"classes": 1}, r": labels: label 1 at index 1 is outside 0\.\.0"),
        ({"test_images": pixels(2)}, r"missing arrays \['test_labels'\]"),
        ({"test_images": pixels(2), "test_labels": [0, 2]}, "test_labels: label 2 at index 1"),
        ({"image": pixels(2)}, r"unknown arrays \['image'\]"),
    ],
)
def test_a_wrong_npz_is_named(tmp_path, change, message):
    path = npz(tmp_path / "own.npz", **{**GOOD, **change})
    with pytest.raises(ValueError, match=message) as error:
        data.load(path)
    assert path in str(error.value)


def test_a_damaged_npz_is_named(tmp_path):
    path = npz(tmp_path / "own.npz", **GOOD)
    content = Path(path).read_bytes()
    flipped = content[:900] + bytes([content[900] ^ 1]) + content[901:]
    for damaged in (content[:-100], b"", b"not an archive", flipped, idx_bytes(pixels(2))):
        Path(path).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"own\.npz: not a readable npz"):
            data.load(path)
    with pytest.raises(ValueError, match=r"none\.npz: no such file"):
        data.load(str(tmp_path / "none.npz"))
    with pytest.raises(ValueError, match=r"missing arrays \['labels'\]"):
        data.load(npz(path, images=pixels(3)))


def test_an_npy_file_called_npz_is_named(tmp_path):
    np.save(tmp_path / "own.npy", pixels(3))
    (tmp_path / "own.npy").rename(tmp_path / "own.npz")
    with pytest.raises(ValueError, match=r"own\.npz: not a readable npz"):
        data.load(str(tmp_path / "own.npz"))


# --- search order ---------------------------------------------------------------------------


def test_the_first_place_wins_in_the_documented_order(tmp_path, alone, monkeypatch):
    """Every place holds other pixels; taking them away one by one shows the next."""
    environment = tmp_path / "environment"
    monkeypatch.setenv("JAXSNN_DATA", str(environment))
    places = [
        tmp_path / "given",
        environment / "mnist",
        alone / "work" / "data" / "mnist",
        alone / ".cache" / "jaxsnn" / "data" / "mnist",
    ]
    for seed, place in enumerate(places):
        write_set(place, seed)
    for seed, place in enumerate(places):
        found = data.load("mnist", tmp_path / "given")
        np.testing.assert_array_equal(found.train_images[..., 0], pixels(30, seed))
        shutil.rmtree(place)


def test_locations_are_in_the_documented_order(tmp_path, alone, monkeypatch):
    monkeypatch.setenv("JAXSNN_DATA", str(tmp_path / "environment"))
    listed = data.locations("fashion_mnist", tmp_path / "given")
    expected = [
        tmp_path / "given",
        tmp_path / "given" / "fashion_mnist",
        tmp_path / "environment" / "fashion_mnist",
        Path("data/fashion_mnist"),
        alone / ".cache/jaxsnn/data/fashion_mnist",
        tmp_path / "environment" / "tfds" / "fashion_mnist",
        Path("data/tfds/fashion_mnist"),
        alone / ".cache/jaxsnn/data/tfds/fashion_mnist",
        alone / "tensorflow_datasets/fashion_mnist",
    ]
    assert [place for place in listed if place in expected] == expected
    assert len(set(listed)) == len(listed)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    assert data.locations("fashion_mnist")[-1] == tmp_path / "prepared" / "fashion_mnist"


@pytest.mark.parametrize("layout", ["MNIST/raw", "mnist", "."])
def test_usual_layouts_are_found_from_above(tmp_path, layout):
    write_set(tmp_path / layout)
    assert len(data.load("mnist", tmp_path).train_images) == 30


def test_a_folder_named_after_another_set_is_not_taken(tmp_path):
    """The files of MNIST and Fashion-MNIST have the same names."""
    folder = write_set(tmp_path / "MNIST" / "raw")
    assert len(data.load("mnist", folder).train_images) == 30
    with pytest.raises(ValueError, match="fashion_mnist was not found"):
        data.load("fashion_mnist", folder)


def test_nothing_found_lists_places_files_and_remedies(tmp_path, alone):
    with pytest.raises(ValueError, match="mnist was not found") as error:
        data.load("mnist", tmp_path / "given")
    message = str(error.value)
    for wanted in (*data.locations("mnist", tmp_path / "given"), *TRAIN, *TEST):
        assert str(wanted) in message
    assert "pip install '.[tfds]'" in message
    assert "--dataset digits" in message


@pytest.mark.parametrize(
    ("name", "nearest"), [("minst", "mnist"), ("fashion", "fashion_mnist"), ("digit", "digits")]
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    for function in (data.load, data.locations):
        with pytest.raises(ValueError, match=f"unknown data set '{name}'; nearest: '{nearest}'"):
            function(name)


def test_hyphen_and_underscore_are_the_same():
    assert data.locations("fashion-mnist") == data.locations("fashion_mnist")


# --- tensorflow-datasets --------------------------------------------------------------------


def unpack_prepared(place, name="digits"):
    """The prepared digits under `place`, as if they were the data set `name`."""
    shutil.unpack_archive(PREPARED, place)
    if name != "digits":
        version = (place / "digits").rename(place / name) / "1.0.0"
        info = json.loads((version / "dataset_info.json").read_text())
        (version / "dataset_info.json").write_text(json.dumps({**info, "name": name}))
        for path in version.glob("digits-*"):
            path.rename(version / path.name.replace("digits", name))
    return place / name / "1.0.0"


def as_pairs(images, labels):
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def test_a_prepared_folder_holds_the_images_it_was_made_of(tmp_path):
    """Preparing shuffles; as sets of pairs the images and labels are the same."""
    folder = unpack_prepared(tmp_path)
    assert prepared.find(tmp_path / "digits") == folder
    found, digits = prepared.read(folder, "digits", 10, (28, 28, 1)), data.load("digits")
    for part in ("train", "test"):
        images, labels = getattr(digits, f"{part}_images"), getattr(digits, f"{part}_labels")
        read_images, read_labels = (
            getattr(found, f"{part}_images"),
            getattr(found, f"{part}_labels"),
        )
        assert as_pairs(read_images, read_labels) == as_pairs(images[:20], labels[:20])


def test_reading_a_prepared_folder_needs_no_tensorflow(tmp_path, run_python):
    unpack_prepared(tmp_path, "mnist")
    code = """
import sys
from jaxsnn import data
found = data.load("mnist", sys.argv[1])
print(found.train_images.shape, found.test_images.shape, found.source)
print("tensorflow" in sys.modules)
"""
    printed = run_python(code, tmp_path)
    shape = "(20, 28, 28, 1)"
    source = f"tensorflow-datasets, {tmp_path}/mnist/1.0.0"
    assert printed.splitlines() == [f"{shape} {shape} {source}", "False"]


@pytest.mark.parametrize("variable", ["TFDS_DATA_DIR", "JAXSNN_DATA", None])
def test_prepared_folders_are_found_in_their_places(tmp_path, alone, monkeypatch, variable):
    place = alone / "tensorflow_datasets"
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
        place = tmp_path / "tfds" if variable == "JAXSNN_DATA" else tmp_path
    folder = unpack_prepared(place, "fashion_mnist")
    assert str(folder) in data.load("fashion_mnist").source


def test_the_authors_files_come_before_prepared_folders(tmp_path, alone):
    unpack_prepared(alone / "tensorflow_datasets", "mnist")
    write_set(alone / "work" / "data" / "mnist")
    assert data.load("mnist").source == str(Path("data/mnist"))


def test_the_newest_prepared_version_is_taken(tmp_path):
    folder = unpack_prepared(tmp_path)
    for version in ("0.9.12", "1.10.0", "1.9.0", "incomplete.ABC_2.0.0"):
        shutil.copytree(folder, folder.parent / version)
    assert prepared.find(folder.parent) == folder.parent / "1.10.0"
    assert prepared.find(tmp_path / "none") is None


def damage(folder, kind):
    records = folder / "mnist-train.array_record-00000-of-00001"
    info = folder / "dataset_info.json"
    if kind == "truncated":
        records.write_bytes(records.read_bytes()[:70_000])
    elif kind == "flipped":
        content = records.read_bytes()
        records.write_bytes(content[:5000] + bytes([content[5000] ^ 0xFF]) + content[5001:])
    elif kind == "absent":
        records.unlink()
    elif kind == "empty":
        records.write_bytes(b"")
    elif kind == "no description":
        info.write_text(info.read_text()[:100])
    elif kind == "list":
        info.write_text("[]")
    elif kind == "no features":
        (folder / "features.json").unlink()


@pytest.mark.parametrize(
    "kind",
    ["truncated", "flipped", "absent", "empty", "no description", "list", "no features"],
)
def test_a_damaged_prepared_folder_is_named(tmp_path, monkeypatch, kind):
    folder = unpack_prepared(tmp_path, "mnist")
    damage(folder, kind)
    monkeypatch.setenv("JAXSNN_DATA", str(write_set(tmp_path / "other" / "mnist").parent))
    with pytest.raises(ValueError, match=r"prepare it again") as error:
        data.load("mnist", tmp_path)
    assert str(folder) in str(error.value)


def test_a_prepared_folder_must_hold_what_is_asked_for(tmp_path):
    folder = unpack_prepared(tmp_path)
    with pytest.raises(ValueError, match=r"holds digits .*wanted mnist"):
        prepared.read(folder, "mnist", 10, (28, 28, 1))
    with pytest.raises(ValueError, match=r"shape \(28, 28, 1\), wanted \(32, 32, 3\)"):
        prepared.read(folder, "digits", 10, (32, 32, 3))
    with pytest.raises(ValueError, match=r"train labels: label \d at index \d+ is outside 0\.\.1"):
        prepared.read(folder, "digits", 2, (28, 28, 1))


def test_a_tfrecord_folder_is_reported_where_tensorflow_is_missing(tmp_path):
    folder = unpack_prepared(tmp_path, "mnist")
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match=r"1\.0\.0 is in tfrecord format, which only TensorFlow"):
        data.load("mnist", tmp_path)


def test_a_failed_download_is_reported(monkeypatch, alone):
    """With TensorFlow present the download is tried last; its failure stands in the message."""
    tried = []

    def fail(name, data_dir):
        tried.append((name, data_dir))
        raise RuntimeError("tensorflow-datasets could not download mnist: no network")

    monkeypatch.setattr(prepared, "tensorflow_installed", lambda: True)
    monkeypatch.setattr(prepared, "download", fail)
    with pytest.raises(ValueError, match="mnist was not found") as error:
        data.load("mnist")
    assert tried == [("mnist", alone / "tensorflow_datasets")]
    assert "no network" in str(error.value)
    assert "pip install" not in str(error.value)


def test_a_download_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(prepared, "tensorflow_installed", lambda: True)
    monkeypatch.setattr(
        prepared, "download", lambda _, data_dir: unpack_prepared(data_dir, "mnist")
    )
    assert len(data.load("mnist").train_images) == 20


def test_an_impossible_download_fails_with_its_cause(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RuntimeError, match="could not download no_such_set: "):
        prepared.download("no_such_set", tmp_path / "file")


def test_a_broken_installation_is_told_from_a_broken_folder(tmp_path, monkeypatch):
    """tensorflow-datasets without a package it needs imports as an empty module."""
    folder = unpack_prepared(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", ModuleType("tensorflow_datasets"))
    with pytest.raises(ValueError, match=r"cannot be imported .*importlib_resources"):
        prepared.read(folder, "digits", 10, (28, 28, 1))


@pytest.fixture(scope="module")
def tool():
    """tools/prepare_tfds.py as a module."""
    path = Path(__file__).parent.parent / "tools" / "prepare_tfds.py"
    spec = importlib.util.spec_from_file_location("prepare_tfds", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tool_takes_compressed_files_only(tool, tmp_path, monkeypatch):
    """It must not let tensorflow-datasets download what the reader has."""
    folder = write_set(tmp_path / "mnist")
    assert tool.files_folder("mnist", folder) == folder
    monkeypatch.setenv("JAXSNN_DATA", str(tmp_path))
    assert tool.files_folder("mnist", None) == folder
    broken(folder, TEST[0], idx_bytes(pixels(20)))
    with pytest.raises(ValueError, match=f"no folder with all of .*{TEST[0]}.gz"):
        tool.files_folder("mnist", None)


def test_the_tool_does_not_leave_a_shortened_set_where_runs_look(tool, tmp_path):
    with pytest.raises(ValueError, match=r"--limit 5 .*needs --out"):
        tool.prepare("digits", None, None, 5)
    with pytest.raises(ValueError, match="--limit 0 must be at least 1"):
        tool.prepare("digits", None, tmp_path, 0)
