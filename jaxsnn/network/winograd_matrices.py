"""The constant matrices of Winograd's convolution of 3x3 kernels, made from exact fractions.

A tile of ``m x m`` outputs is a product of polynomials, computed from their values at ``a = m + 2``
points in either direction (A. Lavin and S. Gray, CVPR 2016, arXiv:1509.09308; the matrices are
those of Toom and Cook).
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

Matrix = tuple[tuple[float, ...], ...]

TAPS = 3  # rows and columns of the kernel
POINTS = tuple(Fraction(point) for point in ("0", "1", "-1", "2", "-2", "1/2", "-1/2"))
LARGEST = len(POINTS) - TAPS + 2  # outputs of a tile; with more points float32 loses accuracy


class Transforms(NamedTuple):
    """The matrices of tiles of ``m`` outputs, with ``a = m + 2``."""

    inputs: Matrix  # B^T, [a, a]
    kernel: Matrix  # G, [a, 3]
    outputs: Matrix  # A^T, [m, a]


@functools.cache
def transforms(tile: int) -> Transforms:
    """The matrices for tiles of ``tile`` outputs in each direction.

    A polynomial is fixed by its values at ``a - 1`` points and its leading coefficient, the value
    at infinity. Lagrange's denominators are part of the kernel's matrix.

    >>> for row in transforms(2).outputs: print(*row)
    1.0 1.0 1.0 0.0
    0.0 1.0 -1.0 1.0
    """
    points = POINTS[: tile + TAPS - 2]
    others = [[q for q in points if q != p] for p in points]
    scales = [
        math.prod((p - q for q in qs), start=Fraction(1))
        for p, qs in zip(points, others, strict=True)
    ]
    zero, one = Fraction(0), Fraction(1)
    inputs = [[*_polynomial(roots), zero] for roots in others] + [_polynomial(points)]
    kernel = [[p**k / scale for k in range(TAPS)] for p, scale in zip(points, scales, strict=True)]
    outputs = [[*(p**k for p in points), one if k == tile - 1 else zero] for k in range(tile)]
    return Transforms(_floats(inputs), _floats([*kernel, [zero, zero, one]]), _floats(outputs))


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the product of ``x - root``, lowest power first."""
    out = [Fraction(1)]
    for root in roots:
        shifted = zip([Fraction(0), *out], [*out, Fraction(0)], strict=True)
        out = [up - root * same for up, same in shifted]
    return out


def _floats(rows: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(tuple(float(value) for value in row) for row in rows)


def transposed(matrix: Matrix) -> Matrix:
    """Rows as columns."""
    return tuple(zip(*matrix, strict=True))
