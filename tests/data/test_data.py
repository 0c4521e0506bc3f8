"""Data sets: the embedded digits, the record, validation, and the search order."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import TEST, TRAIN, isolate, pixels, write_set

from jaxsnn import data
from jaxsnn.data.splits import limited, limited_rows, stratified_split


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    return isolate(tmp_path, monkeypatch)


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


@pytest.mark.parametrize(
    ("counts", "held", "expected"),
    [
        ([1, 99], 50, [0, 50]),  # half an image of the first class, which has but one
        ([1, 1, 8], 5, [0, 0, 5]),  # shares 0.5, 0.5 and 4: the one left is the third class's
        ([100, 1, 1, 1, 1], 99, [99, 0, 0, 0, 0]),  # 95.19 and four times 0.95
        ([2, 2], 3, [2, 1]),  # one class must be lost, and the first tie is
    ],
)
def test_no_class_gives_its_last_image_while_another_has_two(counts, held, expected):
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    train, test = stratified_split(labels, held)
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert np.bincount(labels[test], minlength=len(counts)).tolist() == expected


# --- validation -----------------------------------------------------------------------------


def in_classes(*counts):
    """A data set sorted by class; the first pixel of every image is its number."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    images = np.zeros((len(labels), 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return data.Dataset(images, labels, images, labels, len(counts), "sorted", "made")


def test_split_validation_takes_of_every_class_its_share():
    """A fifth of 50, 20 and 10 images; in the order of the file, and no run of it."""
    whole = in_classes(50, 20, 10)
    images, labels, held_images, held_labels = data.split_validation(whole, 16)
    assert np.bincount(held_labels).tolist() == [10, 4, 2]
    assert np.bincount(labels).tolist() == [40, 16, 8]
    rows, held = images[:, 0, 0, 0].tolist(), held_images[:, 0, 0, 0].tolist()
    assert sorted([*rows, *held]) == list(range(80))
    assert (rows, held) == (sorted(rows), sorted(held))
    assert held[:10] != list(range(40, 50))
    again = data.split_validation(whole, 16)
    np.testing.assert_array_equal(again[2], held_images)
    assert not np.array_equal(data.split_validation(whole, 16, seed=1)[2], held_images)


def test_limits_keep_every_classes_share_and_the_only_image():
    """A half, and a quarter, of 50, 29 and 1 images."""
    kept = limited(in_classes(50, 29, 1), 40, 20)
    assert np.bincount(kept.train_labels).tolist() == [25, 14, 1]
    assert np.bincount(kept.test_labels).tolist() == [12, 7, 1]
    np.testing.assert_array_equal(np.diff(kept.train_images[:, 0, 0, 0]) > 0, True)
    assert limited_rows(np.zeros(3, np.int32), 5).tolist() == [0, 1, 2]


def test_nothing_held_out():
    digits = data.load("digits")
    images, labels, held_images, held_labels = data.split_validation(digits, 0)
    assert (len(images), len(labels), len(held_labels)) == (1437, 1437, 0)
    assert held_images.shape == (0, 28, 28, 1)


def test_a_split_drawn_anew_has_the_same_images_as_many_of_each_and_follows_from_its_seed():
    digits = data.load("digits")
    numbered = replace(  # images that are all different
        digits,
        train_images=np.arange(30, dtype=np.uint8).reshape(30, 1, 1, 1),
        train_labels=np.arange(30, dtype=np.int32) % 10,
        test_images=np.arange(30, 40, dtype=np.uint8).reshape(10, 1, 1, 1),
        test_labels=np.arange(10, dtype=np.int32),
    )
    first, again, other = (data.redrawn(numbered, seed) for seed in ((0, 1), (0, 1), (0, 2)))
    for one in (first, other):
        train, test = one.train_images.ravel(), one.test_images.ravel()
        assert (len(train), len(test)) == (30, 10)
        np.testing.assert_array_equal(np.sort([*train, *test]), np.arange(40))
        np.testing.assert_array_equal(one.train_labels, train % 10)
        np.testing.assert_array_equal(one.test_labels, test % 10)
    np.testing.assert_array_equal(first.test_images, again.test_images)
    assert set(first.test_images.flat) & set(other.train_images.flat)
    assert first.source.endswith("drawn anew from seed (0, 1)")


@pytest.mark.parametrize("count", [-1, 1437, 5000])
def test_split_validation_refuses_what_leaves_nothing(count):
    with pytest.raises(ValueError, match=rf"validation count {count} .*between 0 and 1436"):
        data.split_validation(data.load("digits"), count)


def test_load_can_hold_out_validation_images():
    whole, parted = data.load("digits"), data.load("digits", validation=437)
    assert len(whole.validation_images) == len(whole.validation_labels) == 0
    both = np.concatenate([parted.train_images, parted.validation_images]).reshape(1437, -1)
    order = np.lexsort(both.T)
    images = whole.train_images.reshape(1437, -1)
    np.testing.assert_array_equal(both[order], images[np.lexsort(images.T)])
    shares = np.bincount(whole.train_labels) * 437 / 1437
    assert np.abs(np.bincount(parted.validation_labels) - shares).max() < 1
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
        dataset = data.load("mnist", tmp_path / "given")
        np.testing.assert_array_equal(dataset.train_images[..., 0], pixels(30, seed))
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
