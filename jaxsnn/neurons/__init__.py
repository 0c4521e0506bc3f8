"""Neurons as pairs of pure functions; an ANN's activation is a neuron whose state is empty.

One step of every neuron is: integrate, compare, emit, subtract. Thresholds are leaves in the units
of the drive; with integer leaves and an integer drive no float takes part in a comparison.

To add a neuron: write a function decorated with ``@neuron`` that returns a :class:`Neuron` in a
module of this package, name it below, and compute a trajectory by hand in its test.
"""

from jaxsnn.neurons.activations import activation, clipped_relu, identity, quantised_relu, relu
from jaxsnn.neurons.integrate_and_fire import (
    NEGATIVE_THRESHOLD,
    clipped_spikes,
    fired_level,
    integrate_and_fire,
)
from jaxsnn.neurons.leaky import leaky
from jaxsnn.neurons.levels import clip_quantise, median_quantise
from jaxsnn.neurons.neuron import (
    FACTORIES,
    Leaves,
    Neuron,
    Shape,
    State,
    count_dtype,
    neuron,
    no_leaves,
    no_state,
)
from jaxsnn.neurons.pools import maximum, running_maximum
from jaxsnn.neurons.surrogate import SURROGATES, spike
from jaxsnn.neurons.threshold_units import integer_level, threshold_count, threshold_table
from jaxsnn.neurons.tracking import even_level, even_threshold, tracking
from jaxsnn.neurons.wrappers import delayed, unit_dropout

__all__ = [
    "FACTORIES",
    "NEGATIVE_THRESHOLD",
    "SURROGATES",
    "Leaves",
    "Neuron",
    "Shape",
    "State",
    "activation",
    "clip_quantise",
    "clipped_relu",
    "clipped_spikes",
    "count_dtype",
    "delayed",
    "even_level",
    "even_threshold",
    "fired_level",
    "identity",
    "integer_level",
    "integrate_and_fire",
    "leaky",
    "maximum",
    "median_quantise",
    "neuron",
    "no_leaves",
    "no_state",
    "quantised_relu",
    "relu",
    "running_maximum",
    "spike",
    "threshold_count",
    "threshold_table",
    "tracking",
    "unit_dropout",
]
