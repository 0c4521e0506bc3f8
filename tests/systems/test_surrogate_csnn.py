"""The directly trained network as its user meets it: stages, files, phases, events, refusals.

The experiment runs on digits, small enough for a test. What a simulation of such a network gives is
compared with one in plain NumPy, position by position.
"""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiment_runs import run
from PIL import Image

import jaxsnn
from jaxsnn import neurons
from jaxsnn.arch.plan import parse
from jaxsnn.conversion.spiking import directly_trained
from jaxsnn.data import event_sources
from jaxsnn.data.by_name import load
from jaxsnn.data.recordings import Recordings
from jaxsnn.data.splits import limited
from jaxsnn.exchange.saved import save
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.inputs.stimulus import EventStream
from jaxsnn.io.arrays import flatten, load_arrays, save_arrays
from jaxsnn.report.results import read_results
from jaxsnn.simulation.dataset import evaluate
from jaxsnn.systems.command_line import flags, parse_command
from jaxsnn.systems.config_file import from_json, to_json
from jaxsnn.systems.settings.surrogate_csnn import NmnistCsnn
from jaxsnn.systems.stages import described
from jaxsnn.systems.surrogate_csnn.system import Csnn
from jaxsnn.training.schedules import adam
from jaxsnn.training.through_time import spiking_net, watch

pytestmark = pytest.mark.slow

TEST = 40
TINY = [
    *("--dataset", "digits", "--limit-train", "200", "--limit-test", str(TEST)),
    *("--batch-size", "16", "--num_steps", "4", "--epochs", "2"),
]
PADDED = {
    **{"dataset": "digits", "spike": True, "event_count": 150, "padded_loss": True},
    **{"limit_train": 200, "limit_test": TEST, "batch_size": 16, "num_steps": 4, "epochs": 1},
}
UPDATES = 10  # an epoch: 200 images, a fifth held out, 16 a batch
COURSE = ("train.lr_step=[1]", "train.lr_factor=0.5")
SPIKE = ("--spike", "true", "--frames", "6", "--epochs", "1")


def start(stage, *arguments, out):
    """Exit status of the script; of a flag given twice the last one holds."""
    return run(stage, *TINY, *arguments, out=out, tiny=(), script="nmnist_csnn")


