"""The closing table of a run: all settings of an experiment, one a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxsnn.io.terminal import show
from jaxsnn.report.results import Results
from jaxsnn.report.rows import energy_line

Render = Callable[[Results], str]


@dataclass(frozen=True)
class _Line:
    """A quantity: what was measured, and what the paper has."""

    ours: Render
    paper: Render = lambda row: ""


def table(rows: Sequence[Results], title: str = "Results") -> Table:
    """Build the closing summary: one line per quantity, the paper's value beside the measured one.

    Each setting has a column, and a second one where the paper has the setting. Quantities that no
    setting has are left out; a single missing value shows as a dash. Four settings, or two with
    their paper, fit into 80 characters.
    """
    result = Table(
        title=Text(title), caption=_CAPTION, box=SIMPLE_HEAD, caption_justify="left", pad_edge=False
    )
    result.add_column("setting", no_wrap=True)
    for row in rows:
        result.add_column(Text(row.setting), justify="right")
        if row.paper:
            result.add_column("paper", justify="right", style="dim")
    for name, line in _QUANTITIES.items():
        cells = [cell for row in rows for cell in _cells(line, row)]
        if any(cells):
            missing = "" if line.ours is _heading else "-"
            result.add_row(name, *(Text(cell or missing) for cell in cells))
    return result


def _cells(line: _Line, row: Results) -> list[str]:
    return [line.ours(row), line.paper(row)] if row.paper else [line.ours(row)]


def print_table(
    rows: Sequence[Results], title: str = "Results", console: Console | None = None
) -> None:
    """Print ``table``."""
    show(table(rows, title), console)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _differ(row: Results) -> str:
    return _count(row.mismatches["neurons"]) if row.mismatches else ""


def _labels_differ(row: Results) -> str:
    return _count(row.mismatches["predictions"]) if row.mismatches else ""


def _heading(row: Results) -> str:
    return " " if row.energy_pj_per_image else ""


def _energy(line: str) -> Render:
    def render(row: Results) -> str:
        entry = energy_line(row, line)
        snn, ann = entry.get("snn"), entry.get("ann")
        parts = ["" if one is None else f"{one / 1e6:.3g}" for one in (snn, ann)]
        return "/".join(parts) if entry else ""

    return render


def _break_even(line: str) -> Render:
    return lambda row: _rate(energy_line(row, line).get("break_even_rate"))


def _seconds(phase: str) -> Render:
    def render(row: Results) -> str:
        value = dict(row.seconds or {}).get(phase)
        return f"{value:,.1f}" if isinstance(value, float | int) else ""

    return render


def _in_time(name: str) -> Render:
    """Show a step of a simulation that has more than one."""
    return lambda row: _count(getattr(row, name)) if (row.steps or 0) > 1 else ""


def _accuracy(name: str) -> _Line:
    """An accuracy; beside the paper's, by how many points ours misses it."""

    def claimed(row: Results) -> str:
        paper, ours = _claimed(row, name), getattr(row, name)
        if paper is None or ours is None or ours >= paper:
            return _percent(paper)
        return f"{_percent(paper)}\nmissed -{100 * (paper - ours):.2f}"

    return _Line(lambda row: _percent(getattr(row, name)), claimed)


def _claimed(row: Results, name: str) -> float | None:
    return (row.paper or {}).get(name)


def _counted(name: str) -> _Line:
    return _Line(lambda row: _count(getattr(row, name)), lambda row: _count(_claimed(row, name)))


_QUANTITIES: dict[str, _Line] = {
    "epochs": _Line(lambda row: _count(row.epochs_run)),
    "float ANN": _accuracy("float_ann_accuracy"),
    "ANN": _accuracy("ann_accuracy"),
    "SNN": _accuracy("snn_accuracy"),
    "steps": _Line(lambda row: _count(row.steps)),
    "settles at step": _Line(
        _in_time("accuracy_settled_step"), _counted("accuracy_settled_step").paper
    ),
    "last spike at": _Line(_in_time("last_spike_step")),
    "equality": _Line(lambda row: row.equality or ""),
    "neurons differ": _Line(_differ),
    "labels differ": _Line(_labels_differ),
    "spikes/image": _counted("spikes_per_image"),
    "  negative": _Line(lambda row: _count(row.negative_spikes_per_image or None)),
    "spikes/neuron": _Line(lambda row: _rate(row.spikes_per_neuron)),
    "SOPs/image": _counted("sops_per_image"),
    "energy (µJ)": _Line(_heading),
    "  convention": _Line(_energy("convention")),
    "  integer": _Line(_energy("integer")),
    "  words moved": _Line(_energy("words")),
    "break-even rate": _Line(_heading),
    "  convention ": _Line(_break_even("convention")),
    "  integer ": _Line(_break_even("integer")),
    "  words moved ": _Line(_break_even("words")),
    "compile (s)": _Line(_seconds("compile")),
    "train (s)": _Line(_seconds("train")),
    "simulate (s)": _Line(_seconds("simulate")),
}
_CAPTION = (
    "differ: SNN against quantised ANN, over all images; energy: SNN/quantised ANN per image; "
    "break-even rate: spikes per neuron and image at which the SNN stops being cheaper"
)
