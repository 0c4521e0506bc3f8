"""Which settings a figure shows, in which order and under which names."""

from __future__ import annotations

from collections.abc import Sequence

from jaxsnn.errors import UserError
from jaxsnn.report.results import Layer, Results, sort_key

_COUNT_NAMES = {1: "Single", 2: "Two", 4: "Four", 8: "Eight"}
_DATASETS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "nmnist": "N-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "tiny_imagenet": "Tiny ImageNet",
    "lfw": "LFW",
}
_TITLES = {
    "lenet": "LeNet",
    "mlp": "MLP",
    "cnn1": "CNN 1",
    "cnn2": "CNN 2",
    "csnn": "CSNN",
    "alex": "AlexNet",
    "vgg11": "VGG11",
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "resnet18": "ResNet18",
    "resnet34": "ResNet34",
}


class NothingToDrawError(UserError):
    """No setting has what the figure shows."""


def network(row: Results) -> str:
    """Name of the network of a result."""
    return row.settings.network


def network_title(row: Results) -> str:
    """Name of the network as papers write it, or as it is called here.

    >>> known = {"system": "any", "dataset": "mnist", "experiment": "any", "setting": "any"}
    >>> from jaxsnn.report.results import RunSettings
    >>> [network_title(Results(settings=RunSettings(network=name), **known))
    ...  for name in ("cnn1", "alex", "16C3-10")]
    ['CNN 1', 'AlexNet', '16C3-10']
    """
    return _TITLES.get(row.settings.network, row.settings.network)


def by_network(results: Sequence[Results]) -> dict[str, list[Results]]:
    """Results of each network; a name that stands for several data sets is followed by the set."""
    ordered = sorted(results, key=lambda row: (network(row), row.dataset))
    sets: dict[str, set[str]] = {}
    for row in ordered:
        sets.setdefault(network(row), set()).add(row.dataset)
    groups: dict[str, list[Results]] = {}
    for row in ordered:
        name = network(row)
        key = f"{name}_{row.dataset}" if len(sets[name]) > 1 else name
        groups.setdefault(key, []).append(row)
    return groups


def threshold_units(row: Results) -> int | None:
    """Threshold units per neuron, ``2^k * B``; None without ``k`` or ``B``."""
    return row.settings.units


def having(results: Sequence[Results], *some: str, needed: Sequence[str] = ()) -> list[Results]:
    """Settings that have one of the fields ``some`` and all of ``needed``, in drawing order."""
    rows = [
        row
        for row in results
        if any(getattr(row, name) not in (None, [], {}) for name in some)
        and all(getattr(row, name) not in (None, [], {}) for name in needed)
    ]
    if not rows:
        settings = ", ".join(row.setting for row in results) or "none"
        raise NothingToDrawError(f"no setting has {' or '.join(some)}; settings found: {settings}")
    return sorted(rows, key=drawing_order)


def drawing_order(row: Results) -> tuple[object, ...]:
    """Quantised settings by their threshold units, full precision last."""
    return is_full_precision(row), threshold_units(row) or 0, *sort_key(row)


def is_full_precision(row: Results) -> bool:
    """Whether a setting is the float network, without quantisers and without an SNN."""
    return row.settings.precision == "fp32" and row.snn_accuracy is None


def display_name(row: Results) -> str:
    """Two lines: spikes per neuron in words, and the setting; other settings as they are."""
    units = threshold_units(row)
    if is_full_precision(row):
        return f"Full precision\n({row.setting})"
    return f"{_COUNT_NAMES.get(units, units)}-spike\n({row.setting})" if units else row.setting


def precision_name(row: Results) -> str:
    """Precision alone, for figures whose panels name the network.

    >>> from jaxsnn.report.results import RunSettings
    >>> known = {"system": "any", "dataset": "mnist", "experiment": "any", "setting": "any"}
    >>> def name(**settings):
    ...     settings = RunSettings(network="lenet", **settings)
    ...     return precision_name(Results(settings=settings, **known))
    >>> name(k=1), name(bits=3), name(k=1, width=0.25), name(precision="fp32"), name(variant="x")
    ('k = 1', '3 bits', 'k = 1, width 0.25', 'fp32', 'x')
    >>> name(bits=3, variant="x")
    '3 bits, x'
    """
    one = row.settings
    parts: list[str] = []
    if one.bits is not None:
        parts.append(f"{one.bits} bits")
    elif one.k is not None:
        parts.append(f"k = {one.k}")
    elif one.precision == "fp32" and one.variant is None:
        parts.append("fp32" if is_full_precision(row) else row.setting)
    if one.bound is not None:
        parts.append(f"B = {one.bound}")
    if one.width != 1:
        parts.append(f"width {one.width:g}")
    if one.variant is not None:
        parts.append(one.variant)
    return ", ".join(parts) or row.setting


def datasets(results: Sequence[Results]) -> str:
    """Names of the data sets, as papers write them."""
    return ", ".join(sorted({_DATASETS.get(row.dataset, row.dataset) for row in results}))


def figure_title(subject: str, results: Sequence[Results]) -> str:
    """Title of a figure: what it shows, of which networks, on which data."""
    names = " and ".join(sorted({network_title(row) for row in results}))
    return f"{subject}: {names} on {datasets(results)}"


def energy_line(row: Results, line: str) -> dict[str, float | None]:
    """A line of the energy ledger; empty without it."""
    entry = (row.energy_pj_per_image or {}).get(line)
    return entry if isinstance(entry, dict) else {}


def neurons(row: Results) -> int:
    """Neurons of the network, each counted once."""
    return sum(entry["neurons"] or 0 for entry in row.layers or [])


def spiking_layers(row: Results) -> list[Layer]:
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

    >>> from jaxsnn.report.results import RunSettings
    >>> known = {"system": "any", "dataset": "mnist", "experiment": "any", "setting": "k1"}
    >>> known |= {"settings": RunSettings(network="lenet", k=1), "accuracy_settled_step": 2}
    >>> settled_step(Results(accuracy_per_step=[0.1, 0.9], **known)) is None
    True
    """
    step, steps = row.accuracy_settled_step, len(row.accuracy_per_step or [])
    settles = step is not None and 1 <= step <= steps and not step == steps > 1
    return step if settles else None


def full_precision_value(group: Sequence[Results]) -> float | None:
    """Accuracy in percent of the full-precision ANN among the results of one network."""
    accuracies = [percent(float_accuracy(row)) for row in group if is_full_precision(row)]
    return next((value for value in accuracies if value is not None), None)


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
