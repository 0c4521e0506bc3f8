"""Simulations that end image by image: those that are done leave the running batch.

A criterion says after every step which images are done. The host runs a few compiled steps at a
time, looks at what has been found, and as soon as the images still running fit into half the batch
it goes on with a batch of that size. Sizes halve, so that a batch of B images compiles at most
``log2(B) + 1`` programs. :func:`jaxsnn.settle` and :func:`jaxsnn.early_exit` are two criteria.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from numpy.typing import NDArray

from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import whole_number
from jaxsnn.network import net as net_module
from jaxsnn.simulation import engine
from jaxsnn.simulation.counters import Counters
from jaxsnn.simulation.engine import Carry, Shown, Trace, encode_axis
from jaxsnn.simulation.fixed_steps import check_input, check_run
from jaxsnn.types import PyTree, Tree

Criterion = Callable[[PyTree, tuple[Array, ...], Counters, Array], Array]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.integer]


class Stopped(NamedTuple):
    """What a simulation of B images returns that ends image by image.

    Attributes:
        trace: NumPy arrays on the host for T steps, those of the image that took longest. Behind
            its last step an image keeps its sums and counts nothing.
        stops: last step of each image (from 1), int32 ``[B]``.
        done: whether the criterion ended it, bool ``[B]``; False where ``steps`` did.
        sizes: images that each step was computed for, int ``[T]``: those still running, those that
            wait for the next halving, and the copies that fill a batch.
    """

    trace: Trace
    stops: NDArray[np.int32]
    done: Flags
    sizes: Numbers


def run(
    snn: Spiking,
    images: Array | np.ndarray,
    criterion: Criterion,
    values: PyTree = (),
    *,
    steps: int,
    every: int,
    record: Sequence[str] = (),
    counts: bool = False,
    devices: int = 1,
) -> Stopped:
    """Simulate every image until its first step that is done, or for ``steps`` steps.

    Up to there it is the run of :func:`jaxsnn.simulate`: bit for bit, where sums are exact; float
    weights may round differently in batches of another size.

    Args:
        snn: a converted network without random neurons.
        images: as for :func:`jaxsnn.simulate`.
        criterion: ``(values, sums, counters, numbers) -> done``, bool ``[K, B]``, traced once for
            each shape: the readouts summed over steps 1..t, one ``[K, B, classes]`` per head (for a
            head that spikes its spike counts so far), the counters of K steps, and the steps'
            numbers, int32 ``[K]``, from 0. No image may depend on another one.
        values: arrays that the criterion reads, any pytree; others of their shapes compile nothing.
        steps: most steps to simulate.
        every: steps between two looks at who is done.
        record: sites whose spikes are returned, bit-packed.
        counts: return every site's net spike count, up to each image's last step.
        devices: local devices to share the batch between (it must divide B).

    Raises:
        UserError: ``every`` below 1, or as :func:`jaxsnn.simulate`.
    """
    whole_number("every", every)
    images, record = check_input(snn, images), (record,) if isinstance(record, str) else record
    check_run(snn, images, steps, 1, record, devices, counts)
    axis = encode_axis(snn)
    begin, further = programs(criterion, every, tuple(record), counts, devices, axis)
    network, limit = snn.program, jnp.asarray(steps, jnp.int32)
    shown, going = begin(network, images, limit)
    batch = _Batch(shown, going, np.arange(images.shape[axis]))
    history = _History(len(batch.rows))
    for number in range(-(-steps // every)):
        going, piece = further(network, values, batch.shown, batch.going, number, limit)
        batch = batch._replace(going=going)
        running = history.add(batch, piece)
        if not running.any():
            break
        size = halved(len(batch.rows), int(running.sum()), devices)
        if size < len(batch.rows):
            history.leave(batch, ~running)
            batch = _compacted(batch, running, size)
    history.leave(batch, np.ones(len(batch.rows), bool))
    return history.stopped(every)


def halved(size: int, running: int, devices: int = 1) -> int:
    """The smallest of ``size``, its half, a quarter, ... that holds ``running`` images.

    Every size is a multiple of ``devices``, which ``size`` is.

    >>> [halved(11, running) for running in (6, 5, 3, 2, 1)]
    [11, 5, 5, 2, 1]
    >>> halved(24, 3, devices=8)
    8
    """
    share = size // devices
    while share > 1 and devices * (share // 2) >= running:
        share //= 2
    return devices * share


class _Going(NamedTuple):
    """What goes from step to step; every array has the batch as its first axis.

    ``stops``: int32 ``[B]``, the last step that counts, the limit until it is known; ``done``: bool
    ``[B]``, whether it is.
    """

    carry: Carry
    stops: Array
    done: Array


class _Batch(NamedTuple):
    """What is still simulated; ``rows``: the number of each row's image, -1 for a copy."""

    shown: Shown
    going: _Going
    rows: NDArray[np.intp]


