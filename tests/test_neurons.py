"""Neurons: trajectories by hand, and what the factories promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref

from jaxsnn import neurons
from jaxsnn.fold import ALWAYS, NEVER

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
    found = [np.mean(left == n) for n in range(3)]
    np.testing.assert_allclose(found, expected, atol=0.01)


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
