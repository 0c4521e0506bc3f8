"""An animation of one image: the spikes of every neuron settle on the levels of the quantised ANN.

Counts and levels are whole numbers, so the neurons of all layers lie on a grid; a dot's area says
how many lie at a place. Where count and level are equal, a neuron lies on the diagonal.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from jaxsnn.errors import UserError
from jaxsnn.io.files import write_bytes
from jaxsnn.report.figures.parts import label
from jaxsnn.report.figures.style import BLUE, LABEL_SIZE, ORANGE, TEXT_SIZE, dress

_SIZE, _DOTS_PER_INCH, _WIDTHS = (7.36, 2.48), 125, (0.8, 1, 1.5, 1.5)
_FIRST, _NEXT, _LAST = 1200, 500, 5000  # milliseconds of a frame
_COLOURS = 64  # of the shared palette: grey values, two colours, their blends with white
_LARGEST = 160.0  # area of the largest dot, in square points

Whole = NDArray[np.integer]


class Settling(NamedTuple):
    """What one image does in a network that settles.

    Attributes:
        image: grey values ``[H, W]``.
        counts: site -> net spike counts after every step, integers ``[T, ...]``.
        levels: site -> the quantised ANN's levels, integers ``[...]``.
        readout: sums of the readout after every step, ``[T, classes]``, in the units of the ANN.
        logits: the ANN's, ``[classes]``.
    """

    image: NDArray[np.generic]
    counts: Mapping[str, Whole]
    levels: Mapping[str, Whole]
    readout: NDArray[np.floating]
    logits: NDArray[np.floating]

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return len(self.readout)

    @property
    def neurons(self) -> int:
        """Number of neurons of all sites."""
        return sum(levels.size for levels in self.levels.values())

    def differing(self) -> list[int]:
        """Neurons whose count is not their level: before the first step, and after each."""
        after = sum(
            (self.counts[site] != levels).reshape(self.steps, -1).sum(1)
            for site, levels in self.levels.items()
        )
        before = sum(int((levels != 0).sum()) for levels in self.levels.values())
        return [before, *np.asarray(after).tolist()]


def settling(run: Settling, path: str | Path) -> Path:
    """Write the animation as a GIF: a frame before the first step, and one after each.

    Args:
        run: one image.
        path: where the file goes, written whole or not at all.

    Returns:
        The path. The file's comment says how many neurons there are and differ after each step.

    Raises:
        UserError: counts and levels that are not of the same sites and shapes.
    """
    for site in sorted({*run.counts, *run.levels}):
        counts, levels = (np.shape(part.get(site, ())) for part in (run.counts, run.levels))
        if counts != (run.steps, *levels):
            raise UserError(
                f"{site}: counts {counts} do not belong to levels {levels} and {run.steps} steps; "
                "give [steps, *shape] and [*shape] of the same sites"
            )
    frames = [_frame(run, step) for step in range(run.steps + 1)]
    palette = frames[-1].quantize(_COLOURS)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    content = io.BytesIO()
    frames[0].save(
        content,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=[_FIRST, *[_NEXT] * (run.steps - 1), _LAST],
        loop=0,
        optimize=True,
        comment=json.dumps({"neurons": run.neurons, "differ": run.differing()}),
    )
    return write_bytes(path, content.getvalue())


def _frame(run: Settling, step: int) -> Image.Image:
    """The whole figure after ``step`` steps (0: before the first)."""
    figure = Figure(figsize=_SIZE, dpi=_DOTS_PER_INCH, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    shown, readout, plane, course = figure.subplots(1, 4, width_ratios=_WIDTHS)
    shown.imshow(run.image, cmap="gray_r")
    shown.set(xticks=[], yticks=[])
    shown.set_title(f"time step {step}", fontsize=LABEL_SIZE, fontweight="bold")
    for ax in (readout, plane, course):
        dress(ax)
    _readout(readout, run, step)
    _plane(plane, run, step)
    _course(course, run, step)
    canvas.draw()
    return Image.fromarray(np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3]))


def _readout(ax: Axes, run: Settling, step: int) -> None:
    """The classes' sums so far as bars, and the ANN's logits as lines."""
    sums = run.readout[step - 1] if step else np.zeros_like(run.logits)
    classes = np.arange(len(run.logits))
    ax.barh(classes, sums, 0.7, color=BLUE)
    ax.vlines(run.logits, classes - 0.45, classes + 0.45, color=ORANGE, linewidth=2)
    every = np.concatenate([run.readout.ravel(), run.logits])
    ax.set_xlim(min(1.05 * float(every.min()), 0), 1.05 * float(every.max()))
    ax.set_yticks(classes)
    ax.invert_yaxis()
    label(ax, "readout", "class", "bars: SNN, lines: ANN")


def _plane(ax: Axes, run: Settling, step: int) -> None:
    """How many neurons have each pair of level and count; off the diagonal they differ."""
    levels = np.concatenate([run.levels[site].ravel() for site in run.levels])
    counts = np.concatenate([_after(run, site, step).ravel() for site in run.levels])
    pairs, numbers = np.unique(np.stack([levels, counts]), axis=1, return_counts=True)
    areas = _LARGEST * np.log1p(numbers) / np.log1p(run.neurons)
    colours = np.where(pairs[0] == pairs[1], BLUE, ORANGE)
    lowest = min(int(run.counts[site].min()) for site in run.counts)
    highest = max(int(run.counts[site].max()) for site in run.counts)
    ax.plot([lowest, highest], [lowest, highest], color="0.8", linewidth=1, zorder=1)
    ax.scatter(*pairs, s=areas, c=colours, linewidths=0, zorder=2)
    ax.set(xlim=(lowest - 0.9, highest + 0.9), ylim=(lowest - 0.9, highest + 0.9))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    label(
        ax,
        "level in the quantised ANN",
        "spikes so far (+1 and -1)",
        "count and level of every neuron",
    )


def _course(ax: Axes, run: Settling, step: int) -> None:
    """The number of neurons whose count is not their level, up to this step."""
    numbers = run.differing()
    ax.set_yscale("symlog", linthresh=1)
    ax.plot(range(step + 1), numbers[: step + 1], "o-", color=ORANGE, markersize=4)
    ax.set(xlim=(-0.5, run.steps + 0.5), ylim=(-0.2, 3 * max(numbers)))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    ax.set_yticks([0, 1, 10, 100, 1000, 10_000], ["0", "1", "10", "100", "1,000", "10,000"])
    ax.minorticks_off()
    ax.annotate(
        f"{numbers[step]:,} of {run.neurons:,}\nneurons differ",
        (0.97, 0.95),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=TEXT_SIZE,
    )
    label(ax, "time step", "", "neurons that differ")


def _after(run: Settling, site: str, step: int) -> Whole:
    return run.counts[site][step - 1] if step else np.zeros_like(run.levels[site])
