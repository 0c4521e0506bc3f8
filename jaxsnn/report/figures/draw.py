"""The figures of an experiment, drawn from the files that its runs left behind.

Which figures a system has is the system's to say (``Figures``). ``noise``, ``training``, ``layers``
and ``energy`` are drawn for all of them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from jaxsnn.errors import UserError
from jaxsnn.io.files import read_json
from jaxsnn.report.figures import accuracy, bars, layers, training
from jaxsnn.report.recorded import read_finetune, read_gaps
from jaxsnn.report.results import Results
from jaxsnn.report.rows import NothingToDrawError, by_network
from jaxsnn.report.scan import Training, scan_folders, scan_trainings
from jaxsnn.types import Json

Paths = tuple[Path, Path]
Draw = Callable[[Sequence[Results], Path, str], Paths]
DrawRecords = Callable[[layers.Records, Path, str], Paths]
Folders = Mapping[Path, Results]

SHARED: Mapping[str, Draw] = {
    "noise": accuracy.noise,
    "layers": layers.activity,
    "energy": bars.energy,
}
T = TypeVar("T")

READ: Mapping[str, Callable[[Path], Json]] = {"gaps": read_gaps, "finetune": read_finetune}


@dataclass(frozen=True)
class Figures:
    """What a system draws beside the figures that all share, by the names of the files.

    Attributes:
        apart: of the results of one network; a name of ``SHARED`` takes its place.
        joined: of the results of several networks side by side.
        recorded: of the JSON files of these names beside the results of one network.
        trained: of the records of training, by setting.
    """

    apart: Mapping[str, Draw] = field(default_factory=dict[str, Draw])
    joined: Mapping[str, Draw] = field(default_factory=dict[str, Draw])
    recorded: Mapping[str, DrawRecords] = field(default_factory=dict[str, DrawRecords])
    trained: Mapping[str, Callable[..., Paths]] = field(
        default_factory=dict[str, Callable[..., Paths]]
    )


def draw_all(
    out: str | Path,
    figures: Mapping[str, Figures],
    also: Sequence[str | Path] = (),
    levels: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Paths]:
    """Draw what the folders below ``out`` have data for, into ``<out>/figs``.

    Results of one network go to ``accuracy``, ``sparsity`` and so on. Those of several are drawn
    apart, as ``accuracy_lenet`` and ``accuracy_mlp``, and where the system knows such figures side
    by side as ``accuracy``. The training curves of each setting also go to its own ``figs`` folder.

    Args:
        out: the folder of an experiment, with a folder for each setting.
        figures: what each system draws. Results of a system that is not among them get the shared
            figures alone, and a warning line.
        also: folders of other experiments of the same system, for example of another network.
        levels: losses that ``train_loss`` marks, by setting and name (``loss_by_epoch``).

    Returns:
        The paths by figure name (``training`` and ``<setting>/training`` among them).

    Raises:
        UserError: there is nothing to draw at all.
    """
    out = Path(out)
    folders: dict[Path, Results] = {}
    for place in dict.fromkeys((out, *map(Path, also))):
        folders |= scan_folders(place)
    drawn: dict[str, Paths] = {}
    systems = sorted({row.system for row in folders.values()})
    for system in systems:
        part = {folder: row for folder, row in folders.items() if row.system == system}
        suffix = f"_{system}" if len(systems) > 1 else ""
        declared = _declared(system, figures)
        _draw_system(drawn, declared, list(part.values()), out / "figs", suffix)
        _draw_records(drawn, declared, part, out / "figs", suffix)
    runs = scan_trainings(out)
    _draw_training(drawn, out, runs)
    for system in systems:
        trained = figures.get(system, Figures()).trained
        part = [run for run in runs if run.folder in folders]
        part = [run for run in part if folders[run.folder].system == system]
        _draw_losses(drawn, trained, out, part, levels or {})
    if not drawn:
        raise NothingToDrawError(f"{out}: no results to draw; run an experiment first")
    return drawn


def _declared(system: str, figures: Mapping[str, Figures]) -> Figures:
    if system not in figures:
        declared = ", ".join(sorted(figures)) or "none"
        print(
            f"warning: no figures of the system {system!r} are known, only those that all systems "
            f"share are drawn; known: {declared}",
            file=sys.stderr,
        )
    return figures.get(system, Figures())


def _draw_system(
    drawn: dict[str, Paths], figures: Figures, rows: Sequence[Results], folder: Path, suffix: str
) -> None:
    """Draw the figures of each network of a system, and those of all its networks together."""
    apart = {**SHARED, **figures.apart}
    networks = by_network(rows)
    for network, part in networks.items():
        end = suffix + (f"_{network}" if len(networks) > 1 else "")
        for name, draw in apart.items():
            _try(drawn, name + end, draw, part, folder)
    if len(networks) > 1:
        for name, draw in figures.joined.items():
            _try(drawn, name + suffix, draw, rows, folder)


def _draw_records(
    drawn: dict[str, Paths], figures: Figures, folders: Folders, to: Path, suffix: str
) -> None:
    """Draw what a system recorded beside its results, of each network."""
    for name, draw in figures.recorded.items():
        beside = [
            (row, content)
            for folder, row in folders.items()
            if (content := _beside(folder, name)) is not None
        ]
        networks = by_network([row for row, _ in beside])
        for network, rows in networks.items():
            part = [(row, content) for row, content in beside if any(row is one for one in rows)]
            end = suffix + (f"_{network}" if len(networks) > 1 else "")
            _try(drawn, name + end, draw, part, to)


def _beside(folder: Path, name: str) -> Json:
    """Content of a setting's ``<name>.json``, checked; None without one, or with a broken one."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    try:
        return READ.get(name, read_json)(path)
    except (OSError, UserError) as error:
        print(f"warning: left out: {error}", file=sys.stderr)
        return None


