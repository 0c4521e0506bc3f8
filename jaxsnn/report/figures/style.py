"""The one style of all figures: colours, marks, hatches, sizes of text, what a panel looks like.

The colours are those of M. Okabe and K. Ito (2008), which stay apart for colour-blind readers and,
with the marks and hatches, in a greyscale print. Sizes are in points at the size of a column.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, RED, SKY, PURPLE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#CC79A7",
)
COLOURS = (BLUE, ORANGE, GREEN, RED, SKY, PURPLE)
MARKERS = ("o", "s", "^", "D", "v", "P")
HATCHES = ("", "//", "..", "xx", "\\\\", "++")
TEXT_SIZE, LABEL_SIZE, TITLE_SIZE = 9, 10, 12

Style: TypeAlias = dict[str, Any]  # keyword arguments of matplotlib, by name


def dress(ax: Axes) -> None:
    """Give axes the look of all figures."""
    ax.tick_params(labelsize=TEXT_SIZE)
    ax.grid(axis="y", color="0.88", linewidth=0.8)
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
        "markersize": 5,
    }
