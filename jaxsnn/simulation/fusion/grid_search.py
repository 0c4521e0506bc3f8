"""Grid search: the alpha with the most correct fused predictions.

Habara, Sato and Awano, Frontiers in Neuroscience 18, 2024.
"""

import numpy as np
from numpy.typing import ArrayLike

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

CANDIDATES = tuple(range(101))
COMPARISONS = 2**22  # of two scores that are held at once


def grid_search(
    batches: Batches,
    candidates: ArrayLike = CANDIDATES,
    *,
    pooled: bool = False,
    at: ArrayLike | None = None,
) -> Floats:
    """The alpha with the most correct fused predictions at every step, float64 ``[T]``.

    Args:
        batches: see :data:`~jaxsnn.simulation.fusion.Batches`; gone through once.
        candidates: values of alpha, at least 0.
        pooled: take the best over all samples. Otherwise the best of every batch, averaged over the
            batches (the original's, hence not one of the candidates); in both the smallest wins.
        at: choose at these steps alone, counted from 0 (:func:`~jaxsnn.simulation.fusion.knots`),
            ``[K]``;
            None: at all. The result is then ``[K]``.

    Raises:
        UserError: no batch, or arrays that do not fit each other or the candidates.
    """
    choices = _candidates(candidates)
    whole, lengths = np.zeros(()), list[int]()
    for batch in batches:
        lengths.append(len(np.asarray(batch[0])))
        correct = grid_correct(*batch, choices, at)
        check_lengths(lengths)
        whole = whole + (correct if pooled else choices[np.argmax(correct, axis=-1)])
    check_lengths(lengths)
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
    classes, chosen = checked_labels(labels, m.shape), chosen_steps(at, len(m))
    stride = max(1, COMPARISONS // (m[0].size * len(choices)))
    parts = [
        _block(m[some], total[some], classes, some + 1, choices)
        for some in (chosen[first : first + stride] for first in range(0, len(chosen), stride))
    ]
    return np.concatenate(parts)


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
        of_label = _factors(m[step, image, label], total[step, image, label], steps, alpha)
        other = _factors(m[step, image, rival], total[step, image, rival], steps, alpha)
        left, right = of_label[0] * other[1], other[0] * of_label[1]
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


def _candidates(candidates: ArrayLike) -> Floats:
    """Candidates, ascending and without repetition."""
    values = np.unique(np.asarray(candidates, np.float64))
    if not len(values) or not np.all(np.isfinite(values)) or values[0] < 0:
        raise UserError(f"candidates {candidates}: values of alpha are finite and at least 0")
    return values
