"""One network under every method: numbers beside independent ones, reasons, the choice."""

import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxsnn import Net, compare, hidden, methods, neurons, parse
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.network import net as net_module
from jaxsnn.report.comparison import Comparison, Trial
from jaxsnn.simulation.fixed_steps import simulate

ARCH = parse("3C3b-AP2-6", input_shape=(6, 6, 1), classes=4, norm=False, head_bias=True)
ENCODING = Encoding("held", 1 / 255, 255)
STEPS = 12


@pytest.fixture(scope="module")
def network():
    """Variables, images, and labels of which the network itself misses one in four."""
    net = Net(ARCH, hidden(neurons.relu()))
    variables = jax.tree.map(np.array, net_module.init_variables(net, jax.random.key(1)))
    for name, scale in (("conv1", 40.0), ("dense1", 10.0), ("readout", 5.0)):
        variables["params"][name]["kernel"] *= scale
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 1), dtype=np.uint8)
    shown = jnp.asarray(images) / np.float32(255)
    labels = np.array(net_module.forward(net, variables, shown).readouts[-1][0].argmax(-1))
    labels[::4] = (labels[::4] + 1) % 4
    return variables, images, labels


@pytest.fixture(scope="module")
def calibrated(network):
    return calibrate(network[0], ARCH, network[1], encoding=ENCODING, balance=False)


@pytest.fixture(scope="module")
def comparison(network, calibrated):
    variables, images, labels = network
    tried = [
        calibrated.scatter_gather(k=5),
        calibrated.negative_spikes(k=5),
        methods.rate(scales={"conv1": 1.0}),
        calibrated.rate(),
    ]
    seen = []
    options = {"rate_steps": STEPS, "certified": 10, "batch_size": 40, "after": seen.append}
    result = compare(
        variables, ARCH, images, labels, encoding=ENCODING, calibration=calibrated,
        methods=tried, **options,
    )  # fmt: skip
    assert tuple(seen) == result.trials
    return result


def test_the_network_as_it_is(comparison):
    assert comparison.accuracy == 0.75
    assert comparison.images == 40


def test_exact_methods_have_the_accuracy_of_their_quantised_network(network, comparison):
    variables, images, labels = network
    net = Net(ARCH, hidden(neurons.quantised_relu(5)))
    logits = net_module.forward(net, variables, jnp.asarray(images) / np.float32(255)).readouts
    want = float(np.mean(np.asarray(logits[-1][0]).argmax(-1) == labels))
    for name, word in (("scatter_gather", "exact"), ("negative_spikes", "exact after settling")):
        trial = comparison.find(name)
        assert trial.quantised_accuracy == pytest.approx(want)
        assert trial.accuracy == pytest.approx(want)
        assert trial.equality == word
        assert trial.certified == 10
        assert trial.unsettled == 0
        assert comparison.certificates[trial.label].equality == word
        classes = np.where(
            np.arange(40) % 4, labels, (labels - 1) % 4
        )  # what the network says itself
        unlike = np.asarray(logits[-1][0]).argmax(-1)[:10] != classes[:10]
        assert trial.given_predictions == unlike.sum()
    assert comparison.find("scatter_gather").steps == 1
    assert (
        comparison.find("negative_spikes").last_spike_step
        == comparison.find("negative_spikes").steps - 1
    )


def test_counts_are_those_of_a_simulation(network, comparison):
    trial = comparison.find("rate")
    assert not trial.applies  # the first, of which scales are missing
    trial = comparison.trials[-1]
    assert trial.equality == "approximate"
    assert trial.certified == 10
    assert trial.last_spike_step is None
    assert trial.steps == STEPS
    snn = comparison.networks[trial.label]
    assert snn.encoding.presentation == "held"
    trace = simulate(snn, network[1], steps=STEPS)
    hits = (np.asarray(trace.predictions) == network[2]).mean(axis=1)
    assert trial.accuracy_per_step == pytest.approx(tuple(hits))
    spikes = sum(np.asarray(part).sum() for part in trace.counters.spikes.values())
    assert trial.spikes_per_image == pytest.approx(spikes / 40)
    line = trial.energy_pj_per_image["convention"]
    # 3x3 kernels at 4x4 places for 3 channels; a dense layer of 12 inputs, 6 and 4 units
    encoder, rest = 4.6 * 16 * 3 * 9, 4.6 * (12 * 6 + 6 * 4)
    assert line["encoder"] == pytest.approx(encoder)
    assert line["ann"] == pytest.approx(encoder + rest)


