"""Activations of an ANN: neurons whose state is empty."""

import functools
from collections.abc import Callable

import jax
from jax import Array

from jaxsnn.neurons import levels
from jaxsnn.neurons.neuron import Leaves, Neuron, State, neuron, no_state, one_clip


def activation(function: Callable[[Array], Array]) -> Neuron:
    """A neuron with neither state nor leaves, from an elementwise function."""

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        del leaves
        return state, function(drive)

    return Neuron(no_state, step)


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
    return activation(lambda drive: levels.median_quantise(drive, k, bound))


@neuron
def clipped_relu(bits: int, ties: levels.Ties = "even", clip: float = 8.0) -> Neuron:
    """ReLU and uniform quantiser of ``bits`` bits below a learned clip (Fast-SNN).

    Leaf (learned): ``clip``, a scalar in units of the drive, which starts at ``clip``. The output
    is ``clip`` times a whole number of ``1 / (2**bits - 1)``.

    Args:
        bits: width.
        ties: where a drive in the middle of two levels goes
            (:func:`jaxsnn.neurons.levels.clip_level`).
        clip: where the clip starts.

    Raises:
        UserError: a width that has no levels.
    """
    levels.levels(bits)

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        return state, levels.clip_quantise(drive, leaves["clip"], bits, ties)

    return Neuron(no_state, step, learned=functools.partial(one_clip, clip))
