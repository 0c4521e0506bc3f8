"""The folder of a run: the phases of its config.json, and which folders are trained in."""

import dataclasses
import errno
import fcntl
import re

import numpy as np
import pytest
from small_tasks import PERCEPTRON, digits

from jaxsnn.errors import UserError
from jaxsnn.io.arrays import save_arrays
from jaxsnn.io.checkpoints import Checkpoints
from jaxsnn.systems.result_fields import trained_by
from jaxsnn.systems.run_folder import Run, train_run
from jaxsnn.systems.settings import LeNetScatter, NegativeSpikesCnn1

CONFIG = LeNetScatter(dataset="digits", epochs=5, resume=True)
PHASE = {"epochs": 5, "learning_rate": 1e-3, "schedule": "cosine"}
FIRST = {**PHASE, "first_step": 0, "steps_per_epoch": 10}


def phases(folder, recorded):
    run = Run(folder, CONFIG, ("k", "B"), ("k", "B"))
    run.record(recorded)
    return run.phases(10)


def test_the_same_settings_go_on_in_the_same_phase(tmp_path):
    assert phases(tmp_path, [FIRST]) == [FIRST]


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        ([], "phases is empty"),
        ([{}], "phases[0].epochs is None"),
        ([{**FIRST, "epochs": -5}], "phases[0].epochs is -5"),
        ([{**FIRST, "epochs": True}], "phases.0.epochs is True; expected a valid integer"),
        ([FIRST, {**FIRST, "first_step": -1}], "phases[1].first_step is -1"),
        ([{**FIRST, "steps_per_epoch": 0}], "phases[0].steps_per_epoch is 0"),
        ([{**FIRST, "first_step": 20}], "phases begin at steps [20]"),
        ([FIRST, {**FIRST, "first_step": 50}, {**FIRST, "first_step": 40}], "[0, 50, 40]"),
    ],
)
def test_phases_that_no_training_wrote_are_one_line(tmp_path, recorded, message):
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        phases(tmp_path, recorded)
    assert str(tmp_path / "config.json") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_new_phase_begins_at_the_newest_whole_checkpoint(tmp_path):
    (tmp_path / "checkpoints" / "9999").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no checkpoint to resume from"):
        phases(tmp_path, [{**FIRST, "epochs": 3}])


def test_results_tell_the_phases_apart(tmp_path):
    run, second = Run(tmp_path, CONFIG, (), ()), {**FIRST, "learning_rate": 5e-4, "first_step": 30}
    run.record([FIRST])
    assert (trained_by(run).epochs, trained_by(run).phases) == (5, ())
    run.record([FIRST, {**second, "argv": ["train", "--resume"]}])
    assert (trained_by(run).epochs, trained_by(run).phases) == (8, (FIRST, second))


def cropped(radius, **others):
    return NegativeSpikesCnn1(recipe="paper", crop_radius=radius, resume=True, **others)


@pytest.mark.parametrize("radius", [4, None])
def test_another_crop_radius_begins_a_phase_that_says_so(tmp_path, radius):
    names = ("recipe", "flip")
    before = Run(tmp_path, cropped(2), names, names)
    now = {name: getattr(before.config, name) for name in PHASE}
    before.record([{**now, "first_step": 0, "steps_per_epoch": 10}])
    Checkpoints(tmp_path / "checkpoints").save(35, {"step": np.int32(35)})
    assert len(before.phases(10)) == 1  # phases of older versions do not name what is as it was
    after = dataclasses.replace(before, config=cropped(radius))
    first, second = after.phases(10)
    assert (second["crop_radius"], second["first_step"]) == (radius, 40)
    after.record([first, second])
    assert after.saved(names)[1] == [first, second]
    assert after.phases(10) == [first, second]  # it is resumed, not begun again
    with pytest.raises(UserError, match=r"flip: random in .*config.json, none asked"):
        dataclasses.replace(after, config=cropped(radius, flip="none")).phases(10)


def started(folder):
    """A run of one epoch in an empty folder, and what it is trained on."""
    config = NegativeSpikesCnn1(recipe="paper", epochs=1, batch_size=64)
    return Run(folder, config, (), ()), digits()


def test_a_folder_whose_first_checkpoint_failed_is_trained_in(tmp_path):
    run, data = started(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir()
    train_run(run, PERCEPTRON, data)
    assert (tmp_path / "model.npz").is_file()


def test_weights_of_an_earlier_run_are_not_left_beside_new_ones(tmp_path):
    run, data = started(tmp_path)
    save_arrays(tmp_path / "best.npz", {"kernel": np.ones(1)})
    with pytest.raises(UserError, match=r"holds an earlier run; start from its weights \(--init\)"):
        train_run(run, PERCEPTRON, data)
    assert not (tmp_path / "config.json").exists()


def test_a_file_system_without_locks_is_no_other_training(tmp_path, monkeypatch):
    def flock(lock, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    run, data = started(tmp_path)
    train_run(run, PERCEPTRON, data)
    assert (tmp_path / "model.npz").is_file()
