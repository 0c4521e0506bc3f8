"""Conversion with negative spikes as its user meets it: stages, four text files, phases, refusals.

On digits and small numbers of images; the MLP settles in a few steps and serves wherever the
network does not matter.
"""

import json
import re
import shutil

import numpy as np
import pytest
from experiment_runs import run

import jaxsnn
from jaxsnn.data.by_name import load
from jaxsnn.data.splits import limited
from jaxsnn.report.results import read_results
from jaxsnn.systems.config_file import from_json
from jaxsnn.systems.settings.conversion import NegativeSpikesMnist

IMAGES = 120  # three lines of the text files: 50, 50 and 20 images
TINY = [
    *("--dataset", "digits", "--epochs", "2", "--limit-train", "240", "--limit-test", "120"),
    *("--batch-size", "32", "--noise-seeds", "2"),
]
MLP = ("--arch", "mlp")
SCRIPT = "mnist_negative_spikes"


def start(*arguments, out, script=SCRIPT, tiny=TINY):
    return run(*arguments, out=out, tiny=tiny, script=script)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """All stages of the MLP with k = 1, with input noise."""
    folder = tmp_path_factory.mktemp("negative")
    assert start("all", *MLP, "--noise_ratio", "0.5", out=folder) == 0
    return folder


@pytest.fixture(scope="module")
def results(out):
    return read_results(out / "mlp_k1/results.json")


@pytest.fixture
def copy(out, tmp_path):
    return shutil.copytree(out, tmp_path / "runs")


def text_file(folder, name):
    """Values ``[batches, T]`` of one of the original's files."""
    lines = (folder / f"{name}.txt").read_text().splitlines()
    assert len(lines) % 3 == 0
    return np.array([float(line) for line in lines]).reshape(3, -1)


def test_the_certificate_is_exact_after_settling(results):
    assert results.equality == "exact after settling"
    assert results.mismatches == {"neurons": 0, "predictions": 0, "compared": IMAGES}
    assert results.snn_accuracy == results.ann_accuracy == results.accuracy_per_step[-1]
    assert results.steps == results.last_spike_step + 1  # the silent step
    assert 1 <= results.accuracy_settled_step <= results.steps
    assert results.system == "negative_spikes"


def test_text_files_are_batch_major_and_cumulative(out, results):
    folder = out / "mlp_k1"
    correct, spikes, net, operations = (
        text_file(folder, name) for name in ("accuracy", "spike_num", "spike_collect", "sop_num")
    )
    assert correct.shape == spikes.shape == net.shape == operations.shape == (3, results.steps)
    assert (correct.sum(0) / IMAGES).tolist() == pytest.approx(results.accuracy_per_step)
    for cumulative in (spikes, operations):
        assert (np.diff(cumulative, axis=1) >= 0).all()
    np.testing.assert_array_equal(spikes[:, 0], net[:, 0])  # no negative spike in step 1
    np.testing.assert_array_equal(spikes[:, -2], spikes[:, -1])  # the last step is silent
    assert ((spikes - net) % 2 == 0).all()
    positive, negative = (spikes + net) / 2, (spikes - net) / 2
    assert positive[:, -1].sum() / IMAGES == pytest.approx(results.positive_spikes_per_image)
    assert negative[:, -1].sum() / IMAGES == pytest.approx(results.negative_spikes_per_image)
    assert operations[:, -1].sum() / IMAGES == pytest.approx(results.sops_per_image)
    texts = (folder / "spike_collect.txt").read_text().splitlines()
    assert all(re.fullmatch(r"\d+\.\d", line) for line in texts)
    integers = (folder / "spike_num.txt").read_text().splitlines()
    assert all(line.isdigit() for line in integers)


def test_operations_are_those_of_the_dense_fan_out(out, results):
    """In the MLP a spike of layer 1 costs 400 operations, one of layer 2 ten."""
    first, second = (layer["spikes_per_image"] for layer in results.layers)
    assert results.sops_per_image == pytest.approx(400 * first + 10 * second)
    assert results.ann_macs_per_image == 164_000
    assert [layer["neurons"] for layer in results.layers] == [400, 400]


def test_noise_is_simulated_for_each_seed(results):
    (entry,) = results.noise
    assert entry["ratio"] == 0.5
    assert len(entry["accuracy"]) == 2


def test_fixed_steps_give_the_same_files(out, copy, results):
    """Every step computed, or the settle stop: the same numbers in the same order."""
    files = [copy / f"mlp_k1/{name}.txt" for name in ("accuracy", "spike_num", "sop_num")]
    before = [path.read_text() for path in files]
    assert start("simulate", *MLP, "--steps", str(results.steps), out=copy) == 0
    assert [path.read_text() for path in files] == before
    again = read_results(copy / "mlp_k1/results.json")
    assert again.accuracy_per_step == results.accuracy_per_step
    assert again.equality == "exact after settling"


