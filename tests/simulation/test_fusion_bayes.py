"""Fusion: numbers of the specification, exact fractions, the published order of operations."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.simulation.fusion import bayes
from jaxsnn.simulation.fusion.bayes import (
    Posterior,
    fused,
    posterior,
    posterior_mean,
    predictions,
)


def example(seed=0, steps=40, images=30, classes=5):
    """Cumulative counts of two classifiers whose neurons spike at random with their own rates."""
    rng = np.random.default_rng(seed)
    rates = rng.beta(0.5, 1.5, (2, images, classes))
    rates[rng.random(rates.shape) < 0.25] = 0
    spikes = rng.random((steps, 2, images, classes)) < rates
    return np.moveaxis(np.cumsum(spikes, axis=0, dtype=np.int32), 1, 0)


def curve(steps, seed=0):
    """An alpha for every step: whole numbers, some of them zero."""
    return np.random.default_rng(seed).integers(0, 21, steps).astype(float)


def published(early, final, alpha, steps):
    """Mean and variance of one neuron in the published order, in Python's float64."""
    rate = early / steps + 1e-16
    beta = alpha * (1 / rate - 1)
    a, b = alpha + final, beta + (steps - final)
    return a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))


def published_scores(early, final, alpha):
    """All means by an explicit loop."""
    result = np.zeros(early.shape)
    for t, b, c in np.ndindex(*early.shape):
        result[t, b, c] = published(int(early[t, b, c]), int(final[t, b, c]), alpha[t], t + 1)[0]
    return result


def exact(early, final, alpha, steps):
    """The mean as a fraction."""
    rate = Fraction(int(early), steps) if early else Fraction(1, 10**16)
    if alpha == 0:
        return Fraction(int(final), steps)
    return (Fraction(alpha) + int(final)) / (Fraction(alpha) / rate + steps)


@pytest.mark.parametrize(
    ("early", "final", "alpha", "expected"),
    [(5, 3, 4.0, 7 / 18), (2, 3, 4.0, 0.233333), (5, 3, 0.0, 0.3), (0, 3, 0.0, 0.3)],
)
def test_means_of_the_specification(early, final, alpha, expected):
    assert float(posterior_mean(early, final, alpha, 10)) == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("early", [1, 5, 7, 10])
def test_a_large_alpha_gives_the_rate_of_the_early_neuron(early):
    assert float(posterior_mean(early, 3, 1e9, 10)) == pytest.approx(early / 10, rel=1e-6)


def test_the_mean_lies_between_both_rates():
    """w E + (1 - w) M / N with w = (alpha / E) / (alpha / E + N), in float64."""
    rng = np.random.default_rng(1)
    steps = rng.integers(2, 3000, 500)
    early, final = rng.integers(1, steps), rng.integers(0, steps + 1)
    alpha = rng.uniform(0, 100, 500)
    rate = early / steps
    weight = alpha / rate / (alpha / rate + steps)
    with jax.enable_x64(True):
        actual = np.asarray(posterior_mean(early, final, alpha, steps))
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, weight * rate + (1 - weight) * final / steps, atol=1e-12)


def test_alpha_zero_is_the_final_classifier_alone():
    early, final = example(steps=300, classes=10)
    zero = np.zeros(300)
    np.testing.assert_array_equal(predictions(early, final, zero), final.argmax(-1))
    steps = np.arange(1, 301, dtype=np.float32)[:, None, None]
    scores = fused(early, final, zero)
    np.testing.assert_array_max_ulp(np.asarray(scores), final.astype(np.float32) / steps, maxulp=1)


def test_a_silent_class_is_vetoed_and_silent_classes_are_ordered_by_the_evidence():
    scores = np.asarray(posterior_mean(np.zeros(11, int), np.arange(11), 5.0, 10))
    assert scores.dtype == np.float32
    assert np.all(scores < 1e-15)
    assert np.all(np.diff(scores) > 0)
    spoken = float(posterior_mean(1, 0, 5.0, 10))
    assert spoken > scores.max()


@pytest.mark.parametrize(
    ("early", "final", "alpha", "steps"),
    [(5, 3, 4.0, 10), (2, 3, 4.0, 10), (30, 80, 17.5, 100), (900, 20, 1.0, 1000), (1, 2, 0.5, 8)],
)
def test_mean_and_variance_of_samples(early, final, alpha, steps):
    beta = alpha * (steps / early - 1)
    drawn = np.random.default_rng(2).beta(alpha + final, beta + steps - final, 100_000)
    actual = posterior(early, final, alpha, steps)
    assert float(actual.mean) == pytest.approx(drawn.mean(), rel=0.01)
    assert float(actual.variance) == pytest.approx(drawn.var(), rel=0.02)


def test_mean_and_variance_against_the_published_order():
    """Silent and saturated neurons included; nothing overflows in float32 or becomes negative."""
    rng = np.random.default_rng(3)
    steps = rng.integers(1, 3001, 2000)
    early, final = (np.rint(rng.choice([0, 1, rng.random()], 2000) * steps) for _ in range(2))
    early = np.where(rng.random(2000) < 0.5, early, rng.integers(0, steps + 1))
    final = np.where(rng.random(2000) < 0.5, final, rng.integers(0, steps + 1))
    alpha = rng.choice([1.0, 0.25, 100.0, 7.3, 1e3], 2000)
    actual = posterior(early, final, alpha.astype(np.float32), steps)
    assert actual.mean.dtype == actual.variance.dtype == jnp.float32
    for value, index in ((actual.mean, 0), (actual.variance, 1)):
        expected = [
            published(*(float(x) for x in one))[index]
            for one in zip(early, final, alpha.astype(np.float32), steps, strict=True)
        ]
        np.testing.assert_allclose(value, expected, rtol=2e-6, atol=1e-36)
        assert np.all(np.asarray(value) >= 0)


