"""Scatter and gather: a table of thresholds for every channel (Zou et al., 2021)."""

import functools

import numpy as np

from jaxsnn import neurons
from jaxsnn.conversion.method import ALWAYS, NEVER, Cells, Drive, Method
from jaxsnn.conversion.methods.shared import float_ends, grid_kernel, median_levels, named
from jaxsnn.network import weight_quantisers


@named("scatter")
def scatter(k: int, bound: int | None) -> Method:
    """Every neuron becomes ``2**k * bound`` threshold units; one time step."""
    levels = median_levels(k, bound)
    return Method(
        ann=neurons.quantised_relu(k, bound),
        neuron=neurons.threshold_count(levels),
        step=lambda site, params: 2.0**-k,
        spikes=levels,
        weights=float_ends(weight_quantisers.ternary()),
        kernel=functools.partial(grid_kernel, None),
        cells=functools.partial(_threshold_table, levels),
    )


def _threshold_table(levels: int, drive: Drive) -> Cells:
    """int32 ``[levels, C]``: smallest integer drive at which the level is at least j."""
    boundary = (np.arange(1, levels + 1) - 0.5)[:, None] * drive.step
    theta = np.ceil(drive.reaching(boundary))
    constant = np.where(drive.offset >= boundary, ALWAYS, NEVER)
    table = np.where(drive.slope == 0, constant, np.clip(theta, ALWAYS, NEVER))
    return Cells({"thresholds": table.astype(np.int32)}, np.asarray(levels))
