"""Leaky integrate and fire, differentiable: the neuron of directly trained spiking networks."""

import functools
import math
from collections.abc import Mapping
from typing import Literal, get_args

import jax.numpy as jnp
from jax import Array

from jaxsnn.errors import UserError
from jaxsnn.neurons import surrogate as surrogates
from jaxsnn.neurons.neuron import Leaves, Neuron, Shape, State, neuron

Reset = Literal["delayed", "subtract", "zero", "none"]
Emit = Literal["spike", "potential"]
LEARNABLE = ("leak", "threshold")
LEAST_THRESHOLD = 1e-3  # a learned one that fell to 0 would spike for ever, its reset then adding


@neuron
def leaky(
    leak: float = 0.5,
    threshold: float = 1.0,
    reset: Reset = "delayed",
    surrogate: str = "fast_sigmoid",
    slope: float | None = None,
    learn: tuple[str, ...] = (),
    emit: Emit = "spike",
) -> Neuron:
    """Leaky integrate and fire with a surrogate gradient.

    ``U(t) = leak U(t-1) + I(t) - R(t)``, ``S(t) = 1`` iff ``U(t) > threshold``: strictly above, as
    in the system that it comes from, where the neurons of converted networks fire at a tie. ``R``
    is the reset:

    - "delayed": ``threshold`` in the step after a spike (``R(t) = threshold S(t-1)``). The
      potential that is compared and emitted is that before the reset. Source: Eshraghian et al.,
      Proc. IEEE 111, 2023 (snnTorch's rule).
    - "subtract": ``threshold``, at once after the spike (soft reset).
    - "zero": the whole potential, at once after the spike (hard reset).
    - "none": nothing.

    No gradient flows through whether a neuron is reset; it does through leak, drive, what a reset
    takes away, and the spikes, there by the surrogate.
    State: membrane potential ``[B, ..., C]`` float32, from 0. Leaves, each ``[C]`` float32:
    ``leak``, per step, used between 0 and 1, and ``threshold``, units of the drive, used from 0.001
    on; fixed, or learned where ``learn`` names them, with a whole gradient up to these bounds and
    at them (as PyTorch's ``clamp`` has it) and none beyond.

    Args:
        leak: what is left of a potential after one step (beta).
        threshold: potential above which the neuron spikes.
        reset: see above.
        surrogate: name in ``jaxsnn.neurons.SURROGATES``.
        slope: of the surrogate; None: its usual one.
        learn: which of "leak", "threshold" are parameters.
        emit: "spike", or "potential" for a readout whose membrane potential is read.

    Raises:
        UserError: a leak outside [0, 1], a threshold or slope not above 0, or an unknown reset,
            surrogate, leaf or ``emit``.

    >>> cell, drive = leaky(0.5), jnp.full((1, 1), 0.75)
    >>> leaves = cell.fixed(1)
    >>> state, seen = cell.init(leaves, (1, 1), None), []
    >>> for _ in range(5):
    ...     state, out = cell.step(leaves, state, drive)
    ...     seen.append((float(state[0][0, 0]), int(out[0, 0])))
    >>> seen
    [(0.75, 0), (1.125, 1), (0.3125, 0), (0.90625, 0), (1.203125, 1)]
    """
    _check(leak, threshold, reset, learn, emit, surrogate, slope)
    values = {"leak": leak, "threshold": threshold}
    others = tuple(name for name in LEARNABLE if name not in learn)

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        before, level = state[0], _within(leaves["threshold"], LEAST_THRESHOLD)
        potential = _within(leaves["leak"], 0, 1) * before + drive
        if reset == "delayed":
            potential = potential - (before > level) * level
        spike = surrogates.spike(potential - level, surrogate, slope)
        return (_after(reset, potential, level),), potential if emit == "potential" else spike

    return Neuron(
        _at_rest,
        step,
        learned=functools.partial(_filled, {name: values[name] for name in learn}),
        fixed=functools.partial(_filled, {name: values[name] for name in others}),
        spikes=(0, 1) if emit == "spike" else None,
    )


def _filled(values: Mapping[str, float], channels: int) -> Leaves:
    return {name: jnp.full(channels, value) for name, value in values.items()}


def _at_rest(leaves: Leaves, shape: Shape, keys: Array | None) -> State:
    del leaves, keys
    return (jnp.zeros(shape),)


def _after(reset: Reset, potential: Array, level: Array) -> Array:
    """The potential after the step in which it was compared with the threshold ``level``."""
    spiked = potential > level  # a comparison has no gradient
    if reset == "subtract":
        return potential - spiked * level
    return jnp.where(spiked, 0, potential) if reset == "zero" else potential


def _within(value: Array, least: float, most: float = math.inf) -> Array:
    """``value``, kept within bounds; at a bound ``jnp.clip`` would halve the gradient."""
    return jnp.where(value < least, least, jnp.where(value > most, most, value))


def _check(
    leak: float,
    threshold: float,
    reset: str,
    learn: tuple[str, ...],
    emit: str,
    surrogate: str,
    slope: float | None,
) -> None:
    surrogates.spike(jnp.zeros(()), surrogate, slope)  # refuses name and slope before any run
    if not 0 <= leak <= 1:
        raise UserError(f"leak={leak}: what is left of a potential after a step is 0 to 1")
    if not threshold > 0:
        raise UserError(f"threshold={threshold}: give a number above 0")
    if reset not in get_args(Reset):
        raise UserError(f"reset={reset!r} is unknown; choose one of {', '.join(get_args(Reset))}")
    for name in learn:
        if name not in LEARNABLE:
            raise UserError(f"learn={name!r} is no leaf; choose among {', '.join(LEARNABLE)}")
    if emit not in get_args(Emit):
        raise UserError(f"emit={emit!r} is unknown; choose spike or potential")