@pytest.mark.parametrize("seed", range(3))
def test_predictions_are_those_of_the_published_order_but_for_exact_ties(seed):
    """Exact fractions tell the ties, where rounding chooses among the best; all else is equal."""
    early, final = example(seed)
    alpha = curve(len(early), seed)
    actual = np.asarray(predictions(early, final, alpha))
    assert actual.dtype == np.int32
    reference = published_scores(early, final, alpha).argmax(-1)
    ties = 0
    for t, b in np.ndindex(*actual.shape):
        scores = [
            exact(m, k, alpha[t], t + 1) for m, k in zip(early[t, b], final[t, b], strict=True)
        ]
        best = [c for c, score in enumerate(scores) if score == max(scores)]
        ties += len(best) > 1
        assert actual[t, b] in best
        assert len(best) > 1 or actual[t, b] == reference[t, b]
    assert 0 < ties < actual.size / 2


def test_predictions_of_long_simulations_are_those_of_the_published_order():
    early, final = example(seed=4, steps=400, images=12)
    alpha = np.random.default_rng(5).uniform(0.01, 60, 400)
    scores = published_scores(early, final, alpha)
    ordered = np.sort(scores, axis=-1)
    distinct = ordered[..., -1] - ordered[..., -2] > 1e-6 * ordered[..., -1]
    same = np.asarray(predictions(early, final, alpha)) == scores.argmax(-1)
    assert np.mean(distinct) > 0.8
    assert np.all(same[distinct])


def test_the_lowest_class_wins_equal_counts():
    early = np.array([[[0, 1, 1, 0]]] * 2)
    final = np.array([[[0, 0, 0, 0]], [[0, 1, 1, 1]]])
    assert predictions(early, final, [3.0, 3.0]).tolist() == [[1], [1]]
    assert predictions(early, final, [0.0, 0.0]).tolist() == [[0], [1]]
    assert predictions(0 * early, final, [3.0, 3.0]).tolist() == [[0], [1]]


def test_counts_do_not_overflow_the_spikes_type():
    actual = bayes.counts(np.ones((300, 1, 1), np.uint8))
    assert actual.dtype == jnp.int32
    assert actual.ravel().tolist() == list(range(1, 301))


def test_all_of_it_can_be_compiled():
    early, final = example(seed=9)
    alpha = jnp.asarray(curve(40))
    np.testing.assert_array_equal(
        jax.jit(predictions)(early, final, alpha), predictions(early, final, alpha)
    )
    compiled = jax.jit(lambda *argument: posterior(*argument).variance)(
        early[-1], final[-1], 3.0, 40
    )
    np.testing.assert_allclose(compiled, posterior(early[-1], final[-1], 3.0, 40).variance, 1e-6)


def test_certainty_has_no_variance():
    actual = Posterior(jnp.array([4.0, 7.0]), jnp.array([0.0, 0.0]))
    assert actual.mean.tolist() == [1, 1]
    assert actual.variance.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("alpha", "words"),
    [
        (np.ones(4), r"\(4,\).*5 steps"),
        (np.ones((5, 1)), r"\(5, 1\).*5 steps"),
        ([1, 1, -0.5, 1, 1], r"-0.5 at step 3 of 5"),
        ([1, np.nan, 1, 1, 1], r"nan at step 2 of 5"),
        ([1, 1, 1, 1, np.inf], r"inf at step 5 of 5"),
    ],
)
def test_curves_that_do_not_fit_are_refused(alpha, words):
    with pytest.raises(ValueError, match=words):
        bayes.check_curve(alpha, 5)


def test_a_curve_that_fits_is_returned():
    actual = bayes.check_curve([0, 1, 2.5], 3)
    assert actual.dtype == np.float64
    assert actual.tolist() == [0, 1, 2.5]


def test_counts_that_cannot_be_are_refused():
    """One spike a step at most; the arrays come back as they are."""
    early, final = example(steps=8)
    assert bayes.check_counts(early, final)[1] is final
    late = np.zeros((3, 1, 1), np.int32)
    late[1] = 3  # at step 2, although step 3 could have as many
    for counts, words in (
        (late, "run from 0 to 3 in 3 steps"),
        (late - 1, "run from -1"),
        (late / 4, "dtype float64"),
        (late[0], r"\(1, 1\).*\(3, 1, 1\)"),
        (late[:, :0], r"\(3, 0, 1\)"),
    ):
        with pytest.raises(ValueError, match=words):
            bayes.check_counts(counts, 0 * late)


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\).*4 steps"):
        fused(np.zeros((4, 2, 3)), np.zeros((4, 2, 3)), np.ones(3))
    with pytest.raises(ValueError, match=r"\(4, 2, 3\).*\(4, 2, 2\)"):
        fused(np.zeros((4, 2, 3)), np.zeros((4, 2, 2)), np.ones(4))
