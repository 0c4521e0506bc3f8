"""Nodes with a membrane potential: ``I``, ``IF``, ``LI``, ``LIF``, ``CubaLI``, ``CubaLIF``.

All are integrated by forward Euler with one step of ``dt`` per step of time. The input of a step
enters the potential of that step, which is then compared; potentials and currents start at 0. Every
Euler step is linear, so that its factors are computed once (:mod:`jaxsnn.exchange.nir.translate`)::

    v(t) = decay * v(t-1) + gain * x(t) + rest

where, of ``tau v' = (v_leak - v) + r x``, ``decay = 1 - dt/tau``, ``gain = r dt/tau`` and
``rest = v_leak dt/tau``; of ``v' = r x``, ``decay = 1``, ``gain = r dt`` and ``rest = 0``.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from jaxsnn.exchange.nir.operation import DType, Params, Shape, State
from jaxsnn.exchange.nir.rules import Rules
from jaxsnn.exchange.nir.spikes import fire


def euler(params: Params, potential: Array, x: Array) -> Array:
    """``decay * v + gain * x + rest``; factors that are left out are 1, 1 and 0."""
    if "decay" in params:
        potential = params["decay"] * potential
    potential = potential + (params["gain"] * x if "gain" in params else x)
    return potential + params["rest"] if "rest" in params else potential


@dataclass(frozen=True)
class Membrane:
    """One potential: ``I`` and ``LI`` emit it; ``IF`` and ``LIF`` fire by ``rules``.

    State: ``(v,)``. Params: ``decay``, ``gain``, ``rest`` where they are not 1, 1, 0; of a spiking
    node also ``v_threshold`` and ``v_reset``; each of the shape of an input, or one value.

    Attributes:
        rules: when it fires and how it is reset; None: it does not, and emits its potential.
    """

    rules: Rules | None

    def output_shape(self, shape: Shape, params: Params) -> Shape:
        """That of the input."""
        del params
        return shape

    def start(self, params: Params, shape: Shape, dtype: DType) -> State:
        """A potential of 0."""
        del params
        return (jnp.zeros(shape, dtype),)

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """Integrate, compare, emit, reset."""
        potential = euler(params, state[0], x)
        if self.rules is None:
            return (potential,), potential
        spikes, potential = fire(self.rules, params, potential)
        return (potential,), spikes


@dataclass(frozen=True)
class CurrentBased:
    """A synaptic current in front of a membrane: ``CubaLI`` and ``CubaLIF``.

    NIR defines them as a chain: a leaky integrator of ``w_in * x``, a linear map ``r`` and an
    ``LI`` or ``LIF``. So the current is integrated first and enters the potential of its own step::

        i(t) = (1 - dt/tau_syn) i(t-1) + (dt/tau_syn) w_in x(t)
        v(t) = (1 - dt/tau_mem) v(t-1) + (dt/tau_mem) (v_leak + r i(t))

    State: ``(v, i)``. Params: those of :class:`Membrane`, and ``synapse_decay = 1 - dt/tau_syn``,
    ``synapse_gain = w_in dt/tau_syn``.

    Attributes:
        rules: as in :class:`Membrane`.
    """

    rules: Rules | None

    def output_shape(self, shape: Shape, params: Params) -> Shape:
        """That of the input."""
        del params
        return shape

    def start(self, params: Params, shape: Shape, dtype: DType) -> State:
        """Potential and current of 0."""
        del params
        return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """The current, then the membrane."""
        current = params["synapse_decay"] * state[1] + params["synapse_gain"] * x
        membrane, out = Membrane(self.rules).step(params, state[:1], current)
        return (*membrane, current), out
