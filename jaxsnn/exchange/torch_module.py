"""A module of torch in our notation and our tree, compared layer by layer (extra ``torch``)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from jaxsnn.arch.notation import Arch
from jaxsnn.errors import UserError
from jaxsnn.exchange.fitting import Fitting, network_of
from jaxsnn.exchange.graph import Graph, inexpressible
from jaxsnn.exchange.graph_reader import Reading, read_graph
from jaxsnn.exchange.matching import NORM
from jaxsnn.exchange.reference import (
    TOLERANCE,
    Reference,
    Seen,
    check_images,
    check_logits,
    check_reference,
    difference,
)
from jaxsnn.exchange.table import Row, Table
from jaxsnn.exchange.torch_trace import EXAMPLES, trace
from jaxsnn.exchange.weights import Weights, contiguous
from jaxsnn.network.net import Net

# Modules around a module, and where they keep it.
WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}


class Imported(NamedTuple):
    """A network that was trained elsewhere.

    Attributes:
        arch: in our notation.
        variables: its weights, ``{"params": ..., "batch_stats": ...}``.
        table: what became of each of its arrays.
    """

    arch: Arch
    variables: dict[str, Any]
    table: Table

    @property
    def net(self) -> Net:
        """The network as given, of ReLUs in full precision: ``trained=`` of a conversion."""
        return network_of(self.arch)


def from_module(
    module: Any, input_shape: tuple[int, int, int], reference: Reference | None = None
) -> Imported:
    """Find the architecture of a module, take its weights over, and compare every layer.

    Args:
        module: an ``nn.Module``, which stays as it is.
        input_shape: (height, width, channels) of its images.
        reference: images and the logits that it is said to give; None: it is run on random images.

    Raises:
        UserError: see :func:`jaxsnn.exchange.from_torch`.
    """
    while type(module).__name__ in WRAPPERS:
        module = getattr(module, WRAPPERS[type(module).__name__])
    images = _images(input_shape) if reference is None else np.asarray(reference.images, np.float32)
    check_images(images, input_shape)
    graph = trace(module, images)
    reading = read_graph(graph)
    fitting, unused = _fitting(module, reading)
    variables = fitting.variables()
    logits = graph.values[reading.logits]
    check_reference(reading.arch, variables, Reference(images, logits), _seen(graph, reading))
    if reference is not None and not _gives(graph, reading, reference):
        raise UserError(
            "the module itself gives other logits than the reference, though all of its layers "
            "are taken over; look at the images, and at whether it was in evaluation (eval())"
        )
    table = replace(fitting.table, rows=(*fitting.table.rows, *unused))
    return Imported(reading.arch, variables, table)


def _gives(graph: Graph, reading: Reading, reference: Reference) -> bool:
    """Whether a module gives a reference, before or behind the softmax that it may end with."""
    theirs = np.asarray(reference.logits, np.float32)
    check_logits(theirs, len(reference.images), reading.arch.classes)
    ends = (graph.values[step] for step in (reading.logits, graph.output))
    return min(difference(end, theirs) for end in ends) <= TOLERANCE


def _images(input_shape: tuple[int, int, int]) -> np.ndarray:
    """Images of noise, ``[B, C, H, W]``: every layer sees values of its own."""
    height, width, channels = input_shape
    shape = (EXAMPLES, channels, height, width)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _fitting(module: Any, reading: Reading) -> tuple[Fitting, list[Row]]:
    """The arrays of the layers that are used, by site, and rows for the others."""
    names: dict[str, str] = {}
    epsilons: dict[str, float] = {}
    for site, part in reading.parts.items():
        targets = {part.synapse.path: site}
        if part.norm is not None:
            targets[part.norm.path] = site + NORM
            epsilons[part.norm.path] = part.norm.epsilon
        for path in targets:
            if path in names:
                raise inexpressible(part.place, f"{path} is used twice; give it a copy of its own")
        names |= targets
    arrays = {name: array_of(tensor) for name, tensor in module.state_dict().items()}
    used = {name: array for name, array in arrays.items() if name.rpartition(".")[0] in names}
    weights = Weights(used, type(module).__name__, "module", epsilons=epsilons)
    unused = [
        Row(name, array.shape, "", None, "not used by the network")
        for name, array in arrays.items()
        if name not in used
    ]
    return Fitting(weights, reading.arch, names=names), unused


def _seen(graph: Graph, reading: Reading) -> dict[str, Seen]:
    return {site: Seen(part.place, graph.values[part.step]) for site, part in reading.parts.items()}


def array_of(value: Any) -> np.ndarray:
    """A tensor of torch, or anything that NumPy understands, as an array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        narrow = value.is_floating_point() and value.element_size() < 4
        value = (value.float() if narrow else value).numpy()
    return contiguous(np.asarray(value))
