"""The closing table of a run: all settings of an experiment, one a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from jaxsnn.report.results import (
    Results,
)


def table(rows: Sequence[Results], title: str = "Results") -> Table:
    """Build the closing summary: one column per setting, one line per quantity.

    Quantities that no setting has are left out; a single missing value shows as a dash. Three or
    four settings fit into 80 characters.
    """
    result = Table(
        title=title, caption=_CAPTION, box=SIMPLE_HEAD, caption_justify="left", pad_edge=False
    )
    result.add_column("setting", no_wrap=True)
    for row in rows:
        result.add_column(row.setting, justify="right")
    for name, render in _QUANTITIES.items():
        cells = [render(row) for row in rows]
        if any(cells):
            result.add_row(name, *(cell or ("" if render is _heading else "-") for cell in cells))
    return result


def print_table(
    rows: Sequence[Results], title: str = "Results", console: Console | None = None
) -> None:
    """Print `table`."""
    (console or Console()).print(table(rows, title))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _difference(kind: str) -> Callable[[Results], str]:
    return lambda row: _count((row.mismatches or {}).get(kind))


def _heading(row: Results) -> str:
    return " " if row.energy_pj_per_image else ""


def _energy(line: str) -> Callable[[Results], str]:
    def render(row: Results) -> str:
        entry = (row.energy_pj_per_image or {}).get(line)
        return f"{entry['snn'] / 1e6:.3g}/{entry['ann'] / 1e6:.3g}" if entry else ""

    return render


def _break_even(line: str) -> Callable[[Results], str]:
    def render(row: Results) -> str:
        return _rate((row.energy_pj_per_image or {}).get(line, {}).get("break_even_rate"))

    return render


def _seconds(phase: str) -> Callable[[Results], str]:
    def render(row: Results) -> str:
        value = (row.seconds or {}).get(phase)
        return "" if value is None else f"{value:,.1f}"

    return render


def _in_time(name: str) -> Callable[[Results], str]:
    """Show a step of a simulation that has more than one."""
    return lambda row: _count(getattr(row, name)) if (row.steps or 0) > 1 else ""


def _paper(name: str) -> Callable[[Results], str]:
    """Show the paper's accuracy, and by how many points ours misses it."""

    def render(row: Results) -> str:
        claimed, ours = (row.paper or {}).get(name), getattr(row, name)
        if claimed is None or ours is None or ours >= claimed:
            return _percent(claimed)
        return f"{_percent(claimed)}\nmissed -{100 * (claimed - ours):.2f}"

    return render


_QUANTITIES: dict[str, Callable[[Results], str]] = {
    "epochs": lambda row: _count(row.epochs_run),
    "float ANN": lambda row: _percent(row.float_ann_accuracy),
    "ANN": lambda row: _percent(row.ann_accuracy),
    "SNN": lambda row: _percent(row.snn_accuracy),
    "steps": lambda row: _count(row.steps),
    "settles at step": _in_time("accuracy_settled_step"),
    "last spike at": _in_time("last_spike_step"),
    "equality": lambda row: row.equality or "",
    "neurons differ": _difference("neurons"),
    "labels differ": _difference("predictions"),
    "spikes/image": lambda row: _count(row.spikes_per_image),
    "  negative": lambda row: _count(row.negative_spikes_per_image or None),
    "spikes/neuron": lambda row: _rate(row.spikes_per_neuron),
    "SOPs/image": lambda row: _count(row.sops_per_image),
    "energy (µJ)": _heading,
    "  convention": _energy("convention"),
    "  integer": _energy("integer"),
    "  words moved": _energy("words"),
    "break-even rate": _heading,
    "  convention ": _break_even("convention"),
    "  integer ": _break_even("integer"),
    "  words moved ": _break_even("words"),
    "compile (s)": _seconds("compile"),
    "train (s)": _seconds("train"),
    "simulate (s)": _seconds("simulate"),
    "paper float ANN": _paper("float_ann_accuracy"),
    "paper ANN": _paper("ann_accuracy"),
    "paper SNN": _paper("snn_accuracy"),
    "paper settles at": lambda row: _count((row.paper or {}).get("accuracy_settled_step")),
}
_CAPTION = (
    "differ: SNN against quantised ANN, over all images; energy: SNN/quantised ANN per image; "
    "break-even rate: spikes per neuron and image at which the SNN stops being cheaper"
)
