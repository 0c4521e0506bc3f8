"""Losses over time: constants of the specification, NumPy, and that padding changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.training.losses_over_time import LOSSES, cross_entropy_rate, mse_count, over_time

STEPS, BATCH, CLASSES = 7, 4, 5


def one_hot(labels, classes=10):
    return np.eye(classes, dtype=np.float32)[labels]


def cross_entropy(values, labels):
    """Mean over the steps, in float64: [T, B, C] -> [B]."""
    values = np.asarray(values, np.float64)
    share = np.exp(values) / np.exp(values).sum(-1, keepdims=True)
    return -np.log(share[:, np.arange(len(labels)), labels]).mean(0)


def squared_counts(spikes, labels):
    """An explicit loop over examples and classes."""
    steps, batch, classes = spikes.shape
    result = np.zeros(batch)
    for b in range(batch):
        for c in range(classes):
            wanted = (0.8 if c == labels[b] else 0.2) * steps
            result[b] += (float(spikes[:, b, c].sum()) - wanted) ** 2 / classes / steps
    return result


REFERENCES = {
    "ce_rate": cross_entropy,
    "ce_membrane": cross_entropy,
    "mse_count": squared_counts,
}


def example(seed=0, steps=STEPS, graded=False):
    rng = np.random.default_rng(seed)
    spikes = rng.integers(0, 2, (steps, BATCH, CLASSES)).astype(np.float32)
    if graded:
        spikes = rng.normal(size=spikes.shape).astype(np.float32)
    return spikes, rng.integers(0, CLASSES, BATCH)


def test_constants_of_the_specification():
    labels = jnp.array([3, 7])
    right = jnp.broadcast_to(one_hot(labels), (50, 2, 10))
    wrong = jnp.broadcast_to(one_hot(labels - 1), (50, 2, 10))
    for spikes, value in ((right, 1.461150), (0 * right, 2.302585), (wrong, 2.461150)):
        np.testing.assert_allclose(cross_entropy_rate(spikes, labels), [value] * 2, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_values_against_numpy(name):
    spikes, labels = example(graded=name == "ce_membrane")
    actual = LOSSES[name](jnp.asarray(spikes), jnp.asarray(labels), None)
    assert actual.shape == (BATCH,)
    np.testing.assert_allclose(actual, REFERENCES[name](spikes, labels), rtol=1e-5)


def test_counts_that_are_wanted_cost_nothing():
    spikes = np.zeros((10, 1, 3), np.float32)
    spikes[:8, 0, 1] = spikes[:2, 0, 0] = spikes[5:7, 0, 2] = 1
    assert mse_count(jnp.asarray(spikes), jnp.array([1])).item() == pytest.approx(0, abs=1e-6)
    # One spike too many of one class of three, over ten steps.
    spikes[9, 0, 1] = 1
    assert mse_count(jnp.asarray(spikes), jnp.array([1])).item() == pytest.approx(1 / 30)


@pytest.mark.parametrize("padding", [0.0, 1.0, -1e30, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", LOSSES)
def test_padding_changes_neither_values_nor_gradients(name, padding):
    """Whatever a padded step holds; every example as if it were alone with its own steps."""
    spikes, labels = example(1, graded=True)
    lengths = np.array([7, 3, 1, 5])
    mask = (np.arange(STEPS)[:, None] < lengths).astype(np.float32)
    padded = np.where(mask[..., None] > 0, spikes, np.float32(padding))

    def total(x, labels, mask):
        losses = LOSSES[name](x, labels, mask)
        return losses.sum(), losses

    both = jax.value_and_grad(total, has_aux=True)
    (_, losses), gradient = both(jnp.asarray(padded), jnp.asarray(labels), jnp.asarray(mask))
    gradient = np.asarray(gradient)
    for b, length in enumerate(lengths):
        alone = jnp.asarray(spikes[:length, b : b + 1])
        (value, _), one_gradient = both(alone, jnp.asarray(labels[b : b + 1]), None)
        np.testing.assert_allclose(losses[b], value, rtol=1e-5)
        np.testing.assert_allclose(gradient[:length, b], one_gradient[:, 0], rtol=1e-5, atol=1e-7)
        assert not gradient[length:, b].any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_mask_of_ones_is_no_mask(name):
    spikes, labels = map(jnp.asarray, example(2))
    actual = LOSSES[name](spikes, labels, jnp.ones((STEPS, BATCH)))
    np.testing.assert_allclose(actual, LOSSES[name](spikes, labels, None), rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_an_example_without_a_step_costs_nothing(name):
    spikes, labels = map(jnp.asarray, example(3))
    actual = LOSSES[name](spikes, labels, jnp.zeros((STEPS, BATCH)))
    np.testing.assert_array_equal(actual, np.zeros(BATCH))


def test_mean_over_the_steps_that_are_kept():
    values = jnp.array([[1.0, 10.0], [2.0, 20.0], [6.0, jnp.nan]])
    mask = jnp.array([[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    assert over_time(values, mask).tolist() == [3, 15]
    assert over_time(values[:2], None).tolist() == [1.5, 15]
