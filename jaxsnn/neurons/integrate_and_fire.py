"""Integrate and fire with soft reset, unsigned and signed, and the level that it counts to."""

import functools

import jax.numpy as jnp
from jax import Array

from jaxsnn.errors import UserError
from jaxsnn.neurons.neuron import (
    Leaves,
    Neuron,
    Shape,
    State,
    count_dtype,
    neuron,
    no_state,
    one_clip,
    refuse_truncation,
)

NEGATIVE_THRESHOLD = -1e-3  # in the units of an activation, whatever the threshold is (Fast-SNN)


@neuron
def integrate_and_fire(
    signed: bool = False, levels: int | None = None, bounded: bool = False
) -> Neuron:
    """Integrate and fire with soft reset (reset by subtraction); no leak, no refractory time.

    ``V += drive; +1 if V >= threshold, then V -= threshold``. With ``signed`` the neuron may take a
    spike back: ``-1 if V <= negative_threshold and its net count is positive, then V += threshold``
    (Hu et al., Fast-SNN, TPAMI 2023). At most one spike a step.

    Where a neuron is signed and ``bounded``, its thresholds are integers and its negative threshold
    is -1, it comes to rest at the level of its whole drive once that has ended, in whatever order
    it came: a potential below 0 with a positive count, or at the threshold with a count below
    ``levels``, changes the count by one a step, and what is left is ``0 <= V < threshold``, or a
    count at the end of its range.

    State: membrane potential ``[B, ..., C]`` in the dtype of the threshold, and, where signed or
    bounded, the net spike count, int32. Leaves (fixed, ``[C]``, units of the drive): ``threshold``
    (1), ``initial`` membrane potential (0), for ``signed`` also ``negative_threshold`` (-1e-3).

    Args:
        signed: emit negative spikes, too.
        levels: the highest level of the activation that the net count stands for.
        bounded: fire no positive spike at a net count of ``levels``.

    Raises:
        UserError: ``levels`` below 1, or ``bounded`` without ``levels``.

    >>> neuron = integrate_and_fire(signed=True)
    >>> leaves = neuron.fixed(1) | {"initial": jnp.array([0.5])}
    >>> state, spikes = neuron.init(leaves, (1, 1), None), []
    >>> for drive in (0.9, 0.9, -1.8):
    ...     state, out = neuron.step(leaves, state, jnp.full((1, 1), drive))
    ...     spikes.append(int(out[0, 0]))
    >>> spikes
    [1, 1, -1]
    """
    _check_levels(levels, bounded)
    counted = signed or bounded

    def init(leaves: Leaves, shape: Shape, keys: Array | None) -> State:
        del keys
        dtype = leaves["threshold"].dtype
        potential = jnp.broadcast_to(leaves["initial"].astype(dtype), shape)
        return (potential, jnp.zeros(shape, jnp.int32)) if counted else (potential,)

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        threshold = leaves["threshold"]
        refuse_truncation(threshold, drive)
        potential = state[0] + drive.astype(threshold.dtype)
        up = potential >= threshold
        if bounded:
            up = up & (state[1] < levels)
        potential = potential - jnp.where(up, threshold, 0)
        if not signed:
            return ((potential, state[1] + up) if counted else (potential,)), up.astype(jnp.int8)
        net = state[1] + up
        down = ~up & (potential <= leaves["negative_threshold"]) & (net > 0)
        potential = potential + jnp.where(down, threshold, 0)
        return (potential, net - down), up.astype(jnp.int8) - down.astype(jnp.int8)

    return Neuron(
        init,
        step,
        fixed=functools.partial(_leaves, signed),
        spikes=(-1 if signed else 0, 1),
        settled=None if levels is None else fired_level(levels, signed),
        rests=signed and bounded,
        pays_out=not counted,
        silence_is_final=True,
    )


def _check_levels(levels: int | None, bounded: bool) -> None:
    if levels is None and bounded:
        raise UserError("bounded=True: say at which net count, with levels")
    if levels is not None and levels < 1:
        raise UserError(f"levels={levels}: an activation has a highest level of at least 1")


def _leaves(signed: bool, channels: int) -> Leaves:
    leaves = {"threshold": jnp.ones(channels), "initial": jnp.zeros(channels)}
    return leaves | (
        {"negative_threshold": jnp.full(channels, NEGATIVE_THRESHOLD)} if signed else {}
    )


@neuron
def fired_level(levels: int, signed: bool = True) -> Neuron:
    """The level of the quantised ANN: thresholds that drive and initial potential hold, 0..levels.

    Leaves: those of :func:`integrate_and_fire`, integers. With half a threshold to start from,
    half a level is rounded up.
    """

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        threshold = leaves["threshold"]
        refuse_truncation(threshold, drive)
        held = drive.astype(threshold.dtype) + leaves["initial"].astype(threshold.dtype)
        return state, jnp.clip(held // threshold, 0, levels).astype(count_dtype(levels))

    return Neuron(no_state, step, fixed=functools.partial(_leaves, signed), spikes=(0, levels))


@neuron
def clipped_spikes(signed: bool = True, negative_threshold: float = NEGATIVE_THRESHOLD) -> Neuron:
    """The neuron over the training tree: it fires at the learned clip and emits clip times spikes.

    The conversion without a fold, in floats: drives are those of the quantised ANN at every step,
    the mean of the output over ``2**bits - 1`` steps stands for its activation, and layers can be
    trained where they are (:mod:`jaxsnn.training.finetune`). State as in
    :func:`integrate_and_fire`, from half the clip on. Leaf: ``clip``, that of
    :func:`jaxsnn.neurons.clipped_relu`.
    """
    inner = integrate_and_fire(signed)

    def thresholds(leaves: Leaves) -> Leaves:
        clip = leaves["clip"]
        negative = jnp.asarray(negative_threshold, clip.dtype)
        return {"threshold": clip, "initial": clip / 2, "negative_threshold": negative}

    def init(leaves: Leaves, shape: Shape, keys: Array | None) -> State:
        return inner.init(thresholds(leaves), shape, keys)

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        state, out = inner.step(thresholds(leaves), state, drive)
        return state, out * leaves["clip"]

    return Neuron(init, step, learned=functools.partial(one_clip, 8.0))
