"""Progress bars for loops on the host that take more than a few seconds."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def bar(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield ``items`` under a progress bar named ``what``; no bar without a name or a terminal."""
    console = Console(stderr=True)
    shown = bool(what) and console.is_terminal
    return iter(track(items, what, total=total, console=console, disable=not shown, transient=True))
