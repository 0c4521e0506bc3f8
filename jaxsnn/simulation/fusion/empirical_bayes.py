"""Empirical Bayes: the alpha under which the final counts are most probable.

Habara, Sato and Awano, Frontiers in Neuroscience 18, 2024.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaln, gammaln

from jaxsnn.errors import UserError
from jaxsnn.simulation.fusion.alpha import (
    Batches,
    Floats,
    Integers,
    check_lengths,
    checked_labels,
    chosen_steps,
)
from jaxsnn.simulation.fusion.bayes import SILENT_RATE, check_counts

Mode = Literal["pooled", "per_neuron_mean", "as_coded"]

POSITIVE = np.arange(1.0, 101.0)
CODED = np.arange(101.0)  # the published program's
FLOOR = 1e-9  # added to a denominator by the rule of the mode as_coded
EQUAL = 1e-9  # relative difference of log evidence that may be rounding


def empirical_bayes(batches: Batches, mode: Mode = "pooled", at: ArrayLike | None = None) -> Floats:
    """The alpha under which the final counts are most probable, at every step, float64 ``[T]``.

    The evidence of one neuron is the beta-binomial ``B(alpha + M, beta + N - M) / B(alpha, beta)``
    with ``beta = alpha (1 / E - 1)``, up to a factor without alpha.

    Args:
        batches: see :data:`~jaxsnn.simulation.fusion.Batches`; gone through once, labels are not
            used.
        mode: "pooled": the alpha of 1..100 with the largest sum of log evidence over all neurons
            whose early count is neither 0 nor ``N``. "per_neuron_mean": the mean over the same
            neurons of the best alpha of each. In both, 0 where there is no such neuron.
            "as_coded": the rule of the published program, for comparison: over all neurons, the
            mean of the alpha of 0..100 with the largest
            ``B(M + alpha + 1, N - M + beta) / (B(alpha + 1, beta) + 1e-9)``, then the mean over
            batches; silent early neurons and counts beyond float64's range draw it to 0.
        at: as for :func:`~jaxsnn.simulation.fusion.grid_search`.

    Raises:
        UserError: an unknown mode, no batch, or arrays that do not fit each other.

    >>> early, final = np.full((10, 1, 1), 5), np.full((10, 1, 1), 3)
    >>> early[:4], final[:4] = 0, 0
    >>> empirical_bayes([(early, final, [0])]).tolist()[-1]
    7.0
    """
    if mode not in RULES:
        raise UserError(f"mode {mode!r}: there are {', '.join(RULES)}")
    whole, lengths = np.zeros(()), list[int]()
    for early, final, labels in batches:
        m, total = check_counts(early, final)
        checked_labels(labels, m.shape)
        lengths.append(len(m))
        check_lengths(lengths)
        chosen = chosen_steps(at, len(m))
        fitted = [RULES[mode](*_pairs(m[step], total[step]), int(step) + 1) for step in chosen]
        whole = whole + np.stack(fitted)
    check_lengths(lengths)
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
    of_rate = gammaln(values + beta) - gammaln(values + beta + steps) - gammaln(beta)
    risen = gammaln(values + finals[:, None]) - gammaln(values)
    return risen[of_final] + of_rate[of_early] + gammaln(beta[of_early] + steps - final[:, None])


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
    rates, of_early = np.unique(m, return_inverse=True)
    beta = CODED * (1 / (rates[:, None] / steps + SILENT_RATE) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):  # beta is 0 for alpha = 0, and for E = 1
        above = np.exp(betaln(total[:, None] + CODED + 1, steps - total[:, None] + beta[of_early]))
        ratio = above / (np.exp(betaln(CODED + 1, beta)) + FLOOR)[of_early]
    best = CODED[np.argmax(np.where(np.isnan(ratio), 0.0, ratio), axis=-1)]
    return np.array([number @ best / number.sum(), 1.0])


RULES = {"pooled": _pooled, "per_neuron_mean": _per_neuron, "as_coded": _as_coded}


def _pairs(m: Integers, total: Integers) -> tuple[Integers, Integers, Integers]:
    """The different pairs of counts of one step, and how many neurons have each; ``[P]`` each.

    Many neurons share a pair, many of them (0, 0): a pair's evidence is computed once.
    """
    base = int(total.max()) + 1
    codes, number = np.unique(m.astype(np.int64) * base + total, return_counts=True)
    return codes // base, codes % base, number
