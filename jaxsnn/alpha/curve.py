"""A curve of alpha over time, straight between its knots, as the original smooths it."""

import numpy as np
from numpy.typing import ArrayLike

from jaxsnn.alpha.tuning_data import Floats, Integers


def knots(steps: int) -> Integers:
    """Steps, counted from 0, between which a smoothed curve is straight; int64, ascending.

    Every tenth below 500, then every hundredth, and the last.

    >>> knots(25).tolist(), len(knots(3000))
    ([0, 10, 20, 24], 76)
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: a curve has at least one step; give 1 or more")
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
            f"{len(values)} values of alpha: a curve of {steps} has {len(where)} knots; "
            "choose with at=knots(steps)"
        )
    return np.interp(np.arange(where[-1] + 1), where, values)
