"""Npz files that others have written: what cannot be is refused by file and entry, at once."""

import io
import struct
import zipfile

import numpy as np
import pytest

from jaxsnn.data import load
from jaxsnn.errors import UserError
from jaxsnn.exchange import read_weights
from jaxsnn.io.arrays import load_arrays
from jaxsnn.io.npz import read_npz

ENTRANCES = (read_npz, load_arrays, lambda path: load(str(path)), read_weights)


def member(array):
    content = io.BytesIO()
    np.lib.format.write_array(content, array, allow_pickle=True)
    return content.getvalue()


def announcing(shape, dtype="|u1"):
    """A header alone, as NumPy writes it."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def archive(path, content, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name in ("images", "labels"):
            file.writestr(f"{name}.npy", content)
    return path


def patched(path, local, central, value):
    """Change two bytes of every member's headers: offsets in the local and the central one."""
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        start = content.find(signature)
        while start >= 0:
            content[start + offset : start + offset + 2] = struct.pack("<H", value)
            start = content.find(signature, start + 4)
    path.write_bytes(bytes(content))
    return path


def terabyte(path):
    return archive(path, announcing("(1099511627776,)"))


def too_small(path):
    return archive(path, announcing("(3,)") + bytes(100))


def encrypted(path):
    return patched(archive(path, member(np.arange(4))), 6, 8, 1)


def unknown_compression(path):
    return patched(archive(path, member(np.arange(4))), 8, 10, 93)  # Zstandard


def pickled(path):
    return archive(path, member(np.array([{}], object)))


def nested_header(path):
    return archive(path, announcing("(" * 60 + "1" + ")" * 60))


def no_array(path):
    return archive(path, b"text")


HARM = {
    terabyte: r"announces 1,099,511,627,776 bytes .* but 0 are there",
    too_small: r"announces 3 bytes .* but 100 are there",
    encrypted: r"encrypted",
    unknown_compression: r"compression method 93 is unknown",
    pickled: r"pickled, which is never read",
    nested_header: r"no plain array|are there",
    no_array: r"no plain array",
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("harm", HARM, ids=lambda harm: harm.__name__)
def test_what_cannot_be_is_refused_by_file_and_entry(tmp_path, harm, entrance):
    path = harm(tmp_path / "given.npz")
    with pytest.raises(UserError, match=HARM[harm]) as refused:
        entrance(path)
    assert "given.npz" in str(refused.value)
    assert "images" in str(refused.value)


def test_a_bomb_is_refused_by_its_ratio(tmp_path):
    """A member that says it is a terabyte, in a directory that says so, too."""
    path = archive(tmp_path / "given.npz", announcing("(1,)") + b"0")
    content = bytearray(path.read_bytes())
    start = content.find(b"PK\x01\x02")
    content[start + 24 : start + 28] = struct.pack("<I", 2**31)  # uncompressed size
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"2,147,483,648 bytes are announced of"):
        read_npz(path)


def test_zeros_pass_however_well_they_compress(tmp_path):
    np.savez_compressed(tmp_path / "zeros.npz", x=np.zeros(10_000_000, np.uint8), y=np.int8(3))
    actual = read_npz(tmp_path / "zeros.npz")
    assert actual["x"].shape == (10_000_000,)
    assert actual["y"] == 3


def test_one_array_and_no_archive_are_named(tmp_path):
    np.save(tmp_path / "one.npy", np.arange(3))
    with pytest.raises(UserError, match=r"one\.npy: .*one array, as numpy\.save writes it"):
        read_npz(tmp_path / "one.npy")
    with pytest.raises(UserError, match=r"none\.npz: no such file"):
        read_npz(tmp_path / "none.npz")


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    path = tmp_path / "secret.npz"
    path.write_bytes(b"")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(zipfile, "ZipFile", refuse)
    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(UserError, match=r"secret\.npz: .*Permission denied"):
        read_npz(path)


@pytest.mark.parametrize("text", ["[1]", "3", '"a"', "{", "[" * 100_000, '{"a": ' * 100_000])
def test_a_description_that_is_no_object_is_named(tmp_path, text):
    np.savez(tmp_path / "model.npz", **{"x": np.arange(3), "meta.json": np.array(text)})
    with pytest.raises(UserError, match=r"model\.npz, meta\.json: "):
        load_arrays(tmp_path / "model.npz")
