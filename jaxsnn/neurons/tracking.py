"""The tracking neuron: its net spike count follows the level of its membrane potential.

Thresholds are evenly spaced, ``theta_j = theta_1 + (j - 1) s``, on a grid of ``2**-16`` drive
units; an integer potential reaches ``theta_j`` iff it reaches its ceiling, so integers are compared
alone. Leaves, each ``[C]``: ``first`` and ``step``, whole drive units (int32), ``first_fraction``
and ``step_fraction``, their rests in ``2**-16`` (int32; the rounding up to the ceiling is in
``first_fraction``), and ``highest``, the largest net count (int32). With float32 ``first`` and
``step`` the fractions are not used.
"""

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
    refuse_truncation,
)

FRACTION_BITS = 16
LARGEST_COUNT = 2**15 - 1  # beyond it a number of steps times a fraction would leave int32


def even_threshold(leaves: Leaves, number: Array) -> Array:
    """Threshold of spike ``number`` (int32, from 1), in drive units and the dtype of ``first``.

    >>> leaves = {"first": 2, "step": 1, "first_fraction": 65535, "step_fraction": 1 << 15}
    >>> leaves = {name: jnp.array([value]) for name, value in leaves.items()}
    >>> [int(even_threshold(leaves, jnp.array([j]))[0]) for j in (1, 2, 3)]  # 2, 3.5, 5
    [2, 4, 5]
    """
    first, before = leaves["first"], number - 1
    if jnp.issubdtype(first.dtype, jnp.floating):
        return first + before.astype(first.dtype) * leaves["step"]
    fraction = before * leaves["step_fraction"] + leaves["first_fraction"]
    return first + before * leaves["step"] + (fraction >> FRACTION_BITS)


def _guess(leaves: Leaves, drive: Array) -> Array:
    """The level up to one step, float32: at least 1, taking the first threshold as reached."""
    first, step = leaves["first"], leaves["step"].astype(jnp.float32)
    if jnp.issubdtype(first.dtype, jnp.floating):
        above = drive - first
    else:  # the difference of two int32 fits uint32, where it is not negative
        difference = drive.astype(jnp.uint32) - first.astype(jnp.uint32)
        rest = (1 << FRACTION_BITS) - 1 - leaves["first_fraction"]
        above = difference.astype(jnp.float32) + rest * 2.0**-FRACTION_BITS
        step = step + leaves["step_fraction"] * 2.0**-FRACTION_BITS
    highest = leaves["highest"].astype(jnp.float32)
    number = jnp.floor(above / jnp.where(step > 0, step, 1)) + 1
    return jnp.where(step > 0, jnp.clip(number, 1, highest), highest)


def _level(leaves: Leaves, drive: Array) -> Array:
    """How many thresholds a drive of the dtype of ``first`` reached, int32."""
    guess = jnp.where(drive >= leaves["first"], _guess(leaves, drive), 0).astype(jnp.int32)
    guess = jnp.minimum(guess, leaves["highest"])
    more = (guess < leaves["highest"]) & (drive >= even_threshold(leaves, guess + 1))
    fewer = (guess > 0) & (drive < even_threshold(leaves, guess))
    return guess + more - fewer


@neuron
def even_level(highest: int = 127) -> Neuron:
    """The level of the integer ANN: how many of ``highest`` even thresholds the drive reached.

    A quotient in float32 is a guess, at most one off, that two exact comparisons correct. Leaves:
    see :mod:`jaxsnn.neurons.tracking`.

    Raises:
        UserError: ``highest`` below 1 or beyond 32767.
    """
    if not 1 <= highest <= LARGEST_COUNT:
        raise UserError(f"highest={highest}: a net spike count lies in 1..{LARGEST_COUNT}")

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        refuse_truncation(leaves["first"], drive)
        level = _level(leaves, drive.astype(leaves["first"].dtype))
        return state, level.astype(count_dtype(highest))

    return Neuron(no_state, step, fixed=functools.partial(_even, highest), spikes=(0, highest))


