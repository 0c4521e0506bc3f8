"""From a NIR graph, or a file that holds one, to a network that JAX runs."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jaxsnn.errors import UserError, shown
from jaxsnn.exchange.hdf5 import refuse_other_files
from jaxsnn.exchange.nir.delay import Delay
from jaxsnn.exchange.nir.flatten import Flat, flatten
from jaxsnn.exchange.nir.linear import Identity
from jaxsnn.exchange.nir.network import NirNetwork, Node, precision
from jaxsnn.exchange.nir.operation import DType, Shape
from jaxsnn.exchange.nir.rules import Rules
from jaxsnn.exchange.nir.topology import Order, order
from jaxsnn.exchange.nir.translate import KINDS, TIMED, Translated, translate

if TYPE_CHECKING:
    from nir import NIRGraph


def from_nir(
    source: str | PathLike[str] | NIRGraph,
    *,
    dt: float | None = None,
    rules: Rules | None = None,
    dtype: npt.DTypeLike = np.float32,
) -> NirNetwork:
    """A network that runs a NIR graph in JAX.

    Sub-graphs are flattened, several edges into a node are added up, and an edge that closes a
    cycle carries one step of delay (:mod:`jaxsnn.exchange.nir.topology`). The equations of every
    node stand in :mod:`jaxsnn.exchange.nir.neurons` and its neighbours.

    Args:
        source: a file or a graph of the ``nir`` package (extra ``nir``).
        dt: length of a step in the unit of the graph's time constants, usually seconds; None: what
            the graph's metadata say. A graph without time constants needs none.
        rules: when neurons fire and how they are reset; None: as NIR defines it.
        dtype: float32, or float64 for whole numbers beyond 2^24 (needs no setting of JAX).

    Raises:
        UserError: a file that is no NIR graph, a node of an unknown kind, a parameter that cannot
            be, shapes that do not fit, no ``dt`` where one is needed. The message names the node.

    >>> import nir, numpy as np
    >>> ones = np.ones(2)
    >>> graph = nir.NIRGraph(
    ...     {
    ...         "in": nir.Input(np.array([2])),
    ...         "neurons": nir.IF(ones, v_threshold=ones, v_reset=0 * ones),
    ...         "out": nir.Output(np.array([2])),
    ...     },
    ...     [("in", "neurons"), ("neurons", "out")],
    ... )
    >>> network = from_nir(graph, dt=1.0)
    >>> drive = np.array([[0.5, 1.5]])
    >>> network.run(drive, steps=4).recorded["out"][:, 0].tolist()
    [[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0]]
    """
    graph = _read(Path(source)) if isinstance(source, str | PathLike) else source
    rules, kind = rules or Rules(), np.dtype(dtype)
    if kind.name not in ("float32", "float64"):
        raise UserError(f"dtype={kind}: a network computes in float32 or float64")
    flat = flatten(graph)
    if not flat.inputs or not flat.outputs:
        raise UserError("the graph has no Input or no Output; it needs one of each at least")
    length = _step_length(flat, graph.metadata, dt)
    translated = {
        name: _translated(name, node, length, rules, kind) for name, node in flat.nodes.items()
    }
    early = [
        name
        for name, one in translated.items()
        if isinstance(one.operation, Delay) and one.operation.shortest > 0
    ]
    ordered = order(list(flat.nodes), flat.edges, flat.inputs, early)
    nodes = _nodes(flat, translated, ordered)
    with precision(kind):
        params = {
            name: {leaf: jnp.asarray(array) for leaf, array in one.params.items()}
            for name, one in translated.items()
        }
    return NirNetwork(params, nodes, flat.inputs, flat.outputs, length, kind)


def _nodes(flat: Flat, translated: Mapping[str, Translated], ordered: Order) -> tuple[Node, ...]:
    """The nodes in the order in which they are computed, with the edges into each."""
    shapes = _shapes(flat, translated)
    return tuple(
        Node(
            name,
            type(flat.nodes[name]).__name__,
            translated[name].operation,
            shapes[name][1],
            shapes[name][0],
            tuple(s for s, t in flat.edges if t == name and (s, t) not in ordered.back),
            tuple(s for s, t in flat.edges if t == name and (s, t) in ordered.back),
        )
        for name in ordered.names
    )


def _read(path: Path) -> NIRGraph:
    import h5py
    import nir

    if not path.is_file():
        raise UserError(f"{path} is no file; give the path of a NIR file (HDF5)")
    with _named(path), h5py.File(path, "r") as file:
        refuse_other_files(file, str(path))
        kinds = list(_kinds(file["node"], ""))
    for name, kind in kinds:
        if kind not in (*KINDS, "NIRGraph"):
            raise UserError(
                f"{path}: node {name!r} is a {kind}, which is none of "
                f"{', '.join(KINDS)}; replace it"
            )
    with _named(path):
        graph = nir.read(path, type_check=False)
    if not isinstance(graph, nir.NIRGraph):
        raise UserError(f"{path} holds a {type(graph).__name__}; put it into a NIRGraph")
    return graph


@contextlib.contextmanager
def _named(path: Path) -> Generator[None]:
    """HDF5 and nir raise nearly anything for a file that is damaged, or none of theirs."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = shown(str(error)).strip("'\"")
        raise UserError(f"{path} holds no NIR graph ({reason}); write it with nir.write") from error


