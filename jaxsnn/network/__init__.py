"""The one network body: synapses and how each is computed, weight quantisers, sites.

:class:`Net` runs ANN and spiking network alike, over one parameter tree; which neuron, weight
quantiser and initialiser a site has is a map from sites to them.
"""

from jaxsnn.network import weight_quantisers
from jaxsnn.network.arithmetic import Arithmetic
from jaxsnn.network.initialisers import CutNormal, Dirac, FanInUniform, FanOutNormal, Initialiser
from jaxsnn.network.net import (
    Net,
    Variables,
    apply,
    apply_training,
    forward,
    init_variables,
    initial_state,
    template,
)
from jaxsnn.network.per_site import SiteMap, hidden
from jaxsnn.network.weight_quantisers import (
    WeightQuantiser,
    clipped_levels,
    full_precision,
    symmetric,
    ternary,
)

__all__ = [
    "Arithmetic",
    "CutNormal",
    "Dirac",
    "FanInUniform",
    "FanOutNormal",
    "Initialiser",
    "Net",
    "SiteMap",
    "Variables",
    "WeightQuantiser",
    "apply",
    "apply_training",
    "clipped_levels",
    "forward",
    "full_precision",
    "hidden",
    "init_variables",
    "initial_state",
    "symmetric",
    "template",
    "ternary",
    "weight_quantisers",
]
