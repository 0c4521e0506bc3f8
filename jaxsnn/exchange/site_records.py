"""A network's sites as plain JSON: what a reader without this library has to know of each."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict, cast

from jaxsnn.arch.layers import MaxPool, Site
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.spiking import Folded, Spiking
from jaxsnn.network.net import neuron_at
from jaxsnn.neurons.neuron import Neuron


class NeuronRecord(TypedDict):
    """A neuron's factory, and its options; an option may be a neuron again."""

    name: str
    options: dict[str, Any]


class WindowsRecord(TypedDict):
    """Square windows of a max pool."""

    size: int
    stride: int
    padding: int


class SiteRecord(TypedDict):
    """One site, in execution order; shapes are ``[H, W, C]``, or ``[units]`` of dense layers.

    Attributes:
        name, role, kind, source: as in :class:`jaxsnn.arch.layers.Site`.
        in_shape, drive_shape, out_shape: before the synapse, behind it, behind max pooling.
        window, strides: vertical and horizontal.
        padding: zeros ``[[top, bottom], [left, right]]``; around a max pool, what is never largest.
        max_pool: the windows in which the drive is pooled before the neuron; None: it is not.
        shortcut: the site whose output is added to the drive; empty: none.
        shortcut_stride: of that output, every so many-th row and column.
        neuron: behind the drive.
    """

    name: str
    role: str
    kind: str
    source: str
    in_shape: list[int]
    window: list[int]
    strides: list[int]
    padding: list[list[int]]
    drive_shape: list[int]
    max_pool: WindowsRecord | None
    shortcut: str
    shortcut_stride: int
    out_shape: list[int]
    neuron: NeuronRecord


def site_records(snn: Spiking) -> list[SiteRecord]:
    """Every site of a network.

    >>> import jax, jaxsnn
    >>> arch = jaxsnn.parse("4C3same", classes=2, input_shape=(6, 6, 1))
    >>> net = jaxsnn.Net(arch, jaxsnn.hidden(jaxsnn.neurons.quantised_relu(k=1, bound=2)))
    >>> variables = jaxsnn.init_variables(net, jax.random.key(0))
    >>> snn = jaxsnn.convert(variables, arch, jaxsnn.methods.scatter_gather(k=1, bound=2))
    >>> first, readout = site_records(snn)
    >>> first["padding"], first["drive_shape"], first["neuron"], readout["source"]
    ([[1, 1], [1, 1]], [6, 6, 4], {'name': 'threshold_count', 'options': {'levels': 4}}, 'conv1')
    """
    return [_site_record(site, neuron_at(snn.neurons, site)) for site in plan(snn.arch)]


def neuron_record(neuron: Neuron) -> NeuronRecord:
    """What a neuron is made of: with it :data:`jaxsnn.neurons.FACTORIES` make it again."""
    options = {
        name: neuron_record(value) if isinstance(value, Neuron) else _listed(value)
        for name, value in neuron.options
    }
    return {"name": neuron.name, "options": options}


def folded_record(record: Folded) -> dict[str, Any]:
    """What conversion did to a site; form and quantiser are one word, ``kernel``."""
    fields = dataclasses.asdict(record) | {"kernel": record.kernel}
    return {name: value for name, value in fields.items() if name not in ("form", "quantiser")}


def _site_record(site: Site, neuron: Neuron) -> SiteRecord:
    return {
        "name": site.name,
        "role": site.role,
        "kind": site.kind,
        "source": site.source,
        "in_shape": list(site.in_shape),
        "window": list(site.window),
        "strides": list(site.strides),
        "padding": [list(pads) for pads in site.padding],
        "drive_shape": list(site.drive_shape),
        "max_pool": _windows(site.max_pool) if site.max_pool else None,
        "shortcut": site.shortcut,
        "shortcut_stride": site.shortcut_stride,
        "out_shape": list(site.out_shape),
        "neuron": neuron_record(neuron),
    }


def _windows(pool: MaxPool) -> WindowsRecord:
    return {"size": pool.size, "stride": pool.stride, "padding": pool.padding}


def _listed(value: Any) -> Any:
    """A tuple as the list that JSON makes of it."""
    return list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
