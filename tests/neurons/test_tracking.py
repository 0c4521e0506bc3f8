"""The tracking neuron by hand, and networks of it against the NumPy reference (spec 6, 7-12)."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from helpers import converted
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn import (
    certify,
    convert,
    load,
    methods,
    neurons,
    plan,
    save,
    settle,
    settled,
    simulate,
    unpack,
)

ONE = 1 << 16


def leaves(first, step, highest, dtype=np.int32):
    """Leaves of one channel whose thresholds are first + (j - 1) step, multiples of 2^-16."""
    rounded = round(first * ONE) + ONE - 1
    whole = {"first": rounded // ONE, "step": round(step * ONE) // ONE}
    if dtype == np.float32:
        whole = {"first": first, "step": step}
    rest = {"first_fraction": rounded % ONE, "step_fraction": round(step * ONE) % ONE}
    parts = {name: jnp.asarray([value], dtype) for name, value in whole.items()}
    parts |= {name: jnp.asarray([value], jnp.int32) for name, value in rest.items()}
    return parts | {"highest": jnp.asarray([highest], jnp.int32)}


def run(tree, drives, dtype=np.int32, neuron=None):
    """Spikes, potentials and net counts of one neuron over a list of drives."""
    neuron = neuron or neurons.tracking()
    state = neuron.init(tree, (1, 1), None)
    result = []
    for drive in drives:
        state, out = neuron.step(tree, state, jnp.full((1, 1), drive, dtype))
        result.append((int(out[0, 0]), state[0][0, 0].item(), int(state[1][0, 0])))
    return tuple(map(list, zip(*result, strict=True)))


# ---------------------------------------------------------------- one neuron


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_trajectory_by_hand(dtype):
    # Thresholds 2, 3.5, 5, 6.5. The potential 5 is on the third (a tie goes up); 4 is below it and
    # above the second; 1 is below both; no spike is taken back that was not given.
    spikes, potentials, net = run(
        leaves(2, 1.5, 127, dtype), [5, 0, 0, 0, -1, 0, -3, 0, 0, -9], dtype
    )
    assert spikes == [1, 1, 1, 0, -1, 0, -1, -1, 0, 0]
    assert potentials == [5, 5, 5, 5, 4, 4, 1, 1, 1, -8]
    assert net == [1, 2, 3, 3, 2, 2, 1, 0, 0, 0]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_a_tie_keeps_a_spike_and_one_unit_less_takes_it_back(dtype):
    tree = leaves(3, 4, 127, dtype)
    assert run(tree, [7, 0, 0, -4, 0, -1, 0], dtype)[0] == [1, 1, 0, -1, 0, -1, 0]
    #  7 is the second threshold: two spikes. 3 is the first: one is kept. 2 is below: none.


def test_the_cap_suppresses_spikes_and_does_not_hold_the_potential():
    spikes, potentials, net = run(leaves(1, 1, 2), [9, 0, 0, -7, 0, -1, 0])
    assert spikes == [1, 1, 0, 0, 0, -1, 0]
    assert (potentials[-1], net) == (1, [1, 2, 2, 2, 2, 1, 1])


def test_thresholds_off_the_whole_numbers_by_a_hair():
    # 2 + 2^-16 is not reached by 2; 2 - 2^-16 is.
    assert run(leaves(2 + 1 / ONE, 5, 9), [2, 1])[0] == [0, 1]
    assert run(leaves(2 - 1 / ONE, 5, 9), [1, 1])[0] == [0, 1]
    # 1000 steps of 1 + 2^-16 add up to 1000 and 1000/65536: the ceiling counts it.
    tree = leaves(0, 1 + 1 / ONE, 2000)
    assert int(neurons.even_threshold(tree, jnp.array([1001]))[0]) == 1001
    level = neurons.even_level(2000).step(tree, (), jnp.array([[1000], [1001], [1002]]))[1]
    assert level.ravel().tolist() == [1000, 1001, 1002]


def test_a_constant_level_needs_no_drive():
    constant = leaves(0, 0, 3) | {"first": jnp.array([-(2**31)], jnp.int32)}
    assert run(constant, [0, 0, 0, 0, -50])[0] == [1, 1, 1, 0, 0]
    never = leaves(0, 0, 0)
    assert run(never, [5, -5, 2**30])[0] == [0, 0, 0]
    drives = jnp.array([[-(2**31)], [0], [2**31 - 1]], jnp.int32)
    for tree, level in ((constant, 3), (never, 0)):
        assert neurons.even_level().step(tree, (), drives)[1].ravel().tolist() == [level] * 3


def test_default_thresholds_are_the_half_steps():
    neuron = neurons.tracking(4)
    assert run(neuron.fixed(1), [1.5, 0, 0], np.float32, neuron)[0] == [1, 1, 0]
    assert (neuron.spikes, neuron.settled) == ((-1, 1), neurons.even_level(4))
    assert neuron.settled.spikes == (0, 4)
    assert neurons.even_level(127).step(neuron.fixed(1), (), jnp.ones(1))[1].dtype == jnp.int8
    assert neurons.even_level(128).step(neuron.fixed(1), (), jnp.ones(1))[1].dtype == jnp.int32


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_several_counts_a_step_by_hand(dtype):
    # Thresholds 2, 3.5, 5, 6.5, ... At most two counts a step, either way: 8 is four thresholds up,
    # 3 is one, 11 is seven; the count never goes below zero.
    two = neurons.tracking(per_step=2)
    drives = [8, 0, 0, -5, 0, 8, 0, 0, 0, -20, 0, 0, 0, 0]
    spikes, potentials, net = run(leaves(2, 1.5, 127, dtype), drives, dtype, two)
    assert spikes == [2, 2, 1, -2, -2, 2, 2, 2, 0, -2, -2, -2, -1, 0]
    assert net == [2, 4, 5, 3, 1, 3, 5, 7, 7, 5, 3, 1, 0, 0]
    assert potentials[:6] == [8, 8, 8, 3, 3, 11]
    assert (two.spikes, two.settled) == ((-2, 2), neurons.even_level())
    capped = run(leaves(2, 1.5, 3, dtype), [99, 0, 0], dtype, two)
    assert capped[0] == [2, 1, 0]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_no_positive_spike_while_the_potential_falls(dtype):
    # Thresholds 2, 3.5, 5, 6.5. The potential 9, 6, 4, 4, 1, 1, 7, 7 ...: at 6 and 4 a plain neuron
    # emits its second and third (wrong) spike, this one waits; negative ones never wait.
    drives = [9, -3, -2, 0, -3, 0, 6, 0, 0, 0]
    patient = neurons.tracking(rising=True)
    actual = run(leaves(2, 1.5, 127, dtype), drives, dtype, patient)
    assert actual[0] == [1, 0, 0, 1, -1, -1, 1, 1, 1, 1]
    assert run(leaves(2, 1.5, 127, dtype), drives, dtype)[0] == [1, 1, 0, 0, -1, -1, 1, 1, 1, 1]
    both = neurons.tracking(per_step=3, rising=True)
    assert run(leaves(2, 1.5, 127, dtype), drives, dtype, both)[0] == [
        3,
        0,
        -1,
        0,
        -2,
        0,
        3,
        1,
        0,
        0,
    ]
    below = leaves(-4, 1, 9)  # reached without any drive
    assert run(below, [-2, 0, 0, 0], neuron=patient)[0] == [0, 1, 1, 1]


def test_refusals():
    with pytest.raises(ValueError, match="would truncate"):
        run(leaves(1, 1, 3), [0.5], np.float32)
    for highest in (0, 2**15):
        with pytest.raises(ValueError, match=r"highest=.*1\.\.32767"):
            neurons.tracking(highest)
    for per_step in (0, 128):
        with pytest.raises(ValueError, match=rf"per_step={per_step}: .* 1 to 127"):
            neurons.tracking(per_step=per_step)
    with pytest.raises(ValueError, match=r"tracking: per_step=1\.5: give a whole number"):
        neurons.tracking(per_step=1.5)
    with pytest.raises(ValueError, match="tracking: rising='yes': give True or False"):
        neurons.tracking(rising="yes")


@pytest.mark.parametrize("highest", [1, 127, 32767])
def test_levels_and_resting_counts_equal_big_integers(highest):
    """Random thresholds up to the ends of int32, drives at, just below and far from them."""
    rng = np.random.default_rng(highest)
    channels, drives = 4000, 8
    step = (2.0 ** rng.uniform(-3, 47 - np.log2(highest), channels)).astype(np.int64)
    span = (highest - 1) * step // ONE + 2
    first = rng.integers(-(2**31) + 1, 2**31 - 2 - span) * ONE + rng.integers(0, ONE, channels)
    chosen = rng.integers(1, highest + 1, (drives, channels))
    exact = -((-(first + (chosen - 1) * step)) // ONE)  # ceilings
    drive = exact + rng.integers(-1, 2, (drives, channels))
    drive[0], drive[1] = -(2**31), 2**31 - 1
    drive = np.clip(drive, -(2**31), 2**31 - 1)
    # Thresholds up to u: first + (j - 1) step <= 2^16 u.
    room = drive * ONE - first
    expected = np.where(room < 0, 0, np.minimum(room // np.maximum(step, 1) + 1, highest))
    expected = np.where((step == 0) & (room >= 0), highest, expected)
    rounded = first + ONE - 1
    tree = {
        "first": rounded // ONE,
        "step": step // ONE,
        "first_fraction": rounded % ONE,
        "step_fraction": step % ONE,
        "highest": np.full(channels, highest),
    }
    tree = {name: jnp.asarray(value, jnp.int32) for name, value in tree.items()}
    level = neurons.even_level(highest).step(tree, (), jnp.asarray(drive, jnp.int32))[1]
    np.testing.assert_array_equal(level, expected)
    # A neuron whose net count is the level stays there; one above or below goes there.
    neuron = neurons.tracking(highest)
    for off in (-1, 0, 1):
        net = np.clip(expected + off, 0, highest)
        state = (jnp.asarray(drive, jnp.int32), jnp.asarray(net, jnp.int32))
        (_, after), _ = neuron.step(tree, state, jnp.zeros(drive.shape, jnp.int32))
        np.testing.assert_array_equal(after, expected)


def test_a_delay_and_lost_spikes_wrap_it():
    tree = leaves(2, 1.5, 127)
    late = neurons.delayed(neurons.tracking(), 2)
    state = late.init(tree, (1, 1), None)
    outs = []
    for drive in (5, 0, 0, -3, 0):
        state, out = late.step(tree, state, jnp.full((1, 1), drive, jnp.int32))
        outs.append(int(out[0, 0]))
    assert outs == [0, 0, 1, 1, 1]
    lossy = neurons.unit_dropout(neurons.tracking())
    state = lossy.init(tree, (1, 1), jax.random.split(jax.random.key(0), 1))
    all_lost = tree | {"drop_ratio": jnp.ones(())}
    assert int(lossy.step(all_lost, state, jnp.full((1, 1), 9, jnp.int32))[1][0, 0]) == 0


# ---------------------------------------------------------------- networks


def compare(layers, snn, images, k, cap, steps, eps, **way):
    """Library and reference spike for spike; final counts equal the ANN's levels."""
    names = [layer["name"] for layer in layers[:-1]]
    expected = ref.tracking(layers, images / 256.0, k, cap, steps, eps=eps, **way)
    trace = simulate(snn, images, steps=steps, record=names, counts=True)
    levels, logits = ref.quantised_ann(layers, images / 256.0, k, cap / 2**k, eps=eps)
    spikes = []
    for number, name in enumerate(names):
        actual = np.asarray(unpack(trace.records[name], snn, name))
        np.testing.assert_array_equal(actual, expected.spikes[number], err_msg=name)
        np.testing.assert_array_equal(trace.counts[name], levels[number], err_msg=name)
        spikes.append(actual.astype(np.int64))
    readout = np.asarray(trace.readout, np.float64) * snn.unit("readout") * 2**k
    np.testing.assert_allclose(readout, expected.logits, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(readout[-1], logits * 2**k, rtol=1e-9, atol=1e-9)
    rest = simulate(settled(snn), images, steps=1, counts=True)
    for name, level in zip(names, levels, strict=True):
        np.testing.assert_array_equal(rest.counts[name], level)
    np.testing.assert_array_equal(rest.readout[0], trace.readout[-1])
    return spikes, levels, trace


def last_spike(spikes):
    """Last step (from 1) with a spike, over all layers."""
    return max(
        int(np.flatnonzero([step.any() for step in one]).max(initial=-1)) + 1 for one in spikes
    )


def check_invariants(spikes, levels, trace, names, per_step=1):
    """Checks 9 and 10 of the spec."""
    for number, (one, level) in enumerate(zip(spikes, levels, strict=True)):
        net = one.cumsum(0)
        time = np.arange(1, len(one) + 1).reshape(-1, *(1,) * level.ndim)
        assert (one[0] >= 0).all()
        assert (net >= 0).all()
        assert (net <= per_step * time).all()
        assert (np.abs(one) <= per_step).all()
        if number == 0:
            assert (one >= 0).all()
            np.testing.assert_array_equal(net, np.minimum(per_step * time, level))
        negative = np.asarray(trace.counters.negative[names[number]], np.int64).sum()
        total = np.asarray(trace.counters.spikes[names[number]], np.int64).sum()
        assert negative == -np.minimum(one, 0).sum()
        assert total - 2 * negative == level.sum()


@pytest.mark.slow
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 10_000),
    depth=st.integers(1, 12),
    k=st.integers(0, 3),
    bound=st.sampled_from([None, 1, 2]),
    gammas=st.sampled_from(["positive", "mixed", "with_zero"]),
    dyadic=st.booleans(),
)
def test_checks_7_to_10_and_12_of_random_depths(seed, depth, k, bound, gammas, dyadic):
    options = {"gammas": gammas, "dyadic": dyadic, "convs": (), "dense": (10,) * depth}
    layers, _, _, snn, images = converted(
        seed, 12, k=k, bound=bound, method=methods.negative_spikes, shape=(3, 3, 1), **options
    )
    cap = 127 if bound is None else 2**k * bound
    steps = 200 if bound is None else depth * cap + 1
    spikes, levels, trace = compare(layers, snn, images, k, cap, steps, 0.0 if dyadic else 1e-5)
    check_invariants(spikes, levels, trace, [layer["name"] for layer in layers[:-1]])
    last = last_spike(spikes)
    assert last < steps  # the last step is silent, and so is every later one
    assert last >= max(level.max() for level in levels)
    if bound is not None:
        assert last <= depth * cap


