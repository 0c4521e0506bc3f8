"""Threshold units that share a drive, and the level that they count to."""

import functools

import jax.numpy as jnp
from jax import Array

from jaxsnn.neurons.neuron import Leaves, Neuron, State, count_dtype, neuron, no_state


def threshold_table(levels: int, channels: int) -> Array:
    """Default thresholds ``1..levels`` for every channel, int32 ``[levels, C]``."""
    return jnp.tile(jnp.arange(1, levels + 1, dtype=jnp.int32)[:, None], (1, channels))


@neuron
def integer_level(levels: int) -> Neuron:
    """The level of the integer ANN: the highest one whose threshold the drive reached.

    Where ``threshold_count`` adds up units, this looks for the topmost: they agree only while the
    leaf ``thresholds``, int32 or float32 ``[levels, C]``, ascends along its first axis.
    """

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        table, dtype = leaves["thresholds"], count_dtype(levels)
        reached = [(drive >= table[j]).astype(dtype) * (j + 1) for j in range(levels)]
        return state, functools.reduce(jnp.maximum, reached)

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
