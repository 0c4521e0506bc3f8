"""From the training tree to the folded tree: a converted network and the ways to make one.

``convert`` walks over the sites; a method, an object of :mod:`jaxsnn.conversion.methods`, folds
kernel and thresholds of each. What it returns, :class:`Spiking`, is the whole spiking network.
"""

from jaxsnn.conversion import methods, percentiles
from jaxsnn.conversion.calibration import Calibration, calibrate
from jaxsnn.conversion.convert import convert
from jaxsnn.conversion.fixed_leaves import with_leaf, with_unit_dropout
from jaxsnn.conversion.float_reference import snapped
from jaxsnn.conversion.kernels import KernelForm
from jaxsnn.conversion.spiking import (
    Folded,
    Spiking,
    directly_trained,
    settled,
)
from jaxsnn.conversion.weights import float_ends, quantised_weights

__all__ = [
    "Calibration",
    "Folded",
    "KernelForm",
    "Spiking",
    "calibrate",
    "convert",
    "directly_trained",
    "float_ends",
    "methods",
    "percentiles",
    "quantised_weights",
    "settled",
    "snapped",
    "with_leaf",
    "with_unit_dropout",
]
