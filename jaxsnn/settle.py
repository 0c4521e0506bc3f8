"""The settle stop: simulate until a whole step is silent, and drop images that have settled.

Where the input ends, with no delay and no random neuron, an image is settled for good with the
first step from then on in which no neuron spikes: no spike is no drive (zero times any weight is
zero, in floats too), biases end with the input, and a potential without drive stays where it was,
below every threshold that would fire. What such an image adds to any sum is zero.

The host runs a few compiled steps at a time, looks which images spiked in the last of them, and as
soon as the others fit into half the batch it goes on with a batch of that size. Sizes halve, so
that a batch of B images compiles at most ``log2(B) + 1`` programs.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from numpy.typing import NDArray

from jaxsnn import engine
from jaxsnn.arch import plan
from jaxsnn.engine import Carry, Shown, Trace
from jaxsnn.metrics import Counters
from jaxsnn.simulate import check_input, check_run
from jaxsnn.spiking import Spiking

RESTING = ("integrate_and_fire", "tracking")  # neurons that a silent step leaves as they are
EVERY = 4  # steps between two looks

Rows = NDArray[np.intp]


def settle(
    snn: Spiking,
    images: Array | np.ndarray,
    *,
    steps: int,
    every: int = EVERY,
    counts: bool = False,
    devices: int = 1,
) -> Trace:
    """Simulate until a whole step is silent, or for ``steps`` steps.

    The result is that of ``simulate(snn, images, steps=T)``: bit for bit, where sums are exact;
    float weights may round differently in batches of another size. T is the last step with a spike
    in any image, or the last but one of the input, and one silent step more, or ``steps``. Which
    images still spike then, the last row of the counters says.

    Args:
        snn: a converted network whose input ends, of tracking or integrate-and-fire
            neurons.
        images: ``[B, H, W, C]`` integers.
        steps: most steps to simulate.
        every: steps between two looks at what has settled.
        counts: return every site's net spike count.
        devices: local devices to share the batch between (it must divide B).

    Returns:
        A trace of NumPy arrays on the host; on the device no more than ``every`` rows exist.

    Raises:
        ValueError: a network that silence does not stop, with the reason, or as ``simulate``.
    """
    reason = restless(snn)
    if reason:
        raise ValueError(f"a silent step does not end this simulation: {reason}; leave settle out")
    if every < 1 or int(every) != every:
        raise ValueError(f"every={every}: look at what has settled after at least 1 whole step")
    images = check_input(snn, images)
    check_run(snn, images, steps, 1, (), devices)
    begin, further = _programs(devices, every, counts)
    network, limit = snn.program, jnp.asarray(steps, jnp.int32)
    shown, carry = begin(network, images)
    batch = _Batch(shown, carry, np.arange(len(images)))
    ends = snn.encoding.ends or 1
    history = _History(len(images), ends)
    for number in range(-(-steps // every)):
        carry, sums, counters = further(network, batch.shown, batch.carry, number, limit)
        batch = batch._replace(carry=carry)
        active = history.add(batch, sums, counters)
        if (number + 1) * every < ends:
            continue
        if not active.any():
            break
        size = halved(len(batch.rows), int(active.sum()), devices)
        if size < len(batch.rows):
            history.leave(batch, ~active)
            batch = _compacted(batch, active, size)
    history.leave(batch, np.ones(len(batch.rows), bool))
    return history.trace(steps)


def restless(snn: Spiking) -> str:
    """Why a silent step would not end a simulation of ``snn``; empty where it does."""
    if snn.encoding.ends is None:
        return (
            f"its input is presented as {snn.encoding.presentation!r} without an end, not once "
            "('onset') or for a duration"
        )
    for site in plan(snn.arch):
        neuron = snn.neurons.at(site)
        if site.role == "activation" and neuron.name not in RESTING:
            return f"{site.name}: {neuron.name!r} may spike after a silent step"
        if site.source == "input" and dict(neuron.options).get("rising"):
            return f"{site.name}: a rising neuron may hold back the input, which no spike shows"
        if site.role != "activation" and not neuron.stateless:
            return f"{site.name}: {neuron.name!r} has a state that no spike shows"
    return ""


def halved(size: int, active: int, devices: int = 1) -> int:
    """The smallest of ``size``, its half, a quarter, ... that holds ``active`` images.

    Every size is a multiple of ``devices``, which ``size`` is.

    >>> [halved(11, active) for active in (6, 5, 3, 2, 1)]
    [11, 5, 5, 2, 1]
    >>> halved(24, 3, devices=8)
    8
    """
    share = size // devices
    while share > 1 and devices * (share // 2) >= active:
        share //= 2
    return devices * share


class _Batch(NamedTuple):
    """What is still simulated; ``rows``: the number of each row's image, -1 for a copy."""

    shown: Shown
    carry: Carry
    rows: Rows


