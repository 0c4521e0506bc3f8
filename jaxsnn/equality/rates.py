"""Certificate of a rate-coded network: how near its rates are to the normalised ANN.

There is no integer ANN whose levels the counts of such a network reach. What can be compared is the
*normalised ANN* (:func:`jaxsnn.percentiles.normalised_ann`), ReLUs over the same folded tree: its
predictions, and, with every activation ended at one spike a step, its activations, beside what
theory allows (:mod:`jaxsnn.equality.rate_bounds`); further off lies a fault of the simulation. The
float ANN over the training tree shows a wrong fold.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn import neurons
from jaxsnn.arch.layers import Site
from jaxsnn.arch.plan import head_sites, plan, spiking_sites
from jaxsnn.conversion.float_reference import snapped
from jaxsnn.conversion.percentiles import normalised_ann, summing_pools
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.equality.comparison import on_the_host, rounded_to_zero
from jaxsnn.equality.rate_bounds import deviations
from jaxsnn.equality.rate_certificate import RateCertificate, RateProof
from jaxsnn.io.progress import batches
from jaxsnn.network import net as net_module
from jaxsnn.network.jitted import jitted
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import SiteMap
from jaxsnn.neurons.activations import activation
from jaxsnn.simulation.counters import last_step
from jaxsnn.simulation.fixed_steps import check_input, simulate
from jaxsnn.types import Variables

TOLERANCE = 1e-4  # of a layer's largest activation: float32 sums in another order differ by 1e-6
ONE_SPIKE = activation(lambda drive: jnp.clip(drive, 0, 1))


class Activations(NamedTuple):
    """What an ANN says of one batch.

    Attributes:
        of: activations of spiking sites and logits of heads ``[B, ...]``.
        predictions: int ``[B]``.
    """

    of: dict[str, Any]
    predictions: Any


def is_rate_coded(snn: Spiking) -> bool:
    """Whether theory says what the rates of a network tend to: a held image, nothing that leaks."""
    held = snn.encoding.presentation == "held" and snn.encoding.ends is None
    firing = (snn.neurons.at(site) for site in plan(snn.arch) if site.kind != "maxpool")
    return (
        held
        and snn.is_converted
        and all(one.pays_out for one in firing if one.spikes is not None)
        and all(snn.neurons.at(site).spikes is not None for site in spiking_sites(snn.arch))
    )


def certify_rates(
    snn: Spiking,
    variables: Variables,
    images: np.ndarray,
    steps: int,
    batch_size: int,
    devices: int,
    progress: str,
) -> RateCertificate:
    """Compare rates with the normalised ANN; arguments as of :func:`jaxsnn.certify`."""
    tally = _Tally(snn, variables, steps)
    for rows, real in batches(len(images), batch_size, progress):
        batch = check_input(snn, images[rows])
        trace = simulate(snn, batch, steps=steps, counts=True, devices=devices)
        heads = zip(head_sites(snn.arch), trace.readouts, strict=True)
        sums = trace.counts | {site.name: out[-1] for site, out in heads}
        run = Activations(sums, trace.predictions[-1])
        last = {name: last_step(np.asarray(s)) for name, s in trace.counters.spikes.items()}
        everything = run, last, tally.references(batch)
        tally.add(*on_the_host(everything, real))
    return tally.certificate()


class _Tally:
    """Adds up batches on the host."""

    def __init__(self, snn: Spiking, variables: Variables, steps: int) -> None:
        self.snn, self.variables, self.steps = snn, variables, steps
        self.allowed = deviations(snn, steps)
        self.floats = snapped(variables, snn)
        self.sites = (*spiking_sites(snn.arch), *head_sites(snn.arch))
        self.layers = {site.name: RateProof(site.name) for site in self.sites}
        self.active = {site.name: np.zeros(site.out_shape, bool) for site in self.sites}
        self.differ = np.zeros(3, np.int64)  # from the normalised ANN, float ANN, network as given
        self.last_steps: list[int] = []

    def references(self, images: Array) -> tuple[Activations, ...]:
        """Normalised ANN ended at one spike a step, without that end, float ANN, and as given."""
        snn, decoded = self.snn, self.snn.encoding.decode(images)
        without = {
            site.name: neurons.identity()
            for site in plan(snn.arch)
            if site.role == "pool" or snn.neurons.at(site).spikes is None
        }
        ended = SiteMap(ONE_SPIKE, by_name=tuple({**without, **dict(summing_pools(snn))}.items()))
        normalised = normalised_ann(snn)
        passes: list[Activations] = [
            activations(normalised.clone(neurons=ended), snn.variables, images),
            activations(normalised, snn.variables, images),
            activations(snn.float_ann, self.floats, decoded),
        ]
        if snn.trained is not None:
            passes.append(activations(snn.trained, self.variables, decoded))
        return tuple(passes)

    def add(
        self, run: Activations, last: Mapping[str, Any], references: tuple[Activations, ...]
    ) -> None:
        """Add one batch."""
        ended, normalised, floats, *_ = references
        for number, other in enumerate(references[1:]):
            self.differ[number] += int(np.sum(run.predictions != other.predictions))
        for site in self.sites:
            name = site.name
            self._add_layer(site, run.of[name], ended.of[name])
            self._add_fold(site, normalised.of[name], floats.of[name])
        steps = np.max([last[site.name] for site in spiking_sites(self.snn.arch)], axis=0)
        self.last_steps += steps.tolist()

    def _add_layer(self, site: Site, sums: np.ndarray, activation: np.ndarray) -> None:
        """Gaps of rates, or of the mean sums of a head, and what lies beyond theory."""
        gap = np.abs(sums / self.steps - np.asarray(activation, np.float64))
        allowed = self.allowed[site.name] / self.steps
        fires = self.snn.neurons.at(site).spikes is not None
        rounding = 0.0 if fires else TOLERANCE * float(np.abs(activation).max(initial=0))
        old = self.layers[site.name]
        self.active[site.name] |= (sums != 0).any(axis=0)
        full = sums >= self.steps - self.snn.neurons.at(site).delay if fires else np.zeros(1, bool)
        self.layers[site.name] = replace(
            old,
            compared=old.compared + gap.size,
            integer=old.integer + int(np.sum(gap > allowed + rounding)),
            saturated=old.saturated + int(np.sum(full)),
            gap=max(old.gap, float(gap.max(initial=0))),
            mean_gap=old.mean_gap + float(gap.sum()),
            allowed=float(allowed.max(initial=0)),
        )

    def _add_fold(self, site: Site, normalised: np.ndarray, floats: np.ndarray) -> None:
        """Activations of the normalised ANN that are not those of the float ANN."""
        value = np.asarray(normalised, np.float64) * self.snn.unit(site.name)
        limit = TOLERANCE * float(np.abs(floats).max(initial=0))
        old = self.layers[site.name]
        apart = int(np.sum(np.abs(value - floats) > limit))
        self.layers[site.name] = replace(old, end_to_end=old.end_to_end + apart)

    def certificate(self) -> RateCertificate:
        """The verdict over all batches."""
        layers = tuple(self._finished(layer) for layer in self.layers.values())
        of_neurons = layers[: len(spiking_sites(self.snn.arch))]
        folded = sum(layer.end_to_end for layer in layers)
        return RateCertificate(
            equality="approximate",
            settled_step=max(self.last_steps, default=0),
            images=len(self.last_steps),
            steps=self.steps,
            mismatches=sum(layer.integer for layer in layers),
            predictions=int(self.differ[0]),
            float_mismatches=folded,
            float_predictions=int(self.differ[1]),
            origins_are_ties=not folded,
            first_difference=None,
            layers=layers,
            settled_steps=tuple(self.last_steps),
            rounded_to_zero=rounded_to_zero(self.snn, self.variables),
            given_predictions=None if self.snn.trained is None else int(self.differ[2]),
            gap=max((layer.gap for layer in of_neurons), default=0.0),
        )

    def _finished(self, layer: RateProof) -> RateProof:
        compared = max(layer.compared, 1)
        return replace(
            layer,
            silent=1 - float(self.active[layer.site].mean()),
            saturated=layer.saturated / compared,
            mean_gap=layer.mean_gap / compared,
        )


@jitted("ann")
def activations(ann: Net, variables: Variables, images: Array) -> Activations:
    """Activations of spiking sites, logits of heads and predictions of an ANN for one batch."""
    out = net_module.forward(ann, variables, images)
    sites = (*spiking_sites(ann.arch), *head_sites(ann.arch))
    of = {site.name: out.outs[site.name][0] for site in sites}
    return Activations(of, jnp.argmax(out.readouts[-1][0], -1))
