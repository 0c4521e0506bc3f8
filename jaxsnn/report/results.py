"""results.json: the outcome of one setting of an experiment, with a strict schema."""

from __future__ import annotations

import numbers
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, cast

from jaxsnn.errors import UserError
from jaxsnn.io.files import plain, read_json, read_jsonl, write_json

EQUALITIES = ("exact", "exact after settling", "approximate")
ENTRY_KEYS = {
    "mismatches": "neurons predictions compared",
    "layers": "name neurons spikes_per_image rate silent saturated sops_per_image mismatches",
    "variants": "accuracy steps spikes_per_image sops_per_image energy_pj_per_image",
    "noise": "ratio accuracy",
    "seconds": "compile train simulate",
}
KINDS: dict[str, type] = {
    "str": str,
    "int": numbers.Integral,
    "float": numbers.Real,
    "list": list,
    "dict": dict,
}
LATER = ("test_examples", "conversion")  # fields that files of earlier versions lack
ACCURACIES = ("float_ann_accuracy", "ann_accuracy", "snn_accuracy")


@dataclass(frozen=True, kw_only=True)
class Results:
    """The content of results.json: one setting of one experiment.

    Accuracies are fractions, steps are 1-based, counts are means per image over the test set
    unless said otherwise, energies are picojoules; what does not apply is None. `test_examples` is
    the number of images or recordings that were tested. `sops_per_image` is the hardware-free
    count, and `ann_macs_per_image` counts the same synapses. `conversion` has the settings, by the
    names of their flags, that the spiking network was made with beyond those in the setting's name;
    they differ by system, and a system that has none of them has None. The keys of the other nested
    entries stand in `ENTRY_KEYS`; a layer's `rate` (spikes per neuron and threshold unit), `silent`
    and `saturated` are fractions.

    Raises:
        UserError: a value is of another kind, an accuracy is not a fraction, the word for equality
            is unknown, or an entry of `mismatches`, `layers`, `variants`, `noise` or `seconds` has
            a missing or unknown key.

    Examples:
        >>> results = Results(experiment="mnist_lenet", system="scatter_gather", dataset="digits",
        ...                   setting="k1B2", snn_accuracy=0.98)
        >>> Results.from_json(results.to_json()) == results
        True
    """

    experiment: str
    system: str
    dataset: str
    setting: str
    epochs_run: int | None = None
    test_examples: int | None = None
    float_ann_accuracy: float | None = None
    ann_accuracy: float | None = None
    snn_accuracy: float | None = None
    accuracy_per_step: list[float] | None = None
    steps: int | None = None
    accuracy_settled_step: int | None = None
    last_spike_step: int | None = None
    equality: str | None = None
    mismatches: dict[str, Any] | None = None
    spikes_per_image: float | None = None
    positive_spikes_per_image: float | None = None
    negative_spikes_per_image: float | None = None
    spikes_per_neuron: float | None = None
    sops_per_image: float | None = None
    ann_macs_per_image: float | None = None
    energy_pj_per_image: dict[str, Any] | None = None
    layers: list[dict[str, Any]] | None = None
    variants: dict[str, dict[str, Any]] | None = None
    noise: list[dict[str, Any]] | None = None
    paper: dict[str, Any] | None = None
    seconds: dict[str, Any] | None = None
    conversion: dict[str, Any] | None = None
    precision: str | None = None
    device: str | None = None
    seed: int | None = None
    versions: dict[str, Any] | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        """Refuse what does not follow the schema."""
        for field in fields(self):
            value, kind = getattr(self, field.name), str(field.type).split("[")[0].split(" ")[0]
            given = value is not None or not str(field.type).endswith("| None")
            if given and not isinstance(value, KINDS[kind]):
                raise UserError(f"{field.name} is {value!r}; give a value of kind {field.type}")
        for name in ACCURACIES:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"{name} is {value}; give a fraction between 0 and 1")
        if self.equality is not None and self.equality not in EQUALITIES:
            raise UserError(f"equality is {self.equality!r}; known: {', '.join(EQUALITIES)}")
        for name, keys in ENTRY_KEYS.items():
            for where, entry in _entries(name, getattr(self, name)):
                _require_keys(where, entry, keys.split())

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary of plain JSON values, every field present."""
        return plain(asdict(self))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Build from what `to_json` gave; a field of `LATER` may be missing and is then None.

        Raises:
            UserError: a field is missing or unknown; the message names it.
        """
        known: dict[str, Any] = {**dict.fromkeys(LATER), **record}
        _require_keys("results", known, [field.name for field in fields(cls)])
        return cls(**known)


