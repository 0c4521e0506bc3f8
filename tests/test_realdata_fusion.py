"""BayesianSpikeFusion on real digits: the whole chain, with a quarter of VGG11's channels.

Check 22 of the system: fusion is better than the final classifier alone early on, and no worse in
the end.
"""

import json

import numpy as np
import pytest
from experiment_runs import run

from jaxsnn import zoo
from jaxsnn.arrays import load_arrays
from jaxsnn.results import read_results

QUARTER = "16C3p1-32C3s2p1-64C3s2p1-64C3p1-128C3s2p1-128C3p1-128C3s2p1-128C3p1"
STEPS = 150
LIMITS = (
    *("--dataset", "mnist", "--epochs", "6", "--limit-train", "2000", "--validation", "0"),
    *("--batch-size", "50", "--limit-test", "200", "--tune-images", "200", "--calibration", "200"),
    *("--steps", str(STEPS), "--simulation-batch", "50"),
)

pytestmark = [pytest.mark.realdata, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(data_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("fusion")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.BSF, "vgg11", QUARTER)
        given = ("all", "--data-dir", str(data_root))
        assert run(*given, out=out, tiny=LIMITS, script="bayesian_spike_fusion") == 0
    return out / "mnist_vgg11_ic3"


def test_fusion_is_ahead_early_and_level_in_the_end(folder):
    curves, _ = load_arrays(folder / "snn_0.0_0.999/ene_acc.npz")
    final = curves["final_acc"]
    assert final[-1] > 0.85
    for name in ("grid_acc", "emp_acc"):
        ahead = curves[name] - final
        assert ahead[: STEPS // 2].max() >= 0.1
        assert ahead[-1] >= -0.005 - 1e-9
        assert (curves[name][STEPS // 10 :] >= final[STEPS // 10 :] - 0.05).all()


def test_the_spiking_network_is_about_as_good_as_the_ann(folder):
    results = read_results(folder / "results.json")
    assert results.ann_accuracy > 0.9
    assert results.snn_accuracy == pytest.approx(results.ann_accuracy, abs=0.05)
    assert results.accuracy_per_step[-1] == results.snn_accuracy
    rows = [line.split(",") for line in (folder / "ann_acc.csv").read_text().splitlines()]
    assert [row[0] for row in rows] == ["3", "-1"]
    assert float(rows[-1][1]) == pytest.approx(results.ann_accuracy)


def test_an_image_that_is_sure_stops_long_before_the_end(folder):
    found = json.loads((folder / "stop.json").read_text())
    entry = read_results(folder / "results.json").variants["stop per image"]
    assert found["accuracy"] == pytest.approx(entry["accuracy"])  # recorded, and really stopped
    assert found["mean_steps"] == pytest.approx(entry["steps"])
    assert found["mean_steps"] < STEPS / 2
    assert (
        found["accuracy"]
        > read_results(folder / "results.json").variants["grid"]["accuracy"] - 0.05
    )
    assert found["expected_calibration_error"] < 0.1


def test_fusion_saves_energy_at_equal_accuracy(folder):
    variants = read_results(folder / "results.json").variants
    final, grid = (variants[f"{name}, 97% of the ANN"] for name in ("final", "grid"))
    assert grid["steps"] < final["steps"]
    saved = grid["energy_pj_per_image"]["spikesim"] / final["energy_pj_per_image"]["spikesim"]
    assert saved < 1
    assert np.isfinite(saved)
