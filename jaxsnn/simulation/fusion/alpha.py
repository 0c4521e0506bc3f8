"""What every choice of alpha takes and makes: batches of tuning data, and curves over time."""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxsnn.errors import UserError

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.integer]
Batches: TypeAlias = Iterable[tuple[ArrayLike, ArrayLike, ArrayLike]]
"""Cumulative counts of the early and of the final classifier, integer ``[T, B, C]``, and labels,
integer ``[B]``, of one batch after another."""


def chosen_steps(at: ArrayLike | None, steps: int) -> Integers:
    """Steps to look at, counted from 0."""
    chosen = np.arange(steps) if at is None else np.asarray(at)
    whole = chosen.ndim == 1 and chosen.size and chosen.dtype.kind in "iu"
    if not whole or chosen.min() < 0 or chosen.max() >= steps:
        raise UserError(f"at={at}: give some of the steps 0 to {steps - 1}, as a list of integers")
    return chosen.astype(np.int64)


def checked_labels(labels: ArrayLike, shape: tuple[int, ...]) -> Integers:
    """Labels as int64 ``[B]``, one for every image and each a class."""
    classes = np.asarray(labels)
    if classes.shape != shape[1:2] or np.any((classes < 0) | (classes >= shape[2])):
        raise UserError(
            f"labels of shape {classes.shape} from {classes.min(initial=0)} to "
            f"{classes.max(initial=0)}: give each of {shape[1]} images one from 0 to {shape[2] - 1}"
        )
    return classes.astype(np.int64)


def check_lengths(lengths: list[int]) -> None:
    """Refuse no batches, and batches of different length."""
    if not lengths:
        raise UserError("no batch of tuning data: record some, or look at the folder's name")
    if len(set(lengths)) > 1:
        raise UserError(f"batches of {lengths} steps: simulate all for the same number of steps")


def knots(steps: int) -> Integers:
    """Steps, counted from 0, between which a smoothed curve is straight; int64, ascending.

    Every tenth below 500, then every hundredth, and the last.

    >>> knots(25).tolist(), len(knots(3000))
    ([0, 10, 20, 24], 76)
    """
    if steps < 1:
        raise UserError(f"steps={steps}: a curve has at least one step; give 1 or more")
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
        raise UserError(
            f"{len(values)} values of alpha: a curve of {steps} has {len(where)} knots; "
            "choose with at=knots(steps)"
        )
    return np.interp(np.arange(where[-1] + 1), where, values)
