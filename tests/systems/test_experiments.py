"""The scatter-and-gather experiment as its user meets it: stages, files, resumption, refusals."""

import dataclasses
import json
import re
import shutil

import chex
import numpy as np
import pytest
from experiment_runs import IMAGES, TINY, run

import jaxsnn
from jaxsnn.arch import zoo
from jaxsnn.data.by_name import load
from jaxsnn.data.splits import limited
from jaxsnn.report.results import RunSettings, read_results
from jaxsnn.systems.config_file import from_json
from jaxsnn.systems.settings.conversion import LeNetScatter
from jaxsnn.training.recipe import RECIPES

SETTING = ("--k", "0", "--B", "1")
# Every field is there, null where it does not apply.
FIELDS = re.findall(
    r"\w+",
    """
    experiment system dataset setting settings argv training epochs_run test_examples
    float_ann_accuracy ann_accuracy snn_accuracy accuracy_per_step steps accuracy_settled_step
    last_spike_step undecided equality mismatches given_predictions
    spikes_per_image positive_spikes_per_image negative_spikes_per_image spikes_per_neuron
    sops_per_image ann_macs_per_image energy_pj_per_image layers variants noise paper seconds
    conversion precision device seed versions commit
    """,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder in which every stage of one setting has run."""
    folder = tmp_path_factory.mktemp("runs")
    assert run("all", *SETTING, out=folder) == 0
    return folder


@pytest.fixture(scope="module")
def results(out):
    return read_results(out / "k0B1/results.json")


@pytest.fixture
def copy(out, tmp_path):
    """The same folder, to be changed."""
    return shutil.copytree(out, tmp_path / "runs")


def numbers(path):
    return [int(line) for line in path.read_text().splitlines()]


def weights(folder):
    """The arrays of model.npz, by name (beside them lies a text on their origin)."""
    with np.load(folder / "k0B1/model.npz") as file:
        return {name: file[name] for name in file.files if "/" in name}


def lines(out):
    return len((out / "k0B1/metrics.jsonl").read_text().splitlines())


def test_results_follow_the_schema(out, results):
    record = json.loads((out / "k0B1/results.json").read_text())
    assert sorted(record) == sorted(FIELDS)
    assert (results.experiment, results.system) == ("mnist_lenet", "scatter_gather")
    assert (results.dataset, results.setting, results.epochs_run) == ("digits", "k0B1", 1)
    assert results.test_examples == IMAGES
    assert results.paper is None  # the paper has no digits
    assert results.conversion is None  # k and B, in the settings, say all
    assert results.settings == RunSettings(network="lenet", k=0, bound=1)
    assert results.argv == ["all", *SETTING, *TINY, "--out", str(out)]
    assert results.steps == results.accuracy_settled_step == 1
    assert set(results.versions) >= {"jax", "flax", "numpy"}


def test_spiking_network_equals_its_ann(results):
    assert results.equality == "exact"
    assert results.mismatches == {"neurons": 0, "predictions": 0, "compared": IMAGES}
    assert results.snn_accuracy == results.ann_accuracy == results.accuracy_per_step[0]


def test_layers_add_up_to_the_totals(results):
    names = ["conv1", "conv2", "pool1", "conv3", "pool2", "dense1"]
    assert [layer["name"] for layer in results.layers] == names
    # 28² 16 + 24² 16 + 12² 16 + 8² 32 + 4² 32 + 256 neurons
    assert [layer["neurons"] for layer in results.layers] == [12544, 9216, 2304, 2048, 512, 256]
    spikes = sum(layer["spikes_per_image"] for layer in results.layers)
    assert spikes == pytest.approx(results.spikes_per_image, rel=1e-12)
    assert results.spikes_per_neuron == pytest.approx(results.spikes_per_image / 26_880, rel=1e-12)
    operations = sum(layer["sops_per_image"] or 0 for layer in results.layers)
    assert operations == pytest.approx(results.sops_per_image, rel=1e-12)
    assert results.negative_spikes_per_image == 0


def test_text_files_add_up_to_the_results(out, results):
    actual = {
        name: numbers(out / f"k0B1/{name}.txt") for name in ("accuracy", "spike_num", "sop_num")
    }
    assert {len(column) for column in actual.values()} == {2}  # batches of 200 and of 20 images
    assert actual["accuracy"][1] <= 20
    assert sum(actual["accuracy"]) == round(results.snn_accuracy * IMAGES)
    assert sum(actual["spike_num"]) == round(results.spikes_per_image * IMAGES)
    chip = 2 * 2**0 * 1  # two binary synapses for a ternary one, 2^k B threshold units
    assert sum(actual["sop_num"]) == round(results.sops_per_image * IMAGES) * chip


def test_noise_has_a_value_for_each_ratio_and_seed(results):
    assert [entry["ratio"] for entry in results.noise] == [0.1, 0.2]
    assert all(len(entry["accuracy"]) == 2 for entry in results.noise)


def test_weights_and_converted_network_load(out, results):
    variables = jaxsnn.load_params(out / "k0B1/model.npz", zoo.lenet_scatter)
    assert sum(array.size for array in weights(out).values()) == 159_824
    data = limited(load("digits"), None, IMAGES)
    images, labels = data.test_images, data.test_labels
    snn = jaxsnn.load(out / "k0B1/snn.npz")
    assert jaxsnn.evaluate(snn, images, labels).accuracy_per_step == results.accuracy_per_step
    assert set(variables["params"]) == set(snn.variables["params"])


def test_figures_are_drawn_from_files_alone(copy, capsys):
    """Beside the results of another setting whose run was killed, which are told and left out."""
    shutil.rmtree(copy / "figs")
    text = (copy / "k0B1/results.json").read_text()
    (copy / "k1B2").mkdir()
    (copy / "k1B2/results.json").write_text(text[: len(text) // 2])
    for name in ("model.npz", "best.npz", "snn.npz", "config.json"):
        (copy / "k0B1" / name).unlink()
    assert run("plot", out=copy) == 0
    names = {"accuracy", "sparsity", "sops", "noise", "layers", "energy", "training"}
    assert {path.name for path in (copy / "figs").iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("png", "svg")
    }
    warnings = [x for x in capsys.readouterr().err.splitlines() if x.startswith("warning")]
    assert warnings
    assert all("k1B2/results.json" in line for line in warnings)


@pytest.fixture(scope="module")
def second_phase(out, tmp_path_factory):
    """The same run, continued for an epoch at another learning rate."""
    folder = shutil.copytree(out, tmp_path_factory.mktemp("phases") / "runs")
    assert run("train", *SETTING, "--resume", "--lr", "5e-4", out=folder) == 0
    return folder


def test_another_learning_rate_is_a_new_phase(out, second_phase):
    _, phases = from_json(LeNetScatter, (second_phase / "k0B1/config.json").read_text())
    assert [phase["learning_rate"] for phase in phases] == [1e-3, 5e-4]
    # 120 images, a fifth held out, 32 a step: three steps an epoch
    assert [phase["first_step"] for phase in phases] == [0, 3]
    assert lines(second_phase) == lines(out) + 1
    records = (second_phase / "k0B1/metrics.jsonl").read_text().splitlines()
    assert [json.loads(record)["epoch"] for record in records] == [1, 2]
    before, after = weights(out), weights(second_phase)
    assert any(not np.array_equal(before[name], after[name]) for name in before)


def test_an_interrupted_run_ends_with_the_same_weights(second_phase, tmp_path):
    copy = shutil.copytree(second_phase, tmp_path / "runs")
    *_, newest = sorted((copy / "k0B1/checkpoints").iterdir(), key=lambda path: int(path.name))
    assert newest.name == "6"
    shutil.rmtree(newest)
    (copy / "k0B1/model.npz").unlink()
    broken = (copy / "k0B1/metrics.jsonl").read_text()[:-30]
    (copy / "k0B1/metrics.jsonl").write_text(broken)
    assert run("train", *SETTING, "--resume", "--lr", "5e-4", out=copy) == 0
    first, second = weights(second_phase), weights(copy)
    chex.assert_trees_all_equal(first, second)
    assert lines(copy) == lines(second_phase)


def test_a_finished_run_is_left_alone(out, copy):
    assert run("train", *SETTING, "--resume", "True", out=copy) == 0
    assert lines(copy) == lines(out)
    assert len(from_json(LeNetScatter, (copy / "k0B1/config.json").read_text())[1]) == 1
    chex.assert_trees_all_equal(weights(out), weights(copy))


@pytest.mark.slow
def test_results_say_how_the_weights_were_trained_not_what_is_asked_now(copy):
    asked = ("--recipe", "fast", "--micro-batch", "32", "--epochs", "9")
    assert run("simulate", *SETTING, *asked, out=copy) == 0
    results = read_results(copy / "k0B1/results.json")
    assert (results.training.recipe, results.training.epochs) == ("paper", 1)
    assert results.training.compute in ("float32", "bfloat16")
    parts = dataclasses.asdict(RECIPES["paper"]) | {"batch_size": 32, "init": ""}
    assert results.training.parts == parts
    assert "fast" in results.argv


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--recipe", "fast", "--micro-batch", "32"), "recipe: paper in {}, fast asked"),
        (("--flip", "none"), "flip: random in {}, none asked"),
        (("--compute", "float32"), "compute: bfloat16 in {}, float32 asked"),
    ],
)
def test_another_recipe_or_precision_is_not_resumed(copy, capsys, asked, said):
    path = copy / "k0B1/config.json"
    path.write_text(path.read_text().replace('"compute": "float32"', '"compute": "bfloat16"'))
    before = path.read_text()
    assert run("train", *SETTING, "--resume", *asked, out=copy) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: this run was trained differently: ")
    assert said.format(path) in line
    assert path.read_text() == before


def test_full_precision_has_no_spiking_network(tmp_path, capsys):
    arguments = ("--precision", "fp32")
    assert run("train", *arguments, out=tmp_path) == 0
    assert run("simulate", *arguments, out=tmp_path) == 0
    assert run("evaluate", *arguments, out=tmp_path) == 0
    results = read_results(tmp_path / "fp32/results.json")
    assert results.ann_accuracy is results.snn_accuracy is results.equality is None
    printed = re.search(r"fp32: ANN test accuracy ([\d.]+)%", capsys.readouterr().out)
    assert float(printed[1]) == pytest.approx(100 * results.float_ann_accuracy, abs=0.005)
    assert not (tmp_path / "fp32/snn.npz").exists()
    assert not (tmp_path / "fp32/accuracy.txt").exists()


def own_data(folder):
    digits = load("digits")
    path = folder / "own.npz"
    np.savez(path, images=digits.train_images[:200], labels=digits.train_labels[:200])
    return str(path)


def refused(capsys, *arguments, out):
    """The message of a run that must be refused with status 2."""
    assert run(*arguments, out=out) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("stage", [("evaluate",), ("simulate",), ("--mode", "inference")])
def test_nothing_trained_is_refused(stage, copy, capsys):
    message = refused(capsys, *stage, "--k", "1", "--B", "1", out=copy)
    assert str(copy / "k1B1") in message
    assert "train" in message
    assert not (copy / "k1B1").exists()


def test_a_network_of_another_setting_is_refused(copy, capsys):
    (copy / "k0B1").rename(copy / "k1B2")
    message = refused(capsys, "evaluate", out=copy)
    place = copy / "k1B2/config.json"
    assert f"k: 0 in {place}, 1 asked" in message
    assert f"B: 1 in {place}, 2 asked" in message


def test_a_network_of_another_data_set_is_refused(copy, tmp_path, capsys):
    path = own_data(tmp_path)
    before = (copy / "k0B1/config.json").read_bytes()
    for stage in (("evaluate",), ("simulate",), ("train", "--resume")):
        tiny = [word if word != "digits" else path for word in TINY]
        assert run(*stage, *SETTING, out=copy, tiny=tiny) == 2
        message = " ".join(capsys.readouterr().err.split())
        assert f"dataset: digits in {copy / 'k0B1/config.json'}, {path} asked" in message
    assert (copy / "k0B1/config.json").read_bytes() == before


def test_weights_of_another_network_are_refused(copy, capsys):
    path = copy / "k0B1/best.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays.pop("params/conv3/kernel")
    arrays["params/dense1/kernel"] = arrays["params/dense1/kernel"][:, :7]
    np.savez(path, **arrays)
    message = refused(capsys, "evaluate", *SETTING, out=copy)
    assert "params/conv3/kernel" in message
    assert "params/dense1/kernel" in message
    assert "7)" in message


def test_training_over_an_earlier_run_is_refused(copy, capsys):
    before = weights(copy)
    message = refused(capsys, "train", *SETTING, out=copy)
    assert str(copy / "k0B1") in message
    assert "--resume" in message
    after = weights(copy)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_drawing_nothing_is_refused(tmp_path, capsys):
    assert "no results to draw" in refused(capsys, "plot", out=tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_missing_data_set_is_refused_before_anything_is_written(tmp_path, capsys):
    tiny = [word if word != "digits" else "mnits" for word in TINY]
    assert run("train", out=tmp_path / "runs", tiny=tiny) == 2
    message = capsys.readouterr().err
    assert "mnits" in message
    assert "nearest: 'mnist'" in message
    assert not (tmp_path / "runs").exists()
