"""Simulation of a converted network: what is given is examined, then the engine is jitted.

One run gives the prediction after every step. The batch may be shared between local devices.
"""

import functools
from collections.abc import Callable, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.sharding import Mesh, PartitionSpec

from jaxsnn.arch.plan import plan
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError, whole_number
from jaxsnn.inputs.checks import check_range, check_scaled, check_units, is_whole
from jaxsnn.network import net as net_module
from jaxsnn.options import Options
from jaxsnn.simulation.engine import Running, Trace, encode_axis, run
from jaxsnn.simulation.horizon import MOST_STEPS, check_horizon
from jaxsnn.types import PyTree


def simulate(
    snn: Spiking,
    images: Array | np.ndarray,
    *,
    steps: int,
    block: int = 1,
    key: Array | None = None,
    record: Sequence[str] = (),
    counts: bool = False,
    first_image: int = 0,
    devices: int = 1,
    lengths: Array | np.ndarray | None = None,
    state: Running | None = None,
) -> Trace:
    """Simulate a converted network, every step computed.

    Args:
        snn: from :func:`jaxsnn.convert`.
        images: ``[B, H, W, C]`` integers as the encoding says; ``[T, B, H, W, C]`` for frames. A
            network that was trained directly takes floats as well, as they were in training.
        steps: number of time steps T.
        block: steps that are computed layer by layer at once, a knob for speed and memory; it never
            changes an integer network's spikes.
        key: PRNG key, needed where a neuron is random. Image ``i`` of the batch draws from
            ``fold_in(key, first_image + i)``, whatever the batch or device count.
        record: names of sites whose spikes are returned, bit-packed.
        counts: return every site's net spike count.
        first_image: number of the first image, for batches of one data set.
        devices: local devices to share the batch between (it must divide B).
        lengths: steps of each example, int ``[B]``, from 1 to T; later ones count nowhere. None:
            T.
        state: go on from :func:`jaxsnn.start`, :func:`jaxsnn.step` or an earlier trace's ``state``;
            readouts are summed over the steps before, too, and the trace has a ``state``. Frames
            are those that follow. It holds the random neurons' keys and says whether counts are
            kept.

    Raises:
        UserError: images of another shape or dtype, an unknown site in ``record``, steps or block
            below 1, devices that do not divide the batch, lengths that do not belong to the batch,
            a state that does not go with the other arguments, or more steps than the running sums
            hold (:mod:`jaxsnn.simulation.horizon`).
    """
    images, record = check_input(snn, images), (record,) if isinstance(record, str) else record
    check_run(snn, images, steps, block, record, devices, counts)
    keys = image_keys(key, whole_number("first_image", first_image, 0), images.shape[-4])
    each_steps = None if lengths is None else check_lengths(lengths, images.shape[-4], steps)
    if state is not None:
        check_state(snn, state, images, steps, block)
        if key is not None or lengths is not None or counts:
            raise UserError("state holds keys and counts already: give key and counts to start()")
    options = {"steps": int(steps), "block": int(block), "record": tuple(record), "counts": counts}
    if devices == 1:
        return _simulate(snn.program, images, keys, each_steps, state, **options)
    shared = _sharded(devices, tuple(options.items()), encode_axis(snn), state is not None)
    return Trace(*shared(snn.program, images, keys, each_steps, state))


def check_state(
    snn: Spiking, state: Running, images: Array, steps: int = 1, block: int = 1
) -> None:
    """Refuse a state that such images cannot go on from.

    Raises:
        UserError: another batch, or steps that end within a block.
    """
    batch, held = images.shape[encode_axis(snn)], state.carry.total[0].shape[0]
    if batch != held:
        raise UserError(f"{batch} images for a state of {held}; show as many")
    if steps % block:
        raise UserError(
            f"steps={steps}, block={block}: a run that is to go on ends with a whole block"
        )
    if not isinstance(state.steps, Tracer):  # in a loop of the caller's it is not known
        check_horizon(snn, int(state.steps) + steps, bool(state.carry.counts))


def image_keys(key: Array | None, first: int, batch: int) -> Array | None:
    """One key per image, ``[B]``, from one key and the images' numbers."""
    if key is None:
        return None
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(first + jnp.arange(batch))


