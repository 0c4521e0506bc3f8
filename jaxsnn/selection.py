"""Which settings a figure shows, in which order and under which names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from jaxsnn.report import Results, natural_key

_COUNT_NAMES = {1: "Single", 2: "Two", 4: "Four", 8: "Eight"}


class NothingToDrawError(ValueError):
    """No setting has what the figure shows."""


def threshold_units(setting: str) -> int | None:
    """Threshold units per neuron, ``2^k * B``; None if the setting names no `k` and `B`.

    Examples:
        >>> threshold_units("k1B2"), threshold_units("k0B1"), threshold_units("fp32")
        (4, 1, None)
    """
    found = re.fullmatch(r"k(\d+)B(\d+)", setting)
    return 2 ** int(found[1]) * int(found[2]) if found else None


def having(results: Sequence[Results], *some: str, needed: Sequence[str] = ()) -> list[Results]:
    """Settings that have one of the fields `some` and all of `needed`, in drawing order."""
    found = [
        row
        for row in results
        if any(getattr(row, name) not in (None, [], {}) for name in some)
        and all(getattr(row, name) not in (None, [], {}) for name in needed)
    ]
    if not found:
        settings = ", ".join(row.setting for row in results) or "none"
        raise NothingToDrawError(f"no setting has {' or '.join(some)}; settings found: {settings}")
    return sorted(found, key=drawing_order)


def drawing_order(row: Results) -> tuple[bool, int, list[tuple[int, str]]]:
    """Quantised settings by their threshold units, full precision last."""
    return is_full_precision(row), threshold_units(row.setting) or 0, natural_key(row.setting)


def is_full_precision(row: Results) -> bool:
    """Whether a setting is the float network, without quantisers and without an SNN."""
    quantised = threshold_units(row.setting) is not None or row.snn_accuracy is not None
    return not quantised and (row.setting.startswith("fp") or row.ann_accuracy is None)


def display_name(row: Results) -> str:
    """Two lines: spikes per neuron in words, and the setting; other settings as they are."""
    units = threshold_units(row.setting)
    if is_full_precision(row):
        return f"Full precision\n({row.setting})"
    return f"{_COUNT_NAMES.get(units, units)}-spike\n({row.setting})" if units else row.setting


def datasets(results: Sequence[Results]) -> str:
    """Names of the data sets."""
    return ", ".join(sorted({row.dataset for row in results}))


def neurons(row: Results) -> int:
    """Neurons of the network, each counted once."""
    return sum(entry["neurons"] or 0 for entry in row.layers or [])


def spiking_layers(row: Results) -> list[dict[str, Any]]:
    """Return the entries of the layers that have a firing rate."""
    return [entry for entry in row.layers or [] if entry["rate"] is not None]


def float_accuracy(row: Results) -> float | None:
    """Return the accuracy of a float network under whichever name it is recorded."""
    return row.ann_accuracy if row.float_ann_accuracy is None else row.float_ann_accuracy


def excluded_synapses(results: Sequence[Results]) -> str:
    """Say which of encoder and readout the synaptic operations leave out in every setting."""
    counted = [[bool(entry["sops_per_image"]) for entry in row.layers or []] for row in results]
    if not all(counted):
        return ""
    readouts = [
        entry["sops_per_image"]
        for row in results
        for entry in row.layers or []
        if entry["name"] == "readout"
    ]
    parts = [] if any(flags[0] for flags in counted) else ["encoder"]
    parts += [] if any(readouts) else ["readout"]
    return f"Synaptic operations (SOPs): {' and '.join(parts)} excluded." if parts else ""
