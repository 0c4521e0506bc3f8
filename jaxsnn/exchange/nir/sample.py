"""A graph beside its network: every spike of every step, on sample images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.arch.plan import spiking_sites
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError
from jaxsnn.exchange.nir.draft import Signal
from jaxsnn.exchange.nir.read import from_nir
from jaxsnn.exchange.nir.rules import Rules
from jaxsnn.exchange.nir.simulators import IMPORTERS, Simulator
from jaxsnn.simulation.engine import unpack
from jaxsnn.simulation.fixed_steps import check_input, simulate

if TYPE_CHECKING:
    from nir import NIRGraph, NIRGraphData, NIRNodeData

ROUNDING = 1e-4  # of the largest logit: what float sums in another order may do to one


class Sample(NamedTuple):
    """What a graph gives.

    Attributes:
        data: for the receiver to compare with.
        images: how many.
    """

    data: NIRGraphData
    images: int


def frames(snn: Spiking, images: np.ndarray, steps: int) -> np.ndarray:
    """What the graph's input gets, ``[T, B, C, H, W]``: held, once, or as it comes."""
    shown = np.asarray(check_input(snn, images))
    if snn.encoding.presentation == "frames":
        x = shown[:steps]
    else:
        ends = snn.encoding.ends or steps
        x = np.stack([shown if step < ends else 0 * shown for step in range(steps)])
    return np.moveaxis(x, -1, 2)


def compare(
    snn: Spiking,
    graph: NIRGraph,
    dtype: np.dtype[np.floating],
    simulator: Simulator | None,
    signals: Mapping[str, Signal],
    heads: Mapping[str, str],
    images: np.ndarray,
    steps: int,
) -> Sample:
    """Run a graph under a simulator's rules, and its network, on the same images.

    Args:
        snn: the network.
        graph: of it.
        dtype: in which the graph is exact.
        simulator: whose rules hold; None: NIR's.
        signals: site -> the nodes that add up to what it gives.
        heads: site of each head -> its output.
        images: as :func:`jaxsnn.simulate` takes them.
        steps: of both.

    Raises:
        UserError: the first site whose spikes, or logits, differ, with how many and where.
    """
    rules = Rules() if simulator is None else IMPORTERS[simulator].rules
    dt = 1.0 if simulator is None else IMPORTERS[simulator].dt
    network = from_nir(graph, dt=dt, rules=rules, dtype=dtype)
    spiking = [s.name for s in spiking_sites(snn.arch)]
    spiking = [name for name in spiking if snn.neurons.at(_site(snn, name)).spikes]
    nodes = [node for name in spiking for node in signals[name].nodes]
    x = frames(snn, images, steps)
    shown = network.run(x, record=tuple(dict.fromkeys([*nodes, *heads.values()])))
    recorded = {name: np.asarray(value) for name, value in shown.recorded.items()}
    trace = simulate(snn, jnp.asarray(images), steps=steps, record=spiking)
    who = simulator.value if simulator else "the graph"
    for name in spiking:
        expected = channels_first(np.asarray(unpack(trace.records[name], snn, name)))
        _refuse_difference(name, who, _sums(signals[name], recorded), expected)
    for head, readout in zip(heads.values(), trace.readouts, strict=True):
        _refuse_logits(head, who, recorded[head], np.asarray(readout))
    return Sample(_data(x, recorded, heads, dt), x.shape[1])


def _site(snn: Spiking, name: str) -> Site:
    return next(site for site in spiking_sites(snn.arch) if site.name == name)


def channels_first(value: np.ndarray) -> np.ndarray:
    """``[T, B, H, W, C]`` or ``[T, B, units]`` as ``[T, B, C, H, W]``."""
    return np.moveaxis(value, -1, 2) if value.ndim == 5 else value[..., None, None]


def _sums(signal: Signal, recorded: Mapping[str, np.ndarray]) -> np.ndarray:
    """What a site gives: its nodes and units added up."""
    total = sum(recorded[node] for node in signal.nodes)
    each = np.asarray(total)
    return each.reshape(*each.shape[:2], signal.units, *signal.shape).sum(2)


def _refuse_difference(site: str, who: str, actual: np.ndarray, expected: np.ndarray) -> None:
    wrong = actual != expected
    if wrong.any():
        first = tuple(int(index) for index in np.argwhere(wrong)[0])
        step, image, *neuron = first
        raise UserError(
            f"{site}: {who} would compute other spikes, {int(wrong.sum())} of {wrong.size}; first "
            f"in step {step + 1}, image {image}, neuron {tuple(neuron)} (channel, row, column): "
            f"{actual[first]:g} for {expected[first]:g}"
        )


def _refuse_logits(head: str, who: str, actual: np.ndarray, expected: np.ndarray) -> None:
    """Logits are the outputs added up over time; whole ones have to be equal."""
    summed = np.cumsum(actual.reshape(*actual.shape[:2], -1), axis=0, dtype=np.float64)
    allowed = 0.0
    if not np.issubdtype(expected.dtype, np.integer):
        allowed = ROUNDING * float(np.abs(expected).max(initial=1.0))
    worst = float(np.abs(summed - expected).max())
    if worst > allowed:
        raise UserError(f"{head}: {who} would compute other logits, by up to {worst:g}")


def _data(
    x: np.ndarray, recorded: Mapping[str, np.ndarray], heads: Mapping[str, str], dt: float
) -> NIRGraphData:
    import nir

    nodes: dict[str, NIRGraphData | NIRNodeData] = {"input": _node_data("input", x, dt)}
    for name, value in recorded.items():
        nodes[name] = _node_data("output" if name in heads.values() else "spikes", value, dt)
    return nir.NIRGraphData(nodes)


def _node_data(what: str, value: np.ndarray, dt: float) -> NIRNodeData:
    """``[T, B, ...]`` as NIR has it: ``[samples, steps, neurons]``, spikes as bool."""
    import nir

    flat = value.swapaxes(0, 1).reshape(value.shape[1], value.shape[0], -1)
    if what == "spikes" and set(np.unique(flat)) <= {0, 1}:
        flat = flat.astype(bool)
    return nir.NIRNodeData({what: nir.TimeGriddedData(np.ascontiguousarray(flat), dt)})
