"""The scan engine: blocks of time, exact counters, sweeps, settled mode, several devices.

Everything is a pure function of ``(snn, images, keys)``, jitted at the edge. The readout is summed
over time, so one run gives the prediction after every step; no activation outlives its block.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from jaxsnn import encode, metrics
from jaxsnn import net as net_module
from jaxsnn.arch import plan, site_named
from jaxsnn.metrics import Counters
from jaxsnn.neurons import count_dtype
from jaxsnn.spiking import Spiking


class Trace(NamedTuple):
    """What a simulation of B images for T steps returns.

    Attributes:
        readouts: one ``[T, B, classes]`` per head (side exits first), summed over steps 1..t.
        counters: spikes, negative spikes and synaptic events, each site -> int32 ``[T, B]``.
        counts: site -> net spike count after the last step, int32 ``[B, ...]``; empty unless asked.
        records: site -> bit-packed spikes ``[T, planes, B, ..., ceil(C / 8)]`` uint8 (see
            :func:`unpack`).
    """

    readouts: tuple[Array, ...]
    counters: Counters
    counts: dict[str, Array]
    records: dict[str, Array]

    @property
    def readout(self) -> Array:
        """The last head's ``[T, B, classes]``."""
        return self.readouts[-1]

    @property
    def predictions(self) -> Array:
        """Predicted class after every step, int32 ``[T, B]``; ties go to the lowest class."""
        return jnp.argmax(self.readout, axis=-1)


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
) -> Trace:
    """Simulate a converted network, every step computed.

    Args:
        snn: from :func:`jaxsnn.convert`.
        images: ``[B, H, W, C]`` integers as the encoding says; ``[T, B, H, W, C]`` for frames.
        steps: number of time steps T.
        block: steps that are computed layer by layer at once, a knob for speed and memory; it never
            changes an integer network's spikes.
        key: PRNG key, needed where a neuron is random. Image ``i`` of the batch draws from
            ``fold_in(key, first_image + i)``, whatever the batch or device count.
        record: names of sites whose spikes are returned, bit-packed.
        counts: return every site's net spike count.
        first_image: number of the first image, for batches of one data set.
        devices: local devices to share the batch between (it must divide B).

    Raises:
        ValueError: images of another shape or dtype, an unknown site in ``record``, steps or block
            below 1, devices that do not divide the batch.
    """
    images, record = check_input(snn, images), (record,) if isinstance(record, str) else record
    _check_run(snn, images, steps, block, record, devices)
    keys = image_keys(key, first_image, images.shape[-4])
    options = {"steps": steps, "block": block, "record": tuple(record), "counts": counts}
    if devices == 1:
        return _simulate(snn.program, images, keys, **options)
    shared = _sharded(devices, tuple(options.items()), encode_axis(snn))
    return Trace(*shared(snn.program, images, keys))


def image_keys(key: Array | None, first: int, batch: int) -> Array | None:
    """One key per image, ``[B]``, from one key and the images' numbers."""
    if key is None:
        return None
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(first + jnp.arange(batch))


def encode_axis(snn: Spiking) -> int:
    """The batch axis of the input: 1 behind the time axis of frames, else 0."""
    return 1 if snn.encoding.presentation == "frames" else 0


def check_input(snn: Spiking, images: Array | np.ndarray) -> Array:
    """Refuse images that the folded tree cannot take as they are.

    Raises:
        ValueError: naming shape or dtype and what is expected.
    """
    images = images if isinstance(images, jax.Array) else np.asarray(images)
    net_module.check_images(images, snn.arch)
    rank = 4 + encode_axis(snn)
    if images.ndim != rank:
        raise ValueError(
            f"images have {images.ndim} axes, {snn.encoding.presentation!r} input has {rank}"
        )
    kernel = snn.variables["params"][plan(snn.arch)[0].name]["kernel"]
    whole = jnp.issubdtype(images.dtype, jnp.integer)
    if jnp.issubdtype(kernel.dtype, jnp.integer) and not whole:
        raise ValueError(
            f"images are {images.dtype}, but the network takes integers worth "
            f"{snn.encoding.scale} each (uint8 pixels); pass the images before scaling"
        )
    if whole and images.size and not (images.dtype == jnp.uint8 and snn.encoding.highest >= 255):
        largest = int(np.abs(np.asarray(images, np.int64)).max())
        if largest > snn.encoding.highest:
            raise ValueError(
                f"an input of {largest} is beyond Encoding.highest = {snn.encoding.highest}, which "
                "the bounds of the sums rest on; convert with an encoding that admits it"
            )
    return jnp.asarray(images)


def _check_run(
    snn: Spiking, images: Array, steps: int, block: int, record: Sequence[str], devices: int
) -> None:
    if devices < 1:
        raise ValueError(f"devices={devices}: at least 1 is needed")
    if steps < 1 or block < 1 or int(steps) != steps or int(block) != block:
        raise ValueError(f"steps={steps}, block={block}: both must be whole and at least 1")
    if images.size == 0:
        raise ValueError(f"images have shape {tuple(images.shape)}; there is nothing to simulate")
    if encode_axis(snn) and images.shape[0] < steps:
        raise ValueError(f"{images.shape[0]} frames cannot be streamed for {steps} steps")
    names = [site.name for site in metrics.spiking_sites(snn.arch)]
    for name in record:
        if name not in names:
            raise ValueError(f"record={name!r} is no spiking site; known: {', '.join(names)}")
    if devices > jax.local_device_count() or images.shape[encode_axis(snn)] % devices:
        raise ValueError(
            f"devices={devices}: there are {jax.local_device_count()}, and the batch of "
            f"{images.shape[encode_axis(snn)]} must be a multiple"
        )


