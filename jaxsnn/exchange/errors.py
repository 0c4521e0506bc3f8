"""What a user is told when a file or a network cannot be taken."""

from __future__ import annotations

LONGEST = 80  # characters of a foreign name in a message


class UserError(ValueError):
    """A value, a file or a network that is refused: the message says where, what, and the remedy.

    Nothing is broken in the program, so that a command shows the message without a traceback.
    """


def shown(name: object) -> str:
    r"""A foreign name for a message: on one line and not endless.

    >>> shown("conv1.weight"), shown("a\nb"), len(shown("x" * 1000))
    ("'conv1.weight'", "'a\\nb'", 80)
    """
    text = repr(name) if isinstance(name, str | bytes | int | float) else type(name).__name__
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
