"""From potentials to spikes and what is left: one rule for every spiking node; ``Threshold``."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from jaxsnn.exchange.nir.operation import Params, Shape, State, Stateless
from jaxsnn.exchange.nir.rules import Comparison, Reset, Rules


def exceeds(potential: Array, threshold: Array, comparison: Comparison) -> Array:
    """Which potentials fire, bool."""
    above = comparison is Comparison.ABOVE
    return potential > threshold if above else potential >= threshold


def fire(rules: Rules, params: Params, potential: Array) -> tuple[Array, Array]:
    """Spikes of one step, and the potentials after their reset.

    ``z = [v > v_threshold]`` (``>=``), or, with several spikes, the number of thresholds that ``v``
    holds: ``ceil(v / v_threshold) - 1`` (``floor(v / v_threshold)``) where that is positive. Then
    ``v = v_reset``, ``0`` or ``v - z * v_threshold``, and last the floor.

    Args:
        rules: which of these.
        params: ``v_threshold``; ``v_reset`` where the reset is to it.
        potential: ``[B, ...]``.

    Returns:
        Spike counts and potentials, both ``[B, ...]`` in the dtype of the potential.
    """
    threshold = params["v_threshold"]
    fired = exceeds(potential, threshold, rules.comparison)
    spikes = fired.astype(potential.dtype)
    if rules.several_spikes:
        held = potential / threshold
        above = rules.comparison is Comparison.ABOVE
        spikes = jnp.where(fired, jnp.ceil(held) - 1 if above else jnp.floor(held), 0)
        spikes = jnp.where(fired, jnp.maximum(spikes, 1), 0)  # the quotient may be rounded down
    if rules.reset is Reset.SUBTRACT:
        potential = potential - spikes * threshold
    else:
        to = params["v_reset"] if rules.reset is Reset.TO_V_RESET else 0.0
        potential = jnp.where(fired, to, potential)
    if rules.floor is not None:
        potential = jnp.maximum(potential, -rules.floor * threshold)
    return spikes, potential


@dataclass(frozen=True)
class Threshold(Stateless):
    """``z = [x > threshold]`` (``>=``). Params: ``v_threshold``, the shape of ``x`` or one value.

    Attributes:
        comparison: whether an input at the threshold passes.
    """

    comparison: Comparison

    def output_shape(self, shape: Shape, params: Params) -> Shape:
        """That of the input."""
        del params
        return shape

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """1 where the input passes, else 0."""
        return state, exceeds(x, params["v_threshold"], self.comparison).astype(x.dtype)
