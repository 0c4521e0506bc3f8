"""How a program ends that is told to: within seconds, with one line, and the status of the signal.

Python runs a signal's handler between two of its own instructions, so a program that compiles or
computes for minutes would not notice. A thread that reads what the system writes about signals
does, and ends the process after ``GRACE`` seconds. Files are written whole or not at all, so that
nothing that was done is lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Generator
from types import FrameType
from typing import TextIO

GRACE = 5.0  # seconds that a program has to end by itself
STOPPING = (signal.SIGINT, signal.SIGTERM)


class TerminatedError(KeyboardInterrupt):
    """The program was sent SIGTERM; where Ctrl-C may pass, this may, too."""


def status_of(stopped: KeyboardInterrupt) -> int:
    """Exit status of a program that was interrupted, as shells count.

    >>> status_of(KeyboardInterrupt()), status_of(TerminatedError())
    (130, 143)
    """
    return 128 + (signal.SIGTERM if isinstance(stopped, TerminatedError) else signal.SIGINT)


def say_stopped(stopped: KeyboardInterrupt) -> None:
    """Say on standard error that the program was stopped, and how to go on."""
    name = signal.Signals(status_of(stopped) - 128).name
    print(
        f"stopped by {name}; what was done is kept, and --resume continues training from the last "
        "checkpoint",
        file=sys.stderr,
        flush=True,
    )


@contextlib.contextmanager
def within_seconds() -> Generator[None]:
    """Let SIGINT and SIGTERM end the block as exceptions, and the process if that takes too long.

    Raises:
        KeyboardInterrupt: SIGINT.
        TerminatedError: SIGTERM.
    """
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield
        return
    received, sent = os.pipe()
    os.set_blocking(sent, False)
    before = signal.signal(signal.SIGTERM, _terminated)
    earlier = signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    left = threading.Event()
    threading.Thread(target=_watch, args=(received, left), daemon=True).start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(earlier)
        signal.signal(signal.SIGTERM, before)
        os.close(sent)  # the thread ends


def _terminated(number: int, frame: FrameType | None) -> None:
    raise TerminatedError


def _watch(received: int, left: threading.Event) -> None:
    """Wait for a signal that stops, then end the process if the block is not left."""
    with os.fdopen(received, "rb", buffering=0) as signals:
        while byte := signals.read(1):
            if byte[0] in STOPPING:
                break
        else:
            return
    if left.wait(GRACE):
        return
    stopped = TerminatedError() if byte[0] == signal.SIGTERM else KeyboardInterrupt()
    say_stopped(stopped)
    os._exit(status_of(stopped))


def any_characters(*streams: TextIO) -> None:
    """Let streams write a question mark for what their encoding lacks, instead of failing."""
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
