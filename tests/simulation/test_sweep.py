"""Grids in one program: every entry equals a run of its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import converted, equations, fires, scatter

from jaxsnn import evaluate, methods, simulate, sweep, with_leaf, with_unit_dropout
from jaxsnn.inputs.encoding import jitter
from jaxsnn.simulation.fixed_steps import image_keys
from jaxsnn.simulation.sweep import _swept


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
    whole = evaluate(snn, images, labels, steps=7, batch_size=4)
    assert result.accuracy.tolist() == [whole.accuracy_per_step[t - 1] for t in horizons]


def test_all_horizons_are_read_from_one_run():
    snn, images, _ = fires()
    program = functools.partial(_swept, where=("conv1", None), block=1)

    def convolutions(horizons):
        jaxpr = jax.make_jaxpr(functools.partial(program, horizons=horizons))(
            snn, jnp.asarray(images), jnp.arange(7), (None, None, None, None)
        )
        actual = [e for e in equations(jaxpr.jaxpr) if e.primitive.name == "conv_general_dilated"]
        return [e.invars[0].aval.shape for e in actual]

    assert convolutions((1, 2, 5, 7)) == convolutions((7,)) != []


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


def test_noise_times_networks_equals_single_runs():
    snn, images, labels = scatter()
    thresholds = snn.variables["fixed"]["conv2"]["thresholds"]
    networks = [snn, with_leaf(snn, "conv2", "thresholds", thresholds + 3)]
    ratios, keys = [0.0, 0.4], jax.random.split(jax.random.key(4), 1)
    options = {"noise": ratios, "keys": keys, "networks": networks, "batch_size": 4}
    result = sweep(snn, images, labels, **options)
    assert [name for name, _ in result.axes] == ["noise", "keys", "networks", "steps"]
    for i, ratio in enumerate(ratios):
        for j, network in enumerate(networks):
            noisy = with_unit_dropout(network, "conv1", ratio)
            alone = evaluate(noisy, images, labels, key=keys[0], batch_size=4)
            check(result, (i, 0, j, 0), alone)


def test_thresholds_are_swept():
    snn, images, labels = scatter()
    thresholds = snn.variables["fixed"]["conv2"]["thresholds"]
    values = jnp.stack([thresholds, thresholds + 3, thresholds - 2])
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
    program = functools.partial(_swept, where=("conv1", None), horizons=(1,), block=1)
    jaxpr = jax.make_jaxpr(program)(noisy, jnp.asarray(images[:4]), jnp.arange(4), values)
    actual = [e for e in equations(jaxpr.jaxpr) if e.primitive.name == "conv_general_dilated"]
    sizes = {e.invars[1].aval.shape[2]: e.invars[0].aval.shape for e in actual}
    assert set(sizes) == {1, 6}  # input channels: the encoder's and the second convolution's
    assert sizes[1] == (4, 6, 6, 1)
    assert int(np.prod(sizes[6])) == 6 * 4 * 6 * 6 * 6  # six times as many images


def test_sweep_refusals():
    snn, images, _ = scatter()
    key = jax.random.split(jax.random.key(0), 1)
    for options, message in [
        ({"steps": [1, 0]}, "steps=0: give a whole number from 1"),
        ({"steps": [1, 1.5]}, "steps=1.5: give a whole number from 1"),
        ({"steps": np.array([2.0])}, "steps=2.0: give a whole number from 1"),
        ({"steps": []}, "axis 'steps' of the sweep is empty"),
        ({"noise": [], "keys": key}, "axis 'noise' of the sweep is empty"),
        ({"noise": [0.1], "keys": key[:0]}, "axis 'keys' of the sweep is empty"),
        ({"networks": []}, "axis 'networks' of the sweep is empty"),
        (
            {"leaves": ("conv1", "thresholds", jnp.ones((0, 4, 6), int))},
            "thresholds' of the sweep is empty",
        ),
        ({"noise": [0.1]}, "pass keys="),
        ({"noise": [1.5], "keys": key, "site": "input"}, "noise ratio 1.5"),
        ({"noise": [-0.1], "keys": key}, "noise ratio -0.1 is no number from 0 to 1"),
        ({"noise": [0.1], "keys": key, "site": "pool9"}, "'pool9' is no spiking site"),
        ({"leaves": ("conv1", "threshold", jnp.ones((2, 6)))}, "known: conv1/thresholds"),
    ]:
        with pytest.raises(ValueError, match=message):
            sweep(snn, images, **options)


# ---------------------------------------------------------------- input noise


def test_check_14_of_the_input():
    # Spec 2.4: x (1 + r xi), xi uniform in [-1/2, 1/2); standard error of the variance 0.3 %.
    units = np.full((4, 100, 100, 2), 1 << 16, np.int32)
    keys = jax.random.split(jax.random.key(7), 4)
    np.testing.assert_array_equal(jitter(units, keys, 0.0, 1 << 17), units)
    error = np.asarray(jitter(units, keys, 1.0, 1 << 17), np.float64) / 2**16 - 1
    assert np.abs(error).max() <= 0.5
    assert np.abs(error).max() > 0.499
    assert error.var() == pytest.approx(1 / 12, rel=0.02)
    assert error.mean() == pytest.approx(0, abs=0.01)
    half = np.asarray(jitter(units, keys, 0.5, 1 << 17), np.float64) / 2**16 - 1
    np.testing.assert_allclose(half, error / 2, atol=2.0**-16)  # the same numbers, scaled
    assert len({image.tobytes() for image in error}) == 4


def test_input_noise_is_whole_symmetric_and_cut():
    rng = np.random.default_rng(1)
    units = rng.integers(-900, 901, (3, 5, 4, 2)).astype(np.int16)
    keys = jax.random.split(jax.random.key(2), 3)
    actual = jitter(units, keys, 0.8, 1000)
    assert (actual.dtype, actual.shape) == (jnp.int32, units.shape)
    draw = [jax.random.uniform(key, (5, 4, 2), minval=-0.5, maxval=0.5) for key in keys]
    exact = units * (1 + 0.8 * np.asarray(draw, np.float64))
    np.testing.assert_allclose(actual, np.clip(np.floor(exact + 0.5), -1000, 1000), atol=1)
    assert np.mean(np.asarray(actual) == np.clip(np.floor(exact + 0.5), -1000, 1000)) > 0.99
    assert np.abs(actual).max() == 1000
    np.testing.assert_array_equal(jitter(units[1:2], keys[1:2], 0.8, 1000)[0], actual[1])
    with pytest.raises(ValueError, match="float32; noise acts on whole units"):
        jitter(jnp.ones((1, 2, 2, 1)), keys[:1], 0.1, 255)


def test_input_noise_in_a_sweep_equals_noisy_images():
    *_, snn, images = converted(
        22,
        images=7,
        method=methods.negative_spikes,
        shape=(5, 5, 1),
        convs=((4, 3, 1, "same"),),
        dense=(),
    )
    labels, ratios = np.arange(7) % 5, [0.0, 1.0]
    seeds = jax.random.split(jax.random.key(4), 2)
    before = _swept._cache_size()
    options = {"steps": [2, 9], "batch_size": 4, "site": "input"}
    result = sweep(snn, images, labels, noise=ratios, keys=seeds, **options)
    assert _swept._cache_size() == before + 1
    assert result.predictions.shape == (2, 2, 2, 7)
    for i, ratio in enumerate(ratios):
        for j, seed in enumerate(seeds):
            noisy = jitter(jnp.asarray(images), image_keys(seed, 0, 7), ratio, 255)
            trace = simulate(snn, noisy, steps=9)
            for row, steps in enumerate((2, 9)):
                np.testing.assert_array_equal(
                    result.predictions[i, j, row], trace.predictions[steps - 1]
                )
                spikes = sum(int(a[:steps].sum()) for a in trace.counters.spikes.values())
                assert result.spikes[i, j, row] == spikes
    assert result.spikes[1, 0, 1] != result.spikes[1, 1, 1]
    assert result.spikes[0, 0, 1] == result.spikes[0, 1, 1]
