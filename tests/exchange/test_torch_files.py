"""torch's two containers read without torch, and what is refused; files are written by hand."""

import contextlib
import io
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from containers import (
    KINDS,
    ORDERED,
    Call,
    Global,
    Outside,
    Raw,
    both,
    legacy,
    pickled,
    plain,
    storage,
    tensor,
    zipped,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from jaxsnn.errors import UserError
from jaxsnn.exchange.read import read_weights

CONTAINERS = ("zip", "legacy")
FLOATS = np.arange(6, dtype=np.float32)


@pytest.fixture
def read(tmp_path):
    """Read content as a file; its ending says nothing."""

    def read(content, **options):
        path = tmp_path / "weights.bin"
        path.write_bytes(content)
        return read_weights(path, **options)

    return read


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", KINDS)
def test_every_type_of_storage(read, container, dtype):
    array = np.array([[0, 1, 1], [3, 2, 0]]).astype(dtype)
    weights = read(both({"a.weight": array})[container])
    np.testing.assert_array_equal(weights["a.weight"], array, strict=True)


def test_bfloat16_is_read_as_float32(read):
    content = struct.pack("<3H", 0x3F80, 0xC000, 0x7F80)  # 1, -2 and infinity: cut float32
    weights = read(
        zipped({"a": tensor(storage("0", "BFloat16Storage", 3), (3,), (1,))}, {"0": content})
    )
    np.testing.assert_array_equal(weights["a"], np.array([1, -2, np.inf], np.float32), strict=True)


@pytest.mark.parametrize(
    ("dtype", "content", "expected"),
    [
        ("uint16", b"\x01\x02", np.array([513], np.uint16)),
        ("float8_e5m2", b"\x3c\xc0", np.array([1, -2], np.float32)),
        ("bfloat16", b"\x80\x3f", np.array([1], np.float32)),
    ],
)
def test_types_without_a_storage_of_their_own_lie_in_plain_bytes(read, dtype, content, expected):
    plain_bytes = Outside(
        ("storage", Global("torch.storage", "UntypedStorage"), "0", "cpu", len(content))
    )
    arguments = (plain_bytes, 0, expected.shape, (1,), False, ORDERED, Global("torch", dtype))
    rebuilt = Call(Global("torch._utils", "_rebuild_tensor_v3"), arguments)
    # torch's own table has torch.UntypedStorage; both names stand for the same class
    weights = read(zipped({"a": rebuilt}, {"0": content}))
    np.testing.assert_array_equal(weights["a"], expected, strict=True)


@pytest.mark.parametrize("dtype", [Global("torch", "FloatStorage"), 5, None])
def test_a_tensor_without_a_type_is_refused(read, dtype):
    arguments = (storage("0", "UntypedStorage", 4), 0, (1,), (1,), False, ORDERED, dtype)
    rebuilt = Call(Global("torch._utils", "_rebuild_tensor_v3"), arguments)
    with pytest.raises(UserError, match="a tensor whose dtype is"):
        read(zipped({"a": rebuilt}, {"0": bytes(4)}))


def test_a_boolean_is_whatever_is_not_zero(read):
    weights = read(
        zipped({"a": tensor(storage("0", "BoolStorage", 3), (3,), (1,))}, {"0": b"\2\0\1"})
    )
    np.testing.assert_array_equal(weights["a"], [True, False, True], strict=True)


@pytest.mark.parametrize("container", CONTAINERS)
def test_views_share_a_storage(read, container):
    where = storage("0", "FloatStorage", 6)
    value = {
        "whole": tensor(where, (2, 3), (3, 1)),
        "transposed": tensor(where, (3, 2), (1, 3)),
        "column": tensor(where, (2,), (3,), offset=1),
        "repeated": tensor(where, (2, 2), (0, 1), offset=4),
        "scalar": tensor(where, (), (), offset=5),
        "empty": tensor(where, (0, 3), (3, 1)),
    }
    content = FLOATS.tobytes()
    files = {"zip": zipped(value, {"0": content}), "legacy": legacy(value, {"0": (6, content)})}
    weights = read(files[container])
    expected = {
        "whole": [[0, 1, 2], [3, 4, 5]],
        "transposed": [[0, 3], [1, 4], [2, 5]],
        "column": [1, 4],
        "repeated": [[4, 5], [4, 5]],
        "scalar": 5,
        "empty": np.zeros((0, 3)),
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(weights[name], np.array(values, np.float32), strict=True)
        assert weights[name].flags.c_contiguous
        assert weights[name].flags.owndata or weights[name].base.nbytes == weights[name].nbytes


@given(
    array=npst.arrays(
        st.sampled_from(sorted(KINDS)),
        npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    container=st.sampled_from(CONTAINERS),
)
def test_arrays_come_back_as_they_are(tmp_path_factory, array, container):
    path = tmp_path_factory.mktemp("round") / "net.pt"
    path.write_bytes(both({"a": array, "b": np.float32([1])})[container])
    weights = read_weights(path)
    np.testing.assert_array_equal(weights["a"], array, strict=True)
    assert list(weights) == ["a", "b"]


@given(
    shape=st.lists(st.integers(0, 4), max_size=3),
    strides=st.lists(st.integers(0, 9), min_size=3, max_size=3),
    offset=st.integers(0, 30),
)
def test_any_view_is_that_of_numpy_or_refused(tmp_path_factory, shape, strides, offset):
    """The elements are taken one by one here: index times stride, from the offset."""
    flat = np.arange(20, dtype=np.int16)
    strides = strides[: len(shape)]
    view = tensor(storage("0", "ShortStorage", 20), shape, strides, offset)
    path = tmp_path_factory.mktemp("view") / "net.pt"
    path.write_bytes(zipped({"a": view}, {"0": flat.tobytes()}))
    places = np.zeros(shape, int) + offset
    for axis, stride in enumerate(strides):
        steps = np.arange(shape[axis]) * stride
        places = places + steps.reshape([-1 if n == axis else 1 for n in range(len(shape))])
    if places.size and places.max() >= 20:
        with pytest.raises(UserError, match="reaches byte"):
            read_weights(path)
    else:
        expected = flat[places] if places.size else np.zeros(shape, np.int16)
        np.testing.assert_array_equal(read_weights(path)["a"], expected, strict=True)


@pytest.mark.parametrize("order", ["little", "big"])
def test_byte_order_of_the_archive(read, order):
    array = np.array([1.5, -2, 1 / 3])
    letter = {"little": "<", "big": ">"}[order]
    weights = read(
        zipped(
            {
                "double": tensor(storage("0", "DoubleStorage", 3), (3,), (1,)),
                "complex": tensor(storage("1", "ComplexFloatStorage", 3), (3,), (1,)),
                "brain": tensor(storage("2", "BFloat16Storage", 1), (1,), (1,)),
            },
            {
                "0": array.astype(f"{letter}f8").tobytes(),
                "1": (array * 1j).astype(f"{letter}c8").tobytes(),
                "2": struct.pack(f"{letter}H", 0x3F80),
            },
            byteorder=order.encode(),
        )
    )
    np.testing.assert_array_equal(weights["double"], array, strict=True)
    np.testing.assert_array_equal(weights["complex"], (array * 1j).astype(np.complex64))
    assert weights["brain"] == 1


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_checkpoint_holds_a_state_dict_of_a_wrapped_network(read, container):
    def checkpoint(tensors):
        return {
            "epoch": 7,
            "state_dict": {f"module.{name}": item for name, item in tensors.items()},
            "optimizer": {"state": {0: {"step": tensors["conv.weight"]}}, "lr": (0.1, [])},
            "best": tensors["conv.weight"],
        }

    files = both({"conv.weight": FLOATS.reshape(6, 1, 1, 1)}, checkpoint)
    weights = read(files[container])
    assert {name: array.shape for name, array in weights.items()} == {"conv.weight": (6, 1, 1, 1)}
    assert weights.skipped == ("epoch", "optimizer", "best")


def test_a_wrapper_of_some_layers_only_is_part_of_their_names(read):
    names = ["module.a", "b"]
    assert list(read(both(dict.fromkeys(names, FLOATS))["zip"])) == names


def test_the_entry_of_a_checkpoint_can_be_named(read):
    files = both(
        {"w": FLOATS, "v": -FLOATS},
        lambda tensors: {"model": {"w": tensors["w"]}, "model_ema": {"w": tensors["v"]}},
    )
    assert read(files["zip"])["w"][1] == 1
    assert read(files["zip"], entry="model_ema")["w"][1] == -1
    with pytest.raises(UserError, match=r"no entry 'net'.*'model', 'model_ema'"):
        read(files["zip"], entry="net")


def test_two_state_dicts_are_not_guessed_between(read):
    files = both({"w": FLOATS}, lambda tensors: {"model": dict(tensors), "net": dict(tensors)})
    with pytest.raises(UserError, match=r"2 state dicts.*'model', 'net'; name one as entry="):
        read(files["zip"])


def test_what_is_no_tensor_in_a_state_dict_is_named(read):
    files = both({"w": FLOATS}, lambda tensors: {**tensors, "version": 3, "_extra_state": None})
    assert read(files["zip"]).skipped == ("version", "_extra_state")


@pytest.mark.parametrize("value", [{"epoch": 3}, {}, [1, 2], 5])
def test_a_file_without_tensors(read, value):
    with pytest.raises(UserError, match=r"0 state dicts|wanted tensors by name"):
        read(zipped(value, {}))


def parameter(inner):
    return Call(Global("torch._utils", "_rebuild_parameter"), (inner, True, ORDERED))


def test_parameters_and_attributes_of_an_ordered_dictionary(read):
    """``state_dict()`` is an OrderedDict with ``_metadata``, set by the operation BUILD."""
    built = b"(" + opcodes_of("w") + opcodes_of(parameter(plain("0", FLOATS))) + b"u"
    attributes = opcodes_of({"_metadata": {"": {"version": 1}}}) + b"b"
    value = Raw(opcodes_of(ORDERED) + built + attributes)
    np.testing.assert_array_equal(read(zipped(value, {"0": FLOATS.tobytes()}))["w"], FLOATS)


def opcodes_of(value):
    return pickled(value)[2:-1]


def test_python_2_gives_an_ordered_dictionary_its_items_at_once(read):
    value = Call(Global("collections", "OrderedDict"), ([["w", plain("0", FLOATS)]],))
    assert list(read(zipped(value, {"0": FLOATS.tobytes()}))) == ["w"]


class Harmful:
    """Its pickle runs a command when Python loads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("container", CONTAINERS)
def test_nothing_is_run(read, tmp_path, container, protocol):
    harmful = pickle.dumps(Harmful(tmp_path / "harm"), protocol)
    body = harmful[2:-1] if protocol > 1 else harmful[:-1]
    if protocol > 3:  # behind the frame's length
        body = harmful[11:-1]
    files = both({"w": FLOATS}, lambda tensors: {**tensors, "x": Raw(body)})
    with pytest.raises(UserError, match=r"refused: it asks for (posix|nt)\.system.*nothing of it"):
        read(files[container])
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Global("os", "system"), "it asks for os.system"),
        (Call(Global("builtins", "eval"), ("1",)), "it asks for builtins.eval"),
        (Global("__main__", "Net"), "it asks for __main__.Net"),
        (Global("numpy.core.multiarray", "scalar"), "it asks for numpy.core.multiarray.scalar"),
        (Global("torch", "load"), "it asks for torch.load"),
        (Raw(b"(ios\nsystem\n"), "it asks for os.system"),
        (Raw(b"\x8c\x02os\x8c\x06system\x93"), "it asks for os.system"),
        (Raw(b"NN\x93"), "a name made of NoneType and NoneType"),
        (Call(Global("torch", "FloatStorage"), (1,)), "it calls torch.FloatStorage"),
        (Call("print", (1,)), "it calls 'print'"),
        (Call(ORDERED, ()), "it calls dict"),
        (Raw(opcodes_of(ORDERED) + b")\x81"), "the operation NEWOBJ"),
        (Raw(b"\x82\x01"), "the operation EXT1"),
        (Raw(b"\x8f"), "the operation EMPTY_SET"),
        (Raw(b"P1\n"), "the operation PERSID"),
        (Raw(b"K\x01}b"), "it sets attributes of a 1"),
        (Raw(b"K\x01K\x02a"), "it appends to a 1"),
        (Raw(b"K\x01(K\x02K\x03u"), "it sets items of a 1"),
        ({(1, 2): 3}, "a tuple as the key of a dictionary"),
        ({2**61 - 1: 3}, "a 2305843009213693951 as the key of a dictionary"),
        (Raw(b"Np2305843009213693951\n"), "kept under a number beyond all others"),
    ],
)
@pytest.mark.parametrize("container", CONTAINERS)
def test_whatever_no_tensor_needs_is_refused_by_name(read, container, value, reason):
    files = both({"w": FLOATS}, lambda tensors: {**tensors, "x": value})
    with pytest.raises(UserError) as caught:
        read(files[container])
    message = str(caught.value)
    assert reason in message
    assert "nothing of it was run" in message
    assert message.count("\n") == 0


def test_numbers_that_share_their_hash_take_no_time(read):
    """Every multiple of 2^61 - 1 has the hash 0; a dictionary of them takes the square of time."""
    entries = b"".join(
        b"\x8a\x09" + (n * (2**61 - 1)).to_bytes(9, "little") + b"N" for n in range(1, 1000)
    )
    with pytest.raises(UserError, match="a 2305843009213693951 as the key"):
        read(zipped(Raw(b"}(" + entries + b"u"), {}))


def test_keys_of_tuples_of_tuples_take_no_time(read):
    """Hashing forty doublings of a tuple would take 2^40 steps."""
    doubled = b"K\x01\x85" + b"".join(
        b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(40)
    )
    with pytest.raises(UserError, match="a tuple as the key"):
        read(zipped(Raw(b"}" + doubled + b"Ns"), {}))


def test_foreign_names_are_short_and_on_one_line(read):
    with pytest.raises(UserError) as caught:
        read(zipped({"x": Raw(b"\x8c\x03a\nb\x8c\xff" + b"c" * 255 + b"\x93")}, {}))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


SIX = storage("0", "FloatStorage", 6)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((SIX, -1, (2,), (1,)), "offset of a tensor is -1"),
        ((SIX, 2**64, (2,), (1,)), "offset of a tensor is 18446744073709551616"),
        ((SIX, 0, (-2,), (1,)), "size or stride of a tensor is -2"),
        ((SIX, 0, (2,), (-1,)), "size or stride of a tensor is -1"),
        ((SIX, 0, (True,), (1,)), "size or stride of a tensor is True"),
        ((SIX, 0, (2,), (1, 1)), "1 sizes and 2 strides"),
        ((SIX, 0, (1,) * 40, (1,) * 40), "at most 32"),
        ((SIX, 0, "ab", (1,)), "tuples of at most 32"),
        ((SIX, 0, (1,), (1,), False, ORDERED, {"conj": True}), "conjugated"),
        ((storage("0", "QInt8Storage", 6), 0, (1,), (1,)), "it asks for torch.QInt8Storage"),
        ((storage("0", "float32", 6), 0, (1,), (1,)), "torch.float32 as a storage"),
        ((storage("0", "FloatStorage", -6), 0, (1,), (1,)), "elements of a storage is -6"),
        ((Outside(5), 0, (1,), (1,)), "a 5 instead of a storage"),
        ((Outside(("storage",)), 0, (1,), (1,)), "what it refers to"),
        ((ORDERED, 0, (1,), (1,)), "a tensor of a dict"),
        ((), "torch._utils._rebuild_tensor_v2 cannot be given these"),
    ],
)
def test_tensors_that_make_no_sense_are_refused(read, arguments, reason):
    broken = Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments)
    with pytest.raises(UserError) as caught:
        read(zipped({"w": broken}, {"0": FLOATS.tobytes()}))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((7,), (1,), 0), ((2, 3), (4, 1), 0), ((1,), (1,), 6), ((2,), (2**62,), 0), ((6,), (1,), 1)],
)
def test_a_view_never_leaves_its_storage(read, container, shape, strides, offset):
    value = {"w": tensor(storage("0", "FloatStorage", 6), shape, strides, offset), "v": 1}
    content = FLOATS.tobytes()
    files = {"zip": zipped(value, {"0": content}), "legacy": legacy(value, {"0": (6, content)})}
    with pytest.raises(UserError, match=r"'w': a tensor of shape .* of a storage of 24"):
        read(files[container])


def test_an_enormous_view_is_refused_before_memory_is_taken(read):
    repeated = tensor(storage("0", "FloatStorage", 6), (2**40, 6), (0, 1))
    with pytest.raises(UserError, match=r"'w': needs 26,388,279,066,624 bytes.*pass limit="):
        read(zipped({"w": repeated}, {"0": FLOATS.tobytes()}))


def test_the_limit_counts_all_tensors_together(read):
    files = both({str(n): np.zeros(100, np.float32) for n in range(5)})
    assert len(read(files["legacy"], limit=4000)) == 5
    with pytest.raises(UserError, match=r"has [\d,]+ bytes, more than the 1,000"):
        read(files["legacy"], limit=1000)
    value = {str(n): tensor(storage("0", "FloatStorage", 6), (100,), (0,)) for n in range(20)}
    with pytest.raises(UserError, match=r"'19': needs 400 bytes"):
        read(legacy(value, {"0": (6, FLOATS.tobytes())}), limit=19 * 400 + 399)


@pytest.mark.parametrize(
    ("size", "piece", "reason"),
    [
        (6, FLOATS.tobytes()[:-1], "its storage has 23 bytes instead of 24"),
        (6, b"", "its storage has 0 bytes instead of 24"),
        (2**40, FLOATS.tobytes(), "has 24 bytes instead of 4398046511104"),
    ],
)
def test_a_storage_of_another_size_in_an_archive(read, size, piece, reason):
    value = {"w": tensor(storage("0", "FloatStorage", size), (6,), (1,))}
    with pytest.raises(UserError, match=reason):
        read(zipped(value, {"0": piece}))


def test_a_storage_that_the_archive_lacks(read):
    with pytest.raises(UserError, match=r"net/data/0|data/0: missing in the archive"):
        read(zipped({"w": plain("0", FLOATS)}, {}))


def test_a_compressed_archive_is_refused(read, tmp_path):
    """So a member has no more bytes than the file: no file of a few bytes becomes gigabytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", pickled({"w": plain("0", np.zeros(10**6, np.float32))}))
        archive.writestr("net/data/0", bytes(4 * 10**6))
    with pytest.raises(UserError, match="compressed, as torch never does"):
        read(content.getvalue())


def test_a_compiled_program_is_refused(read):
    with pytest.raises(UserError, match="TorchScript"):
        read(zipped({"w": plain("0", FLOATS)}, {"0": FLOATS.tobytes()}, **{"constants.pkl": b""}))


def test_one_key_stands_for_one_storage(read):
    value = {
        "w": tensor(storage("0", "FloatStorage", 6), (6,), (1,)),
        "v": tensor(storage("0", "LongStorage", 3), (3,), (1,)),
    }
    with pytest.raises(UserError, match="two storages with the key '0'"):
        read(zipped(value, {"0": FLOATS.tobytes()}))


@pytest.mark.parametrize(
    ("count", "keys", "reason"),
    [
        (5, ["0"], "5 elements in the file, 6 for its tensors"),
        (-1, ["0"], "-1 elements"),
        (6, [], "list of storages"),
        (6, ["0", "0"], "list of storages"),
        (6, ["1"], "list of storages"),
        (6, ["0", 0], "list of storages"),
        (6, [Raw(b"K\x01" + b"\x85" * 20_000)], "list of storages"),  # tuples inside each other
    ],
)
def test_legacy_storages_that_do_not_belong_to_the_tensors(read, count, keys, reason):
    value = {"w": plain("0", FLOATS)}
    pickles = b"".join(map(pickled, [0x1950A86A20F9469CFC6C, 1001, {}, value, keys]))
    with pytest.raises(UserError, match=reason):
        read(pickles + struct.pack("<q", count) + FLOATS.tobytes())


def test_another_version_of_the_legacy_container(read):
    with pytest.raises(UserError, match="version 1002"):
        read(b"".join(map(pickled, [0x1950A86A20F9469CFC6C, 1002, {}, {}, []])))
    with pytest.raises(UserError, match="version int of the container"):
        read(pickled(0x1950A86A20F9469CFC6C) + pickle.dumps(10**5000, 2))


def test_a_pickle_that_torch_did_not_write(read):
    with pytest.raises(UserError, match="a pickle, but none of torch"):
        read(pickle.dumps({"w": [1.0, 2.0]}))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_that_is_cut_anywhere_is_refused_in_one_line(read, container):
    """Of every length, and with every byte turned: never another error, never wrong shapes."""
    whole = both({"a": FLOATS.reshape(2, 3), "b": np.int64([5])})[container]
    for length in range(len(whole)):
        with pytest.raises(UserError) as caught:
            read(whole[:length])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_damaged_byte_never_raises_another_error(read, container):
    whole = bytearray(both({"a": FLOATS.reshape(2, 3)})[container])
    for position in range(len(whole)):
        for turned in (0xFF, 0x20):
            whole[position] ^= turned
            with contextlib.suppress(UserError):
                assert sum(array.nbytes for array in read(bytes(whole)).values()) < len(whole)
            whole[position] ^= turned


def test_a_pickle_may_be_only_so_long(read, monkeypatch):
    monkeypatch.setattr("jaxsnn.exchange.pickle_machine.LONGEST", 100)
    with pytest.raises(UserError, match="a pickle of more than 100 bytes"):
        read(zipped({"w": plain("0", FLOATS)}, {"0": FLOATS.tobytes()}))


def test_memo_and_protocol_4(read):
    """MEMOIZE numbers values itself; a frame says how long what follows is."""
    text = pickle.dumps({"state_dict": None, "same": ["x" * 9] * 2}, 4)
    with pytest.raises(UserError, match="0 state dicts"):
        read(zipped(text, {}))


def test_bfloat16_equals_that_of_ml_dtypes(read):
    values = np.linspace(-3, 3, 50).astype(ml_dtypes.bfloat16)
    where = storage("0", "BFloat16Storage", 50)
    weights = read(zipped({"a": tensor(where, (50,), (1,))}, {"0": values.tobytes()}))
    np.testing.assert_array_equal(weights["a"], values.astype(np.float32), strict=True)
