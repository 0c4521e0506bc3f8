"""What a user can mend, and the checks of single values that every room shares."""

import math
import operator


class UserError(ValueError):
    """A value, a file or a combination of settings that cannot be used; the message says why.

    The command line prints it as one line; every other error is a fault of the program and keeps
    its traceback.
    """


LONGEST = 80  # characters of a foreign name in a message
MOST_BITS = 2**10  # of a whole number that is written out; Python refuses very long ones


def shown(name: object) -> str:
    r"""A foreign name for a message: on one line and not endless.

    >>> shown("conv1.weight"), shown("a\nb"), len(shown("x" * 1000)), shown(10**5000)
    ("'conv1.weight'", "'a\\nb'", 80, 'int')
    """
    short = not isinstance(name, int) or name.bit_length() < MOST_BITS
    written = short and isinstance(name, str | bytes | int | float)
    text = repr(name) if written else type(name).__name__
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def whole_number(name: str, value: object, least: int = 1, most: int | None = None) -> int:
    """An integer of any kind as an int, if it lies in a range.

    A float is none, not even one that is whole: what steps of 1.5 or infinitely many images would
    mean is not guessed.

    Raises:
        UserError: it is no integer, or lies outside.

    >>> whole_number("steps", 3), whole_number("steps", 0, least=0, most=7)
    (3, 0)
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        bounds = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
        raise UserError(f"{name}={_plain(value)!r}: give a whole number {bounds}")
    return number


def finite_number(
    name: str,
    value: object,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: bool = False,
) -> float:
    """A number of any kind as a float, if it is finite and lies in a range.

    Args:
        name: what it is called, for the message.
        value: to be looked at.
        least: the lower end of the range, itself in it unless ``above``.
        most: the upper end, in it.
        above: ``least`` itself is refused.

    Raises:
        UserError: it is no number, not finite, or lies outside.

    >>> finite_number("scale", 1, 0, above=True)
    1.0
    """
    try:
        number = math.nan if isinstance(value, str | bytes | bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    outside = number < least or number > most or (above and number == least)
    if not math.isfinite(number) or outside:
        ends = [f"above {least:g}" if above else f"of at least {least:g}"] * math.isfinite(least)
        ends += [f"at most {most:g}"] * math.isfinite(most)
        raise UserError(
            f"{name}={_plain(value)!r}: give a finite number {' and '.join(ends)}".rstrip()
        )
    return number


def _plain(value: object) -> object:
    """A scalar of NumPy or JAX as Python's, for a message."""
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value
