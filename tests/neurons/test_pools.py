"""Max pools beside loops over windows: values, gradients, and counts that rise and fall."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import UserError, neurons
from jaxsnn.neurons.max_pool import max_pool

WINDOWS = [(2, 2, 0), (3, 3, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1), (3, 2, 0), (1, 2, 0), (4, 4, 2)]


def window(x, row, column, size, stride, padding):
    """Rows and columns [row, column] of a window's entries that lie in the map of x [H, W]."""
    top, left = row * stride - padding, column * stride - padding
    return [
        (i, j)
        for i in range(top, top + size)
        for j in range(left, left + size)
        if 0 <= i < x.shape[0] and 0 <= j < x.shape[1]
    ]


def outputs(length, size, stride, padding):
    """Windows along an axis, counted one by one."""
    count, start = 0, -padding
    while start + size <= length + padding:
        count, start = count + 1, start + stride
    return count


def pooled(x, windows, gradient=None):
    """Largest of every window of [N, H, W, C] and the gradient; the first of equals takes it."""
    rows, columns = outputs(x.shape[1], *windows), outputs(x.shape[2], *windows)
    out = np.zeros((len(x), rows, columns, x.shape[3]), x.dtype)
    back = np.zeros(x.shape)
    for n, i, j, c in np.ndindex(*out.shape):
        best = None
        for place in window(x[n, :, :, c], i, j, *windows):
            if best is None or x[n, *place, c] > x[n, *best, c]:
                best = place
        out[n, i, j, c] = x[n, *best, c]
        if gradient is not None:
            back[n, *best, c] += gradient[n, i, j, c]
    return out, back


@pytest.mark.parametrize("levels", [1, 3, 1000])
@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("shape", [(6, 6), (7, 11)])
def test_values_and_gradients(shape, windows, levels):
    rng = np.random.default_rng(levels)
    x = -rng.integers(1, levels + 1, (2, *shape, 3)).astype(np.float32)  # below any zero
    size = [outputs(length, *windows) for length in shape]
    gradient = rng.normal(size=(2, *size, 3)).astype(np.float32)
    out, back = pooled(x, windows, gradient)
    got, pull = jax.vjp(lambda x: max_pool(x, *windows), jnp.asarray(x))
    np.testing.assert_array_equal(got, out)
    np.testing.assert_allclose(pull(jnp.asarray(gradient))[0], back, rtol=0, atol=1e-5)
    for dtype in (jnp.int8, jnp.int16) if levels < 100 else (jnp.int16,):
        whole = max_pool(jnp.asarray(x, dtype), *windows)
        assert whole.dtype == dtype
        np.testing.assert_array_equal(whole, out.astype(int))


def walks(rng, steps, shape, most):
    """Spikes [T, *shape] of -most .. most whose sums stay above 0."""
    spikes, sums = np.zeros((steps, *shape), np.int8), np.zeros(shape, int)
    for number in range(steps):
        spikes[number] = np.maximum(rng.integers(-most, most + 1, shape), -sums)
        sums += spikes[number]
    return spikes


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("minima", [False, True])
@pytest.mark.parametrize("windows", [(2, 2, 0), (3, 2, 1)])
def test_what_arrives_is_the_largest_count(windows, minima, most):
    rng = np.random.default_rng(0)
    spikes = walks(rng, 30, (2, 5, 5, 3), most)
    neuron = neurons.running_maximum(*windows, -most, most, minima)
    leaves = {"sign": jnp.array([1, -1, -1])} if minima else {}
    state = neuron.init(leaves, spikes.shape[1:], None)
    _, out = jax.lax.scan(lambda s, x: neuron.step(leaves, s, x), state, jnp.asarray(spikes))
    assert out.dtype == jnp.int8
    sign = np.array([1, -1, -1] if minima else [1, 1, 1])
    counts = np.zeros(spikes.shape[1:], int)
    arrived = np.zeros(out.shape[1:], int)
    for received, emitted in zip(spikes, np.asarray(out, int), strict=True):
        counts += received
        arrived += emitted
        expected, _ = pooled(counts * sign, windows)
        np.testing.assert_array_equal(arrived, expected * sign)
        assert np.abs(emitted).max() <= np.abs(received).max()
    assert (out < 0).any()
    settled = neuron.settled.step(leaves, (), jnp.asarray(counts)[None])[1]
    np.testing.assert_array_equal(settled[0], arrived)


def test_what_no_pool_counts():
    with pytest.raises(UserError, match="lowest=1, highest=2"):
        neurons.running_maximum(2, 2, 0, 1, 2)
    neuron = neurons.running_maximum(2, 2)
    state = neuron.init({}, (1, 2, 2, 1), None)
    with pytest.raises(UserError, match="counts spikes, but its inputs are float32"):
        neuron.step({}, state, jnp.ones((1, 2, 2, 1)))
