"""Conversion methods by name: how each folds kernels and thresholds (see :mod:`jaxsnn.fold`).

A method is a function of its own options, registered by ``@named``, that returns a
:class:`jaxsnn.method.Method`. To add one: a module here, imported below.
"""

from jaxsnn.methods import negative_spikes, rate, scatter_gather, signed_if
from jaxsnn.methods.register import METHODS, float_ends, method

__all__ = [
    "METHODS",
    "float_ends",
    "method",
    "negative_spikes",
    "rate",
    "scatter_gather",
    "signed_if",
]
