"""CIFAR-10's batches and their archive: what is read, and that everything else is refused."""

import gzip
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
from data_files import isolate
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn import data
from jaxsnn.data import cifar, pickles

SHAPE = (32, 32, 3)
BATCHES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
NAMES = [b"airplane", b"automobile", b"bird", b"cat", b"deer"]
NAMES += [b"dog", b"frog", b"horse", b"ship", b"truck"]
COUNT = 4


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    return isolate(tmp_path, monkeypatch)


def rows(name, count=COUNT):
    """Other pixels for every batch."""
    return np.random.default_rng(BATCHES.index(name)).integers(0, 256, (count, 3072), np.uint8)


def labels(name, count=COUNT):
    return [(3 * BATCHES.index(name) + row) % 10 for row in range(count)]


def called(name):
    return f"training batch {name[-1]} of 5" if name != "test_batch" else "testing batch 1 of 1"


def record(name, **change):
    whole = {"batch_label": called(name).encode(), "labels": labels(name), "data": rows(name)}
    return {key.encode(): value for key, value in {**whole, **change}.items()}


def meta(count=COUNT, **change):
    whole = {"num_cases_per_batch": count, "label_names": NAMES, "num_vis": 3072, **change}
    return pickle.dumps({key.encode(): value for key, value in whole.items()}, 2)


def contents():
    """A complete small data set: five batches and a test batch of four images."""
    files = {name: pickle.dumps(record(name), 2) for name in BATCHES}
    return {**files, "batches.meta": meta()}