class _Carry(NamedTuple):
    state: Any
    total: tuple[Array, ...]
    counts: dict[str, Array]


def run(
    snn: Spiking,
    images: Array,
    keys: Array | None,
    *,
    steps: int,
    block: int,
    record: tuple[str, ...] = (),
    counts: bool = False,
    horizon: Array | None = None,
) -> Trace:
    """The engine itself, pure and not jitted; see :func:`simulate` for the arguments.

    ``horizon`` (a traced integer) ends the input and freezes every sum after that step, so that a
    sweep over horizons is one program.
    """
    sites, batch = metrics.spiking_sites(snn.arch), images.shape[encode_axis(snn)]
    blocks = -(-steps // block)
    limit = horizon if horizon is not None else (steps if steps % block else None)
    shown = _shown(snn, images, blocks * block)
    start = _Carry(
        net_module.initial_state(snn.net, snn.variables, batch, keys),
        _zero_readouts(snn, batch),
        {s.name: jnp.zeros((batch, *s.out_shape), jnp.int32) for s in sites if counts},
    )
    advance = functools.partial(_advance, snn, shown, block, limit, record)
    if blocks == 1:
        end, stacked = advance(start, jnp.zeros((), jnp.int32))
    else:
        end, stacked = jax.lax.scan(advance, start, jnp.arange(blocks))
        stacked = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), stacked)
    readouts, counters, packed = jax.tree.map(lambda a: a[:steps], stacked)
    return Trace(readouts, counters, end.counts, packed)


class _Shown(NamedTuple):
    """The input: frames ``[T or 1, B, H, W, C]``, and an image's current ``[1, B, ...]``."""

    frames: Array
    current: Array | None


def _shown(snn: Spiking, images: Array, steps: int) -> _Shown:
    """Frames padded with zeros to whole blocks; an image's current computed once."""
    if encode_axis(snn):
        missing = max(steps - images.shape[0], 0)
        return _Shown(jnp.pad(images, ((0, missing), *((0, 0),) * (images.ndim - 1))), None)
    return _Shown(images[None], net_module.stem(snn.net, snn.variables, images)[None])


def _advance(
    snn: Spiking,
    shown: _Shown,
    block: int,
    limit: Array | int | None,
    record: tuple[str, ...],
    carry: _Carry,
    number: Array,
) -> tuple[_Carry, Any]:
    """One block of time: the carry, and what is stacked over blocks."""
    first = number * block
    alive = jnp.ones(block, jnp.int32)
    if limit is not None:
        alive = (first + jnp.arange(block) < limit).astype(jnp.int32)
    gate = alive * encode.gates(snn.encoding.presentation, first, block)
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
    after = _Carry(out.state, tuple(total[-1] for total in sums), counts)
    return after, (sums, metrics.count(outs, snn.arch), packed)


def _block(snn: Spiking, shown: _Shown, state: Any, first: Array, gate: Array) -> net_module.Out:
    """Present what ``gate [K]`` lets through: frames from ``first`` on, or the image's current."""
    if shown.current is None:
        x = jax.lax.dynamic_slice_in_dim(shown.frames, first, gate.shape[0])
        x = x * _along(gate, x).astype(x.dtype)
        return net_module.apply(snn.net, snn.variables, x, state, gate=gate)
    held = shown.current * _along(gate, shown.current).astype(shown.current.dtype)
    return net_module.apply(snn.net, snn.variables, shown.frames, state, gate=gate, stem=held)


def _along(steps: Array, value: Array) -> Array:
    """``steps [K]`` shaped to multiply ``value [K or 1, B, ...]``."""
    return steps.reshape(-1, *(1,) * (value.ndim - 1))


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


def _sum_dtype(dtype: Any) -> Any:
    return jnp.int32 if jnp.issubdtype(dtype, jnp.integer) else dtype


def pack(out: Array, spikes: tuple[int, int] | None) -> Array:
    """Signed counts ``[K, B, ..., C]`` as bit planes ``[K, planes, B, ..., ceil(C / 8)]`` uint8.

    One plane per possible spike of a step: ``out >= 1 .. highest``, then ``out <= -1 .. lowest``.
    """
    lowest, highest = spikes or (0, 1)
    planes = [out >= j for j in range(1, highest + 1)] + [out <= -j for j in range(1, 1 - lowest)]
    return jnp.packbits(jnp.stack(planes, axis=1), axis=-1)


def unpack(record: Array, snn: Spiking, site: str) -> Array:
    """The signed spike counts ``[T, B, ..., C]`` that ``record=(site,)`` packed.

    int8, or int32 where a count can exceed 127.
    """
    highest = (_spikes(snn, site) or (0, 1))[1]
    dtype = count_dtype(highest)
    channels = site_named(snn.arch, site).out_shape[-1]
    planes = jnp.unpackbits(record, axis=-1, count=channels)
    return planes[:, :highest].sum(1, dtype=dtype) - planes[:, highest:].sum(1, dtype=dtype)


STATIC = ("steps", "block", "record", "counts")
_simulate = jax.jit(run, static_argnames=STATIC)


@functools.lru_cache(maxsize=16)
def _sharded(devices: int, options: tuple[tuple[str, Any], ...], axis: int) -> Any:
    """The engine with the batch shared between local devices."""
    mesh = Mesh(np.array(jax.local_devices()[:devices]), ("batch",))
    along = PartitionSpec(None, "batch")
    images = along if axis else PartitionSpec("batch")
    out: Any = (along, along, PartitionSpec("batch"), PartitionSpec(None, None, "batch"))

    def body(snn: Spiking, images: Array, keys: Array | None) -> tuple[Any, ...]:
        return tuple(run(snn, images, keys, **dict(options)))

    specs = (PartitionSpec(), images, PartitionSpec("batch"))
    return jax.jit(jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False))
