"""Figures of lines: accuracy against time, accuracy under noise, and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from jaxsnn.plots import (
    TEXT_SIZE,
    TITLE_SIZE,
    caption,
    head,
    label,
    line_style,
    new_figure,
    save,
    zoom,
)
from jaxsnn.report import Results, natural_key
from jaxsnn.selection import (
    NothingToDrawError,
    by_network,
    datasets,
    display_name,
    drawing_order,
    figure_title,
    final_values,
    fractional_bits,
    full_precision_value,
    having,
    network_title,
    paper_over_time,
    per_step,
    precision_name,
    settled_step,
)

Records = Sequence[Mapping[str, Any]]

_PER_PRECISION = ("o", "*", "^", "s", "D", "v")  # k = 0, 1, 2 as in the original
_DASHES = ("-", (0, (6, 2)), "-.", ":")
_MARKS = 20  # more marks than this on one line would cover it
_LONG = 30  # more steps than this would press the rise of the accuracy into a corner
_NOISE = {  # axis, title and explanation by system
    "scatter_gather": ("deleted spikes (%)", "Deleted spikes of the encoding layer", ""),
    "negative_spikes": (
        "noise ratio r (%)",
        "Noise of the input",
        "Noise: every input value times 1 + r u, u uniform between -1/2 and 1/2.",
    ),
}


def accuracy_over_time(
    results: Sequence[Results], folder: str | Path, name: str = "accuracy"
) -> tuple[Path, Path]:
    """Draw test accuracy after every time step, one network a column, and its end enlarged.

    A horizontal line is the full-precision ANN. The legend says the final accuracy and the step
    from which it stays there, which an open mark shows on the line.
    """
    having(results, "accuracy_per_step")
    groups = [
        rows for rows in by_network(results).values() if any(row.accuracy_per_step for row in rows)
    ]
    across = len(groups)
    rows, columns, size = (1, 2, (10.0, 4.8)) if across == 1 else (2, across, (5.2 * across, 8.4))
    figure, axes = new_figure(rows, columns, size)
    for number, group in enumerate(groups):
        whole, close = axes[number], axes[number + across]
        long = _longest(group) > _LONG
        _against_time(whole, group, logarithmic=long)
        _against_time(close, group, logarithmic=False)
        title = f"{network_title(group[0])} on {datasets(group)}" if across > 1 else "all steps"
        label(whole, "time step (log scale)" if long else "time step", "test accuracy (%)", title)
        label(close, "time step", "test accuracy (%)", "enlarged")
        whole.set_ylim(0, 103)
        zoom(close, final_values(group))
        close.set_ylim(top=min(close.get_ylim()[1], 103))
        _legend(whole, group)
    title = figure_title("Accuracy against time", [row for group in groups for row in group])
    figure.suptitle(title, fontsize=TITLE_SIZE)
    caption(
        figure,
        "Large open mark: the step from which the accuracy stays at its final value.",
        *map(paper_over_time, groups),
    )
    return save(figure, folder, name)


def noise(results: Sequence[Results], folder: str | Path, name: str = "noise") -> tuple[Path, Path]:
    """Draw accuracy against the noise ratio: a dot per seed, a line through means."""
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
    axis, title, meaning = _NOISE.get(shown[0].system, _NOISE["scatter_gather"])
    label(ax, axis, "test accuracy (%)")
    head(figure, ax, figure_title(title, shown))
    caption(figure, "Marks: one seed each; lines: mean over seeds.", meaning, zoom(ax, drawn))
    return save(figure, folder, name)


def training(
    streams: Mapping[str, Records],
    folder: str | Path,
    name: str = "training",
    phases: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Path, Path]:
    """Draw loss and accuracy against the epoch.

    Args:
        streams: the records of ``metrics.jsonl`` by setting; those with an ``epoch`` are drawn.
        folder: where the files go.
        name: name of the files.
        phases: epochs before each further phase of training by setting, as of `scan_phases`; a
            dotted line shows where it begins.

    Raises:
        ValueError: no record has an epoch.
    """
    epochs = {
        setting: [record for record in streams[setting] if "epoch" in record]
        for setting in sorted(streams, key=natural_key)
    }
    epochs = {setting: records for setting, records in epochs.items() if records}
    if not epochs:
        raise NothingToDrawError(f"no record with an epoch in the metrics of {list(streams)}")
    figure, (left, right) = new_figure(columns=2, size=(9.0, 4.4))
    for style, (setting, records) in enumerate(epochs.items()):
        for part, dashes in (("train", "--"), ("validation", "-")):
            how = line_style(style) | {"linestyle": dashes, "markersize": 3}
            how["markevery"] = _marks(len(records))
            _curve(left, records, f"{part}_loss", how)
            _curve(right, records, f"{part}_accuracy", how, 100)
        right.plot([], [], **line_style(style), label=setting)
    begins = sorted({one for setting in epochs for one in (phases or {}).get(setting, ())})
    _plain_logarithm(left)
    label(left, "epoch", f"loss (nats, {left.get_yscale()} scale)")
    label(right, "epoch", "accuracy (%)")
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        for begin in begins:
            ax.axvline(begin + 0.5, color="0.4", linestyle=":", linewidth=1.2)
    head(figure, right, "Training")
    caption(
        figure,
        "Solid: validation images; dashed: training images.",
        "Dotted line: the next phase of training begins." if begins else "",
    )
    return save(figure, folder, name)


def _against_time(ax: Axes, group: Sequence[Results], logarithmic: bool) -> None:
    """Draw the accuracies of one network, and its full-precision ANN as a horizontal line."""
    steps = _longest(group)
    marks = set(_marks(steps, logarithmic))
    for row in sorted(group, key=drawing_order):
        values, step = per_step(row), settled_step(row)
        if not values:
            continue
        bits = fractional_bits(row.setting) or 0
        how: dict[str, Any] = line_style(bits)
        how["marker"] = _PER_PRECISION[bits % len(_PER_PRECISION)]
        line: dict[str, Any] = {"linestyle": _DASHES[bits % len(_DASHES)], "markersize": 6}
        line["markevery"] = sorted(mark for mark in marks if mark < len(values))
        ended = f"settles at step {step}" if step else "not settled"
        line["label"] = f"{precision_name(row)}: {values[-1]:.2f} %, {ended}"
        ax.plot(range(1, len(values) + 1), values, **(how | line))
        if step:
            how |= {"markersize": 12, "markerfacecolor": "white", "markeredgewidth": 1.6}
            ax.plot([step], [values[step - 1]], **how, linestyle="", zorder=3)
    full = full_precision_value(group)
    if full is not None:
        name = f"full-precision ANN: {full:.2f} %"
        ax.axhline(full, color="0.25", linestyle=(0, (1, 1)), label=name)
    _time_axis(ax, steps, logarithmic)


def _longest(group: Sequence[Results]) -> int:
    return max(len(row.accuracy_per_step or []) for row in group)


def _marks(points: int, logarithmic: bool = False) -> list[int]:
    """Indices of the points to mark, evenly spaced on their axis."""
    if logarithmic:
        return np.unique(np.geomspace(1, points, _MARKS).astype(int) - 1).tolist()
    return list(range(0, points, -(-points // _MARKS)))


def _time_axis(ax: Axes, steps: int, logarithmic: bool) -> None:
    """Ticks at whole steps from 1 on."""
    if logarithmic:
        ax.set_xscale("log")
        _plain_numbers(ax.xaxis)
        ax.set_xlim(0.9, steps * 1.1)
        return
    ticks = MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]).tick_values(0, steps)
    ax.set_xticks(sorted({1, *(int(tick) for tick in ticks if 1 < tick <= steps)}))
    ax.set_xlim(1 - 0.03 * steps, steps * 1.03 + 0.2)


def _legend(ax: Axes, group: Sequence[Results]) -> None:
    """Put the legend at the lower right, or where matplotlib finds room if a line passes there."""
    first, last = ax.get_xlim()
    low = [
        ax.transAxes.inverted().transform(ax.transData.transform((step, value)))
        for row in group
        for step, value in enumerate(per_step(row), start=1)
        if value < 30 and first <= step <= last
    ]
    free = all(across < 0.36 for across, _ in low)
    ax.legend(loc="lower right" if free else "best", fontsize=TEXT_SIZE, framealpha=0.9)


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
    _plain_numbers(ax.yaxis)


def _plain_numbers(axis: Axis) -> None:
    """Tick a logarithmic axis at 1, 2 and 5."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