def test_too_few_steps_warn_and_are_approximate(copy):
    with pytest.warns(UserWarning, match="raise steps") as warned:
        assert start("simulate", *MLP, "--steps", "2", out=copy) == 0
    said = [str(warning.message) for warning in warned]
    assert any("of the images" in line and "still spike in step 2" in line for line in said)
    assert any("of the neurons" in line and "not settled after 2" in line for line in said)
    assert all("raise steps" in line for line in said)
    results = read_results(copy / "mlp_k1/results.json")
    assert results.equality == "approximate"
    assert results.mismatches["neurons"] > 0
    assert results.steps == 2
    assert results.accuracy_settled_step is None
    assert len((copy / "mlp_k1/accuracy.txt").read_text().splitlines()) == 3 * 2


def test_the_converted_network_loads_and_settles_alike(out, results):
    data = limited(load("digits"), None, IMAGES)
    snn = jaxsnn.load(out / "mlp_k1/snn.npz")
    evaluation = jaxsnn.evaluate(snn, data.test_images, data.test_labels, steps=100, settle=True)
    assert evaluation.accuracy_per_step == results.accuracy_per_step
    assert results.conversion == {"weights": "integer", "weight_bits": 7}
    kernels = {tree["kernel"].dtype.name for tree in snn.variables["params"].values()}
    assert kernels == {"int8"}


def test_float_weights_are_counted_and_their_differences_are_ties(copy):
    assert start("simulate", *MLP, "--weights", "float", out=copy) == 0
    results = read_results(copy / "mlp_k1/results.json")
    assert results.precision == "float32 weights"
    assert results.conversion == {"weights": "float"}  # which have no number of bits
    assert results.equality in ("exact after settling", "approximate")
    assert results.mismatches["neurons"] <= 1e-4 * 800 * IMAGES


def test_a_second_phase_at_a_lower_rate(copy):
    assert start("train", *MLP, "--resume", "True", "--learning_rate", "0.0001", out=copy) == 0
    _, phases = from_json(NegativeSpikesMnist, (copy / "mlp_k1/config.json").read_text())
    assert [phase["learning_rate"] for phase in phases] == [1e-3, 1e-4]
    records = (copy / "mlp_k1/metrics.jsonl").read_text().splitlines()
    assert [json.loads(record)["epoch"] for record in records] == [1, 2, 3, 4]


def test_another_k_is_refused(copy, capsys):
    (copy / "mlp_k1").rename(copy / "mlp_k2")
    assert start("simulate", *MLP, "--k", "2", out=copy) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"k: 1 in {copy / 'mlp_k2/config.json'}, 2 asked" in message


def test_weights_that_are_not_numbers_are_refused(copy, capsys):
    path = copy / "mlp_k1/best.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["params/dense1/kernel"][0, 0] = np.nan
    np.savez(path, **arrays)
    before = (copy / "mlp_k1/results.json").read_bytes()
    assert start("simulate", *MLP, out=copy) == 2
    message = capsys.readouterr().err
    assert "dense1" in message
    assert "NaN" in message
    assert (copy / "mlp_k1/results.json").read_bytes() == before


def test_figures_of_the_original(out):
    drawn = {path.name for path in (out / "figs").iterdir()}
    assert {
        f"{name}.{kind}" for name in ("accuracy", "sparsity", "sops") for kind in ("png", "svg")
    } <= drawn


@pytest.mark.slow
@pytest.mark.parametrize("script", ["cifar10_cnn1", "cifar10_cnn2"])
def test_the_networks_of_cifar_run_on_digits(script, tmp_path):
    """Cropped to 24x24 and standardised; two training steps, then every stage."""
    tiny = [
        *("--dataset", "digits", "--epochs", "1", "--limit-train", "20", "--limit-test", "3"),
        *("--batch-size", "8", "--k", "0"),
    ]
    assert start("all", out=tmp_path, script=script, tiny=tiny) == 0
    results = read_results(tmp_path / "k0/results.json")
    assert results.experiment == script
    assert results.equality == "exact after settling"
    assert results.snn_accuracy == results.ann_accuracy
    # one channel instead of three: two thirds of the encoder's MACs are gone, nothing else
    macs = {"cifar10_cnn1": 399_190_016, "cifar10_cnn2": 769_659_904}[script]
    assert results.ann_macs_per_image == macs
    neurons = {"cifar10_cnn1": 336_128, "cifar10_cnn2": 411_648}[script]
    assert sum(layer["neurons"] for layer in results.layers) == neurons
