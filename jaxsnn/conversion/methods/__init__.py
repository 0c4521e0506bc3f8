"""Conversion methods by name: how each folds kernels and thresholds.

A method is a function of its own options, registered by ``@named``, that returns a
:class:`jaxsnn.conversion.method.Method`; :mod:`jaxsnn.conversion.fold` walks over the sites with
it. To add one: a module here, imported below.
"""

from jaxsnn.conversion.methods import negative_spikes, rate, scatter_gather, signed_if
from jaxsnn.conversion.methods.shared import METHODS, float_ends, method

__all__ = [
    "METHODS",
    "float_ends",
    "method",
    "negative_spikes",
    "rate",
    "scatter_gather",
    "signed_if",
]
