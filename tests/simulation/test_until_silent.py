"""The settle stop gives the run of as many steps, bit for bit, from ever smaller batches."""

import dataclasses
import functools

import chex
import jax
import numpy as np
import pytest
import reference as ref
from clipped_networks import cached
from helpers import converted, firing, firing_images, firing_network
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn import Encoding, SiteMap, hidden, methods, neurons, settle, simulate, with_unit_dropout
from jaxsnn.simulation.image_by_image import halved, programs
from jaxsnn.simulation.until_silent import restless, silent


@functools.cache
def tracking(seed=33, images=11, **options):
    options = {"dyadic": True, "bound": None, "shape": (4, 4, 1), "dense": (8,)} | options
    options = {"convs": ((4, 3, 1, "same"),)} | options
    layers, *_, snn, shown = converted(seed, images, method=methods.negative_spikes, **options)
    return layers, snn, shown


def last_steps(trace):
    """Last step with a spike, image by image."""
    spikes = sum(np.asarray(one, np.int64) for one in trace.counters.spikes.values())
    return np.array([np.flatnonzero(column).max(initial=-1) + 1 for column in spikes.T])


def check(snn, images, steps, **options):
    """``settle`` equals ``simulate`` of as many steps; returns it."""
    trace = settle(snn, images, steps=steps, counts=True, **options)
    fixed = simulate(snn, images, steps=len(trace.readout), counts=True)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(trace))
    chex.assert_trees_all_equal(trace, fixed, strict=True)
    ends = snn.encoding.ends  # before its last step the input may bring the next spike
    assert len(trace.readout) == min(max(last_steps(fixed).max() + 1, ends), steps)
    return trace


@pytest.mark.slow
@settings(max_examples=8, derandomize=True, database=None)
@given(
    seed=st.integers(0, 1000),
    convs=st.integers(0, 2),
    dense=st.integers(1, 2),
    k=st.integers(0, 2),
    batch=st.sampled_from([1, 3, 7]),
    every=st.integers(1, 5),
    dark=st.integers(0, 3),
    limit=st.sampled_from([3, 80]),
)
def test_random_networks_equal_a_fixed_number_of_steps(
    seed, convs, dense, k, batch, every, dark, limit
):
    maps = ((3, 3, 1, "same"), (4, 2, 2, "valid"))[:convs]
    *_, snn, images = converted(
        seed, batch, k=k, bound=None, method=methods.negative_spikes, shape=(4, 4, 1), convs=maps,
        dense=(6,) * dense, gammas="mixed",
    )  # fmt: skip
    images[:dark] //= 64
    check(snn, images, limit, every=every)


@pytest.mark.parametrize("every", [1, 2, 5])
def test_images_leave_and_the_reference_agrees(every):
    layers, snn, images = tracking()
    images = images.copy()
    images[::2] //= 16
    actual = check(snn, images, 60, every=every)
    last = last_steps(actual)
    assert len(set(last.tolist())) > 2
    expected = ref.tracking(layers, images / 256.0, 1, 127, len(actual.readout), eps=0.0)
    np.testing.assert_array_equal(actual.predictions, expected.logits.argmax(-1))
    for layer, spikes in zip(layers, expected.spikes, strict=False):
        np.testing.assert_array_equal(actual.counts[layer["name"]], spikes.sum(0))
    # The limit at, just below and just above the last spike.
    for steps in range(last.max() - 1, last.max() + 2):
        assert len(check(snn, images, int(steps), every=every).readout) == steps


@pytest.mark.parametrize("every", [2, 5])
def test_an_image_that_is_held_for_some_steps(every):
    net = cached(1)  # 3 bits: 7 steps of input
    snn = net.snn(settling=True)
    images = net.images.copy()
    images[::2] //= 32
    actual = check(snn, images, 80, every=every)
    steps = len(actual.readout)
    assert steps > 7
    assert len(set(last_steps(actual).tolist())) > 1
    # Nothing ever happens again.
    later = simulate(snn, images, steps=steps + 9, counts=True)
    for name, count in actual.counts.items():
        np.testing.assert_array_equal(later.counts[name], count)
    for step in range(steps, steps + 9):
        np.testing.assert_array_equal(later.readout[step], actual.readout[-1])
    for limit in (6, 8):
        assert len(check(snn, images, limit, every=every).readout) == limit


def quiet_until(step):
    """A network of one neuron that fires in that step of 7 first, for an image of one 60."""
    net = cached(1, "1x", 3, shape=(1, 1, 1))
    snn = net.snn(settling=True)
    fixed, params = snn.variables["fixed"]["dense1"], snn.variables["params"]["dense1"]
    drive = 60 * int(params["kernel"][0, 0]) * int(params["gain"][0])
    threshold = step * abs(drive) - 1
    fixed = {
        **fixed,
        "threshold": fixed["threshold"] * 0 + threshold,
        "initial": 0 * fixed["initial"],
    }
    snn = dataclasses.replace(snn, variables={**snn.variables, "fixed": {"dense1": fixed}})
    return snn, np.full((2, 1, 1, 1), 60 if drive > 0 else -60, np.int16)


