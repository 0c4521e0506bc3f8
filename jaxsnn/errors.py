"""What a user can mend."""


class UserError(ValueError):
    """A value, a file or a combination of settings that cannot be used; the message says why.

    The command line prints it as one line; every other error is a fault of the program and keeps
    its traceback.
    """


LONGEST = 80  # characters of a foreign name in a message


def shown(name: object) -> str:
    r"""A foreign name for a message: on one line and not endless.

    >>> shown("conv1.weight"), shown("a\nb"), len(shown("x" * 1000))
    ("'conv1.weight'", "'a\\nb'", 80)
    """
    text = repr(name) if isinstance(name, str | bytes | int | float) else type(name).__name__
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
