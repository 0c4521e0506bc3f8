"""A network on paper: specs of layers, the notation, the plan of sites, the named networks.

``16C5-P2-256`` is read into an :class:`Arch`; ``plan`` lists its sites with their shapes,
``totals`` counts parameters, neurons and operations. Nothing here imports jax, so that a network is
checked before anything is compiled.
"""

from jaxsnn.arch import zoo
from jaxsnn.arch.layers import AvgPool, Conv, Dense, MaxPool, Site, arrays_of, fan_out_windows
from jaxsnn.arch.notation import Arch, Exit, Residual, format
from jaxsnn.arch.plan import (
    Totals,
    consumers,
    head_sites,
    parse,
    plan,
    pools_behind_neurons,
    scaled,
    site_named,
    spiking_sites,
    totals,
)

__all__ = [
    "Arch",
    "AvgPool",
    "Conv",
    "Dense",
    "Exit",
    "MaxPool",
    "Residual",
    "Site",
    "Totals",
    "arrays_of",
    "consumers",
    "fan_out_windows",
    "format",
    "head_sites",
    "parse",
    "plan",
    "pools_behind_neurons",
    "scaled",
    "site_named",
    "spiking_sites",
    "totals",
    "zoo",
]
