"""Progress on the terminal: a bar for loops of more than a few seconds, and what training shows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    track,
)

from jaxsnn.errors import whole_number
from jaxsnn.io import processes
from jaxsnn.io.terminal import console, show

T = TypeVar("T")


def bar(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield ``items`` under a bar named ``what``, on a terminal; without a name, silently."""
    to = console(stderr=True)
    shown = bool(what) and to.is_terminal and processes.is_primary()
    return iter(
        track(items, escape(what), total=total, console=to, disable=not shown, transient=True)
    )


def duration(seconds: float) -> str:
    """A time in words, of one or two units.

    >>> duration(8), duration(100), duration(3570), duration(7500)
    ('8 s', '2 min', '1 h 0 min', '2 h 5 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Display:
    """What the user sees of training: a bar on a terminal, otherwise one line for each epoch."""

    def __init__(self, epochs: int, steps_per_epoch: int, batch_size: int, shown: bool) -> None:
        """Prepare the bar; it appears when the display is entered, and never unless ``shown``."""
        to, shown = console(), shown and processes.is_primary()
        self.epochs, self.batch_size = epochs, batch_size
        self.to = to if shown else None
        self.first_look = (-1, 0, 0.0)  # epoch, position and time; compiling lies before it
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=to, disable=not (shown and to.is_terminal))
        self.task = self.bar.add_task("training", total=epochs * steps_per_epoch)

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def estimate(self, updates: int, seconds: float, left: int) -> None:
        """Say once how long training will take, if it is more than a minute.

        Args:
            updates: that were timed, behind the one that was compiled.
            seconds: they took.
            left: updates that are still to be made.
        """
        if self.to is None or left * seconds / updates < 60:
            return
        images = updates * self.batch_size / seconds
        text = f"{images:,.0f} images/s: about {duration(left * seconds / updates)} to go for "
        text += f"{left:,} updates; Ctrl-C stops, --resume goes on from the last checkpoint"
        show(text, self.to)

    def show(self, epoch: int, step: int, position: int, loss: float, accuracy: float) -> None:
        """Move the bar to a step; ``position`` counts the steps within the epoch (from 0)."""
        now = time.monotonic()
        if self.first_look[0] != epoch:
            self.first_look = (epoch, position, now)
        _, first, began = self.first_look
        speed = (position - first) * self.batch_size / (now - began) if now > began else 0
        text = f"epoch {epoch + 1}/{self.epochs}"
        text += f"  loss {loss:.4f}  accuracy {accuracy:.2%}  {speed:,.0f} images/s"
        self.bar.update(self.task, completed=step, description=text)

    def line(self, record: Mapping[str, float | int | None]) -> None:
        """Print the record of an epoch."""
        if self.to is None:
            return
        parts = [f"epoch {record['epoch']}/{self.epochs}"]
        for name in ("train_loss", "train_accuracy", "validation_accuracy"):
            if (value := record[name]) is not None:
                shown = f"{value:.4f}" if name.endswith("loss") else f"{value:.2%}"
                parts.append(f"{name.replace('_', ' ')} {shown}")
        parts.append(f"{record['seconds']:.1f} s")
        show("  ".join(parts), self.to)


def batches(count: int, size: int, what: str = "") -> Iterator[tuple[NDArray[np.intp], int]]:
    """Rows of every batch, the last one padded by repeating its last row, with the real number.

    ``what`` names the progress bar; empty for none.
    """
    size = whole_number("batch_size", size)
    for start in bar(range(0, count, size), -(-count // size), what):
        rows = np.arange(start, start + size)
        yield np.minimum(rows, count - 1), int(min(size, count - start))
