"""Sweeps: a grid of runs over noise, seeds, leaves and horizons as one compiled program."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxsnn.arch.plan import head_sites, spiking_sites
from jaxsnn.conversion.fixed_leaves import check_leaf, with_leaf, with_unit_dropout
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError, whole_number
from jaxsnn.inputs import encoding
from jaxsnn.io.arrays import flatten, unflatten
from jaxsnn.io.progress import batches
from jaxsnn.simulation import counters
from jaxsnn.simulation.dataset import check_stills, checked_labels
from jaxsnn.simulation.engine import run
from jaxsnn.simulation.fixed_steps import check_input, check_run
from jaxsnn.simulation.horizon import MOST_STEPS, check_horizon

Integers = NDArray[np.integer]
Grid = tuple[tuple[str, tuple[object, ...]], ...]

IN_CACHE = 160  # images times grid of one call of a sweep (measured on a CPU)
INPUT = "input"  # the site of noise on the images themselves


class Sweep(NamedTuple):
    """A grid of runs over one data set.

    Attributes:
        axes: names and values of the grid's axes, in order.
        predictions: int32 ``[*grid, N]``.
        accuracy: float64 ``[*grid]``, None without labels.
        spikes: int64 ``[*grid]``, total over images, sites and steps.
        operations: int64 ``[*grid]``, synaptic operations without the heads'.
    """

    axes: Grid
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
    networks: Sequence[Spiking] | None = None,
    site: str = "",
    block: int = 1,
    batch_size: int | None = None,
    progress: str = "",
) -> Sweep:
    """Run the grid ``noise x keys x leaves x networks x steps`` as one once compiled program.

    What does not depend on the swept value, the encoder's current above all, is computed once. No
    step depends on a later one, so all horizons are read from one run of the longest.

    Args:
        snn: converted network.
        images: ``[N, H, W, C]`` integers.
        labels: ``[N]`` or None.
        steps: one horizon, or several: each row equals a run of its own with that many steps.
        noise: ratios, in [0, 1]: of spikes that the units of ``site`` lose; with ``site="input"``
            of :func:`jaxsnn.inputs.jitter` on the images.
        keys: PRNG keys ``[S]``, one per seed; needed with ``noise``.
        leaves: ``(site, leaf, values [V, ...])``: a fixed leaf (a threshold) to sweep.
        networks: conversions of one network that differ in thresholds, gains and biases alone, such
            as those to several percentiles and initial potentials; they stand for ``snn``, which is
            one of them.
        site: the spiking site that ``noise`` acts on, or "input"; by default the encoder.
        block: steps computed layer by layer at once.
        batch_size: images per compiled call, which the grid multiplies; None: so many that the
            grid of them stays in a processor's cache.
        progress: name of the progress bar, empty for none.

    Raises:
        UserError: an axis without values, a horizon that is no whole number of at least 1, noise
            without keys or outside [0, 1], an unknown leaf, networks of different kernels or
            neurons.
    """
    check_stills(snn)
    images = np.asarray(images)
    labels = checked_labels(images, labels, snn.arch.classes)
    site = site or spiking_sites(snn.arch)[0].name
    horizons = _horizons(steps)
    grid = _grid(horizons, noise, keys, leaves, networks)
    if noise is not None:
        snn, *networks = (_noisy(one, site, noise) for one in (snn, *(networks or ())))
    values = (
        None if noise is None else jnp.asarray(noise, jnp.float32),
        keys,
        None if leaves is None else _checked_leaves(snn, leaves),
        differing(snn, networks) if networks else None,
    )
    for one in networks or ():
        check_horizon(one, max(horizons))
    where = (site, None if leaves is None else leaves[:2])
    runs = math.prod(len(one) for _, one in grid[:-1])
    size = max(1, IN_CACHE // runs) if batch_size is None else batch_size
    parts = []
    for rows, real in batches(len(images), size, progress):
        batch = check_input(snn, images[rows])
        check_run(snn, batch, max(horizons), block, (), 1)
        swept = _swept(snn.program, batch, jnp.asarray(rows), values, where, horizons, block)
        parts.append(jax.tree.map(lambda a, n=real: np.asarray(a)[..., :n], swept))
    predictions, spikes, events = jax.tree.map(lambda *a: np.concatenate(a, axis=-1), *parts)
    return _table(snn, grid, predictions, spikes, events, labels)


def _checked_leaves(snn: Spiking, leaves: tuple[str, str, Array]) -> Array:
    """The values of a leaf that the network has; refuses others."""
    site, leaf, values = leaves
    with_leaf(snn, site, leaf, values[0])
    check_leaf(f"{site}/{leaf}", jnp.asarray(values))
    return jnp.asarray(values)


def differing(snn: Spiking, networks: Sequence[Spiking]) -> dict[str, Array]:
    """Path -> values ``[V, ...]`` of every array in which some of the networks differ.

    Raises:
        UserError: one is no conversion of the same network, or has another kernel; both named.
    """
    trees = [flatten(one.variables) for one in networks]
    for number, (one, tree) in enumerate(zip(networks, trees, strict=True)):
        same = (one.arch, one.neurons, one.encoding) == (snn.arch, snn.neurons, snn.encoding)
        if not same or set(tree) != set(flatten(snn.variables)):
            raise UserError(
                f"networks[{number}] has another architecture, other neurons or another encoding "
                "than snn; convert the same network in the same way"
            )
    arrays: dict[str, Array] = {}
    for path in trees[0]:
        values = [np.asarray(tree[path]) for tree in (flatten(snn.variables), *trees)]
        if all(np.array_equal(values[0], other) for other in values[1:]):
            continue
        if path.endswith("/kernel"):
            raise UserError(f"{path} differs from network to network; sweep over one kernel")
        arrays[path] = jnp.asarray(np.stack(values[1:]))
    return arrays


def _with_arrays(snn: Spiking, arrays: Mapping[str, Array]) -> Spiking:
    return replace(snn, variables=unflatten({**flatten(snn.variables), **arrays}))


def _noisy(snn: Spiking, site: str, noise: Sequence[float]) -> Spiking:
    """The network whose ``site`` takes a noise ratio, after a look at every ratio."""
    wrong = [ratio for ratio in noise if not 0 <= ratio <= 1]
    if wrong:
        raise UserError(f"noise ratio {wrong[0]} is no number from 0 to 1; choose one in [0, 1]")
    return snn if site == INPUT else with_unit_dropout(snn, site)


def _table(
    snn: Spiking,
    grid: Grid,
    predictions: np.ndarray,
    spikes: dict[str, np.ndarray],
    events: dict[str, np.ndarray],
    labels: Array | np.ndarray | None,
) -> Sweep:
    """From predictions ``[..., horizons, N]`` and counters ``[..., T, N]`` to rows of the grid."""
    shape, horizons = tuple(len(one) for _, one in grid), np.asarray(grid[-1][1])
    operations = counters.synaptic_operations(events, snn.arch)
    heads = tuple(site.name for site in head_sites(snn.arch))

    def up_to_horizons(counted: np.ndarray) -> Integers:
        return counted.sum(-1).cumsum(-1)[..., horizons - 1].reshape(shape)

    accuracy = None if labels is None else (predictions == np.asarray(labels)).mean(-1)
    return Sweep(
        axes=grid,
        predictions=predictions.reshape(*shape, -1),
        accuracy=None if accuracy is None else accuracy.reshape(shape),
        spikes=up_to_horizons(counters.total(spikes)),
        operations=up_to_horizons(counters.total(operations, without=heads)),
    )


def _grid(
    horizons: tuple[int, ...],
    noise: Sequence[float] | None,
    keys: Array | None,
    leaves: tuple[str, str, Array] | None,
    networks: Sequence[Spiking] | None,
) -> Grid:
    if noise is not None and keys is None:
        raise UserError("noise draws random numbers; pass keys=jax.random.split(key, seeds)")
    grid: list[tuple[str, tuple[object, ...]]] = []
    if noise is not None:
        grid.append(("noise", tuple(noise)))
    if keys is not None:
        grid.append(("keys", tuple(range(len(keys)))))
    if leaves is not None:
        grid.append((f"{leaves[0]}/{leaves[1]}", tuple(range(len(leaves[2])))))
    if networks is not None:
        grid.append(("networks", tuple(range(len(networks)))))
    grid.append(("steps", horizons))
    for name, values in grid:
        if not values:
            raise UserError(
                f"the axis {name!r} of the sweep is empty; give it a value, or leave it out"
            )
    return tuple(grid)


def _horizons(steps: int | Sequence[int]) -> tuple[int, ...]:
    """One horizon or several, each a whole number of steps.

    Raises:
        UserError: one is not.
    """
    several: Any = steps if np.ndim(steps) else [steps]
    return tuple(whole_number("steps", one, 1, MOST_STEPS) for one in several)


Values = tuple[Array | None, Array | None, Array | None, dict[str, Array] | None]


@functools.partial(jax.jit, static_argnames=("where", "horizons", "block"))
def _swept(
    snn: Spiking,
    images: Array,
    numbers: Array,
    values: Values,
    where: tuple[str, tuple[str, str] | None],
    horizons: tuple[int, ...],
    block: int,
) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """Predictions ``[*grid, B]``, and spikes and events per site ``[*grid but steps, T, B]``."""
    noisy, leaf = where
    rows = jnp.asarray(horizons) - 1

    def one(
        ratio: Array | None,
        key: Array | None,
        value: Array | None,
        arrays: dict[str, Array] | None,
    ) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        changed, shown = snn if arrays is None else _with_arrays(snn, arrays), images
        image_keys = (
            None if key is None else jax.vmap(lambda n: jax.random.fold_in(key, n))(numbers)
        )
        if ratio is not None and image_keys is not None and noisy == INPUT:
            shown = encoding.jitter(images, image_keys, ratio, snn.encoding.highest)
        elif ratio is not None:
            changed = with_leaf(changed, noisy, "drop_ratio", ratio)
        if value is not None and leaf is not None:
            changed = with_leaf(changed, *leaf, value)
        trace = run(changed, shown, image_keys, steps=max(horizons), block=block)
        return trace.predictions[rows], trace.counters.spikes, trace.counters.events

    mapped: Any = one
    for axis in reversed(range(len(values))):
        if values[axis] is not None:
            mapped = jax.vmap(mapped, in_axes=[0 if i == axis else None for i in range(4)])
    return mapped(*values)
