"""Levels of the median quantiser, which two methods convert."""

from jaxsnn.errors import UserError

MOST_LEVELS = 4096  # thresholds per neuron; beyond it the table outgrows the kernels
MOST_BITS = MOST_LEVELS.bit_length() - 1  # fractional bits: so many levels are one unit then


def median_levels(k: int, bound: int) -> int:
    """Highest level ``2**k * bound`` of the median quantiser.

    Raises:
        UserError: no such quantiser, or more levels than a table of thresholds may have.

    >>> median_levels(k=1, bound=2)
    4
    """
    check_fraction(k)
    if bound < 1:
        raise UserError(f"bound={bound}: the largest activation is a whole number of at least 1")
    if 2**k * bound > MOST_LEVELS:
        raise UserError(
            f"k={k}, bound={bound}: more levels, 2^k * bound, than the {MOST_LEVELS} that a neuron "
            "has at most; choose a smaller k or bound"
        )
    return 2**k * bound


def check_fraction(k: int) -> None:
    """Refuse a number of fractional bits that is none.

    Raises:
        UserError: naming it.
    """
    if not 0 <= k <= MOST_BITS:
        raise UserError(f"k={k}: an activation has 0 to {MOST_BITS} fractional bits")
