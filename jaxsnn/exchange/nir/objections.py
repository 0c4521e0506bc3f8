"""What a simulator would not import of a graph, or would import as something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxsnn.exchange.nir.simulators import IMPORTERS, Simulator

if TYPE_CHECKING:
    from nir import NIRGraph

PER_NEURON = ("r", "tau", "v_threshold", "v_reset", "v_leak")


def objections(graph: NIRGraph, simulator: Simulator | None) -> list[str]:
    """Reasons, each with the name of a node; empty if there are none.

    Args:
        graph: without sub-graphs.
        simulator: who is to run it; None has none.
    """
    if simulator is None:
        return []
    importer = IMPORTERS[simulator]
    reasons: list[str] = []
    kinds: set[str] = set()
    for name, node in graph.nodes.items():
        kind = type(node).__name__
        if kind not in importer.nodes and kind not in kinds:
            kinds.add(kind)
            reasons.append(f"node {name!r} is a {kind}, which it does not import")
        values = {key: np.unique(getattr(node, key)) for key in PER_NEURON if hasattr(node, key)}
        if importer.uniform_threshold and any(len(each) > 1 for each in values.values()):
            reasons.append(f"node {name!r} has a parameter that differs between its neurons")
        if importer.unit_resistance and (values.get("r", np.ones(1)) != 1).any():
            reasons.append(f"node {name!r} has a resistance other than 1, which it ignores")
    outputs = [name for name, node in graph.nodes.items() if type(node).__name__ == "Output"]
    if len(outputs) > 1:
        reasons.append(f"there are {len(outputs)} outputs, {', '.join(outputs)}; it returns one")
    return reasons
