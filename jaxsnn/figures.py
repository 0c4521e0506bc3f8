"""The figures of an experiment, drawn from the files that its runs left behind.

`accuracy`, `sparsity` and `sops` are the three of the scatter-and-gather original; `noise`,
`training`, `layers` and `energy` are ours. Every function draws the settings that have what it
needs, writes PNG and SVG into `folder` and returns both paths; it raises ValueError if no setting
has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxsnn.curves import noise, training
from jaxsnn.energy import LINES
from jaxsnn.plots import (
    Series,
    caption,
    grouped_bars,
    head,
    label,
    new_figure,
    save,
    zoom,
)
from jaxsnn.report import Results, scan_metrics, scan_results
from jaxsnn.selection import (
    NothingToDrawError,
    datasets,
    display_name,
    excluded_synapses,
    float_accuracy,
    having,
    is_full_precision,
    neurons,
    spiking_layers,
    threshold_units,
)

Paths = tuple[Path, Path]

_LINE_NAMES = {
    "convention": "convention: float32 MAC / AC",
    "integer": "integer arithmetic",
    "words": "words moved",
}


def accuracy(results: Sequence[Results], folder: str | Path) -> Paths:
    """Draw test accuracy of every setting, ANN beside SNN, with the paper's value below."""
    shown = having(results, "ann_accuracy", "snn_accuracy", "float_ann_accuracy")
    full = [_percent(float_accuracy(row)) if is_full_precision(row) else None for row in shown]
    ann = [None if is_full_precision(row) else _percent(row.ann_accuracy) for row in shown]
    snn = [_percent(row.snn_accuracy) for row in shown]
    series = [Series("quantised ANN", ann, 1), Series("SNN", snn, 0), Series("float ANN", full, 2)]
    figure, (ax,) = new_figure()
    grouped_bars(ax, [display_name(row) + _paper(row) for row in shown], series, "{:.2f}")
    drawn = [value for one in series for value in one.values if value is not None]
    label(ax, y="test accuracy (%)")
    head(figure, ax, f"Accuracy on {datasets(shown)}")
    caption(figure, zoom(ax, drawn))
    return save(figure, folder, "accuracy")


def sparsity(results: Sequence[Results], folder: str | Path) -> Paths:
    """Draw spikes per image beside the physical neurons (neurons times threshold units)."""
    shown = having(results, "spikes_per_image", needed=("layers",))
    spikes = [row.spikes_per_image for row in shown]
    physical = [neurons(row) * (threshold_units(row.setting) or 1) for row in shown]
    names = [
        display_name(row) + (f"\n{spike / units:.3f} spikes per unit" if spike and units else "")
        for row, spike, units in zip(shown, spikes, physical, strict=True)
    ]
    figure, (ax,) = new_figure()
    grouped_bars(ax, names, [Series("spikes", spikes, 0), Series("physical neurons", physical, 1)])
    label(ax, y="number per image")
    head(figure, ax, f"Sparsity on {datasets(shown)}")
    caption(figure, "Physical neurons: neurons times threshold units per neuron ($2^k B$).")
    return save(figure, folder, "sparsity")


def sops(results: Sequence[Results], folder: str | Path) -> Paths:
    """Draw computing operations per image: on the chip, free of hardware, and the ANN's MACs.

    The chip needs two synapses for a ternary weight and one copy of every consumer per threshold
    unit, hence the factor ``2 * 2^k * B`` (scatter-and-gather settings only).
    """
    shown = having(results, "sops_per_image")
    free = [_millions(row.sops_per_image) for row in shown]
    chip: list[float | None] = []
    for row, value in zip(shown, free, strict=True):
        units = threshold_units(row.setting)
        chip.append(2 * units * value if units and value is not None else None)
    macs = [_millions(row.ann_macs_per_image) for row in shown]
    series = [
        Series("SOPs on the chip (factor $2\\cdot 2^k B$)", chip, 3),
        Series("SOPs", free, 0),
        Series("MACs of the ANN", macs, 1),
    ]
    figure, (ax,) = new_figure()
    grouped_bars(ax, [display_name(row) for row in shown], series, "{:.3g}")
    label(ax, y="operations per image (millions)")
    head(figure, ax, f"Computing operations on {datasets(shown)}")
    caption(figure, excluded_synapses(shown))
    return save(figure, folder, "sops")


