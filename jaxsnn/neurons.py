"""Neurons as pairs of pure functions; an ANN's activation is a neuron whose state is empty.

One step of every neuron is: integrate, compare, emit, subtract. Thresholds are leaves in the units
of the drive; with integer leaves and an integer drive no float takes part in a comparison.

To add a neuron: write a function decorated with ``@neuron`` that returns a :class:`Neuron`, and a
trajectory by hand in ``tests/test_neurons.py``.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxsnn import quant

Leaves = dict[str, Array]
State = Any
Shape = tuple[int, ...]


def no_leaves(channels: int) -> Leaves:
    """Of a neuron without parameters of this kind."""
    del channels
    return {}


def no_state(leaves: Leaves, shape: Shape, keys: Array | None) -> State:
    """Of an activation: the empty tuple."""
    del leaves, shape, keys
    return ()


class Neuron(NamedTuple):
    """A pair of pure functions ``(init, step)`` with its default leaves.

    Attributes:
        init: ``(leaves, shape [B, ..., C], keys [B] or None) -> state``; ``keys`` are one PRNG key
            per image, needed by random neurons only. Every array of a state has the batch as its
            first axis, so that images can leave a running batch.
        step: ``(leaves, state, drive [B, ..., C]) -> (state, out [B, ..., C])``. A neuron with an
            empty state also takes a block ``[K, B, ..., C]``.
        learned: ``channels -> leaves`` that training may change (clip range, leak).
        fixed: ``channels -> leaves`` that it may not (threshold, initial potential).
        spikes: lowest and highest spike count of one step, None for an ANN's activation.
        settled: the stateless neuron that gives the final net count from the whole drive, if
            theory has one (settled mode; the integer ANN of the certificate).
        name: the factory's name, and
        options: its arguments; together they rebuild the neuron (saved networks).
    """

    init: Callable[[Leaves, Shape, Array | None], State]
    step: Callable[[Leaves, State, Array], tuple[State, Array]]
    learned: Callable[[int], Leaves] = no_leaves
    fixed: Callable[[int], Leaves] = no_leaves
    spikes: tuple[int, int] | None = None
    settled: "Neuron | None" = None
    name: str = ""
    options: tuple[tuple[str, Any], ...] = ()


FACTORIES: dict[str, Callable[..., Neuron]] = {}


def neuron(factory: Callable[..., Neuron]) -> Callable[..., Neuron]:
    """Register a factory; equal options give the same object, so jit compiles once."""

    @functools.cache
    def build(options: tuple[tuple[str, Any], ...]) -> Neuron:
        return factory(**dict(options))._replace(name=factory.__name__, options=options)

    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> Neuron:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return build(tuple(bound.arguments.items()))

    FACTORIES[factory.__name__] = make
    return make


def activation(function: Callable[[Array], Array]) -> Neuron:
    """A neuron with neither state nor leaves, from an elementwise function."""
    return Neuron(no_state, lambda leaves, state, drive: (state, function(drive)))


@neuron
def identity() -> Neuron:
    """Pass the drive on: readouts, and pooling without neurons of its own."""
    return activation(lambda drive: drive)


@neuron
def relu() -> Neuron:
    """``max(0, drive)``: the full-precision network. Gradient 0 at 0."""
    return activation(jax.nn.relu)


@neuron
def quantised_relu(k: int, bound: float | None = None) -> Neuron:
    """ReLU and median quantiser with step ``2**-k`` and upper bound ``bound`` (None: no bound)."""
    return activation(lambda drive: quant.median_quantise(drive, k, bound))


def count_dtype(highest: int) -> jnp.dtype:
    """int8 while counts fit it, int32 beyond: a count above 127 must not enter an int8 product."""
    return jnp.dtype(jnp.int8 if highest <= 127 else jnp.int32)


def threshold_table(levels: int, channels: int) -> Array:
    """Default thresholds ``1..levels`` for every channel, int32 ``[levels, C]``."""
    return jnp.tile(jnp.arange(1, levels + 1, dtype=jnp.int32)[:, None], (1, channels))


@neuron
def integer_level(levels: int) -> Neuron:
    """The level of the integer ANN: how many entries of a sorted threshold table the drive reached.

    A binary search in the column of the channel, so it shares nothing with ``threshold_count`` but
    the leaf ``thresholds`` int32 or float32 ``[levels, C]``, ascending along the first axis.
    """

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        search = functools.partial(jnp.searchsorted, side="right")
        flat = jnp.moveaxis(drive, -1, 0).reshape(drive.shape[-1], -1)
        found = jax.vmap(search, in_axes=(1, 0))(leaves["thresholds"], flat)
        level = jnp.moveaxis(found.reshape(drive.shape[-1:] + drive.shape[:-1]), 0, -1)
        return state, level.astype(count_dtype(levels))

    fixed = functools.partial(_table_leaf, levels)
    return Neuron(no_state, step, fixed=fixed, spikes=(0, levels))


def _table_leaf(levels: int, channels: int) -> Leaves:
    return {"thresholds": threshold_table(levels, channels)}


@neuron
def threshold_count(levels: int) -> Neuron:
    """Scatter and gather: ``levels`` threshold units share one drive, each spikes at most once.

    ``out = sum_j [drive >= thresholds[j]]``, a spike count of ``0..levels`` in one step; no state.
    Source: Zou et al. (Front. Neurosci. 15:694170, 2021).

    Leaves (fixed): ``thresholds`` int32 or float32 ``[levels, C]``, units of the drive.
    """

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        dtype = count_dtype(levels)
        units = [(drive >= leaves["thresholds"][j]).astype(dtype) for j in range(levels)]
        return state, functools.reduce(jnp.add, units)

    fixed = functools.partial(_table_leaf, levels)
    settled = integer_level(levels)
    return Neuron(no_state, step, fixed=fixed, spikes=(0, levels), settled=settled)


@neuron
def integrate_and_fire(signed: bool = False) -> Neuron:
    """Integrate and fire with soft reset (reset by subtraction); no leak, no refractory time.

    ``V += drive; +1 if V >= threshold, then V -= threshold``. With ``signed`` the neuron may take a
    spike back: ``-1 if V <= negative_threshold and its net count is positive, then V += threshold``
    (Hu et al., Fast-SNN, TPAMI 2023). At most one spike a step.

    State: membrane potential ``[B, ..., C]`` in the dtype of the threshold, and for ``signed`` the
    net spike count, int32. Leaves (fixed, ``[C]``, units of the drive): ``threshold`` (1),
    ``initial`` membrane potential (0), for ``signed`` also ``negative_threshold`` (-1e-3).
    """

    def fixed(channels: int) -> Leaves:
        leaves = {"threshold": jnp.ones(channels), "initial": jnp.zeros(channels)}
        return leaves | ({"negative_threshold": jnp.full(channels, -1e-3)} if signed else {})

    def init(leaves: Leaves, shape: Shape, keys: Array | None) -> State:
        del keys
        dtype = leaves["threshold"].dtype
        potential = jnp.broadcast_to(leaves["initial"].astype(dtype), shape)
        return (potential, jnp.zeros(shape, jnp.int32)) if signed else (potential,)

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        threshold = leaves["threshold"]
        _refuse_truncation(threshold, drive)
        potential = state[0] + drive.astype(threshold.dtype)
        up = potential >= threshold
        potential = potential - jnp.where(up, threshold, 0)
        if not signed:
            return (potential,), up.astype(jnp.int8)
        net = state[1] + up
        down = ~up & (potential <= leaves["negative_threshold"]) & (net > 0)
        potential = potential + jnp.where(down, threshold, 0)
        return (potential, net - down), up.astype(jnp.int8) - down.astype(jnp.int8)

    return Neuron(init, step, fixed=fixed, spikes=(-1 if signed else 0, 1))


def _refuse_truncation(threshold: Array, drive: Array) -> None:
    integer, floating = jnp.integer, jnp.floating
    if jnp.issubdtype(threshold.dtype, integer) and jnp.issubdtype(drive.dtype, floating):
        raise ValueError(
            f"the threshold is {threshold.dtype} but the drive {drive.dtype}, which it would "
            "truncate; give integer kernels, or float thresholds"
        )


@neuron
def delayed(inner: Neuron, steps: int = 1) -> Neuron:
    """Pipeline delay: emit what ``inner`` emitted ``steps`` steps ago, zeros before that.

    State: the inner state and a queue of ``steps`` outputs ``[B, ..., C]``, oldest first.
    """
    if steps < 1:
        raise ValueError(
            f"delayed: steps is {steps}; a delay takes at least 1 step (or no wrapper)"
        )

    def init(leaves: Leaves, shape: Shape, keys: Array | None) -> State:
        state = inner.init(leaves, shape, keys)
        drive = jnp.zeros(shape, _drive_dtype(leaves))
        out = jax.eval_shape(inner.step, leaves, state, drive)[1]
        return state, (jnp.zeros(shape, out.dtype),) * steps

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        inner_state, queue = state
        inner_state, out = inner.step(leaves, inner_state, drive)
        return (inner_state, (*queue[1:], out)), queue[0]

    return inner._replace(init=init, step=step, settled=None)


def _drive_dtype(leaves: Leaves) -> jnp.dtype:
    thresholds = [leaf for name, leaf in leaves.items() if name.startswith("threshold")]
    return thresholds[0].dtype if thresholds else jnp.dtype(jnp.float32)


@neuron
def unit_dropout(inner: Neuron) -> Neuron:
    """Delete every unit's spike independently with probability ``drop_ratio`` (a fixed leaf).

    A count of ``n`` stands for ``n`` units that spiked; each is kept if its uniform number is at
    least ``drop_ratio``, so 0 keeps all and 1 deletes all, exactly. Every image draws from a key of
    its own, so the result does not depend on batch size or device count.

    State: the inner state, the keys ``[B]`` and the step number ``[B]``, int32.
    """
    if inner.spikes is None:
        raise ValueError(f"unit_dropout: {inner.name!r} emits no spikes; wrap a spiking neuron")
    units = max(abs(bound) for bound in inner.spikes)

    def init(leaves: Leaves, shape: Shape, keys: Array | None) -> State:
        if keys is None:
            raise ValueError("unit_dropout draws random numbers; pass key= to the simulation")
        return inner.init(leaves, shape, keys), keys, jnp.zeros(shape[0], jnp.int32)

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        inner_state, keys, time = state
        inner_state, out = inner.step(leaves, inner_state, drive)

        def draw(key: Array, time: Array) -> Array:
            uniform = jax.random.uniform(jax.random.fold_in(key, time), (units, *out.shape[1:]))
            return uniform >= leaves["drop_ratio"]

        kept = jax.vmap(draw, out_axes=1)(keys, time)
        fired = jnp.arange(units).reshape((-1,) + (1,) * out.ndim) < jnp.abs(out)
        number = jnp.sum(kept & fired, axis=0, dtype=out.dtype)
        return (inner_state, keys, time + 1), number * jnp.sign(out)

    def fixed(channels: int) -> Leaves:
        return inner.fixed(channels) | {"drop_ratio": jnp.zeros(())}

    return inner._replace(init=init, step=step, fixed=fixed, settled=None)
