"""Quantisers: levels by hand and by counting boundaries in float64, gradients, ternary weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref

from jaxsnn.network import weight_quantisers
from jaxsnn.neurons.levels import median_level, median_quantise, straight_through


def test_check_1_by_hand():
    x = jnp.array([-1, 0.24, 0.25, 0.74, 0.75, 1.75, 1.9, 5])
    assert median_quantise(x, 1, 2).tolist() == [0, 0, 0.5, 0.5, 1, 2, 2, 2]
    assert median_quantise(jnp.array([0.5, 1.5, 2.5, 7.2]), 0).tolist() == [1, 2, 3, 7]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("bound", [None, 1, 2])
@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_every_boundary_and_the_floats_around_it(k, bound, jit):
    boundaries = ((np.arange(1, 300) - 0.5) * 2.0**-k).astype(np.float32)
    x = np.concatenate(
        [
            boundaries,
            np.nextafter(boundaries, np.float32(0)),
            np.nextafter(boundaries, np.float32(np.inf)),
            -boundaries,
            np.float32([0, -0.0, 1e-6, 1e6]),
        ]
    )
    levels = None if bound is None else 2**k * bound
    function = lambda x: median_level(x, k, levels)  # noqa: E731
    actual = (jax.jit(function) if jit else function)(jnp.asarray(x))
    small = x < 1e5  # counting a million boundaries one by one is slow
    np.testing.assert_array_equal(actual[small], ref.median_level(x[small], k, bound))
    assert actual[~small].tolist() == [1e6 * 2**k if bound is None else levels]
    assert actual.dtype == jnp.float32


def test_the_naive_rounding_fails_just_below_a_boundary():
    below = np.nextafter(np.float32(0.5), np.float32(0))
    assert np.floor(below + np.float32(0.5)) == 1
    assert median_level(jnp.float32(below), 0) == 0


def test_random_values_against_the_counted_boundaries():
    x = np.random.default_rng(0).normal(size=5000).astype(np.float32) * 3
    for k, bound in [(0, 1), (1, 2), (2, None), (3, 2)]:
        expected = ref.median_level(x, k, bound) * 2.0**-k
        np.testing.assert_array_equal(median_quantise(jnp.asarray(x), k, bound), expected)


@pytest.mark.parametrize("k", [0, 1, 3])
def test_check_2_gradient_is_one_above_zero_up_to_the_bound(k):
    x = jnp.array([-3.0, -1e-6, 0.0, 1e-6, 0.1, 0.25, 1.0, 1.999, 2.0, 2.0001, 9.0])
    bounded = jax.grad(lambda x: median_quantise(x, k, 2).sum())(x)
    assert bounded.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0]
    unbounded = jax.grad(lambda x: median_quantise(x, k).sum())(x)
    assert unbounded.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("jit", [False, True])
def test_straight_through_has_one_value_and_the_others_gradient(jit):
    rng = np.random.default_rng(1)
    # Magnitudes far apart: hard + soft - soft in another order would lose the hard value.
    hard = jnp.asarray(rng.normal(size=1000), jnp.float32) * 1e-3
    soft = jnp.asarray(rng.normal(size=1000), jnp.float32) * 1e6
    function = jax.jit(straight_through) if jit else straight_through
    assert function(hard, soft).tobytes() == hard.tobytes()
    to_hard, to_soft = jax.grad(lambda h, s: (3 * function(h, s)).sum(), (0, 1))(hard, soft)
    assert not to_hard.any()
    assert (to_soft == 3).all()


def test_check_3_ternary():
    assert weight_quantisers.ternary_codes(jnp.array([1, -1, 0.2, -0.2])).tolist() == [1, -1, 0, 0]
    # Mean 0.5, limit 0.35, inclusive on both sides? 0.7 * 0.5 in float32 decides: far from it here.
    assert weight_quantisers.ternary_codes(jnp.array([1.5, -0.5, 0.5, -1.5])).tolist() == [
        1,
        0,
        0,
        -1,
    ]
    assert weight_quantisers.ternary_codes(jnp.ones(4)).tolist() == [1, 1, 1, 1]
    master = np.random.default_rng(2).normal(size=(3, 3, 5, 7)).astype(np.float32)
    codes = weight_quantisers.ternary().quantise(jnp.asarray(master), {})
    np.testing.assert_array_equal(codes, ref.ternary(master))
    assert set(np.unique(codes)) == {-1, 0, 1}


def test_one_magnitude_serves_the_whole_tensor():
    # Channel means 1 and 0.1: a limit per channel would keep the second channel's weights.
    kernel = jnp.array([[1.0, 0.1], [-1.0, 0.1]])
    assert weight_quantisers.ternary_codes(kernel).tolist() == [[1, 0], [-1, 0]]


def test_weight_quantisers_have_identity_gradients_and_codes():
    kernel = jnp.array([0.9, -0.9, 0.05, -3.0])
    for quantiser in (weight_quantisers.ternary(), weight_quantisers.full_precision()):
        gradient = jax.grad(lambda w, q=quantiser: (q.quantise(w, {}) * jnp.arange(4.0)).sum())(
            kernel
        )
        assert gradient.tolist() == [0, 1, 2, 3]
    codes, unit = weight_quantisers.ternary().codes(kernel, {})
    np.testing.assert_array_equal(codes * unit, weight_quantisers.ternary().quantise(kernel, {}))
    assert weight_quantisers.full_precision().quantise(kernel, {}).tolist() == kernel.tolist()
    assert weight_quantisers.full_precision().codes is None
    assert weight_quantisers.ternary() is weight_quantisers.ternary()
