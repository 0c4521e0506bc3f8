"""Folders that tensorflow-datasets has prepared, and the tool that prepares them."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from data_files import (
    TEST,
    idx_bytes,
    isolate,
    pixels,
    put,
    unpack_prepared,
    write_prepared_colours,
    write_set,
)

from jaxsnn import data
from jaxsnn.data import prepared


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    return isolate(tmp_path, monkeypatch)


def as_pairs(images, labels):
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def test_a_prepared_folder_holds_the_images_it_was_made_of(tmp_path):
    """Preparing shuffles; as sets of pairs the images and labels are the same."""
    folder = unpack_prepared(tmp_path)
    assert prepared.find(tmp_path / "digits") == folder
    actual, digits = prepared.read(folder, "digits", 10, (28, 28, 1)), data.load("digits")
    for part in ("train", "test"):
        images, labels = getattr(digits, f"{part}_images"), getattr(digits, f"{part}_labels")
        read_images, read_labels = (
            getattr(actual, f"{part}_images"),
            getattr(actual, f"{part}_labels"),
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


def test_colours_are_read(tmp_path):
    """CIFAR-10 as tensorflow-datasets describes it: an id, a PNG of three channels, a label."""
    random = np.random.default_rng(0)
    splits = {
        split: (random.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count) % 10)
        for split, count in (("train", 12), ("test", 5))
    }
    folder = write_prepared_colours(tmp_path, splits)
    dataset = data.load("cifar10", tmp_path)
    assert dataset.source == f"tensorflow-datasets, {folder}"
    np.testing.assert_array_equal(dataset.train_images, splits["train"][0])
    np.testing.assert_array_equal(dataset.train_labels, splits["train"][1])
    np.testing.assert_array_equal(dataset.test_images, splits["test"][0])
    np.testing.assert_array_equal(dataset.test_labels, splits["test"][1])


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
    path = Path(__file__).parents[2] / "tools" / "prepare_tfds.py"
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
    (folder / f"{TEST[0]}.gz").unlink()
    put(folder, TEST[0], idx_bytes(pixels(20)), compress=False)
    with pytest.raises(ValueError, match=f"no folder with all of .*{TEST[0]}.gz"):
        tool.files_folder("mnist", None)


@pytest.mark.parametrize("number", [10, 100])
def test_the_tool_takes_the_archive_that_tensorflow_datasets_checks(tool, tmp_path, number):
    """The builder reads the binary archive; without it, it would download."""
    name, archive = f"cifar{number}", f"cifar-{number}-binary.tar.gz"
    (tmp_path / f"cifar-{number}-python.tar.gz").write_bytes(b"of the Python batches")
    with pytest.raises(ValueError, match=rf"no folder with all of {archive} \(looked"):
        tool.files_folder(name, tmp_path)
    (tmp_path / archive).write_bytes(b"of the binary batches")
    assert tool.files_folder(name, tmp_path) == tmp_path
    # What the tool looks for is what the builder would download.
    infos = tool.tfds.builder_cls(name).url_infos.values()
    assert [info.filename for info in infos] == [archive]


def test_the_tool_offers_what_tensorflow_datasets_has(tool):
    assert tool.NAMES == ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100"]


def test_the_tool_does_not_leave_a_shortened_set_where_runs_look(tool, tmp_path):
    with pytest.raises(ValueError, match=r"--limit 5 .*needs --out"):
        tool.prepare("digits", None, None, 5)
    with pytest.raises(ValueError, match="--limit 0 must be at least 1"):
        tool.prepare("digits", None, tmp_path, 0)
