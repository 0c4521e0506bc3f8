"""Networks of other people: their weights read without trust and fitted into our trees."""

from jaxsnn.exchange.errors import UserError
from jaxsnn.exchange.read import read_weights
from jaxsnn.exchange.weights import Weights

__all__ = ["UserError", "Weights", "read_weights"]