def write(folder, **change):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**contents(), **change}.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def archive_bytes(members):
    """A tar file of pairs of a TarInfo, or a name, and the content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for info, content in members:
            info = tarfile.TarInfo(info) if isinstance(info, str) else info
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def inside(files, folder="cifar-10-batches-py"):
    return [(f"{folder}/{name}", content) for name, content in files.items()]


def write_archive(folder, members):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cifar-10-python.tar.gz"
    path.write_bytes(gzip.compress(archive_bytes(members)))
    return path


def load(folder):
    return cifar.load_folder(folder, "cifar10", 10, SHAPE, edition=cifar.CIFAR10)


def check(actual):
    """Pixel [row, line, column, colour] is value 1024 * colour + 32 * line + column of its row."""
    for part, names in (("train", BATCHES[:5]), ("test", BATCHES[5:])):
        images, found_labels = getattr(actual, f"{part}_images"), getattr(actual, f"{part}_labels")
        assert images.shape == (COUNT * len(names), *SHAPE)
        assert (images.dtype, found_labels.dtype) == (np.uint8, np.int32)
        flat = np.concatenate([rows(name) for name in names])
        for line, column, colour in ((0, 0, 0), (0, 1, 0), (1, 0, 0), (31, 30, 2), (7, 19, 1)):
            value = flat[:, 1024 * colour + 32 * line + column]
            np.testing.assert_array_equal(images[:, line, column, colour], value)
        assert found_labels.tolist() == [label for name in names for label in labels(name)]


# --- what is read ---------------------------------------------------------------------------


def test_batches_are_read_in_order(tmp_path):
    dataset = load(write(tmp_path))
    check(dataset)
    assert (dataset.classes, dataset.name, dataset.source) == (10, "cifar10", str(tmp_path))
    assert dataset.train_images.flags.c_contiguous


def test_the_archive_is_read_where_it_lies(tmp_path):
    members = [("cifar-10-batches-py/readme.html", b"<html>"), *inside(contents())]
    path = write_archive(tmp_path, members)
    dataset = load(tmp_path)
    check(dataset)
    assert dataset.source == str(path)
    assert list(tmp_path.glob("**/*batch*")) == []  # nothing is unpacked


def test_a_folder_without_any_of_the_files_is_none(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"of another data set")
    assert load(tmp_path) is None
    assert load(tmp_path / "absent") is None


def python_2(name):
    """The opcodes that Python 2 and NumPy 1 wrote, put together by hand."""

    def text(value):
        return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING

    pixels = rows(name)
    rebuilt = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n"
    rebuilt += b"K\0\x85" + text(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    shape = b"K" + bytes([COUNT]) + b"M\x00\x0c\x86"  # 3072 = 0x0c00
    body = b"T" + struct.pack("<i", pixels.size) + pixels.tobytes()  # BINSTRING
    array = rebuilt + b"(K\x01" + shape + dtype + b"\x89" + body + b"tb"
    whole = b"]q\x01(" + b"".join(b"K" + bytes([label]) for label in labels(name)) + b"e"
    pairs = text(b"batch_label") + text(called(name).encode()) + text(b"labels") + whole
    return b"\x80\x02}q\0(" + pairs + text(b"data") + array + b"u."


def test_batches_of_python_2_are_read(tmp_path):
    check(load(write(tmp_path, **{name: python_2(name) for name in BATCHES})))


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_names_of_numpys_module_are_admitted(tmp_path, protocol, module):
    files = {}
    for name in BATCHES:
        content = pickle.dumps(record(name), protocol)
        if protocol < 4:  # from 4 on the length of a name stands before it
            content = content.replace(b"numpy._core.multiarray", module)
            assert b"c" + module + b"\n" in content
        files[name] = content
    check(load(write(tmp_path, **files)))


def test_column_major_arrays_are_read(tmp_path):
    files = {
        name: pickle.dumps(record(name, data=np.asfortranarray(rows(name))), 2) for name in BATCHES
    }
    check(load(write(tmp_path, **files)))


# --- the search -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layout",
    [
        ".",
        "cifar-10-batches-py",
        "cifar10",
        "CIFAR10/cifar-10-batches-py",
        "cifar-10-batches-py-target/cifar-10-batches-py",
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_usual_layouts_are_found_from_above(tmp_path, monkeypatch, layout, packed):
    folder = tmp_path / "root" / layout
    write_archive(folder, inside(contents())) if packed else write(folder)
    check(data.load("cifar10", tmp_path / "root"))
    monkeypatch.setenv("JAXSNN_DATA", str(tmp_path / "root"))
    check(data.load("cifar10"))


def test_nothing_found_lists_the_files_wanted(tmp_path):
    with pytest.raises(ValueError, match="cifar10 was not found") as error:
        data.load("cifar10", tmp_path / "given")
    assert str(tmp_path / "given" / "cifar-10-batches-py") in str(error.value)
    assert "in cifar-10-python.tar.gz): data_batch_1, " in str(error.value)


def test_damage_ends_the_search(tmp_path, monkeypatch):
    """An intact set further down the search order must not be taken instead."""
    monkeypatch.setenv("JAXSNN_DATA", str(write(tmp_path / "other" / "cifar10").parent))
    check(data.load("cifar10", tmp_path / "absent"))
    folder = write(tmp_path / "cifar10", data_batch_3=contents()["data_batch_3"][:-9])
    with pytest.raises(ValueError, match="data_batch_3: damaged or incomplete pickle"):
        data.load("cifar10", folder)


# --- what is refused ------------------------------------------------------------------------


def test_missing_files_are_named(tmp_path):
    folder = write(tmp_path, data_batch_4=None, test_batch=None)
    with pytest.raises(ValueError, match="part of cifar10; missing: data_batch_4, test_batch;"):
        load(folder)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "test_batch").write_bytes(contents()["test_batch"])
    with pytest.raises(ValueError, match=r"missing: data_batch_1, .*, batches\.meta"):
        load(tmp_path / "alone")


class Runs:
    """Unpickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("file", ["data_batch_2", "batches.meta"])
def test_a_pickle_that_runs_a_command_is_refused_and_not_run(tmp_path, protocol, file):
    proof = tmp_path / "proof"
    content = pickle.dumps({b"data": Runs(os.system, f"echo run > '{proof}'")}, protocol)
    pickle.loads(content)
    assert proof.read_text() == "run\n"  # the attack works on an ordinary unpickler
    proof.unlink()
    with pytest.raises(ValueError, match=rf"asks for {os.name}\.system.*nothing of it") as error:
        load(write(tmp_path / "set", **{file: content}))
    assert str(tmp_path / "set" / file) in str(error.value)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (b"cos\nsystem\n(U\x04truetR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),  # INST
        (b"c__builtin__\neval\n(U\x011tR.", "__builtin__.eval"),
        (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
        (b"cnumpy\nload\n.", "numpy.load"),
        (b"cnumpy.core.multiarray\nscalar\n.", "numpy.core.multiarray.scalar"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "numpy.ndarray.tofile"),
        (b"c_codecs\ndecode\n.", "_codecs.decode"),
    ],
)
def test_every_other_global_is_refused(tmp_path, content, asked):
    with pytest.raises(ValueError, match=f"test_batch: .*{asked}"):
        load(write(tmp_path, test_batch=content))