@neuron
def tracking(highest: int = 127, per_step: int = 1, rising: bool = False) -> Neuron:
    """Integrate and fire with negative spikes whose net count follows the potential's level.

    The potential is never reset. A step emits +1 if the potential is at or above the threshold of
    the next spike and the net count below ``highest``, -1 if it has fallen below the threshold of
    the last one, else 0; a tie goes up, without a tolerance. Once its input is silent, the net
    count is the level of the total drive, whatever the order in which it came. Source: Zou et al.
    (Advanced Intelligent Systems, 2023); there, the threshold moves instead of the count.

    With ``per_step`` = m a step emits the difference between level and net count, cut to -m..m
    (graded spikes). With ``rising`` it emits no positive spike in a step that lowers the potential,
    because its level is then likely to fall further. Both settle on the same counts: a layer whose
    inputs have settled has no drive, no step lowers its potentials, and every net count moves to
    its level by m a step, so that layer ``l`` settles at most ``ceil(highest / m)`` steps after
    layer ``l - 1``. A step in which no neuron spikes gives no drive, held nothing back, and so is
    followed by silence alone (the settle stop); this asks for an encoder without ``rising``.

    State: membrane potential ``[B, ..., C]`` in the dtype of ``first``, and net spike count, int32.
    Leaves (fixed): see :mod:`jaxsnn.neurons.tracking`; the default thresholds are 1/2, 3/2, ...

    Args:
        highest: largest net count.
        per_step: largest spike count of one step, 1 to 127.
        rising: emit positive spikes only where the potential does not fall.

    Raises:
        UserError: ``highest`` below 1 or beyond 32767, or ``per_step`` outside 1..127.

    >>> leaves = {"first": 2, "step": 1, "first_fraction": 0, "step_fraction": 0, "highest": 9}
    >>> leaves = {name: jnp.array([value]) for name, value in leaves.items()}
    >>> def spikes(neuron, drives):
    ...     state, counts = neuron.init(leaves, (1, 1), None), []
    ...     for drive in drives:
    ...         state, out = neuron.step(leaves, state, jnp.full((1, 1), drive))
    ...         counts.append(int(out[0, 0]))
    ...     return counts
    >>> options = ((1, False), (2, False), (1, True))  # per_step, rising
    >>> [spikes(tracking(9, *each), (4, -1, -2, 0)) for each in options]
    [[1, 1, -1, -1], [2, 0, -2, 0], [1, 0, -1, 0]]
    """
    if not 1 <= per_step <= 127:
        raise UserError(f"per_step={per_step}: the largest spike count of a step is 1 to 127")

    def init(leaves: Leaves, shape: Shape, keys: Array | None) -> State:
        del keys
        return jnp.zeros(shape, leaves["first"].dtype), jnp.zeros(shape, jnp.int32)

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        before, net = state
        refuse_truncation(leaves["first"], drive)
        potential = before + drive.astype(before.dtype)
        out = _spikes_towards_level(leaves, potential, net, per_step)
        if rising:
            out = jnp.where(potential < before, jnp.minimum(out, 0), out)
        return (potential, net + out), out

    return Neuron(
        init,
        step,
        fixed=functools.partial(_even, highest),
        spikes=(-per_step, per_step),
        settled=even_level(highest),
        rests=True,
        silence_is_final=True,
        holds_back=rising,
    )


def _spikes_towards_level(leaves: Leaves, potential: Array, net: Array, per_step: int) -> Array:
    """By how many spikes the net count moves towards the potential's level in a step, int8."""
    if per_step == 1:  # two comparisons, without a level
        up = (net < leaves["highest"]) & (potential >= even_threshold(leaves, net + 1))
        down = (net > 0) & (potential < even_threshold(leaves, net))
        return up.astype(jnp.int8) - down.astype(jnp.int8)
    missing = _level(leaves, potential) - net
    return jnp.clip(missing, -per_step, per_step).astype(jnp.int8)


def _even(highest: int, channels: int) -> Leaves:
    return {
        "first": jnp.full(channels, 0.5),
        "step": jnp.ones(channels),
        "first_fraction": jnp.zeros(channels, jnp.int32),
        "step_fraction": jnp.zeros(channels, jnp.int32),
        "highest": jnp.full(channels, highest, jnp.int32),
    }
