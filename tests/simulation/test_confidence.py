"""Confidence, calibration and stopping against slow loops and examples by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.simulation.fusion.bayes import Posterior, posterior
from jaxsnn.simulation.fusion.confidence import (
    Calibration,
    choose_threshold,
    expected_calibration_error,
    fit,
    gap,
    stopped_accuracy,
    stopping,
)


def normal(z):
    """Distribution function of the standard normal."""
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def slow_gap(a, b):
    """One image in Python's floats."""
    each = [
        (x / (x + y), x * y / ((x + y) ** 2 * (x + y + 1)), c)
        for c, (x, y) in enumerate(zip(a.tolist(), b.tolist(), strict=True))
    ]
    first, second = sorted(each, key=lambda one: (-one[0], one[2]))[:2]
    return normal((first[0] - second[0]) / math.sqrt(first[1] + second[1]))


def slow_isotonic(scores, correct):
    """Pool adjacent violators; the fitted value of every distinct score, ascending."""
    blocks = []
    for score in sorted(set(scores)):
        right = [c for s, c in zip(scores, correct, strict=True) if s == score]
        blocks.append([sum(right), len(right), [score]])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] > blocks[-1][0] * blocks[-2][1]:
            last = blocks.pop()
            blocks[-1] = [x + y for x, y in zip(blocks[-1], last, strict=True)]
    return {score: right / number for right, number, held in blocks for score in held}


def slow_error(probability, correct, bins):
    """Bin by bin."""
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        held = [i for i, p in enumerate(probability) if low < p <= high or (b == 0 and p == 0)]
        if held:
            accuracy = sum(correct[i] for i in held) / len(held)
            confidence = sum(probability[i] for i in held) / len(held)
            total += len(held) / len(probability) * abs(accuracy - confidence)
    return total


def slow_stopping(confidences, threshold, earliest):
    """Image by image."""
    result = []
    for n in range(confidences.shape[1]):
        for t in range(earliest, len(confidences) + 1):
            if confidences[t - 1, n] >= threshold:
                break
        result.append(t)
    return result


def course(seed=0, steps=20, images=50):
    """Confidences that mostly rise, and whether each image is right at every step."""
    rng = np.random.default_rng(seed)
    rise = np.linspace(0.4, 0.9, steps)[:, None]
    confidences = np.clip(rise + 0.15 * rng.normal(size=(steps, images)), 0, 1)
    return confidences, rng.random((steps, images)) < np.linspace(0.3, 1, steps)[:, None]


def test_gap_against_a_loop():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.5, 40, (2, 60, 7)).round(2)
    actual = gap(Posterior(jnp.asarray(a), jnp.asarray(b)))
    assert actual.shape == (60,)
    assert actual.dtype == jnp.float32
    expected = [slow_gap(*one) for one in zip(a, b, strict=True)]
    np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_gap_is_about_the_probability_that_the_first_exceeds_the_second():
    """Against samples of both Beta distributions, which the normal approximates."""
    rng = np.random.default_rng(1)
    for first, second in (((30, 20), (25, 25)), ((60, 40), (59, 41)), ((14, 6), (6, 14))):
        drawn = rng.beta(*first, 100_000) > rng.beta(*second, 100_000)
        both = np.array([second, first], float).T
        assert float(gap(Posterior(*map(jnp.asarray, both)))) == pytest.approx(
            drawn.mean(), abs=0.01
        )


def test_gap_of_equal_and_of_certain_neurons():
    even = Posterior(jnp.array([3.0, 3.0, 1.0]), jnp.array([5.0, 5.0, 9.0]))
    assert float(gap(even)) == 0.5
    certain = Posterior(jnp.array([5.0, 0.0]), jnp.array([0.0, 5.0]))
    assert float(gap(certain)) == 1
    silent = posterior(jnp.zeros((2, 3), int), jnp.zeros((2, 3), int), 0.0, 4)
    assert gap(silent).tolist() == [0.5, 0.5]


def test_gap_of_silent_early_neurons():
    """Means of about 1e-16: a Beta distribution is then a gamma one, z = (5 - 4) / sqrt(5 + 4)."""
    silent = posterior(jnp.array([0, 0, 0]), jnp.array([2, 1, 0]), 3.0, 4)
    assert float(gap(silent)) == pytest.approx(normal(1 / 3), abs=1e-6)


def test_gap_grows_with_the_evidence_and_compiles():
    """The same rates after ever more steps, with leading axes [T, B]."""
    steps = np.array([10, 100, 1000])[:, None, None]
    counts = (steps * np.array([[0.2, 0.4, 0.3]])).astype(int)
    actual = jax.jit(lambda m, k: gap(posterior(m, k, 2.0, steps)))(counts, counts)
    assert actual.shape == (3, 1)
    assert np.all(np.diff(actual[:, 0]) > 0)


def test_gap_needs_two_classes():
    with pytest.raises(ValueError, match=r"\(4, 1\).*two classes"):
        gap(Posterior(jnp.ones((4, 1)), jnp.ones((4, 1))))


@pytest.mark.parametrize("seed", range(3))
def test_calibration_is_isotonic_regression(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 40, 300) / 64  # with repetitions, exact in float32
    correct = rng.random(300) < scores
    expected = slow_isotonic(scores.tolist(), correct.tolist())
    calibration = fit(scores, correct)
    for part in calibration:
        assert part.dtype == np.float32
        assert np.all(np.diff(part) >= 0)
    actual = calibration.probability(np.array(list(expected)))
    np.testing.assert_allclose(actual, list(expected.values()), atol=1e-6)
    everywhere = np.asarray(calibration.probability(np.linspace(-1, 2, 500)))
    assert np.all(np.diff(everywhere) >= 0)
    assert everywhere[0] == calibration.probabilities[0] >= 0
    assert everywhere[-1] == calibration.probabilities[-1] <= 1


