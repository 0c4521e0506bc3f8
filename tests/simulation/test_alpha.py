"""Choice of alpha: numbers of the specification, and slow loops in exact fractions."""

import math
import tracemalloc
from fractions import Fraction
from importlib import import_module

import numpy as np
import pytest
from scipy.special import beta as beta_function
from scipy.special import betaln

from jaxsnn.simulation.fusion.alpha import knots, smoothed
from jaxsnn.simulation.fusion.bayes import fused
from jaxsnn.simulation.fusion.empirical_bayes import empirical_bayes, log_evidence
from jaxsnn.simulation.fusion.grid_search import grid_correct, grid_search

search = import_module("jaxsnn.simulation.fusion.grid_search")

# Final count, early count, steps; the alpha by evidence and by the published rule.
SINGLE = [
    (3, 5, 10, 7, 11),
    (30, 30, 100, 100, 8),
    (2, 8, 10, 1, 1),
    (30, 50, 100, 3, 4),
    (5, 5, 10, 100, 11),
]


def batch(seed=0, steps=12, images=6, classes=4, always=0.1):
    """Counts of two heads that favour the label, some neurons silent, some at every step."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    rates = rng.beta(0.6, 1.5, (2, images, classes))
    rates[rng.random(rates.shape) < 0.2] = 0
    rates[rng.random(rates.shape) < always] = 1
    rates[:, np.arange(images), labels] += 0.25
    spikes = rng.random((steps, 2, images, classes)) < rates
    early, final = np.moveaxis(np.cumsum(spikes, axis=0, dtype=np.int32), 1, 0)
    return early, final, labels


def single(early, final, steps):
    """One image of one class whose counts after the last step are these."""
    number = np.arange(1, steps + 1)[:, None, None]
    return np.minimum(number, early), np.minimum(number, final), np.zeros(1, int)


def joined(*batches):
    """All images of several batches as one."""
    return tuple(
        np.concatenate(parts, axis=1 if parts[0].ndim > 1 else 0)
        for parts in zip(*batches, strict=True)
    )


def exact_score(early, final, alpha, steps):
    """Mean of the posterior as a fraction."""
    rate = Fraction(int(early), steps) if early else Fraction(1, 10**16)
    return Fraction(int(final) + alpha) / (alpha / rate + steps)


def slow_correct(early, final, labels, candidates):
    """Correct predictions [T, A] by explicit loops; the lowest of equal classes wins."""
    result = np.zeros((len(early), len(candidates)), int)
    for t, b in np.ndindex(*early.shape[:2]):
        for number, alpha in enumerate(candidates):
            scores = [
                exact_score(m, k, alpha, t + 1)
                for m, k in zip(early[t, b], final[t, b], strict=True)
            ]
            result[t, number] += scores.index(max(scores)) == labels[b]
    return result


def rising(start, count):
    """start (start + 1) ... of so many factors."""
    return math.prod((start + i for i in range(count)), start=Fraction(1))


def exact_evidence(early, final, alpha, steps):
    """B(alpha + M, beta + N - M) / B(alpha, beta) by rising factorials, without gamma functions."""
    beta = Fraction(alpha * (steps - int(early)), int(early))
    above = rising(Fraction(alpha), int(final)) * rising(beta, steps - int(final))
    return above / rising(alpha + beta, steps)


def slow_evidences(early, final, t):
    """Evidence of every kept neuron of one step, for alpha of 1 to 100."""
    return [
        [exact_evidence(m, k, alpha, t + 1) for alpha in range(1, 101)]
        for m, k in zip(early[t].ravel(), final[t].ravel(), strict=True)
        if 0 < m < t + 1
    ]


def slow_pooled(early, final):
    """The alpha with the largest product of evidence, at every step; 0 without a neuron."""
    result = np.zeros(len(early))
    for t in range(len(early)):
        kept = slow_evidences(early, final, t)
        products = [math.prod(column) for column in zip(*kept, strict=True)]
        result[t] = 1 + products.index(max(products)) if kept else 0
    return result


def slow_per_neuron(early, final):
    """Mean of each neuron's own best alpha, at every step; 0 without a neuron."""
    result = np.zeros(len(early))
    for t in range(len(early)):
        kept = slow_evidences(early, final, t)
        result[t] = np.mean([1 + one.index(max(one)) for one in kept]) if kept else 0
    return result


