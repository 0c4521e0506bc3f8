"""IDX and npz files: what is read, and that damage is named."""

from pathlib import Path

import numpy as np
import pytest
from data_files import TEST, TRAIN, idx_bytes, isolate, pixels, put, write_set

from jaxsnn import data


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    return isolate(tmp_path, monkeypatch)


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
    dataset = data.load(path)
    np.testing.assert_array_equal(dataset.train_images[..., 0], pixels(12))
    np.testing.assert_array_equal(dataset.test_images[..., 0], pixels(6, 1))
    assert (dataset.classes, dataset.name, dataset.source) == (3, "own", path)
    assert dataset.test_labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.locations(path) == data.locations(Path(path)) == [Path(path)]
    np.testing.assert_array_equal(data.load(Path(path)).test_images, dataset.test_images)


def test_npz_without_test_arrays_gives_a_fifth(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (50, 8, 9, 3), np.uint8)
    path = npz(tmp_path / "own.npz", images=colour, labels=np.repeat(np.arange(5), 10))
    dataset = data.load(path)
    assert dataset.train_images.shape == (40, 8, 9, 3)
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), [2] * 5)
    together = np.concatenate([dataset.train_images, dataset.test_images]).reshape(50, -1)
    assert sorted(map(bytes, together)) == sorted(map(bytes, colour.reshape(50, -1)))
    assert "fifth held out" in dataset.source


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
        ({"images": np.array([object()] * 6)}, "pickled, which is never read"),
        ({"labels": np.array([0, 1, np.nan, 0, 1, 0])}, "labels holds NaN"),
        ({"labels": np.array(list("abcdef"))}, "labels has dtype <U1"),
        ({"labels": np.array([0, 1, -1, 0, 1, 0])}, r"labels has values -1\.\.1"),
        ({"labels": np.zeros((6, 1), int)}, r"labels is int32 of shape \(6, 1\)"),
        ({"images": pixels(0), "labels": np.zeros(0, int)}, "labels is empty"),
        ({"labels": np.arange(6) % 2 + 1}, r"labels are 1\.\.2 and none is 0; .*subtract 1"),
        ({"labels": np.arange(6) % 2 + 1, "classes": 2}, r"label 2 at index 1 .*subtract 1"),
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
        with pytest.raises(
            ValueError, match=r"own\.npz.*(not a complete npz|no plain array|damaged)"
        ):
            data.load(path)
    with pytest.raises(ValueError, match=r"none\.npz: no such file"):
        data.load(str(tmp_path / "none.npz"))
    with pytest.raises(ValueError, match=r"missing arrays \['labels'\]"):
        data.load(npz(path, images=pixels(3)))


def test_an_npy_file_called_npz_is_named(tmp_path):
    np.save(tmp_path / "own.npy", pixels(3))
    (tmp_path / "own.npy").rename(tmp_path / "own.npz")
    with pytest.raises(ValueError, match=r"own\.npz.*(not a complete npz|no plain array|damaged)"):
        data.load(str(tmp_path / "own.npz"))
