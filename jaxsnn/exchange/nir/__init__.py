"""NIR, the field's exchange format for spiking networks: run its graphs in JAX, and write them."""

from jaxsnn.exchange.nir.network import NirNetwork, NirState, NirTrace, Node
from jaxsnn.exchange.nir.read import from_nir
from jaxsnn.exchange.nir.rules import Comparison, Reset, Rules
from jaxsnn.exchange.nir.simulators import Simulator
from jaxsnn.exchange.nir.to_nir import NirExport, to_nir

__all__ = [
    "Comparison",
    "NirExport",
    "NirNetwork",
    "NirState",
    "NirTrace",
    "Node",
    "Reset",
    "Rules",
    "Simulator",
    "from_nir",
    "to_nir",
]
