"""Levels of the median quantiser, which two methods convert."""

from jaxsnn.errors import UserError

MOST_LEVELS = 4096  # thresholds per neuron; beyond it the table outgrows the kernels


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
    if bound > MOST_LEVELS or k > MOST_LEVELS.bit_length() or 2**k * bound > MOST_LEVELS:
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
    if k < 0:
        raise UserError(f"k={k}: an activation has 0 fractional bits or more")
