"""A NIR graph in the making, and the signals that run through it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from nir import NIRGraph, NIRNode


class Signal(NamedTuple):
    """What a site gives, as the outputs of some nodes, which are added up.

    Attributes:
        nodes: their names; each has ``units * C`` channels, all channels of the first unit first.
        shape: ``(C, H, W)``.
        units: threshold units of a neuron, whose spikes are added up, too.
    """

    nodes: tuple[str, ...]
    shape: tuple[int, int, int]
    units: int = 1

    @property
    def node_shape(self) -> tuple[int, int, int]:
        """The shape of each node's output."""
        return (self.units * self.shape[0], *self.shape[1:])


@dataclass
class Draft:
    """Nodes and edges so far; names without dots, which some importers replace.

    Attributes:
        dtype: of the parameters.
        dt: length of a step.
    """

    dtype: np.dtype[np.floating]
    dt: float
    nodes: dict[str, NIRNode] = field(default_factory=dict[str, "NIRNode"])
    edges: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def add(self, name: str, node: NIRNode, *sources: str) -> str:
        """Add a node behind ``sources``; its name as it stands in the graph."""
        name = name.replace(".", "_")
        self.nodes[name] = node
        self.connect(sources, name)
        return name

    def connect(self, sources: tuple[str, ...], target: str) -> None:
        """Edges from each of ``sources``."""
        self.edges += [(source, target) for source in sources]

    def full(self, shape: tuple[int, ...], value: np.ndarray | float) -> np.ndarray:
        """An array of ``shape`` ``(C, H, W)``, from one value or one per channel."""
        each = np.asarray(value, self.dtype)
        each = each.reshape(-1, *(1,) * (len(shape) - 1)) if each.ndim else each
        return np.array(np.broadcast_to(each, shape))

    def graph(self, metadata: dict[str, str | float | int]) -> NIRGraph:
        """The graph; types are not inferred, for nir knows no recurrent ones."""
        import nir

        return nir.NIRGraph(self.nodes, self.edges, metadata, type_check=False)