@pytest.mark.parametrize(
    "opcodes",
    [
        b"c_codecs\nencode\nN}U\x0c__defaults__N\x85s\x86b",  # BUILD on what stands for a global
        b"cnumpy\ndtype\nN}U\x01xK\x01s\x86b",
        b"cnumpy\nndarray\n(K\x01tR",
        b"cnumpy\ndtype\n)\x81",  # NEWOBJ
        b"c_codecs\nencode\n(U\x01aU\x04zlibtR",
        b"P1\n",  # a persistent identifier
        b"\x82\x01",  # an extension code
        b"r\xff\xff\xff\x7f",  # entry 2^31 - 1 of the memo
        b"}]K\x01s",  # an unhashable key
        b"I9" + b"9" * 5000 + b"\n",
    ],
)
def test_tricks_of_a_pickle_end_in_a_value_error(tmp_path, opcodes):
    with pytest.raises(ValueError, match="test_batch: damaged or incomplete pickle"):
        load(write(tmp_path, test_batch=b"\x80\x02" + b"N" + opcodes + b"."))


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01"  # and the state's shape, dtype, ...
PIXELS = b"cnumpy\ndtype\n(U\x02u1tR"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        # a type of tuples in tuples, 2^60 of them once written out
        (b"(K\x04tcnumpy\ndtype\n()" + b"2\x86" * 60 + b"tR", "an array of type '\\?'"),
        # a shape whose product would be a tuple of 2^31 - 1 zeros
        (b"((K\x00tJ\xff\xff\xff\x7ft" + PIXELS, "shape is not a few whole numbers"),
        (b"(" + b"K\x01" * 99 + b"t" + PIXELS, "shape is not a few whole numbers"),
        (b"(K\x03t" + PIXELS, r"an array of shape \(3,\) with 4 bytes"),
    ],
)
def test_a_state_that_grows_without_end_is_refused_at_once(tmp_path, state, message):
    content = b"\x80\x02}U\x04data" + ARRAY + state + b"I00\nU\x04abcdtbs."
    with pytest.raises(ValueError, match=f"data_batch_2: .*{message}"):
        load(write(tmp_path, data_batch_2=content))


@given(st.data())
def test_no_damage_escapes_as_another_error(data):
    """Cut, overwritten or invented bytes: read as a dict, or a ValueError that names the file."""
    content = bytearray(pickle.dumps(record("data_batch_1", data=rows("data_batch_1")[:, :9]), 2))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    content = data.draw(st.sampled_from([content, content + b"."]) | st.binary(max_size=40))
    try:
        actual, message = pickles.read_pickle(content, "the file"), ""
    except ValueError as refusal:
        actual, message = None, str(refusal)
    assert isinstance(actual, dict) or message.startswith("the file: ")


@pytest.mark.parametrize("keep", [0, 1, 20, 6000, -1])
def test_a_truncated_batch_is_named(tmp_path, keep):
    content = contents()["data_batch_5"][:keep]
    with pytest.raises(ValueError, match="data_batch_5: damaged or incomplete pickle") as error:
        load(write(tmp_path, data_batch_5=content))
    assert "get the file again" in str(error.value)


def batch(**change):
    return pickle.dumps(record("data_batch_2", **change), 2)


WIDE = rows("data_batch_2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (batch() + b"\0", "not a pickled dict and nothing after it"),
        (pickle.dumps([1], 2), "not a pickled dict"),
        (pickle.dumps({}, 2), "batch_label is nothing"),
        (contents()["test_batch"], "batch_label is b'testing batch 1 of 1', wanted b'training"),
        (contents()["data_batch_1"], "batch_label is b'training batch 1 of 5'"),
        (meta(), "batch_label is nothing"),
        (batch(batch_label=WIDE), "batch_label is nothing"),
        (batch(data=WIDE.astype(np.float32)), "an array of type 'f4', wanted 'u1'"),
        (batch(data=WIDE.astype(np.int8)), "an array of type 'i1'"),
        (batch(data=WIDE.astype(object)), "an array of type 'O8'"),
        (batch(data=[0] * 3072), r"data is list, wanted an array \[N, 3072\]"),
        (batch(data=WIDE[:, :-1]), r"data is \(4, 3071\), wanted"),
        (batch(data=WIDE.reshape(4, 32, 32, 3)), r"data is \(4, 32, 32, 3\), wanted"),
        (batch(data=labels("data_batch_2"), labels=WIDE), "data is list"),
        (batch(data=WIDE[:3]), "holds 3 images but labels holds 4 labels"),
        (batch(labels=[1, 2, 3]), "holds 4 images but labels holds 3 labels"),
        (batch(data=WIDE[:3], labels=[1, 2, 3]), r"holds 3 images, but batches\.meta says 4"),
        (batch(labels=[0, 1, 10, 3]), r"labels: label 10 at index 2 is outside 0\.\.9"),
        (batch(labels=[0, 1, 2, -3]), "labels: label -1 at index 3 is outside"),
        (batch(labels=[0, 2**80, 2, 3]), "labels: label 2147483647 at index 1 is outside"),
        (batch(labels=[0, 1, 2.0, 3]), "labels is not a list of whole numbers"),
        (batch(labels=[0, 1, True, 3]), "labels is not a list of whole numbers"),
        (batch(labels=None), "labels is not a list"),
        (
            pickle.dumps(record("data_batch_2", data=WIDE[:0], labels=[]), 4),
            "holds no image; get the file again",
        ),
    ],
)
def test_a_wrong_batch_is_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as error:
        load(write(tmp_path, data_batch_2=content))
    assert str(tmp_path / "data_batch_2") in str(error.value)


