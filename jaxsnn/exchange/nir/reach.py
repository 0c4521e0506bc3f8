"""How large the numbers of a graph become, and in which dtype they are exact."""

from __future__ import annotations

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.spiking import Folded, Spiking
from jaxsnn.errors import UserError
from jaxsnn.exchange.nir.simulators import Simulator

HALVES = 2**23  # below it float32 holds half numbers, which thresholds are
LARGEST = 2**52  # the same of float64
UNKNOWN = 2**31  # of potentials in int32


def dtype_for(snn: Spiking, steps: int, simulator: Simulator | None) -> np.dtype[np.floating]:
    """float32 where it holds every number of a network, or where they are no whole numbers.

    Raises:
        UserError: the simulator computes in float32, which is not enough.
    """
    for site, record in zip(plan(snn.arch), snn.report, strict=True):
        reach = _reach(snn, site, record, steps)
        if reach < HALVES:
            continue
        if simulator is not None:
            raise UserError(
                f"{site.name}: its numbers reach {reach}, and {simulator.value} holds thresholds "
                "only below 2^23; convert on a coarser grid, or write the graph with for_=None"
            )
        if reach >= LARGEST:
            raise UserError(f"{site.name}: its numbers reach {reach}, beyond float64")
        return np.dtype(np.float64)
    return np.dtype(np.float32)


def _reach(snn: Spiking, site: Site, record: Folded, steps: int) -> int:
    """The largest whole number that a site can come to, 0 where it has floats."""
    neuron = snn.neurons.at(site)
    if not record.form.is_whole:
        return 0
    params = snn.variables["params"][site.name]
    if "shortcut_gain" in params:
        return UNKNOWN
    if neuron.name == "tracking":
        return 2 * record.bound + 2
    if neuron.name == "threshold_count":
        return 0 if steps == 1 else 2 * record.step_bound + 2  # of one step: examined as it is made
    gain = np.asarray(params.get("gain", 1))
    if not np.issubdtype(gain.dtype, np.integer):
        return 0
    bias = int(np.abs(np.asarray(params.get("bias", 0), np.int64)).max())
    most = int(np.abs(gain).max())
    if neuron.name == "identity":
        return (record.step_bound * most + bias) // 2 + 1  # whole numbers: twice as far
    leaves = snn.variables["fixed"].get(site.name, {})
    threshold = int(np.max(leaves.get("threshold", 0)))
    return record.bound * most + steps * bias + (steps + 1) * threshold
