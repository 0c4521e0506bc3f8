"""The BayesianSpikeFusion experiment as its user meets it: stages, files, resumption, refusals.

VGG11 with an eighth of its channels stands in for the whole network. What the files say is computed
again from the recorded spike trains, in plain NumPy and in the published order of operations.
"""

import dataclasses
import json
import math
import re
import shutil

import numpy as np
import pytest
from experiment_runs import run as run_script

from jaxsnn.arch import zoo
from jaxsnn.data.by_name import load
from jaxsnn.data.splits import limited, limited_rows, split_validation
from jaxsnn.io.arrays import load_arrays, save_arrays
from jaxsnn.report.results import Results, read_results
from jaxsnn.systems import run_folder as run_module
from jaxsnn.systems.bayesian_spike_fusion import stages
from jaxsnn.systems.settings.bayesian_spike_fusion import BLOCKS, MIDDLE
from jaxsnn.systems.settings.bayesian_spike_fusion import BayesianSpikeFusion as Settings

pytestmark = pytest.mark.slow

VGG11 = "8C3p1-16C3s2p1-32C3s2p1-32C3p1-64C3s2p1-64C3p1-64C3s2p1-64C3p1"
TEST, TUNING, STEPS, BATCH = 20, 12, 40, 8
LIMITS = (
    *("--dataset", "digits", "--epochs", "2", "--batch-size", "16", "--calibration", "40"),
    *("--limit-train", "160", "--limit-test", str(TEST), "--tune_images", str(TUNING)),
    *("--steps", str(STEPS), "--simulation_batch", str(BATCH), "--target", "0.5", "0.99"),
)
RUN, SIMULATED = "digits_vgg11_ic3", "snn_0.0_0.999"
CURVES = {"grid": "grid", "empirical": "emp"}


@pytest.fixture(scope="module", autouse=True)
def small_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.BSF, "vgg11", VGG11)
        yield


def run(*arguments, out, further=()):
    flags = (*LIMITS, *further)
    return run_script(*arguments, out=out, tiny=flags, script="bayesian_spike_fusion")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder in which all stages have run."""
    folder = tmp_path_factory.mktemp("runs")
    assert run("all", "digits", "vgg11", out=folder) == 0
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder in which a network without an early classifier has run; four blocks are enough."""
    folder = tmp_path_factory.mktemp("alone")
    flags = ("--ic_index", "-1", "--epochs", "1", "--limit-test", "8", "--steps", "15")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.BSF, "vgg11", "-".join(VGG11.split("-")[:4]))
        assert run("train", out=folder, further=flags) == 0
        for stage in ("ann2snn", "simulate"):
            assert run(stage, str(folder / "digits_vgg11_ic-1"), out=folder, further=flags) == 0
    return folder


@pytest.fixture
def copy(out, tmp_path):
    return shutil.copytree(out, tmp_path / "runs")


@pytest.fixture
def simulated(monkeypatch):
    """Number of images of every batch that is simulated while a test runs."""
    sizes, whole = [], stages.simulate_batch

    def counted(snn, images, **options):
        sizes.append(len(images))
        return whole(snn, images, **options)

    monkeypatch.setattr(stages, "simulate_batch", counted)
    return sizes


def npz(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def trains(folder):
    """Early and final spikes ``[T, N, C]`` and labels of all batches of a simulation."""
    files = [npz(folder / f"output_{i}.npz") for i in range(len(list(folder.glob("output_*"))))]
    early, final = (np.concatenate([f[key] for f in files], axis=1) for key in ("mid", "final"))
    return early, final, np.concatenate([f["labels"] for f in files])


def refused(status, capsys, *words):
    """One line and status 2."""
    said = capsys.readouterr()
    assert status == 2
    errors = said.err[said.err.index("error:") :].strip()
    assert "Traceback" not in said.err
    assert len(errors.splitlines()) == 1
    for word in words:
        assert str(word) in errors


def published_scores(early, final, alpha):
    """Posterior means ``[T, N, C]`` of cumulative counts, in the published order of operations."""
    steps = np.arange(1, len(alpha) + 1.0)[:, None, None]
    rate = early / steps + 1e-16
    beta = alpha[:, None, None] * (1 / rate - 1)
    a, b = alpha[:, None, None] + final, beta + (steps - final)
    return a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))


