"""The scan engine: blocks of time, exact counters, the readout summed after every step.

Pure functions of ``(snn, images, keys)``, jitted where they are called. No activation outlives its
block, so memory grows with the number of steps by readouts and counters alone.
"""

import functools
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxsnn.arch.plan import site_named, spiking_sites
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.inputs import encoding
from jaxsnn.network import net as net_module
from jaxsnn.neurons.neuron import count_dtype
from jaxsnn.simulation import counters as counters_module
from jaxsnn.simulation.counters import Counters
from jaxsnn.types import PyTree


class Trace(NamedTuple):
    """What a simulation of B images for T steps returns.

    Attributes:
        readouts: one ``[T, B, classes]`` per head (side exits first), summed over steps 1..t.
        counters: spikes, negative spikes and synaptic events, each site -> int32 ``[T, B]``.
        counts: site -> net spike count after the last step, int32 ``[B, ...]``; empty unless asked.
        records: site -> bit-packed spikes ``[T, planes, B, ..., ceil(C / 8)]`` uint8 (see
            :func:`unpack`).
        state: where the run ended, to go on from; None unless it began from a state.
    """

    readouts: tuple[Array, ...]
    counters: Counters
    counts: dict[str, Array]
    records: dict[str, Array]
    state: "Running | None" = None

    @property
    def readout(self) -> Array:
        """The last head's ``[T, B, classes]``."""
        return self.readouts[-1]

    @property
    def predictions(self) -> Array:
        """Predicted class after every step, int32 ``[T, B]``; ties go to the lowest class."""
        return jnp.argmax(self.readout, axis=-1)

    @property
    def undecided(self) -> Array:
        """Images without a class above another one after a step, bool ``[T, B]``."""
        lowest = jnp.min(self.readout, axis=-1)
        same = jnp.max(self.readout, axis=-1) == lowest
        return same if self.readout.shape[-1] > 1 else jnp.zeros_like(same)


class Carry(NamedTuple):
    """What goes from block to block; every array has the batch as its first axis.

    Attributes:
        state: site -> neuron state.
        total: one ``[B, classes]`` per head, the readouts summed so far.
        counts: site -> net spike count so far, int32 ``[B, ...]``; empty unless asked for.
    """

    state: PyTree
    total: tuple[Array, ...]
    counts: dict[str, Array]


class Running(NamedTuple):
    """A network between two steps: a pytree of arrays, which can be saved and goes on anywhere.

    Attributes:
        carry: membrane potentials, and what has been counted.
        steps: int32 scalar, steps so far.
    """

    carry: Carry
    steps: Array


class Shown(NamedTuple):
    """The input.

    Attributes:
        frames: ``[T or 1, B, H, W, C]``.
        current: an image's ``[1, B, ...]``; None for frames.
        lengths: steps of each example, int32 ``[B]``, after which nothing of it counts; None: all.
        before: int32 scalar, steps before the first of these; None: none.
    """

    frames: Array
    current: Array | None
    lengths: Array | None = None
    before: Array | None = None


def run(
    snn: Spiking,
    images: Array,
    keys: Array | None,
    lengths: Array | None = None,
    state: Running | None = None,
    *,
    steps: int,
    block: int,
    record: tuple[str, ...] = (),
    counts: bool = False,
) -> Trace:
    """Simulate; see :func:`jaxsnn.simulate` for the arguments.

    No step depends on a later one or on ``steps``: the first t rows are the run of t steps.
    """
    blocks = -(-steps // block)
    limit = steps if steps % block else None
    shown = show(snn, images, blocks * block)._replace(lengths=lengths)
    if state is None:
        first = start(snn, images.shape[encode_axis(snn)], keys, counts)
    else:
        first, shown = state.carry, shown._replace(before=state.steps)
    end, stacked = proceed(snn, shown, block, limit, record, first, jnp.arange(blocks))
    readouts, counters, packed = jax.tree.map(lambda a: a[:steps], stacked)
    after = None if state is None else Running(end, state.steps + steps)
    return Trace(readouts, counters, end.counts, packed, after)


def encode_axis(snn: Spiking) -> int:
    """The batch axis of the input: 1 behind the time axis of frames, else 0."""
    return 1 if snn.encoding.presentation == "frames" else 0


def start(snn: Spiking, batch: int, keys: Array | None, counts: bool) -> Carry:
    """Everything before the first step, for ``batch`` images."""
    sites = spiking_sites(snn.arch) if counts else ()
    return Carry(
        net_module.initial_state(snn.net, snn.variables, batch, keys),
        _zero_readouts(snn, batch),
        {site.name: jnp.zeros((batch, *site.out_shape), jnp.int32) for site in sites},
    )


def show(snn: Spiking, images: Array, steps: int) -> Shown:
    """Frames padded with zeros to ``steps``; an image's current computed once."""
    if encode_axis(snn):
        missing = max(steps - images.shape[0], 0)
        return Shown(jnp.pad(images, ((0, missing), *((0, 0),) * (images.ndim - 1))), None)
    return Shown(images[None], net_module.stem(snn.net, snn.variables, images)[None])


def proceed(
    snn: Spiking,
    shown: Shown,
    block: int,
    limit: Array | int | None,
    record: tuple[str, ...],
    carry: Carry,
    numbers: Array,
) -> tuple[Carry, PyTree]:
    """Some blocks of time, one after the other.

    Args:
        snn: the network.
        shown: its input.
        block: steps K of a block.
        limit: steps after this one are counted nowhere; None where blocks end with the run.
        record: sites whose spikes are packed.
        carry: what the blocks before left.
        numbers: int32 ``[N]``, the blocks' (from 0).

    Returns:
        The carry, and ``(readouts, counters, packed spikes)``, each with N * K steps in front.
    """
    snn = replace(snn, variables=net_module.prepared(snn.net, snn.variables))
    following = functools.partial(_advance, snn, shown, block, limit, record)
    if len(numbers) == 1:
        return following(carry, numbers[0])
    carry, stacked = jax.lax.scan(following, carry, numbers)
    return carry, jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), stacked)


