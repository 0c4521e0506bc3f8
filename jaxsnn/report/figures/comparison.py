"""Figure of one network under every method: accuracy against time, accuracy, work, energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from jaxsnn.report.comparison import Comparison, Trial, in_short
from jaxsnn.report.figures.parts import (
    Series,
    caption,
    grouped_bars,
    height_of,
    label,
    marks,
    new_figure,
    percentages,
    plain_numbers,
    save,
    three_digits,
)
from jaxsnn.report.figures.style import PAGE, TEXT_SIZE, TITLE_SIZE, line_style
from jaxsnn.report.rows import NothingToDrawError

_MICROJOULE = 1e6  # in pJ


def compare(
    comparison: Comparison, folder: str | Path, name: str = "compare", *, title: str = ""
) -> tuple[Path, Path]:
    """Draw a comparison of methods: four panels, and below them what does not apply.

    Accuracy after every step, with the network as it is as a dotted line; accuracy quantised and
    spiking; synaptic operations and spikes; energy beside the quantised network's.

    Args:
        comparison: from :func:`jaxsnn.compare`.
        folder: where the files go.
        name: name of the files.
        title: title of the figure; empty: what is compared on how many images.

    Returns:
        The paths of PNG and SVG.

    Raises:
        NothingToDrawError: no method applies.
    """
    shown = [trial for trial in comparison.trials if trial.applies]
    if not shown:
        raise NothingToDrawError("no method applies to the network; there is nothing to draw")
    figure, axes = new_figure(2, 2, (PAGE, max(5.4, 2 * height_of(len(shown), 2))))
    names = _names(shown)
    _over_time(axes[0], comparison, shown, names)
    _accuracies(axes[1], comparison, shown, names)
    _work(axes[2], shown, names)
    _energy(axes[3], shown, names)
    figure.suptitle(
        title or f"One network, {len(shown)} ways to spike ({comparison.images:,} test images)",
        fontsize=TITLE_SIZE,
    )
    caption(
        figure,
        "Energy by the convention of the field: additions of the spiking network against float "
        "multiplications of the quantised one.",
        "Does not apply:" if comparison.reasons else "",
        *(f"{one}: {why}" for one, why in comparison.reasons.items()),
    )
    return save(figure, folder, name)


def _names(shown: Sequence[Trial]) -> list[str]:
    """Names beside bars: the method, and what tells it from others of the method."""
    words: list[str] = []
    for trial in shown:
        parts = trial.method.split("_")
        if len([one for one in shown if one.method == trial.method]) > 1:
            parts.append(_apart(trial, shown))
        words.append("\n".join(parts))
    return words


def _apart(trial: Trial, shown: Sequence[Trial]) -> str:
    """The first option that not all trials of a method have, "plain" where it has none.

    >>> some = [Trial(method="a", options=text) for text in ("b=5, slow=True", "b=5, c=2", "b=5")]
    >>> [_apart(one, some) for one in some]
    ['slow', 'c=2', 'plain']
    """
    same = [one for one in shown if one.method == trial.method]
    common = set(trial.options.split(", ")).intersection(*(one.options.split(", ") for one in same))
    others = [one for one in trial.options.split(", ") if one and one not in common]
    return others[0].removesuffix("=True") if others else "plain"


def _over_time(
    ax: Axes, comparison: Comparison, shown: Sequence[Trial], names: Sequence[str]
) -> None:
    """Accuracy after every step, on a logarithmic axis; an open mark where it has settled."""
    steps = max(trial.steps or 1 for trial in shown)
    for style, (trial, name) in enumerate(zip(shown, names, strict=True)):
        values = [100 * one for one in trial.accuracy_per_step]
        look = line_style(style)
        one_line = name.replace("\n", " ")
        marked = [mark for mark in marks(len(values), logarithmic=True) if mark < len(values)]
        ax.plot(range(1, len(values) + 1), values, label=one_line, markevery=marked, **look)
        if trial.settled_step:
            place = trial.settled_step
            look |= {"markersize": 8, "markerfacecolor": "white", "markeredgewidth": 1.1}
            ax.plot([place], [values[place - 1]], linestyle="", zorder=3, **look)
    reached = 100 * comparison.accuracy
    ax.axhline(reached, color="0.25", linestyle=(0, (1, 1)), label=f"as given: {reached:.2f} %")
    ax.set_xscale("log")
    plain_numbers(ax.xaxis)
    ax.set_xlim(0.9, max(steps, 2) * 1.15)
    ax.set_ylim(0, 103)
    title = "accuracy after every step; open mark: within 0.1 point"
    label(ax, "time step (log scale)", "test accuracy (%)", title)
    ax.legend(loc="lower right", fontsize=TEXT_SIZE, framealpha=0.9)


def _accuracies(
    ax: Axes, comparison: Comparison, shown: Sequence[Trial], names: Sequence[str]
) -> None:
    """Quantised and spiking; the network as given is a dotted line."""
    series = [
        Series("quantised", [_percent(trial.quantised_accuracy) for trial in shown], 1),
        Series("spiking", [_percent(trial.accuracy) for trial in shown], 0),
    ]
    grouped_bars(ax, names, series, "{:.2f}".format)
    ax.axvline(100 * comparison.accuracy, color="0.25", linestyle=(0, (1, 1)), zorder=0.5)
    percentages(ax)
    label(ax, x="test accuracy (%)", title="accuracy; dotted: as given")
    _legend_below(ax)


def _work(ax: Axes, shown: Sequence[Trial], names: Sequence[str]) -> None:
    series = [
        Series("spikes", [trial.spikes_per_image for trial in shown], 2),
        Series("synaptic operations", [trial.operations_per_image for trial in shown], 4),
    ]
    grouped_bars(ax, names, series, in_short)
    _logarithmic(ax, series)
    label(ax, x="per image (log scale)", title="spikes and synaptic operations")
    _legend_below(ax)


def _energy(ax: Axes, shown: Sequence[Trial], names: Sequence[str]) -> None:
    series = [
        Series("quantised network", [_microjoules(trial, "ann") for trial in shown], 1),
        Series("spiking network", [_microjoules(trial, "snn") for trial in shown], 0),
    ]
    grouped_bars(ax, names, series, three_digits)
    _logarithmic(ax, series)
    label(ax, x="µJ per image (log scale)", title="energy")
    _legend_below(ax)


def _logarithmic(ax: Axes, series: Sequence[Series]) -> None:
    """Let the axis begin below the smallest bar, with room for numbers behind the largest."""
    values = [value for one in series for value in one.values if value]
    if values:
        ax.set_xscale("log")
        ax.set_xlim(min(values) / 3, max(values) * 6)


def _legend_below(ax: Axes) -> None:
    """Make room for the legend below the last bars."""
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom + 0.12 * (bottom - top), top)
    ax.legend(loc="lower right", fontsize=TEXT_SIZE, frameon=False, ncols=2)


def _microjoules(trial: Trial, side: str) -> float | None:
    line = (trial.energy_pj_per_image or {}).get("convention")
    value = line.get(side) if isinstance(line, Mapping) else None
    return None if value is None else value / _MICROJOULE


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