def test_calibration_in_compiled_functions_and_files(tmp_path):
    calibration = fit([0.5, 0.75, 0.875, 1.0], [False, True, False, True])
    np.savez(tmp_path / "calibration.npz", **calibration._asdict())
    with np.load(tmp_path / "calibration.npz") as arrays:
        again = Calibration(**arrays)
    scores = jnp.array([[0.0, 0.5, 0.625], [0.8, 0.9375, 3.0]])
    actual = jax.jit(Calibration.probability)(again, scores)
    np.testing.assert_allclose(actual, [[0, 0, 0.25], [0.5, 0.75, 1]], atol=1e-6)
    np.testing.assert_allclose(calibration.probability(scores), actual, atol=1e-7)


def test_calibration_on_one_score():
    calibration = fit([0.5, 0.5, 0.5, 0.5], [True, False, True, True])
    assert calibration.probability(np.array([0.0, 0.5, 1.0, 9.0])).tolist() == [0.75] * 4


def test_calibration_lowers_the_error_on_other_data():
    rng = np.random.default_rng(4)
    scores = rng.random((2, 2000))
    correct = rng.random((2, 2000)) < scores**3  # overconfident
    calibrated = np.asarray(fit(scores[0], correct[0]).probability(scores[1]))
    assert expected_calibration_error(scores[1], correct[1]) > 0.2
    assert expected_calibration_error(calibrated, correct[1]) < 0.05


def test_calibration_error_against_a_loop():
    rng = np.random.default_rng(5)
    probability = np.concatenate([rng.random(200), [0, 1, 0.25, 0.5]])
    correct = rng.random(204) < 0.6
    for bins in (1, 4, 15):
        expected = slow_error(probability.tolist(), correct.tolist(), bins)
        actual = expected_calibration_error(probability, correct, bins)
        assert actual == pytest.approx(expected, abs=1e-12)
        assert expected > 0


def test_calibration_error_by_hand():
    """Two bins: 0.5 belongs to the lower; |1 - 1.4| + |2 - 1.6| of five."""
    probability, correct = [0.4, 0.5, 0.5, 0.7, 0.9], [1, 0, 0, 1, 1]
    assert expected_calibration_error(probability, correct, 2) == pytest.approx(0.8 / 5)
    assert expected_calibration_error([1.0, 0.0], [1, 0]) == 0


def test_stopping_against_a_loop():
    confidences, _ = course()
    for threshold in (0.0, 0.5, 0.8, 0.95, 1.5):
        for earliest in (1, 7, 20):
            actual = stopping(confidences, threshold, earliest)
            assert actual.tolist() == slow_stopping(confidences, threshold, earliest)
    assert stopping(confidences, 0.0).tolist() == [1] * 50
    assert stopping(confidences, 1.5).tolist() == [20] * 50


def test_stopping_reaches_a_threshold_by_being_equal():
    """Also in float32, where 0.9 is another number than in float64."""
    for dtype in (np.float32, np.float64):
        confidences = np.array([[0.1], [0.9], [0.95]], dtype)
        assert stopping(confidences, 0.9).tolist() == [2]
        assert stopping(confidences, np.float64(0.9)).tolist() == [2]


def test_the_smallest_threshold_that_keeps_the_accuracy():
    confidences, correct = course(1)
    thresholds = np.linspace(0, 1, 41)
    for target in (0.4, 0.7, 0.8):
        for earliest in (1, 5):
            accuracies = {}
            for threshold in thresholds.tolist():
                when = slow_stopping(confidences, threshold, earliest)
                right = [correct[t - 1, n] for n, t in enumerate(when)]
                accuracies[threshold] = sum(right) / len(right)
            expected = min(x for x, accuracy in accuracies.items() if accuracy >= target)
            assert expected > 0
            actual = choose_threshold(confidences, correct, target, thresholds[::-1], earliest)
            assert actual == expected
            stops = stopping(confidences, actual, earliest)
            assert stopped_accuracy(correct, stops) == pytest.approx(accuracies[actual])


def test_no_threshold_may_be_good_enough():
    confidences, correct = course(2)
    assert choose_threshold(confidences, correct & (correct.cumsum(0) < 0), 0.1, [0.5, 1]) is None
    assert choose_threshold(confidences, correct, 0.5, []) is None


def test_bad_values_are_refused():
    for wrong, words in (
        (([], []), r"\(0,\)"),
        (([0.5, np.nan], [1, 0]), "1 of 2 are not finite"),
        (([0.5, 0.6], [1]), r"\(2,\).*\(1,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            fit(*wrong)
        with pytest.raises(ValueError, match=words):
            expected_calibration_error(*wrong)
    with pytest.raises(ValueError, match=r"1\.5: must lie within"):
        expected_calibration_error([0.5, 1.5], [1, 0])
    with pytest.raises(ValueError, match="bins=0"):
        expected_calibration_error([0.5], [1], 0)
    confidences, correct = course()
    for earliest in (0, 21):
        with pytest.raises(ValueError, match=f"earliest={earliest}.*1 to 20"):
            stopping(confidences, 0.5, earliest)
    with pytest.raises(ValueError, match=r"\(20,\)"):
        stopping(confidences[:, 0], 0.5)
    with pytest.raises(ValueError, match="1 of 1000 not finite"):
        stopping(np.where(np.arange(1000).reshape(20, 50) == 3, np.nan, confidences), 0.5)
    with pytest.raises(ValueError, match=r"\(20, 50\).*\(19, 50\)"):
        choose_threshold(confidences, correct[1:], 0.5, [0.5])
