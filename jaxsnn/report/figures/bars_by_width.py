"""Bar figures of the variants of one network: what each costs and how right it is, width by width.

A variant is another way to run a converted network (unsigned, signed, settling, fine-tuned); those
of a result stand in its field ``variants``. Like those of :mod:`jaxsnn.report.figures.bars`, every
function writes PNG and SVG into ``folder`` under ``name``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from jaxsnn.report.figures.parts import (
    Series,
    caption,
    grouped_bars,
    head,
    height_of,
    label,
    new_figure,
    percentages,
    save,
    three_digits,
)
from jaxsnn.report.figures.style import COLUMN, LABEL_SIZE
from jaxsnn.report.results import Results
from jaxsnn.report.rows import (
    NothingToDrawError,
    by_network,
    datasets,
    drawing_order,
    figure_title,
    full_precision_value,
    having,
    network_title,
    neurons,
    percent,
    precision_name,
)
from jaxsnn.report.variants import PAPER, VARIANTS

Paths = tuple[Path, Path]

_STYLES = {"unsigned": 3, "signed": 0, "fine-tuned": 2, "settling": 4}  # colour and hatch
_NUMBER = 16  # per cent of accuracy that a number takes, and the distance from its bar


def accuracy(results: Sequence[Results], folder: str | Path, name: str = "accuracy") -> Paths:
    """Draw the accuracy of ANN and variants for every width, the paper's as a mark on the bar.

    Bars begin at 0, since their lengths are compared; small differences are read from numbers.
    """
    shown = having(results, "ann_accuracy", "variants")
    full = {key: full_precision_value(rows) for key, rows in by_network(results).items()}
    figure, panels = _panels(shown, 1 + len(VARIANTS))
    marked = 0
    for (ax, rows), key in zip(panels, by_network(shown), strict=True):
        ann = [percent(row.ann_accuracy) for row in rows]
        series = [Series("quantised ANN", ann, 1), *_of_variants(rows, "accuracy", 100)]
        grouped_bars(ax, [_width_name(row) for row in rows], series, "{:.2f}".format)
        _float_line(ax, full.get(key))
        label(ax, x="test accuracy (%)", title=ax.get_title())
        percentages(ax)
        marked += _paper_marks(ax, rows)
    head(figure, panels[0][0], figure_title("Accuracy", shown))
    ends = "T: time steps for which the input is shown; settling runs on until all are silent."
    caption(figure, ends, "Black mark: the paper's accuracy." if marked else "")
    return save(figure, folder, name)


def sparsity(results: Sequence[Results], folder: str | Path, name: str = "sparsity") -> Paths:
    """Draw spikes per image of every variant and width beside the number of neurons."""
    shown = having(results, "variants", needed=("variants", "layers"))
    counts = [max(map(neurons, rows)) for rows in by_network(shown).values()]
    return _beside(
        shown, "spikes_per_image", Series("neurons", counts, 1), ("Sparsity", "spikes", "neurons"),
        ("Positive and negative spikes of all hidden layers.",), Path(folder), name,
    )  # fmt: skip


def sops(results: Sequence[Results], folder: str | Path, name: str = "sops") -> Paths:
    """Draw synaptic operations per image of every variant beside the additions of the ANN.

    A multiply-accumulate counts as three additions, as in
    :func:`jaxsnn.report.figures.bars.sops_beside_macs`.
    """
    shown = having(results, "variants", needed=("variants", "ann_macs_per_image"))
    groups = by_network(shown).values()
    counts = [3 * max(row.ann_macs_per_image or 0 for row in rows) for rows in groups]
    sentences = (
        "3·MAC: a multiplication counts as two additions, the accumulation as one.",
        "The first layer is left out on both sides; the readout is counted.",
    )
    macs = Series("3·MAC of the ANN", counts, 1)
    subjects = ("Computing operations", "operations", "ANN")
    return _beside(shown, "sops_per_image", macs, subjects, sentences, Path(folder), name)


def _beside(
    shown: Sequence[Results],
    field: str,
    other: Series,
    subjects: tuple[str, str, str],
    sentences: Sequence[str],
    folder: Path,
    name: str,
) -> Paths:
    """Draw a count of every variant beside one that each network has once.

    Args:
        shown: results with variants.
        field: of an entry of ``variants``.
        other: a value for each network, in the order of ``by_network``.
        subjects: of the title, of the y axis, and the name below the other bar.
        sentences: of the caption.
        folder: where to write.
        name: of the files.
    """
    title, what, below = subjects
    if not any(value is not None for one in _of_variants(shown, field, 1) for value in one.values):
        raise NothingToDrawError(f"no setting has {what}; settings found: {len(shown)}")
    figure, panels = _panels(shown, len(VARIANTS))
    for (ax, rows), count in zip(panels, other.values, strict=True):
        highest = count or 0
        scale, word = (1e-6, "millions") if highest >= 1e6 else (1e-3, "thousands")
        series = [
            one._replace(values=[*one.values, None]) for one in _of_variants(rows, field, scale)
        ]
        last = other._replace(values=[*(None for _ in rows), scale * highest])
        grouped_bars(ax, [*map(_width_name, rows), below], [*series, last], three_digits)
        label(ax, x=f"{what} per image ({word})", title=ax.get_title())
    head(figure, panels[0][0], figure_title(title, shown))
    caption(figure, *sentences)
    return save(figure, folder, name)


# ---------------------------------------------------------------- parts


def _panels(shown: Sequence[Results], bars: int) -> tuple[Figure, list[tuple[Axes, list[Results]]]]:
    """A figure with a panel for each network, below one another."""
    groups = [sorted(rows, key=drawing_order) for rows in by_network(shown).values()]
    height = height_of(max(map(len, groups)) + 1, bars, len(groups))
    figure, axes = new_figure(rows=len(groups), size=(COLUMN, height))
    for ax, rows in zip(axes, groups, strict=True):
        if len(groups) > 1:
            ax.set_title(f"{network_title(rows[0])} on {datasets(rows)}", fontsize=LABEL_SIZE)
    return figure, list(zip(axes, groups, strict=True))


def _width_name(row: Results) -> str:
    """Precision and, on a line of its own, the steps of the signed or the unsigned network."""
    shown = [one for kind in ("signed", "unsigned") if (one := row.find(kind)) is not None]
    steps = next((one.steps for one in shown if one.steps is not None), None)
    return precision_name(row) + ("" if steps is None else f"\nT = {steps}")


def _float_line(ax: Axes, value: float | None) -> None:
    """Draw the accuracy of the float ANN as a line, with its number in the legend."""
    if value is not None:
        name = f"float ANN: {value:.2f}"
        ax.axvline(value, color="0.3", linestyle="--", linewidth=1, zorder=0.5, label=name)


def _of_variants(rows: Sequence[Results], field: str, scale: float) -> list[Series]:
    """A series for each variant: its field, times ``scale``."""
    series: list[Series] = []
    for name in VARIANTS:
        values: list[float | None] = [getattr(row.find(name), field, None) for row in rows]
        scaled = [None if value is None else scale * value for value in values]
        series.append(Series(name, scaled, _STYLES[name]))
    return series


def _paper(row: Results, key: str) -> float | None:
    return percent((row.paper or {}).get(key))


def _paper_marks(ax: Axes, rows: Sequence[Results]) -> int:
    """Mark the paper's accuracies on the bars; a bar's number goes behind a mark that it meets.

    Returns:
        How many marks there are.
    """
    marked = 0
    numbers = iter([text for text in ax.texts if isinstance(text, Annotation)])
    for container in ax.containers:
        key = PAPER.get(str(container.get_label()), "")
        for bar in cast("BarContainer", container).patches:
            middle, number = bar.get_y() + bar.get_height() / 2, next(numbers)
            number.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.8})
            value = _paper(rows[round(middle)], key)
            if value is None:
                continue
            marked += 1
            half = bar.get_height() / 2
            ax.plot([value] * 2, [middle - half, middle + half], color="black", linewidth=1.6)
            if 0 < value - bar.get_width() < _NUMBER:
                number.xy = (value, middle)
    return marked
