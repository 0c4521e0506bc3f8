"""Kernels on power-of-two grids, and bounds on the sums that they can make (NumPy alone)."""

import math

import numpy as np
from numpy.typing import ArrayLike


def grid_exponent(
    kernel: np.ndarray, highest: ArrayLike, limit: int = 2**24, coarsen: bool = True
) -> int:
    """Finest ``g`` for which no sum over a kernel on the grid ``2**-g`` can reach ``limit``.

    Coarser if the kernel lies exactly on a coarser grid and ``coarsen`` says so (a bias that shares
    the grid wants it fine). Inputs are integers up to ``highest`` (see :func:`largest_sum`).

    >>> grid_exponent(np.array([[0.5], [-0.25]]), highest=255)
    2
    """
    largest = float(np.max(np.abs(kernel), initial=0))
    exponent = min(30, math.frexp(limit)[1] - math.frexp(largest)[1] + 1) if largest else 30
    while largest_sum(on_grid(kernel, exponent), highest) >= limit:
        exponent -= 1
    return _coarsest(kernel, exponent) if coarsen else exponent


def significant_exponent(kernel: np.ndarray, bits: int) -> int:
    """Finest ``g`` for which the largest weight has ``bits`` significant bits on ``2**-g``.

    Coarser if the kernel lies exactly on a coarser grid.

    >>> significant_exponent(np.array([[0.7], [-0.1]]), bits=8)  # 179 and -26 of 256
    8
    """
    largest = float(np.max(np.abs(kernel), initial=0))
    if not largest:
        return 0
    exponent = bits - math.frexp(largest)[1]
    exponent -= int(np.abs(on_grid(kernel, exponent)).max()) >= 2**bits  # it was rounded up
    return _coarsest(kernel, exponent)


def _coarsest(kernel: np.ndarray, exponent: int) -> int:
    """The coarsest grid that holds the same numbers as ``2**-exponent`` does."""
    codes = on_grid(kernel, exponent)
    while codes.any() and not (codes % 2).any():
        codes, exponent = codes // 2, exponent - 1
    return exponent


def on_grid(kernel: np.ndarray, exponent: int) -> np.ndarray:
    """Nearest multiples of ``2**-exponent``, as int64 multiples."""
    return np.round(np.asarray(kernel, np.float64) * 2.0**exponent).astype(np.int64)


def largest_sum(kernel: np.ndarray, highest: ArrayLike) -> int:
    """Largest possible ``|sum|`` of a drive: that of the channel that can have the largest."""
    return int(channel_sums(kernel, highest).max(initial=0))


def channel_sums(kernel: np.ndarray, highest: ArrayLike) -> np.ndarray:
    """Largest possible ``|sum|`` of each output channel, ``sum |kernel| * highest``, int64 ``[C]``.

    ``highest``, the largest magnitude of an input, is one number or one per input channel; a dense
    kernel's inputs repeat the channels position by position. Sums of floats are rounded up.
    """
    window = tuple(range(kernel.ndim - 2))
    magnitude = np.abs(kernel).sum(axis=window)
    each = np.resize(np.asarray(highest, np.int64), magnitude.shape[0])
    return np.ceil(magnitude.T @ each).astype(np.int64)


def smallest_integer(kernel: np.ndarray) -> np.ndarray:
    """The same numbers as int8, int16 or int32, whichever holds them first."""
    highest = int(np.abs(kernel).max(initial=0))
    return kernel.astype(np.result_type(np.min_scalar_type(-highest - 1), np.min_scalar_type(-1)))
