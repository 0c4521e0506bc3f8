"""Named arrays as layers: convolutions, dense layers and batch norms, under one set of names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from jaxsnn.errors import finite_number
from jaxsnn.exchange.weights import Layout
from jaxsnn.network.site import NORM_EPSILON

Kind = Literal["conv", "dense", "norm"]

EPSILONS: dict[Layout, float] = {"torch": NORM_EPSILON, "keras": 1e-3}  # where nobody says
_SEPARATORS: dict[Layout, str] = {"torch": ".", "keras": "/"}
_SYNAPSE: dict[Layout, dict[str, str]] = {
    "torch": {"weight": "kernel", "bias": "bias"},
    "keras": {"kernel": "kernel", "bias": "bias"},
}
_NORM: dict[Layout, dict[str, str]] = {
    "torch": {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"},
    "keras": {"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"},
}
_OF_AXES: dict[int, Kind] = {4: "conv", 2: "dense"}  # by the number of a kernel's axes
_COUNTERS = ("num_batches_tracked",)  # of training; inference has no use for them


@dataclass(frozen=True)
class Layer:
    """A convolution, dense layer or batch norm of somebody's network.

    Attributes:
        name: as the file has it, without the names of its arrays.
        kind: what it is.
        layout: order of the kernel's axes.
        arrays: "kernel" and "bias" of a synapse; "scale", "bias", "mean", "var" of a norm. A norm
            may lack the first two: they are one and zero.
        names: the same keys -> the arrays' names in the file.
        epsilon: what the norm adds to a variance.
    """

    name: str
    kind: Kind
    layout: Layout
    arrays: Mapping[str, np.ndarray]
    names: Mapping[str, str]
    epsilon: float = NORM_EPSILON

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the kernel, or of the norm's mean, in the file's own order of axes."""
        return self.arrays["mean" if self.kind == "norm" else "kernel"].shape

    def turned(self) -> np.ndarray:
        """The kernel in our order: (height, width, in, out), or (in, out)."""
        kernel = self.arrays["kernel"]
        if self.layout == "keras":
            return kernel
        return kernel.transpose(2, 3, 1, 0) if self.kind == "conv" else kernel.T


class Layers(NamedTuple):
    """What a file's arrays are.

    Attributes:
        layers: in the file's order.
        ignored: arrays that inference has no use for.
        others: arrays that belong to no layer of a known kind.
    """

    layers: tuple[Layer, ...]
    ignored: tuple[str, ...]
    others: tuple[str, ...]


def layers_of(
    arrays: Mapping[str, np.ndarray],
    layout: Layout,
    epsilon: float | None = None,
    epsilons: Mapping[str, float] | None = None,
) -> Layers:
    """Group arrays by layer.

    Args:
        arrays: by name, such as ``conv1.weight`` or ``conv1/kernel``.
        layout: whose names and order of axes they have.
        epsilon: what every batch norm adds to a variance; None: what the layout's library does.
        epsilons: layer -> the same, where the file says it; goes before the library's.

    Raises:
        UserError: an epsilon that is negative or not finite.

    >>> import numpy as np
    >>> arrays = {"a.weight": np.ones((4, 2)), "a.bias": np.ones(4), "n": np.ones(())}
    >>> found = layers_of(arrays, "torch")
    >>> [(layer.name, layer.kind, layer.shape) for layer in found.layers], found.others
    ([('a', 'dense', (4, 2))], ('n',))
    """
    groups: dict[str, dict[str, str]] = {}  # layer -> variable -> name of the array
    ignored: list[str] = []
    for name in arrays:
        layer, _, variable = name.rpartition(_SEPARATORS[layout])
        if variable in _COUNTERS:
            ignored.append(name)
        else:
            groups.setdefault(layer, {})[variable] = name
    layers: list[Layer] = []
    others: list[str] = []
    for name, group in groups.items():
        stated = (epsilons or {}).get(name, EPSILONS[layout]) if epsilon is None else epsilon
        used = finite_number("epsilon", stated, 0)
        layer = _layer(name, group, arrays, layout, used)
        if layer is None:
            others += group.values()
        else:
            layers.append(layer)
    return Layers(tuple(layers), tuple(ignored), tuple(others))


def _layer(
    name: str,
    group: Mapping[str, str],
    arrays: Mapping[str, np.ndarray],
    layout: Layout,
    epsilon: float,
) -> Layer | None:
    """The layer that a group of arrays makes up; None if it is of no known kind."""
    synapse = _renamed(group, _SYNAPSE[layout])
    if synapse is not None and "kernel" in synapse:
        kind = _OF_AXES.get(arrays[synapse["kernel"]].ndim)
        outputs = -1 if layout == "keras" else 0
        size = arrays[synapse["kernel"]].shape[outputs] if kind else 0
        vectors = [arrays[each] for part, each in synapse.items() if part == "bias"]
    else:
        synapse = _renamed(group, _NORM[layout])
        if synapse is None or not {"mean", "var"} <= set(synapse):
            return None
        kind, size = "norm", arrays[synapse["mean"]].size
        vectors = [arrays[name] for name in synapse.values()]
    if kind is None or any(vector.shape != (size,) for vector in vectors):
        return None
    values = {part: arrays[each] for part, each in synapse.items()}
    return Layer(name, kind, layout, values, synapse, epsilon)


def _renamed(group: Mapping[str, str], parts: Mapping[str, str]) -> dict[str, str] | None:
    """Our part -> name of the array; None if an array is none of the parts."""
    if not set(group) <= set(parts):
        return None
    return {ours: group[theirs] for theirs, ours in parts.items() if theirs in group}


def stem(name: str) -> str:
    """A name without its numbers: equal for layers that are numbered, not named.

    >>> stem("layer1.0.conv2"), stem("layer3.2.conv1")
    ('layer#.#.conv#', 'layer#.#.conv#')
    """
    return re.sub("[0-9]+", "#", name)


def partner(synapse: str, norms: Iterable[str]) -> str | None:
    """The batch norm whose name in torch says that it belongs to a synapse; None if none does.

    In a sequence it is the next, ``downsample.0`` and ``downsample.1``; in a module the one with
    the same number, ``conv1`` and ``bn1``, or without one the same word, ``skip`` and ``skip_bn``.

    >>> partner("a.downsample.0", ["a.downsample.1", "a.bn0"]), partner("a.conv1", ["a.bn1", "bn1"])
    ('a.downsample.1', 'a.bn1')
    """
    parent, word, number = _parts(synapse)
    if number and not word:
        wanted = f"{parent}{int(number) + 1}"
        return wanted if wanted in set(norms) else None
    same = [name for name in norms if _parts(name)[::2] == (parent, number)]
    if not number:
        same = [name for name in same if word in _parts(name)[1]]
    return same[0] if len(same) == 1 else None


def _parts(name: str) -> tuple[str, str, str]:
    """Modules around, word and number: ("a.", "conv", "1")."""
    *_, last = name.rpartition(".")
    word = last.rstrip("0123456789")
    return name.removesuffix(last), word, last[len(word) :]
