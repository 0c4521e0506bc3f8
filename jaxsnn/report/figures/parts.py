"""Parts that every figure is made of: axes, bars with values, legends, files.

Figures are built as objects (``matplotlib.figure.Figure``), never through pyplot, so that nothing
global changes and no display is needed. What they look like says :mod:`.style` alone.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from jaxsnn.io.files import write_bytes
from jaxsnn.report.figures.style import (
    COLUMN,
    LABEL_SIZE,
    RC,
    TEXT_SIZE,
    TITLE_SIZE,
    bar_style,
    dress,
)


class Series(NamedTuple):
    """One series of bars: a value or None for every group, and how to draw it."""

    name: str
    values: Sequence[float | None]
    style: int = 0


Written: TypeAlias = Callable[[float], str]  # a value as the text above its bar
WHOLE: Written = "{:,.0f}".format


def three_digits(value: float) -> str:
    """A value with three significant digits, from a thousand on whole.

    >>> [three_digits(value) for value in (0.97213, 52.46, 1843.2)]
    ['0.972', '52.5', '1,843']
    """
    return WHOLE(value) if value >= 999.5 else f"{value:.3g}"


MOST_MARKS = 20  # more marks than this on one line would cover it
_LETTER, _ENTRY = 0.6, 1.5  # width of a letter in sizes of its text; inches of a legend's entry
_BAR, _GAP, _AROUND = 0.13, 0.12, 1.15  # inches of a bar, between groups, of all the rest


def new_figure(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (COLUMN, 2.6)
) -> tuple[Figure, list[Axes]]:
    """Make a figure of ``rows x columns`` axes (in reading order), ``size`` in inches."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=size, layout="constrained")
        axes: list[Axes] = [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for ax in axes:
        dress(ax)
    return figure, axes


def wrapped(figure: Figure, text: str, size: float) -> str:
    """Break a text of ``size`` points into lines that are no wider than the figure."""
    letters = int(72 * figure.get_size_inches()[0] / (_LETTER * size))
    return "\n".join(textwrap.wrap(text, letters))


def label(ax: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Name the axes with their units, and the panel."""
    ax.set_xlabel(x, fontsize=LABEL_SIZE)
    ax.set_ylabel(y, fontsize=LABEL_SIZE)
    ax.set_title(title, fontsize=LABEL_SIZE)


def caption(figure: Figure, *sentences: str) -> None:
    """Write what the reader must know below the figure; empty sentences are left out."""
    text = "\n".join(wrapped(figure, sentence, TEXT_SIZE) for sentence in sentences if sentence)
    if text:
        figure.supxlabel(text, fontsize=TEXT_SIZE, color="0.3")


def head(figure: Figure, ax: Axes, title: str) -> None:
    """Put the figure's title and below it the legend of ``ax`` above the panels.

    The title is the legend's own, because the two would overlap otherwise.
    """
    handles, names = ax.get_legend_handles_labels()
    if wrapped(figure, title, TITLE_SIZE) != title:
        title = title.replace(": ", ":\n", 1)
    legend = figure.legend(
        handles,
        [name.replace("\n", " ") for name in names],
        loc="outside upper center",
        ncols=min(len(names), max(1, int(figure.get_size_inches()[0] / _ENTRY))),
        fontsize=TEXT_SIZE,
        title="\n".join(wrapped(figure, line, TITLE_SIZE) for line in title.split("\n")),
        title_fontsize=TITLE_SIZE,
        frameon=False,
    )
    legend.get_title().set_multialignment("center")


def grouped_bars(
    ax: Axes, groups: Sequence[str], series: Sequence[Series], written: Written = WHOLE
) -> None:
    """Draw bars to the right, below one another within each group, with the values at their ends.

    A group gives its height to the series that have a value there, so that a missing value leaves
    no gap; a series without any value is left out.

    Args:
        ax: where to draw.
        groups: names beside the groups, from the top.
        series: one value or None per group.
        written: a value as text.
    """
    series = [one for one in series if any(value is not None for value in one.values)]
    for one in series:
        y: list[float] = []
        thick: list[float] = []
        lengths: list[float] = []
        for group, value in enumerate(one.values):
            if value is None:
                continue
            present = [other for other in series if other.values[group] is not None]
            height = 0.8 / max(len(present), min(len(series), 2))
            y.append(group + (present.index(one) - (len(present) - 1) / 2) * height)
            thick.append(0.92 * height)
            lengths.append(value)
        bars = ax.barh(y, lengths, thick, label=one.name, **bar_style(one.style))
        texts = [written(length) for length in lengths]
        ax.bar_label(bars, texts, padding=2, fontsize=TEXT_SIZE)
    dress(ax, values="x")
    ax.set_yticks(range(len(groups)), groups)
    ax.set_ylim(len(groups) - 0.5, -0.5)  # the first one on top
    ax.margins(x=0.16)  # for the numbers
    ax.xaxis.set_major_locator(MaxNLocator(4))
    if ax.get_xlim()[1] >= 1000:
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def height_of(groups: int, series: int, panels: int = 1) -> float:
    """Inches of a figure whose panels, below one another, hold groups of so many bars."""
    return panels * groups * (series * _BAR + _GAP) + 0.3 * panels + _AROUND


def stacked_bars(
    ax: Axes, groups: Sequence[str], series: Sequence[Series], written: Written = WHOLE
) -> None:
    """Draw one bar for every group, its values above one another, their sum above the bar.

    Arguments as of ``grouped_bars``; a value of None adds nothing to its bar.
    """
    totals = [0.0] * len(groups)
    for one in series:
        present = [(x, value) for x, value in enumerate(one.values) if value is not None]
        if not present:
            continue
        places, heights = [x for x, _ in present], [value for _, value in present]
        bottoms = [totals[x] for x in places]
        ax.bar(places, heights, 0.6, bottoms, label=one.name, **bar_style(one.style))
        for x, value in present:
            totals[x] += value
    for x, total in enumerate(totals):
        _above(ax, x, total, written(total))
    _finish_groups(ax, groups)


def _above(ax: Axes, x: float, y: float, text: str) -> None:
    """Write a text above a point."""
    ax.annotate(text, (x, y), (0, 3), textcoords="offset points", ha="center", fontsize=TEXT_SIZE)


def _finish_groups(ax: Axes, groups: Sequence[str]) -> None:
    """Name the groups of stacked bars and leave room around and above them."""
    ax.set_xticks(range(len(groups)), groups)
    margin = max(0.6, (3 - len(groups)) / 2)  # or a single group would fill the whole width
    ax.set_xlim(-margin, len(groups) - 1 + margin)
    ax.margins(y=0.12)
    if ax.get_ylim()[1] >= 1000:
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def zoom(ax: Axes, values: Sequence[float], low: float = 0.0, high: float = 100.0) -> str:
    """Limit the y axis to a range in which differences can be seen.

    Args:
        ax: the axes.
        values: what is drawn.
        low: lowest value possible.
        high: highest value possible.

    Returns:
        A sentence for the caption that says so, empty if the axis still starts at ``low``.

    Examples:
        >>> axes = new_figure()[1]
        >>> zoom(axes[0], [99.1, 99.5])
        'The y axis starts at 98.9, not at 0.'
    """
    spread = max(max(values) - min(values), (high - low) / 500)
    step = 10.0 ** math.floor(math.log10(spread))
    bottom = max(low, math.floor(round((min(values) - spread / 2) / step, 6)) * step)
    ax.set_ylim(bottom, min(max(values) + 0.35 * spread, high + 0.35 * spread))
    return f"The y axis starts at {bottom:g}, not at {low:g}." if bottom > low else ""


def percentages(ax: Axes) -> None:
    """Let horizontal bars of percentages begin at 0 and leave room for numbers behind 100."""
    ax.set_xlim(0, 118)
    ax.set_xticks(range(0, 101, 20))


def marks(points: int, logarithmic: bool = False) -> list[int]:
    """Indices of the points to mark, evenly spaced on their axis."""
    if logarithmic:
        return np.unique(np.geomspace(1, points, MOST_MARKS).astype(int) - 1).tolist()
    return list(range(0, points, -(-points // MOST_MARKS)))


def plain_numbers(axis: Axis) -> None:
    """Tick a logarithmic axis at 1, 2 and 5."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, folder: str | Path, name: str) -> tuple[Path, Path]:
    """Write ``<name>.png`` (200 dots per inch) and ``<name>.svg``, each atomically.

    The figure is laid out once, for the first file, and stays as it is from then on.

    Returns:
        The two paths.
    """
    paths: list[Path] = []
    # Equal figures shall be equal files: no date, and identifiers that do not depend on chance.
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        for kind, metadata in (("png", None), ("svg", {"Date": None})):
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=200, metadata=metadata)
            paths.append(write_bytes(Path(folder) / f"{name}.{kind}", content.getvalue()))
            figure.set_layout_engine(None)  # the other file has the same layout, not a new one
    return paths[0], paths[1]
