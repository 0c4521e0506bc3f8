"""Files of every kind are told apart by their content; damaged and hostile ones in one line."""

import io
import json
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from containers import both
from safetensors.numpy import save

from jaxsnn.errors import UserError
from jaxsnn.exchange.read import read_weights
from jaxsnn.exchange.weights import Weights, natural
from jaxsnn.io.arrays import save_arrays

ARRAYS = {
    "layer.10.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "layer.9.weight": np.array([[1]], np.float16),
    "count": np.array(7, np.int64),
}


@pytest.fixture
def read(tmp_path):
    """Read content as a file; its ending says nothing."""

    def read(content, **options):
        path = tmp_path / "weights.bin"
        path.write_bytes(content)
        return read_weights(path, **options)

    return read


def npz(**arrays):
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def in_every_kind():
    files = both(ARRAYS)
    return {**files, "safetensors": save(ARRAYS), "npz": npz(**ARRAYS)}


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "npz"])
def test_the_same_arrays_from_every_kind(read, kind):
    weights = read(in_every_kind()[kind])
    assert set(weights) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(weights[name], array, strict=True)
        assert weights[name].flags.c_contiguous


def test_what_a_file_says_beside_its_arrays(read):
    files = in_every_kind()
    kinds = {kind: read(content) for kind, content in files.items()}
    assert {kind: weights.ordered for kind, weights in kinds.items()} == {
        "zip": True,
        "legacy": True,
        "safetensors": False,
        "npz": True,
    }
    assert list(kinds["zip"]) == list(ARRAYS)
    assert list(kinds["safetensors"]) == ["count", "layer.9.weight", "layer.10.weight"]
    assert repr(kinds["npz"]).endswith("3 arrays, 8 numbers>")
    assert "safetensors" in repr(kinds["safetensors"])


def test_weights_are_a_mapping():
    weights = Weights(ARRAYS)
    assert len(weights) == 3
    assert "count" in weights
    assert weights["count"] == 7
    with pytest.raises(KeyError):
        weights["missing"]


def test_our_own_weights_are_an_npz_as_well(tmp_path):
    save_arrays(tmp_path / "own.npz", {"params/conv1/kernel": np.float32([1])}, {"epoch": 1})
    assert list(read_weights(tmp_path / "own.npz")) == ["params/conv1/kernel"]


def safetensors_file(dtype, shape, content, stop=None, name="w"):
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, stop or len(content)]}
    header = json.dumps({name: entry}).encode()
    return struct.pack("<Q", len(header)) + header + content


@pytest.mark.parametrize(
    ("dtype", "content", "expected"),
    [
        ("BF16", b"\x80\x3f\x00\xc0", np.array([1, -2], np.float32)),
        ("F8_E5M2", b"\x3c\xc0", np.array([1, -2], np.float32)),
        ("F8_E4M3", b"\x38\xc0", np.array([1, -2], np.float32)),
        ("BOOL", b"\0\1", np.array([False, True])),
        ("F64", struct.pack("<2d", 1, -2), np.array([1.0, -2.0])),
        ("U16", b"\1\2\3\0", np.array([513, 3], np.uint16)),
    ],
)
def test_types_of_safetensors(read, dtype, content, expected):
    weights = read(safetensors_file(dtype, [2], content))
    np.testing.assert_array_equal(weights["w"], expected, strict=True)


