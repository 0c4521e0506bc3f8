"""Surrogates: the hard step forward, each derivative against its formula in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.neurons.surrogate import SURROGATES, spike, surrogate

POINTS = np.array([-40.0, -2.0, -1.0, -0.5, -0.04, 0.0, 0.04, 0.5, 1.0, 2.0, 40.0])


def fast_sigmoid(x, a):
    return (1 + a * np.abs(x)) ** -2.0


def logistic(x, a):
    # The derivative of 1 / (1 + exp(-a x)), by the hyperbolic cosine.
    return a / (2 * np.cosh(np.clip(a * x / 2, -300, 300))) ** 2


FORMULAS = {
    "fast_sigmoid": (25, fast_sigmoid),
    "arctan": (2, lambda x, a: 2 * a / (4 + (np.pi * a * x) ** 2)),
    "sigmoid": (25, logistic),
    "triangular": (1, lambda x, a: np.where(np.abs(x) < 1 / a, 1 - a * np.abs(x), 0)),
    "straight_through": (1, lambda x, a: np.ones_like(x)),
    "superspike": (100, fast_sigmoid),
}


def derivative(x, name, slope=None):
    return jax.grad(lambda x: jnp.sum(spike(x, name, slope)))(jnp.asarray(x, jnp.float32))


def test_every_surrogate_is_tested():
    assert FORMULAS.keys() == SURROGATES.keys()


@pytest.mark.parametrize("slope", [None, 0.5, 1, 10.0])
@pytest.mark.parametrize("name", FORMULAS)
def test_derivative_is_its_formula(name, slope):
    usual, formula = FORMULAS[name]
    expected = formula(POINTS, usual if slope is None else slope)
    np.testing.assert_allclose(derivative(POINTS, name, slope), expected, rtol=2e-6, atol=1e-10)


@pytest.mark.parametrize("name", FORMULAS)
def test_forward_is_the_strict_step(name):
    tiny = float(np.finfo(np.float32).tiny)
    x = jnp.array([-jnp.inf, -1.0, -tiny, -0.0, 0.0, tiny, 1.0, jnp.inf, jnp.nan])
    assert spike(x, name).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0]
    # As a difference from a threshold: the neighbours of 1 in float32.
    near = np.nextafter(np.float32(1), np.array([0, 1, 2], np.float32))
    assert spike(jnp.asarray(near) - 1, name).tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", FORMULAS)
def test_infinite_potentials_have_a_finite_derivative(name):
    actual = derivative([-np.inf, np.inf], name)
    assert actual.tolist() == ([1, 1] if name == "straight_through" else [0, 0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_spikes_have_shape_and_dtype_of_the_potential(dtype):
    x = jnp.zeros((2, 3), dtype)
    assert spike(x).shape == (2, 3)
    assert spike(x).dtype == dtype
    assert jax.grad(lambda x: spike(x).sum().astype(jnp.float32))(x).dtype == dtype


def test_derivative_by_the_specification():
    """Slope 25 at the potentials 1, 1.04 and 0 of a threshold of 1: 1, 1/4 and 1/676."""
    actual = derivative(np.array([1.0, 1.04, 0.0]) - 1, "fast_sigmoid", 25)
    np.testing.assert_allclose(actual, [1, 0.25, 1 / 676], rtol=1e-5)


def test_gradient_is_multiplied_in_and_forward_mode_agrees():
    x, factor = jnp.array([0.3, -0.2, 0.0]), jnp.array([2.0, -3.0, 0.5])
    expected = np.asarray(factor) * fast_sigmoid(np.asarray(x, np.float64), 25)
    got = jax.grad(lambda x: jnp.sum(factor * spike(x)))(x)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    tangent = jax.jvp(spike, (x,), (factor,))[1]
    np.testing.assert_allclose(tangent, expected, rtol=1e-6)


def test_default_is_the_fast_sigmoid_of_slope_25():
    assert derivative([0.04], "fast_sigmoid").tolist() == [0.25]
    assert jax.grad(spike)(jnp.float32(0.04)).item() == pytest.approx(0.25)


def test_an_unknown_surrogate_is_refused():
    with pytest.raises(ValueError, match=r"'tanh' is unknown; choose one of fast_sigmoid, arctan"):
        surrogate("tanh")
    with pytest.raises(ValueError, match="'' is unknown"):
        spike(jnp.zeros(1), "")


@pytest.mark.parametrize("slope", [0, -1.0, float("nan")])
def test_a_slope_must_be_positive(slope):
    with pytest.raises(ValueError, match=rf"slope={slope}: .* above 0"):
        spike(jnp.zeros(1), "arctan", slope)