def test_an_array_that_is_shorter_than_its_shape_is_named(tmp_path):
    """Four rows are announced as five: 0x04 is the only number before the width of 0x0c00."""
    content = python_2("data_batch_1")
    assert content.count(b"K\x04M\x00\x0c") == 1
    content = content.replace(b"K\x04M\x00\x0c", b"K\x05M\x00\x0c")
    with pytest.raises(ValueError, match=r"shape \(5, 3072\) with 12288 bytes"):
        load(write(tmp_path, data_batch_1=content))


@pytest.mark.parametrize(
    "content",
    [
        meta(count=0),
        meta(count=None),
        meta(count=WIDE),
        meta(num_vis=784),
        meta(num_vis=WIDE),
        meta(label_names=NAMES * 10),
        meta(label_names=None),
        pickle.dumps({b"fine_label_names": NAMES}, 2),
    ],
)
def test_a_wrong_description_is_named(tmp_path, content):
    with pytest.raises(ValueError, match=r"batches\.meta: wanted 10 label_names, num_cases"):
        load(write(tmp_path, **{"batches.meta": content}))


def test_a_batch_with_another_count_than_the_description_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"data_batch_1: holds 4 images, but batches\.meta says 9"):
        load(write(tmp_path, **{"batches.meta": meta(count=9)}))


# --- the archive ----------------------------------------------------------------------------


def test_a_broken_archive_is_named(tmp_path):
    path = write_archive(tmp_path, inside(contents()))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    checksum = bytearray(whole)
    checksum[-6] ^= 0xFF
    plain = gzip.decompress(whole)
    damaged = [b"", whole[:9], whole[: len(whole) // 2], whole[:-1], bytes(flipped), plain]
    damaged += [bytes(checksum), gzip.compress(b"not a tar file" * 99)]
    damaged += [gzip.compress(plain[:9000]), gzip.compress(b"")]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"tar\.gz: damaged or incomplete archive") as error:
            load(tmp_path)
        assert str(path) in str(error.value)
        assert "get the file again" in str(error.value)


def link(name, kind, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, str(target)
    return info, b""


def test_members_elsewhere_and_links_are_not_taken(tmp_path):
    """What lies outside the archive must not get in, nor the archive's content out."""
    outside = write(tmp_path / "outside")
    files = contents()
    test_batch = files.pop("test_batch")
    name = "cifar-10-batches-py/test_batch"
    for member in (
        link(name, tarfile.SYMTYPE, outside / "test_batch"),
        link(name, tarfile.LNKTYPE, "cifar-10-batches-py/data_batch_1"),
        ("test_batch", test_batch),
        ("cifar-10-batches-py/../test_batch", test_batch),
        ("/cifar-10-batches-py/test_batch", test_batch),
        ("cifar-10-batches-py/test_batch/test_batch", test_batch),
    ):
        path = write_archive(tmp_path / "set", [*inside(files), member])
        with pytest.raises(ValueError, match="part of cifar10; missing: test_batch;") as error:
            load(tmp_path / "set")
        assert str(path) in str(error.value)
        assert [entry.name for entry in (tmp_path / "set").iterdir()] == [path.name]


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    write_archive(tmp_path, [*inside(contents()), *inside({"test_batch": b"another"})])
    with pytest.raises(ValueError, match=r"cifar-10-batches-py/test_batch twice"):
        load(tmp_path)


def test_a_damaged_member_is_named_with_the_archive(tmp_path):
    write_archive(tmp_path, inside({**contents(), "data_batch_3": b"cos\nsystem\n."}))
    with pytest.raises(ValueError, match=r"tar\.gz/data_batch_3: refused: it asks for os\.system"):
        load(tmp_path)
