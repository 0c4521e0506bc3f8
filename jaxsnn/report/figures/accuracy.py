"""Figures of lines: accuracy against time, and under noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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
    wrapped,
    zoom,
)
from jaxsnn.report.figures.style import COLUMN, TEXT_SIZE, TITLE_SIZE, Style, line_style
from jaxsnn.report.results import Results
from jaxsnn.report.rows import (
    by_network,
    datasets,
    display_name,
    drawing_order,
    figure_title,
    final_values,
    full_precision_value,
    having,
    network_title,
    paper_over_time,
    per_step,
    precision_name,
    settled_step,
)
from jaxsnn.types import Json

Records = Sequence[Mapping[str, Json]]

_PER_PRECISION = ("o", "*", "^", "s", "D", "v")  # k = 0, 1, 2 as in the original
_DASHES = ("-", (0, (6, 2)), "-.", ":")
_APART = 0.012  # of the axis: between the intervals of two networks, which would hide each other
_MARGIN, _ENTRY, _FREE = 0.06, 0.12, 0.3  # of a panel: height of a legend, what is left of it
_LONG = 30  # more steps than this would press the rise of the accuracy into a corner


def accuracy_over_time(
    results: Sequence[Results], folder: str | Path, name: str = "accuracy"
) -> tuple[Path, Path]:
    """Draw test accuracy after every time step, one network a column, its end enlarged below.

    A horizontal line is the full-precision ANN. The legend says the final accuracy and the step
    from which it stays there, which an open mark shows on the line.
    """
    having(results, "accuracy_per_step")
    groups = [
        rows for rows in by_network(results).values() if any(row.accuracy_per_step for row in rows)
    ]
    across = len(groups)
    figure, axes = new_figure(2, across, (COLUMN * across, 4.8))
    for number, group in enumerate(groups):
        whole, close = axes[number], axes[number + across]
        long = _longest(group) > _LONG
        _against_time(whole, group, logarithmic=long)
        _against_time(close, group, logarithmic=False)
        title = f"{network_title(group[0])} on {datasets(group)}" if across > 1 else "all steps"
        label(whole, "time step (log scale)" if long else "time step", "test accuracy (%)", title)
        label(close, "time step", "test accuracy (%)", "enlarged")
        whole.set_ylim(0, 103)
        zoom(close, final_values(group) + _late_values(group))
        close.set_ylim(top=min(close.get_ylim()[1], 103))
        _legend(whole, group)
    title = figure_title("Accuracy against time", [row for group in groups for row in group])
    figure.suptitle(wrapped(figure, title, TITLE_SIZE), fontsize=TITLE_SIZE)
    caption(
        figure,
        "Large open mark: the step from which the accuracy stays at its final value."
        if any(settled_step(row) for group in groups for row in group)
        else "",
        *map(paper_over_time, groups),
    )
    return save(figure, folder, name)


def noise(
    results: Sequence[Results],
    folder: str | Path,
    name: str = "noise",
    *,
    axis: str = "noise ratio (%)",
    title: str = "Noise",
    meaning: str = "",
) -> tuple[Path, Path]:
    """Draw accuracy against the noise ratio: a line through means, an interval over the seeds.

    Args:
        results: with the field ``noise``.
        folder: where to write.
        name: of the files.
        axis: what the ratio is, below the axis.
        title: what is disturbed.
        meaning: a sentence of the caption.
    """
    shown = having(results, "noise")
    figure, (ax,) = new_figure(size=(COLUMN, 3.4))
    drawn: list[float] = []
    ratios: set[float] = set()
    apart = _APART * max(ratio for row in shown for ratio, _ in _percentages(row))
    for style, row in enumerate(shown):
        measured = _percentages(row)
        means = [sum(values) / len(values) for _, values in measured]
        reach = [
            [mean - min(values) for mean, (_, values) in zip(means, measured, strict=True)],
            [max(values) - mean for mean, (_, values) in zip(means, measured, strict=True)],
        ]
        aside = (style - (len(shown) - 1) / 2) * apart
        at = [ratio + aside for ratio, _ in measured]
        ax.errorbar(at, means, reach, **line_style(style), capsize=2, label=display_name(row))
        drawn += [value for _, values in measured for value in values]
        ratios |= {ratio for ratio, _ in measured}
    ax.set_xticks(sorted(ratios))
    label(ax, axis, "test accuracy (%)")
    head(figure, ax, figure_title(title, shown))
    seeds = "Marks: mean over seeds; intervals: lowest to highest seed."
    caption(figure, seeds, meaning, zoom(ax, drawn))
    return save(figure, folder, name)


def _against_time(ax: Axes, group: Sequence[Results], logarithmic: bool) -> None:
    """Draw the accuracies of one network, and its full-precision ANN as a horizontal line."""
    steps = _longest(group)
    marked = set(marks(steps, logarithmic))
    shown = [row for row in sorted(group, key=drawing_order) if row.accuracy_per_step]
    for place, row in enumerate(shown):
        values, step = per_step(row), settled_step(row)
        bits = place if row.settings.k is None else row.settings.k  # those without k differ, too
        look: Style = line_style(bits)
        look["marker"] = _PER_PRECISION[bits % len(_PER_PRECISION)]
        line: Style = {"linestyle": _DASHES[bits % len(_DASHES)], "markersize": 4}
        line["markevery"] = sorted(mark for mark in marked if mark < len(values))
        ended = f", settles at step {step}" if step else ", not settled"
        ended = "" if row.accuracy_settled_step is None else ended
        line["label"] = f"{precision_name(row)}: {values[-1]:.2f} %{ended}"
        ax.plot(range(1, len(values) + 1), values, **(look | line))
        if step:
            look |= {"markersize": 8, "markerfacecolor": "white", "markeredgewidth": 1.1}
            ax.plot([step], [values[step - 1]], **look, linestyle="", zorder=3)
    full = full_precision_value(group)
    if full is not None:
        name = f"full-precision ANN: {full:.2f} %"
        ax.axhline(full, color="0.25", linestyle=(0, (1, 1)), label=name)
    _time_axis(ax, steps, logarithmic)


def _late_values(group: Sequence[Results]) -> list[float]:
    """Accuracies of the second half of all steps, so that a wavering end is seen whole."""
    return [value for row in group for value in per_step(row)[_longest(group) // 2 :]]


def _longest(group: Sequence[Results]) -> int:
    return max(len(row.accuracy_per_step or []) for row in group)


def _time_axis(ax: Axes, steps: int, logarithmic: bool) -> None:
    """Ticks at whole steps from 1 on."""
    if logarithmic:
        ax.set_xscale("log")
        plain_numbers(ax.xaxis)
        ax.set_xlim(0.9, steps * 1.1)
        return
    ticks = MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]).tick_values(0, steps)
    ax.set_xticks(sorted({1, *(int(tick) for tick in ticks if 1 < tick <= steps)}))
    ax.set_xlim(1 - 0.03 * steps, steps * 1.03 + 0.2)


def _legend(ax: Axes, group: Sequence[Results]) -> None:
    """Put the legend at the lower right, or below the panel if a line passes there."""
    share = _MARGIN + _ENTRY * len(ax.get_legend_handles_labels()[1])  # of the axis, from below
    lowest, highest = ax.get_ylim()
    rises = [
        ax.transAxes.inverted().transform(ax.transData.transform((step + 1, value)))[0]
        for row in group
        for step, value in enumerate(per_step(row), start=1)
        if value < lowest + share * (highest - lowest)
    ]
    if all(across < _FREE for across in rises):
        ax.legend(loc="lower right", fontsize=TEXT_SIZE, framealpha=0.9)
    else:
        below: Style = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.28), "frameon": False}
        ax.legend(fontsize=TEXT_SIZE, **below)


def _percentages(row: Results) -> list[tuple[float, list[float]]]:
    """Return (ratio, accuracy of each seed) in percent, by ratio, the clean run among them."""
    entries = {100 * entry["ratio"]: entry["accuracy"] for entry in row.noise or []}
    if row.snn_accuracy is not None:
        entries.setdefault(0.0, [row.snn_accuracy])
    return [(ratio, [100 * value for value in entries[ratio]]) for ratio in sorted(entries)]
