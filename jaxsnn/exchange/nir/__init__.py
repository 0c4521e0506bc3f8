"""NIR, the field's exchange format for spiking networks: run its graphs in JAX, and write them."""

from jaxsnn.exchange.nir.network import NirNetwork, NirState, NirTrace, Node
from jaxsnn.exchange.nir.read import from_nir
from jaxsnn.exchange.nir.rules import Comparison, Reset, Rules

__all__ = [
    "Comparison",
    "NirNetwork",
    "NirState",
    "NirTrace",
    "Node",
    "Reset",
    "Rules",
    "from_nir",
]
