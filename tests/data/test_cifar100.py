"""CIFAR-100's batches and their archive, beside those of CIFAR-10."""

import gzip
import io
import os
import pickle
import tarfile

import numpy as np
import pytest
from data_files import isolate

from jaxsnn import data

COUNTS = {"train": 7, "test": 3}
CALLED = {"train": b"training batch 1 of 1", "test": b"testing batch 1 of 1"}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    return isolate(tmp_path, monkeypatch)


def rows(name):
    rng = np.random.default_rng(len(name))
    return rng.integers(0, 256, (COUNTS[name], 3072), np.uint8)


def labels(name):
    """0 to 99, of which more than ten classes and the last one occur."""
    return [(99 - 17 * row) % 100 for row in range(COUNTS[name])]


def record(name, **change):
    whole = {
        "filenames": [f"{name}_{row}.png".encode() for row in range(COUNTS[name])],
        "batch_label": CALLED[name],
        "fine_labels": labels(name),
        "coarse_labels": [19] * COUNTS[name],
        "data": rows(name),
        **change,
    }
    return pickle.dumps({key.encode(): value for key, value in whole.items()}, 2)


def meta(fine=100):
    names = {
        b"fine_label_names": [f"class {number}".encode() for number in range(fine)],
        b"coarse_label_names": [f"group {number}".encode() for number in range(20)],
    }
    return pickle.dumps(names, 2)


def contents():
    return {"train": record("train"), "test": record("test"), "meta": meta()}


def write(folder, **change):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**contents(), **change}.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def write_archive(folder, inner="cifar-100-python"):
    folder.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in contents().items():
            info = tarfile.TarInfo(f"{inner}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    path = folder / "cifar-100-python.tar.gz"
    path.write_bytes(gzip.compress(file.getvalue()))
    return path


def check(actual):
    """Pixel [row, line, column, colour] is value 1024 * colour + 32 * line + column of its row."""
    for name in COUNTS:
        images, classes = getattr(actual, f"{name}_images"), getattr(actual, f"{name}_labels")
        planes = rows(name).reshape(-1, 3, 32, 32)
        np.testing.assert_array_equal(images, np.moveaxis(planes, 1, 3))
        assert classes.tolist() == labels(name)
        assert (images.dtype, classes.dtype) == (np.uint8, np.int32)


def test_both_batches_are_read_with_their_fine_labels(tmp_path):
    folder = write(tmp_path / "cifar-100-python")
    dataset = data.load("cifar100", folder)
    check(dataset)
    assert (dataset.classes, dataset.name, dataset.source) == (100, "cifar100", str(folder))
    assert dataset.input_shape == (32, 32, 3)


@pytest.mark.parametrize(
    "layout", [".", "cifar-100-python", "cifar100", "CIFAR100/cifar-100-python", "cifar-100"]
)
@pytest.mark.parametrize("packed", [True, False])
def test_usual_layouts_are_found_from_above(tmp_path, monkeypatch, layout, packed):
    folder = tmp_path / "root" / layout
    write_archive(folder) if packed else write(folder)
    check(data.load("cifar100", tmp_path / "root"))
    monkeypatch.setenv("JAXSNN_DATA", str(tmp_path / "root"))
    check(data.load("cifar100"))


def test_the_archive_of_cifar_10_is_another(tmp_path):
    """Neither is taken for the other, though both may lie in one folder."""
    write_archive(tmp_path)
    check(data.load("cifar100", tmp_path))
    with pytest.raises(ValueError, match="cifar10 was not found"):
        data.load("cifar10", tmp_path)
    (tmp_path / "cifar-100-python.tar.gz").rename(tmp_path / "cifar-10-python.tar.gz")
    with pytest.raises(ValueError, match="only a part of cifar10; missing: data_batch_1"):
        data.load("cifar10", tmp_path)
    with pytest.raises(ValueError, match="cifar100 was not found"):
        data.load("cifar100", tmp_path)


def test_folders_of_another_name_in_the_archive_are_not_taken(tmp_path):
    write_archive(tmp_path, inner="elsewhere")
    with pytest.raises(ValueError, match="part of cifar100; missing: train, test, meta;"):
        data.load("cifar100", tmp_path)


def test_nothing_found_lists_places_and_files(tmp_path):
    with pytest.raises(ValueError, match="cifar100 was not found") as error:
        data.load("cifar100", tmp_path / "given")
    assert str(tmp_path / "given" / "cifar-100-python") in str(error.value)
    assert "in cifar-100-python.tar.gz): train, test, meta" in str(error.value)


def test_folders_called_train_and_test_are_not_the_batches(tmp_path):
    """As other data sets have them."""
    for name in COUNTS:
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="cifar100 was not found"):
        data.load("cifar100", tmp_path)


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train", record("train")[:-1], "damaged or incomplete pickle"),
        ("test", record("test")[:2000], "damaged or incomplete pickle"),
        ("train", b"", "damaged or incomplete pickle"),
        ("train", record("test"), "batch_label is b'testing batch 1 of 1', wanted b'training"),
        ("train", record("train", batch_label=b"training batch 1 of 5"), "batch 1 of 5', wanted"),
        ("train", record("train", fine_labels=[1, 2]), "7 images but fine_labels holds 2 labels"),
        ("test", record("test", fine_labels=[0, 99, 100]), r"fine_labels: label 100 at index 2 is"),
        ("test", record("test", fine_labels=[-1, 0, 1]), r"label -1 at index 0 is outside 0\.\.99"),
        ("test", record("test", fine_labels=None), "fine_labels is not a list of whole numbers"),
        ("train", record("train", data=rows("train")[:, 1:]), r"data is \(7, 3071\), wanted"),
        ("train", record("train", data=[]), "data is list"),
        ("train", pickle.dumps({b"data": Runs("true")}, 2), rf"asks for {os.name}\.system"),
        ("meta", meta(99), "wanted 100 fine_label_names; get the file again"),
        ("meta", pickle.dumps({b"label_names": [b"a"] * 100}, 2), "wanted 100 fine_label_names"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, file, content, message):
    folder = write(tmp_path / "cifar100", **{file: content})
    with pytest.raises(ValueError, match=message) as error:
        data.load("cifar100", folder)
    assert str(folder / file) in str(error.value)


@pytest.mark.parametrize("file", ["train", "test", "meta"])
def test_a_missing_file_is_named(tmp_path, file):
    folder = write(tmp_path / "cifar100", **{file: None})
    with pytest.raises(ValueError, match=f"only a part of cifar100; missing: {file};") as error:
        data.load("cifar100", folder)
    assert str(folder) in str(error.value)
    assert "get cifar-100-python.tar.gz again" in str(error.value)