CONVOLUTIONS = [
    ({"dyadic": True, "gammas": "mixed"}, 1, 2),
    ({"dyadic": True, "gammas": "with_zero"}, 2, 1),
    ({"dyadic": False, "gammas": "with_zero"}, 1, None),
    ({"dyadic": False, "bias": True, "convs": ((4, 3, 1, "same"), (4, 2, 2, "same"))}, 2, None),
]


@pytest.mark.parametrize(("options", "k", "bound"), CONVOLUTIONS)
def test_convolutions_settle_on_the_levels(options, k, bound):
    layers, _, _, snn, images = converted(
        5, 6, k=k, bound=bound, method=methods.negative_spikes, shape=(6, 6, 2), **options
    )
    cap = 127 if bound is None else 2**k * bound
    steps = 3 * cap + 1 if bound else 120
    eps = 0.0 if options["dyadic"] else 1e-5
    spikes, levels, trace = compare(layers, snn, images, k, cap, steps, eps)
    check_invariants(spikes, levels, trace, [layer["name"] for layer in layers[:-1]])
    assert max(level.max() for level in levels) < last_spike(spikes) + 1 <= steps
    assert any((one < 0).any() for one in spikes)


@pytest.mark.slow
@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 10_000),
    depth=st.integers(1, 5),
    k=st.integers(0, 3),
    bound=st.sampled_from([None, 1, 2]),
    gammas=st.sampled_from(["positive", "mixed", "with_zero"]),
    per_step=st.integers(1, 4),
    rising=st.booleans(),
    float_weights=st.booleans(),
)
def test_other_ways_settle_on_the_same_counts(
    seed, depth, k, bound, gammas, per_step, rising, float_weights
):
    way = {"per_step": per_step, "rising": rising}
    options = {"gammas": gammas, "dyadic": True, "convs": (), "dense": (10,) * depth}
    layers, _, _, snn, images = converted(
        seed,
        12,
        k=k,
        bound=bound,
        method=methods.negative_spikes,
        shape=(3, 3, 1),
        settings={**way, "float_weights": float_weights},
        **options,
    )
    cap = 127 if bound is None else 2**k * bound
    # One layer after the other, each in ceil(cap / per_step) steps; and a silent step.
    steps = 200 if bound is None else depth * -(-cap // per_step) + 1
    spikes, levels, trace = compare(layers, snn, images, k, cap, steps, 0.0, **way)
    check_invariants(spikes, levels, trace, [layer["name"] for layer in layers[:-1]], per_step)
    last = last_spike(spikes)
    assert last < steps


def test_every_level_at_once_is_the_integer_ann_in_one_step():
    settings = {"per_step": 127}
    layers, *_, snn, images = converted(
        13, 8, k=3, bound=None, method=methods.negative_spikes, dyadic=True, settings=settings
    )
    levels, _ = ref.quantised_ann(layers, images / 256.0, 3, 127 / 8, eps=0.0)
    trace = simulate(snn, images, steps=2, counts=True)
    for layer, level in zip(layers, levels, strict=False):
        assert level.max() > 4
        np.testing.assert_array_equal(trace.counts[layer["name"]], level)
        spikes = np.asarray(trace.counters.spikes[layer["name"]], np.int64)
        np.testing.assert_array_equal(spikes[0], level.reshape(len(level), -1).sum(1))
        assert not spikes[1].any()


@pytest.mark.slow
def test_fewer_spikes_in_convolutions_of_other_ways():
    options = {"dyadic": True, "gammas": "mixed", "k": 2, "bound": None, "shape": (6, 6, 2)}
    total = {}
    for way in ({}, {"rising": True}, {"per_step": 2}, {"per_step": 2, "rising": True}):
        layers, _, variables, snn, images = converted(
            21, 6, method=methods.negative_spikes, settings=way, **options
        )
        spikes, levels, trace = compare(layers, snn, images, 2, 127, 100, 0.0, **way)
        names = [layer["name"] for layer in layers[:-1]]
        check_invariants(spikes, levels, trace, names, way.get("per_step", 1))
        if way == {"rising": True}:
            stopped = settle(snn, images, steps=100, every=1)
            assert len(stopped.readout) == last_spike(spikes) + 1
            np.testing.assert_array_equal(stopped.readout[-1], trace.readout[-1])
            proof = certify(snn, variables, images, steps=100, settle=True)
            assert proof.equality == "exact after settling"
        total[len(total)] = sum(int(np.abs(one).sum()) for one in spikes), last_spike(spikes)
    (plain, settled_step), (rising, _), (pairs, sooner), (both, _) = total.values()
    assert max(rising, pairs) < plain
    assert both < min(rising, pairs)
    assert sooner < settled_step


def test_ties_happen_and_are_decided_as_in_the_ann():
    layers, _, _, snn, images = converted(
        7, 16, k=1, bound=2, method=methods.negative_spikes, dense=(12, 12)
    )
    expected = ref.tracking(layers, images / 256.0, 1, 4, 20, eps=0.0)
    ties = sum(
        int((expected.potentials[number][-1] == theta).sum())
        for number, layer in enumerate(layers[:-1])
        for theta in ref.fold(layer, 1, 2, eps=0.0)["thresholds"]
    )
    assert ties > 5
    compare(layers, snn, images, 1, 4, 20, 0.0)


def test_check_11_without_negative_spikes_counts_stay_wrong():
    layers, _, _, snn, images = converted(
        8, 12, k=2, bound=None, method=methods.negative_spikes, dyadic=False
    )
    spikes, levels, _ = compare(layers, snn, images, 2, 127, 150, 1e-5)
    assert any((one < 0).any() for one in spikes)
    disabled = ref.tracking(layers, images / 256.0, 2, 127, 150, negative=False)
    wrong = [
        int((one.sum(0) != level).sum()) for one, level in zip(disabled.spikes, levels, strict=True)
    ]
    assert wrong[0] == 0  # the encoder needs none
    assert sum(wrong) > 0


def test_check_12_without_the_sign_flip_counts_differ():
    layers, _, _, snn, images = converted(
        9, 8, k=1, bound=2, method=methods.negative_spikes, dyadic=False, gammas="mixed"
    )
    _, levels, trace = compare(layers, snn, images, 1, 4, 16, 1e-5)
    kernel = np.array(snn.variables["params"]["conv1"]["kernel"])
    kernel[..., 1::2] *= -1
    params = {**snn.variables["params"], "conv1": {"kernel": jnp.asarray(kernel)}}
    broken = dataclasses.replace(snn, variables={**snn.variables, "params": params})
    wrong = simulate(broken, images, steps=16, counts=True).counts["conv1"]
    assert (np.asarray(wrong)[..., 1::2] != levels[0][..., 1::2]).any()
    np.testing.assert_array_equal(np.asarray(wrong)[..., ::2], levels[0][..., ::2])
    unflipped = ref.tracking(layers, images / 256.0, 1, 4, 16, flip=False)
    assert (unflipped.spikes[0].sum(0) != levels[0]).any()
    assert trace.predictions.shape == (16, 8)


def test_block_sizes_give_the_same_spikes_and_a_saved_network_too(tmp_path):
    layers, _, _, snn, images = converted(
        10, 5, k=1, bound=None, method=methods.negative_spikes, dyadic=False
    )
    names = [layer["name"] for layer in layers[:-1]]
    save(snn, tmp_path / "snn.npz")
    again = load(tmp_path / "snn.npz")
    assert again.report == snn.report
    expected = simulate(snn, images, steps=20, record=names)
    for network, block in ((snn, 4), (snn, 20), (again, 1)):
        trace = simulate(network, images, steps=20, block=block, record=names)
        chex.assert_trees_all_equal(trace.records, expected.records)
        np.testing.assert_array_equal(trace.readout, expected.readout)


def test_other_ways_are_saved_refused_and_bounded(tmp_path):
    way = {"per_step": 3, "rising": True}
    _, arch, variables, snn, images = converted(10, 5, method=methods.negative_spikes, settings=way)
    save(snn, tmp_path / "snn.npz")
    again = load(tmp_path / "snn.npz")
    assert again.neurons == snn.neurons
    encoder, hidden = (snn.neurons.at(site) for site in plan(arch)[:2])
    assert (encoder, hidden) == (neurons.tracking(4, 3), neurons.tracking(4, 3, True))
    actual, expected = (
        simulate(one, images, steps=9, block=b) for one, b in ((again, 3), (snn, 1))
    )
    np.testing.assert_array_equal(actual.readout, expected.readout)
    # One step sums spikes of 3, not of 1.
    plain = convert(variables, arch, methods.negative_spikes(k=1, bound=2))
    bounds = [
        (one.step_bound, other.step_bound)
        for one, other in zip(snn.report, plain.report, strict=True)
    ]
    assert bounds[0][0] == bounds[0][1]  # the encoder sees the image
    assert all(one == 3 * other for one, other in bounds[1:])
    for options in ({"per_step": 0}, {"per_step": 200}, {"rising": 2}):
        with pytest.raises(ValueError, match=next(iter(options))):
            methods.negative_spikes(k=1, bound=2, **options)
