"""Arrays in and out of files: what is refused, and that nothing valid is changed."""

import json
import pickle
import zipfile
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn.io.arrays import flatten, load_arrays, load_params, save_arrays, unflatten
from jaxsnn.io.checkpoints import Checkpoints

VARIABLES = {
    "params": {
        "block1.conv1": {"kernel": np.arange(54, dtype=np.float32).reshape(3, 3, 2, 3)},
        "readout": {"bias": np.array([0.5, -2.0], np.float32)},
    },
    "batch_stats": {"block1.conv1": {"norm": {"mean": np.array([1.0, 2.0, 3.0], np.float32)}}},
}
KERNEL = "params/block1.conv1/kernel"


def test_names_are_the_paths_of_the_tree():
    assert set(flatten(VARIABLES)) == {
        KERNEL,
        "params/readout/bias",
        "batch_stats/block1.conv1/norm/mean",
    }


names = st.text("abc.1", min_size=1, max_size=3)
trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3), max_leaves=8
).filter(lambda tree: isinstance(tree, dict))


@given(trees)
def test_unflatten_is_the_inverse_of_flatten(tree: dict[str, Any]):
    assert unflatten(flatten(tree)) == tree


@pytest.mark.parametrize("flat", [{"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}])
def test_a_name_is_not_array_and_folder_at_once(flat: dict[str, int]):
    with pytest.raises(ValueError, match=r"a.*also holds arrays"):
        unflatten(flat)


def test_saved_arrays_come_back_bit_for_bit(tmp_path):
    arrays = {
        "params/conv1/kernel": np.array([[-0.0, 1e-45], [3.4e38, np.inf]], np.float32),
        "threshold": np.array([-(2**31), 2**31 - 1], np.int32),
        "weights": np.array([-1, 0, 1], np.int8),
        "empty": np.zeros((0, 3), np.uint8),
        "file": np.array(True),
    }
    save_arrays(tmp_path / "new" / "model.npz", arrays, {"k": 1, "text": "ü"})
    loaded, meta = load_arrays(tmp_path / "new" / "model.npz")
    assert meta == {"k": 1, "text": "ü"}
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape)
        assert loaded[name].tobytes() == array.tobytes()


def test_equal_arrays_give_equal_files_and_no_leftovers(tmp_path):
    for name in ("a.npz", "b.npz"):
        save_arrays(tmp_path / name, flatten(VARIABLES))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.npz", "b.npz"}


def test_numpy_reads_what_we_write_and_we_read_what_numpy_writes(tmp_path):
    save_arrays(tmp_path / "ours.npz", {"images": np.arange(6).reshape(2, 3)}, {"classes": 2})
    with np.load(tmp_path / "ours.npz", allow_pickle=False) as archive:
        assert archive["images"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert json.loads(str(archive["meta.json"])) == {"classes": 2}
    np.savez_compressed(tmp_path / "theirs.npz", labels=np.array([4, 5]))
    arrays, meta = load_arrays(tmp_path / "theirs.npz")
    assert (arrays["labels"].tolist(), meta) == ([4, 5], {})


@pytest.mark.parametrize("value", [np.array([{}]), np.array([1j]), np.zeros(2, "V2")])
def test_what_npz_cannot_hold_is_refused_before_the_old_file_is_touched(tmp_path, value):
    path = tmp_path / "model.npz"
    save_arrays(path, {"a": np.ones(1)})
    with pytest.raises(ValueError, match="bad has dtype"):
        save_arrays(path, {"bad": value})
    assert load_arrays(path)[0]["a"].tolist() == [1.0]


def test_the_name_of_the_description_is_kept():
    with pytest.raises(ValueError, match=r"meta\.json"):
        save_arrays("unused.npz", {"meta.json": np.ones(1)})


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused_by_name(tmp_path, kept: float):
    path = tmp_path / "model.npz"
    save_arrays(path, flatten(VARIABLES))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"model\.npz.*not a complete npz"):
        load_arrays(path)


def test_a_changed_byte_is_refused_with_the_name_of_the_array(tmp_path):
    path = tmp_path / "model.npz"
    save_arrays(path, {"kernel": np.full(1000, 7, np.uint8)})
    content = bytearray(path.read_bytes())
    content[content.index(bytes([7] * 900)) + 400] = 8
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.npz, array 'kernel'"):
        load_arrays(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "model.npz"
    with pytest.raises(ValueError, match=r"model\.npz: no such file"):
        load_arrays(path)
    path.write_text("hello")
    with pytest.raises(ValueError, match="not a complete npz"):
        load_arrays(path)
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match="holds one array"):
        load_arrays(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("kernel.npy", b"no header")
    with pytest.raises(ValueError, match="kernel"):
        load_arrays(path)


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickled_content_is_refused_and_not_executed(tmp_path):
    path, witness = tmp_path / "model.npz", tmp_path / "witness"
    np.savez(path, kernel=np.array([Touch(witness)], dtype=object))
    with pytest.raises(ValueError, match="'kernel'"):
        load_arrays(path)
    path.write_bytes(pickle.dumps(Touch(witness)))
    with pytest.raises(ValueError, match="not a complete npz"):
        load_arrays(path)
    assert not witness.exists()


def test_nan_is_refused_with_array_and_index(tmp_path):
    array = np.zeros((2, 3), np.float32)
    array[1, 2] = np.nan
    np.savez(tmp_path / "model.npz", fine=np.ones(2), broken=array)
    with pytest.raises(ValueError, match=r"broken holds 1 NaN, the first at index \(1, 2\)"):
        load_arrays(tmp_path / "model.npz")
    with pytest.raises(ValueError, match="params/a holds 1 NaN"):
        load_params({"params": {"a": array}}, {"params": {"a": array}})


def template() -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype)
        for name, array in flatten(VARIABLES).items()
    }


@pytest.mark.parametrize("nested", [False, True])
def test_parameters_load_from_file_and_from_mapping(tmp_path, nested: bool):
    save_arrays(tmp_path / "model.npz", flatten(VARIABLES))
    expected = unflatten(template()) if nested else template()
    for source in (tmp_path / "model.npz", str(tmp_path / "model.npz"), VARIABLES):
        loaded = load_params(source, expected)
        chex.assert_trees_all_equal(loaded, VARIABLES)


def test_every_difference_is_named_at_once_with_what_was_expected():
    source = flatten(VARIABLES)
    del source["params/readout/bias"]
    source["params/readout/weight"] = np.zeros(2)
    source[KERNEL] = source[KERNEL].transpose(3, 2, 0, 1)
    with pytest.raises(ValueError, match="the given arrays") as error:
        load_params(source, template())
    message = str(error.value)
    assert "missing params/readout/bias" in message
    assert "unexpected params/readout/weight" in message
    assert f"{KERNEL} has shape (3, 2, 3, 3) instead of (3, 3, 2, 3)" in message
    assert "batch_stats/block1.conv1/norm/mean (3,) float32" in message.split("expected:")[1]


@pytest.mark.parametrize(
    ("value", "want", "expected"),
    [
        (np.array([0.1, 0.25]), np.float32, [np.float32(0.1), 0.25]),
        (np.array([0.5], np.float16), np.float32, [0.5]),
        (np.array([2**24], np.int32), np.float32, [16777216.0]),
        (np.array([-1, 1], np.int64), np.int8, [-1, 1]),
        (np.array([True]), np.bool_, [True]),
    ],
)
def test_numbers_are_cast_where_nothing_is_lost(value, want, expected):
    loaded = load_params({"a": value}, {"a": jax.ShapeDtypeStruct(value.shape, want)})["a"]
    assert loaded.dtype == want
    assert loaded.tolist() == expected


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (np.array([2**24 + 1], np.int32), np.float32),
        (np.array([2**63 - 1], np.int64), np.float32),
        (np.array([1e300]), np.float32),
        (np.array([128]), np.int8),
        (np.array([2**64 - 1], np.uint64), np.int64),
        (np.array([1.0]), np.int8),
        (np.array([True]), np.float32),
        (np.array(["a"]), np.float32),
        (np.array([1]), np.bool_),
    ],
)
def test_numbers_that_would_change_are_refused(value, want):
    with pytest.raises(ValueError, match=r"params/a (holds values|has dtype)"):
        load_params({"params/a": value}, {"params/a": jax.ShapeDtypeStruct(value.shape, want)})


