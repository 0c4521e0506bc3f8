"""The figures of an experiment, drawn from the files that its runs left behind.

Each published system has its own three (accuracy, sparsity, computing operations): `FIGURES` says
which, `JOINED` which of them set several networks side by side, `RECORDED` which are drawn from
files of their own beside the results, `TRAINED` what is drawn of each training beside the curves
that all systems share. `noise`, `training`, `layers` and `energy` are ours. They are drawn by
:mod:`jaxsnn.report.figures.bars`, :mod:`jaxsnn.report.figures.bars_by_width`,
:mod:`jaxsnn.report.figures.layers` and :mod:`jaxsnn.report.figures.accuracy`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsnn.errors import UserError
from jaxsnn.io.files import read_json
from jaxsnn.report.figures import accuracy, bars, bars_by_width, layers, training
from jaxsnn.report.results import Results, scan_metrics, scan_phases, scan_results
from jaxsnn.report.rows import NothingToDrawError, by_network, row_parts, setting_parts

Paths = tuple[Path, Path]
Streams = Mapping[str, training.Records]
Draw = Callable[[Sequence[Results], Path, str], Paths]

SHARED: dict[str, Draw] = {
    "noise": accuracy.noise,
    "layers": layers.activity,
    "energy": bars.energy,
}
FIGURES: dict[str, dict[str, Draw]] = {
    "scatter_gather": {"accuracy": bars.accuracy, "sparsity": bars.sparsity, "sops": bars.sops},
    "negative_spikes": {
        "accuracy": accuracy.accuracy_over_time,
        "sparsity": bars.signed_sparsity,
        "sops": bars.sops_beside_macs,
    },
    "surrogate_csnn": {"accuracy": accuracy.accuracy_over_time},
    "bayesian_spike_fusion": {"accuracy": accuracy.accuracy_over_time},
    "fast_snn": {
        "accuracy": bars_by_width.accuracy,
        "sparsity": bars_by_width.sparsity,
        "sops": bars_by_width.sops,
    },
}
JOINED: dict[str, dict[str, Draw]] = {
    name: FIGURES[name] for name in ("negative_spikes", "surrogate_csnn", "fast_snn")
}
RECORDED: dict[str, dict[str, Callable[[layers.Records, Path, str], Paths]]] = {
    "fast_snn": {"gaps": layers.gaps, "finetune": layers.finetune}
}
TRAINED: dict[str, dict[str, Callable[..., Paths]]] = {
    "surrogate_csnn": {
        "train_loss": training.loss_by_epoch,
        "test_acc": training.accuracy_by_epoch,
    }
}


def draw_all(
    out: str | Path,
    also: Sequence[str | Path] = (),
    levels: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Paths]:
    """Draw what the folders below `out` have data for, into ``<out>/figs``.

    Results of one network go to ``accuracy``, ``sparsity`` and so on. Those of several are drawn
    apart, as ``accuracy_lenet`` and ``accuracy_mlp``, and where the system knows such figures side
    by side as ``accuracy``. The training curves of each setting also go to its own ``figs`` folder.

    Args:
        out: the folder of an experiment, with a folder for each setting.
        also: folders of other experiments of the same system, for example of another network.
        levels: losses that ``train_loss`` marks, by setting and name (`loss_by_epoch`).

    Returns:
        The paths by figure name (``training`` and ``<setting>/training`` among them).

    Raises:
        UserError: there is nothing to draw at all.
    """
    out = Path(out)
    folders = {folder: scan_results(folder) for folder in dict.fromkeys((out, *map(Path, also)))}
    results = [row for rows in folders.values() for row in rows]
    drawn: dict[str, Paths] = {}
    systems = {row.system for row in results}
    for system in sorted(systems):
        rows = [row for row in results if row.system == system]
        suffix = f"_{system}" if len(systems) > 1 else ""
        _draw_system(drawn, system, rows, out / "figs", suffix)
        _draw_records(drawn, system, folders, out / "figs", suffix)
    streams = scan_metrics(out)
    networks = {row.setting: row_parts(row)[0] for row in folders[out]}
    _draw_training(drawn, out, streams, networks)
    for system, own in TRAINED.items():
        named = {row.setting for row in folders[out] if row.system == system}
        part = {name: records for name, records in streams.items() if name in named}
        _draw_losses(drawn, own, out, part, levels or {})
    if not drawn:
        raise NothingToDrawError(f"{out}: no results to draw; run an experiment first")
    return drawn


def _draw_system(
    drawn: dict[str, Paths], system: str, rows: Sequence[Results], folder: Path, suffix: str
) -> None:
    """Draw the figures of each network of a system, and those of all its networks together."""
    own = FIGURES.get(system, FIGURES["scatter_gather"]) | SHARED
    networks = by_network(rows)
    for network, part in networks.items():
        end = suffix + (f"_{network}" if len(networks) > 1 else "")
        for name, draw in own.items():
            _try(drawn, name + end, draw, part, folder)
    if len(networks) > 1:
        for name, draw in JOINED.get(system, {}).items():
            _try(drawn, name + suffix, draw, rows, folder)


def _draw_records(
    drawn: dict[str, Paths],
    system: str,
    folders: Mapping[Path, Sequence[Results]],
    to: Path,
    suffix: str,
) -> None:
    """Draw what a system recorded beside its results, of each network."""
    for name, draw in RECORDED.get(system, {}).items():
        found = [
            (row, content)
            for folder, rows in folders.items()
            for row in rows
            if row.system == system and (content := _beside(folder / row.setting, name))
        ]
        networks = by_network([row for row, _ in found])
        for network, rows in networks.items():
            part = [(row, content) for row, content in found if any(row is one for one in rows)]
            end = suffix + (f"_{network}" if len(networks) > 1 else "")
            _try(drawn, name + end, draw, part, to)


def _beside(folder: Path, name: str) -> Any:
    """Content of ``<name>.json`` in a setting's folder; None without one, or with a broken one."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    try:
        return read_json(path)
    except (OSError, UserError) as error:
        print(f"warning: left out: {error}", file=sys.stderr)
        return None


