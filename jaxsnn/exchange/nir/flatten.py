"""A graph of graphs as one graph, whose nodes have names of the form ``outer/inner``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from jaxsnn.errors import UserError

if TYPE_CHECKING:
    from nir import NIRGraph, NIRNode

    from jaxsnn.exchange.nir.topology import Edge


class Flat(NamedTuple):
    """A graph without sub-graphs.

    Attributes:
        nodes: by name.
        edges: pairs (source, target).
        inputs, outputs: the names of the outermost graph's.
    """

    nodes: dict[str, NIRNode]
    edges: list[Edge]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def flatten(graph: NIRGraph, prefix: str = "") -> Flat:
    """Replace every sub-graph by its nodes; its ``Input`` and ``Output`` stay, and pass on.

    Args:
        graph: may hold graphs, which may hold graphs.
        prefix: what stands in front of its nodes' names.

    Raises:
        UserError: an edge names no node, or leads to a sub-graph with several inputs, or from one
            with several outputs (an edge names a graph, not its port).
    """
    import nir

    nodes: dict[str, NIRNode] = {}
    edges: list[Edge] = []
    entries: dict[str, tuple[str, ...]] = {}
    exits: dict[str, tuple[str, ...]] = {}
    for name, node in graph.nodes.items():
        full = prefix + name
        if isinstance(node, nir.NIRGraph):
            inner = flatten(node, f"{full}/")
            nodes |= inner.nodes
            edges += inner.edges
            entries[name], exits[name] = inner.inputs, inner.outputs
        else:
            nodes[full] = node
            entries[name] = exits[name] = (full,)
    for source, target in graph.edges:
        for name in (source, target):
            if name not in entries:
                raise UserError(f"the edge {(source, target)} names {prefix + name!r}: no node")
        edges.append((_only(exits, source, "output"), _only(entries, target, "input")))
    return Flat(
        nodes,
        edges,
        tuple(prefix + name for name, node in graph.nodes.items() if isinstance(node, nir.Input)),
        tuple(prefix + name for name, node in graph.nodes.items() if isinstance(node, nir.Output)),
    )


def _only(ports: dict[str, tuple[str, ...]], name: str, what: str) -> str:
    if len(ports[name]) != 1:
        raise UserError(
            f"sub-graph {name!r} has {len(ports[name])} {what}s, and an edge does not say which; "
            f"give it one {what}"
        )
    return ports[name][0]
