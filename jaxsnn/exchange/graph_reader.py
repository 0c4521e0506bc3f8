"""The notation of a network that is written down as a graph: the chain, read from its end."""

from __future__ import annotations

from typing import NamedTuple, cast

from jaxsnn.arch.layers import AvgPool, Conv, Dense, MaxPool
from jaxsnn.arch.notation import Arch, Layer, Residual, Shortcut
from jaxsnn.arch.plan import plan
from jaxsnn.exchange.graph import BatchNorm, Graph, Synapse, inexpressible
from jaxsnn.exchange.graph_values import Drive, Image, Signal, Sum, Value, after, branch_of


class Part(NamedTuple):
    """Where a site's weights and its values are in the original.

    Attributes:
        place: for messages.
        synapse: of the site.
        norm: behind it.
        step: gives what the site gives.
    """

    place: str
    synapse: Synapse
    norm: BatchNorm | None
    step: str


class Reading(NamedTuple):
    """A network in our notation.

    Attributes:
        arch: the network.
        parts: site -> where it is in the original.
        logits: the step that gives the logits, before any softmax.
    """

    arch: Arch
    parts: dict[str, Part]
    logits: str


def read_graph(graph: Graph) -> Reading:
    """Find the architecture of a network.

    Raises:
        UserError: a step that the notation cannot express, with its place.
    """
    values: dict[str, Value] = {}
    for step in graph.steps:
        values[step.name] = after(step, [values[name] for name in step.inputs])
    head = values[graph.output]
    if not (isinstance(head, Drive) and head.synapse.kind == "dense"):
        raise inexpressible(head.place, "the network ends here, and not with a dense layer")
    if head.norm is not None:
        raise inexpressible(head.place, "a batch norm behind the logits; fold it into their layer")
    layers, parts, image = _chain(head.source)
    if not parts:
        raise inexpressible(
            head.place, "the whole network; a layer and a ReLU must stand before it"
        )
    channels, height, width = image.whole
    pooled = bool(layers) and layers[-1] == AvgPool(0)
    arch = Arch(
        layers=tuple(layers[:-1] if pooled else layers),
        classes=head.synapse.units,
        input_shape=(height, width, channels),
        norm=any(part.norm is not None for part in parts),
        head_pool=pooled,
        head_bias=head.synapse.bias,
    )
    parts.append(_part(head, head.step))
    sites = [site.name for site in plan(arch) if site.kernel_shape]
    return Reading(arch, dict(zip(sites, parts, strict=True)), head.step)


def _chain(value: Image | Signal) -> tuple[list[Layer], list[Part], Image]:
    """Layers and their parts from the images up to a value."""
    layers: list[Layer] = []
    parts: list[Part] = []
    while isinstance(value, Signal):
        made_of = value.made_of
        if isinstance(made_of, Signal):
            pool = value.pool
            layers.append(pool if isinstance(pool, MaxPool) else AvgPool(pool.size if pool else 0))
            value = made_of
        elif isinstance(made_of, Drive):
            layers.append(_layer(made_of))
            parts.append(_part(made_of, value.step))
            value = made_of.source
        else:
            layers.append(_residual(made_of))
            parts += reversed(_block_parts(made_of, value.step))
            value = made_of.base
    return layers[::-1], parts[::-1], value


def _layer(drive: Drive) -> Conv | Dense:
    synapse, norm = drive.synapse, drive.norm is not None
    bias = synapse.bias and not norm  # a bias before a norm is part of its mean
    if synapse.kind == "dense":
        return Dense(synapse.units, norm, bias)
    sizes = (synapse.units, synapse.kernel, synapse.stride, synapse.padding)
    return Conv(*sizes, norm=norm, bias=bias, max_pool=drive.pool)


def _residual(end: Sum) -> Residual:
    convolutions = [_layer(drive) for drive in reversed(branch_of(end.branch, end.base))]
    kind: Shortcut = "padded" if end.padded else "identity"
    if end.shortcut is not None:
        kind = "norm" if end.shortcut.norm else "bias"
    return Residual(tuple(cast("list[Conv]", convolutions)), kind)


def _block_parts(end: Sum, step: str) -> list[Part]:
    """Parts of a block in the order of its sites: the shortcut stands before the last."""
    last, *earlier = branch_of(end.branch, end.base)
    steps = [cast("Signal", drive.source).step for drive in (last, *earlier)]
    parts = [_part(drive, after) for drive, after in zip(earlier, steps, strict=False)]
    shortcut = [_part(end.shortcut, end.shortcut.step)] if end.shortcut else []
    return [*reversed(parts), *shortcut, _part(last, step)]


def _part(drive: Drive, step: str) -> Part:
    return Part(drive.place, drive.synapse, drive.norm, step)
