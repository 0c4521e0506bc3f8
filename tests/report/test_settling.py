"""The animation of one image whose spikes settle on the ANN's levels."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxsnn.errors import UserError
from jaxsnn.report.figures.settling import Settling, settling


@pytest.fixture
def run():
    """Two layers, three steps: levels 2 0 1 and 1 0; the second neuron overshoots."""
    return Settling(
        image=np.arange(9).reshape(3, 3),
        counts={
            "conv1": np.array([[1, 1, 1], [2, 1, 1], [2, 0, 1]]),
            "dense1": np.array([[[0, 0]], [[1, 1]], [[1, 0]]]),
        },
        levels={"conv1": np.array([2, 0, 1]), "dense1": np.array([[1, 0]])},
        readout=np.array([[0.0, 1.0], [2.0, 1.0], [2.0, -1.0]]),
        logits=np.array([2.0, -1.0]),
    )


def test_neurons_that_differ_are_counted_in_every_step(run):
    assert run.neurons == 5
    # before: all whose level is not 0; then conv1's first two and dense1's first, and so on
    assert run.differing() == [3, 3, 2, 0]


def test_a_frame_before_the_first_step_and_one_after_each(run, tmp_path):
    path = settling(run, tmp_path / "run.gif")
    with Image.open(path) as picture:
        assert picture.n_frames == 1 + 3
        assert json.loads(picture.info["comment"]) == {"neurons": 5, "differ": [3, 3, 2, 0]}
        durations = []
        for frame in range(picture.n_frames):
            picture.seek(frame)
            durations.append(picture.info["duration"])
    assert durations[-1] == max(durations)  # the end can be looked at


def test_the_same_run_gives_the_same_file(run, tmp_path):
    one, other = (settling(run, tmp_path / name).read_bytes() for name in ("one.gif", "other.gif"))
    assert one == other


def test_counts_of_another_layer_are_refused(run, tmp_path):
    levels = {**run.levels, "dense1": np.array([1, 0, 0])}
    with pytest.raises(UserError, match="dense1: counts"):
        settling(run._replace(levels=levels), tmp_path / "run.gif")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="dense2: counts"):
        settling(
            run._replace(levels={**run.levels, "dense2": np.zeros(1, int)}), tmp_path / "run.gif"
        )