@functools.lru_cache(maxsize=16)
def _programs(devices: int, every: int, counts: bool) -> tuple[Any, Any]:
    """``(network, images) -> (shown, carry)``, and ``every`` steps of a batch."""

    def begin(snn: Spiking, images: Array) -> tuple[Shown, Carry]:
        return engine.show(snn, images, 1), engine.start(snn, len(images), None, counts)

    def further(
        snn: Spiking, shown: Shown, carry: Carry, number: Array, limit: Array
    ) -> tuple[Carry, tuple[Array, ...], Counters]:
        numbers = number * every + jnp.arange(every)
        carry, (sums, counters, _) = engine.proceed(snn, shown, 1, limit, (), carry, numbers)
        return carry, sums, counters

    if devices == 1:
        return jax.jit(begin), jax.jit(further, donate_argnums=2)
    mesh = Mesh(np.array(jax.local_devices()[:devices]), ("batch",))
    everywhere, batch, later = (PartitionSpec(*axes) for axes in ((), ("batch",), (None, "batch")))
    share = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
    shared_begin = share(begin, in_specs=(everywhere, batch), out_specs=(later, batch))
    specs = (everywhere, later, batch, everywhere, everywhere)
    shared = share(further, in_specs=specs, out_specs=(batch, later, later))
    return jax.jit(shared_begin), jax.jit(shared, donate_argnums=2)


def _compacted(batch: _Batch, active: NDArray[np.bool_], size: int) -> _Batch:
    """The active rows alone, filled up to ``size`` with copies of the first."""
    chosen = np.flatnonzero(active)
    missing = size - len(chosen)
    index = np.concatenate([chosen, np.repeat(chosen[:1], missing)])
    rows = np.concatenate([batch.rows[chosen], np.full(missing, -1)])
    shown, carry = _taken(batch.shown, batch.carry, jnp.asarray(index))
    return _Batch(shown, carry, rows)


@jax.jit
def _taken(shown: Shown, carry: Carry, index: Array) -> tuple[Shown, Carry]:
    return (
        jax.tree.map(lambda a: jnp.take(a, index, axis=1), shown),
        jax.tree.map(lambda a: jnp.take(a, index, axis=0), carry),
    )


class _History:
    """What the host keeps of B images: readouts and counters per step, counts at the end.

    The input ends with step ``ends``, before which no image is at rest.
    """

    def __init__(self, images: int, ends: int) -> None:
        self.images, self.ends = images, ends
        self.blocks: list[tuple[tuple[np.ndarray, ...], Counters]] = []
        self.counts: dict[str, Any] = {}

    def add(self, batch: _Batch, sums: Any, counters: Any) -> NDArray[np.bool_]:
        """Put one block's rows in their images' places; which rows spiked in its last step."""
        sums, counters = jax.device_get((sums, counters))
        real = batch.rows >= 0
        held = self.blocks[-1][0] if self.blocks else (None,) * len(sums)

        def placed(found: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
            whole = np.zeros((len(found), self.images, *found.shape[2:]), found.dtype)
            if before is not None:
                whole[:] = before[-1]
            whole[:, batch.rows[real]] = found[:, real]
            return whole

        readouts = tuple(map(placed, sums, held))
        self.blocks.append((readouts, jax.tree.map(placed, counters)))
        return real & np.any([one[-1] > 0 for one in counters.spikes.values()], axis=0)

    def leave(self, batch: _Batch, leaving: NDArray[np.bool_]) -> None:
        """Keep the net counts of rows whose simulation ends here."""
        leaving = leaving & (batch.rows >= 0)
        for name, count in batch.carry.counts.items():
            found = np.asarray(count)[leaving]
            empty = np.zeros((self.images, *found.shape[1:]), found.dtype)
            self.counts.setdefault(name, empty)[batch.rows[leaving]] = found

    def trace(self, steps: int) -> Trace:
        """Everything up to the first silent step of all, or for ``steps`` steps."""
        readouts, counters = jax.tree.map(lambda *a: np.concatenate(a), *self.blocks)
        spiking = np.any([one.any(1) for one in counters.spikes.values()], axis=0)
        last = int(np.flatnonzero(spiking).max(initial=-1)) + 1
        kept = min(max(last + 1, self.ends), steps)
        readouts, counters = jax.tree.map(lambda a: a[:kept], (readouts, counters))
        return Trace(readouts, counters, self.counts, {})
