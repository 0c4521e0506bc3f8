"""The weight quantisers, site by site, of the networks that the methods were published with."""

from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.weight_quantisers import (
    WeightQuantiser,
    clipped_levels,
    full_precision,
    symmetric,
)


def float_ends(hidden_weights: WeightQuantiser) -> SiteMap[WeightQuantiser]:
    """``hidden_weights`` everywhere but in the encoder and the heads, which stay float.

    Source: Zou et al., Frontiers in Neuroscience 15:694170, 2021, with ternary hidden weights.
    """
    full = full_precision()
    return SiteMap(hidden_weights, (("readout", full), ("exit", full)), first=full)


def quantised_weights(bits: int) -> SiteMap[WeightQuantiser]:
    """Weights of ``bits`` bits on a few learned levels, of 8 bits in the first and last layer.

    Source: Hu et al., Fast-SNN, IEEE TPAMI 45(12), 2023.
    """
    ends = symmetric(bits=8)
    return SiteMap(clipped_levels(bits=bits), (("readout", ends), ("exit", ends)), first=ends)
