"""The folder of a run: what is refused in the phases of its config.json."""

import re

import pytest

from jaxsnn.errors import UserError
from jaxsnn.systems.run_folder import Run
from jaxsnn.systems.settings import LeNetScatter

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
