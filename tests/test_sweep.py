"""Evaluation in padded batches, and grids in one program: every entry equals a run of its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import converted, equations, firing, firing_images, firing_network, pixels

from jaxsnn import convert, evaluate, neurons, parse, simulate, sweep, with_leaf, with_unit_dropout
from jaxsnn.sweep import _swept
from jaxsnn.sweep import batches as batches_of


@functools.cache
def scatter():
    *_, snn, images = converted(21, images=11, gammas="mixed", shape=(6, 6, 1))
    return snn, images, np.arange(11) % 5


@functools.cache
def fires():
    layers, arch, leaves = firing_network(5, signed=True)
    snn = firing(layers, arch, leaves, neurons.integrate_and_fire(True))
    return snn, firing_images(6, 7), np.arange(7) % 3


def totals(evaluation):
    """Predictions, accuracy, spikes and operations after the last step of a run."""
    spikes = sum(int(part.sum()) for part in evaluation.spikes.values())
    operations = sum(int(p.sum()) for n, p in evaluation.operations.items() if n != "readout")
    return evaluation.predictions[-1], evaluation.accuracy_per_step[-1], spikes, operations


def check(result, index, evaluation):
    predictions, accuracy, spikes, operations = totals(evaluation)
    np.testing.assert_array_equal(result.predictions[index], predictions)
    assert result.accuracy[index] == pytest.approx(accuracy, abs=1e-12)
    assert result.spikes[index] == spikes
    assert result.operations[index] == operations


# ---------------------------------------------------------------- evaluate


def test_batches_are_of_one_size_and_repeat_the_last_row():
    found = [(rows.tolist(), real) for rows, real in batches_of(5, 2)]
    assert found == [([0, 1], 2), ([2, 3], 2), ([4, 4], 1)]


@pytest.mark.parametrize("batch_size", [4, 11, 16])
def test_evaluation_equals_a_loop_over_images(batch_size):
    snn, images, labels = fires()
    found = evaluate(snn, images, labels, steps=4, batch_size=batch_size)
    singles = [simulate(snn, images[n : n + 1], steps=4) for n in range(7)]
    predictions = np.concatenate([np.asarray(t.predictions) for t in singles], axis=1)
    np.testing.assert_array_equal(found.predictions, predictions)
    np.testing.assert_array_equal(found.correct, (predictions == labels).sum(1))
    assert found.accuracy_per_step == [n / 7 for n in found.correct.tolist()]
    for name, steps in found.spikes.items():
        np.testing.assert_array_equal(steps, sum(t.counters.spikes[name][:, 0] for t in singles))
        negative = sum(t.counters.negative[name][:, 0] for t in singles)
        np.testing.assert_array_equal(found.negative[name], negative)
        assert steps.dtype == np.int64
    channels = {"conv2": 5, "dense1": 7, "readout": 3}
    for name, steps in found.operations.items():
        events = sum(t.counters.events[name][:, 0] for t in singles)
        np.testing.assert_array_equal(steps, np.asarray(events) * channels[name])
    spikes = [sum(int(s.sum()) for s in t.counters.spikes.values()) for t in singles]
    assert found.per_image_spikes.tolist() == spikes
    operations = [
        sum(int(t.counters.events[n].sum()) * channels[n] for n in ("conv2", "dense1"))
        for t in singles
    ]
    assert found.per_image_operations.tolist() == operations
    assert found.images == 7


def test_noise_does_not_depend_on_the_batch_size():
    snn, images, labels = scatter()
    noisy = with_unit_dropout(snn, "conv1", 0.3)
    one, other = (
        evaluate(noisy, images, labels, batch_size=size, key=jax.random.key(2)) for size in (3, 11)
    )
    same = jax.tree.map(np.array_equal, tuple(one), tuple(other))
    assert jax.tree.all(same)
    clean = evaluate(snn, images, labels)
    assert one.per_image_spikes.sum() < clean.per_image_spikes.sum()


def test_evaluation_without_labels_and_with_wrong_ones():
    snn, images, labels = scatter()
    unlabelled = evaluate(snn, images)
    assert unlabelled.correct is None
    with pytest.raises(ValueError, match="no accuracy without labels"):
        _ = unlabelled.accuracy_per_step
    with pytest.raises(ValueError, match="11 images but 10 labels"):
        evaluate(snn, images, labels[:-1])
    with pytest.raises(ValueError, match=r"labels.*\(11, 5\)"):
        evaluate(snn, images, np.eye(5, dtype=int)[labels])
    with pytest.raises(ValueError, match="no images"):
        evaluate(snn, images[:0])
    with pytest.raises(ValueError, match="batch_size"):
        evaluate(snn, images, batch_size=0)
    with pytest.raises(ValueError, match="11 images but 10 labels"):
        sweep(snn, images, labels[:-1])


def test_a_network_with_one_hidden_layer_has_no_operations_but_the_readouts():
    arch = parse("6", classes=3, input_shape=(2, 2, 1))
    rng = np.random.default_rng(0)
    norm = {"scale": np.ones(6), "bias": np.full(6, 0.5)}
    variables = {
        "params": {
            "dense1": {"kernel": rng.normal(size=(4, 6)), "norm": norm},
            "readout": {"kernel": rng.normal(size=(6, 3))},
        },
        "batch_stats": {"dense1": {"norm": {"mean": np.zeros(6), "var": np.ones(6)}}},
    }
    snn = convert(variables, arch, k=1, bound=2)
    images = pixels(rng, 4, (2, 2, 1))
    found = evaluate(snn, images, np.zeros(4, int))
    assert found.per_image_operations.tolist() == [0, 0, 0, 0]
    assert found.per_image_spikes.min() > 0
    np.testing.assert_array_equal(found.operations["readout"], [3 * found.per_image_spikes.sum()])
    assert sweep(snn, images, np.zeros(4, int)).operations.tolist() == [0]


# ---------------------------------------------------------------- sweep


@pytest.mark.parametrize("block", [1, 2])
def test_every_horizon_equals_its_own_run_and_one_program_serves_all(block):
    snn, images, labels = fires()
    horizons = [1, 2, 5, 7]
    before = _swept._cache_size()
    result = sweep(snn, images, labels, steps=horizons, batch_size=4, block=block)
    assert _swept._cache_size() == before + 1
    assert result.axes == (("steps", (1, 2, 5, 7)),)
    assert result.predictions.shape == (4, 7)
    for index, steps in enumerate(horizons):
        check(result, index, evaluate(snn, images, labels, steps=steps, batch_size=4))
    assert len(set(result.spikes.tolist())) == 4


def test_noise_times_keys_equals_single_runs():
    snn, images, labels = scatter()
    ratios, keys = [0.0, 0.2, 1.0], jax.random.split(jax.random.key(4), 2)
    before = _swept._cache_size()
    result = sweep(snn, images, labels, noise=ratios, keys=keys, batch_size=4)
    assert _swept._cache_size() == before + 1
    assert result.axes == (("noise", tuple(ratios)), ("keys", (0, 1)), ("steps", (1,)))
    assert result.accuracy.shape == (3, 2, 1)
    for i, ratio in enumerate(ratios):
        for j, key in enumerate(keys):
            noisy = with_unit_dropout(snn, "conv1", ratio)
            check(result, (i, j, 0), evaluate(noisy, images, labels, key=key, batch_size=4))
    assert result.spikes[1, 0, 0] != result.spikes[1, 1, 0]
    already = sweep(with_unit_dropout(snn, "conv1", 0.9), images, noise=ratios, keys=keys,
                    batch_size=4)  # fmt: skip
    np.testing.assert_array_equal(already.spikes, result.spikes)


def test_thresholds_are_swept():
    snn, images, labels = scatter()
    own = snn.variables["fixed"]["conv2"]["thresholds"]
    values = jnp.stack([own, own + 3, own - 2])
    result = sweep(snn, images, labels, leaves=("conv2", "thresholds", values), batch_size=6)
    assert result.axes[0] == ("conv2/thresholds", (0, 1, 2))
    for index, value in enumerate(values):
        changed = with_leaf(snn, "conv2", "thresholds", value)
        check(result, (index, 0), evaluate(changed, images, labels))
    assert result.spikes[1, 0] < result.spikes[0, 0] < result.spikes[2, 0]


def test_the_encoders_convolution_is_not_repeated_for_the_grid():
    snn, images, _ = scatter()
    noisy = with_unit_dropout(snn, "conv1")
    values = (jnp.zeros(3), jax.random.split(jax.random.key(0), 2), None, None)
    program = functools.partial(_swept, where=("conv1", None), steps=1, block=1)
    jaxpr = jax.make_jaxpr(program)(noisy, jnp.asarray(images[:4]), jnp.arange(4), values)
    found = [e for e in equations(jaxpr.jaxpr) if e.primitive.name == "conv_general_dilated"]
    sizes = {e.invars[1].aval.shape[2]: e.invars[0].aval.shape for e in found}
    assert set(sizes) == {1, 6}  # input channels: the encoder's and the second convolution's
    assert sizes[1] == (4, 6, 6, 1)
    assert int(np.prod(sizes[6])) == 6 * 4 * 6 * 6 * 6  # six times as many images


def test_sweep_refusals():
    snn, images, _ = scatter()
    key = jax.random.split(jax.random.key(0), 1)
    for options, message in [
        ({"steps": [1, 0]}, "every horizon must be at least 1"),
        ({"steps": []}, "every horizon must be at least 1"),
        ({"noise": [0.1]}, "pass keys="),
        ({"noise": [-0.1], "keys": key}, "is no probability"),
        ({"noise": [0.1], "keys": key, "site": "pool9"}, "'pool9' is no spiking site"),
        ({"leaves": ("conv1", "threshold", jnp.ones((2, 6)))}, "known: conv1/thresholds"),
    ]:
        with pytest.raises(ValueError, match=message):
            sweep(snn, images, **options)