def test_bfloat16_in_safetensors_equals_that_of_ml_dtypes(read):
    values = np.linspace(-3, 3, 9).astype(ml_dtypes.bfloat16)
    weights = read(safetensors_file("BF16", [3, 3], values.tobytes()))
    np.testing.assert_array_equal(
        weights["w"], values.astype(np.float32).reshape(3, 3), strict=True
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (safetensors_file("F32", [2], bytes(7), 8), "damaged safetensors"),
        (safetensors_file("F32", [3], bytes(8)), "damaged safetensors"),
        (safetensors_file("F32", [2**62, 2**62], bytes(8)), "damaged safetensors"),
        (safetensors_file("X3", [1], bytes(8)), "damaged safetensors"),
        (safetensors_file("F8_E8M0", [1], bytes(1)), "'w': dtype F8_E8M0"),
        (safetensors_file("F32", [0, 2**62, 2**62], b""), "'w': array is too big"),
        (safetensors_file("F32", [0] * 70, b""), "'w': maximum supported dimension"),
        (save({}), "safetensors without arrays of a network"),
        (struct.pack("<Q", 2**60) + b"{}", "no file of weights that is recognised"),
        (b"", "no file of weights"),
        (b"{}", "no file of weights"),
        (b"\x93NUMPY\x01\x00", "no file of weights"),
        (b"PK\x03\x04", "incomplete archive"),
        (b"PK\x03\x04" + bytes(100), "incomplete archive"),
        (b"\x89HDF\r\n\x1a\n", "damaged or incomplete HDF5"),
        (b"\x80\x02", "damaged or incomplete"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html><html>", "a web page"),
    ],
)
def test_what_is_no_whole_file_of_weights(read, content, reason):
    with pytest.raises(UserError, match=reason) as caught:
        read(content)
    assert "\n" not in str(caught.value)
    assert "weights.bin" in str(caught.value)


def test_a_name_may_hold_any_number_of_digits(read):
    name = "layer" + "1" * 5000
    assert list(read(safetensors_file("F32", [1], bytes(4), name=name))) == [name]
    assert sorted(["a007", "a10", "a9", "a"], key=natural) == ["a", "a007", "a9", "a10"]


def test_npz_of_what_is_no_number(read):
    """A record, and bfloat16, which NumPy writes as two bytes of no type."""
    for array in (np.zeros(3, [("a", "f4"), ("b", "i4")]), np.zeros(3, ml_dtypes.bfloat16)):
        with pytest.raises(UserError, match=r"weights.bin, 'w': dtype .*; save it as float32"):
            read(npz(w=array))


def archive(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, piece in members.items():
            file.writestr(name, piece)
    return content.getvalue()


def test_an_archive_of_something_else(read):
    with pytest.raises(UserError, match="an archive without weights"):
        read(archive(**{"letter.txt": b"dear"}))


def header(shape, descr="<f4"):
    content = io.BytesIO()
    text = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, text)
    return content.getvalue()


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (header((2**40,)) + bytes(8), r"announces 4,398,046,511,104 bytes.*but 8 are"),
        (header((2**40, 2**40)) + bytes(8), "but 8 are there"),
        (header((-1,)) + bytes(8), "but 8 are there"),
        (header((2,)) + bytes(4), "announces 8 bytes .*but 4 are there"),
        (header((1,), "|O") + bytes(8), "w"),
        (b"\x80\x02N.", "no plain array"),
        (b"", "no plain array"),
        (header((1,)) + struct.pack("<f", np.nan), "NaN"),
    ],
)
def test_npz_that_says_what_is_not_so(read, member, reason):
    with pytest.raises(UserError, match=reason) as caught:
        read(archive(**{"w.npy": member}))
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_is_not_unpacked(read):
    """Sixteen megabytes of zeros in sixteen kilobytes."""
    bomb = archive(**{"w.npy": header((2**22,)) + bytes(2**24)})
    assert len(bomb) < 20_000
    with pytest.raises(UserError, match=r"'w.npy': needs 16,777,344 bytes.*pass limit="):
        read(bomb, limit=2**20)


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_a_file_that_is_cut_anywhere(read, kind):
    whole = in_every_kind()[kind]
    for length in range(len(whole)):
        with pytest.raises(UserError) as caught:
            read(whole[:length])
        assert "\n" not in str(caught.value)


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(UserError, match=r"none.pt: cannot be read \(No such file"):
        read_weights(tmp_path / "none.pt")
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(tmp_path)


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    path = tmp_path / "huge.pt"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no room
    with pytest.raises(UserError, match="has 1,099,511,627,776 bytes, more than the 4,294,967,296"):
        read_weights(path)
