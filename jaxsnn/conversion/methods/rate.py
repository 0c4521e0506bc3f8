"""Rate coding: every activation is a firing rate, scaled by a percentile of what it was.

With ``scale`` the value that a rate of one spike a step stands for (a robust maximum of the site's
activations, :mod:`jaxsnn.conversion.percentiles`) and ``source`` that of the site before, a neuron
behind ``slope * (z - center) + offset`` integrates, at every step::

    V += slope * source / scale * drive + (offset - slope * center) / scale,   threshold 1

Scales move gains and biases alone: kernels stay what they are, so that networks of several
percentiles share them. Pools and heads have neurons of their own; a pool's threshold is its area.
Source: Habara, Sato and Awano, BayesianSpikeFusion, Frontiers in Neuroscience 18, 2024, with the
robust normalisation of Rueckauer et al., Frontiers in Neuroscience 11, 2017.
"""

import functools
import math
from collections.abc import Mapping

import numpy as np

from jaxsnn import neurons
from jaxsnn.arch.layers import Site
from jaxsnn.conversion.method import Cells, Drive, Master, Method, Shortcut
from jaxsnn.conversion.methods.shared import float_kernel, grid_kernel, named
from jaxsnn.errors import UserError
from jaxsnn.network import weight_quantisers
from jaxsnn.network.per_site import SiteMap

NEURON_ROLES = ("pool", "exit", "readout")


@named("rate")
def rate(
    scales: Mapping[str, float],
    initial: float = 0.0,
    delay: int = 1,
    kernel_bits: int | None = 7,
    block_ends: bool = True,
) -> Method:
    """Every neuron integrates and fires at a rate that stands for its activation.

    Args:
        scales: site -> activation that one spike a step stands for, from
            :func:`jaxsnn.conversion.percentiles.scales`.
        initial: membrane potential to start from, as a share of the threshold.
        delay: steps from a neuron's spike to the next layer; 0: it arrives within the step.
        kernel_bits: significant bits of the largest weight of a layer (7: int8, whose products are
            the fastest); None keeps the weights as trained.
        block_ends: ``initial`` holds for the last neurons of residual blocks, too; False: they
            start at 0, as in the original's code.

    Raises:
        UserError: a delay below 0, an ``initial`` that is no number below 1, or a scale that is
            not positive.
    """
    if delay < 0 or int(delay) != delay:
        raise UserError(f"delay={delay}: a whole number of steps, 0 or more")
    if not -math.inf < initial < 1:
        raise UserError(f"initial={initial}: a potential starts below its threshold, below 1")
    cell = neurons.integrate_and_fire()
    cell = neurons.delayed(cell, delay) if delay else cell
    integers = functools.partial(grid_kernel, kernel_bits, shared=False)
    return Method(
        ann=neurons.relu(),
        neuron=cell,
        others=tuple((role, cell) for role in NEURON_ROLES),
        step=functools.partial(_scale, dict(scales)),
        spikes=1,
        weights=SiteMap(weight_quantisers.full_precision()),
        kernel=float_kernel if kernel_bits is None else integers,
        cells=functools.partial(_normalised, initial, block_ends),
        pool=functools.partial(_pool, initial),
        refusal=functools.partial(_unscaled, dict(scales)),
        presentations=("held", "frames"),
        shortcuts=True,
        into="gain and bias of a step",
    )


def _scale(scales: Mapping[str, float], site: Site, params: Master) -> float:
    del params
    return scales[site.name]


def _unscaled(scales: Mapping[str, float], site: Site) -> str:
    """Why a site cannot be converted; empty if it can."""
    if getattr(site.spec, "max_pool", 0):
        return "a max pool picks single spikes, not the highest rate; use strides or an average"
    if site.role in ("pool", "shortcut"):
        return ""
    if site.name not in scales:
        return "has no scale; take them from jaxsnn.percentiles.scales() with the same arch"
    scale = scales[site.name]
    return "" if 0 < scale < math.inf else f"has the scale {scale}, which is not a positive number"


def _normalised(initial: float, block_ends: bool, drive: Drive) -> Cells:
    """Gains and biases of a step, float32 ``[C]``, for a threshold of 1."""
    added = drive.shortcut or Shortcut(np.zeros(1), np.zeros(1), 0)
    bias = drive.offset - drive.slope * drive.center + added.offset
    params = {"gain": drive.slope * drive.unit / drive.step, "bias": bias / drive.step}
    if drive.shortcut is not None:
        params["shortcut_gain"] = added.scale / drive.step
        initial = initial if block_ends else 0.0
    ones = np.ones(len(drive.slope), np.float32)
    return Cells(
        {"threshold": ones, "initial": initial * ones},
        np.asarray(1),
        {name: value.astype(np.float32) for name, value in params.items()},
    )


def _pool(initial: float, channels: int, area: int) -> Cells:
    """Thresholds for sums of spikes: a mean that reaches 1."""
    area_of_each = np.full(channels, area, np.float32)
    return Cells({"threshold": area_of_each, "initial": initial * area_of_each}, np.asarray(1))
