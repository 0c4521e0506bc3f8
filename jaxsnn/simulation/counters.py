"""Exact counters: spikes and synaptic events per step and image, totals in 64 bits on the host.

A synaptic operation is one spike that reaches one synapse; a graded spike of size n, of either
sign, is n spikes. What has no neurons of its own emits no spikes and passes on those that it gets:
behind an average pool every spike of a window is counted, whatever their sum is worth and whether
opposite ones cancel in it. Where pools have neurons (rate coding), their spikes are counted. A max
pool on currents stands before the neuron, which emits what is left; one behind neurons emits the
change of the largest count, and that is counted. An identity shortcut has no synapse.

On the device every counter is an int32 per step and image. Synaptic operations are counted as
*synaptic events*: spikes times the number of windows that cover their position; a consumer with C
output channels spends ``C`` operations on each, which the host multiplies in int64.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxsnn.arch.layers import Site, fan_out_windows
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import consumers, plan, site_named, spiking_sites
from jaxsnn.network.per_site import SiteMap, spikes_at
from jaxsnn.neurons.neuron import Neuron


class Counters(NamedTuple):
    """Spike counters, each a dict of int32 ``[K, B]``.

    Attributes:
        spikes: site -> number of spikes, negative ones included.
        negative: site -> number of negative spikes.
        events: consumer -> spikes that reach it times the windows that cover their position.
    """

    spikes: dict[str, Array]
    negative: dict[str, Array]
    events: dict[str, Array]


class Reach(NamedTuple):
    """Which spikes drive a synapse.

    Attributes:
        source: the site that emits them.
        windows: int64, how many of the consumer's windows each position of the source reaches.
    """

    source: Site
    windows: NDArray[np.int64]


@functools.lru_cache(maxsize=64)
def reaches(arch: Arch, neurons: SiteMap[Neuron]) -> dict[str, Reach]:
    """Consumer -> the spikes that drive it, seen through pools without neurons."""
    return {site.name: _reach(arch, neurons, site) for site in consumers(arch)}


def _reach(arch: Arch, neurons: SiteMap[Neuron], site: Site) -> Reach:
    windows, source = fan_out_windows(site), site_named(arch, site.source)
    while source.kind == "avgpool" and neurons.at(source).spikes is None:
        windows, source = _before_pool(windows, source), site_named(arch, source.source)
    return Reach(source, windows)


def _before_pool(windows: NDArray[np.int64], pool: Site) -> NDArray[np.int64]:
    """What the positions before a pool reach, from those behind it; a rest reaches nothing."""
    spread = np.kron(windows, np.ones(pool.window, np.int64))
    whole = np.zeros(pool.in_shape[:-1], np.int64)
    whole[: spread.shape[0], : spread.shape[1]] = spread
    return whole


def count(outs: Mapping[str, Array], arch: Arch, neurons: SiteMap[Neuron]) -> Counters:
    """Count one block: ``outs`` maps sites to signed spike counts ``[K, B, ...]``.

    A site whose neuron emits no spikes (an activation of an ANN, a membrane potential) counts none.
    """
    reached = reaches(arch, neurons)
    emitting = {site.name: site for site in (*spiking_sites(arch), *_sources(reached))}
    spikes, negative, events = {}, {}, {}
    sizes: dict[str, Array] = {}
    for name, site in emitting.items():
        spikes_there = spikes_at(arch, neurons, site) is not None
        out = outs[name] if spikes_there else jnp.zeros_like(outs[name])
        whole = out.astype(jnp.int32)
        sizes[name] = jnp.sum(jnp.abs(whole), -1, dtype=jnp.int32)
        if site.role == "activation":
            axes = tuple(range(2, whole.ndim))
            spikes[name] = jnp.sum(sizes[name], axes[:-1])
            negative[name] = (spikes[name] - jnp.sum(whole, axes)) // 2
    for name, (source, windows) in reached.items():
        size = sizes[source.name]
        driving = size * jnp.asarray(windows, jnp.int32)
        events[name] = jnp.sum(driving, tuple(range(2, size.ndim)))
    return Counters(spikes, negative, events)


def _sources(reached: Mapping[str, Reach]) -> list[Site]:
    return [one.source for one in reached.values()]


def synaptic_operations(events: Mapping[str, np.ndarray], arch: Arch) -> dict[str, np.ndarray]:
    """Synaptic operations of every consumer, int64, from its synaptic events (any shape)."""
    channels = {site.name: site.drive_shape[-1] for site in plan(arch)}
    return {name: np.asarray(e, np.int64) * channels[name] for name, e in events.items()}


def total(parts: Mapping[str, np.ndarray], without: Sequence[str] = ()) -> np.ndarray:
    """Sum over sites in int64, leaving out the sites named in ``without``."""
    kept = [np.asarray(part, np.int64) * (name not in without) for name, part in parts.items()]
    return np.asarray(np.sum(kept, axis=0, dtype=np.int64))


def last_step(spikes: np.ndarray) -> np.ndarray:
    """Last step (from 1) of ``[T, N]`` with a spike, int64 ``[N]``; 0 where there is none.

    >>> last_step(np.array([[2, 0, 1], [0, 0, 3], [1, 0, 0]])).tolist()
    [3, 0, 2]
    """
    number = np.arange(1, len(spikes) + 1)[:, None]
    return np.max(np.where(spikes > 0, number, 0), axis=0, initial=0)
