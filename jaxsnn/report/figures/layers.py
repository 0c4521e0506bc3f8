"""Figures of what a run recorded layer by layer: where the networks differ, and fine-tuning.

They are drawn from files beside a run's results; every function writes PNG and SVG into ``folder``
under ``name``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jaxsnn.report.figures.parts import (
    Series,
    caption,
    grouped_bars,
    head,
    height_of,
    label,
    new_figure,
    save,
    stacked_bars,
)
from jaxsnn.report.figures.style import COLUMN, LABEL_SIZE, PAGE, Style, line_style
from jaxsnn.report.results import Results
from jaxsnn.report.rows import (
    NothingToDrawError,
    display_name,
    drawing_order,
    figure_title,
    having,
    percent,
    precision_name,
    spiking_layers,
    threshold_units,
)
from jaxsnn.types import Json

Paths = tuple[Path, Path]
Records = Sequence[tuple[Results, Json]]  # results, and what a file beside them holds
PARTS = {  # of gaps.json, as the legend calls them
    "clipping": "clipping (ANN)",
    "quantisation": "quantisation (ANN)",
    "wrong_order": "wrong order of spikes",
    "inherited": "inherited",
}


def gaps(records: Records, folder: str | Path, name: str = "gaps") -> Paths:
    """Draw where each layer departs from its unquantised activations, from ``gaps.json``.

    Args:
        records: results of one network, each with the content of the file: a dictionary with
            ``site`` and the four parts (:class:`jaxsnn.gaps.Gap`) for every layer.
        folder: where to write.
        name: of the files.

    Raises:
        NothingToDrawError: no file has a layer.
    """
    shown = _recorded(records, "gaps.json", lambda content: content)
    longest = max(len(split) for _, split in shown)
    size = (max(COLUMN, 0.62 * longest + 0.6), 1.3 + 1.6 * len(shown))
    figure, axes = new_figure(rows=len(shown), size=size)
    for ax, (row, split) in zip(axes, shown, strict=True):
        sites = [entry["site"] for entry in split]
        series = [
            Series(title, [percent(entry[part]) for entry in split], style)
            for style, (part, title) in zip((2, 1, 3, 4), PARTS.items(), strict=True)
        ]
        stacked_bars(ax, sites, series, "{:.2g}".format)
        label(ax, y="mean error (% of the clip)", title=precision_name(row))
    head(figure, axes[0], figure_title("Where the networks differ", [row for row, _ in shown]))
    caption(figure, "Signed network after T steps. The parts may cancel: their sum is a bound.")
    return save(figure, folder, name)


def finetune(records: Records, folder: str | Path, name: str = "finetune") -> Paths:
    """Draw layer-wise fine-tuning from ``finetune.json``: accuracy on training images, and loss.

    Args:
        records: results of one network, each with the content of the file.
        folder: where to write.
        name: of the files.

    Raises:
        NothingToDrawError: no file has a layer.
    """
    shown = _recorded(records, "finetune.json", lambda content: content["layers"])
    panels = [
        (field, title, scale)
        for field, title, scale in (
            ("accuracies", "accuracy on training images (%)", 100.0),
            ("losses", "mean squared difference", 1.0),
        )
        if any(layer[field] for _, content in shown for layer in content["layers"])
    ]
    sites = list(dict.fromkeys(one["site"] for _, c in shown for one in c["layers"]))
    size = (max(COLUMN, 0.62 * len(sites)), 1.1 + 1.7 * len(panels))
    figure, axes = new_figure(rows=len(panels), size=size)
    for ax, (field, title, scale) in zip(axes, panels, strict=True):
        for style, (row, content) in enumerate(shown):
            _layer_line(ax, sites, content["layers"], field, scale, style, precision_name(row))
        ax.set_xticks(range(len(sites)), sites)
        ax.set_xlim(-0.5, len(sites) - 0.5)
        ax.yaxis.set_major_locator(MaxNLocator(5))
        label(ax, y=title)
    axes[-1].set_xlabel("layer, in the order of tuning", fontsize=LABEL_SIZE)
    head(figure, axes[0], figure_title("Fine-tuning", [row for row, _ in shown]))
    kept = all(layer["kept"] for _, content in shown for layer in content["layers"])
    tested = [text for row, content in shown if (text := _tested(row, content))]
    caption(
        figure,
        f"Test accuracy: {'; '.join(tested)}." if tested else "",
        ""
        if kept
        else "Open: no epoch of the layer raised the accuracy, and it was left as it was.",
    )
    return save(figure, folder, name)


def _recorded(records: Records, file: str, layers: Callable[[Json], Json]) -> Records:
    """Records that have a layer, in drawing order."""
    drawable = [(row, content) for row, content in records if content and layers(content)]
    if not drawable:
        settings = ", ".join(row.setting for row, _ in records) or "none"
        raise NothingToDrawError(f"no setting has a layer in {file}; settings found: {settings}")
    return sorted(drawable, key=lambda record: drawing_order(record[0]))


def _layer_line(
    ax: Axes,
    sites: Sequence[str],
    layers: Sequence[Mapping[str, Json]],
    field: str,
    scale: float,
    style: int,
    name: str,
) -> None:
    """A line through every epoch of every layer; open marks where a layer was not changed."""
    points = _points(sites, layers, field)
    if not points:
        return
    x, y = [point[0] for point in points], [scale * point[1] for point in points]
    drawn = line_style(style)
    ax.plot(x, y, label=name, **drawn)
    lost = [(a, b) for a, b, (*_, kept) in zip(x, y, points, strict=True) if not kept]
    if lost:
        xs, ys = zip(*lost, strict=True)
        open_marks: Style = {**drawn, "linestyle": "", "markerfacecolor": "white"}
        ax.plot(xs, ys, **open_marks)


def _points(
    sites: Sequence[str], layers: Sequence[Mapping[str, Json]], field: str
) -> list[tuple[float, float, bool]]:
    """Place and value of every epoch of every layer, and whether the layer was changed."""
    return [
        (sites.index(layer["site"]) + 0.7 * _place(epoch, len(layer[field])), value, layer["kept"])
        for layer in layers
        for epoch, value in enumerate(layer[field], 1)
    ]


def _place(epoch: int, epochs: int) -> float:
    """Where an epoch stands, evenly around 0 and less than 1/2 from it.

    >>> [_place(epoch, 2) for epoch in (1, 2)], _place(1, 1)
    ([-0.25, 0.25], 0.0)
    """
    return (epoch - 0.5) / epochs - 0.5


def _tested(row: Results, content: Mapping[str, Json]) -> str:
    """The test accuracy before and after, where both were measured."""
    ends = [content.get(f"test_accuracy_{when}") for when in ("before", "after")]
    before, after = map(percent, ends)
    if before is None or after is None:
        return ""
    return f"{precision_name(row)}: {before:.2f} → {after:.2f} %"


_ACTIVITY = {
    "rate": "firing rate (%)",
    "silent": "silent neurons (%)",
    "saturated": "saturated neurons (%)",
}


def activity(results: Sequence[Results], folder: str | Path, name: str = "layers") -> Paths:
    """Draw firing rate, silent and saturated share of every layer."""
    shown = [row for row in having(results, "layers") if spiking_layers(row)]
    if not shown:
        raise NothingToDrawError("no layer of these results has a firing rate")
    names = list(dict.fromkeys(entry["name"] for row in shown for entry in spiking_layers(row)))
    recorded = {
        key
        for row in shown
        for entry in spiking_layers(row)
        for key in entry
        if entry[key] is not None
    }
    panels = [(key, title) for key, title in _ACTIVITY.items() if key in recorded]
    size = (PAGE, height_of(len(names), len(shown)))
    figure, axes = new_figure(columns=len(panels), size=size)
    for ax, (key, title) in zip(axes, panels, strict=True):
        series: list[Series] = []
        for style, row in enumerate(shown):
            by_layer: dict[str, float | None] = {
                entry["name"]: entry[key] for entry in spiking_layers(row)
            }
            values = [percent(by_layer.get(layer)) for layer in names]
            series.append(Series(display_name(row), values, style))
        if key == "rate" and any(value and value > 100 for one in series for value in one.values):
            title, series = "spikes per neuron", [_unscaled(one) for one in series]
        grouped_bars(ax, names, series, _short)
        label(ax, x=title)
    head(figure, axes[0], figure_title("Activity by layer", shown))
    caption(
        figure,
        "Firing rate: spikes per neuron"
        + (" and threshold unit" if any(threshold_units(row) for row in shown) else "")
        + ". Silent: without a spike"
        + ("; saturated: at the highest count." if "saturated" in recorded else "."),
    )
    return save(figure, folder, name)


def _short(value: float) -> str:
    """A value that finds room at the end of a bar.

    >>> [_short(value) for value in (0.0, 0.000946, 0.0732, 61.23)]
    ['0', '<0.01', '0.073', '61.2']
    """
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:.2g}" if value < 1 else f"{value:.3g}"


def _unscaled(series: Series) -> Series:
    """Percentages as plain numbers: many spikes of a neuron are no share of anything."""
    values = [None if value is None else value / 100 for value in series.values]
    return series._replace(values=values)
