"""Batch norm, what follows it, and the derivative of both, against automatic differentiation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.network.normalised import normalise
from jaxsnn.neurons import levels

SHAPE = (6, 4, 4, 3)


def relu_level(drive, operands):
    shortcut, leaves = operands
    total = drive if shortcut is None else drive + shortcut
    return levels.clip_quantise(total, leaves["clip"], 2)


def operands(with_shortcut):
    rng = np.random.default_rng(1)
    shortcut = jnp.asarray(rng.normal(size=SHAPE), jnp.float32) if with_shortcut else None
    return shortcut, {"clip": jnp.float32(1.3)}


def by_hand(drive, scale, bias, others):
    """The same, as the formula says it, to be differentiated automatically."""
    mean = drive.mean((0, 1, 2))
    variance = ((drive - mean) ** 2).mean((0, 1, 2))
    normalised = scale * (drive - mean) / jnp.sqrt(variance + 1e-5) + bias
    return relu_level(normalised, others)


@pytest.mark.parametrize("with_shortcut", [False, True])
def test_value_statistics_and_every_gradient(with_shortcut):
    rng = np.random.default_rng(0)
    drive = jnp.asarray(3 * rng.normal(size=SHAPE) + 2, jnp.float32)
    scale, bias = (jnp.asarray(rng.normal(size=3), jnp.float32) for _ in range(2))
    others = operands(with_shortcut)
    gradient = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)

    def ours(*arguments):
        return normalise(relu_level, 1e-5, None, *arguments)[0]

    out, pull = jax.vjp(ours, drive, scale, bias, others)
    expected, pull_by_hand = jax.vjp(by_hand, drive, scale, bias, others)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(pull(gradient), pull_by_hand(gradient), rtol=1e-4, atol=1e-5)
    _, mean, variance = normalise(relu_level, 1e-5, None, drive, scale, bias, others)
    np.testing.assert_allclose(mean, np.mean(drive, (0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, np.var(drive, (0, 1, 2)), rtol=1e-4)


def test_the_quantiser_passes_gradients_straight_through_above_zero_alone():
    def level(drive, _):
        return levels.median_quantise(drive, 1, None)

    drive = jnp.asarray([[-1.0], [-0.5], [0.5], [1.0]])
    one, zero = jnp.ones(1), jnp.zeros(1)
    out, pull = jax.vjp(lambda b: normalise(level, 0.0, None, drive, one, b, ())[0], zero)
    # mean 0, variance 0.625: -1.265, -0.632, 0.632, 1.265 on a grid of halves
    assert out.ravel().tolist() == [0.0, 0.0, 0.5, 1.5]
    assert pull(jnp.ones_like(out))[0].tolist() == [2.0]


def test_bfloat16_is_only_the_storage():
    rng = np.random.default_rng(0)
    drive = jnp.asarray(rng.normal(size=(512, 2)) + 100, jnp.bfloat16)
    out, mean, variance = normalise(
        lambda u, _: u.astype(jnp.bfloat16), 1e-5, None, drive, jnp.ones(2), jnp.zeros(2), ()
    )
    assert out.dtype == jnp.bfloat16
    exact = np.asarray(drive, np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(variance, exact.var(0), rtol=0.01)


@pytest.mark.slow
def test_devices_share_their_statistics_and_gradients(run_python):
    printed = run_python(
        """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from jaxsnn.network.normalised import normalise

drive = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
gradient = jnp.asarray(np.random.default_rng(1).normal(size=(8, 3)), jnp.float32)
after = lambda u, _: jax.nn.relu(u)

def pulled(axis_name, drive, gradient):
    f = lambda d, s, b: normalise(after, 1e-5, axis_name, d, s, b, ())[0]
    out, pull = jax.vjp(f, drive, jnp.full(3, 2.0), jnp.full(3, 0.1))
    to_drive, *shared = pull(gradient)
    shared = [part if axis_name is None else jax.lax.psum(part, axis_name) for part in shared]
    return out, to_drive, shared

mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",))
apart = jax.shard_map(lambda *x: pulled("d", *x), mesh=mesh, in_specs=(P("d"), P("d")),
                      out_specs=(P("d"), P("d"), P()), check_vma=False)(drive, gradient)
whole = pulled(None, drive, gradient)
for one, other in zip(jax.tree.leaves(apart), jax.tree.leaves(whole), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
print("equal")
""",
        devices=4,
    )
    assert printed.strip() == "equal"