def slow_as_coded(early, final):
    """The published rule, neuron by neuron, with scipy's beta function."""
    best = np.zeros(early.shape)
    for t, b, c in np.ndindex(*early.shape):
        m, total, steps = int(early[t, b, c]), int(final[t, b, c]), t + 1
        ratios = []
        for alpha in range(101):
            beta = alpha * (1 / (m / steps + 1e-16) - 1)
            above = beta_function(total + alpha + 1, steps - total + beta)
            below = beta_function(alpha + 1, beta) + 1e-9
            ratios.append(0.0 if np.isinf(below) else above / below)
        best[t, b, c] = np.argmax(ratios)
    return best.mean(axis=(1, 2))


@pytest.mark.parametrize(("final", "early", "steps", "best", "coded"), SINGLE)
def test_the_best_alpha_of_one_neuron(final, early, steps, best, coded):
    data = single(early, final, steps)
    assert empirical_bayes([data])[-1] == best
    assert empirical_bayes([data], "per_neuron_mean")[-1] == best
    assert empirical_bayes([data], "as_coded")[-1] == coded


def test_evidence_of_the_specification():
    """With alpha = 10 the evidence is 12! 16! 19! / (29! 9! 9!)."""
    actual = log_evidence([5], [3], 10, [1, 10, 50])[0]
    np.testing.assert_allclose(actual, [-7.185387, -6.861736, -6.905945], atol=1.1e-6)
    whole = Fraction(
        math.factorial(12) * math.factorial(16) * math.factorial(19),
        math.factorial(29) * math.factorial(9) ** 2,
    )
    assert actual[1] == pytest.approx(math.log(whole), rel=1e-12)


def test_evidence_against_scipy():
    rng = np.random.default_rng(0)
    early, final, alpha = rng.integers(1, 3000, 200), rng.integers(0, 3001, 200), np.arange(1, 101)
    beta = alpha * (3000 - early[:, None]) / early[:, None]
    expected = betaln(alpha + final[:, None], beta + 3000 - final[:, None]) - betaln(alpha, beta)
    np.testing.assert_allclose(log_evidence(early, final, 3000, alpha), expected, atol=1e-7)


def test_two_neighbours_of_equal_evidence_give_the_smaller():
    """Here 7 and 8: with EQUAL at 0, rounding would choose between them."""
    assert exact_evidence(5, 3, 7, 10) == exact_evidence(5, 3, 8, 10)
    assert exact_evidence(5, 3, 7, 10) > max(exact_evidence(5, 3, a, 10) for a in (6, 9))
    many = joined(*[single(5, 3, 10)] * 7)
    assert empirical_bayes([many])[-1] == 7


