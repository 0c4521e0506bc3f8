"""How far the rates of a rate-coded network may be from the activations that they stand for.

A neuron that starts at ``v`` (in thresholds) and whose drive adds up to ``z t``, give or take ``e``
at any time ``t``, has fired ``N(t)`` times, at most once a step::

    N(t) <= max(0, v + z t + e)    it never pays out more than it has taken in so far
    N(t) >= min(z, 1) t + v - e - 1    since it last was below its threshold it fires in every step

(the second where ``z`` is at least 0). So ``|N(t) - clip(z, 0, 1) t|`` is at most
``e + max(v, 1 - v)``, for all ``t``, and one more for each step of delay. The next layer's ``e`` is
the sum of its sources' deviations times the magnitudes of its weights; that of the first layer,
whose input is held, is 0. A max pool that keeps counts is no further off than its inputs are. Rates
approach the ANN whose activations end at 1 as ``1 / t``, with a constant that grows from layer to
layer.
"""

import math
from typing import Any

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.spiking import Spiking

ROUNDING = 2.0**-22  # of a potential near its threshold in one step, in thresholds: float32


def deviations(snn: Spiking, steps: int) -> dict[str, np.ndarray]:
    """Largest ``|count - steps * activation|``, or of a head ``|sum - steps * logit|``, by site.

    Args:
        snn: a rate-coded network, shown held images.
        steps: time steps, for the rounding of float32.

    Returns:
        float64 ``[C]``, in spikes, or in units of the head's sums.
    """
    largest: dict[str, np.ndarray] = {}
    for site in plan(snn.arch):
        neuron, fixed = snn.neurons.at(site), snn.variables["fixed"].get(site.name, {})
        drive = _drive(snn, site, largest)
        if neuron.spikes is None or site.kind == "maxpool":
            largest[site.name] = drive
            continue
        threshold = np.asarray(fixed["threshold"], np.float64)
        start = np.asarray(fixed["initial"], np.float64) / threshold
        of_neuron = np.maximum(start, 1 - start) + neuron.delay + steps * ROUNDING
        largest[site.name] = drive / threshold + of_neuron
    return largest


def _drive(snn: Spiking, site: Site, largest: dict[str, np.ndarray]) -> np.ndarray:
    """How far a site's summed drive may be from its mean times the steps, ``[C]``."""
    channels = site.drive_shape[-1]
    params: dict[str, Any] = snn.variables["params"].get(site.name, {})
    if site.source == "input":
        drive = np.zeros(channels)
    elif site.kind == "maxpool":
        drive = largest[site.source]
    elif site.kind == "avgpool":
        drive = largest[site.source] * math.prod(site.window)
    else:
        drive = _through(np.asarray(params["kernel"], np.float64), largest[site.source])
        drive = drive * np.abs(np.asarray(params.get("gain", 1.0), np.float64))
    if site.shortcut:
        gain = np.abs(np.asarray(params.get("shortcut_gain", 1.0), np.float64))
        drive = drive + gain * largest[site.shortcut].max()
    return np.broadcast_to(drive, (channels,))


def _through(kernel: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Sums of magnitudes times deviations, ``[C]``; inputs of a dense layer repeat channels."""
    magnitude = np.abs(kernel).sum(axis=tuple(range(kernel.ndim - 2)))
    return magnitude.T @ np.resize(inputs, magnitude.shape[0])
