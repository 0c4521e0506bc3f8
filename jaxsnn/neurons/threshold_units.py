"""Threshold units that share a drive, and the level that they count to.

A few thresholds are compared one after the other, in one pass over the drive; many are searched:
the program is then of ``log2(levels)`` comparisons, and compiles in a second whatever their number.
Both give the same counts.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from jaxsnn.errors import UserError
from jaxsnn.neurons.neuron import Leaves, Neuron, State, count_dtype, neuron, no_state

LISTED = 127  # levels up to which comparing all is faster than a search (measured on a CPU)


def threshold_table(levels: int, channels: int) -> Array:
    """Default thresholds ``1..levels`` for every channel, int32 ``[levels, C]``."""
    return jnp.tile(jnp.arange(1, levels + 1, dtype=jnp.int32)[:, None], (1, channels))


def reached(ascending: Array, drive: Array) -> Array:
    """How many thresholds a drive reached, int32, by a binary search.

    Args:
        ascending: ``[levels, C]``, each channel's thresholds in ascending order.
        drive: ``[..., C]``.

    >>> reached(jnp.array([[1], [3], [3]]), jnp.array([[0], [1], [3], [9]])).ravel().tolist()
    [0, 1, 3, 3]
    """
    levels, channels = ascending.shape
    flat, channel = ascending.ravel(), jnp.arange(channels, dtype=jnp.int32)
    number = jnp.zeros(drive.shape, jnp.int32)
    for bit in reversed(range(levels.bit_length())):
        trial = number + (1 << bit)
        threshold = flat[jnp.minimum(trial - 1, levels - 1) * channels + channel]
        number = jnp.where((trial <= levels) & (drive >= threshold), trial, number)
    return number


@neuron
def integer_level(levels: int) -> Neuron:
    """The level of the integer ANN: the highest one whose threshold the drive reached.

    Where ``threshold_count`` adds up units, this looks for the topmost: they agree only while the
    leaf ``thresholds``, int32 or float32 ``[levels, C]``, ascends along its first axis.
    """
    _check_levels(levels)

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        table, dtype = leaves["thresholds"], count_dtype(levels)
        if levels > LISTED:  # a level or one above it is reached iff the lowest of these is
            return state, reached(jax.lax.cummin(table, reverse=True), drive).astype(dtype)
        topmost = [(drive >= table[j]).astype(dtype) * (j + 1) for j in range(levels)]
        return state, functools.reduce(jnp.maximum, topmost)

    fixed = functools.partial(_table_leaf, levels)
    return Neuron(no_state, step, fixed=fixed, spikes=(0, levels))


def _check_levels(levels: int) -> None:
    if levels < 1:
        raise UserError(f"levels={levels}: give a whole number of at least 1")


def _table_leaf(levels: int, channels: int) -> Leaves:
    return {"thresholds": threshold_table(levels, channels)}


@neuron
def threshold_count(levels: int) -> Neuron:
    """Scatter and gather: ``levels`` threshold units share one drive, each spikes at most once.

    ``out = sum_j [drive >= thresholds[j]]``, a spike count of ``0..levels`` in one step; no state.
    Source: Zou et al. (Front. Neurosci. 15:694170, 2021).

    Leaves (fixed): ``thresholds`` int32 or float32 ``[levels, C]``, units of the drive.
    """
    _check_levels(levels)

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        table, dtype = leaves["thresholds"], count_dtype(levels)
        if levels > LISTED:  # a count does not depend on the order of the units
            return state, reached(jnp.sort(table, axis=0), drive).astype(dtype)
        units = [(drive >= table[j]).astype(dtype) for j in range(levels)]
        return state, functools.reduce(jnp.add, units)

    fixed = functools.partial(_table_leaf, levels)
    settled = integer_level(levels)
    return Neuron(no_state, step, fixed=fixed, spikes=(0, levels), settled=settled)