def _advance(
    snn: Spiking,
    shown: Shown,
    block: int,
    limit: Array | int | None,
    record: tuple[str, ...],
    carry: Carry,
    number: Array,
) -> tuple[Carry, PyTree]:
    """One block of time: the carry, and what is stacked over blocks."""
    first = number * block
    numbers, alive = first + jnp.arange(block), jnp.ones(block, jnp.int32)
    if limit is not None:
        alive = (numbers < limit).astype(jnp.int32)
    begun = first if shown.before is None else shown.before + first
    gate = alive * encoding.gates(snn.encoding, begun, block)
    if shown.lengths is not None:  # [K, B] from here on
        alive = alive[:, None] * (numbers[:, None] < shown.lengths)
    out = _block(snn, shown, carry.state, first, gate)
    outs = {name: _masked(value, alive) for name, value in out.outs.items()}
    sums = tuple(
        total + jnp.cumsum(_masked(readout, alive), axis=0, dtype=total.dtype)
        for total, readout in zip(carry.total, out.readouts, strict=True)
    )
    counts = {
        name: value + jnp.sum(outs[name], axis=0, dtype=jnp.int32)
        for name, value in carry.counts.items()
    }
    packed = {name: pack(outs[name], _spikes(snn, name)) for name in record}
    after = Carry(out.state, tuple(total[-1] for total in sums), counts)
    return after, (sums, counters_module.count(outs, snn.arch, snn.neurons), packed)


def _block(snn: Spiking, shown: Shown, state: PyTree, first: Array, gate: Array) -> net_module.Out:
    """Present what ``gate [K]`` lets through: frames from ``first`` on, or the image's current."""
    if shown.current is None:
        x = jax.lax.dynamic_slice_in_dim(shown.frames, first, gate.shape[0])
        x = x * _along(gate, x).astype(x.dtype)
        return net_module.apply(snn.net, snn.variables, x, state, gate=gate)
    held = shown.current * _along(gate, shown.current).astype(shown.current.dtype)
    return net_module.apply(snn.net, snn.variables, shown.frames, state, gate=gate, stem=held)


def _along(steps: Array, value: Array) -> Array:
    """``steps [K]`` or ``[K, B]`` shaped to multiply ``value [K or 1, B, ...]``."""
    return steps.reshape(*steps.shape, *(1,) * (value.ndim - steps.ndim))


def _spikes(snn: Spiking, name: str) -> tuple[int, int] | None:
    return snn.neurons.at(site_named(snn.arch, name)).spikes


def _masked(value: Array, alive: Array) -> Array:
    """``value [K, B, ...]`` with the steps that are not alive set to zero."""
    return value * _along(alive, value).astype(value.dtype)


def _zero_readouts(snn: Spiking, batch: int) -> tuple[Array, ...]:
    """Zeros ``[B, classes]`` per head in the dtype of its readout."""
    frames = jnp.zeros((1, 1, *snn.arch.input_shape), jnp.int32)

    def readouts() -> tuple[Array, ...]:
        keys = jax.random.split(jax.random.key(0), 1)
        state = net_module.initial_state(snn.net, snn.variables, 1, keys)
        return net_module.apply(snn.net, snn.variables, frames, state).readouts

    shapes = jax.eval_shape(readouts)
    return tuple(jnp.zeros((batch, one.shape[-1]), _sum_dtype(one.dtype)) for one in shapes)


def _sum_dtype(dtype: DTypeLike) -> DTypeLike:
    return jnp.int32 if jnp.issubdtype(dtype, jnp.integer) else dtype


def pack(out: Array, spikes: tuple[int, int] | None) -> Array:
    """Signed counts ``[K, B, ..., C]`` as bit planes ``[K, planes, B, ..., ceil(C / 8)]`` uint8.

    One plane per possible spike of a step: ``out >= 1 .. highest``, then ``out <= -1 .. lowest``.
    """
    lowest, highest = spikes or (0, 1)
    sizes = [*range(1, highest + 1), *range(-1, lowest - 1, -1)]
    size = jnp.asarray(sizes, out.dtype).reshape(-1, *(1,) * (out.ndim - 1))
    reached = jnp.where(size > 0, out[:, None] >= size, out[:, None] <= size)
    return jnp.packbits(reached, axis=-1)


def unpack(record: Array, snn: Spiking, site: str) -> Array:
    """The signed spike counts ``[T, B, ..., C]`` that ``record=(site,)`` packed.

    int8, or int32 where a count can exceed 127.
    """
    highest = (_spikes(snn, site) or (0, 1))[1]
    dtype = count_dtype(highest)
    channels = site_named(snn.arch, site).out_shape[-1]
    planes = jnp.unpackbits(record, axis=-1, count=channels)
    return planes[:, :highest].sum(1, dtype=dtype) - planes[:, highest:].sum(1, dtype=dtype)
