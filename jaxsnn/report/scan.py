"""What lies below the folder of an experiment: results and training curves of every run.

A run's folder may be called as its owner likes: what the run is stands in its files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from jaxsnn.errors import UserError
from jaxsnn.io.files import read_object
from jaxsnn.io.metrics import read_metrics
from jaxsnn.report.results import Results, read_results, sort_key
from jaxsnn.types import JsonObject

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """The training of one run.

    Attributes:
        folder: of the run.
        name: what the run is called in figures; its folder's name where no file says it.
        network: name of the network; empty where no file says it.
        records: one an epoch, as in metrics.jsonl.
        begins: the number of epochs before each phase but the first.
    """

    folder: Path
    name: str
    network: str
    records: list[JsonObject]
    begins: list[int]


def _to_stderr(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def scan_folders(out: str | Path, warn: Warn = _to_stderr) -> dict[Path, Results]:
    """Read ``results.json`` in every folder below an experiment's, in the order of their settings.

    A file that cannot be read is left out with one warning line that names it.
    """
    rows: dict[Path, Results] = {}
    for path in sorted(Path(out).glob("*/results.json")):
        try:
            rows[path.parent] = read_results(path)
        except (OSError, UserError) as error:
            warn(f"left out: {error}")
    return dict(sorted(rows.items(), key=lambda item: sort_key(item[1])))


def scan_results(out: str | Path, warn: Warn = _to_stderr) -> list[Results]:
    """The results of ``scan_folders`` alone."""
    return list(scan_folders(out, warn).values())


def scan_trainings(out: str | Path, warn: Warn = _to_stderr) -> list[Training]:
    """Read ``metrics.jsonl`` in every folder below an experiment's, the last record of each epoch.

    A file that cannot be read is left out with one warning line that names it; a config.json that
    cannot be read says nothing.
    """
    runs: list[Training] = []
    results = scan_folders(out, lambda line: None)
    for path in sorted(Path(out).glob("*/metrics.jsonl")):
        try:
            records = read_metrics(path)
        except (OSError, UserError) as error:
            warn(f"left out: {error}")
            continue
        folder = path.parent
        name, network, begins = _described(folder, results.get(folder))
        runs.append(Training(folder, name, network, records, begins))
    order = {folder: number for number, folder in enumerate(results)}
    runs.sort(key=lambda run: (order.get(run.folder, len(order)), run.name))
    names = [run.name for run in runs]
    return [_alone(run) if names.count(run.name) > 1 else run for run in runs]


def _alone(run: Training) -> Training:
    """The run under a name that a copy of it does not have."""
    name = f"{run.name} ({run.folder.name})"
    return Training(run.folder, name, run.network, run.records, run.begins)


def _described(folder: Path, row: Results | None) -> tuple[str, str, list[int]]:
    """Name, network, and where the phases begin: from results.json, else from config.json."""
    try:
        config = read_object(folder / "config.json")
    except (OSError, UserError):
        config = JsonObject()
    try:
        later = config["phases"][1:]
        begins = [int(one["first_step"] // one["steps_per_epoch"]) for one in later]
    except (KeyError, TypeError, ValueError, ArithmeticError):
        begins = list[int]()
    if row is not None:
        return row.setting, row.settings.network, begins
    name, settings = config.get("setting"), config.get("settings")
    network = cast("JsonObject", settings).get("network") if isinstance(settings, dict) else None
    return str(name or folder.name), str(network or ""), begins
