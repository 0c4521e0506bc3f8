"""The files of a run after a kill, or after harm: they agree, or it is said."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_tasks import ADAM, PERCEPTRON, digits

from jaxsnn.errors import UserError
from jaxsnn.io.arrays import load_arrays, save_arrays
from jaxsnn.io.checkpoints import Checkpoints
from jaxsnn.training.options import Options
from jaxsnn.training.train import train

EPOCHS, STEPS = 2, 46  # 23 updates of 64 of the 1,500 images

KILLED_BEFORE = """
import os, signal, sys
sys.path[:0] = {folders}
from small_tasks import ADAM, PERCEPTRON, digits
from jaxsnn.training import run_files
from jaxsnn.training.options import Options
from jaxsnn.training.train import train

write = run_files.save_arrays
def killed(path, arrays, meta):
    if path.name == {name!r} and meta["step"] == {steps}:
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, arrays, meta)

run_files.save_arrays = killed
train(PERCEPTRON, ADAM, digits(), Options({epochs}, 64, directory={folder!r}), False)
"""


def trained(folder, resume=False, epochs=EPOCHS):
    options = Options(epochs, 64, directory=folder, resume=resume)
    return train(PERCEPTRON, ADAM, digits(), options, False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    trained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.npz", "best.npz"])
def test_a_kill_between_two_writes_leaves_files_that_agree(whole, tmp_path, name):
    """SIGKILL as the last epoch's weights are to be written, then a resume of that many epochs."""
    folders = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    words = {"folders": folders, "name": name, "steps": STEPS, "epochs": EPOCHS}
    code = KILLED_BEFORE.format(**words, folder=str(tmp_path))
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment)
    assert ended.returncode == -signal.SIGKILL
    assert load_arrays(tmp_path / "model.npz")[1]["step"] < STEPS
    trained(tmp_path, resume=True)
    for file in ("model.npz", "best.npz"):
        arrays, meta = load_arrays(tmp_path / file)
        wanted, said = load_arrays(whole / file)
        for record in (meta, said):
            record.pop("seconds", None)
        assert meta == said
        assert arrays.keys() == wanted.keys()
        for array in arrays:
            np.testing.assert_array_equal(arrays[array], wanted[array])


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def without_record(path):
    save_arrays(path, load_arrays(path)[0], {"validation_accuracy": "good"})


@pytest.mark.parametrize("harm", [Path.unlink, cut, without_record])
def test_best_weights_come_back_from_the_checkpoint(copy, capsys, harm):
    """Here the last epoch is the best, and its checkpoint is the newest."""
    before, record = load_arrays(copy / "best.npz")
    assert record["step"] == STEPS
    harm(copy / "best.npz")
    trained(copy, resume=True)
    arrays, meta = load_arrays(copy / "best.npz")
    assert "best.npz" in capsys.readouterr().out
    assert meta == record
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


def test_best_weights_of_an_earlier_epoch_are_said_to_be_lost(copy, capsys):
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    first, last = map(json.loads, lines)
    first["validation_accuracy"], last["validation_accuracy"] = 0.99, 0.98
    (copy / "metrics.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(last)}\n")
    cut(copy / "best.npz")
    trained(copy, resume=True)
    assert "the weights of epoch 1 are lost" in capsys.readouterr().out
    assert not (copy / "best.npz").exists()
    trained(copy, resume=True, epochs=EPOCHS + 1)
    assert load_arrays(copy / "best.npz")[1]["epoch"] == EPOCHS + 1


def test_what_lies_among_the_checkpoints_is_no_epoch(copy):
    checkpoints = Checkpoints(copy / "checkpoints")
    before = checkpoints.steps()
    (copy / "checkpoints" / "9999").mkdir()
    (copy / "checkpoints" / "8888").write_text("a file")
    (copy / "checkpoints" / "0046").mkdir()
    assert checkpoints.steps() == before
    assert checkpoints.newest() == STEPS
    _, history = trained(copy, resume=True, epochs=EPOCHS + 1)
    assert [record["epoch"] for record in history] == [EPOCHS + 1]
    assert (copy / "checkpoints" / "9999").is_dir()


def test_a_checkpoint_that_is_not_whole_is_not_the_newest(copy, capsys):
    checkpoints = Checkpoints(copy / "checkpoints")
    older = checkpoints.steps()[-2]
    for path in (copy / "checkpoints" / str(STEPS) / "d").iterdir():
        path.write_bytes(b"")
    for path in (copy / "checkpoints" / str(STEPS)).glob("ocdbt.process_0/d/*"):
        path.write_bytes(b"")
    assert checkpoints.newest() == older
    assert "is unreadable" in capsys.readouterr().out


def test_metrics_of_another_kind_are_named(copy):
    (copy / "metrics.jsonl").write_text("[1]\n[2]\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1: not a JSON object"):
        trained(copy, resume=True)


@pytest.mark.parametrize("left", ["metrics.jsonl", "best.npz"])
def test_what_a_run_has_left_is_not_mixed_with_another(whole, tmp_path, left):
    shutil.copy(whole / left, tmp_path)
    with pytest.raises(UserError, match=f"holds {left} of an earlier run"):
        trained(tmp_path)


@pytest.mark.parametrize("name", ["epochs", "batch_size", "devices"])
def test_numbers_that_are_not_whole_are_named(name):
    with pytest.raises(UserError, match=f"{name}=2.0: give a whole number of at least 1"):
        Options(**({"epochs": 2, "batch_size": 32} | {name: 2.0}))
