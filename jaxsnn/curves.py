"""Figures of lines: accuracy under noise, and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from jaxsnn.plots import caption, head, label, line_style, new_figure, save, zoom
from jaxsnn.report import Results, natural_key
from jaxsnn.selection import NothingToDrawError, datasets, display_name, having

Records = Sequence[Mapping[str, Any]]


def noise(results: Sequence[Results], folder: str | Path) -> tuple[Path, Path]:
    """Draw accuracy against the share of deleted spikes: a dot per seed, a line through means."""
    shown = having(results, "noise")
    figure, (ax,) = new_figure()
    drawn: list[float] = []
    ratios: set[float] = set()
    for style, row in enumerate(shown):
        dots = _percentages(row)
        how = line_style(style)
        for ratio, values in dots:
            ax.plot([ratio] * len(values), values, **how, linestyle="", alpha=0.55)
            drawn += values
        means = [sum(values) / len(values) for _, values in dots]
        ax.plot([ratio for ratio, _ in dots], means, **how, markevery=[], label=display_name(row))
        ratios |= {ratio for ratio, _ in dots}
    ax.set_xticks(sorted(ratios))
    label(ax, "deleted spikes (%)", "test accuracy (%)")
    head(figure, ax, f"Deleted spikes of the encoding layer on {datasets(shown)}")
    caption(figure, "Marks: one seed each; lines: mean over seeds.", zoom(ax, drawn))
    return save(figure, folder, "noise")


def training(streams: Mapping[str, Records], folder: str | Path) -> tuple[Path, Path]:
    """Draw loss and accuracy against the epoch.

    Args:
        streams: the records of ``metrics.jsonl`` by setting; those with an ``epoch`` are drawn.
        folder: where the files go.

    Raises:
        ValueError: no record has an epoch.
    """
    epochs = {
        name: [record for record in streams[name] if "epoch" in record]
        for name in sorted(streams, key=natural_key)
    }
    epochs = {name: records for name, records in epochs.items() if records}
    if not epochs:
        raise NothingToDrawError(f"no record with an epoch in the metrics of {list(streams)}")
    figure, (left, right) = new_figure(columns=2, size=(9.0, 4.4))
    for style, (name, records) in enumerate(epochs.items()):
        for part, dashes in (("train", "--"), ("validation", "-")):
            how = line_style(style) | {"linestyle": dashes, "markersize": 3}
            _curve(left, records, f"{part}_loss", how)
            _curve(right, records, f"{part}_accuracy", how, 100)
        right.plot([], [], **line_style(style), label=name)
    _plain_logarithm(left)
    label(left, "epoch", f"loss (nats, {left.get_yscale()} scale)")
    label(right, "epoch", "accuracy (%)")
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    head(figure, right, "Training")
    caption(figure, "Solid: validation images; dashed: training images.")
    return save(figure, folder, "training")


def _percentages(row: Results) -> list[tuple[float, list[float]]]:
    """Return (ratio, accuracy of each seed) in percent, by ratio, the clean run among them."""
    entries = {100 * entry["ratio"]: entry["accuracy"] for entry in row.noise or []}
    if row.snn_accuracy is not None:
        entries.setdefault(0.0, [row.snn_accuracy])
    return [(ratio, [100 * value for value in entries[ratio]]) for ratio in sorted(entries)]


def _curve(ax: Axes, records: Records, key: str, how: Mapping[str, Any], factor: float = 1) -> None:
    """Draw one quantity of the records that have it."""
    points = [(one["epoch"], factor * one[key]) for one in records if one.get(key) is not None]
    if points:
        epochs, values = zip(*points, strict=True)
        ax.plot(epochs, values, **how)


def _plain_logarithm(ax: Axes) -> None:
    """Scale y by its logarithm, if it has one, with ticks at 1, 2 and 5 as plain numbers."""
    if not any((np.asarray(line.get_ydata()) > 0).any() for line in ax.get_lines()):
        return
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
