"""Networks in and out of files, and somebody's network under every method.

``from_torch`` takes over a PyTorch network; ``read_weights`` and ``fit`` those of safetensors,
Keras and npz files. ``to_nir``, ``from_nir`` and ``to_integers`` lead to other simulators and to
hardware, ``save`` and ``load`` keep a spiking network. ``compare`` tries every method on a network.
"""

from jaxsnn.errors import UserError
from jaxsnn.exchange.compare import compare
from jaxsnn.exchange.fitting import Fitting, fit
from jaxsnn.exchange.integers import to_integers
from jaxsnn.exchange.nir.read import from_nir
from jaxsnn.exchange.nir.to_nir import NirExport, to_nir
from jaxsnn.exchange.pytorch import Imported, from_torch
from jaxsnn.exchange.read import read_weights
from jaxsnn.exchange.saved import load, load_params, save, save_weights
from jaxsnn.exchange.table import Table
from jaxsnn.exchange.weights import Weights

__all__ = [
    "Fitting",
    "Imported",
    "NirExport",
    "Table",
    "UserError",
    "Weights",
    "compare",
    "fit",
    "from_nir",
    "from_torch",
    "load",
    "load_params",
    "read_weights",
    "save",
    "save_weights",
    "to_integers",
    "to_nir",
]