def _kinds(group: Any, name: str) -> Iterator[tuple[str, str]]:
    """The kind of every node of an open HDF5 file, by the names that a flat graph gives them."""
    yield name, group["type"][()].decode()
    for child, inner in group.get("nodes", {}).items():
        yield from _kinds(inner, f"{name}/{child}" if name else child)


def _step_length(flat: Flat, metadata: Mapping[str, Any], dt: float | None) -> float:
    timed = [(name, type(n).__name__) for name, n in flat.nodes.items()]
    timed = [(name, kind) for name, kind in timed if kind in TIMED]
    if dt is None and "dt" in metadata:
        dt = float(metadata["dt"])
    if dt is None:
        if not timed:
            return 1.0
        name, kind = timed[0]
        raise UserError(
            f"node {name!r} ({kind}) moves in time, and the graph does not say how long a step is; "
            "give dt (1.0 where a step is the unit, as of networks whose r is 1 and which never "
            "had a time)"
        )
    if not 0 < dt < float("inf"):
        raise UserError(f"dt={dt}: the length of a step is above 0 and finite")
    return dt


def _translated(name: str, node: Any, dt: float, rules: Rules, dtype: DType) -> Translated:
    try:
        return translate(node, dt, rules, dtype)
    except UserError as error:
        raise UserError(f"node {name!r} ({type(node).__name__}) {error}") from error


def _shapes(flat: Flat, translated: Mapping[str, Translated]) -> dict[str, tuple[Shape, Shape]]:
    """Each node's shapes of input and output, passed on along the edges from the inputs.

    Raises:
        UserError: a node cannot take what comes in.
    """
    shapes: dict[str, tuple[Shape, Shape]] = {}
    for name in flat.inputs:
        shape = cast("Identity", translated[name].operation).shape
        shapes[name] = (shape, shape)
    waiting = list(flat.inputs)
    while waiting:
        source = waiting.pop()
        shape = shapes[source][1]
        for target in [t for s, t in flat.edges if s == source]:
            if target not in shapes:
                shapes[target] = (shape, _output_shape(flat, target, translated[target], shape))
                waiting.append(target)
            elif shapes[target][0] != shape:
                raise UserError(
                    f"node {target!r} gets {shape} from {source!r}, and {shapes[target][0]} from "
                    "elsewhere; what comes in is added up, so shapes must agree"
                )
    return shapes


def _output_shape(flat: Flat, name: str, one: Translated, shape: Shape) -> Shape:
    kind = type(flat.nodes[name]).__name__
    for leaf in one.shaped:
        array = one.params[leaf]
        if array.size != 1 and array.shape != shape:
            raise UserError(
                f"node {name!r} ({kind}) has {leaf} of shape {array.shape}, but gets {shape}; "
                "parameters have one value, or one for each neuron"
            )
    try:
        params = {leaf: jnp.asarray(array) for leaf, array in one.params.items()}
        return one.operation.output_shape(shape, params)
    except UserError as error:
        raise UserError(f"node {name!r} ({kind}) {error}") from error