# ---------------------------------------------------------------- files


def test_every_stage_leaves_the_files_of_the_original(out):
    expected = {
        *("config.json", "metrics.jsonl", "model.npz", "best.npz", "ann_acc.csv"),
        *("snn_0.999.npz", "ann2snn_log.txt", "tune_log.txt", "results.json", "stop.json"),
        *("alpha_output_grid.npz", "alpha_output_emp.npz", "stop_rule.npz"),
        *("division_linear_alpha_grid.npz", "division_linear_alpha_emp.npz"),
    }
    assert expected <= {path.name for path in (out / RUN).iterdir()}
    names = {path.name for path in (out / RUN / SIMULATED).iterdir()}
    assert names == {
        *("output_0.npz", "output_1.npz", "output_2.npz"),
        *("simulate.txt", "energy.json", "ene_acc.npz"),
    }
    names = {path.name for path in (out / RUN / "train").iterdir()}
    assert names == {
        f"{kind}_{i}.npz" for kind in ("labels", "3_output", "-1_output") for i in (0, 1)
    }
    assert {path.name for path in (out / "Plot").iterdir()} == {"ene_acc.png", "ene_acc.svg"}
    assert (out / RUN / "figs/time_alpha.svg").is_file()


def test_accuracies_of_the_ann_end_with_the_final_head(out):
    rows = (out / RUN / "ann_acc.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["3", "-1"]
    final = float(rows[-1].split(",")[1])
    assert final == read_results(out / RUN / "results.json").ann_accuracy
    for row in rows:
        right = float(row.split(",")[1]) * TEST
        assert right == pytest.approx(round(right))


def test_spike_trains_of_the_test_images(out):
    labels = []
    for number, images in enumerate((8, 8, 4)):
        arrays = npz(out / RUN / SIMULATED / f"output_{number}.npz")
        labels.append(arrays["labels"])
        assert arrays["labels"].shape == (images,)
        for head in ("final", "mid"):
            assert arrays[head].shape == (STEPS, images, 10)
            assert arrays[head].dtype == np.uint8
            assert set(np.unique(arrays[head])) == {0, 1}
    np.testing.assert_array_equal(
        np.concatenate(labels), limited(load("digits"), None, TEST).test_labels
    )
    early, final, _ = trains(out / RUN / SIMULATED)
    assert early.sum() != final.sum()


def test_spike_trains_of_the_tuning_images(out):
    for number, images in enumerate((8, 4)):
        assert npz(out / RUN / f"train/labels_{number}.npz")["l"].shape == (images,)
        for head in (3, -1):
            actual = npz(out / RUN / f"train/{head}_output_{number}.npz")["o"]
            assert actual.shape == (STEPS, images, 10)
            assert actual.dtype == np.uint8
    both = [npz(out / RUN / f"train/{head}_output_0.npz")["o"] for head in (3, -1)]
    first = [int(np.flatnonzero(one.any((1, 2)))[0]) for one in both]
    assert first[0] < first[1]  # the early classifier is the one that fires earlier


def test_curves_have_a_value_for_every_step(out):
    for coded in CURVES.values():
        raw = npz(out / RUN / f"alpha_output_{coded}.npz")
        smooth = npz(out / RUN / f"division_linear_alpha_{coded}.npz")["y"]
        knots = [0, 10, 20, 30, STEPS - 1]
        assert raw["step"].tolist() == [1 + knot for knot in knots]
        assert raw["alpha"].min() >= 0
        assert raw["alpha"].max() <= 100
        expected = np.interp(np.arange(STEPS), knots, raw["alpha"])
        np.testing.assert_allclose(smooth, expected, rtol=1e-12)


def test_alpha_at_every_step_gives_the_same_curves(copy, out):
    assert run("tune", str(copy / RUN), out=copy, further=("--every_step",)) == 0
    for coded in CURVES.values():
        name = f"alpha_output_{coded}.npz"
        every, some = npz(copy / RUN / name), npz(out / RUN / name)
        assert every["step"].tolist() == list(range(1, STEPS + 1))
        np.testing.assert_array_equal(every["alpha"][some["step"] - 1], some["alpha"])
        name = f"division_linear_alpha_{coded}.npz"
        np.testing.assert_array_equal(npz(copy / RUN / name)["y"], npz(out / RUN / name)["y"])


def test_the_series_are_kept_with_their_energies(out):
    arrays = npz(out / RUN / SIMULATED / "ene_acc.npz")
    arrays.pop("meta.json", None)
    energy = json.loads((out / RUN / SIMULATED / "energy.json").read_text())
    assert set(arrays) == {
        *("grid_acc", "emp_acc", "final_acc", "mid_acc", "fp_energies", "bsf_energies")
    }
    for curve in arrays.values():
        assert curve.shape == (STEPS,)
    each = energy["pj_per_step"]
    steps = np.arange(1, STEPS + 1)
    np.testing.assert_allclose(arrays["bsf_energies"], steps * sum(each.values()) * 1e-12)
    without = sum(each.values()) - each["exit1"] - each["exit1.pool"]
    np.testing.assert_allclose(arrays["fp_energies"], steps * without * 1e-12)


# ---------------------------------------------------------------- numbers


def test_accuracies_are_those_of_the_recorded_trains(out):
    early, final, labels = trains(out / RUN / SIMULATED)
    early, final = early.cumsum(0, dtype=int), final.cumsum(0, dtype=int)
    arrays = npz(out / RUN / SIMULATED / "ene_acc.npz")
    for name, counts in (("mid", early), ("final", final)):
        expected = (counts.argmax(-1) == labels).mean(1)
        np.testing.assert_allclose(arrays[f"{name}_acc"], expected, rtol=1e-12)
    undecided = 0
    for coded in CURVES.values():
        alpha = npz(out / RUN / f"division_linear_alpha_{coded}.npz")["y"]
        scores, _ = published_scores(early, final, alpha)
        expected = (scores.argmax(-1) == labels).sum(1)
        # Scores of different counts that differ by rounding alone may be ordered either way.
        best = scores.max(-1, keepdims=True)
        first = scores.argmax(-1)[..., None]
        same = [one == np.take_along_axis(one, first, -1) for one in (early, final)]
        same[0] |= alpha[:, None, None] == 0  # then the early classifier does not count
        close = ((scores >= best * (1 - 1e-5)) & ~(same[0] & same[1])).any(-1).sum(1)
        undecided += close.sum()
        assert np.all(np.abs(arrays[f"{coded}_acc"] * TEST - expected) <= close + 1e-9)
    assert undecided < 0.05 * STEPS * TEST


def test_results_are_complete_and_agree_with_the_files(out):
    record = json.loads((out / RUN / "results.json").read_text())
    assert set(record) == {field.name for field in dataclasses.fields(Results)}
    results = read_results(out / RUN / "results.json")
    assert (results.experiment, results.setting) == ("bayesian_spike_fusion", RUN)
    assert (results.dataset, results.test_examples, results.steps) == ("digits", TEST, STEPS)
    assert results.equality == "approximate"
    settings = {"calibration": 40, "percentile": 0.999}
    usual = {"init_mem": 0.0, "pipeline_delay": True, "weight_bits": 7}
    assert results.conversion == settings | usual
    series = npz(out / RUN / SIMULATED / "ene_acc.npz")
    np.testing.assert_allclose(results.accuracy_per_step, series["final_acc"], rtol=1e-12)
    assert results.snn_accuracy == results.accuracy_per_step[-1]
    text = (out / RUN / SIMULATED / "simulate.txt").read_text().split()
    assert text[-3:] == ["step", f"{STEPS}:", f"{results.snn_accuracy:.4f}"]
    energies = {"final": series["fp_energies"], "other": series["bsf_energies"]}
    for name, coded in {**CURVES, "final": "final", "early": "mid"}.items():
        curve, energy = series[f"{coded}_acc"], energies.get(name, energies["other"])
        whole = results.find(name)
        assert (whole.accuracy, whole.steps) == (pytest.approx(curve[-1]), STEPS)
        assert whole.energy_pj_per_image["spikesim"] == pytest.approx(energy[-1] * 1e12)
        for share in (0.5, 0.99):
            reached = np.flatnonzero(curve >= share * results.ann_accuracy)
            variant = results.find(name, share)
            if len(reached) == 0:
                assert variant.accuracy is variant.steps is variant.energy_pj_per_image is None
                continue
            assert variant.steps == reached[0] + 1
            assert variant.accuracy == pytest.approx(curve[reached[0]])
            pj = variant.energy_pj_per_image["spikesim"]
            assert pj == pytest.approx(energy[reached[0]] * 1e12)
    assert results.find("final", 0.5).steps is not None
    assert results.find("early", 0.99).steps is None


def test_normalising_leaves_the_accuracy_of_the_ann(out):
    log = (out / RUN / "ann2snn_log.txt").read_text()
    before, after = map(float, re.findall(r"ANN: (\d\.\d+)", log))
    assert before == round(read_results(out / RUN / "results.json").ann_accuracy, 4)
    assert abs(after - before) <= 1.5 / TEST  # weights have 7 bits: an image may change sides


def test_stopping_is_the_rule_applied_to_the_recorded_trains(out):
    """A slow loop in float64; scores within rounding of the needed one are tried both ways."""
    early, final, labels = trains(out / RUN / SIMULATED)
    early, final = early.cumsum(0, dtype=int), final.cumsum(0, dtype=int)
    rule, meta = load_arrays(out / RUN / "stop_rule.npz")
    alpha = npz(out / RUN / f"division_linear_alpha_{CURVES[meta['alpha']]}.npz")["y"]
    mean, variance = published_scores(early, final, alpha)
    # The probability of being right nowhere falls with the score: it is enough to compare scores.
    assert np.all(np.diff(rule["probabilities"]) >= 0)
    needed = rule["scores"][np.argmax(rule["probabilities"] >= rule["threshold"])]
    assert rule["earliest"] == 11  # ten stages of neurons, each a step late
    stops = {}
    for slack in (-1e-5, 1e-5):
        stops[slack] = np.full(TEST, STEPS)
        for image in range(TEST):
            for step in range(int(rule["earliest"]), STEPS + 1):
                if gap(mean[step - 1, image], variance[step - 1, image]) >= needed + slack:
                    stops[slack][image] = step
                    break
    sooner, later = stops.values()
    doubtful = np.mean(sooner != later)
    assert doubtful < 0.1
    assert sooner.min() < STEPS  # some stop
    record = json.loads((out / RUN / "stop.json").read_text())
    assert record["images"] == TEST
    assert record["threshold"] == pytest.approx(float(rule["threshold"]))
    assert sooner.mean() <= record["mean_steps"] <= later.mean()
    right = mean.argmax(-1)[sooner - 1, np.arange(TEST)] == labels
    assert record["accuracy"] == pytest.approx(right.mean(), abs=doubtful + 1e-9)
    fired = (early + final).sum(-1)[sooner - 1, np.arange(TEST)] > 0
    assert record["undecided"] == pytest.approx((~fired).mean(), abs=doubtful + 1e-9)
    files = [npz(out / RUN / SIMULATED / f"output_{number}.npz") for number in range(3)]
    spikes, operations, heads = (
        np.concatenate([file[name] for file in files], axis=1).cumsum(0, dtype=int)
        for name in ("image_spikes", "image_operations", "image_head_operations")
    )
    until = [(one[sooner - 1, np.arange(TEST)].mean()) for one in (spikes, operations + heads)]
    # Potentials are float32: a program for fewer images may round one of them across a threshold.
    rounding = 1e-4
    assert record["spikes_per_image"] == pytest.approx(until[0], rel=doubtful + rounding)
    assert record["sops_per_image"] == pytest.approx(until[1], rel=doubtful + rounding)
    curve = npz(out / RUN / SIMULATED / "ene_acc.npz")["emp_acc"]
    reached = np.flatnonzero(curve >= record["accuracy"])
    assert record["fixed_step"] == (reached[0] + 1 if len(reached) else None)
    scores = [gap(mean[t - 1, i], variance[t - 1, i]) for i, t in enumerate(sooner)]
    sure = np.interp(scores, rule["scores"], rule["probabilities"])
    error = calibration_error(sure, right)
    assert record["expected_calibration_error"] == pytest.approx(error, abs=2 * doubtful + 1e-4)
    beside = read_results(out / RUN / "results.json").find("stop per image")
    assert beside.accuracy == pytest.approx(record["accuracy"])
    assert beside.steps == pytest.approx(record["mean_steps"])
    assert beside.spikes_per_image == pytest.approx(record["spikes_per_image"], rel=rounding)
    assert beside.sops_per_image == pytest.approx(record["sops_per_image"], rel=rounding)


def test_stopping_is_not_compared_with_a_simulation_of_other_images(copy):
    assert run("stop", str(copy / RUN), out=copy, further=("--limit-test", "8")) == 0
    record = json.loads((copy / RUN / "stop.json").read_text())
    assert record["images"] == 8
    assert record["fixed_step"] is record["fixed_accuracy"] is None


def gap(mean, variance):
    """Probability that the best neuron fires more than the second, both normal."""
    first, second = np.argsort(-mean, kind="stable")[:2]
    spread = math.sqrt(2 * (variance[first] + variance[second]))
    if not spread:
        return 0.5 + 0.5 * (mean[first] > mean[second])
    return 0.5 * (1 + math.erf((mean[first] - mean[second]) / spread))


def calibration_error(sure, right, bins=15):
    error = 0.0
    for number in range(bins):
        in_bin = (sure > number / bins) & (sure <= (number + 1) / bins)
        in_bin |= (sure == 0) & (number == 0)
        if in_bin.any():
            error += in_bin.mean() * abs(right[in_bin].mean() - sure[in_bin].mean())
    return error


# ---------------------------------------------------------------- settings that matter


def test_the_percentile_reaches_the_scales_and_the_simulation(copy, out):
    folder = copy / RUN
    assert run("ann2snn", str(folder), "--percentile", "0.9", out=copy) == 0
    usual, lower = (
        {name: float(value) for name, value in re.findall(r"scale of (\S+): (\S+)", text)}
        for text in ((at / RUN / "ann2snn_log.txt").read_text() for at in (out, copy))
    )
    assert usual.keys() == lower.keys()
    assert all(lower[name] < usual[name] for name in usual)
    assert {"snn_0.9.npz", "snn_0.999.npz"} <= {path.name for path in folder.iterdir()}
    assert run("simulate", str(folder), "--percentile", "0.9", out=copy) == 0
    rates = [trains(folder / name)[1].mean() for name in (SIMULATED, "snn_0.0_0.9")]
    assert rates[1] > rates[0]  # lower thresholds, more spikes
    assert read_results(folder / "results.json").find("stop per image") is None


def test_an_initial_potential_has_files_of_its_own(copy, out):
    folder, other = copy / RUN, ("--init_mem", "0.5", "--limit-test", "8")
    assert run("tune", str(folder), out=copy, further=other) == 0
    assert run("simulate", str(folder), out=copy, further=other) == 0
    names = {"alpha_output_grid_0.5_0.999.npz", "division_linear_alpha_emp_0.5_0.999.npz"}
    names |= {"stop_rule_0.5_0.999.npz", "train_0.5_0.999", "snn_0.5_0.999"}
    assert names <= {path.name for path in folder.iterdir()}
    for path in (out / RUN).glob("*alpha_*.npz"):
        assert (folder / path.name).read_bytes() == path.read_bytes()
    before, after = (trains(folder / name)[1][:, :8] for name in (SIMULATED, "snn_0.5_0.999"))
    assert after.shape == before.shape
    assert after.sum() > before.sum()  # half of the way to the first spike is gone
    # Each simulation is drawn with its own curves.
    wrong = np.arange(7.0)
    np.savez(folder / "division_linear_alpha_grid_0.5_0.999.npz", y=wrong)
    assert run("plot", str(folder / SIMULATED), out=copy) == 0
    assert run("plot", str(folder / "snn_0.5_0.999"), out=copy) == 2


def test_alpha_is_tuned_without_a_look_at_the_test_images(copy, out, monkeypatch):
    folder = copy / RUN
    shutil.rmtree(folder / "train")
    for path in folder.glob("*alpha_*.npz"):
        path.unlink()
    whole = run_module.load

    def blackened(name, folder=None):
        data = whole(name, folder)
        nothing = np.zeros_like(data.test_images), np.zeros_like(data.test_labels)
        return dataclasses.replace(data, test_images=nothing[0], test_labels=nothing[1])

    monkeypatch.setattr(run_module, "load", blackened)
    assert run("tune", str(folder), out=copy) == 0
    for path in [*(out / RUN).glob("*alpha_*.npz"), out / RUN / "stop_rule.npz"]:
        assert (folder / path.name).read_bytes() == path.read_bytes()
    actual = [npz(folder / f"train/labels_{number}.npz")["l"] for number in (0, 1)]
    _, trained_on, *_ = split_validation(limited(load("digits"), 160, None), 32)
    expected = trained_on[limited_rows(trained_on, TUNING)]
    np.testing.assert_array_equal(np.concatenate(actual), expected)


# ---------------------------------------------------------------- going on


def test_a_stopped_simulation_goes_on_where_it_was(copy, out, simulated):
    folder = copy / RUN / SIMULATED
    (folder / "output_2.npz").unlink()
    times = {path: path.stat().st_mtime_ns for path in folder.glob("output_*.npz")}
    assert run("simulate", str(copy / RUN), out=copy) == 0
    assert simulated == [BATCH]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    for number in range(3):
        name = f"{RUN}/{SIMULATED}/output_{number}.npz"
        assert (copy / name).read_bytes() == (out / name).read_bytes()
    results = [read_results(at / RUN / "results.json") for at in (out, copy)]
    assert results[0].variants == results[1].variants
    assert results[0].spikes_per_image == results[1].spikes_per_image


def test_a_damaged_batch_is_simulated_again(copy, out, simulated):
    name = f"{RUN}/train/3_output_1.npz"
    (copy / name).write_bytes((out / name).read_bytes()[:100])
    assert run("tune", str(copy / RUN), out=copy) == 0
    assert simulated == [BATCH]
    assert (copy / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.parametrize(
    ("changed", "batches"),
    [
        (("--limit-test", "12"), [8, 8]),
        (("--simulation_batch", "4"), [4, 4, 4, 4, 4]),
    ],
)
def test_files_of_another_simulation_are_written_anew(copy, simulated, changed, batches):
    assert run("simulate", str(copy / RUN), out=copy, further=changed) == 0
    assert simulated == batches
    images = {"12": 12, "4": TEST}[changed[-1]]
    early, final, labels = trains(copy / RUN / SIMULATED)
    assert early.shape == final.shape == (STEPS, images, 10)
    expected = limited(load("digits"), None, images).test_labels
    np.testing.assert_array_equal(labels, expected)
    assert read_results(copy / RUN / "results.json").test_examples == images


def test_spike_trains_of_other_weights_are_written_anew(copy, out, simulated, capsys):
    weights = npz(copy / RUN / "best.npz")
    weights["params/conv8/kernel"] *= -1
    np.savez(copy / RUN / "best.npz", **weights)
    status = run("simulate", str(copy / RUN), out=copy)
    refused(status, capsys, "division_linear_alpha", "another run: weights", "tune again")
    for path in (copy / RUN).glob("division_linear_alpha_*.npz"):
        path.unlink()
    assert run("simulate", str(copy / RUN), out=copy) == 0
    assert simulated == [BATCH, BATCH, BATCH]
    early, final = ([trains(at / RUN / SIMULATED)[head] for at in (out, copy)] for head in (0, 1))
    assert np.array_equal(*early)
    assert not np.array_equal(*final)


def test_another_number_of_steps_is_refused_before_the_work(copy, simulated, capsys):
    status = run("simulate", str(copy / RUN), out=copy, further=("--steps", "30"))
    refused(status, capsys, "30", STEPS, "division_linear_alpha")
    status = run("stop", str(copy / RUN), out=copy, further=("--steps", "30"))
    refused(status, capsys, "30", STEPS)
    assert simulated == []


# ---------------------------------------------------------------- plot


def test_plot_reads_files_alone(copy, out, monkeypatch):
    def no_data(*arguments):
        raise AssertionError("plot reads no data set")

    monkeypatch.setattr(run_module, "load", no_data)
    shutil.rmtree(copy / RUN / "checkpoints")
    shutil.rmtree(copy / "Plot")
    for name in ("model.npz", "best.npz", "config.json", "snn_0.999.npz"):
        (copy / RUN / name).unlink()
    series = copy / RUN / SIMULATED / "ene_acc.npz"
    series.unlink()
    assert run("plot", str(copy / RUN / SIMULATED), out=copy / "elsewhere") == 0
    assert (copy / "Plot/ene_acc.svg").stat().st_size > 0
    assert series.read_bytes() == (out / RUN / SIMULATED / "ene_acc.npz").read_bytes()


def test_plot_draws_several_simulations(copy, capsys):
    shutil.copytree(copy / RUN, copy / "second")
    folders = [str(copy / name / SIMULATED) for name in (RUN, "second")]
    assert run("plot", *folders, out=copy) == 0
    said = capsys.readouterr().out
    assert said.count(f"{RUN}/{SIMULATED}") >= 2  # a run is called what it is, not its folder
    assert "not reached" in said
    drawn = (copy / "Plot/ene_acc.svg").read_text()
    assert drawn.count(f"{RUN}/{SIMULATED}") >= 2


def test_plot_refuses_curves_of_another_length(copy, capsys):
    path = copy / RUN / "division_linear_alpha_grid.npz"
    np.savez(path, y=np.ones(25))
    refused(run("plot", str(copy / RUN / SIMULATED), out=copy), capsys, path, "25 steps", STEPS)


def test_plot_refuses_batches_of_different_simulations(copy, capsys):
    folder = copy / RUN / SIMULATED
    assert run("simulate", str(copy / RUN), "--percentile", "0.9", out=copy) == 0
    capsys.readouterr()
    shutil.copy(copy / RUN / "snn_0.0_0.9/output_1.npz", folder / "output_1.npz")
    status = run("plot", str(folder), out=copy)
    refused(status, capsys, folder / "output_1.npz", "another run: percentile")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_plot_refuses_a_file_that_is_cut_short_or_missing(copy, capsys, number):
    path = copy / RUN / SIMULATED / f"output_{number}.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(run("plot", str(path.parent), out=copy), capsys, path)
    path.unlink()
    refused(run("plot", str(path.parent), out=copy), capsys, path.name if number else path.parent)


def test_plot_refuses_a_folder_without_a_simulation(copy, capsys):
    status = run("plot", str(copy / RUN), out=copy)
    refused(status, capsys, copy / RUN, "holds no simulation")
    (copy / RUN / SIMULATED / "energy.json").unlink()
    status = run("plot", str(copy / RUN / SIMULATED), out=copy)
    refused(status, capsys, "energy.json is missing")


# ---------------------------------------------------------------- without an early classifier


def test_the_final_classifier_alone(alone, capsys):
    folder = alone / "digits_vgg11_ic-1"
    rows = (folder / "ann_acc.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["-1"]
    arrays = npz(folder / SIMULATED / "output_0.npz")
    assert arrays["final"].shape == (15, 8, 10)
    assert "mid" not in arrays
    assert run("plot", str(folder / SIMULATED), out=alone) == 0
    series = npz(folder / SIMULATED / "ene_acc.npz")
    assert {"final_acc", "fp_energies"} == series.keys() - {"meta.json"}
    expected = (arrays["final"].cumsum(0, dtype=int).argmax(-1) == arrays["labels"]).mean(1)
    np.testing.assert_allclose(series["final_acc"], expected, rtol=1e-12)
    assert (alone / "Plot/ene_acc.png").is_file()
    results = read_results(folder / "results.json")
    assert results.variants is None
    assert results.steps == 15
    quiet = (arrays["final"].sum((0, 2)) == 0).mean()
    assert results.undecided == quiet
    capsys.readouterr()
    for stage in ("tune", "stop"):
        status = run(stage, str(folder), out=alone)
        refused(status, capsys, "ic_index=-1", "train with --ic_index")


def test_rates_are_certified(alone, capsys, monkeypatch):
    monkeypatch.setitem(zoo.BSF, "vgg11", "-".join(VGG11.split("-")[:4]))  # as it was trained
    folder = alone / "digits_vgg11_ic-1"
    assert run("certify", str(folder), out=alone, further=("--limit-test", "8")) == 0
    said = capsys.readouterr().out
    assert "certificate: approximate: 8 images, " in said
    assert "network as given: " in said
    assert "theory allows" in said
    assert "BEYOND" not in said


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ic_index": 7}, r"ic_index is 7 .*0 to 6 for vgg11, whose last block is 7"),
        ({"ic_index": 8}, r"ic_index is 8 .*0 to 6"),
        ({"ic_index": -2}, r"ic_index is -2"),
        ({"ic_index": 15, "arch": "vgg19"}, r"0 to 14 for vgg19"),
        ({"percentile": 0.0}, r"percentile is 0\.0 .*above 0, at most 1"),
        ({"percentile": 1.5}, r"percentile is 1\.5"),
        ({"percentile": 99.9}, r"percentile is 99\.9"),
        ({"percentile": math.nan}, r"percentile is nan"),
        ({"init_mem": 1.0}, r"init_mem is 1\.0"),
        ({"steps": 10}, r"steps is 10 .*11 or more"),
        ({"steps": 11, "arch": "resnet18"}, r"steps is 11 .*12 or more"),
        ({"weight_bits": 25}, r"weight_bits is 25"),
        ({"target": (0.97, 1.2)}, r"target is \(0\.97, 1\.2\)"),
        ({"sure": 1.1}, r"sure is 1\.1"),
        ({"lr_step": (60, 60)}, r"lr_step is \(60, 60\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_settings_at_their_limits_are_taken():
    for arch, blocks in BLOCKS.items():
        assert blocks == len(zoo.BSF[arch].split("-"))
        assert Settings(arch=arch).ic_index == MIDDLE[arch]
        assert Settings(arch=arch, ic_index=blocks - 2).ic_index == blocks - 2
        assert Settings(arch=arch, steps=blocks + 3).steps == blocks + 3
    assert Settings(steps=1, pipeline_delay=False).steps == 1
    assert Settings(percentile=1.0).simulated == "snn_0.0_1.0"


def test_a_command_line_out_of_range_writes_nothing(tmp_path, capsys):
    for words in (("--ic_index", "7"), ("--percentile", "1.5"), ("--steps", "10")):
        assert run("train", "digits", "vgg11", out=tmp_path, further=words) == 2
        said = capsys.readouterr()
        assert f"{words[0][2:]} is {words[1]}" in said.out + said.err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    for stage in ("evaluate", "ann2snn", "tune", "simulate", "stop"):
        status = run(stage, str(tmp_path / "nowhere"), out=tmp_path)
        refused(status, capsys, tmp_path / "nowhere", "holds no trained network")
    assert not list(tmp_path.iterdir())


def test_weights_of_another_network_are_refused(copy, alone, capsys):
    shutil.copy(alone / "digits_vgg11_ic-1/model.npz", copy / RUN / "best.npz")
    assert run("simulate", str(copy / RUN), out=copy) == 2
    said = capsys.readouterr().err
    first = said[said.index("error:") :].splitlines()[0]  # what is expected follows, array by array
    assert "best.npz: missing" in first
    assert "params/exit1/kernel" in first
    assert "Traceback" not in said


def test_files_of_two_tunings_are_refused(copy, capsys):
    """A stage that was stopped between them left one curve of more images than the other."""
    _, rule_meta = load_arrays(copy / RUN / "stop_rule.npz")
    other = next(coded for name, coded in CURVES.items() if name != rule_meta["alpha"])
    path = copy / RUN / f"division_linear_alpha_{other}.npz"
    arrays, meta = load_arrays(path)
    meta["of"]["images"] += 1
    save_arrays(path, arrays, meta)
    said = f"another run: images {TUNING + 1} instead of {TUNING}"
    refused(run("stop", str(copy / RUN), out=copy), capsys, path.name, said, "tune again")


def test_a_rule_that_was_never_tuned_is_asked_for(copy, capsys):
    (copy / RUN / "stop_rule.npz").unlink()
    refused(run("stop", str(copy / RUN), out=copy), capsys, "run the stage tune first")


def test_a_run_says_its_data_set_and_network(copy, tmp_path, capsys):
    """Not the command line; the folder may have another name."""
    moved = (copy / RUN).rename(copy / "moved")
    flags = ("--dataset", "mnist", "--data-dir", str(tmp_path / "nothing"))
    assert run("evaluate", str(moved), out=tmp_path / "elsewhere", further=flags) == 0
    results = read_results(moved / "results.json")
    assert f"{RUN}: ANN test accuracy {results.ann_accuracy:.2%}" in capsys.readouterr().out
    assert not (tmp_path / "elsewhere").exists()


def test_another_network_than_the_run_has_is_refused(copy, capsys):
    actual = run("evaluate", str(copy / RUN), out=copy, further=("--arch", "vgg16"))
    refused(actual, capsys, "has arch = 'vgg11', not 'vgg16'; leave --arch out")
