"""Networks of signed neurons that settle: exact at rest, honest where they are not."""

import dataclasses
import warnings

import jax
import numpy as np
import pytest
import reference as ref
from clipped_networks import UNITS, cached, network, trains
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn import certify, settle, settled, simulate
from jaxsnn.conversion.spiking import comes_to_rest
from jaxsnn.inputs.encoding import Encoding, gates

TEXT = "4C3p1-5C3s2p1-8nb"
GAMMAS = ["positive", "mixed", "with_zero"]


def at_levels(net, counts):
    """Neurons whose count is not the level of the float64 ANN, and those the grid explains."""
    levels, scaled, _ = ref.clipped_ann(net.layers, net.shown, net.bits, up=True)
    differ = [
        np.asarray(counts[layer["name"]]) != level
        for layer, level in zip(net.hidden, levels, strict=True)
    ]
    return [int(one.sum()) for one in differ], [
        np.abs(drive[one] % 1 - 0.5).max(initial=0)
        for drive, one in zip(scaled, differ, strict=True)
    ]


def drawn(seed, bits, gammas):
    return network(seed, TEXT, bits, (4, 4, 2), 6, gammas)


@settings(max_examples=4, derandomize=True, database=None)
@given(seed=st.integers(0, 10**6), bits=st.sampled_from([2, 3, 4]), gammas=st.sampled_from(GAMMAS))
def test_the_certificate_says_exact_after_settling(seed, bits, gammas):
    net = drawn(seed, bits, gammas)
    snn = net.snn(settling=True)
    proof = certify(snn, net.variables, net.images, steps=200, settle=True, batch_size=6)
    assert proof.equality == "exact after settling"
    assert proof.mismatches == proof.predictions == proof.unsettled_images == 0
    assert proof.origins_are_ties
    assert net.steps <= proof.steps <= net.steps * (len(net.layers) + 1)
    assert proof.settled_step <= proof.steps
    assert [layer.integer for layer in proof.layers] == [0] * 4


@settings(max_examples=20, derandomize=True, database=None)
@given(seed=st.integers(0, 10**6), bits=st.sampled_from([2, 3]), gammas=st.sampled_from(GAMMAS))
def test_counts_at_rest_are_the_levels_of_the_float64_ann(seed, bits, gammas):
    net = drawn(seed, bits, gammas)
    snn = net.snn(settling=True)
    most = net.steps * (len(net.layers) + 1)
    trace = settle(snn, net.images, steps=200, counts=True)
    assert net.steps <= len(trace.readout) <= most
    for spikes in trace.counters.spikes.values():
        assert not np.asarray(spikes)[net.steps :][-1:].any() or len(trace.readout) == net.steps
    differ, away = at_levels(net, trace.counts)
    # The first layer that differs from the float64 ANN does so near a half, which grids move.
    first = next((number for number, one in enumerate(differ) if one), None)
    assert first is None or away[first] < 1e-3
    integer = simulate(settled(snn), net.images, steps=1, counts=True)
    for name, count in trace.counts.items():
        np.testing.assert_array_equal(integer.counts[name], count)
    np.testing.assert_array_equal(integer.readout[-1], trace.readout[-1])


def test_settling_networks_need_no_float_ann_to_be_right():
    for seed in range(4):
        net = cached(seed)
        snn = net.snn(settling=True)
        counts = simulate(snn, net.images, steps=60, counts=True).counts
        differ, _ = at_levels(net, counts)
        assert differ == [0, 0, 0]  # these seeds: no tie