def layers(results: Sequence[Results], folder: str | Path) -> Paths:
    """Draw firing rate, silent and saturated share of every layer."""
    shown = [row for row in having(results, "layers") if spiking_layers(row)]
    if not shown:
        raise NothingToDrawError("no layer of these results has a firing rate")
    names = list(dict.fromkeys(entry["name"] for row in shown for entry in spiking_layers(row)))
    size = (max(7.0, 1.1 * len(names) * max(1.0, len(shown) * 0.45)), 7.0)
    figure, axes = new_figure(rows=3, size=size)
    panels = (
        ("rate", "firing rate (%)"),
        ("silent", "silent neurons (%)"),
        ("saturated", "saturated neurons (%)"),
    )
    for ax, (key, title) in zip(axes, panels, strict=True):
        series: list[Series] = []
        for style, row in enumerate(shown):
            found = {entry["name"]: entry[key] for entry in spiking_layers(row)}
            series.append(
                Series(display_name(row), [_percent(found.get(name)) for name in names], style)
            )
        grouped_bars(ax, names, series, "{:.3g}")
        label(ax, y=title)
    head(figure, axes[0], f"Activity by layer on {datasets(shown)}")
    caption(
        figure,
        "Firing rate: spikes per neuron and threshold unit. Silent: without a spike; "
        "saturated: at the highest count.",
    )
    return save(figure, folder, "layers")


def energy(results: Sequence[Results], folder: str | Path) -> Paths:
    """Draw the three lines of the energy ledger, SNN beside quantised ANN."""
    shown = having(results, "energy_pj_per_image")
    shown = [row for row in shown if set(LINES) <= set(row.energy_pj_per_image or {})]
    if not shown:
        raise NothingToDrawError(f"no setting has the three lines of the ledger: {LINES}")
    figure, axes = new_figure(columns=3, size=(max(10.0, 3.6 * len(shown)), 4.6))
    for ax, line in zip(axes, LINES, strict=True):
        entries = [(row.energy_pj_per_image or {})[line] for row in shown]
        names = [row.setting + _rates(row, line) for row in shown]
        series = [
            Series("SNN", [entry["snn"] / 1e6 for entry in entries], 0),
            Series("quantised ANN", [entry["ann"] / 1e6 for entry in entries], 1),
        ]
        grouped_bars(ax, names, series, "{:.3g}")
        label(ax, y="energy per image (µJ)", title=_LINE_NAMES[line])
    head(figure, axes[0], f"Energy on {datasets(shown)}")
    caption(
        figure,
        "rate: spikes per neuron and image; limit: the rate at which the SNN stops being cheaper. "
        "Both sides pay the encoder.",
        f"Prices: {(shown[0].energy_pj_per_image or {}).get('source', 'not recorded')}.",
    )
    return save(figure, folder, "energy")


def draw_all(out: str | Path) -> dict[str, Paths]:
    """Draw what the folders below `out` have data for, into ``<out>/figs``.

    The training curves of each setting also go to its own ``figs`` folder.

    Returns:
        The paths by figure name (``training`` and ``<setting>/training`` among them).

    Raises:
        ValueError: there is nothing to draw at all.
    """
    out = Path(out)
    results, streams = scan_results(out), scan_metrics(out)
    drawn: dict[str, Paths] = {}
    for name, draw in FIGURES.items():
        _try(drawn, name, draw, results, out / "figs")
    _try(drawn, "training", training, streams, out / "figs")
    for setting, records in streams.items():
        own = out / setting / "figs"
        _try(drawn, f"{setting}/training", training, {setting: records}, own)
    if not drawn:
        raise NothingToDrawError(f"{out}: no results to draw; run an experiment first")
    return drawn


FIGURES: dict[str, Callable[[Sequence[Results], str | Path], Paths]] = {
    "accuracy": accuracy,
    "sparsity": sparsity,
    "sops": sops,
    "noise": noise,
    "layers": layers,
    "energy": energy,
}


def _try(
    drawn: dict[str, Paths], name: str, draw: Callable[[Any, Path], Paths], data: Any, folder: Path
) -> None:
    """Draw one figure unless nothing is there for it."""
    try:
        drawn[name] = draw(data, folder)
    except NothingToDrawError:
        return


def _paper(row: Results) -> str:
    value = (row.paper or {}).get(
        "float_ann_accuracy" if is_full_precision(row) else "snn_accuracy"
    )
    return "" if value is None else f"\npaper: {100 * value:.2f}"


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _millions(count: float | None) -> float | None:
    return None if count is None else count / 1e6


def _rates(row: Results, line: str) -> str:
    limit = (row.energy_pj_per_image or {})[line]["break_even_rate"]
    rate = row.spikes_per_neuron
    return "".join(
        f"\n{name} {value:.2f}"
        for name, value in (("rate", rate), ("limit", limit))
        if value is not None
    )
