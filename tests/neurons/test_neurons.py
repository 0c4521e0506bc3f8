"""Neurons: trajectories by hand, and what the factories promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from helpers import equations
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn import neurons
from jaxsnn.conversion.method import ALWAYS, NEVER
from jaxsnn.neurons.threshold_units import LISTED
from jaxsnn.neurons.threshold_units import reached as reached_by_search

IF = neurons.integrate_and_fire


def run(neuron, leaves, drives, keys=None):
    """Outputs [T, B, C] and states of a neuron over drives [T, B, C]."""
    drives = jnp.asarray(drives)
    leaves = {name: jnp.asarray(value) for name, value in leaves.items()}
    state = neuron.init(leaves, drives.shape[1:], keys)
    outs, states = [], []
    step = jax.jit(neuron.step)
    for drive in drives:
        state, out = step(leaves, state, drive)
        outs.append(np.asarray(out))
        states.append(state)
    return np.array(outs), states


def one(values, dtype=np.float32):
    """A drive [T] as [T, 1, 1]."""
    return np.asarray(values, dtype).reshape(-1, 1, 1)


def test_unsigned_trajectory_by_hand():
    # Threshold 1, V(0) = 1/2, drive 3/8: 0.875; 1.25 fires -> 0.25; 0.625; 1.0 fires (>=) -> 0;
    # 0.375.
    leaves = {"threshold": np.ones(1), "initial": np.full(1, 0.5)}
    outs, states = run(IF(), leaves, one([0.375] * 5))
    assert outs.ravel().tolist() == [0, 1, 0, 1, 0]
    assert [float(s[0][0, 0]) for s in states] == [0.875, 0.25, 0.625, 0.0, 0.375]
    assert outs.dtype == np.int8


def test_one_spike_a_step_and_reset_by_subtraction():
    # Drive 5 once, threshold 2: 5 -> 3 -> 1, two spikes, then rest.
    leaves = {"threshold": np.full(1, 2.0), "initial": np.zeros(1)}
    outs, states = run(IF(), leaves, one([5, 0, 0, 0]))
    assert outs.ravel().tolist() == [1, 1, 0, 0]
    assert float(states[-1][0][0, 0]) == 1


@pytest.mark.parametrize(
    ("signed", "lower", "spikes", "last"),
    [
        # 1.25 fires -> .25; .75; -.5 with count 1 retracts -> .5; -.5 with count 0 does not; 1.0
        # fires -> 0; 0 is above -1e-3.
        (True, -1e-3, [1, 0, -1, 0, 1, 0, 0], 0.0),
        # At a lower threshold of 0 (inclusive) V = 0 with count 1 retracts -> 1, which then fires.
        (True, 0.0, [1, 0, -1, 0, 1, -1, 1], 0.0),
        # Unsigned: .25, .75, -.5, -1.5, 0, 0, 0.
        (False, 0.0, [1, 0, 0, 0, 0, 0, 0], 0.0),
    ],
)
def test_signed_trajectory_by_hand(signed, lower, spikes, last):
    leaves = {"threshold": np.ones(1), "initial": np.full(1, 0.5)}
    leaves |= {"negative_threshold": np.full(1, lower)} if signed else {}
    outs, states = run(IF(signed), leaves, one([0.75, 0.5, -1.25, -1.0, 1.5, 0.0, 0.0]))
    assert outs.ravel().tolist() == spikes
    assert float(states[-1][0][0, 0]) == last
    if signed:
        assert int(states[-1][1][0, 0]) == sum(spikes)


def test_signed_keeps_its_net_count_at_zero_or_above():
    rng = np.random.default_rng(0)
    leaves = {k: np.asarray(v) for k, v in IF(True).fixed(3).items()}
    outs, states = run(IF(True), leaves, rng.normal(size=(40, 5, 3)).astype(np.float32))
    net = outs.astype(int).cumsum(0)
    assert net.min() == 0
    assert (outs == -1).any()
    for t, state in enumerate(states):
        np.testing.assert_array_equal(state[1], net[t])


def test_integer_leaves_and_drives_stay_integers():
    leaves = {"threshold": np.full(2, 3, np.int32), "initial": np.array([1, 0], np.int32)}
    outs, states = run(IF(), leaves, np.full((4, 1, 2), 2, np.int32))
    # From 1: 3 fires -> 0, 2, 4 fires -> 1, 3 fires -> 0; from 0: 2, 4 fires -> 1, 3 fires, 2.
    assert outs[:, 0, 0].tolist() == [1, 0, 1, 1]
    assert outs[:, 0, 1].tolist() == [0, 1, 1, 0]
    assert states[-1][0].dtype == jnp.int32


def test_thresholds_are_per_channel():
    leaves = {"threshold": np.array([0.5, 1.0, 2.0]), "initial": np.zeros(3)}
    outs, _ = run(IF(), leaves, np.full((4, 2, 3), 0.5, np.float32))
    assert outs.sum(0).tolist() == [[4, 2, 1]] * 2


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_delay_shifts_the_spikes_and_begins_with_zeros(steps):
    drives = np.random.default_rng(1).normal(0.3, 0.5, (7, 2, 3)).astype(np.float32)
    leaves = {k: np.asarray(v) for k, v in IF(True).fixed(3).items()}
    prompt, _ = run(IF(True), leaves, drives)
    late, _ = run(neurons.delayed(IF(True), steps), leaves, drives)
    assert prompt.any()
    assert not late[:steps].any()
    np.testing.assert_array_equal(late[steps:], prompt[:-steps])
    assert late.dtype == prompt.dtype


def test_a_delay_by_hand_of_the_multi_threshold_neuron():
    neuron = neurons.delayed(neurons.threshold_count(3))
    outs, _ = run(neuron, neuron.fixed(1), one([3, 0, 2], np.int32))
    assert outs.ravel().tolist() == [0, 3, 0]
    assert outs.dtype == np.int8
    assert neuron.spikes == (0, 3)
    assert neuron.settled is None


def test_threshold_count_by_hand():
    leaves = {"thresholds": np.array([[-2, 5], [0, 5], [7, NEVER]], np.int32)}
    drive = np.array([[-3, 4], [-2, 5], [0, 6], [7, 2**30]], np.int32)
    state, out = neurons.threshold_count(3).step(leaves, (), jnp.asarray(drive))
    assert state == ()
    assert out.tolist() == [[0, 0], [1, 2], [2, 2], [3, 2]]


@pytest.mark.parametrize("floating", [False, True])
@pytest.mark.parametrize("levels", [1, 4, 130])
def test_two_implementations_of_the_level_agree(levels, floating):
    rng = np.random.default_rng(levels)
    table = np.sort(rng.integers(-40, 40, (levels, 6)), axis=0)  # repeated entries too
    table[:, 0], table[:, 1] = ALWAYS, NEVER
    table[: levels // 2, 2], table[levels // 2 :, 2] = ALWAYS, NEVER
    table = table.astype(np.float32 if floating else np.int32)
    drive = rng.integers(-45, 45, (2, 3, 5, 4, 6)).astype(table.dtype)
    leaves = {"thresholds": jnp.asarray(table)}
    count = neurons.threshold_count(levels).step(leaves, (), jnp.asarray(drive))[1]
    level = neurons.integer_level(levels).step(leaves, (), jnp.asarray(drive))[1]
    expected = (drive[..., None, :] >= table).sum(-2)
    np.testing.assert_array_equal(count, expected)
    np.testing.assert_array_equal(level, expected)
    assert count.dtype == level.dtype == (jnp.int8 if levels <= 127 else jnp.int32)
    assert (np.asarray(count)[..., 0] == levels).all()
    assert not np.asarray(count)[..., 1].any()


def test_activations_have_no_state_and_known_values():
    x = jnp.array([[-1.0, 0.3, 5.0]])
    for neuron, expected in [
        (neurons.identity(), [-1.0, 0.3, 5.0]),
        (neurons.relu(), [0.0, 0.3, 5.0]),
        (neurons.quantised_relu(1, 2), [0.0, 0.5, 2.0]),
        (neurons.quantised_relu(1), [0.0, 0.5, 5.0]),
    ]:
        assert neuron.init({}, x.shape, None) == ()
        np.testing.assert_array_equal(neuron.step({}, (), x)[1], np.float32([expected]))
        assert neuron.spikes is None
        assert neuron.fixed(3) == neuron.learned(3) == {}
    assert float(jax.grad(lambda v: neurons.relu().step({}, (), v)[1])(0.0)) == 0


# ---------------------------------------------------------------- unit dropout


def noisy(levels=4, channels=16):
    neuron = neurons.unit_dropout(neurons.threshold_count(levels))
    return neuron, neuron.fixed(channels)


def image_keys(count, seed=0):
    return jax.vmap(lambda n: jax.random.fold_in(jax.random.key(seed), n))(jnp.arange(count))


@pytest.mark.parametrize("levels", [1, 2, 7, 8, LISTED, LISTED + 1, 255, 256, 300])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_a_search_counts_what_the_list_of_comparisons_counts(levels, dtype):
    rng = np.random.default_rng(levels)
    drive = rng.integers(-60, 60, (2, 3, 50, 4)).astype(dtype)
    drive[0, 0, :2] = [[-(2**31)] * 4, [2**31 - 1] * 4] if dtype == np.int32 else [[-9e9], [9e9]]
    sorted_one = np.sort(rng.integers(-50, 50, (levels, 4)), axis=0).astype(dtype)
    if dtype == np.int32:  # what no drive, every drive, reaches
        sorted_one[0, :2], sorted_one[-1, 2:] = -(2**31), 2**31 - 1
    mixed = rng.permuted(sorted_one, axis=0)
    for table in (sorted_one, mixed):
        reached = drive[..., None, :] >= table  # [..., levels, C]
        number = np.arange(1, levels + 1)[:, None]
        leaves = {"thresholds": jnp.asarray(table)}
        for cell, expected in (
            (neurons.threshold_count(levels), reached.sum(-2)),
            (neurons.integer_level(levels), (reached * number).max(-2)),
        ):
            out = jax.jit(cell.step)(leaves, (), jnp.asarray(drive))[1]
            np.testing.assert_array_equal(out, expected)
            assert out.dtype == (np.int8 if levels <= 127 else np.int32)
    ascending = jnp.asarray(sorted_one)
    counted = (drive[..., None, :] >= sorted_one).sum(-2)
    np.testing.assert_array_equal(reached_by_search(ascending, jnp.asarray(drive)), counted)


def test_thousands_of_levels_are_a_small_program():
    def size(levels):
        cell = neurons.threshold_count(levels)
        program = jax.make_jaxpr(cell.step)(cell.fixed(3), (), jnp.zeros((5, 3), jnp.int32))
        level = jax.make_jaxpr(cell.settled.step)(cell.fixed(3), (), jnp.zeros((5, 3), jnp.int32))
        return len(equations(program.jaxpr)) + len(equations(level.jaxpr))

    assert size(4096) <= size(LISTED)
    assert size(4096) - size(256) < 160  # two programs, some operations for each of four doublings


@pytest.mark.parametrize("inner", [neurons.threshold_count(4), IF(), IF(True)])
def test_ratio_zero_is_the_clean_neuron_and_one_is_silence(inner):
    rng = np.random.default_rng(0)
    drives = rng.integers(-6, 7, (6, 8, 4, 4, 5))
    neuron = neurons.unit_dropout(inner)
    leaves = neuron.fixed(5)
    drives = drives.astype(np.int32 if "thresholds" in leaves else np.float32)
    clean, _ = run(inner, {k: v for k, v in leaves.items() if k != "drop_ratio"}, drives)
    same, _ = run(neuron, leaves, drives, image_keys(8))
    assert same.tobytes() == clean.tobytes()
    assert clean.any()
    none, _ = run(neuron, leaves | {"drop_ratio": np.float32(1)}, drives, image_keys(8))
    assert not none.any()


@pytest.mark.parametrize("ratio", [0.1, 0.2, 0.7])
def test_check_14_share_of_spikes_that_remain(ratio):
    neuron, leaves = noisy()
    leaves |= {"drop_ratio": np.float32(ratio)}
    drive = np.random.default_rng(3).integers(0, 5, (1, 16, 28, 28, 16)).astype(np.int32)
    outs, _ = run(neuron, leaves, drive, image_keys(16))
    assert outs.sum() / drive.sum() == pytest.approx(1 - ratio, rel=0.01)
    assert (outs <= drive).all()
    # Each of n units is deleted on its own: the count that is left is binomial, not n or nothing.
    left = outs[drive == 4]
    expected = [ratio**4, 4 * ratio**3 * (1 - ratio), 6 * (ratio * (1 - ratio)) ** 2]
    actual = [np.mean(left == n) for n in range(3)]
    np.testing.assert_allclose(actual, expected, atol=0.01)


def test_negative_spikes_are_deleted_too():
    neuron = neurons.unit_dropout(IF(True))
    leaves = neuron.fixed(4000) | {"drop_ratio": np.float32(0.5), "initial": np.zeros(4000)}
    drives = np.stack([np.full((1, 4000), 1.0), np.full((1, 4000), -1.0)]).astype(np.float32)
    outs, _ = run(neuron, leaves, drives, image_keys(1))
    assert (outs[0] == 1).mean() == pytest.approx(0.5, abs=0.05)
    assert (outs[1] == -1).mean() == pytest.approx(0.5, abs=0.05)
    # Independently in each step.
    assert ((outs[0] != 0) & (outs[1] != 0)).mean() == pytest.approx(0.25, abs=0.05)


def test_an_image_draws_the_same_numbers_in_any_batch():
    neuron, leaves = noisy()
    leaves |= {"drop_ratio": np.float32(0.5)}
    drives = np.random.default_rng(4).integers(0, 5, (3, 6, 3, 3, 16)).astype(np.int32)
    whole, _ = run(neuron, leaves, drives, image_keys(6))
    for first, last in ((0, 2), (2, 4), (4, 6)):
        part, _ = run(neuron, leaves, drives[:, first:last], image_keys(6)[first:last])
        np.testing.assert_array_equal(part, whole[:, first:last])
    other, _ = run(neuron, leaves, drives, image_keys(6, seed=1))
    assert (other != whole).any()
    twice = np.repeat(drives[:, :1], 2, axis=1)
    outs, _ = run(neuron, leaves, twice, image_keys(2))
    assert (outs[:, 0] != outs[:, 1]).any()  # equal images, keys of their own


# ---------------------------------------------------------------- factories


def test_equal_options_are_the_same_object():
    assert neurons.quantised_relu(1, 2) is neurons.quantised_relu(k=1, bound=2)
    assert neurons.quantised_relu(1) is neurons.quantised_relu(1, None)
    assert neurons.quantised_relu(1, 2) is not neurons.quantised_relu(1, 3)
    assert IF() is IF(signed=False)
    assert IF() is not IF(True)
    assert neurons.delayed(IF()) is neurons.delayed(inner=IF(), steps=1)
    assert neurons.unit_dropout(IF()) is neurons.unit_dropout(IF())
    assert neurons.threshold_count(4).settled is neurons.integer_level(4)


@pytest.mark.parametrize(
    "neuron",
    [
        neurons.identity(),
        neurons.quantised_relu(2, 1),
        neurons.threshold_count(5),
        IF(True),
        neurons.delayed(neurons.unit_dropout(IF()), 2),
    ],
)
def test_name_and_options_rebuild_the_neuron(neuron):
    assert neurons.FACTORIES[neuron.name](**dict(neuron.options)) is neuron


def test_factories_refuse_what_makes_no_sense():
    with pytest.raises(ValueError, match="steps is 0"):
        neurons.delayed(IF(), 0)
    with pytest.raises(ValueError, match=r"'relu' emits no spikes"):
        neurons.unit_dropout(neurons.relu())
    neuron, leaves = noisy()
    with pytest.raises(ValueError, match="pass key="):
        neuron.init(leaves, (2, 16), None)


def test_default_leaves_are_per_channel():
    assert neurons.threshold_count(3).fixed(2)["thresholds"].tolist() == [[1, 1], [2, 2], [3, 3]]
    assert neurons.threshold_count(3).fixed(2)["thresholds"].dtype == jnp.int32
    leaves = IF(True).fixed(4)
    assert {name: leaf.shape for name, leaf in leaves.items()} == dict.fromkeys(leaves, (4,))
    assert set(leaves) == {"threshold", "initial", "negative_threshold"}


@pytest.mark.parametrize("signed", [False, True])
def test_constant_drive_for_as_many_steps_as_levels_is_the_quantiser(signed):
    # Theta = bound, V(0) = bound / 2 and T = 2^k bound steps: the count is the median level.
    k, bound = 1, 2
    z = np.arange(-32, 97) / np.float32(32)
    leaves = IF(signed).fixed(len(z))
    leaves |= {"threshold": np.full(len(z), 2.0), "initial": np.ones(len(z))}
    outs, _ = run(IF(signed), leaves, np.tile(z, (2**k * bound, 1, 1)).astype(np.float32))
    np.testing.assert_array_equal(outs.sum(0)[0], ref.median_level(z, k, bound))


# ---------------------------------------------------------------- signed integrate and fire

TRACES = [  # threshold 1, from 1/2: drives, signed spikes, sum of the unsigned ones
    ([1.5, -1.5, 0], [1, -1, 0], 1),
    ([2, -1, -1], [1, 0, -1], 1),
    ([0.9, 0.9, -1.8], [1, 1, -1], 2),
    ([3, 0, 0], [1, 1, 1], 3),
    ([1, -0.6, -0.6, 0, 0, 0, 0], [1, -1, 0, 0, 0, 0, 0], 1),
]


def leaves_of(threshold, signed, kind=np.float32):
    """Leaves of one channel that starts from half its threshold."""
    leaves = {"threshold": np.full(1, threshold, kind), "initial": np.full(1, threshold / 2, kind)}
    lower = -1e-3 if kind == np.float32 else np.floor(-1e-3 * threshold)
    return leaves | ({"negative_threshold": np.full(1, lower, kind)} if signed else {})


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize(("drives", "signed", "unsigned"), TRACES)
def test_check_8_traces(drives, signed, unsigned, integer):
    scale, kind = (1000, np.int32) if integer else (1, np.float32)
    shown = one([scale * drive for drive in drives], kind)
    assert np.allclose(shown.ravel(), np.multiply(drives, scale))
    outs, _ = run(IF(True), leaves_of(scale, True, kind), shown)
    assert outs.ravel().tolist() == signed
    outs, _ = run(IF(), leaves_of(scale, False, kind), shown)
    assert outs.sum() == unsigned


@pytest.mark.parametrize(("drives", "signed", "unsigned"), TRACES)
@pytest.mark.parametrize("clip", [1.0, 0.25, 4.0])
def test_check_8_over_the_training_tree_the_clip_is_threshold_and_amplitude(
    drives, signed, unsigned, clip
):
    shown = one(np.multiply(drives, clip))
    outs, states = run(neurons.clipped_spikes(), {"clip": np.float32(clip)}, shown)
    assert (outs.ravel() / clip).tolist() == signed
    assert int(states[-1][1][0, 0]) == sum(signed)
    outs, _ = run(neurons.clipped_spikes(False), {"clip": np.float32(clip)}, shown)
    assert outs.sum() / clip == unsigned


def test_the_negative_threshold_is_an_absolute_number():
    # With a clip of 100, V = -0.01 lies below -1e-3 and takes the spike back, which -1e-3 of the
    # clip would not: 50 + 60 fires -> 10, - 10.01 = -0.01 -> 99.99, and 0.01 more fires again.
    shown = one([60, -10.0078125, 0.0078125])
    outs, _ = run(neurons.clipped_spikes(), {"clip": np.float32(100)}, shown)
    assert (outs.ravel() / 100).tolist() == [1, -1, 1]
    # V = -2^-11 = -0.00049 lies above.
    outs, _ = run(neurons.clipped_spikes(), {"clip": np.float32(1)}, one([0.5, -(2.0**-11), 0]))
    assert outs.ravel().tolist() == [1, 0, 0]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("steps", [3, 7, 15])
def test_check_7_a_constant_drive_is_counted_to_its_level(steps, signed):
    # Integers: a threshold of 2^16, so that z = drive / 2^16 is exact, and Python's own integers
    # say which level is nearest.
    z = np.random.default_rng(steps).integers(-(2**15), 3 * 2**15, 10_000)
    leaves = {k: np.repeat(v, len(z)) for k, v in leaves_of(2**16, signed, np.int32).items()}
    outs, _ = run(IF(signed), leaves, np.tile(z.astype(np.int32), (steps, 1, 1)))
    nearest = [min(max((2 * steps * int(one) + 2**16) // 2**17, 0), steps) for one in z]
    assert outs.sum(0, dtype=int)[0].tolist() == nearest
    settled = neurons.fired_level(steps, signed)
    whole = steps * z[None].astype(np.int32)
    levels = settled.step({k: jnp.asarray(v) for k, v in leaves.items()}, (), jnp.asarray(whole))
    assert levels[1][0].tolist() == nearest
    # The float neuron and the float rounding, but for values that float32 cannot tell from ties.
    floats = (z / 2**16).astype(np.float32)
    leaves = {k: np.repeat(v, len(z)) for k, v in leaves_of(1, signed).items()}
    outs, _ = run(IF(signed), leaves, np.tile(floats, (steps, 1, 1)))
    scaled = steps * np.clip(z / 2**16, 0, 1)
    clear = np.abs(scaled % 1 - 0.5) > 1e-5
    assert clear.mean() > 0.999
    np.testing.assert_array_equal(outs.sum(0)[0][clear], np.round(scaled)[clear])


@pytest.mark.parametrize("bounded", [False, True])
def test_check_9_counts_stay_in_their_range(bounded):
    rng = np.random.default_rng(0)
    steps, scale = 15, 1000
    drives = (rng.normal(0.1, 1.2, (steps, 1, 4000)) * scale).astype(np.int32)
    leaves = {k: np.repeat(v, 4000) for k, v in leaves_of(scale, True, np.int32).items()}
    outs, states = run(IF(True, levels=5 if bounded else steps, bounded=bounded), leaves, drives)
    net = outs.astype(int).cumsum(0)
    assert set(np.unique(outs)) == {-1, 0, 1}
    assert net.min() == 0
    assert net.max() == (5 if bounded else 15)
    first = outs[np.argmax(outs != 0, axis=0)[0], 0, np.arange(4000)]
    assert set(np.unique(first)) == {0, 1}
    np.testing.assert_array_equal(states[-1][1], net[-1])


@pytest.mark.parametrize("signed", [False, True])
def test_check_12_the_membrane_keeps_the_books(signed):
    rng = np.random.default_rng(1)
    drives = rng.integers(-2000, 2500, (9, 3, 50)).astype(np.int32)
    leaves = {k: np.repeat(v, 50) for k, v in leaves_of(1000, signed, np.int32).items()}
    outs, states = run(IF(signed), leaves, drives)
    spikes = outs.astype(int).cumsum(0)
    for t, state in enumerate(states):
        expected = 500 + drives[: t + 1].sum(0) - 1000 * spikes[t]
        np.testing.assert_array_equal(state[0], expected)
    dyadic = (drives // 8 / 64).astype(np.float32)  # every float sum is exact
    outs, states = run(neurons.clipped_spikes(signed), {"clip": np.float32(1.5)}, dyadic)
    np.testing.assert_array_equal(states[-1][0], 0.75 + dyadic.sum(0) - outs.sum(0))
    assert outs.any()


@pytest.mark.parametrize(
    ("steps", "signed", "error", "equal"),
    [(3, False, 0.20, 0.82), (3, True, 0.07, 0.93), (7, False, 0.37, 0.67), (7, True, 0.11, 0.89)],
)
def test_check_10_how_far_counts_are_from_levels(steps, signed, error, equal):
    z = np.random.default_rng(steps).normal(0.3, 0.8, (steps, 1, 50_000))
    leaves = {k: np.repeat(v, 50_000) for k, v in leaves_of(1, signed).items()}
    outs, _ = run(IF(signed), leaves, z.astype(np.float32))
    away = np.abs(outs.sum(0)[0] - np.round(steps * np.clip(z.mean(0)[0], 0, 1)))
    assert away.mean() == pytest.approx(error, rel=0.2)
    assert (away == 0).mean() == pytest.approx(equal, abs=0.015)


@settings(max_examples=30, derandomize=True, database=None)
@given(
    drives=st.lists(st.integers(-3000, 3000), min_size=1, max_size=8),
    threshold=st.integers(1, 1500),
    levels=st.integers(1, 7),
)
def test_a_bounded_neuron_comes_to_rest_at_its_level(drives, threshold, levels):
    # Python alone: V and n of the rule, then the level that the whole drive asks for.
    level = min(max((threshold // 2 + sum(drives)) // threshold, 0), levels)
    shown = np.full((8 + 2 * levels + 1, 1, 1), 0, np.int32)
    shown[: len(drives), 0, 0] = drives
    neuron = IF(True, levels=levels, bounded=True)
    leaves = {
        "threshold": np.full(1, threshold, np.int32),
        "initial": np.full(1, threshold // 2, np.int32),
        "negative_threshold": np.full(1, -1, np.int32),
    }
    outs, _ = run(neuron, leaves, shown)
    assert outs.sum() == level
    assert not outs[-1].any()
    assert neuron.rests
    whole = jnp.full((1, 1), sum(drives), jnp.int32)
    arrays = {name: jnp.asarray(leaf) for name, leaf in leaves.items()}
    assert int(neuron.settled.step(arrays, (), whole)[1][0, 0]) == level


def test_only_signed_and_bounded_neurons_come_to_rest():
    assert not IF(True, levels=7).rests
    assert not IF(levels=7, bounded=True).rests
    assert IF(True).settled is None
    assert IF(True, levels=7).settled is neurons.fired_level(7, True)
    assert IF(True, levels=7).spikes == (-1, 1)
    assert IF(levels=7).spikes == (0, 1)
    assert neurons.fired_level(7).spikes == (0, 7)
    # An unbounded neuron that was driven up and back in time goes beyond its level, and stays.
    drives = np.zeros((12, 1, 1), np.int32)
    drives[:4, 0, 0] = 1000
    leaves = leaves_of(1000, True, np.int32)
    assert run(IF(True, levels=3), leaves, drives)[0].sum() == 4
    assert run(IF(True, levels=3, bounded=True), leaves, drives)[0].sum() == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bounded": True}, "bounded=True"),
        ({"levels": 0}, "levels=0"),
        ({"levels": -3, "bounded": True}, "levels=-3"),
    ],
)
def test_integrate_and_fire_refuses_bounds_without_a_level(options, message):
    with pytest.raises(ValueError, match=message):
        IF(True, **options)


def test_clipped_relu_is_an_activation_with_a_learned_clip():
    neuron = neurons.clipped_relu(2)
    assert neuron.stateless
    assert neuron.spikes is None
    assert {k: float(v) for k, v in neuron.learned(5).items()} == {"clip": 8.0}
    assert {k: float(v) for k, v in neurons.clipped_spikes().learned(5).items()} == {"clip": 8.0}
    assert float(neurons.clipped_relu(2, clip=6.0).learned(5)["clip"]) == 6
    drive = jnp.array([-1.0, 0.3, 0.34, 1.0, 1.7, 2.5])
    out = neuron.step({"clip": jnp.float32(2)}, (), drive)[1]
    np.testing.assert_allclose(out, [0, 0, 2 / 3, 4 / 3, 2, 2], rtol=1e-6)
    for bits in (1, 6, 32):
        with pytest.raises(ValueError, match=f"bits={bits}"):
            neurons.clipped_relu(bits)


@pytest.mark.parametrize(
    "neuron",
    [
        neurons.clipped_relu(3, "up", 6.0),
        IF(True, levels=7, bounded=True),
        neurons.fired_level(7),
        neurons.clipped_spikes(False),
    ],
)
def test_name_and_options_rebuild_the_clipped_ones(neuron):
    assert neurons.FACTORIES[neuron.name](**dict(neuron.options)) is neuron