def check_input(snn: Spiking, images: Array | np.ndarray) -> Array:
    """The images as the network takes them, whole units or, where it was trained so, scaled ones.

    Raises:
        UserError: another shape, unit or range, naming it and what is expected.
    """
    images = images if isinstance(images, jax.Array) else np.asarray(images)
    net_module.check_images(images, snn.arch)
    rank = 4 + encode_axis(snn)
    if images.ndim != rank:
        raise UserError(
            f"images have {images.ndim} axes, {snn.encoding.presentation!r} input has {rank}"
        )
    trained = not snn.is_converted
    kernel = snn.variables["params"][plan(snn.arch)[0].name]["kernel"]
    if trained and not is_whole(images):
        check_scaled(images, snn.encoding)
    elif snn.report or is_whole(kernel):
        check_units(images, snn.encoding)
    else:  # made by hand, of floats: whatever it is shown is a number of units
        check_range(images, snn.encoding)
    if trained and is_whole(images):
        return snn.encoding.decode(jnp.asarray(images))  # not converted: it takes scaled values
    return jnp.asarray(images)


def check_lengths(lengths: Array | np.ndarray, batch: int, steps: int) -> Array:
    """Steps of each example, int32 ``[B]``.

    Raises:
        UserError: another shape, no whole numbers, or a length outside 1 to ``steps``.
    """
    checked = np.asarray(lengths)
    fits = checked.shape == (batch,) and np.issubdtype(checked.dtype, np.integer)
    if not fits or checked.min(initial=1) < 1 or checked.max(initial=1) > steps:
        raise UserError(
            f"lengths are {checked.dtype} of shape {checked.shape}; give one whole number of 1 to "
            f"{steps} (steps) for each of the {batch} examples"
        )
    return jnp.asarray(checked, jnp.int32)


def check_run(
    snn: Spiking,
    images: Array,
    steps: int,
    block: int,
    record: Sequence[str],
    devices: int,
    counts: bool = False,
) -> None:
    """Refuse what no run can be, for images that :func:`check_input` has let through.

    Raises:
        UserError: as :func:`simulate` says.
    """
    whole_number("devices", devices)
    whole_number("steps", steps, 1, MOST_STEPS)
    whole_number("block", block)
    check_horizon(snn, steps, counts)
    if images.size == 0:
        raise UserError(f"images have shape {tuple(images.shape)}; there is nothing to simulate")
    if encode_axis(snn) and images.shape[0] < steps:
        raise UserError(f"{images.shape[0]} frames cannot be streamed for {steps} steps")
    names = [site.name for site in plan(snn.arch) if snn.neurons.at(site).spikes]
    for name in record:
        if name not in names:
            raise UserError(f"record={name!r} is no spiking site; known: {', '.join(names)}")
    if devices > jax.local_device_count() or images.shape[encode_axis(snn)] % devices:
        raise UserError(
            f"devices={devices}: there are {jax.local_device_count()}, and the batch of "
            f"{images.shape[encode_axis(snn)]} must be a multiple"
        )


STATIC = ("steps", "block", "record", "counts")
_simulate = jax.jit(run, static_argnames=STATIC)


@functools.lru_cache(maxsize=16)
def _sharded(
    devices: int, options: Options, axis: int, goes_on: bool
) -> Callable[..., tuple[PyTree, ...]]:
    """The engine with the batch shared between local devices; from a state where it goes on."""
    mesh = Mesh(np.array(jax.local_devices()[:devices]), ("batch",))
    along = PartitionSpec(None, "batch")
    images = along if axis else PartitionSpec("batch")
    each = PartitionSpec("batch")
    state = Running(cast("PyTree", each), cast("PyTree", PartitionSpec())) if goes_on else None
    out: PyTree = (along, along, each, PartitionSpec(None, None, "batch"), state)

    def body(
        snn: Spiking,
        images: Array,
        keys: Array | None,
        lengths: Array | None,
        state: Running | None,
    ) -> tuple[PyTree, ...]:
        return tuple(run(snn, images, keys, lengths, state, **dict(options)))

    specs = (PartitionSpec(), images, each, each, state)
    return jax.jit(jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False))
