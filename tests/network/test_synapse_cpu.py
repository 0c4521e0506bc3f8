"""The ways a CPU computes a convolution of few channels or of a large batch change no result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsnn.arch.layers import Conv
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.network import synapse

CASES = [
    # few inputs and outputs: neighbouring columns become channels
    (Conv(16, 5, padding="same"), (28, 28, 1), 2),
    (Conv(12, 5), (10, 34, 2), 3),
    (Conv(3, 3, stride=2), (17, 13, 1), 2),
    (Conv(4, 3, padding=1), (9, 15, 4), 5),
    (Conv(1, 3), (6, 25, 1), 2),  # 23 columns: a prime number of them
    # large batches, in parts
    (Conv(16, 3), (6, 6, 8), 320),
    (Conv(3, 3, padding=1), (4, 4, 5), 257),  # no part divides it
    # maps smaller than the window: one matrix product
    (Conv(7, 3, padding=1), (2, 2, 5), 4),
    (Conv(6, 3, stride=2, padding=1), (4, 3, 9), 3),
]


def operands(spec, shape, images, real):
    site = plan(Arch((spec,), input_shape=shape))[0]
    rng = np.random.default_rng(0)
    if real:
        x, kernel = rng.normal(size=(images, *shape)), rng.normal(size=site.kernel_shape)
        return site, jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    x = rng.integers(0, 256, (images, *shape))
    kernel = rng.integers(-90, 91, site.kernel_shape)  # 100 products of 255 * 90 stay below 2^24
    return site, jnp.asarray(x, jnp.uint8), jnp.asarray(kernel, jnp.int16)


def plain(x, kernel, site):
    return lax.conv_general_dilated(
        x, kernel, site.strides, site.padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("accumulator", ["float32", "int32"])
@pytest.mark.parametrize(("spec", "shape", "images"), CASES)
def test_integers_stay_exact(spec, shape, images, accumulator):
    site, x, kernel = operands(spec, shape, images, real=False)
    actual = jax.jit(lambda x, kernel: synapse.synapse(x, kernel, site, accumulator))(x, kernel)
    expected = plain(x.astype(jnp.int32), kernel.astype(jnp.int32), site)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("spec", "shape", "images"), CASES)
def test_gradients_are_those_of_the_plain_convolution(spec, shape, images):
    site, x, kernel = operands(spec, shape, images, real=True)
    out = plain(x, kernel, site)
    weight = jnp.asarray(np.random.default_rng(1).normal(size=out.shape), jnp.float32)

    def ours(x, kernel):
        return jnp.sum(synapse.synapse(x, kernel, site, "float32") * weight)

    def theirs(x, kernel):
        return jnp.sum(plain(x, kernel, site) * weight)

    pairs = zip(
        jax.jit(jax.grad(ours, (0, 1)))(x, kernel), jax.grad(theirs, (0, 1))(x, kernel), strict=True
    )
    for mine, expected in pairs:
        scale = float(jnp.abs(expected).max())
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-5 * scale)


def test_the_cases_take_the_paths_they_are_for():
    def primitives(spec, shape, images, real=True):
        site, x, kernel = operands(spec, shape, images, real)
        accumulator = "float32" if real else "int32"
        program = jax.make_jaxpr(lambda x, k: synapse.synapse(x, k, site, accumulator))(x, kernel)
        return str(program)

    if jax.default_backend() != "cpu":
        pytest.skip("these paths are a CPU's")
    assert "f32[2,28,14,32]" in primitives(*CASES[0])  # two columns of 16 channels each
    assert "scan" in primitives(*CASES[5])
    assert "scan" not in primitives(*CASES[6])
    for case in CASES:
        spec, shape, _ = case
        small = min(plan(Arch((spec,), input_shape=shape))[0].drive_shape[:2]) < 3
        assert ("conv_general_dilated" not in primitives(*case)) == small
        assert "conv_general_dilated" not in primitives(*case, real=False)


@pytest.mark.parametrize("bfloat16", [True, False])
@pytest.mark.parametrize("side", [2, 5])
def test_spikes_of_wide_layers_are_exact_whatever_is_faster(bfloat16, side, monkeypatch):
    monkeypatch.setattr(synapse, "fast_bfloat16", lambda: bfloat16)
    site = plan(Arch((Conv(64, 3, padding=1),), input_shape=(side, side, 64)))[0]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-1, 2, (3, side, side, 64)), jnp.int8)
    kernel = jnp.asarray(rng.integers(-127, 128, site.kernel_shape), jnp.int8)
    actual = synapse.synapse(x, kernel, site, "float32")
    expected = plain(x.astype(jnp.int32), kernel.astype(jnp.int32), site)
    np.testing.assert_array_equal(actual, expected)
    assert np.abs(np.asarray(expected)).max() > 127  # an int8 sum would have wrapped
