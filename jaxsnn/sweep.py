"""Batched evaluation over a data set, and sweeps: one compiled program over many values."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxsnn import metrics
from jaxsnn.progress import bar
from jaxsnn.simulate import Trace, check_input, run, simulate
from jaxsnn.spiking import Spiking, with_leaf, with_unit_dropout

Integers = NDArray[np.integer[Any]]


IN_CACHE = 160  # images times grid of one call of a sweep (measured on a CPU)


class Evaluation(NamedTuple):
    """Exact totals of a data set of N images over T steps.

    Attributes:
        predictions: int32 ``[T, N]``, one row per step.
        correct: int64 ``[T]``, None without labels.
        spikes: site -> int64 ``[T]``, over all images; negative spikes included.
        negative: site -> int64 ``[T]``.
        operations: consumer -> synaptic operations, int64 ``[T]``.
        per_image_spikes, per_image_operations: int64 ``[N]``, over all steps and sites;
            the readout's operations are left out (as the originals do).
        images: N.
    """

    predictions: Integers
    correct: Integers | None
    spikes: dict[str, Integers]
    negative: dict[str, Integers]
    operations: dict[str, Integers]
    per_image_spikes: Integers
    per_image_operations: Integers
    images: int

    @property
    def accuracy_per_step(self) -> list[float]:
        """Share of right predictions after every step.

        Raises:
            ValueError: evaluated without labels.
        """
        if self.correct is None:
            raise ValueError("there is no accuracy without labels; pass labels to evaluate()")
        return [int(c) / self.images for c in self.correct]


def batches(count: int, size: int, what: str = "") -> Iterator[tuple[NDArray[np.intp], int]]:
    """Rows of every batch, the last one padded by repeating its last row, with the real number.

    ``what`` names the progress bar; empty for none.
    """
    if size < 1:
        raise ValueError(f"batch_size={size}: a batch holds at least 1 image")
    for start in bar(range(0, count, size), -(-count // size), what):
        rows = np.arange(start, start + size)
        yield np.minimum(rows, count - 1), int(min(size, count - start))


def evaluate(
    snn: Spiking,
    images: Array | np.ndarray,
    labels: Array | np.ndarray | None = None,
    *,
    steps: int = 1,
    block: int = 1,
    batch_size: int = 200,
    key: Array | None = None,
    devices: int = 1,
    progress: str = "",
) -> Evaluation:
    """Simulate a whole data set in padded batches of one shape: one compile, exact totals.

    Args:
        snn: converted network.
        images: ``[N, H, W, C]`` integers.
        labels: ``[N]`` or None.
        steps: time steps.
        block: steps computed layer by layer at once.
        batch_size: images per compiled call.
        key: for random neurons; image ``n`` draws the same numbers at any batch size.
        devices: local devices that share each batch.
        progress: name of the progress bar, empty for none.

    Raises:
        ValueError: no images, or images and labels of different length.
    """
    images = np.asarray(images)
    check_stills(snn)
    _check_labels(images, labels)
    traces = []
    for rows, real in batches(len(images), batch_size, progress):
        trace = simulate(
            snn,
            images[rows],
            steps=steps,
            block=block,
            key=key,
            first_image=int(rows[0]),
            devices=devices,
        )
        traces.append(jax.tree.map(lambda a, n=real: np.asarray(a)[:, :n], _kept(trace)))
    predictions, counters = jax.tree.map(lambda *a: np.concatenate(a, axis=1), *traces)
    operations = metrics.synaptic_operations(counters.events, snn.arch)
    correct: Integers | None = None
    if labels is not None:
        correct = np.asarray((predictions == np.asarray(labels)).sum(axis=1), np.int64)
    return Evaluation(
        predictions=predictions,
        correct=correct,
        spikes={name: a.sum(1, dtype=np.int64) for name, a in counters.spikes.items()},
        negative={name: a.sum(1, dtype=np.int64) for name, a in counters.negative.items()},
        operations={name: a.sum(1, dtype=np.int64) for name, a in operations.items()},
        per_image_spikes=metrics.total(counters.spikes).sum(0),
        per_image_operations=metrics.total(operations, without=("readout",)).sum(0),
        images=len(images),
    )


def _kept(trace: Trace) -> tuple[Array, metrics.Counters]:
    return trace.predictions, trace.counters


def check_stills(snn: Spiking) -> None:
    """Refuse networks whose input has its time axis in front of the images' axis.

    Raises:
        ValueError: the encoding streams frames.
    """
    if snn.encoding.presentation == "frames":
        raise ValueError("a data set of frames has no image axis in front; stream it by simulate()")


def _check_labels(images: np.ndarray, labels: Array | np.ndarray | None) -> None:
    if len(images) == 0:
        raise ValueError("there are no images to evaluate")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(images)} images but {len(labels)} labels; pass one label per image")
    if labels is not None and np.ndim(labels) != 1:
        raise ValueError(f"labels have shape {np.shape(labels)}; pass one class number per image")


class Sweep(NamedTuple):
    """A grid of runs over one data set.

    Attributes:
        axes: names and values of the grid's axes, in order.
        predictions: int32 ``[*grid, N]``.
        accuracy: float64 ``[*grid]``, None without labels.
        spikes: int64 ``[*grid]``, total over images, sites and steps.
        operations: int64 ``[*grid]``, synaptic operations without the readout's.
    """

    axes: tuple[tuple[str, tuple[Any, ...]], ...]
    predictions: Integers
    accuracy: NDArray[np.float64] | None
    spikes: Integers
    operations: Integers


def sweep(
    snn: Spiking,
    images: Array | np.ndarray,
    labels: Array | np.ndarray | None = None,
    *,
    steps: int | Sequence[int] = 1,
    noise: Sequence[float] | None = None,
    keys: Array | None = None,
    leaves: tuple[str, str, Array] | None = None,
    site: str = "",
    block: int = 1,
    batch_size: int | None = None,
    progress: str = "",
) -> Sweep:
    """Run the grid ``noise x keys x leaves x steps`` as one vmapped, once compiled program.

    What does not depend on the swept value, the encoder's current above all, is computed once.

    Args:
        snn: converted network.
        images: ``[N, H, W, C]`` integers.
        labels: ``[N]`` or None.
        steps: one horizon, or several: each row equals a run of its own with that many steps.
        noise: ratios at which the units of ``site`` lose their spikes.
        keys: PRNG keys ``[S]``, one per seed; needed with ``noise``.
        leaves: ``(site, leaf, values [V, ...])``: a fixed leaf (a threshold) to sweep.
        site: the spiking site that ``noise`` acts on; by default the encoder.
        block: steps computed layer by layer at once.
        batch_size: images per compiled call, which the grid multiplies; None: so many that the
            grid of them stays in a processor's cache.
        progress: name of the progress bar, empty for none.

    Raises:
        ValueError: a horizon below 1, noise without keys or outside [0, 1], an unknown leaf.
    """
    check_stills(snn)
    images = np.asarray(images)
    _check_labels(images, labels)
    site = site or metrics.spiking_sites(snn.arch)[0].name
    horizons = (steps,) if isinstance(steps, int) else tuple(steps)
    grid = _grid(horizons, noise, keys, leaves)
    if noise is not None:
        for ratio in noise:
            with_unit_dropout(snn, site, ratio)  # refuses what is no probability
        snn = with_unit_dropout(snn, site)
    if leaves is not None:
        with_leaf(snn, leaves[0], leaves[1], leaves[2][0])
    values = (
        None if noise is None else jnp.asarray(noise, jnp.float32),
        keys,
        None if leaves is None else jnp.asarray(leaves[2]),
        jnp.asarray(horizons, jnp.int32) if len(horizons) > 1 else None,
    )
    where = (site, None if leaves is None else leaves[:2])
    parts = []
    shape = tuple(len(one[1]) for one in grid)
    size = max(1, IN_CACHE // math.prod(shape)) if batch_size is None else batch_size
    for rows, real in batches(len(images), size, progress):
        batch = check_input(snn, images[rows])
        numbers = jnp.asarray(rows)
        found = _swept(snn.program, batch, numbers, values, where, max(horizons), block)
        parts.append(jax.tree.map(lambda a, n=real: np.asarray(a)[..., :n], found))
    predictions, spikes, events = jax.tree.map(lambda *a: np.concatenate(a, axis=-1), *parts)
    operations = metrics.synaptic_operations(events, snn.arch)
    accuracy = None
    if labels is not None:
        accuracy = (predictions == np.asarray(labels)).mean(-1).reshape(shape)
    return Sweep(
        axes=grid,
        predictions=predictions.reshape(*shape, -1),
        accuracy=accuracy,
        spikes=metrics.total(spikes).sum((-2, -1)).reshape(shape),
        operations=metrics.total(operations, without=("readout",)).sum((-2, -1)).reshape(shape),
    )


def _grid(
    horizons: tuple[int, ...],
    noise: Sequence[float] | None,
    keys: Array | None,
    leaves: tuple[str, str, Array] | None,
) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    if min(horizons, default=0) < 1:
        raise ValueError(f"steps={horizons}: every horizon must be at least 1")
    if noise is not None and keys is None:
        raise ValueError("noise draws random numbers; pass keys=jax.random.split(key, seeds)")
    grid: list[tuple[str, tuple[Any, ...]]] = []
    if noise is not None:
        grid.append(("noise", tuple(noise)))
    if keys is not None:
        grid.append(("keys", tuple(range(len(keys)))))
    if leaves is not None:
        grid.append((f"{leaves[0]}/{leaves[1]}", tuple(range(len(leaves[2])))))
    grid.append(("steps", horizons))
    return tuple(grid)


Values = tuple[Array | None, Array | None, Array | None, Array | None]


@functools.partial(jax.jit, static_argnames=("where", "steps", "block"))
def _swept(
    snn: Spiking,
    images: Array,
    numbers: Array,
    values: Values,
    where: tuple[str, tuple[str, str] | None],
    steps: int,
    block: int,
) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """Predictions ``[*grid, B]``, spikes and events per site ``[*grid, T, B]``."""
    noisy, leaf = where

    def one(
        ratio: Array | None, key: Array | None, value: Array | None, horizon: Array | None
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        changed = snn
        if ratio is not None:
            changed = with_leaf(changed, noisy, "drop_ratio", ratio)
        if value is not None and leaf is not None:
            changed = with_leaf(changed, *leaf, value)
        own = None if key is None else jax.vmap(lambda n: jax.random.fold_in(key, n))(numbers)
        trace = run(changed, images, own, steps=steps, block=block, horizon=horizon)
        return trace.predictions[-1], trace.counters.spikes, trace.counters.events

    mapped: Any = one
    for axis in reversed(range(4)):
        if values[axis] is not None:
            mapped = jax.vmap(mapped, in_axes=[0 if i == axis else None for i in range(4)])
    return mapped(*values)
