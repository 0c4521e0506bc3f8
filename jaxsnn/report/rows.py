"""Which settings a figure shows, in which order and under which names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from jaxsnn.errors import UserError
from jaxsnn.report.results import Results, natural_key

_COUNT_NAMES = {1: "Single", 2: "Two", 4: "Four", 8: "Eight"}
# Systems whose settings may have any name, and name no k.
_FREELY_NAMED = ("surrogate_csnn", "bayesian_spike_fusion")
_TITLES = {"lenet": "LeNet", "alex": "AlexNet", "vgg11": "VGG11"}


class NothingToDrawError(UserError):
    """No setting has what the figure shows."""


def setting_parts(setting: str) -> tuple[str, str]:
    """Split the name of a setting into its network, if it names one, and its precision.

    Examples:
        >>> setting_parts("lenet_k1"), setting_parts("mlp_fp32"), setting_parts("k1B2")
        (('lenet', 'k1'), ('mlp', 'fp32'), ('', 'k1B2'))
        >>> setting_parts("vgg11_3bit")
        ('vgg11', '3bit')
    """
    found = re.fullmatch(r"(?:(.+?)_)?((?:k|fp)\d.*|\d+bit)", setting)
    return (found[1] or "", found[2]) if found else ("", setting)


def network(row: Results) -> str:
    """Network of a result: as its setting names it, else its experiment's name without the data.

    Examples:
        >>> known = {"system": "negative_spikes", "dataset": "cifar10", "setting": "k1"}
        >>> network(Results(experiment="cifar10_cnn1", **known))
        'cnn1'
    """
    return row_parts(row)[0] or row.experiment.partition("_")[2] or row.experiment


def network_title(row: Results) -> str:
    """Name of the network as papers write it.

    Examples:
        >>> known = {"system": "negative_spikes", "dataset": "mnist", "experiment": "cifar10_cnn1"}
        >>> [network_title(Results(setting=name, **known)) for name in ("k0", "mlp_k0", "lenet_k0")]
        ['CNN 1', 'MLP', 'LeNet']
    """
    name = network(row)
    return _TITLES.get(name) or re.sub(r"(?<=\D)(\d+)$", r" \1", name.upper())


def by_network(results: Sequence[Results]) -> dict[str, list[Results]]:
    """Results of each network; a name that stands for several data sets is followed by the set."""
    ordered = sorted(results, key=lambda row: (natural_key(network(row)), row.dataset))
    sets = {
        network(row): {other.dataset for other in results if network(other) == network(row)}
        for row in ordered
    }
    found: dict[str, list[Results]] = {}
    for row in ordered:
        name = network(row)
        key = f"{name}_{row.dataset}" if len(sets[name]) > 1 else name
        found.setdefault(key, []).append(row)
    return found


def row_parts(row: Results) -> tuple[str, str]:
    """`setting_parts` of a result; a name that the user has chosen freely is not split.

    Examples:
        >>> known = {"dataset": "mnist", "experiment": "mnist_x", "setting": "long_k1"}
        >>> row_parts(Results(system="negative_spikes", **known))
        ('long', 'k1')
        >>> row_parts(Results(system="surrogate_csnn", **known))
        ('', 'long_k1')
    """
    return ("", row.setting) if row.system in _FREELY_NAMED else setting_parts(row.setting)


def precision_bits(row: Results) -> int | None:
    """Fractional bits `k` of a result; None if its setting names none or is named freely."""
    return None if row.system in _FREELY_NAMED else fractional_bits(row.setting)


def fractional_bits(setting: str) -> int | None:
    """Fractional bits `k` of a setting; None if it names none.

    Examples:
        >>> fractional_bits("lenet_k2"), fractional_bits("k1B2"), fractional_bits("fp32")
        (2, 1, None)
    """
    found = re.match(r"k(\d+)", setting_parts(setting)[1])
    return int(found[1]) if found else None


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
    quantised = fractional_bits(row.setting) is not None or row.snn_accuracy is not None
    precision = setting_parts(row.setting)[1]
    named = precision.startswith("fp") or precision == "32bit"
    return not quantised and (named or row.ann_accuracy is None)


def display_name(row: Results) -> str:
    """Two lines: spikes per neuron in words, and the setting; other settings as they are."""
    units = threshold_units(row.setting)
    if is_full_precision(row):
        return f"Full precision\n({row.setting})"
    return f"{_COUNT_NAMES.get(units, units)}-spike\n({row.setting})" if units else row.setting


def precision_name(row: Results) -> str:
    """Precision alone, for figures whose panels name the network.

    Examples:
        >>> known = {"system": "negative_spikes", "dataset": "mnist", "experiment": "mnist_x"}
        >>> precision_name(Results(setting="lenet_k1", **known))
        'k = 1'
        >>> precision_name(Results(setting="alex_3bit", **known))
        '3 bits'
    """
    if row.system in _FREELY_NAMED:
        return row.setting
    name = re.sub(r"^(\d+)bit$", r"\1 bits", setting_parts(row.setting)[1])
    return re.sub(r"^k(\d+)_?", r"k = \1 ", name).strip()


def datasets(results: Sequence[Results]) -> str:
    """Names of the data sets."""
    return ", ".join(sorted({row.dataset for row in results}))


def figure_title(subject: str, results: Sequence[Results]) -> str:
    """Title of a figure: what it shows, of which networks, on which data."""
    names = " and ".join(sorted({network_title(row) for row in results}))
    return f"{subject}: {names} on {datasets(results)}"


def neurons(row: Results) -> int:
    """Neurons of the network, each counted once."""
    return sum(entry["neurons"] or 0 for entry in row.layers or [])


def spiking_layers(row: Results) -> list[dict[str, Any]]:
    """Return the entries of the layers that have a firing rate."""
    return [entry for entry in row.layers or [] if entry["rate"] is not None]


def float_accuracy(row: Results) -> float | None:
    """Return the accuracy of a float network under whichever name it is recorded."""
    return row.ann_accuracy if row.float_ann_accuracy is None else row.float_ann_accuracy


def percent(fraction: float | None) -> float | None:
    """Turn a fraction into percent; None stays None."""
    return None if fraction is None else 100 * fraction


def per_step(row: Results) -> list[float]:
    """Accuracies in percent after every step; empty if there are none."""
    return [100 * value for value in row.accuracy_per_step or []]


def settled_step(row: Results) -> int | None:
    """Step from which the accuracy stays; None if that is merely the last of several steps.

    Examples:
        >>> known = {"system": "negative_spikes", "dataset": "mnist", "experiment": "mnist_x"}
        >>> row = Results(setting="k1", accuracy_per_step=[0.1, 0.9], **known)
        >>> from dataclasses import replace
        >>> settled_step(replace(row, accuracy_settled_step=2)) is None
        True
    """
    step, steps = row.accuracy_settled_step, len(row.accuracy_per_step or [])
    known = step is not None and 1 <= step <= steps and not step == steps > 1
    return step if known else None


def full_precision_value(group: Sequence[Results]) -> float | None:
    """Accuracy in percent of the full-precision ANN among the results of one network."""
    found = [percent(float_accuracy(row)) for row in group if is_full_precision(row)]
    return next((value for value in found if value is not None), None)


def final_values(group: Sequence[Results]) -> list[float]:
    """Percentages that a view of the end must hold: final and highest ones, the float ANN's."""
    lines = [line for line in map(per_step, group) if line]
    full = full_precision_value(group)
    ends = [value for line in lines for value in (line[-1], max(line))]
    return ends if full is None else [*ends, full]


def paper_over_time(group: Sequence[Results]) -> str:
    """The paper's accuracies and settling steps of one network, if its results know them."""
    parts: list[str] = []
    for row in sorted(group, key=drawing_order):
        paper, full = row.paper or {}, is_full_precision(row)
        value = paper.get("float_ann_accuracy" if full else "snn_accuracy", paper.get("accuracy"))
        step = paper.get("accuracy_settled_step")
        if value is not None:
            name = "full precision" if full else precision_name(row)
            parts.append(f"{name}: {100 * value:.2f} %" + (f" at step {step}" if step else ""))
    return f"Paper, {network_title(group[0])}: {'; '.join(parts)}." if parts else ""


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