def _draw_training(drawn: dict[str, Paths], out: Path, runs: Sequence[Training]) -> None:
    """Draw the training of every network, and of each setting alone."""
    begins = {run.name: run.begins for run in runs}
    draw = functools.partial(training.training, phases=begins)
    networks = {run.network for run in runs} - {""}
    groups: dict[str, dict[str, training.Records]] = {}
    for run in runs:  # of a single network, a run that does not say its network is another of it
        network = run.network if len(networks) > 1 else ""
        groups.setdefault(network, {})[run.name] = run.records
    for network, part in sorted(groups.items()):
        key = f"training_{network}" if network else "training"
        _try(drawn, key, draw, part, out / "figs")
    for run in runs:
        _try(drawn, f"{run.name}/training", draw, {run.name: run.records}, run.folder / "figs")


def _draw_losses(
    drawn: dict[str, Paths],
    trained: Mapping[str, Callable[..., Paths]],
    out: Path,
    runs: Sequence[Training],
    levels: Mapping[str, Mapping[str, float]],
) -> None:
    """Draw what a system has of its own, of all its settings together and of each alone."""
    parts = [("", out, runs)] if runs else []
    parts += [(f"{run.name}/", run.folder, [run]) for run in runs]
    for where, folder, part in parts:
        streams = {run.name: run.records for run in part}
        marks = {level: value for run in part for level, value in levels.get(run.name, {}).items()}
        for name, draw in trained.items():
            marked = functools.partial(draw, levels=marks) if name == "train_loss" else draw
            _try(drawn, where + name, marked, streams, folder / "figs")


def _try(
    drawn: dict[str, Paths], key: str, draw: Callable[[T, Path, str], Paths], data: T, to: Path
) -> None:
    """Draw one figure, named as the last part of ``key``, unless nothing is there for it."""
    try:
        drawn[key] = draw(data, to, key.rpartition("/")[2])
    except NothingToDrawError:
        return
