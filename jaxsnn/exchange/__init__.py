"""Networks in and out: weights, read without trust and fitted into our trees, and NIR graphs."""

from jaxsnn.exchange.errors import UserError
from jaxsnn.exchange.fitting import Fitting, fit
from jaxsnn.exchange.nir import from_nir
from jaxsnn.exchange.pytorch import Imported, from_torch
from jaxsnn.exchange.read import read_weights
from jaxsnn.exchange.table import Table
from jaxsnn.exchange.weights import Weights

__all__ = [
    "Fitting",
    "Imported",
    "Table",
    "UserError",
    "Weights",
    "fit",
    "from_nir",
    "from_torch",
    "read_weights",
]
