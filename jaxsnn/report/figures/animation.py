"""Animated bar charts of spike counts: how the readout makes up its mind, step by step.

The original shows one such GIF for each of five samples. Here matplotlib draws the chart once and
from then on only what moves, and every frame has the same palette, so that a GIF takes about a
second and some tens of kilobytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.container import BarContainer
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from PIL import Image

from jaxsnn.errors import UserError
from jaxsnn.io.files import write_bytes
from jaxsnn.report.figures.parts import caption, label, new_figure
from jaxsnn.report.figures.style import BLUE, ORANGE, TEXT_SIZE, TITLE_SIZE
from jaxsnn.types import Untyped

_SIZE, _DOTS_PER_INCH = (4.48, 2.88), 150
_SHORTEST = 20  # milliseconds; viewers slow down what is faster
_HOLD = 20  # the last frame stays this many times as long, to be read
_SHADES = {"black": 12, BLUE: 10, ORANGE: 10}  # steps from each colour to white


class _Chart(NamedTuple):
    """A chart whose still parts are drawn, and what moves in it."""

    canvas: FigureCanvasAgg
    still: Untyped
    bars: BarContainer
    numbers: list[Text]
    title: Text
    above: list[Artist]


def spike_bars(
    counts: np.ndarray,
    target: int,
    path: str | Path,
    *,
    milliseconds: int = 100,
    most_frames: int = 60,
) -> Path:
    """Write an animated GIF of the spike counts of the classes, growing over the time steps.

    The target class is orange and hatched, a count stands above its bar unless it is 0, the y axis
    is the same in all frames, and the last frame stays longer. A run of more than ``most_frames``
    steps is thinned evenly; its first and its last step are always shown. The file is written whole
    or not at all.

    Args:
        counts: integers [T, classes], spikes of the readout up to and including each step.
        target: the class of the sample.
        path: where the file goes.
        milliseconds: time of a frame, in tens of milliseconds as the format has it.
        most_frames: the largest number of frames, 2 or more.

    Returns:
        The path.

    Raises:
        UserError: the counts have another shape, are no whole numbers or fall from one step to the
            next; the target is no class; the time or number of frames is too small.
    """
    counts = _checked(counts, ("T", "classes"))
    classes = counts.shape[1]
    if not 0 <= target < classes:
        raise UserError(f"target is {target}; the counts have the classes 0 to {classes - 1}")
    if milliseconds < _SHORTEST or milliseconds % 10:
        raise UserError(f"milliseconds is {milliseconds}; give {_SHORTEST} or more, in tens")
    if most_frames < 2:
        raise UserError(f"most_frames is {most_frames}; give 2 or more")
    steps = _thinned(len(counts), most_frames)
    frames = list(_frames(counts, int(target), steps))
    content = io.BytesIO()
    frames[0].save(
        content,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=[*[milliseconds] * (len(frames) - 1), milliseconds * _HOLD],
        loop=0,
        optimize=True,  # only the pixels that change
    )
    return write_bytes(path, content.getvalue())


def spike_bar_files(
    counts: np.ndarray,
    targets: Sequence[int] | np.ndarray,
    folder: str | Path,
    *,
    milliseconds: int = 100,
    most_frames: int = 60,
) -> list[Path]:
    """Write ``spike_bar_{i}_target{y}.gif`` for every sample, named as in the original.

    Args:
        counts: integers [T, N, classes], cumulative spike counts of N samples.
        targets: [N], their classes.
        folder: where the files go.
        milliseconds: as of ``spike_bars``.
        most_frames: as of ``spike_bars``.

    Returns:
        The paths, in the order of the samples.

    Raises:
        UserError: as of ``spike_bars``, or there is not one target for each sample. A sample that
            is refused leaves the files of those before it.
    """
    counts = _checked(counts, ("T", "N", "classes"))
    classes = np.asarray(targets)
    if classes.shape != counts.shape[1:2] or classes.dtype.kind not in "iu":
        raise UserError(
            f"targets is {classes.dtype} {classes.shape}; give one whole number for each of the "
            f"{counts.shape[1]} samples"
        )
    return [
        spike_bars(
            counts[:, sample],
            target,
            Path(folder) / f"spike_bar_{sample}_target{target}.gif",
            milliseconds=milliseconds,
            most_frames=most_frames,
        )
        for sample, target in enumerate(classes.tolist())
    ]


def _checked(counts: np.ndarray, axes: tuple[str, ...]) -> np.ndarray:
    """Counts as int64, refused unless they are whole numbers that never fall along time."""
    values = np.asarray(counts)
    if values.ndim != len(axes) or 0 in values.shape:
        raise UserError(f"counts has shape {values.shape}; give [{', '.join(axes)}], none empty")
    if values.dtype.kind not in "iuf" or (values != np.round(values)).any():
        raise UserError(f"counts ({values.dtype}) holds no whole numbers; give counts of spikes")
    if not np.isfinite(values).all():
        raise UserError("counts holds an infinite value; give counts of spikes")
    whole = values.astype(np.int64)
    if whole[0].min() < 0 or (np.diff(whole, axis=0) < 0).any():
        raise UserError(
            f"counts {values.shape} falls along time or is negative; give the spikes up to each "
            "step, as np.cumsum(spikes, axis=0) has them"
        )
    return whole


def _thinned(steps: int, most: int) -> list[int]:
    """Indices of the steps shown, evenly spaced, first and last among them."""
    return np.unique(np.linspace(0, steps - 1, min(steps, most)).round().astype(int)).tolist()


def _frames(counts: np.ndarray, target: int, steps: Sequence[int]) -> Iterator[Image.Image]:
    """Draw the frames, one a step, in the shared palette."""
    palette = _palette()
    chart = _chart(counts.shape[1], target, int(counts.max()))
    renderer = chart.canvas.get_renderer()
    for step in steps:
        chart.canvas.restore_region(chart.still)
        chart.title.set_text(f"Spike counts after step {step + 1} of {len(counts)}")
        for bar, number, count in zip(
            chart.bars.patches, chart.numbers, counts[step].tolist(), strict=True
        ):
            bar.set_height(count)
            number.set_y(count)
            number.set_text(str(count or ""))
        for artist in (*chart.bars.patches, *chart.above, *chart.numbers, chart.title):
            artist.draw(renderer)
        pixels = np.asarray(chart.canvas.buffer_rgba())[..., :3]
        image = Image.fromarray(np.ascontiguousarray(pixels))
        yield image.quantize(palette=palette, dither=Image.Dither.NONE)


def _chart(classes: int, target: int, highest: int) -> _Chart:
    """Draw what stays: the axes, their labels and the caption."""
    figure, (ax,) = new_figure(size=_SIZE)
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DOTS_PER_INCH)
    bars = ax.bar(range(classes), [0] * classes, 0.7, color=BLUE, edgecolor="white", linewidth=0)
    bars.patches[target].set(facecolor=ORANGE, hatch="//")
    numbers = [
        ax.text(place, 0, "", ha="center", va="bottom", fontsize=TEXT_SIZE)
        for place in range(classes)
    ]
    ax.set_xticks(range(classes))
    ax.set_ylim(0, 1.12 * max(highest, 1))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    label(ax, "class", "spikes of the readout")
    title = ax.set_title("Spike counts after step", fontsize=TITLE_SIZE)
    caption(figure, f"Orange, hatched: the target class {target}.")
    for artist in (*bars.patches, *numbers, title):
        artist.set_animated(True)
    canvas.draw()
    still = cast("Untyped", canvas.copy_from_bbox(cast("Untyped", figure.bbox)))
    return _Chart(canvas, still, bars, numbers, title, [ax.spines["bottom"]])


def _palette() -> Image.Image:
    """Colours of the chart, each in even steps to white, as an image that lends its palette."""
    shades: list[np.ndarray] = []
    for colour, steps in _SHADES.items():
        blend = np.linspace(0, 1, steps)[:, None]
        shades.append((1 - blend) * np.asarray(to_rgb(colour)) + blend)
    image = Image.new("P", (1, 1))
    image.putpalette(np.rint(255 * np.concatenate(shades)).astype(np.uint8).ravel().tolist())
    return image
