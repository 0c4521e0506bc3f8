"""The figures of an experiment, drawn from the files that its runs left behind.

Each published system has its own three (accuracy, sparsity, computing operations): `FIGURES` says
which, `JOINED` which of them set several networks side by side. `noise`, `training`, `layers` and
`energy` are ours. They are drawn by :mod:`jaxsnn.bars` and :mod:`jaxsnn.curves`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxsnn import bars, curves
from jaxsnn.report import Results, scan_metrics, scan_phases, scan_results
from jaxsnn.selection import NothingToDrawError, by_network, setting_parts

Paths = tuple[Path, Path]
Draw = Callable[[Sequence[Results], Path, str], Paths]

SHARED: dict[str, Draw] = {"noise": curves.noise, "layers": bars.layers, "energy": bars.energy}
FIGURES: dict[str, dict[str, Draw]] = {
    "scatter_gather": {"accuracy": bars.accuracy, "sparsity": bars.sparsity, "sops": bars.sops},
    "negative_spikes": {
        "accuracy": curves.accuracy_over_time,
        "sparsity": bars.signed_sparsity,
        "sops": bars.sops_beside_macs,
    },
}
JOINED: dict[str, dict[str, Draw]] = {"negative_spikes": FIGURES["negative_spikes"]}


def draw_all(out: str | Path, also: Sequence[str | Path] = ()) -> dict[str, Paths]:
    """Draw what the folders below `out` have data for, into ``<out>/figs``.

    Results of one network go to ``accuracy``, ``sparsity`` and so on. Those of several are drawn
    apart, as ``accuracy_lenet`` and ``accuracy_mlp``, and where the system knows such figures side
    by side as ``accuracy``. The training curves of each setting also go to its own ``figs`` folder.

    Args:
        out: the folder of an experiment, with a folder for each setting.
        also: folders of other experiments of the same system, for example of another network.

    Returns:
        The paths by figure name (``training`` and ``<setting>/training`` among them).

    Raises:
        ValueError: there is nothing to draw at all.
    """
    out = Path(out)
    results = [
        row for folder in dict.fromkeys((out, *map(Path, also))) for row in scan_results(folder)
    ]
    drawn: dict[str, Paths] = {}
    systems = {row.system for row in results}
    for system in sorted(systems):
        rows = [row for row in results if row.system == system]
        _draw_system(drawn, system, rows, out / "figs", f"_{system}" if len(systems) > 1 else "")
    _draw_training(drawn, out)
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


def _draw_training(drawn: dict[str, Paths], out: Path) -> None:
    """Draw the training of every network, and of each setting alone."""
    streams = scan_metrics(out)
    draw = functools.partial(curves.training, phases=scan_phases(out))
    networks = sorted({setting_parts(setting)[0] for setting in streams})
    for network in networks:
        part = {name: one for name, one in streams.items() if setting_parts(name)[0] == network}
        key = f"training_{network}" if len(networks) > 1 and network else "training"
        _try(drawn, key, draw, part, out / "figs")
    for setting, records in streams.items():
        own = out / setting / "figs"
        _try(drawn, f"{setting}/training", draw, {setting: records}, own)


def _try(
    drawn: dict[str, Paths], key: str, draw: Callable[[Any, Path, str], Paths], data: Any, to: Path
) -> None:
    """Draw one figure, named as the last part of `key`, unless nothing is there for it."""
    try:
        drawn[key] = draw(data, to, key.rpartition("/")[2])
    except NothingToDrawError:
        return
