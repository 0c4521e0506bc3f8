"""What a simulated network did for an image, layer by layer, and what it costs."""

from __future__ import annotations

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.kernels import KernelForm
from jaxsnn.conversion.spiking import Folded, Spiking
from jaxsnn.report.energy.pricing import (
    HOROWITZ,
    EnergyLedger,
    LayerCounts,
    Prices,
    WeightKind,
    energy_ledger,
)
from jaxsnn.simulation.totals import Evaluation, Integers

COMPARE_AND_RESET = 2  # additions of an update of a neuron with a potential


def ledger(
    snn: Spiking,
    evaluation: Evaluation,
    *,
    settle: bool = False,
    adds_per_update: int | None = None,
    prices: Prices = HOROWITZ,
) -> EnergyLedger:
    """The energy of an image, from mean counts over a data set.

    Args:
        snn: the network, of any method or trained directly.
        evaluation: :func:`jaxsnn.evaluate` of it.
        settle: an image's run ends with its first silent step, and its neurons are updated no more.
        adds_per_update: additions of a neuron's update; None: as many as it has thresholds, or a
            comparison and a subtraction where it has a potential.
        prices: energy of one operation.

    Returns:
        The ledger, in pJ per image. Of a network that is shown frames the encoder, and the whole
        ANN, run once in every simulated step, padding included.
    """
    return energy_ledger(counts(snn, evaluation, settle, adds_per_update), prices)


def counts(
    snn: Spiking, evaluation: Evaluation, settle: bool = False, adds_per_update: int | None = None
) -> list[LayerCounts]:
    """Mean counts of every site over the images; arguments as of :func:`ledger`."""
    images, steps = evaluation.images, float(evaluation.steps)
    if settle:  # the step that is silent is computed, too
        steps = float(np.minimum(evaluation.last_spike_step + 1, steps).mean())
    passes = steps if snn.encoding.presentation == "frames" else 1.0
    return [
        LayerCounts(
            name=site.name,
            macs=site.macs,
            synaptic_operations=_mean(evaluation.operations.get(site.name), images),
            neurons=site.neurons,
            updates=site.neurons * steps,
            spikes=_mean(evaluation.spikes.get(site.name), images),
            weights=_weights(snn, site, record),
            encoder=site.source == "input",
            passes=passes,
            adds_per_update=_additions(snn, site) if adds_per_update is None else adds_per_update,
        )
        for site, record in zip(plan(snn.arch), snn.report, strict=True)
    ]


def _additions(snn: Spiking, site: Site) -> int:
    """Additions of one update of the neurons at a site."""
    neuron = snn.neurons.at(site)
    if neuron.stateless and neuron.spikes is not None:
        return max(neuron.spikes)
    return COMPARE_AND_RESET


def _weights(snn: Spiking, site: Site, record: Folded) -> WeightKind:
    """How the site's weights are priced: integers wider than int8 as float32."""
    if record.form is KernelForm.CODES and snn.weights.at(site).is_ternary:
        return "ternary"
    kernel = snn.variables["params"].get(record.site, {}).get("kernel")
    return "int8" if kernel is not None and kernel.dtype == np.int8 else "float32"


def _mean(part: Integers | None, images: int) -> float:
    return 0.0 if part is None else float(np.sum(part)) / images
