"""Integrate and fire with soft reset, unsigned and signed."""

import jax.numpy as jnp
from jax import Array

from jaxsnn.neurons.contract import Leaves, Neuron, Shape, State, neuron, refuse_truncation


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
        refuse_truncation(threshold, drive)
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
