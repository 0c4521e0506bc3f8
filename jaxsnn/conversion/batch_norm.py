"""Batch norm as numbers: slope, center and offset of every channel."""

from typing import NamedTuple

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.network.site import NORM_EPSILON
from jaxsnn.types import Variables


class Norm(NamedTuple):
    """What a site's norm and bias do to ``z``: ``slope * (z - center) + offset`` is activated.

    ``z`` is the synapse's output in the units of the ANN, before bias and norm; the bias comes
    before the norm, so the center is the running mean less the bias. All are float64 ``[C]``.
    """

    slope: np.ndarray
    center: np.ndarray
    offset: np.ndarray


def norm_of(variables: Variables, site: Site) -> Norm:
    """The norm and the bias of a site of the training tree; without both the identity."""
    params = variables["params"][site.name]
    channels = site.drive_shape[-1]
    bias = np.asarray(params["bias"], np.float64) if site.bias else np.zeros(channels)
    if not site.norm:
        return Norm(np.ones(channels), -bias, np.zeros(channels))
    norm = {**params["norm"], **variables["batch_stats"][site.name]["norm"]}
    scale, offset, mean, var = (
        np.asarray(norm[name], np.float64) for name in ("scale", "bias", "mean", "var")
    )
    return Norm(scale / np.sqrt(var + NORM_EPSILON), mean - bias, offset)


def affine(variables: Variables, site: Site) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset ``[C]``, float64: ``slope * z + offset`` is activated."""
    norm = norm_of(variables, site)
    return norm.slope, norm.offset - norm.slope * norm.center