def test_reasons_are_kept_for_methods_that_do_not_apply(comparison):
    (reason,) = comparison.reasons.values()
    assert "dense1: has no scale" in reason
    assert "\n" not in reason
    assert "does not apply: dense1: has no scale" in str(comparison)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_has_a_row_for_each_that_applies(comparison, width):
    to = Console(width=width, file=io.StringIO())
    to.print(comparison)
    text = to.file.getvalue()
    assert "…" not in text  # nothing is cut
    assert max(map(len, text.splitlines())) <= width
    assert "75.00 % as given, on 40 test images" in text
    assert text.count("scatter_gather") == text.count("negative_spikes") == 1
    assert len(re.findall(r"\brate\b", text)) == 1
    assert "settling" in text  # of the last column
    assert "as an ANN" in text


def trial(name, accuracy, equality="exact", operations=1.0, **fields):
    return Trial(
        method=name, accuracy_per_step=(accuracy,), equality=equality,
        operations_per_image=operations, **fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("trials", "best"),
    [
        ([trial("a", 0.9), trial("b", 0.91)], "b"),
        ([trial("a", 0.9095, operations=1.0), trial("b", 0.91, operations=2.0)], "a"),
        ([trial("a", 0.9), trial("b", 0.95, "approximate")], "a"),
        ([trial("a", 0.9, "approximate"), trial("b", 0.95, "approximate")], "b"),
        ([trial("a", 0.9, reason="no"), trial("b", 0.5)], "b"),
        ([trial("a", 0.9, "exact after settling"), trial("b", 0.5)], "a"),
    ],
)
def test_the_best_is_exact_accurate_and_sparing(trials, best):
    assert Comparison(0.9, 10, tuple(trials)).best.method == best


def test_where_nothing_applies_the_reasons_are_said():
    none = Comparison(0.9, 10, (Trial(method="a", options="k=1", reason="a max pool"),))
    with pytest.raises(ValueError, match=r"no method can convert(.|\n)*a\(k=1\): a max pool"):
        _ = none.best
    with pytest.raises(ValueError, match="method 'b' was not tried; tried were a"):
        none.find("b")


def test_plain_values_say_everything(comparison):
    record = comparison.to_json()
    assert record["accuracy"] == 0.75
    assert [one["method"] for one in record["trials"]] == [
        "scatter_gather", "negative_spikes", "rate", "rate",
    ]  # fmt: skip
    assert record["trials"][0]["steps"] == 1
    assert record["trials"][2]["reason"]


def test_methods_whose_options_read_alike_are_told_apart(network, calibrated):
    variables, images, labels = network
    tried = [calibrated.rate(99.0), calibrated.rate(100.0), calibrated.rate(99.9)]
    comparison = compare(
        variables, ARCH, images, labels, encoding=ENCODING, calibration=calibrated,
        methods=tried, rate_steps=STEPS, certified=0, batch_size=40,
    )  # fmt: skip
    names = [trial.label for trial in comparison.trials]
    assert len(set(names)) == 3
    for name, method in zip(names, tried, strict=True):
        assert comparison.methods[name] == method
        units = dict(comparison.networks[name].units)
        assert units == dict(calibrated.convert(method).units)


@pytest.mark.parametrize("count", [30, 50])
def test_labels_of_other_images_are_refused(network, calibrated, count):
    variables, images, _ = network
    labels = np.zeros(count, np.int32)
    with pytest.raises(ValueError, match="labels"):
        compare(variables, ARCH, images, labels, encoding=ENCODING, calibration=calibrated)
