"""Adds the comparisons of batches up to a certificate, on the host."""

from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax import Array

from jaxsnn.arch.layers import Site
from jaxsnn.arch.plan import head_sites, plan, spiking_sites
from jaxsnn.conversion.spiking import Spiking, comes_to_rest
from jaxsnn.equality.certificate import Certificate, Difference, LayerProof
from jaxsnn.equality.ties import References, Ties
from jaxsnn.types import Variables

T = TypeVar("T")


class Simulated(NamedTuple):
    """What a run of one batch gave: its memory does not grow with the number of steps.

    Attributes:
        counts: net counts per site and, per head, the summed readout ``[B, ...]``.
        last_step: last step (from 1) with a spike, per site ``[B]``.
        prediction: after the last step ``[B]``.
    """

    counts: dict[str, Any]
    last_step: dict[str, Any]
    prediction: Any


def on_the_host(tree: T, images: int) -> T:
    """A tree of arrays ``[B, ...]`` as NumPy's, cut to the first ``images`` of the batch."""

    def cut(leaf: Array) -> np.ndarray:
        return np.asarray(leaf)[:images]

    return jax.tree.map(cut, tree)


class Tally:
    """Adds up batches on the host, in Python integers.

    Args:
        snn: the network.
        variables: the tree it was made from.
        ties: what rounding explains.
    """

    def __init__(self, snn: Spiking, variables: Variables, ties: Ties) -> None:
        self.snn, self.ties = snn, ties
        self.sites, self.heads = spiking_sites(snn.arch), head_sites(snn.arch)
        self.layers = {site.name: LayerProof(site.name) for site in (*self.sites, *self.heads)}
        self.active = {site.name: np.zeros(site.out_shape, bool) for site in self.sites}
        self.images = self.predictions = self.float_predictions = self.given_predictions = 0
        self.first: dict[tuple[str, str], Difference] = {}
        self.settled_steps: list[int] = []
        self.unsettled_images = self.unsettled_neurons = self.steps = 0
        self.rests = comes_to_rest(snn)
        self.rounded_to_zero = rounded_to_zero(snn, variables)
        self.stateless = all(snn.neurons.at(site).stateless for site in self.sites)

    def add(self, run: Simulated, references: References, first_image: int, steps: int) -> None:
        """Add one batch, simulated for ``steps`` steps, whose first image has that number."""
        self.images += len(run.prediction)
        self.predictions += int(np.sum(run.prediction != references.predictions[0]))
        self.float_predictions += int(np.sum(run.prediction != references.predictions[1]))
        if references.trained_predictions is not None:
            self.given_predictions += int(np.sum(run.prediction != references.trained_predictions))
        for site in self.sites:
            self._add_layer(site, run, references, first_image)
        for site in self.heads:
            self._add_head(site, run, references, first_image)
        last = np.max([run.last_step[site.name] for site in self.sites], axis=0)
        self.settled_steps += last.tolist()
        self.steps = max(self.steps, steps)
        if self.rests:
            self._add_unsettled(run, references, last == steps)

    def _add_unsettled(self, run: Simulated, references: References, spiking: np.ndarray) -> None:
        """Count what is not at its level in images that still spike in the last step."""
        differs = [_per_image(run.counts[s.name] != references.integer[s.name]) for s in self.sites]
        number = np.sum(differs, axis=0) * spiking
        self.unsettled_neurons += int(number.sum())
        self.unsettled_images += int(np.sum(number > 0))

    def _add_head(
        self, site: Site, run: Simulated, references: References, first_image: int
    ) -> None:
        """Compare summed readouts: with the integer ANN's, and with the float ANN's logits."""
        name, unit = site.name, self.snn.unit(site.name)
        counts, level, logits = (
            run.counts[name],
            references.integer[name],
            references.end_to_end[name],
        )
        rounding = self.ties.head_rounding(site, logits)
        away = np.abs(counts * unit - logits) > rounding
        origin = np.abs(references.fed[name] * unit - logits) > rounding
        nearest = np.round(np.asarray(logits) / unit).astype(np.int64)
        old = self.layers[name]
        self.layers[name] = replace(
            old,
            compared=old.compared + counts.size,
            integer=old.integer + int(np.sum(counts != level)),
            end_to_end=old.end_to_end + int(np.sum(away)),
            origins=old.origins + int(np.sum(origin)),
        )
        self._remember("integer", name, counts, level, counts != level, first_image)
        self._remember("float", name, references.fed[name], nearest, origin, first_image)

    def _add_layer(
        self, site: Site, run: Simulated, references: References, first_image: int
    ) -> None:
        name = site.name
        counts, level, end = run.counts[name], references.integer[name], references.end_to_end[name]
        origin = references.fed[name] != end
        tie, furthest = np.zeros_like(origin), 0.0
        if origin.any():  # rare, and the distances are float64 of every neuron
            distance, allowed = self.ties.distance(site, references, end, references.fed[name])
            tie = origin & (np.abs(references.fed[name] - end) == 1) & (distance <= allowed)
            furthest = float(np.max(distance[origin]))
        neuron = self.snn.neurons.at(site)
        highest = ((neuron.settled or neuron).spikes or (0, 1))[1]  # of the count, not of a step
        old = self.layers[name]
        self.active[name] |= (counts != 0).any(axis=0)
        self.layers[name] = replace(
            old,
            compared=old.compared + counts.size,
            integer=old.integer + int(np.sum(counts != level)),
            end_to_end=old.end_to_end + int(np.sum(counts != end)),
            origins=old.origins + int(np.sum(origin)),
            ties=old.ties + int(np.sum(tie)),
            furthest=max(old.furthest, furthest),
            saturated=old.saturated + int(np.sum(counts >= highest)),
            last_spike_step=max(old.last_spike_step, int(run.last_step[name].max(initial=0))),
            cut=old.cut + int(np.sum(end > highest)) * (neuron.settled is not None),
        )
        self._remember("integer", name, counts, level, counts != level, first_image)
        self._remember("float", name, references.fed[name], end, origin & ~tie, first_image)

    def _remember(
        self,
        kind: str,
        name: str,
        spiking: np.ndarray,
        reference: np.ndarray,
        differs: np.ndarray,
        first_image: int,
    ) -> None:
        if (kind, name) in self.first or not differs.any():
            return
        where = tuple(int(i) for i in np.argwhere(differs)[0])
        difference = Difference(
            name, first_image + where[0], where[1:], int(spiking[where]), int(reference[where])
        )
        self.first[kind, name] = difference

    def _first(self, kind: str) -> Difference | None:
        differences = (self.first.get((kind, name)) for name in self.layers)
        return next((difference for difference in differences if difference), None)

    def certificate(self) -> Certificate:
        """The verdict over all batches."""
        layers = tuple(self._finished(layer) for layer in self.layers.values())
        ties = all(layer.origins == layer.ties for layer in layers)
        equal = ties and not self.predictions and not any(layer.integer for layer in layers)
        last = max((layer.last_spike_step for layer in layers), default=0)
        of_neurons = layers[: len(self.sites)]
        compared = sum(layer.compared for layer in of_neurons)
        return Certificate(
            equality=self._verdict(equal, last),
            settled_step=last,
            images=self.images,
            steps=self.steps,
            mismatches=sum(layer.integer for layer in of_neurons),
            predictions=self.predictions,
            float_mismatches=sum(layer.end_to_end for layer in of_neurons),
            float_predictions=self.float_predictions,
            origins_are_ties=ties,
            first_difference=self._first("integer") or self._first("float"),
            layers=layers,
            settled_steps=tuple(self.settled_steps),
            unsettled_images=self.unsettled_images,
            unsettled=self.unsettled_neurons / max(compared, 1),
            rounded_to_zero=self.rounded_to_zero,
            given_predictions=None if self.snn.trained is None else self.given_predictions,
        )

    def _finished(self, layer: LayerProof) -> LayerProof:
        if layer.site not in self.active:
            return layer
        silent = 1 - float(self.active[layer.site].mean())
        return replace(layer, silent=silent, saturated=layer.saturated / max(layer.compared, 1))

    def _verdict(self, equal: bool, settled: int) -> str:
        if not equal:
            return "approximate"
        if self.stateless and self.steps == 1:
            return "exact"
        # With integer sums, a potential whose count is the level of its final drive is at rest, so
        # that no silent step need be seen.
        at_rest = settled < self.steps or (self.snn.is_integer and self.rests)
        # Only where nothing more comes in; neurons with a delay were refused before.
        ends = self.snn.encoding.ends
        at_rest = at_rest and ends is not None and self.steps >= ends
        return "exact after settling" if at_rest else "approximate"


def rounded_to_zero(snn: Spiking, variables: Variables) -> tuple[str, ...]:
    """Sites whose converted kernel is zero throughout, and whose trained one is not."""
    return tuple(
        site.name
        for site in plan(snn.arch)
        if site.kernel_shape
        and not np.any(snn.variables["params"][site.name]["kernel"])
        and np.any(variables["params"][site.name]["kernel"])
    )


def _per_image(differs: np.ndarray) -> np.ndarray:
    """Number of differences in every image, ``[B]``."""
    return np.asarray(differs.reshape(len(differs), -1).sum(axis=1))