def test_without_settling_the_first_layer_is_exact_and_the_network_honestly_approximate():
    net = cached(3)
    for signed in (True, False):
        snn = net.snn(signed=signed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # counts do not settle here, and nobody promised it
            proof = certify(snn, net.variables, net.images, steps=net.steps, batch_size=5)
        assert proof.equality == "approximate"
        layers = {layer.site: layer for layer in proof.layers}
        assert layers["conv1"].integer == layers["conv1"].end_to_end == 0
        counts = simulate(snn, net.images, steps=net.steps, counts=True).counts
        levels, _, _ = ref.clipped_ann(net.layers, net.shown, net.bits)
        for layer, level in zip(net.hidden, levels, strict=True):
            differ = int(np.sum(np.asarray(counts[layer["name"]]) != level))
            assert layers[layer["name"]].end_to_end == differ
        assert layers["dense1"].end_to_end > 0
        assert proof.origins_are_ties
        assert proof.unsettled == proof.unsettled_images == 0
        assert proof.first_difference.site == "conv2"


def test_a_wrong_level_is_found_at_its_layer():
    # A clip that the conversion did not see: an origin at this layer, which no tie explains.
    net = cached(1)
    snn = net.snn(settling=True)
    moved = jax.tree.map(np.array, net.variables)
    moved["params"]["conv2"]["norm"]["bias"] += 0.3
    proof = certify(snn, moved, net.images, steps=100, settle=True, batch_size=8)
    assert proof.equality == "approximate"
    assert proof.mismatches == 0
    assert not proof.origins_are_ties
    assert proof.first_difference.site == "conv2"


def test_too_few_steps_of_a_settling_network_are_told():
    net = cached(1)
    snn = net.snn(settling=True)
    with pytest.warns(UserWarning, match="have not settled after 7 steps"):
        proof = certify(snn, net.variables, net.images, steps=7, batch_size=8)
    assert proof.equality == "approximate"
    assert proof.unsettled_images > 0


def test_nothing_is_at_rest_before_the_input_has_ended():
    # A dark image, no bias: every count is right after any number of steps, and yet.
    net = cached(1, "2x-2x", 2, shape=(1, 1, 1))
    tree = jax.tree.map(np.array, net.variables)
    tree["params"]["readout"]["bias"][:] = 0
    snn = net._replace(variables=tree).snn(settling=True)
    dark = np.zeros_like(net.images[:1])
    verdicts = {
        steps: certify(snn, tree, dark, steps=steps, batch_size=1).equality for steps in (2, 3)
    }
    assert verdicts == {2: "approximate", 3: "exact after settling"}


def test_what_comes_to_rest():
    net = cached(1)
    assert comes_to_rest(net.snn(settling=True))
    assert not comes_to_rest(net.snn())
    assert not comes_to_rest(net.snn(signed=False))
    endless = dataclasses.replace(net.snn(settling=True), encoding=UNITS)
    assert not comes_to_rest(endless)


def test_input_and_biases_end_after_as_many_steps_as_levels():
    # The readout sums bias and weights while the input lasts, and spikes alone behind it.
    net = cached(1)
    snn = net.snn(settling=True)
    steps, more = net.steps, 60
    actual, trace = trains(snn, net.images, more, 7)
    kernel = np.asarray(snn.variables["params"]["readout"]["kernel"], np.int64)
    bias = np.asarray(snn.variables["params"]["readout"]["bias"], np.int64)
    spikes = actual["dense1"]
    held = (np.arange(more) < steps)[:, None, None]
    gain = np.asarray(snn.variables["params"]["readout"]["gain"], np.int64)
    expected = np.cumsum(spikes @ kernel * gain + bias * held, axis=0)
    np.testing.assert_array_equal(trace.readout, expected)
    assert actual["conv1"][:steps].any()
    assert spikes[steps:].any()
    assert not spikes[-1].any()


def test_an_input_that_ends_by_hand():
    assert gates(Encoding("held", duration=3), 0, 5).tolist() == [1, 1, 1, 0, 0]
    assert gates(Encoding("held", duration=3), 2, 3).tolist() == [1, 0, 0]
    assert Encoding("held", duration=3).ends == 3
    assert Encoding("held").ends is None
    assert Encoding("onset").ends == 1
    for options in (
        {"presentation": "held", "duration": 0},
        {"presentation": "onset", "duration": 3},
        {"presentation": "frames", "duration": 3},
    ):
        with pytest.raises(ValueError, match=f"duration={options['duration']}"):
            Encoding(**options)


@pytest.mark.parametrize("gammas", GAMMAS)
def test_a_bias_that_is_a_third_of_a_step_off_is_no_tie(gammas):
    """Whatever a constant channel's grid is: what the grid explains is counted by channel."""
    net = drawn(3, 3, gammas)
    snn = net.snn(settling=True)
    params, fixed = snn.variables["params"]["conv2"], snn.variables["fixed"]["conv2"]
    moved = np.asarray(params["bias"]) + np.asarray(fixed["threshold"]) // (3 * net.steps)
    params["bias"] = moved.astype(np.int32)
    proof = certify(snn, net.variables, net.images, steps=200, settle=True, batch_size=6)
    assert proof.mismatches == 0  # the integer ANN has the same wrong bias
    assert not proof.origins_are_ties
    assert proof.equality == "approximate"


@pytest.mark.parametrize("run", [simulate, settle])
def test_a_network_that_does_not_settle_is_not_simulated_beyond_its_input(run):
    net = drawn(3, 2, "mixed")
    for signed in (True, False):
        with pytest.raises(ValueError, match="the bounds of this network's sums hold for the 3"):
            run(net.snn(signed=signed), net.images, steps=4)
