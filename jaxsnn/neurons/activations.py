"""Activations of an ANN: neurons whose state is empty."""

from collections.abc import Callable

import jax
from jax import Array

from jaxsnn import quant
from jaxsnn.neurons.contract import Neuron, neuron, no_state


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