class Moments(NamedTuple):
    """Stands for an optimiser's state."""

    count: np.ndarray
    mean: dict[str, np.ndarray]


def state(scale: float = 1.0, width: int = 3) -> dict[str, Any]:
    kernel = np.arange(2 * width, dtype=np.float32).reshape(2, width) * np.float32(scale)
    return {
        "params": {"block1.conv1": {"kernel": kernel}},
        "opt_state": (Moments(np.int32(7) * np.ones((), np.int32), {"kernel": kernel + 1}), ()),
    }


def test_a_checkpoint_comes_back_bit_for_bit_in_its_own_containers(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.restore_latest(state()) is None
    assert not (tmp_path / "checkpoints").exists()
    checkpoints.save(5, state(0.1))
    restored = checkpoints.restore_latest(state())
    assert jax.tree.structure(restored) == jax.tree.structure(state())
    for got, want in zip(jax.tree.leaves(restored), jax.tree.leaves(state(0.1)), strict=True):
        assert (got.dtype, got.shape, got.tobytes()) == (want.dtype, want.shape, want.tobytes())


def test_the_newest_two_stay_and_the_newest_is_restored(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 9, 10):
        checkpoints.save(step, state(step))
    assert checkpoints.steps() == [9, 10]
    restored = checkpoints.restore_latest(state())
    assert restored["params"]["block1.conv1"]["kernel"][0, 1] == 10


def test_another_network_is_refused_with_the_differing_path(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state())
    with pytest.raises(ValueError, match=r"opt_state/0/mean/kernel is float32\[2, 3\].*\[2, 4\]"):
        checkpoints.restore_latest(state(width=4))
    wider = state() | {"batch_stats": {"mean": np.ones(3)}}
    with pytest.raises(ValueError, match="lacks batch_stats/mean"):
        checkpoints.restore_latest(wider)
    with pytest.raises(ValueError, match="extra opt_state/0/count"):
        checkpoints.restore_latest({"params": state()["params"]})
    halves = jax.tree.map(lambda leaf: leaf.astype(np.float16), state())
    with pytest.raises(ValueError, match="float16"):
        checkpoints.restore_latest(halves)


def test_another_description_is_refused_with_both_values(tmp_path):
    Checkpoints(tmp_path, {"seed": 3, "k": None}).save(1, state())
    assert Checkpoints(tmp_path, {"seed": 3, "k": None}).restore_latest(state()) is not None
    with pytest.raises(ValueError, match="seed = 3, not 4"):
        Checkpoints(tmp_path, {"seed": 4, "k": None}).restore_latest(state())


def break_off(folder):
    """Halve every file of a checkpoint that holds data."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_broken_checkpoint_is_named_and_the_one_before_is_used(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state(1))
    checkpoints.save(2, state(2))
    break_off(tmp_path / "2")
    restored = checkpoints.restore_latest(state())
    assert restored["params"]["block1.conv1"]["kernel"][0, 1] == 1
    assert f"{tmp_path / '2'} is unreadable" in capsys.readouterr().out
    checkpoints.save(2, state(20))  # the repeated part of the run replaces it
    assert checkpoints.restore_latest(state())["params"]["block1.conv1"]["kernel"][0, 1] == 20
    for step in (1, 2):
        break_off(tmp_path / str(step))
    with pytest.raises(ValueError, match=r"no checkpoint of steps \[1, 2\] is readable"):
        checkpoints.restore_latest(state())


def test_changed_bytes_in_a_checkpoint_are_noticed(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path)
    rng = np.random.default_rng(0)
    noise = {"kernel": rng.standard_normal(5000).astype(np.float32)}
    checkpoints.save(1, noise)
    largest = max(
        (path for path in (tmp_path / "1").rglob("*") if path.is_file()),
        key=lambda p: p.stat().st_size,
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(ValueError, match="is readable"):
        checkpoints.restore_latest(noise)
    assert "unreadable" in capsys.readouterr().out


def test_unfinished_folders_of_a_killed_run_are_ignored_and_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state())
    leftover = tmp_path / "2.orbax-checkpoint-tmp"
    leftover.mkdir()
    (leftover / "part").write_text("half")
    assert checkpoints.steps() == [1]
    assert checkpoints.restore_latest(state()) is not None
    checkpoints.save(2, state())
    assert not leftover.exists()
