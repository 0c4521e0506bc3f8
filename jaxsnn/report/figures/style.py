"""The one style of all figures: what ``style.mplstyle`` says, marks, hatches, widths of a page.

Marks and hatches keep the colours apart in a greyscale print. Sizes of text are in points at the
size of a column, widths in inches: a figure is drawn as wide as it is printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
from matplotlib.axes import Axes

RC = matplotlib.rc_params_from_file(
    Path(__file__).with_suffix(".mplstyle"), use_default_template=False
)
"""Settings of matplotlib."""

COLOURS: tuple[str, ...] = tuple(RC["axes.prop_cycle"].by_key()["color"])
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = COLOURS
MARKERS = ("o", "s", "^", "D", "v", "P")
HATCHES = ("", "//////", "....", "xxxxx", "\\\\\\\\\\\\", "++++")
TEXT_SIZE: float = RC["xtick.labelsize"]
LABEL_SIZE: float = RC["axes.labelsize"]
TITLE_SIZE: float = RC["figure.titlesize"]
COLUMN, PAGE = 3.4, 7.0  # inches

Style: TypeAlias = dict[str, Any]  # keyword arguments of matplotlib, by name


def dress(ax: Axes, values: str = "y") -> None:
    """Give axes the look of all figures, with grid lines across the axis of the values."""
    ax.tick_params(labelsize=TEXT_SIZE)
    ax.grid(visible=False)
    ax.grid(axis="x" if values == "x" else "y", color="0.88", linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def bar_style(style: int) -> Style:
    """Colour and hatch number ``style``; the hatch is drawn in white over the colour."""
    return {
        "color": COLOURS[style % len(COLOURS)],
        "hatch": HATCHES[style % len(HATCHES)],
        "edgecolor": "white",
        "linewidth": 0.0,
    }


def line_style(style: int) -> Style:
    """Colour and marker number ``style``."""
    return {
        "color": COLOURS[style % len(COLOURS)],
        "marker": MARKERS[style % len(MARKERS)],
        "markersize": RC["lines.markersize"],
        "linewidth": RC["lines.linewidth"],
    }
