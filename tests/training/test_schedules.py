"""Courses of the learning rate, and gradient descent step by step in NumPy."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsnn.training import schedules
from jaxsnn.training.schedules import SMALLEST_CLIP


def phase(rate, epochs=10, first=0, updates=1, **options):
    fields = {"epochs": epochs, "learning_rate": rate, "schedule": "constant"} | options
    return {**fields, "steps_per_epoch": updates, "first_step": first}


def params_of(rng):
    """Two layers with everything that is learned, float32."""
    layer = {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4), "clip": 8.0}
    norm = {"scale": rng.normal(size=4), "bias": rng.normal(size=4)}
    whole = {
        "conv1": {**layer, "kernel_clip": 3.0, "norm": norm},
        "readout": {"bias": norm["bias"]},
    }
    return tree_map(lambda leaf: np.asarray(leaf, np.float32), whole)


def tree_map(function, *trees):
    """``function`` on the leaves of nested dictionaries."""
    if isinstance(trees[0], dict):
        return {name: tree_map(function, *(tree[name] for tree in trees)) for name in trees[0]}
    return function(*trees)


def run(optimiser, params, gradients):
    """Params after every update."""
    state, result = optimiser.init(params), []
    for slopes in gradients:
        updates, state = optimiser.update(slopes, state, params)
        params = optax.apply_updates(params, updates)
        result.append(tree_map(np.asarray, params))
    return result


@pytest.mark.parametrize("decay_clips", [True, False])
def test_sgd_is_momentum_and_decay_by_the_formula(decay_clips):
    # g <- g + decay * p, v <- 0.9 v + g, p <- p - rate * v (no dampening, no Nesterov).
    rng = np.random.default_rng(0)
    start = params_of(rng)
    gradients = [
        tree_map(lambda p: rng.normal(size=p.shape).astype(np.float32), start) for _ in "12345"
    ]
    phases = [phase(0.05, schedule="steps", lr_step=(2,), lr_factor=0.1)]
    optimiser, rates = schedules.sgd(phases, 0.03, decay_clips)
    actual = run(optimiser, start, gradients)
    assert [float(rates(number)) for number in range(5)] == pytest.approx([0.05] * 2 + [0.005] * 3)
    velocity = tree_map(lambda p: np.zeros_like(p, np.float64), start)
    params = tree_map(lambda p: p.astype(np.float64), start)
    for number, slopes in enumerate(gradients):
        rate = 0.05 if number < 2 else 0.005
        decay = tree_map(lambda p: 0.03, start)
        if not decay_clips:
            decay["conv1"] |= {"clip": 0.0, "kernel_clip": 0.0}
        step = tree_map(lambda g, p, d: g + d * p, slopes, params, decay)
        velocity = tree_map(lambda v, g: 0.9 * v + g, velocity, step)
        params = tree_map(lambda p, v, r=rate: p - r * v, params, velocity)
        tree_map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            actual[number],
            params,
        )


def test_no_decay_is_plain_momentum():
    params = {"readout": {"kernel": np.ones(3, np.float32)}}
    gradients = [{"readout": {"kernel": np.float32([1, 0, -2])}}] * 3
    actual = run(schedules.sgd([phase(0.5)], 0.0)[0], params, gradients)
    # Velocities 1, 1.9, 2.71.
    np.testing.assert_allclose(actual[-1]["readout"]["kernel"], [1 - 2.805, 1, 1 + 5.61], rtol=1e-6)


@pytest.mark.parametrize("name", ["clip", "kernel_clip"])
@pytest.mark.parametrize(("rate", "decay"), [(1.5, 1.0), (50.0, 0.1), (0.1, 0.0)])
def test_no_clip_wears_away(name, rate, decay):
    rng = np.random.default_rng(1)
    params = {"conv1": {name: np.float32(8), "kernel": np.full(4, 8, np.float32)}}
    push = {"conv1": {name: np.float32(3), "kernel": np.full(4, 3, np.float32)}}
    noise = [tree_map(lambda p: p * rng.normal(1, 2), push) for _ in range(60)]
    actual = run(schedules.sgd([phase(rate)], decay)[0], params, [push] * 60 + noise)
    clips = np.array([one["conv1"][name] for one in actual])
    # The update is cut before it is added, in float32.
    assert clips.min() >= SMALLEST_CLIP * (1 - 1e-3)
    assert clips.min() <= SMALLEST_CLIP * (1 + 1e-3)
    assert np.isfinite(clips).all()
    assert actual[0]["conv1"]["kernel"].min() < 8
    assert min(one["conv1"]["kernel"].min() for one in actual) < 0  # nothing else is held


def test_a_clip_that_is_too_small_is_lifted_and_a_larger_one_is_left_alone():
    keep = schedules.keep_clips()
    params = {
        "a": {"clip": jnp.float32(1e-5)},
        "b": {"clip": jnp.float32(2)},
        "clip": {"bias": jnp.zeros(())},
    }
    updates = {
        "a": {"clip": jnp.float32(0)},
        "b": {"clip": jnp.float32(-1.5)},
        "clip": {"bias": jnp.float32(-9)},
    }
    actual, _ = keep.update(updates, keep.init(params), params)
    assert float(params["a"]["clip"] + actual["a"]["clip"]) == pytest.approx(SMALLEST_CLIP)
    assert float(actual["b"]["clip"]) == -1.5
    assert float(actual["clip"]["bias"]) == -9  # a layer of that name is no clip


def test_clips_rise_again():
    params = {"conv1": {"clip": np.float32(8)}}
    down, up = ({"conv1": {"clip": np.float32(sign * 100)}} for sign in (1, -1))
    actual = run(schedules.sgd([phase(0.1)], 1e-4)[0], params, [down, *[up] * 3])
    clips = [float(one["conv1"]["clip"]) for one in actual]
    assert clips[0] == pytest.approx(SMALLEST_CLIP, rel=1e-2)
    assert clips[-1] > 1


def test_the_switch_of_the_clips_decay():
    params = {
        "conv1": {
            "clip": np.float32(8),
            "kernel_clip": np.float32(3),
            "bias": np.ones(2, np.float32),
        }
    }
    still = tree_map(np.zeros_like, params)
    decayed = run(schedules.sgd([phase(0.1)], 0.5, decay_clips=True)[0], params, [still])[0][
        "conv1"
    ]
    kept = run(schedules.sgd([phase(0.1)], 0.5, decay_clips=False)[0], params, [still])[0]["conv1"]
    assert float(decayed["clip"]) == pytest.approx(8 * 0.95)
    assert float(decayed["kernel_clip"]) == pytest.approx(3 * 0.95)
    assert (float(kept["clip"]), float(kept["kernel_clip"])) == (8, 3)
    np.testing.assert_allclose(kept["bias"], 0.95)


def test_a_constant_step_is_the_same_optimiser():
    rng = np.random.default_rng(2)
    params = params_of(rng)
    gradients = [
        tree_map(lambda p: rng.normal(size=p.shape).astype(np.float32), params) for _ in "123"
    ]
    one = run(schedules.sgd_step(1e-3, 5e-4), params, gradients)[-1]
    other = run(schedules.sgd([phase(1e-3)], 5e-4)[0], params, gradients)[-1]
    tree_map(np.testing.assert_array_equal, one, other)
    assert schedules.sgd_step(1e-3, 5e-4) is schedules.sgd_step(1e-3, 5e-4)
    assert schedules.sgd_step(1e-3, 5e-4) is not schedules.sgd_step(1e-3, 4e-4)


def test_phases_follow_each_other_by_hand():
    # 2 epochs of 5 updates at 0.4 with a drop before epoch 1, then 3 epochs of 5 at 0.04.
    phases = [
        phase(0.4, 2, 0, 5, schedule="steps", lr_step=(1,), lr_factor=0.5),
        phase(0.04, 3, 10, 5, schedule="steps", lr_step=(1, 2), lr_factor=0.1),
    ]
    rates = schedules.joined(phases)
    actual = [float(rates(number)) for number in range(25)]
    expected = [0.4] * 5 + [0.2] * 5 + [0.04] * 5 + [0.004] * 5 + [0.0004] * 5
    assert actual == pytest.approx(expected)
    np.testing.assert_allclose(
        [float(schedules.sgd(phases, 0.1)[1](n)) for n in range(25)], expected, rtol=1e-5
    )


def test_a_course_by_hand():
    assert [float(schedules.course("cosine", 2.0, 4)(n)) for n in (0, 2, 4)] == pytest.approx(
        [2, 1, 0]
    )
    assert float(schedules.course("constant", 0.3, 4)(99)) == pytest.approx(0.3)
    linear = [float(schedules.course("linear", 2.0, 4)(n)) for n in (0, 2, 4)]
    assert linear == pytest.approx([2, 1, 0])
    with pytest.raises(ValueError, match="'quadratic' is unknown"):
        schedules.course("quadratic", 0.1, 4)
