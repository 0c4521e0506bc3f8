"""Neurons that NIR has itself: ``LIF`` with a reset to zero, and ``IF`` where it subtracts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.exchange.nir.cells import Neurons
from jaxsnn.exchange.nir.draft import Signal
from jaxsnn.exchange.nir.rules import Comparison
from jaxsnn.exchange.nir.simulators import IMPORTERS, Simulator
from jaxsnn.neurons.neuron import Neuron


def weight_of(
    neuron: Neuron, leaves: Mapping[str, np.ndarray], simulator: Simulator | None
) -> np.ndarray | float:
    """What a site's kernel and bias are multiplied by, ``[C]`` or 1.

    A leaky neuron's drive enters whole, through ``r = tau / dt``; a simulator that takes every
    resistance as 1 scales it by ``dt / tau``, and gets it so much larger.
    """
    fixed = simulator is not None and IMPORTERS[simulator].unit_resistance
    if neuron.name != "leaky" or not fixed:
        return 1.0
    rate = 1 - np.clip(leaves["leak"].astype(np.float64), 0, 1)
    return 1 / np.where(rate > 0, rate, 1.0)


def lif(
    cells: Neurons,
    drive: tuple[str, ...],
    leak: np.ndarray,
    threshold: np.ndarray,
    emits_potential: bool,
    simulator: Simulator | None,
) -> Signal:
    """Leaky neurons that a spike sets to 0, as ``LIF``; without any leak as ``IF``.

    Raises:
        UserError: they emit their potential, which ``LIF`` does not, or only some of them leak and
            the simulator takes no resistance.
    """
    import nir

    if emits_potential:
        raise UserError(
            f"{cells.name}: emits its potential and is reset to zero, for which NIR has no node; "
            "train the readout with another reset"
        )
    importer = None if simulator is None else IMPORTERS[simulator]
    level = threshold
    if importer is not None and importer.rules.comparison is Comparison.AT_OR_ABOVE:
        level = np.nextafter(threshold, np.float32(np.inf))  # fires at it: above the threshold
    zero, dt = cells.full(0.0), cells.draft.dt
    without = leak >= 1
    if without.all() and (importer is None or "IF" in importer.nodes):
        node = nir.IF(cells.full(1 / dt), cells.full(level), v_reset=zero)
        return cells.signal(cells.add("spikes", node, *drive))
    tau = cells.tau(leak)
    resistance = tau / dt
    if importer is not None and importer.unit_resistance:
        if without.any():
            raise UserError(
                f"{cells.name}: some of its neurons leak and some do not, which has no LIF without "
                "a resistance; write the graph with for_=None"
            )
        resistance = np.ones_like(tau)
    node = nir.LIF(tau, resistance, 0 * tau, cells.full(level), v_reset=zero)
    return cells.signal(cells.add("spikes", node, *drive))


def integrate_in_sinabs(
    cells: Neurons,
    options: Mapping[str, Any],
    leaves: Mapping[str, np.ndarray],
    drive: tuple[str, ...],
) -> Signal:
    """Integrate and fire as ``IF``, for who subtracts the threshold and fires at it (sinabs).

    Raises:
        UserError: negative spikes, a bound on their count, or potentials that do not start at 0.
    """
    import nir

    if options["signed"] or options["bounded"]:
        raise UserError(
            f"{cells.name}: nir.IF takes no spike back and counts none; write the graph with "
            "for_=None"
        )
    if leaves["initial"].any():
        raise UserError(
            f"{cells.name}: its potentials do not start at 0, as those of nir.IF do; convert with "
            "initial=0, or write the graph with for_=None"
        )
    node = nir.IF(
        cells.full(1 / cells.draft.dt), cells.full(leaves["threshold"]), v_reset=cells.full(0.0)
    )
    return cells.signal(cells.add("spikes", node, *drive))