def _draw_training(
    drawn: dict[str, Paths], out: Path, streams: Streams, networks: Mapping[str, str]
) -> None:
    """Draw the training of every network, and of each setting alone."""
    draw = functools.partial(training.training, phases=scan_phases(out))
    groups: dict[str, dict[str, training.Records]] = {}
    for setting, records in streams.items():
        network = networks.get(setting, setting_parts(setting)[0])
        groups.setdefault(network, {})[setting] = records
    for network, part in sorted(groups.items()):
        key = f"training_{network}" if len(groups) > 1 and network else "training"
        _try(drawn, key, draw, part, out / "figs")
    for setting, records in streams.items():
        own = out / setting / "figs"
        _try(drawn, f"{setting}/training", draw, {setting: records}, own)


def _draw_losses(
    drawn: dict[str, Paths],
    own: Mapping[str, Callable[..., Paths]],
    out: Path,
    streams: Streams,
    levels: Mapping[str, Mapping[str, float]],
) -> None:
    """Draw what a system has of its own, of all its settings together and of each alone."""
    parts: dict[str, Streams] = {"": streams} if streams else {}
    parts |= {f"{setting}/": {setting: records} for setting, records in streams.items()}
    for where, part in parts.items():
        marked = {level: value for name in part for level, value in levels.get(name, {}).items()}
        for name, draw in own.items():
            given = functools.partial(draw, levels=marked) if name == "train_loss" else draw
            _try(drawn, where + name, given, part, out / where / "figs")


def _try(
    drawn: dict[str, Paths], key: str, draw: Callable[[Any, Path, str], Paths], data: Any, to: Path
) -> None:
    """Draw one figure, named as the last part of `key`, unless nothing is there for it."""
    try:
        drawn[key] = draw(data, to, key.rpartition("/")[2])
    except NothingToDrawError:
        return
