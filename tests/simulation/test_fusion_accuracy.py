"""Accuracy of two heads and of their fusion, and how sure the fusion is, over several batches."""

import math

import numpy as np
import pytest

from jaxsnn.simulation.fusion.accuracy import accuracies, judged


def batch(seed, images, steps=12, classes=4):
    """Cumulative counts of both heads, and labels."""
    rng = np.random.default_rng(seed)
    spikes = rng.random((2, steps, images, classes)) < rng.random((2, 1, images, classes))
    early, final = spikes.cumsum(1, dtype=np.int32)
    return early, final, rng.integers(0, classes, images)


def posterior(m, total, alpha, steps):
    """Mean and variance for one neuron in the published order."""
    rate = m / steps + 1e-16
    a, b = alpha + total, alpha * (1 / rate - 1) + steps - total
    return a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))


def test_accuracies_by_hand():
    """Two steps, two images, two classes; the second batch is of one image."""
    early = np.array([[[0, 1], [1, 0]], [[0, 2], [2, 0]]])
    final = np.array([[[0, 0], [0, 0]], [[1, 0], [1, 0]]])
    batches = [(early, final, np.array([1, 1])), (early[:, :1], final[:, :1], np.array([0]))]
    actual = accuracies(batches, {"none": [0.0, 0.0], "much": [50.0, 50.0]})
    # final: [0, 0] and 0 at both steps (ties take the lowest); early: [1, 0] and 1.
    np.testing.assert_allclose(actual["final"], [1 / 3, 1 / 3])
    np.testing.assert_allclose(actual["early"], [1 / 3, 1 / 3])
    np.testing.assert_allclose(actual["none"], actual["final"])
    np.testing.assert_allclose(actual["much"], actual["early"])
    assert actual["final"].dtype == np.float64


def test_batches_weigh_as_much_as_they_have_images():
    parts = [batch(seed, images) for seed, images in ((0, 7), (1, 3), (2, 1))]
    curves = {"rising": np.arange(12.0) / 3, "falling": 9 - np.arange(12.0) / 2}
    actual = accuracies(iter(parts), curves)
    assert list(actual) == ["final", "early", "rising", "falling"]
    for name, alpha in curves.items():
        right = np.zeros(12)
        for early, final, labels in parts:
            for t, b in np.ndindex(early.shape[:2]):
                pairs = zip(early[t, b].tolist(), final[t, b].tolist(), strict=True)
                scores = [posterior(m, total, alpha[t], t + 1)[0] for m, total in pairs]
                right[t] += np.argmax(np.round(scores, 9)) == labels[b]
        np.testing.assert_allclose(actual[name], right / 11, rtol=1e-12)


def test_alpha_of_zero_is_the_final_classifier_alone():
    parts = [batch(seed, 20) for seed in (3, 4)]
    actual = accuracies(parts, {"grid": np.zeros(12)})
    assert np.array_equal(actual["grid"], actual["final"])


def test_judged_is_the_gap_between_the_best_two():
    parts, alpha = [batch(5, 4), batch(6, 2)], np.linspace(0.5, 6, 12)
    actual = judged(parts, alpha)
    assert actual.scores.shape == actual.correct.shape == (12, 6)
    assert actual.correct.dtype == bool
    early, final = (np.concatenate([part[i] for part in parts], axis=1) for i in (0, 1))
    labels = np.concatenate([part[2] for part in parts])
    for t, b in np.ndindex(12, 6):
        pairs = zip(early[t, b].tolist(), final[t, b].tolist(), strict=True)
        both = np.array([posterior(m, total, alpha[t], t + 1) for m, total in pairs])
        order = np.argsort(-np.round(both[:, 0], 9), kind="stable")
        first, second = both[order[:2]]
        ahead, spread = first[0] - second[0], math.sqrt(first[1] + second[1])
        if spread:
            expected = 0.5 * (1 + math.erf(ahead / spread / math.sqrt(2)))
        else:  # every step a spike of both heads: nothing is left open
            expected = 1 if ahead else 0.5
        assert actual.scores[t, b] == pytest.approx(expected, abs=1e-5)
        assert actual.correct[t, b] == (order[0] == labels[b])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"shape \(11,\) for a simulation of 12 steps"):
        accuracies([batch(0, 3)], {"grid": np.ones(11)})
    with pytest.raises(ValueError, match=r"-1\.0 at step 1 of 12"):
        accuracies([batch(0, 3)], {"grid": -np.ones(12)})
    with pytest.raises(ValueError, match="no spike trains"):
        accuracies([], {})