@functools.lru_cache(maxsize=16)
def programs(
    criterion: Criterion,
    every: int,
    record: tuple[str, ...],
    counts: bool,
    devices: int,
    axis: int,
) -> tuple[Callable[..., tuple[Shown, _Going]], Callable[..., tuple[_Going, PyTree]]]:
    """The compiled programs: before the first step, and ``every`` steps of a batch.

    ``(network, images, limit) -> (shown, going)`` with the batch along ``axis`` of the images, and
    ``(network, values, shown, going, number, limit) -> (going, rows)``.
    """

    def begin(snn: Spiking, images: Array, limit: Array) -> tuple[Shown, _Going]:
        batch = images.shape[axis]
        carry = engine.start(snn, batch, None, counts)
        going = _Going(carry, jnp.full(batch, limit, jnp.int32), jnp.zeros(batch, bool))
        return engine.show(snn, images, 1), going

    def further(
        snn: Spiking, values: PyTree, shown: Shown, going: _Going, number: Array, limit: Array
    ) -> tuple[_Going, PyTree]:
        network = replace(snn, variables=net_module.prepared(snn.net, snn.variables))
        following = functools.partial(_advance, network, criterion, values, shown, limit, record)
        numbers = number * every + jnp.arange(every, dtype=jnp.int32)
        going, rows = jax.lax.scan(following, going, numbers)
        return going, jax.tree.map(lambda a: a[:, 0], rows)

    if devices == 1:
        return jax.jit(begin), jax.jit(further, donate_argnums=3)
    mesh = Mesh(np.array(jax.local_devices()[:devices]), ("batch",))
    share = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
    everywhere = PartitionSpec()
    batch, later, packed = (PartitionSpec(*(None,) * before, "batch") for before in range(3))
    in_specs = (everywhere, later if axis else batch, everywhere)
    shared_begin = share(begin, in_specs=in_specs, out_specs=(later, batch))
    in_specs = (everywhere, everywhere, later, batch, everywhere, everywhere)
    shared = share(further, in_specs=in_specs, out_specs=(batch, (later, later, packed)))
    return jax.jit(shared_begin), jax.jit(shared, donate_argnums=3)


def _advance(
    snn: Spiking,
    criterion: Criterion,
    values: PyTree,
    shown: Shown,
    limit: Array,
    record: tuple[str, ...],
    going: _Going,
    number: Array,
) -> tuple[_Going, PyTree]:
    """One step, in which only images that are not done count anything."""
    numbers, going_on = number[None], shown._replace(lengths=going.stops)
    carry, rows = engine.proceed(snn, going_on, 1, limit, record, going.carry, numbers)
    sums, counters, _ = rows
    meets = criterion(values, sums, counters, numbers)[0]
    ended = meets & ~going.done & (number < limit)
    stops = jnp.where(ended, number + 1, going.stops)
    return _Going(carry, stops, going.done | ended), rows


def _compacted(batch: _Batch, running: Flags, size: int) -> _Batch:
    """The running rows alone, filled up to ``size`` with copies of the first."""
    chosen = np.flatnonzero(running)
    missing = size - len(chosen)
    index = np.concatenate([chosen, np.repeat(chosen[:1], missing)])
    rows = np.concatenate([batch.rows[chosen], np.full(missing, -1)])
    shown, going = _taken(batch.shown, batch.going, jnp.asarray(index))
    return _Batch(shown, going, rows)


@jax.jit
def _taken(shown: Shown, going: _Going, index: Array) -> tuple[Shown, _Going]:
    return (
        jax.tree.map(lambda a: jnp.take(a, index, axis=1), shown),
        jax.tree.map(lambda a: jnp.take(a, index, axis=0), going),
    )


class _History:
    """What the host keeps of B images: what each step returned, and how each image ended."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.pieces: list[PyTree] = []
        self.sizes: list[int] = []
        self.counts: Tree = {}
        self.stops, self.done = np.zeros(images, np.int32), np.zeros(images, bool)

    def add(self, batch: _Batch, piece: PyTree) -> Flags:
        """Put one piece's rows in their images' places; which rows are still running."""
        sums, counters, packed = jax.device_get(piece)
        real = batch.rows >= 0

        def placed(value: np.ndarray, axis: int = 1) -> np.ndarray:
            steps = (slice(None),) * axis
            shape = (*value.shape[:axis], self.images, *value.shape[axis + 1 :])
            whole = np.zeros(shape, value.dtype)
            whole[(*steps, batch.rows[real])] = value[(*steps, real)]
            return whole

        records = {name: placed(value, 2) for name, value in packed.items()}
        self.pieces.append((tuple(map(placed, sums)), jax.tree.map(placed, counters), records))
        self.sizes.append(len(real))
        return real & ~np.asarray(batch.going.done)

    def leave(self, batch: _Batch, leaving: Flags) -> None:
        """Keep how the simulation of these rows ended."""
        leaving = leaving & (batch.rows >= 0)
        rows, going = batch.rows[leaving], batch.going
        self.stops[rows] = np.asarray(going.stops)[leaving]
        self.done[rows] = np.asarray(going.done)[leaving]
        for name, count in going.carry.counts.items():
            leaving_counts = np.asarray(count)[leaving]
            empty = np.zeros((self.images, *leaving_counts.shape[1:]), leaving_counts.dtype)
            self.counts.setdefault(name, empty)[rows] = leaving_counts

    def stopped(self, every: int) -> Stopped:
        """Everything up to the last step of all."""
        steps = int(self.stops.max())
        whole: PyTree = jax.tree.map(lambda *a: np.concatenate(a)[:steps], *self.pieces)
        sums, counters, records = whole
        held = np.minimum(np.arange(steps)[:, None], self.stops - 1)[..., None]
        readouts: Any = tuple(np.take_along_axis(one, held, axis=0) for one in sums)
        trace = Trace(readouts, counters, self.counts, records)
        return Stopped(trace, self.stops, self.done, np.repeat(self.sizes, every)[:steps])
