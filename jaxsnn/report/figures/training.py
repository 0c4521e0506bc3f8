"""Figures of training: loss and accuracy by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jaxsnn.report.figures.parts import (
    caption,
    head,
    label,
    marks,
    new_figure,
    plain_numbers,
    save,
    zoom,
)
from jaxsnn.report.figures.style import COLUMN, Style, line_style
from jaxsnn.report.rows import NothingToDrawError
from jaxsnn.types import Json

Records = Sequence[Mapping[str, Json]]

_DASHES = ("--", "-.", ":")
_PARTS = {  # of the records: dashes, what they are called, and whose images they are
    "train": ("--", "dashed", "training"),
    "validation": ("-", "solid", "validation"),
}
_ACCURACIES = {  # line, face of its marks and explanation by field of a record
    "validation_accuracy": ("-", "", "Solid: validation images."),
    "test_accuracy": ("--", "white", "Dashed, open marks: test accuracy, never used for a choice."),
}


def training(
    streams: Mapping[str, Records],
    folder: str | Path,
    name: str = "training",
    phases: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Path, Path]:
    """Draw loss and accuracy against the epoch.

    Args:
        streams: the records of ``metrics.jsonl`` by setting, in the order of the legend; those
            with an ``epoch`` are drawn.
        folder: where the files go.
        name: name of the files.
        phases: epochs before each further phase of training by setting, a dotted line
            shows where it begins.

    Raises:
        UserError: no record has an epoch.
    """
    epochs = _by_epoch(streams)
    figure, (above, below) = new_figure(rows=2, size=(COLUMN, 4.2))
    for style, (setting, records) in enumerate(epochs.items()):
        for part, (dashes, *_) in _PARTS.items():
            look = line_style(style) | {"linestyle": dashes, "markersize": 2.5}
            _curve(above, records, f"{part}_loss", look)
            _curve(below, records, f"{part}_accuracy", look, 100)
        below.plot([], [], **line_style(style), label=setting)
    _dash_legend(below, epochs)
    begins = sorted({one for setting in epochs for one in (phases or {}).get(setting, ())})
    _plain_logarithm(above)
    label(above, "epoch", f"loss (nats, {above.get_yscale()} scale)")
    label(below, "epoch", "accuracy (%)")
    for ax in (above, below):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        for begin in begins:
            ax.axvline(begin + 0.5, color="0.4", linestyle=":", linewidth=1.2)
    head(figure, below, "Training")
    caption(figure, "Dotted line: the next phase of training begins." if begins else "")
    return save(figure, folder, name)


def loss_by_epoch(
    streams: Mapping[str, Records],
    folder: str | Path,
    name: str = "train_loss",
    levels: Mapping[str, float] | None = None,
) -> tuple[Path, Path]:
    """Draw the training loss against the epoch.

    Args:
        streams: the records of ``metrics.jsonl`` by setting.
        folder: where the files go.
        name: name of the files.
        levels: losses to compare with, by name, drawn as horizontal lines: ``rate_loss_levels`` for
            the cross entropy of every step's spikes.

    Raises:
        UserError: no record has an epoch and a training loss.
    """
    epochs = _by_epoch(streams, "train_loss")
    figure, (ax,) = new_figure()
    for style, (setting, records) in enumerate(epochs.items()):
        _curve(ax, records, "train_loss", line_style(style) | {"label": setting})
    for style, (level, value) in enumerate((levels or {}).items()):
        look: Style = {"linestyle": _DASHES[style % len(_DASHES)], "linewidth": 1.2}
        ax.axhline(value, color="0.25", label=f"{level}: {value:.4f}", **look)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    label(ax, "epoch", "training loss")
    head(figure, ax, "Training loss")
    return save(figure, folder, name)


def accuracy_by_epoch(
    streams: Mapping[str, Records], folder: str | Path, name: str = "test_acc"
) -> tuple[Path, Path]:
    """Draw validation accuracy against the epoch, and test accuracy where it was measured.

    The original draws test accuracy under this name. Here it is measured after every epoch only on
    demand, and the figure says that nothing was chosen by it.

    Raises:
        UserError: no record has an epoch and one of both accuracies.
    """
    epochs = _by_epoch(streams, *_ACCURACIES)
    figure, (ax,) = new_figure()
    for style, (setting, records) in enumerate(epochs.items()):
        for key, (dashes, face, _) in _ACCURACIES.items():
            look = line_style(style) | {"linestyle": dashes}
            _curve(ax, records, key, look | ({"markerfacecolor": face} if face else {}), 100)
        ax.plot([], [], **line_style(style), label=setting)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    label(ax, "epoch", "accuracy (%)")
    head(figure, ax, "Accuracy during training")
    said = [
        meaning
        for key, (*_, meaning) in _ACCURACIES.items()
        if any(one.get(key) is not None for records in epochs.values() for one in records)
    ]
    drawn = [float(value) for line in ax.get_lines() for value in np.asarray(line.get_ydata())]
    caption(figure, " ".join(said), zoom(ax, drawn))
    return save(figure, folder, name)


def rate_loss_levels(classes: int = 10) -> dict[str, float]:
    """Cross entropy of the softmax of one step's spikes (zeros and ones), for two outputs.

    An ideal output, where the right class alone spikes, costs ``ln(1 + (classes - 1) / e)``; a
    silent one costs ``ln(classes)``.

    Examples:
        >>> {name: round(loss, 6) for name, loss in rate_loss_levels().items()}
        {'ideal output': 1.46115, 'silent output': 2.302585}
    """
    return {
        "ideal output": math.log(1 + (classes - 1) / math.e),
        "silent output": math.log(classes),
    }


def _by_epoch(streams: Mapping[str, Records], *keys: str) -> dict[str, Records]:
    """Records with an epoch by setting, of the settings where some have one of ``keys``."""
    by_setting: dict[str, Records] = {}
    for setting, stream in streams.items():
        records = [record for record in stream if "epoch" in record]
        measured = any(record.get(key) is not None for record in records for key in keys)
        if records and (measured or not keys):
            by_setting[setting] = records
    if not by_setting:
        what = f"an epoch and {' or '.join(keys)}" if keys else "an epoch"
        raise NothingToDrawError(f"no record with {what} in the metrics of {list(streams)}")
    return by_setting


def _curve(ax: Axes, records: Records, key: str, look: Style, factor: float = 1) -> None:
    """Draw one quantity of the records that have it."""
    points = [(one["epoch"], factor * one[key]) for one in records if one.get(key) is not None]
    if points:
        epochs, values = zip(*points, strict=True)
        ax.plot(epochs, values, **look, markevery=marks(len(points)))


def _dash_legend(ax: Axes, epochs: Mapping[str, Records]) -> None:
    """Say in the legend of ``ax`` whose images are drawn solid and dashed."""
    for part, (dashes, word, name) in _PARTS.items():
        fields = (f"{part}_loss", f"{part}_accuracy")
        every = (one for records in epochs.values() for one in records)
        if any(one.get(field) is not None for one in every for field in fields):
            ax.plot([], [], color="0.25", linestyle=dashes, label=f"{name} images ({word})")


def _plain_logarithm(ax: Axes) -> None:
    """Scale y by its logarithm, if it has one, with ticks at 1, 2 and 5 as plain numbers."""
    if not any((np.asarray(line.get_ydata()) > 0).any() for line in ax.get_lines()):
        return
    ax.set_yscale("log")
    plain_numbers(ax.yaxis)
