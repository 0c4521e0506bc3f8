"""Choice of the fusion's alpha over time, on tuning data: grid search and empirical Bayes.

Habara, Sato and Awano, Frontiers in Neuroscience 18, 2024. Both take batches of cumulative spike
counts of the early and the final classifier with the labels, one batch at a time, and return a
curve of one alpha for every step (:mod:`jaxsnn.fusion` says what alpha means). Tuning data are
training images, never test images. On the host, in float64; what is held beside a batch grows with
``T`` times the number of candidates, not with the images.
"""

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, gammaln

from jaxsnn.fusion import SILENT_RATE, check_counts

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.integer[Any]]
Mode = Literal["pooled", "per_neuron_mean", "as_coded"]

CANDIDATES = tuple(range(101))
FLOOR = 1e-9  # added to a denominator by the rule of the mode as_coded
EQUAL = 1e-9  # relative difference of log evidence that may be rounding
COMPARISONS = 2**22  # of two scores that are held at once

Batches: TypeAlias = Iterable[tuple[ArrayLike, ArrayLike, ArrayLike]]
"""Cumulative counts of the early and of the final classifier, integer ``[T, B, C]``, and labels,
integer ``[B]``, of one batch after another."""


def grid_search(
    batches: Batches,
    candidates: ArrayLike = CANDIDATES,
    *,
    pooled: bool = False,
    at: ArrayLike | None = None,
) -> Floats:
    """The alpha with the most correct fused predictions at every step, float64 ``[T]``.

    Args:
        batches: see `Batches`; gone through once.
        candidates: values of alpha, at least 0.
        pooled: take the best over all samples. Otherwise the best of every batch, averaged over the
            batches (the original's, hence not one of the candidates); in both the smallest wins.
        at: choose at these steps alone, counted from 0 (:func:`knots`), ``[K]``; None: at all. The
            result is then ``[K]``.

    Raises:
        ValueError: no batch, or arrays that do not fit each other or the candidates.
    """
    choices = _candidates(candidates)
    whole, lengths = np.zeros(()), list[int]()
    for batch in batches:
        lengths.append(len(np.asarray(batch[0])))
        correct = grid_correct(*batch, choices, at)
        _check_steps(lengths)
        whole = whole + (correct if pooled else choices[np.argmax(correct, axis=-1)])
    _check_steps(lengths)
    return choices[np.argmax(whole, axis=-1)] if pooled else whole / len(lengths)


