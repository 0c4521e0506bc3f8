"""Exact counters: spikes and synaptic events per step and image, totals in 64 bits on the host.

On the device every counter is an int32 per step and image. Synaptic operations are counted as
*synaptic events*: spikes times the number of windows that cover their position; a consumer with C
output channels spends ``C`` operations on each, which the host multiplies in int64.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.arch.layers import fan_out_windows
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import consumers, plan, spiking_sites


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


def count(outs: Mapping[str, Array], arch: Arch) -> Counters:
    """Count one block: ``outs`` maps sites to signed spike counts ``[K, B, ...]``."""
    spikes, negative, events = {}, {}, {}
    sizes = {name: jnp.sum(jnp.abs(out), -1, dtype=jnp.int32) for name, out in outs.items()}
    for site in spiking_sites(arch):
        size = sizes[site.name]
        net = jnp.sum(outs[site.name], -1, dtype=jnp.int32)
        axes = tuple(range(2, size.ndim))
        spikes[site.name] = jnp.sum(size, axes)
        negative[site.name] = jnp.sum((size - net) // 2, axes)
    for site in consumers(arch):
        size = sizes[site.source]
        windows = jnp.asarray(fan_out_windows(site), jnp.int32)
        events[site.name] = jnp.sum(size * windows, tuple(range(2, size.ndim)))
    return Counters(spikes, negative, events)


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