@pytest.mark.parametrize("seed", range(2))
def test_pooled_and_per_neuron_against_exact_loops(seed):
    early, final, labels = batch(seed)
    assert np.any(early == 0)
    assert np.any(early[-1] == len(early))
    data = [(early, final, labels)]
    np.testing.assert_array_equal(empirical_bayes(data), slow_pooled(early, final))
    np.testing.assert_allclose(
        empirical_bayes(data, "per_neuron_mean"), slow_per_neuron(early, final), rtol=1e-12
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_published_rule_against_a_loop(seed):
    early, final, labels = batch(seed, images=3)
    actual = empirical_bayes([(early, final, labels)], "as_coded")
    np.testing.assert_allclose(actual, slow_as_coded(early, final), rtol=1e-12)


@pytest.mark.parametrize("final", [0, 1, 19, 20, 60])
def test_silent_early_neurons(final):
    """The published rule gives them 1, and 0 where its ratio underflows; ours leaves them out."""
    data = single(0, final, 100)
    assert empirical_bayes([data], "as_coded")[-1] == (1 if final <= 19 else 0)
    assert not empirical_bayes([data]).any()
    assert not empirical_bayes([data], "per_neuron_mean").any()
    spoken = single(5, 3, 10)
    silent = tuple(count[:10] if count.ndim > 1 else count for count in data)
    assert empirical_bayes([joined(spoken, silent)])[-1] == 7
    assert empirical_bayes([joined(spoken, silent)], "per_neuron_mean")[-1] == 7


@pytest.mark.parametrize("mode", ["pooled", "per_neuron_mean", "as_coded"])
def test_early_neurons_that_always_spike_leave_alpha_zero(mode):
    """beta is 0 for every alpha: no evidence, and the published ratio is 0 or no number."""
    for final in (3, 10):
        assert not empirical_bayes([single(10, final, 10)], mode).any()


@pytest.mark.parametrize("mode", ["pooled", "per_neuron_mean"])
def test_batches_are_pooled(mode):
    parts = batch(0), batch(1, images=3)
    np.testing.assert_allclose(
        empirical_bayes(iter(parts), mode), empirical_bayes([joined(*parts)], mode), rtol=1e-12
    )


def test_the_published_rule_averages_over_batches():
    parts = batch(0), batch(1, images=3)
    means = [empirical_bayes([part], "as_coded") for part in parts]
    assert not np.allclose(means[0], means[1])
    np.testing.assert_allclose(empirical_bayes(parts, "as_coded"), np.mean(means, axis=0))


@pytest.mark.parametrize("seed", range(4))
def test_the_grid_against_exact_loops(seed, monkeypatch):
    early, final, labels = batch(seed)
    candidates = [0, 1, 2, 3, 5, 8, 20, 100]
    expected = slow_correct(early, final, labels, candidates)
    assert np.any(expected != expected[:, :1])
    actual = grid_correct(early, final, labels, candidates)
    np.testing.assert_array_equal(actual, expected)
    monkeypatch.setattr(search, "COMPARISONS", 1)  # step by step
    np.testing.assert_array_equal(grid_correct(early, final, labels, candidates), expected)


def test_the_grid_agrees_with_the_predictions_of_the_fusion():
    early, final, labels = batch(5, steps=150, images=20, classes=10, always=0)
    candidates = [0, 0.5, 4, 60]
    actual = grid_correct(early, final, labels, candidates)
    for number, alpha in enumerate(candidates):
        scores = np.asarray(fused(early, final, np.full(150, alpha)))
        ordered = np.sort(scores, axis=-1)
        close = np.sum(ordered[..., -1] - ordered[..., -2] <= 1e-6 * ordered[..., -1], axis=-1)
        correct = np.sum(scores.argmax(-1) == labels, axis=-1)
        assert np.all(np.abs(actual[:, number] - correct) <= close)
        assert np.sum(close) < 0.1 * close.size * 20


def test_the_best_alpha_is_no_worse_than_the_final_classifier_alone():
    """In every batch and at every step, because alpha = 0 is a candidate."""
    better = 0
    for seed in range(5):
        early, final, labels = batch(seed, steps=60, images=40)
        correct = grid_correct(early, final, labels)
        alone = np.sum(final.argmax(-1) == labels, axis=-1)
        assert correct.shape == (60, 101)
        np.testing.assert_array_equal(correct[:, 0], alone)
        assert np.all(correct.max(axis=-1) >= alone)
        chosen = grid_search([(early, final, labels)]).astype(int)
        np.testing.assert_array_equal(correct[np.arange(60), chosen], correct.max(axis=-1))
        better += np.sum(correct.max(axis=-1) > alone)
    assert better


def test_the_grid_takes_the_smallest_best_and_averages_over_batches():
    """By hand: the final neuron of class 0 has spiked once, the early one of class 1 twice."""
    early, final = np.array([[[0, 1]], [[1, 2]]]), np.array([[[0, 0]], [[1, 0]]])
    # Step 2: (alpha + 1) / (alpha + 1) against 2 alpha / (alpha + 2): class 1 from alpha = 3 on,
    # because at 2 both are 1 and the lowest class wins.
    right_early, right_final = (early, final, [1]), (early, final, [0])
    assert grid_search([right_early]).tolist() == [1, 3]
    assert grid_search([right_final]).tolist() == [0, 0]
    assert grid_search([right_early, right_final]).tolist() == [0.5, 1.5]
    assert grid_search([right_early, right_final, right_early], pooled=True).tolist() == [1, 3]


def test_pooling_is_one_large_batch():
    parts = batch(0, steps=30), batch(1, steps=30, images=15)
    pooled = grid_search(iter(parts), pooled=True)
    np.testing.assert_array_equal(pooled, grid_search([joined(*parts)]))
    separate = grid_search(parts)
    each = [grid_search([part]) for part in parts]
    np.testing.assert_allclose(separate, np.mean(each, axis=0))
    assert np.any(separate != pooled)


def test_candidates_in_any_order():
    data = [batch(2, steps=30)]
    some = grid_search(data, [7, 0, 3, 3, 50])
    assert set(some) <= {0, 3, 7, 50}
    np.testing.assert_array_equal(some, grid_search(data, [0, 3, 7, 50]))


def test_memory_does_not_hold_every_comparison(monkeypatch):
    """All comparisons of this batch would take 81 MB."""
    data = batch(0, steps=200, images=50, classes=10)
    monkeypatch.setattr(search, "COMPARISONS", 2**16)
    tracemalloc.start()
    try:
        grid_correct(*data)
        empirical_bayes([data])
        highest = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert highest < 16e6


def test_knots_of_the_specification():
    expected = [*range(0, 500, 10), *range(500, 3000, 100), 2999]
    assert knots(3000).tolist() == expected
    assert len(expected) == 76


@pytest.mark.parametrize("steps", [1, 2, 10, 11, 491, 500, 501, 502, 600, 601, 1000, 3000])
def test_smoothing_any_length(steps):
    """A straight line is its own, and every knot keeps its raw value."""
    line = 3.0 + 0.25 * np.arange(steps)
    np.testing.assert_allclose(smoothed(line), line, rtol=1e-14)
    raw = np.random.default_rng(steps).uniform(0, 100, steps)
    actual, where = smoothed(raw), knots(steps)
    assert len(actual) == steps
    np.testing.assert_array_equal(actual[where], raw[where])
    assert actual[-1] == raw[-1]
    assert np.all(np.diff(where) > 0)


def test_smoothing_between_knots():
    raw = np.zeros(700)
    raw[20], raw[600] = 5, 8
    actual = smoothed(raw)
    assert actual[15] == pytest.approx(2.5)
    assert actual[550] == pytest.approx(4)
    assert actual[630] == pytest.approx(8 * 69 / 99)


@pytest.mark.parametrize("mode", ["grid", "pooled", "per_neuron_mean", "as_coded"])
def test_values_at_some_steps_are_those_of_all_steps(mode):
    parts, at = [batch(seed=seed) for seed in (0, 1)], [0, 3, 4, 11]

    def chosen(at):
        return grid_search(parts, at=at) if mode == "grid" else empirical_bayes(parts, mode, at)

    np.testing.assert_array_equal(chosen(at), chosen(None)[at])
    for wrong in ([12], [-1], [], [2.5], [True] * 12, 3):
        with pytest.raises(ValueError, match="steps 0 to 11"):
            chosen(wrong)


def test_a_curve_is_smoothed_from_its_knots_alone():
    raw = np.random.default_rng(0).uniform(0, 100, 1234)
    np.testing.assert_array_equal(smoothed(raw), smoothed(raw[knots(1234)], 1234))
    with pytest.raises(ValueError, match="12 values of alpha: a curve of 1234 has 59 knots"):
        smoothed(raw[:12], 1234)


def test_bad_tuning_data_are_refused():
    early, final, labels = batch()
    for tune in (grid_search, empirical_bayes):
        with pytest.raises(ValueError, match="no batch"):
            tune([])
        with pytest.raises(ValueError, match=r"\[12, 11\] steps"):
            tune([(early, final, labels), (early[:11], final[:11], labels)])
        with pytest.raises(ValueError, match=r"\(12, 6, 4\).*\(12, 6, 3\)"):
            tune([(early, final[..., :3], labels)])
        with pytest.raises(ValueError, match=r"labels of shape \(5,\).*6 images"):
            tune([(early, final, labels[:5])])
        with pytest.raises(ValueError, match=r"to 4: .* one from 0 to 3"):
            tune([(early, final, np.full(6, 4))])
        with pytest.raises(ValueError, match=r"final counts run from 0 to 13 in 12"):
            tune([(early, np.where(final == final.max(), 13, final), labels)])
        with pytest.raises(ValueError, match=r"early counts run from -1"):
            tune([(early - 1, final, labels)])


def test_unknown_modes_and_candidates_are_refused():
    with pytest.raises(ValueError, match=r"'pool'.*pooled, per_neuron_mean, as_coded"):
        empirical_bayes([batch()], "pool")
    for wrong in ([], [-1, 2], [np.nan]):
        with pytest.raises(ValueError, match="candidates"):
            grid_search([batch()], wrong)
    with pytest.raises(ValueError, match="steps=0"):
        knots(0)