def write_results(folder: str | Path, results: Results) -> Path:
    """Write ``results.json`` into the folder of its setting."""
    return write_json(Path(folder) / "results.json", results.to_json())


def read_results(path: str | Path) -> Results:
    """Read one ``results.json``.

    Raises:
        UserError: the file is broken or does not follow the schema; the message names it.
    """
    record = read_json(path)
    try:
        if not isinstance(record, dict):
            raise UserError(f"expected an object, found {type(record).__name__}")
        return Results.from_json(cast("dict[str, Any]", record))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _to_stderr(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def scan_results(out: str | Path, warn: Callable[[str], None] = _to_stderr) -> list[Results]:
    """Read ``<out>/<setting>/results.json`` of every setting, sorted by setting (k2 before k10).

    A file that cannot be read is left out with one warning line that names it.
    """
    found: list[Results] = []
    for path in sorted(Path(out).glob("*/results.json")):
        try:
            found.append(read_results(path))
        except (OSError, UserError) as error:
            warn(f"left out: {error}")
    return sorted(found, key=lambda results: natural_key(results.setting))


def scan_metrics(
    out: str | Path, warn: Callable[[str], None] = _to_stderr
) -> dict[str, list[dict[str, Any]]]:
    """Read ``<out>/<setting>/metrics.jsonl`` of every setting, the last record of each epoch.

    A file that cannot be read is left out with one warning line that names it.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(Path(out).glob("*/metrics.jsonl")):
        try:
            found[path.parent.name] = read_jsonl(path, "epoch")
        except (OSError, UserError) as error:
            warn(f"left out: {error}")
    return found


def scan_phases(out: str | Path) -> dict[str, list[int]]:
    """Read where the later phases of training begin, of every setting with more than one.

    Returns:
        The number of epochs before each further phase in ``<out>/<setting>/config.json``, by
        setting. A file that cannot be read has none: `scan_metrics` does not need it.
    """
    found: dict[str, list[int]] = {}
    for path in sorted(Path(out).glob("*/config.json")):
        try:
            later = read_json(path)["phases"][1:]
            begins = [int(one["first_step"] // one["steps_per_epoch"]) for one in later]
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            continue
        if begins:
            found[path.parent.name] = begins
    return found


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key under which numbers inside names count as numbers.

    Examples:
        >>> sorted(["k10", "k2", "fp32"], key=natural_key)
        ['fp32', 'k2', 'k10']
    """
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _entries(name: str, value: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and content of every dictionary of one nested field."""
    if value is None:
        return []
    if name == "variants":
        variants = cast("dict[str, Mapping[str, Any]]", value)
        return [(f"variants.{key}", entry) for key, entry in variants.items()]
    if isinstance(value, list):
        entries = enumerate(cast("list[Mapping[str, Any]]", value))
        return [(f"{name}[{index}]", entry) for index, entry in entries]
    return [(name, value)]


def _require_keys(where: str, entry: object, keys: Collection[str]) -> None:
    if not isinstance(entry, Mapping):
        raise UserError(f"{where} is {entry!r}; give a dictionary")
    found = set(cast("Mapping[str, Any]", entry))
    if missing := sorted(set(keys) - found):
        raise UserError(f"{where}: missing {', '.join(missing)} (null where it does not apply)")
    if unknown := sorted(found - set(keys)):
        raise UserError(f"{where}: unknown {', '.join(unknown)}")
