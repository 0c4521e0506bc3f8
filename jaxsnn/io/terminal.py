"""The one way to a terminal: text is shown as it is, whatever characters a path has.

Rich reads ``[...]`` as markup and ``:...:`` as a picture, which eats parts of paths and names, or
ends in an error. Here neither happens, and a line of text is not broken in two. What is to be
coloured is a ``rich.text.Text``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys

from rich.console import Console, RenderableType
from rich.text import Text


class _Plain(Console):
    """A console whose reader may be gone: that is an error like any other, not an exit."""

    def on_broken_pipe(self) -> None:
        """Let the error pass that Rich would turn into the end of the program."""
        self.quiet = True
        raise BrokenPipeError(errno.EPIPE, "nothing reads what is printed")


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console that shows text as it is.

    Args:
        stderr: write to standard error instead of standard output.
        width: columns; None: those of the terminal.
    """
    return _Plain(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def show(content: RenderableType, to: Console | None = None) -> None:
    """Print a line of text, or a table.

    Args:
        content: a string is one line, however narrow the terminal; anything else fills the width.
        to: the console; None: standard output. The caller's own reads no markup either.

    Example:
        >>> show("runs[bold]/k1 :smile:")
        runs[bold]/k1 :smile:
    """
    one = console() if to is None else to
    if isinstance(content, str):
        one.print(Text(content), soft_wrap=True)
    else:
        one.print(content, markup=False)


def nobody_reads() -> int:
    """Leave nothing to be written to a standard output that is closed; the status."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return 128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 1