def grid_correct(
    early: ArrayLike,
    final: ArrayLike,
    labels: ArrayLike,
    candidates: ArrayLike = CANDIDATES,
    at: ArrayLike | None = None,
) -> Integers:
    """Correct fused predictions of a batch, int64 ``[T, candidates]``, candidates ascending.

    Scores are compared as products of whole numbers, so that with whole candidates equal scores are
    equal and the lowest class wins them.

    Args:
        early: cumulative counts of the early classifier, integer ``[T, B, C]``.
        final: those of the final classifier, likewise.
        labels: integer ``[B]``.
        candidates: values of alpha.
        at: these steps alone, counted from 0, ``[K]``; the result is then ``[K, candidates]``.

    >>> early, final = [[[0, 1]], [[0, 1]]], [[[1, 0]], [[2, 1]]]
    >>> grid_correct(early, final, [1], candidates=[0, 1]).tolist()
    [[0, 1], [0, 1]]
    """
    choices = _candidates(candidates)
    m, total = check_counts(early, final)
    classes, chosen = _labels(labels, m.shape), _chosen(at, len(m))
    stride = max(1, COMPARISONS // (m[0].size * len(choices)))
    parts = [
        _block(m[some], total[some], classes, some + 1, choices)
        for some in (chosen[first : first + stride] for first in range(0, len(chosen), stride))
    ]
    return np.concatenate(parts)


def _chosen(at: ArrayLike | None, steps: int) -> Integers:
    """Steps to look at, counted from 0."""
    chosen = np.arange(steps) if at is None else np.asarray(at)
    whole = chosen.ndim == 1 and chosen.size and chosen.dtype.kind in "iu"
    if not whole or chosen.min() < 0 or chosen.max() >= steps:
        raise ValueError(f"at={at}: give some of the steps 0 to {steps - 1}, as a list of integers")
    return chosen.astype(np.int64)


def _block(
    m: Integers, total: Integers, labels: Integers, numbers: Integers, alpha: Floats
) -> Integers:
    """:func:`grid_correct` of a few steps, with their numbers, counted from 1.

    For alpha above 0 the score grows with both counts, so that most images are right or wrong
    whatever alpha is; a label is compared only with rivals that are ahead of it in one count.
    """
    columns = np.broadcast_to(labels[None, :, None], (*m.shape[:2], 1))
    own_m, own_total = (np.take_along_axis(count, columns, -1) for count in (m, total))
    before = np.arange(m.shape[-1]) < columns  # a class that would win a tie against the label
    same = (m == own_m) & (total == own_total)
    behind = (m <= own_m) & (total <= own_total) & ~(same & before)
    lost = ((m >= own_m) & (total >= own_total) & (before | ~same)).any(-1)
    undecided = ~behind & ~lost[..., None]
    correct = np.repeat(behind.all(-1).sum(-1)[:, None], len(alpha), axis=1)

    step, image, rival = np.nonzero(undecided)
    if len(step):
        steps, label = numbers[step], labels[image]
        own = _factors(m[step, image, label], total[step, image, label], steps, alpha)
        other = _factors(m[step, image, rival], total[step, image, rival], steps, alpha)
        left, right = own[0] * other[1], other[0] * own[1]
        ahead = np.where(before[step, image, rival][:, None], left > right, left >= right)
        begins = np.flatnonzero(np.diff(step * len(labels) + image, prepend=-1))  # of an image
        np.add.at(correct, step[begins], np.logical_and.reduceat(ahead, begins, axis=0))
    correct[:, alpha == 0] = np.sum(np.argmax(total, -1) == labels, axis=-1)[:, None]
    return correct


def _factors(m: Integers, total: Integers, steps: Integers, alpha: Floats) -> tuple[Floats, Floats]:
    """Numerator and denominator of ``N`` times the score, ``(alpha + M) m / (alpha + m)``.

    For ``P`` neurons each is ``[P, A]``.
    """
    shown = np.where(m > 0, m, SILENT_RATE * steps)[:, None]
    return (alpha + total[:, None]) * shown, alpha + shown


def empirical_bayes(batches: Batches, mode: Mode = "pooled", at: ArrayLike | None = None) -> Floats:
    """The alpha under which the final counts are most probable, at every step, float64 ``[T]``.

    The evidence of one neuron is the beta-binomial ``B(alpha + M, beta + N - M) / B(alpha, beta)``
    with ``beta = alpha (1 / E - 1)``, up to a factor without alpha.

    Args:
        batches: see `Batches`; gone through once, labels are not used.
        mode: "pooled": the alpha of 1..100 with the largest sum of log evidence over all neurons
            whose early count is neither 0 nor ``N``. "per_neuron_mean": the mean over the same
            neurons of the best alpha of each. In both, 0 where there is no such neuron.
            "as_coded": the rule of the published program, for comparison: over all neurons, the
            mean of the alpha of 0..100 with the largest
            ``B(M + alpha + 1, N - M + beta) / (B(alpha + 1, beta) + 1e-9)``, then the mean over
            batches; silent early neurons and counts beyond float64's range draw it to 0.
        at: as for :func:`grid_search`.

    Raises:
        ValueError: an unknown mode, no batch, or arrays that do not fit each other.

    >>> early, final = np.full((10, 1, 1), 5), np.full((10, 1, 1), 3)
    >>> early[:4], final[:4] = 0, 0
    >>> empirical_bayes([(early, final, [0])]).tolist()[-1]
    7.0
    """
    if mode not in RULES:
        raise ValueError(f"mode {mode!r}: there are {', '.join(RULES)}")
    whole, lengths = np.zeros(()), list[int]()
    for early, final, labels in batches:
        m, total = check_counts(early, final)
        _labels(labels, m.shape)
        lengths.append(len(m))
        _check_steps(lengths)
        chosen = _chosen(at, len(m))
        found = [RULES[mode](*_pairs(m[step], total[step]), int(step) + 1) for step in chosen]
        whole = whole + np.stack(found)
    _check_steps(lengths)
    *values, weight = np.moveaxis(whole, -1, 0)
    if mode == "pooled":
        return np.where(weight > 0, _smallest_best(np.stack(values, axis=-1)), 0.0)
    return values[0] / np.maximum(weight, 1)


def log_evidence(m: ArrayLike, total: ArrayLike, steps: int, alpha: ArrayLike) -> Floats:
    """Log evidence of every pair of counts under every alpha, float64 ``[P, A]``.

    ``betaln(alpha + M, beta + N - M) - betaln(alpha, beta)``, put together from logarithms of the
    gamma function, most of which depend on one of the counts alone and are computed once for each.

    Args:
        m: early counts, integer ``[P]``, in ``1..N-1``.
        total: final counts, integer ``[P]``, in ``0..N``.
        steps: number of steps ``N``.
        alpha: values above 0, ``[A]``.

    >>> log_evidence([5], [3], 10, [1, 10, 50]).round(6).tolist()
    [[-7.185387, -6.861735, -6.905945]]
    """
    values = np.asarray(alpha, np.float64)
    final, early = np.asarray(total, np.float64), np.asarray(m, np.float64)
    finals, of_final = np.unique(final, return_inverse=True)
    rates, of_early = np.unique(early, return_inverse=True)
    beta = values * (steps - rates[:, None]) / rates[:, None]
    known = gammaln(values + beta) - gammaln(values + beta + steps) - gammaln(beta)
    risen = gammaln(values + finals[:, None]) - gammaln(values)
    return risen[of_final] + known[of_early] + gammaln(beta[of_early] + steps - final[:, None])


def _pooled(m: Integers, total: Integers, number: Integers, steps: int) -> Floats:
    """Sum of the log evidence ``[100]`` over the neurons that are kept, and their number."""
    kept = (m > 0) & (m < steps)
    evidence = log_evidence(m[kept], total[kept], steps, POSITIVE)
    return np.append(number[kept] @ evidence, number[kept].sum())


def _per_neuron(m: Integers, total: Integers, number: Integers, steps: int) -> Floats:
    """Sum of the best alpha over the neurons that are kept, and their number."""
    kept = (m > 0) & (m < steps)
    best = _smallest_best(log_evidence(m[kept], total[kept], steps, POSITIVE))
    return np.array([number[kept] @ best, number[kept].sum()])


def _smallest_best(evidence: Floats) -> Floats:
    """The smallest alpha of 1..100 with the highest log evidence ``[..., 100]``.

    Two neighbours can be equal (7 and 8 for m = 5, M = 3, N = 10), which rounding must not decide.
    """
    best = evidence.max(axis=-1, keepdims=True)
    return POSITIVE[np.argmax(evidence >= best - EQUAL * np.abs(best), axis=-1)]


def _as_coded(m: Integers, total: Integers, number: Integers, steps: int) -> Floats:
    """Mean over all neurons of the alpha with the largest ratio, and 1 for the batch."""
    values = np.asarray(CANDIDATES, np.float64)
    rates, of_early = np.unique(m, return_inverse=True)
    beta = values * (1 / (rates[:, None] / steps + SILENT_RATE) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # beta is 0 for alpha = 0, and for E = 1
        above = np.exp(betaln(total[:, None] + values + 1, steps - total[:, None] + beta[of_early]))
        ratio = above / (np.exp(betaln(values + 1, beta)) + FLOOR)[of_early]
    best = values[np.argmax(np.where(np.isnan(ratio), 0.0, ratio), axis=-1)]
    return np.array([number @ best / number.sum(), 1.0])


POSITIVE = np.arange(1.0, 101.0)
RULES = {"pooled": _pooled, "per_neuron_mean": _per_neuron, "as_coded": _as_coded}


def _pairs(m: Integers, total: Integers) -> tuple[Integers, Integers, Integers]:
    """The different pairs of counts of one step, and how many neurons have each; ``[P]`` each.

    Many neurons share a pair, many of them (0, 0): a pair's evidence is computed once.
    """
    base = int(total.max()) + 1
    codes, number = np.unique(m.astype(np.int64) * base + total, return_counts=True)
    return codes // base, codes % base, number


def knots(steps: int) -> Integers:
    """Steps, counted from 0, between which a smoothed curve is straight; int64, ascending.

    Every tenth below 500, then every hundredth, and the last.

    >>> knots(25).tolist(), len(knots(3000))
    ([0, 10, 20, 24], 76)
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: a curve has at least one step")
    every = [*range(0, min(steps, 500), 10), *range(500, steps, 100), steps - 1]
    return np.unique(np.asarray(every, np.int64))


def smoothed(alpha: ArrayLike, steps: int | None = None) -> Floats:
    """A raw curve made piecewise linear through its values at the knots, float64 ``[T]``.

    Args:
        alpha: at every step, ``[T]``; or, with ``steps``, at the knots alone, which is all that is
            used.
        steps: T.

    >>> smoothed([1, 0, 9, 3]).tolist()  # knots 0 and 3
    [1.0, 1.6666666666666665, 2.333333333333333, 3.0]
    >>> smoothed([1, 3], steps=4).tolist()
    [1.0, 1.6666666666666665, 2.333333333333333, 3.0]
    """
    curve = np.asarray(alpha, np.float64)
    where = knots(len(curve) if steps is None else steps)
    values = curve[where] if steps is None else curve
    if len(values) != len(where):
        raise ValueError(
            f"{len(values)} values of alpha: a curve of {steps} has {len(where)} knots"
        )
    return np.interp(np.arange(where[-1] + 1), where, values)


def _candidates(candidates: ArrayLike) -> Floats:
    """Candidates, ascending and without repetition."""
    values = np.unique(np.asarray(candidates, np.float64))
    if not len(values) or not np.all(np.isfinite(values)) or values[0] < 0:
        raise ValueError(f"candidates {candidates}: values of alpha are finite and at least 0")
    return values


def _labels(labels: ArrayLike, shape: tuple[int, ...]) -> Integers:
    """Labels as int64 ``[B]``, one for every image and each a class."""
    classes = np.asarray(labels)
    if classes.shape != shape[1:2] or np.any((classes < 0) | (classes >= shape[2])):
        raise ValueError(
            f"labels of shape {classes.shape} from {classes.min(initial=0)} to "
            f"{classes.max(initial=0)}: there are {shape[1]} images and {shape[2]} classes"
        )
    return classes.astype(np.int64)


def _check_steps(lengths: list[int]) -> None:
    """Refuse no batches, and batches of different length."""
    if not lengths:
        raise ValueError("no batch of tuning data: record some, or look at the folder's name")
    if len(set(lengths)) > 1:
        raise ValueError(f"batches of {lengths} steps: simulate all for the same number of steps")