@pytest.mark.parametrize("every", [1, 2])
def test_silence_before_the_input_has_ended_is_no_rest(every):
    for step in (3, 7):
        snn, images = quiet_until(step)
        actual = check(snn, images, 40, every=every)
        assert last_steps(actual).tolist() == [7 - 7 % step] * 2
        first = np.argmax(np.asarray(actual.counters.spikes["dense1"]) > 0, axis=0) + 1
        assert first.tolist() == [step] * 2
        # A dark image is simulated as long as its input lasts.
        assert len(check(snn, 0 * images, 40, every=every).readout) == 7


def silent_network():
    """Thresholds that a dark image does not reach."""
    layers, arch, leaves = firing_network(5, integer=True)
    for layer in layers:
        layer["bias"] = np.zeros_like(layer["bias"])
    leaves = {site: {**one, "initial": 0 * one["initial"]} for site, one in leaves.items()}
    return firing(layers, arch, leaves, neurons.integrate_and_fire(), "onset")


def test_images_that_never_spike():
    snn, images = silent_network(), firing_images(6, 5, integer=True)
    images[1] = images[3] = 0
    actual = check(snn, images, 20, every=2)
    assert last_steps(actual)[[1, 3]].tolist() == [0, 0]
    assert last_steps(actual).max() > 1
    nothing = check(snn, np.zeros_like(images), 20)
    assert nothing.readout.shape[0] == 1
    assert not nothing.readout.any()


def test_float_weights_stop_too():
    layers, arch, leaves = firing_network(5, floating=True, signed=True)
    snn = firing(layers, arch, leaves, neurons.integrate_and_fire(True), "onset")
    images = firing_images(6, 4)
    trace = settle(snn, images, steps=40, counts=True)
    steps = len(trace.readout)
    fixed = simulate(snn, images, steps=steps + 6, counts=True)
    later = {name: np.asarray(one[steps - 1 :]) for name, one in fixed.counters.spikes.items()}
    assert all(not one.any() for one in later.values())
    np.testing.assert_array_equal(fixed.readout[steps:], np.stack([fixed.readout[steps - 1]] * 6))
    np.testing.assert_allclose(trace.readout, fixed.readout[:steps], rtol=1e-5, atol=1e-6)


def test_at_most_one_program_for_every_halving():
    _, snn, images = tracking(images=11)
    images = images.copy()
    for number, image in enumerate(images):
        image[:] = image >> min(number // 2, 7)
    further = programs(silent, 1, (), False, 1, 0)[1]
    before, sizes = further._cache_size(), set()
    trace = settle(snn, images, steps=60, every=1)
    last = last_steps(trace)
    size = 11
    for step in range(1, len(trace.readout) + 1):
        sizes.add(size)
        active = int((last >= step).sum())
        size = halved(size, active) if active else size
    assert len(sizes) > 1
    assert further._cache_size() - before == len(sizes) <= 4  # 11, 5, 2, 1
    settle(snn, images[::-1], steps=50, every=1)  # another limit and order: nothing new
    assert further._cache_size() - before <= 4


def test_halving():
    assert [halved(12, active) for active in (12, 7, 6, 4, 3, 2, 1)] == [12, 12, 6, 6, 3, 3, 1]
    assert [halved(24, active, 4) for active in (13, 12, 5, 4, 1)] == [24, 12, 12, 4, 4]


def test_refusals():
    _, snn, images = tracking()
    held = dataclasses.replace(snn, encoding=Encoding("held", 1 / 256))
    late = dataclasses.replace(snn, neurons=hidden(neurons.delayed(snn.neurons.default, 2)))
    stateful = SiteMap(snn.neurons.default, (("readout", neurons.integrate_and_fire()),))
    for network, reason in [
        (held, "presented as 'held' without an end, not once"),
        (late, "conv1: 'delayed' may spike after a silent step"),
        (with_unit_dropout(snn, "dense1"), "dense1: 'unit_dropout' may spike"),
        (dataclasses.replace(snn, neurons=stateful), "readout: 'integrate_and_fire' has a state"),
        (
            dataclasses.replace(snn, neurons=hidden(neurons.tracking(127, 1, True))),
            "conv1: 'tracking' may hold back the input",
        ),
    ]:
        with pytest.raises(ValueError, match=f"{reason}.*leave settle out"):
            settle(network, images, steps=9)
        assert reason in restless(network)
    assert restless(snn) == ""
    for options, message in [
        ({"steps": 0}, "steps=0"),
        ({"steps": 9, "every": 0}, "every=0"),
        ({"steps": 9, "devices": 99}, "devices=99"),
    ]:
        with pytest.raises(ValueError, match=message):
            settle(snn, images, **options)
    with pytest.raises(ValueError, match="before scaling"):
        settle(snn, images / 256, steps=9)
