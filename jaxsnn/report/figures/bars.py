"""Bar figures: accuracy, sparsity, computing operations, activity by layer, energy.

Every function draws the settings that have what it needs, writes PNG and SVG into ``folder`` under
``name`` and returns both paths; it raises UserError if no setting has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxsnn.report.energy import LINES
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
    stacked_bars,
    three_digits,
)
from jaxsnn.report.figures.style import COLUMN, LABEL_SIZE, PAGE
from jaxsnn.report.results import Results
from jaxsnn.report.rows import (
    NothingToDrawError,
    by_network,
    datasets,
    display_name,
    energy_line,
    excluded_synapses,
    figure_title,
    float_accuracy,
    having,
    is_full_precision,
    network_title,
    neurons,
    percent,
    precision_name,
    threshold_units,
)

Paths = tuple[Path, Path]
_LINE_NAMES = {
    "convention": "convention: float32 MAC / AC",
    "integer": "integer arithmetic",
    "words": "words moved",
}


def accuracy(results: Sequence[Results], folder: str | Path, name: str = "accuracy") -> Paths:
    """Draw test accuracy of every setting, ANN beside SNN, with the paper's value below.

    A bar's length is what is compared, so all begin at 0; small differences are read from numbers.
    """
    shown = having(results, "ann_accuracy", "snn_accuracy", "float_ann_accuracy")
    full = [percent(float_accuracy(row)) if is_full_precision(row) else None for row in shown]
    ann = [None if is_full_precision(row) else percent(row.ann_accuracy) for row in shown]
    snn = [percent(row.snn_accuracy) for row in shown]
    series = [Series("quantised ANN", ann, 1), Series("SNN", snn, 0), Series("float ANN", full, 2)]
    figure, (ax,) = new_figure(size=(COLUMN, _height(shown)))
    grouped_bars(ax, [display_name(row) + _paper(row) for row in shown], series, "{:.2f}".format)
    percentages(ax)
    label(ax, x="test accuracy (%)")
    head(figure, ax, figure_title("Accuracy", shown))
    return save(figure, folder, name)


def sparsity(results: Sequence[Results], folder: str | Path, name: str = "sparsity") -> Paths:
    """Draw spikes per image beside the physical neurons (neurons times threshold units)."""
    shown = having(results, "spikes_per_image", needed=("layers",))
    spikes = [row.spikes_per_image for row in shown]
    physical = [neurons(row) * (threshold_units(row) or 1) for row in shown]
    names = [
        display_name(row) + (f"\n{spike / units:.3f} spikes per unit" if spike and units else "")
        for row, spike, units in zip(shown, spikes, physical, strict=True)
    ]
    figure, (ax,) = new_figure(size=(COLUMN, _height(shown)))
    grouped_bars(ax, names, [Series("spikes", spikes, 0), Series("physical neurons", physical, 1)])
    label(ax, x="number per image")
    head(figure, ax, figure_title("Sparsity", shown))
    caption(figure, "Physical neurons: neurons times threshold units per neuron ($2^kB$).")
    return save(figure, folder, name)


def sops(results: Sequence[Results], folder: str | Path, name: str = "sops") -> Paths:
    """Draw computing operations per image: on the chip, free of hardware, and the ANN's MACs.

    The chip needs two synapses for a ternary weight and one copy of every consumer per threshold
    unit, hence the factor ``2 * 2^k * B`` (scatter-and-gather settings only).
    """
    shown = having(results, "sops_per_image")
    free = [_millions(row.sops_per_image) for row in shown]
    chip = [_millions_on_chip(row) for row in shown]
    macs = [_millions(row.ann_macs_per_image) for row in shown]
    series = [
        Series("SOPs on the chip", chip, 3),
        Series("SOPs", free, 0),
        Series("MACs of the ANN", macs, 1),
    ]
    figure, (ax,) = new_figure(size=(COLUMN, height_of(len(shown), 3)))
    grouped_bars(ax, [display_name(row) for row in shown], series, three_digits)
    label(ax, x="operations per image (millions)")
    head(figure, ax, figure_title("Computing operations", shown))
    copies = (
        "The chip takes $2\\cdot2^kB$ times as many: two synapses for a ternary weight, and a copy "
        "of them for each of a neuron's $2^kB$ threshold units."
    )
    caption(figure, copies if any(chip) else "", excluded_synapses(shown))
    return save(figure, folder, name)


def _millions_on_chip(row: Results) -> float | None:
    units, operations = threshold_units(row), _millions(row.sops_per_image)
    return 2 * units * operations if units and operations is not None else None


def signed_sparsity(
    results: Sequence[Results], folder: str | Path, name: str = "sparsity"
) -> Paths:
    """Draw positive and negative spikes per image, one above the other, beside the neurons."""
    parts = ("positive_spikes_per_image", "negative_spikes_per_image")
    shown = having(results, parts[0], needed=(*parts, "layers"))
    figure, panels = _panels(shown)
    for ax, rows in panels:
        positive, negative = ([getattr(row, part) for row in rows] for part in parts)
        count = max(map(neurons, rows))
        rates = [(p + n) / max(count, 1) for p, n in zip(positive, negative, strict=True)]
        names = [
            f"{precision_name(row)}\n{rate:.3f}" for row, rate in zip(rows, rates, strict=True)
        ]
        series = [
            Series("positive spikes", [*positive, None], 0),
            Series("negative spikes", [*negative, None], 1),
            Series("neurons", [*(None for _ in rows), count], 2),
        ]
        stacked_bars(ax, [*names, "neurons"], series)
        ax.set_ylabel("number per image", fontsize=LABEL_SIZE)
    head(figure, panels[0][0], figure_title("Sparsity", shown))
    caption(figure, "Above the bars: all spikes; below: spikes per neuron.")
    return save(figure, folder, name)


def sops_beside_macs(results: Sequence[Results], folder: str | Path, name: str = "sops") -> Paths:
    """Draw synaptic operations per image beside the additions that the ANN takes.

    The original counts a multiply-accumulate of the ANN as three operations: two additions for the
    multiplication, and the accumulation.
    """
    shown = having(results, "sops_per_image", needed=("sops_per_image", "ann_macs_per_image"))
    figure, panels = _panels(shown)
    for ax, rows in panels:
        _operations_panel(ax, rows)
    head(figure, panels[0][0], figure_title("Computing operations", shown))
    caption(
        figure,
        "3·MAC: a multiplication counts as two additions, the accumulation as one. Below the bars: "
        "share of it.",
        "The encoder is left out on both sides; the readout is counted.",
    )
    return save(figure, folder, name)


def _operations_panel(ax: Axes, rows: Sequence[Results]) -> None:
    ann = 3 * max(row.ann_macs_per_image or 0 for row in rows)
    counts = [row.sops_per_image or 0 for row in rows]
    scale, word = (1e6, "millions") if ann >= 1e6 else (1e3, "thousands")
    names = [
        f"{precision_name(row)}\n{100 * count / ann:.1f} %" if ann else precision_name(row)
        for row, count in zip(rows, counts, strict=True)
    ]
    series = [
        Series("SOPs", [*(count / scale for count in counts), None], 0),
        Series("3·MAC of the ANN", [*(None for _ in rows), ann / scale], 1),
    ]
    stacked_bars(ax, [*names, "ANN"], series, "{:,.4g}".format)
    ax.set_ylabel(f"operations per image ({word})", fontsize=LABEL_SIZE)


def energy(results: Sequence[Results], folder: str | Path, name: str = "energy") -> Paths:
    """Draw the three lines of the energy ledger, SNN beside quantised ANN if there is one."""
    shown = having(results, "energy_pj_per_image")
    shown = [row for row in shown if set(LINES) <= set(row.energy_pj_per_image or {})]
    if not shown:
        raise NothingToDrawError(f"no setting has the three lines of the ledger: {LINES}")
    figure, axes = new_figure(columns=3, size=(PAGE, _height(shown)))
    for ax, line in zip(axes, LINES, strict=True):
        _energy_panel(ax, shown, line)
    head(figure, axes[0], figure_title("Energy", shown))
    compared = any(energy_line(row, LINES[0])["ann"] is not None for row in shown)
    limit = "; limit: the rate at which the SNN stops being cheaper. Both sides pay the encoder."
    caption(
        figure,
        f"rate: spikes per neuron and image{limit if compared else '.'}",
        f"Prices: {(shown[0].energy_pj_per_image or {}).get('source', 'not recorded')}.",
    )
    return save(figure, folder, name)


def _energy_panel(ax: Axes, shown: Sequence[Results], line: str) -> None:
    entries = [energy_line(row, line) for row in shown]
    names = [row.setting + _rates(row, line) for row in shown]
    series = [
        Series("SNN", [_millions(entry["snn"]) for entry in entries], 0),
        Series("quantised ANN", [_millions(entry["ann"]) for entry in entries], 1),
    ]
    grouped_bars(ax, names, series, three_digits)
    label(ax, x="energy per image (µJ)", title=_LINE_NAMES[line])


def _panels(shown: Sequence[Results]) -> tuple[Figure, list[tuple[Axes, list[Results]]]]:
    """Make a figure with one panel per network, each with the results of that network."""
    groups = list(by_network(shown).values())
    figure, axes = new_figure(columns=len(groups), size=(COLUMN * len(groups), 3.4))
    for ax, rows in zip(axes, groups, strict=True):
        if len(groups) > 1:
            ax.set_title(f"{network_title(rows[0])} on {datasets(rows)}", fontsize=LABEL_SIZE)
    return figure, list(zip(axes, groups, strict=True))


def _height(shown: Sequence[Results]) -> float:
    """Of a figure with two bars, or two lines of text, a setting."""
    return height_of(len(shown), 2) + 0.12 * len(shown)


def _paper(row: Results) -> str:
    value = (row.paper or {}).get(
        "float_ann_accuracy" if is_full_precision(row) else "snn_accuracy"
    )
    return "" if value is None else f"\npaper: {100 * value:.2f}"


def _millions(count: float | None) -> float | None:
    return None if count is None else count / 1e6


def _rates(row: Results, line: str) -> str:
    limit = energy_line(row, line)["break_even_rate"]
    rate = row.spikes_per_neuron
    return "".join(
        f"\n{name} {value:.2f}"
        for name, value in (("rate", rate), ("limit", limit))
        if value is not None
    )