@pytest.fixture(scope="module", autouse=True)
def few_events(tmp_path_factory):
    """Events go into a cache of their own, and are made of some digits only."""
    digits = load("digits")
    few = dataclasses.replace(
        digits,
        train_images=digits.train_images[:120],
        train_labels=digits.train_labels[:120],
        test_images=digits.test_images[:TEST],
        test_labels=digits.test_labels[:TEST],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXSNN_CACHE", str(tmp_path_factory.mktemp("events")))
        patch.setattr(event_sources, "load_digits", lambda: few)
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Every stage on static images, tested after every epoch."""
    folder = tmp_path_factory.mktemp("csnn")
    assert start("all", "--test-every-epoch", *COURSE, out=folder) == 0
    return folder


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    """Every stage on events."""
    folder = tmp_path_factory.mktemp("events")
    assert start("all", *SPIKE, out=folder) == 0
    return folder


@pytest.fixture(params=["static", "spike"])
def folder(request):
    """The folder of the run on static images, and of that on events."""
    return request.getfixturevalue({"static": "out", "spike": "events"}[request.param]) / (
        request.param
    )


@pytest.fixture
def copy(out, tmp_path):
    """The folder of the static runs, to be changed."""
    return shutil.copytree(out, tmp_path / "runs")


def weights(path):
    """The arrays of model.npz or best.npz by name."""
    return load_arrays(path)[0]


def equal(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def said(capsys):
    """What was printed, without the lines that boxes and wrapping put in."""
    shown = capsys.readouterr()
    return " ".join((shown.out + shown.err).replace("│", " ").split())


def refused(capsys, stage, *arguments, out):
    """The message of a run that must be refused with status 2."""
    assert start(stage, *arguments, out=out) == 2
    return said(capsys)


# ------------------------------------------------------------------ files


def test_all_files_are_there(folder):
    names = {path.name for path in folder.iterdir()}
    written = {"training.log", "metrics.jsonl", "config.json", "results.json", "samples.npz"}
    assert written | {"model.npz", "best.npz", "snn.npz", "checkpoints", "figs"} <= names
    figures = {path.name for path in (folder / "figs").iterdir()}
    for name in ("raster", "membranes", "train_loss", "test_acc", "training"):
        assert {f"{name}.png", f"{name}.svg"} <= figures
    above = {path.name for path in (folder.parent / "figs").iterdir()}
    assert {"accuracy.png", "train_loss.png", "test_acc.png"} <= above


def first_labels(folder):
    """Labels of the first test examples; the recordings are made of the first images alone."""
    digits = load("digits")
    static = folder.name == "static"
    return (limited(digits, None, TEST) if static else digits).test_labels[:5]


def test_gifs_are_named_after_the_true_labels(folder):
    labels = first_labels(folder)
    actual = sorted(path.name for path in folder.glob("*.gif"))
    assert actual == [f"spike_bar_{number}_target{y}.gif" for number, y in enumerate(labels)]
    steps = read_results(folder / "results.json").steps
    for name in actual:
        with Image.open(folder / name) as animation:
            assert (animation.format, animation.n_frames) == ("GIF", steps)


def test_samples_are_those_of_the_simulated_network(folder):
    arrays, meta = load_arrays(folder / "samples.npz")
    assert meta["sites"] == ["conv1", "conv2", "readout"]
    steps = read_results(folder / "results.json").steps
    readout, potentials = arrays["spikes/readout"], arrays["potentials"]
    assert readout.shape == potentials.shape == (steps, 5, 10)
    # what is drawn is what was compared with the threshold
    np.testing.assert_array_equal(readout, potentials > arrays["threshold"])
    np.testing.assert_array_equal(arrays["labels"], first_labels(folder))
    assert arrays["spikes/conv1"].any()


def test_figures_are_drawn_from_files_alone(copy):
    """From metrics that break off, too."""
    cut(copy / "static/metrics.jsonl", 30)
    for pattern in ("*.gif", "model.npz", "best.npz", "snn.npz", "config.json"):
        for path in (copy / "static").glob(pattern):
            path.unlink()
    shutil.rmtree(copy / "static/figs")
    other = copy / "static/spike_bar_0_target99.gif"  # of an earlier choice of test images
    other.write_bytes(b"")
    assert start("plot", out=copy) == 0
    assert len(list((copy / "static").glob("spike_bar_*.gif"))) == 5
    assert not other.exists()
    assert (copy / "static/figs/membranes.png").is_file()


def test_nothing_is_shown_behind_the_end_of_a_recording(tmp_path):
    """The readout's bias makes class 3 spike in every step; what is kept ends with the events."""
    options = {"spike": True, "event_count": 700, "limit_test": TEST, "out": str(tmp_path)}
    one = Csnn(NmnistCsnn(dataset="digits", **options))
    variables = dict(one.task.init(jax.random.key(0)))
    params = jax.tree.map(jnp.zeros_like, variables["params"])
    params["readout"]["bias"] = params["readout"]["bias"].at[3].set(2.0)
    one._samples({**variables, "params": params})
    arrays, _ = load_arrays(tmp_path / "spike/samples.npz")
    lengths = one.material.test["lengths"]
    assert len(set(lengths[:5].tolist())) > 1
    counts = arrays["spikes/readout"].sum(0)
    np.testing.assert_array_equal(counts[:, 3], lengths[:5])
    assert counts.sum() == lengths[:5].sum()


# ------------------------------------------------------------------ results


@pytest.mark.parametrize(
    ("kind", "neurons", "macs"),
    [
        # 12 maps of 12², 64 of 4²; 64 kernels of 5² x 12 at 8² places, and 1,024 x 10
        ("static", [1728, 1024], 64 * 300 * 64 + 10_240),
        # 34² -> 30² -> 15² -> 11² -> 5²
        ("spike", [2700, 1600], 121 * 300 * 64 + 16_000),
    ],
)
def test_results_agree_with_each_other(kind, neurons, macs, request):
    folder = request.getfixturevalue({"static": "out", "spike": "events"}[kind]) / kind
    results = read_results(folder / "results.json")
    assert (results.experiment, results.system) == ("nmnist_csnn", "surrogate_csnn")
    assert (results.dataset, results.setting) == ("digits", kind)
    assert (results.test_examples, results.epochs_run) == (TEST, len(records(folder)))
    assert results.steps == len(results.accuracy_per_step) == {"static": 4, "spike": 6}[kind]
    assert results.snn_accuracy == results.accuracy_per_step[-1]
    assert round(results.snn_accuracy * TEST, 6) == round(results.snn_accuracy * TEST)
    assert [layer["name"] for layer in results.layers] == ["conv1", "conv2"]
    assert [layer["neurons"] for layer in results.layers] == neurons
    spikes = [layer["spikes_per_image"] for layer in results.layers]
    assert sum(spikes) == pytest.approx(results.spikes_per_image, rel=1e-12)
    assert min(spikes) > 0
    assert results.positive_spikes_per_image == results.spikes_per_image
    assert results.negative_spikes_per_image == 0
    assert results.spikes_per_neuron == pytest.approx(sum(spikes) / sum(neurons), rel=1e-12)
    # a spike in front of the readout costs ten operations, and those count here
    into_conv2 = results.layers[1]["sops_per_image"]
    assert 0 < into_conv2 <= spikes[0] * 25 * 64
    assert results.sops_per_image == pytest.approx(into_conv2 + 10 * spikes[1], rel=1e-12)
    assert results.ann_macs_per_image == macs
    assert results.equality is results.ann_accuracy is results.paper is None
    # An image has one current; of frames the ANN, its first layer included, sees each by itself.
    passes, channels = {"static": (1, 1), "spike": (6, 2)}[kind]
    first = results.layers[0]["neurons"] * 4 * 25 * channels  # behind pools of 2 x 2
    line = results.energy_pj_per_image["convention"]
    assert line["encoder"] == pytest.approx(passes * first * 4.6)
    assert line["ann"] == pytest.approx(passes * (first + macs) * 4.6)


@pytest.mark.parametrize(("kind", "flags"), [("static", COURSE), ("spike", SPIKE)])
def test_evaluate_and_simulate_agree(kind, flags, request, capsys):
    """Two programs: one pass over all steps, and one step after the other."""
    out = request.getfixturevalue({"static": "out", "spike": "events"}[kind])
    assert start("evaluate", *flags, out=out) == 0
    printed = re.search(rf"{kind}: test accuracy ([\d.]+)%", said(capsys))
    results = read_results(out / kind / "results.json")
    assert printed[1] == f"{100 * results.snn_accuracy:.2f}"


def test_the_stored_network_gives_the_results(out):
    snn = jaxsnn.load(out / "static/snn.npz")
    data = limited(load("digits"), None, TEST)
    images = data.test_images.astype(np.float32) * np.float32(1 / 255)
    evaluation = evaluate(snn, images, data.test_labels, steps=4, batch_size=TEST)
    expected = read_results(out / "static/results.json")
    assert evaluation.accuracy_per_step == expected.accuracy_per_step
    assert evaluation.per_image_spikes.mean() == expected.spikes_per_image


# ------------------------------------------------------------------ training


def test_the_log_says_what_the_metrics_say(out):
    head, *lines = (out / "static/training.log").read_text().splitlines()
    assert head.startswith("NmnistCsnn(")
    assert "lr_step=(1,)" in head
    expected = []
    for one in records(out / "static"):
        epoch = f"Epoch {one['epoch']}:"
        expected += [
            f"{epoch} learning rate {one['learning_rate']:g}",
            f"{epoch} train loss {one['train_loss']:.6f}",
            f"{epoch} validation accuracy {one['validation_accuracy']:.4f}",
            f"{epoch} test accuracy {one['test_accuracy']:.4f}",
        ]
    assert lines == expected


def test_the_learning_rate_falls_at_its_epochs(out):
    assert [one["learning_rate"] for one in records(out / "static")] == pytest.approx([1e-2, 5e-3])


def test_the_course_of_the_original(tmp_path):
    """Epochs 0 to 9 at 1e-2, 10 to 14 at 1e-3, 15 to 19 at 1e-4."""
    one = Csnn(NmnistCsnn(dataset="digits", out=str(tmp_path)))
    _, rate = adam(one.run.phases(59))
    first = {epoch: float(rate(59 * epoch)) for epoch in (0, 9, 10, 14, 15, 19)}
    last = {epoch: float(rate(59 * epoch + 58)) for epoch in first}
    expected = {0: 1e-2, 9: 1e-2, 10: 1e-3, 14: 1e-3, 15: 1e-4, 19: 1e-4}
    assert first == pytest.approx(expected)
    assert last == pytest.approx(expected)


def test_weights_are_chosen_by_validation_alone(out):
    rows = records(out / "static")
    accuracies = [one["validation_accuracy"] for one in rows]
    best = rows[int(np.argmax(accuracies))]
    _, meta = load_arrays(out / "static/best.npz")
    assert meta["epoch"] == best["epoch"]
    assert meta["validation_accuracy"] == max(accuracies)
    # what is reported is the test accuracy of that epoch, whatever the others have
    reported = read_results(out / "static/results.json").snn_accuracy
    assert reported == best["test_accuracy"]


def test_the_test_accuracy_chooses_nothing(out, tmp_path, monkeypatch):
    """A test set that likes the first epoch best changes no weight, while validation says 2."""
    told = iter([1.0, 0.0])
    monkeypatch.setattr(Csnn, "evaluate", lambda one, variables: next(told))
    assert start("train", "--test-every-epoch", *COURSE, out=tmp_path) == 0
    assert [one["test_accuracy"] for one in records(tmp_path / "static")] == [1.0, 0.0]
    assert load_arrays(tmp_path / "static/best.npz")[1]["epoch"] == 2
    for name in ("best.npz", "model.npz"):
        assert equal(weights(tmp_path / "static" / name), weights(out / "static" / name))


def test_training_changes_the_loss(out):
    first, second = records(out / "static")
    assert second["train_loss"] != first["train_loss"]
    # between the ideal output and ten outputs of which only the nine wrong ones spike
    assert all(1.461 <= one["train_loss"] <= np.log(1 + 9 * np.e) for one in (first, second))


def test_layers_that_never_spike_are_named(tmp_path, capsys):
    config = NmnistCsnn(dataset="digits", spike=True, frames=6, limit_train=100, limit_test=TEST)
    arrays = flatten(Csnn(config).task.init(jax.random.key(0)))
    weights = {name: np.asarray(leaf) for name, leaf in arrays.items()}
    for name in ("params/conv2/kernel", "params/conv2/bias", "params/readout/bias"):
        weights[name] = -np.abs(weights[name])
    save_arrays(tmp_path / "silent.npz", weights)
    flags = ("--lr", "1e-9", "--checkpoint", tmp_path / "silent.npz")
    start("train", *SPIKE, *map(str, flags), out=tmp_path / "runs")
    told = said(capsys)
    assert "epoch 1: no neuron of conv2, readout spiked on the first test examples" in told
    assert "--frames below 6" in told


def test_an_interrupted_run_ends_with_the_same_weights(out, copy):
    """Killed in its second epoch, in the middle of a line; and untested, it trains the same."""
    folder = copy / "static"
    *_, newest = sorted((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    assert int(newest.name) == 2 * UPDATES
    shutil.rmtree(newest)
    (folder / "model.npz").unlink()
    cut(folder / "metrics.jsonl", 30)
    assert start("train", "--resume", *COURSE, out=copy) == 0
    assert equal(weights(folder / "model.npz"), weights(out / "static/model.npz"))
    again, before = records(folder), records(out / "static")
    assert [one["epoch"] for one in again] == [1, 2]
    assert again[0] == before[0]
    for name in ("train_loss", "validation_loss", "validation_accuracy", "learning_rate"):
        assert again[1][name] == before[1][name]
    assert "test_accuracy" not in again[1]


def test_another_learning_rate_is_a_new_phase(out, copy, capsys):
    """At a rate that spoils the network: the weights of the best epoch stay the chosen ones."""
    folder = copy / "static"
    best = (folder / "best.npz").read_bytes()
    flags = ("--lr", "0.5", "--epochs", "1")
    assert start("train", "--resume", *COURSE, *flags, out=copy) == 0
    _, phases = from_json(NmnistCsnn, (folder / "config.json").read_text())
    assert [phase["learning_rate"] for phase in phases] == [1e-2, 0.5]
    assert [phase["first_step"] for phase in phases] == [0, 2 * UPDATES]
    *earlier, last = records(folder)
    assert earlier == records(out / "static")
    # the new phase counts its epochs anew: its own first one has the full rate
    assert (last["epoch"], last["learning_rate"]) == (3, 0.5)
    assert last["validation_accuracy"] < max(one["validation_accuracy"] for one in earlier)
    assert not equal(weights(folder / "model.npz"), weights(out / "static/model.npz"))
    assert (folder / "best.npz").read_bytes() == best
    log = (folder / "training.log").read_text()
    assert [f"Epoch {epoch}: train loss" in log for epoch in (1, 2, 3)] == [True] * 3
    capsys.readouterr()
    assert start("evaluate", *COURSE, out=copy) == 0
    accuracy = read_results(out / "static/results.json").snn_accuracy
    assert f"static: test accuracy {accuracy:.2%}" in said(capsys)


def test_a_finished_run_is_left_alone(out, copy, capsys):
    assert start("train", "--resume", *COURSE, out=copy) == 0
    assert "already trained for 2 epochs" in said(capsys)
    assert records(copy / "static") == records(out / "static")
    assert equal(weights(copy / "static/model.npz"), weights(out / "static/model.npz"))


def test_training_starts_from_given_weights(out, tmp_path):
    """At a rate too small to move any weight, the weights stay and the loss is theirs."""
    flags = (f"model.checkpoint={out / 'static'}", "--lr", "1e-30", "--epochs", "1")
    assert start("train", "exp_id=more", *flags, out=tmp_path) == 0
    before = weights(out / "static/best.npz")
    assert equal(weights(tmp_path / "more/model.npz"), before)
    scratch, (more,) = records(out / "static")[0], records(tmp_path / "more")
    assert more["train_loss"] != scratch["train_loss"]
    file = Csnn(
        NmnistCsnn(dataset="digits", out=str(tmp_path), checkpoint=f"{out / 'static/model.npz'}")
    )
    begun = file.task.init(jax.random.key(7))["params"]
    last = weights(out / "static/model.npz")
    for site, tree in begun.items():
        for name, leaf in tree.items():
            np.testing.assert_array_equal(leaf, last[f"params/{site}/{name}"])


def test_neurons_are_those_of_the_settings_whatever_the_checkpoint_had(out, tmp_path):
    """A checkpoint is weights alone: a leak that is fixed there may be another here, or learned."""
    settings = {"dataset": "digits", "out": str(tmp_path), "checkpoint": str(out / "static")}
    other = Csnn(NmnistCsnn(**settings, beta=0.9)).task.init(jax.random.key(0))
    assert {float(leaf) for tree in other["fixed"].values() for leaf in tree["leak"]} == {
        float(np.float32(0.9))
    }
    learning = Csnn(NmnistCsnn(**settings, learn=("leak",))).task.init(jax.random.key(0))
    assert learning["params"]["conv1"]["leak"].tolist() == [0.5] * 12
    best = weights(out / "static/best.npz")["params/conv2/kernel"]
    for begun in (other, learning):
        np.testing.assert_array_equal(begun["params"]["conv2"]["kernel"], best)


def test_every_surrogate_has_the_slope_of_its_source_unless_one_is_given(tmp_path):
    fast = NmnistCsnn(dataset="digits", out=str(tmp_path))
    steep = dataclasses.replace(fast, surrogate="superspike")
    same = dataclasses.replace(fast, surrogate="superspike", slope=25.0)

    def slope(config):
        cell = Csnn(config).net.neurons.default
        leaves, state = cell.fixed(1), (jnp.zeros((1, 1)),)
        actual = jax.grad(lambda x: cell.step(leaves, state, x)[1].sum())(jnp.array([[1.04]]))
        return float(actual[0, 0])

    assert slope(fast) == pytest.approx(0.25, rel=1e-4)  # 1 / (1 + 25 * 0.04)^2
    assert slope(steep) == pytest.approx(0.04, rel=1e-4)  # 1 / (1 + 100 * 0.04)^2
    assert slope(same) == slope(fast)


def test_grey_values_are_scaled_and_what_is_not_finite_is_refused(out):
    snn, digits = jaxsnn.load(out / "static/snn.npz"), load("digits")
    images = digits.test_images[:8]
    whole = evaluate(snn, images, steps=4)
    scaled = evaluate(snn, images.astype(np.float32) * np.float32(1 / 255), steps=4)
    np.testing.assert_array_equal(whole.image_spikes, scaled.image_spikes)
    assert whole.image_spikes.sum() > 0
    wrong = images.astype(np.float32)
    wrong[3, 2, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        evaluate(snn, wrong, steps=4)


@pytest.mark.slow
def test_padding_in_the_loss_changes_no_count(tmp_path):
    """--padded_loss: what is evaluated is what is simulated, to each recording's own end."""
    flags = (*SPIKE[:2], "--event_count", "150", "--epochs", "1", "--padded_loss")
    assert start("train", *flags, out=tmp_path) == 0
    one = Csnn(NmnistCsnn(**{**PADDED, "out": str(tmp_path)}))
    simulated = evaluate(
        directly_trained(one.net, one.variables(), one.material.encoding),
        one.material.shown(slice(None)),
        one.material.labels,
        steps=one.material.steps,
        batch_size=20,
    )
    assert len(set(one.material.test["lengths"].tolist())) > 4  # more than there are buckets
    assert one.evaluate() == simulated.accuracy_per_step[-1]


# ------------------------------------------------------------------ refusals


def test_weights_of_the_static_network_do_not_fit_the_one_of_events(out, tmp_path, capsys):
    flags = (*SPIKE, "--checkpoint", str(out / "static"))
    message = refused(capsys, "train", *flags, out=tmp_path / "runs")
    assert "params/conv1/kernel has shape (5, 5, 1, 12) instead of (5, 5, 2, 12)" in message
    assert "params/readout/kernel has shape (1024, 10) instead of (1600, 10)" in message
    assert not (tmp_path / "runs").exists()


def test_a_missing_checkpoint_is_refused(tmp_path, capsys):
    place = tmp_path / "nowhere"
    message = refused(capsys, "train", "--checkpoint", str(place), out=tmp_path / "runs")
    assert f"{place}: no such file" in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "name", "need"),
    [
        ("--frames 6", "frames is 6", "--spike true"),
        ("--time-window 2000", "time_window is 2000", "--spike true"),
        ("--event-count 50", "event_count is 50", "--spike true"),
        ("--filter-time 500", "filter_time is 500", "--spike true"),
        ("--filter-time None", "filter_time is None", "--spike true"),
        ("--rotation 5", "rotation is 5.0", "--spike true"),
        ("--dropped-events 0.2", "dropped_events is 0.2", "--spike true"),
        ("--time-jitter 0.5", "time_jitter is 0.5", "--spike true"),
        ("--padded-loss", "padded_loss is True", "--spike true"),
        ("--schedule cosine --lr-step 3", "lr_step is (3,)", "--schedule steps"),
        ("--schedule constant --lr-factor 0.5", "lr_factor is 0.5", "--schedule steps"),
    ],
)
def test_flags_without_effect_are_refused(flags, name, need, tmp_path, capsys):
    for stage in ("all", "train", "evaluate"):
        message = refused(capsys, stage, *flags.split(), out=tmp_path / "runs")
        assert f"{name} in the configuration; give {need} with it" in message
    assert not (tmp_path / "runs").exists()


def test_flags_with_an_effect_and_defaults_are_not_refused():
    events = ("frames=6", "rotation=5", "filter_time=None", "padded_loss=true", "time_jitter=1")
    for words in (
        ("rotation=10", "filter_time=10000"),  # as they are by default
        ("shift=2",),
        ("data.spike=true", *events),
        ("train.lr_step=[3]", "train.lr_factor=0.5"),
        ("schedule=cosine", "lr_step=[10,15]"),
    ):
        parse_command(NmnistCsnn, words, described(Csnn))[1].refuse_idle()


def test_settings_of_a_run_from_before_idle_flags_were_refused_can_be_read():
    saved = NmnistCsnn(frames=6, schedule="cosine", lr_factor=0.5)
    assert from_json(NmnistCsnn, to_json(saved))[0] == saved


@pytest.mark.parametrize("stage", ["evaluate", "simulate"])
def test_nothing_trained_is_refused(stage, tmp_path, capsys):
    message = refused(capsys, stage, out=tmp_path / "runs")
    assert str(tmp_path / "runs/static") in message
    assert "train it first" in message
    assert not (tmp_path / "runs").exists()


def test_other_settings_than_it_was_trained_with_are_refused(copy, capsys):
    place = copy / "static/config.json"
    before = place.read_bytes()
    for stage in (("evaluate",), ("train", "--resume")):
        message = refused(capsys, *stage, *COURSE, "--beta", "0.9", out=copy)
        assert f"beta: 0.5 in {place}, 0.9 asked" in message
    assert place.read_bytes() == before


def test_training_over_an_earlier_run_is_refused(out, copy, capsys):
    message = refused(capsys, "train", *COURSE, out=copy)
    assert str(copy / "static") in message
    assert "--resume" in message
    assert equal(weights(copy / "static/model.npz"), weights(out / "static/model.npz"))


def test_weights_that_are_not_numbers_are_refused(copy, capsys):
    path = copy / "static/best.npz"
    arrays = weights(path)
    arrays["params/conv2/kernel"][0, 0, 0, 0] = np.nan
    np.savez(path, **arrays)
    before = (copy / "static/results.json").read_bytes()
    message = refused(capsys, "simulate", *COURSE, out=copy)
    assert "params/conv2/kernel" in message
    assert "NaN" in message
    assert (copy / "static/results.json").read_bytes() == before


def cut(path, last=None):
    """Break a file off in the middle, or before its last bytes."""
    path.write_bytes(path.read_bytes()[: -(last or path.stat().st_size // 2)])


@pytest.mark.parametrize(
    ("name", "stage"),
    [("best.npz", "evaluate"), ("best.npz", "simulate"), ("samples.npz", "plot")],
)
def test_a_file_that_breaks_off_is_named_and_nothing_is_lost(name, stage, copy, capsys):
    path = copy / "static" / name
    cut(path)
    kept = {other: other.read_bytes() for other in (copy / "static").glob("*.*") if other.is_file()}
    message = refused(capsys, stage, *(COURSE if stage != "plot" else ()), out=copy)
    assert str(path) in message
    assert "not a complete npz file" in message
    assert all(other.read_bytes() == content for other, content in kept.items())


def test_without_the_best_epoch_the_last_one_is_taken(copy, capsys):
    (copy / "static/best.npz").unlink()
    assert start("evaluate", *COURSE, out=copy) == 0
    *_, last = records(copy / "static")
    assert f"static: test accuracy {100 * last['test_accuracy']:.2f}%" in said(capsys)


def test_metrics_that_break_off_lose_their_last_line_only(copy):
    cut(copy / "static/metrics.jsonl", 30)
    assert start("simulate", *COURSE, out=copy) == 0
    assert read_results(copy / "static/results.json").epochs_run == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--beta 2", "beta is 2.0 in the configuration; give a number from 0 to 1"),
        ("model.beta=-0.1", "beta is -0.1"),
        ("--slope 0", "slope is 0.0 in the configuration; give a number above 0"),
        ("--lr_step 15 10", "lr_step is (15, 10) in the configuration; give ascending epochs"),
        ("train.lr_step=[0,5]", "lr_step is (0, 5)"),
        ("--lr_factor inf", "lr_factor is inf"),
        ("--dataset nmnist", "dataset is 'nmnist' in the configuration; give --spike true"),
        ("exp_id=a/b", "exp_id is 'a/b' in the configuration; give a plain name other than figs"),
        ("exp_id=..", "exp_id is '..'"),
        ("--num_steps 0", "num_steps is 0 in the configuration; give 1 or more"),
        ("--batch_size -1", "batch_size is -1"),
        ("--spike true --frames 6 --event_count 9", "event_count and frames is"),
        ("--spike true --frames 6 --event_count 9", "give one way to cut frames"),
        ("--filter_time 0", "filter_time is 0 in the configuration; give 1 or more"),
        ("--rotation 181", "rotation is 181.0 in the configuration; give degrees"),
        ("--shift 1001", "shift is 1001 in the configuration; give pixels from 0 to 1000"),
        ("--spike true --dropped-events 1.1", "dropped_events is 1.1"),
        ("--spike true --time-jitter nan", "time_jitter is nan"),
        ("--learn leak treshold", "learn is ('leak', 'treshold')"),
        ("--surrogate relu", "--surrogate"),
        ("--betta 0.5", "unknown flag 'betta'; nearest: beta"),
        ("train.lr_stepp=[10]", "unknown flag 'train.lr_stepp'; nearest: train.lr_step"),
    ],
)
def test_values_that_make_no_sense_are_named_with_the_remedy(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_command(NmnistCsnn, flags.split(), described(Csnn))
    assert stopped.value.code == 2
    assert message in said(capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--dataset", "digit"), "unknown data set 'digit'; nearest: 'digits'"),
        (("--dataset", "digit", *SPIKE), "unknown event data set 'digit'; nearest: 'digits'"),
        (("--limit-train", "10"), "--batch-size 16: 8 training images do not fill one batch"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_anything_is_written(
    flags, message, tmp_path, capsys
):
    assert message in refused(capsys, "train", *flags, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("overrides", "flags"),
    [
        ("", ""),
        ("exp_id=spike data.spike=true", "--exp-id spike --spike"),
        (
            "exp_id=mine model.slope=10 model.beta=0.9 model.checkpoint=old data.root=there "
            "data.spike=True data.subset=2 data.num_workers=8 train.batch_size=128 "
            "train.num_steps=25 train.num_epochs=30 train.lr=1e-3 train.lr_step=[10,15] "
            "train.lr_factor=0.5",
            "--exp_id mine --slope 10 --beta 0.9 --checkpoint old --data-dir there --spike true "
            "--subset 2 --num-workers 8 --batch-size 128 --num-steps 25 --epochs 30 "
            "--learning-rate 0.001 --lr-step 10 15 --lr-factor 0.5",
        ),
    ],
)
def test_dotted_overrides_are_the_flags(overrides, flags):
    one, other = (
        parse_command(NmnistCsnn, text.split(), described(Csnn)) for text in (overrides, flags)
    )
    assert one == other
    assert one[0] == "all"


def test_the_settings_of_the_original_are_the_defaults():
    config = NmnistCsnn()
    actual = (config.exp_id, config.beta, config.checkpoint, config.spike)
    assert actual == ("static", 0.5, "", False)
    assert (config.surrogate, config.slope) == ("fast_sigmoid", None)  # that is, its usual 25
    assert (config.subset, config.num_workers, config.batch_size, config.num_steps) == (
        *(1, 32),
        *(1024, 50),
    )
    assert (config.epochs, config.learning_rate, config.lr_step, config.lr_factor) == (
        *(20, 1e-2),
        *((10, 15), 0.1),
    )
    assert (config.dataset, NmnistCsnn(spike=True).dataset) == ("mnist", "nmnist")


def test_help_says_what_has_no_effect(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_command(NmnistCsnn, ["--help"], described(Csnn))
    assert stopped.value.code == 0
    shown = said(capsys)
    for name in flags(NmnistCsnn):
        assert f"--{name.replace('_', '-')} " in shown
    workers = re.search(r"--num-workers INT (.*?) \(default: 32\)", shown)[1]
    assert "without effect" in workers


# ------------------------------------------------------------------ losses and resets


def grown(variables):
    """Kernels three times as large, so that every layer spikes."""
    return jax.tree.map(lambda leaf: 3 * leaf if leaf.ndim > 1 else leaf, dict(variables))


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "ce_rate"},
        {"loss": "mse_count"},
        {"loss": "ce_membrane"},
        {"reset": "subtract"},
        {"reset": "zero"},
        {"reset": "none"},
        {"learn": ("leak", "threshold")},
    ],
    ids=lambda options: str(next(iter(options.values()))),
)
def test_every_loss_and_reset_can_be_trained(options, tmp_path):
    config = NmnistCsnn(dataset="digits", num_steps=3, out=str(tmp_path), **options)
    one = Csnn(config)
    variables = grown(one.task.init(jax.random.key(0)))
    rest = {"fixed": variables.get("fixed", {})}
    images, labels = jnp.asarray(one.material.test[:2]), jnp.asarray(one.material.labels[:2])

    @jax.jit
    def of(params):
        key = jax.random.key(0)
        losses, _ = one.task.loss(params, rest, images, labels, key, True, axis_name=None)
        return jnp.mean(losses)

    loss, gradient = jax.value_and_grad(of)(variables["params"])
    assert np.isfinite(loss)
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()
        assert np.asarray(leaf).any()
    learned = {name for tree in variables["params"].values() for name in tree}
    assert learned == {"kernel", "bias", *options.get("learn", ())}


def test_the_accuracy_of_the_membrane_loss_is_counted_from_spikes(tmp_path):
    config = NmnistCsnn(dataset="digits", num_steps=5, loss="ce_membrane", out=str(tmp_path))
    one = Csnn(config)
    variables = grown(one.task.init(jax.random.key(0)))
    images = jnp.asarray(one.material.test[:8])
    rest, labels = {"fixed": variables["fixed"]}, jnp.asarray(one.material.labels[:8])

    @jax.jit
    def of(params, images):
        key = jax.random.key(0)
        return one.task.loss(params, rest, images, labels, key, False, axis_name=None)[1][0]

    counts = of(variables["params"], images)
    cell = neurons.leaky(0.5, slope=25.0)
    spiking = spiking_net(one.arch, cell)
    shown = images.astype(jnp.float32)[None] / 255
    _, spikes = watch(spiking, variables, shown, 5, ("readout",))
    np.testing.assert_array_equal(counts, spikes["readout"].sum(0))
    assert set(np.unique(counts)) <= set(range(6))
    assert np.asarray(counts).any()


# ------------------------------------------------------------------ simulation, beside plain NumPy

STEPS, CLASSES = 8, 3


def tiny_arch(channels):
    options = {"norm": False, "head_bias": True, "head_neuron": True}
    return parse("4C3-MP2-6", input_shape=(8, 8, channels), classes=CLASSES, **options)


def tiny(channels):
    """A network whose weights are eighths: all of its sums are exact in float32."""
    rng = np.random.default_rng(channels)
    shapes = {"conv1": (3, 3, channels, 4), "dense1": (36, 6), "readout": (6, CLASSES)}
    return {
        name: {
            "kernel": rng.integers(-6, 8, shape).astype(np.float32) / 8,
            "bias": rng.integers(-2, 3, shape[-1]).astype(np.float32) / 8,
        }
        for name, shape in shapes.items()
    }


def spiking(channels, presentation):
    net = spiking_net(tiny_arch(channels), neurons.leaky(0.5, slope=25.0))
    fixed = jaxsnn.init_variables(net, jax.random.key(0))["fixed"]
    variables = {"params": jax.tree.map(jnp.asarray, tiny(channels)), "fixed": fixed}
    return directly_trained(net, variables, Encoding(presentation))


def still():
    """The network of held images, seven images of fourths, and labels."""
    images = np.random.default_rng(1).integers(0, 5, (7, 8, 8, 1)).astype(np.float32) / 4
    return spiking(1, "held"), images, np.array([0, 1, 2, 0, 1, 2, 0])


LENGTHS = np.array([2, 5, 8, 3, 8, 1], np.int32)


def moving():
    """The network of events, six recordings of different length, and labels."""
    rng = np.random.default_rng(2)
    codes = np.full((len(LENGTHS), 200), -1, np.int32)
    for row, length in enumerate(LENGTHS):
        codes[row, : 25 * length] = rng.integers(0, 128 * length, 25 * length)
    labels = np.array([0, 1, 2, 2, 1, 0], np.int32)
    recordings = Recordings(codes, LENGTHS, labels)
    return spiking(2, "frames"), EventStream(recordings, (8, 8, 2)), labels


def frames_of(recordings, row):
    """The frames of one recording, event by event, ``[length, 8, 8, 2]``."""
    frames = np.zeros((recordings.lengths[row], 8, 8, 2))
    for code in recordings.codes[row]:
        if code >= 0:
            frames[np.unravel_index(code, frames.shape)] += 1
    return frames


def currents(image, weights):
    """A convolution without padding and its largest value in every 2x2 window, by loops."""
    kernel, bias = weights["kernel"].astype(float), weights["bias"].astype(float)
    drive = np.zeros((6, 6, 4))
    for row in range(6):
        for column in range(6):
            window = image[row : row + 3, column : column + 3]
            for channel in range(4):
                drive[row, column, channel] = np.sum(window * kernel[..., channel]) + bias[channel]
    pooled = np.zeros((3, 3, 4))
    for row in range(3):
        for column in range(3):
            pooled[row, column] = drive[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].max(
                axis=(0, 1)
            )
    return pooled


class Slow:
    """A neuron that keeps its potential: half of it stays, a spike costs 1 in the next step."""

    def __init__(self):
        self.potential = 0.0

    def __call__(self, current):
        before = self.potential
        self.potential = 0.5 * before + current - 1.0 * (before > 1)
        return self.potential > 1


def slow_simulation(weights, frames):
    """Spikes of every layer and step, and the readout's counts up to each step."""
    first, second, last = Slow(), Slow(), Slow()
    counts, total, spikes = [], np.zeros(CLASSES), {"conv1": [], "dense1": []}
    for frame in frames:
        conv1 = first(currents(frame, weights["conv1"]))
        dense1 = second(conv1.reshape(-1) @ weights["dense1"]["kernel"] + weights["dense1"]["bias"])
        total = total + last(dense1 @ weights["readout"]["kernel"] + weights["readout"]["bias"])
        spikes["conv1"].append(conv1.sum())
        spikes["dense1"].append(dense1.sum())
        counts.append(total)
    return {name: np.array(part) for name, part in spikes.items()}, np.array(counts)


def slow_evaluation(weights, examples):
    """Predictions ``[T, N]`` and spikes by layer ``[T, N]``; what ended counts no more."""
    predictions = np.zeros((STEPS, len(examples)), int)
    spikes = {name: np.zeros((STEPS, len(examples)), int) for name in ("conv1", "dense1")}
    for number, frames in enumerate(examples):
        outs, counts = slow_simulation(weights, frames)
        predictions[: len(frames), number] = counts.argmax(-1)
        predictions[len(frames) :, number] = counts[-1].argmax()
        for name, part in outs.items():
            spikes[name][: len(frames), number] = part
    return predictions, spikes


def assert_as_slow(actual, labels, predictions, spikes):
    np.testing.assert_array_equal(actual.predictions, predictions)
    np.testing.assert_array_equal(actual.correct, (predictions == labels).sum(1))
    np.testing.assert_array_equal(actual.image_spikes, spikes["conv1"] + spikes["dense1"])
    for name, part in spikes.items():
        np.testing.assert_array_equal(actual.spikes[name], part.sum(1))
    # a spike reaches all six neurons of the dense layer, and all classes behind it
    np.testing.assert_array_equal(actual.image_operations, 6 * spikes["conv1"])
    np.testing.assert_array_equal(actual.image_head_operations, CLASSES * spikes["dense1"])
    # not of a silent network, nor of one that has a single answer
    assert min(part.sum() for part in spikes.values()) > 0
    assert len(np.unique(predictions)) > 1


@pytest.mark.parametrize("block", [1, 3, 8])
def test_held_images_are_simulated_as_by_hand(block):
    snn, images, labels = still()
    expected = slow_evaluation(tiny(1), [[image] * STEPS for image in images])
    evaluation = evaluate(snn, images, labels, steps=STEPS, batch_size=3, block=block)
    assert_as_slow(evaluation, labels, *expected)


@pytest.mark.parametrize("block", [1, 3])
def test_recordings_are_simulated_as_by_hand_and_count_to_their_ends(block):
    snn, stream, labels = moving()
    rows = [frames_of(stream.recordings, row) for row in range(len(labels))]
    expected = slow_evaluation(tiny(2), rows)
    evaluation = evaluate(snn, stream, labels, steps=STEPS, batch_size=4, block=block)
    assert_as_slow(evaluation, labels, *expected)
    for number, length in enumerate(LENGTHS):
        assert not evaluation.image_spikes[length:, number].any()
    assert (evaluation.image_spikes.sum(0) > 0).all()


@pytest.mark.parametrize("case", [still, moving])
def test_a_stored_network_predicts_the_same(case, tmp_path):
    snn, examples, labels = case()
    save(snn, tmp_path / "snn.npz")
    one, other = (
        evaluate(network, examples, labels, steps=STEPS, batch_size=4)
        for network in (snn, jaxsnn.load(tmp_path / "snn.npz"))
    )
    np.testing.assert_array_equal(one.predictions, other.predictions)
    np.testing.assert_array_equal(one.image_spikes, other.image_spikes)


DEVICES = """
import sys; sys.path.insert(0, sys.argv[1])
import jax, numpy as np, test_surrogate_csnn as own
from jaxsnn.simulation.dataset import evaluate
assert jax.local_device_count() == 2
for case in (own.still, own.moving):
    snn, examples, labels = case()
    one, two = (
        evaluate(snn, examples, labels, steps=own.STEPS, batch_size=4, devices=count)
        for count in (1, 2)
    )
    np.testing.assert_array_equal(one.predictions, two.predictions)
    np.testing.assert_array_equal(one.image_spikes, two.image_spikes)
    np.testing.assert_array_equal(one.correct, two.correct)
"""


@pytest.mark.slow
def test_two_devices_simulate_as_one_does(run_python):
    run_python(DEVICES, Path(__file__).parent, devices=2)


def test_frames_and_images_are_told_apart():
    (still_snn, images, _), (moving_snn, stream, _) = still(), moving()
    with pytest.raises(ValueError, match="not frames"):
        evaluate(still_snn, stream, steps=2)
    with pytest.raises(ValueError, match="shown frames"):
        evaluate(moving_snn, images, steps=2)
