"""In which order the nodes of a graph are computed, and where a cycle takes its step of delay.

Works on names alone. A cycle needs at least one step from some node to its successor. Where it runs
through a node that gives its output before it sees its input (a ``Delay`` of a step or more), that
is the step. Else the edge that leads back to where the cycle was entered carries one step of delay.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from jaxsnn.errors import UserError

Edge: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Order:
    """How one step is computed.

    Attributes:
        names: every node, each behind all whose output of the same step it needs.
        back: edges that carry the output of the step before.
    """

    names: tuple[str, ...]
    back: frozenset[Edge]


def order(
    names: Sequence[str], edges: Sequence[Edge], inputs: Sequence[str], early: Collection[str]
) -> Order:
    """Order the nodes of a graph.

    Args:
        names: the nodes.
        edges: pairs (source, target).
        inputs: the nodes where the graph begins.
        early: nodes that emit before they see their input. They come first; what leads into them
            is no constraint.

    Raises:
        UserError: a node that no input reaches, or a cycle that is entered at several places, so
            that the graph does not say which of its edges is the delayed one.

    >>> order("abc", [("a", "b"), ("b", "c"), ("c", "b")], ["a"], ())
    Order(names=('a', 'b', 'c'), back=frozenset({('c', 'b')}))
    """
    reached = _reachable(edges, inputs)
    if lost := [name for name in names if name not in reached]:
        raise UserError(f"node {lost[0]!r} gets nothing from an Input; connect it, or leave it out")
    binding = [edge for edge in edges if edge[1] not in early]
    targets: dict[str, list[str]] = {name: [] for name in names}
    for source, target in binding:
        targets[source].append(target)
    starts = [*inputs, *(name for name in names if name in early)]
    finished, back = _walk(targets, [*starts, *names])
    for source, target in sorted(back):
        around = [edge for edge in edges if target not in edge]
        if source != target and source in _reachable(around, [n for n in inputs if n != target]):
            raise UserError(
                f"a cycle with the edge ({source!r}, {target!r}) is entered at several places, so "
                "that nothing says which of its edges delays; put a Delay of one step into it"
            )
    first = [name for name in reversed(finished) if name in early]
    return Order((*first, *(n for n in reversed(finished) if n not in early)), frozenset(back))


def _reachable(edges: Sequence[Edge], starts: Sequence[str]) -> set[str]:
    targets: dict[str, list[str]] = {}
    for source, target in edges:
        targets.setdefault(source, []).append(target)
    seen, waiting = set(starts), list(starts)
    while waiting:
        for target in targets.get(waiting.pop(), []):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def _walk(
    targets: Mapping[str, Sequence[str]], starts: Sequence[str]
) -> tuple[list[str], set[Edge]]:
    """Depth first: nodes in the order in which they are finished, and edges to ancestors."""
    finished: dict[str, None] = {}
    back: set[Edge] = set()
    for start in starts:
        path = [(start, iter(targets[start]))] if start not in finished else []
        on_path = {start}
        while path:
            name, following = path[-1]
            target = next(following, None)
            if target is None:
                path.pop()
                on_path.discard(name)
                finished[name] = None
            elif target in on_path:
                back.add((name, target))
            elif target not in finished:
                path.append((target, iter(targets[target])))
                on_path.add(target)
    return list(finished), back
