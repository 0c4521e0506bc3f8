"""Adds the comparisons of batches up to a certificate, on the host."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from jaxsnn.arch import Site, plan
from jaxsnn.certificate import Certificate, Difference, LayerProof
from jaxsnn.metrics import head_sites, spiking_sites
from jaxsnn.net import Variables
from jaxsnn.norms import affine
from jaxsnn.spiking import Folded, Spiking, comes_to_rest

WHOLE = ("ternary", "grid")  # kernels that are whole numbers or powers of two in the ANN, too
EPSILON = 2.0**-24  # half a unit in the last place of float32, relative


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


class References(NamedTuple):
    """What both references say of one batch: levels per site and readouts per head ``[B, ...]``.

    The heads' ``end_to_end`` are the float ANN's logits; predictions are the integer ANN's and the
    float ANN's ``[B]``.
    """

    integer: dict[str, Any]
    end_to_end: dict[str, Any]
    fed: dict[str, Any]
    drive: dict[str, Any]
    predictions: tuple[Any, Any]


class Tally:
    """Adds up batches on the host, in Python integers."""

    def __init__(self, snn: Spiking, variables: Variables) -> None:
        self.snn, self.variables = snn, variables
        self.sites, self.heads = spiking_sites(snn.arch), head_sites(snn.arch)
        self.layers = {site.name: LayerProof(site.name) for site in (*self.sites, *self.heads)}
        self.active = {site.name: np.zeros(site.out_shape, bool) for site in self.sites}
        self.images = self.predictions = self.float_predictions = 0
        self.first: dict[tuple[str, str], Difference] = {}
        self.settled_steps: list[int] = []
        self.unsettled_images = self.unsettled_neurons = self.steps = 0
        self.rests = comes_to_rest(snn)
        self.stateless = all(snn.neurons.at(site).stateless for site in self.sites)

    def add(self, run: Simulated, known: References, first_image: int, steps: int) -> None:
        """Add one batch, simulated for ``steps`` steps, whose first image has that number."""
        self.images += len(run.prediction)
        self.predictions += int(np.sum(run.prediction != known.predictions[0]))
        self.float_predictions += int(np.sum(run.prediction != known.predictions[1]))
        for site in self.sites:
            self._add_layer(site, run, known, first_image)
        for site in self.heads:
            self._add_head(site, run, known, first_image)
        last = np.max([run.last_step[site.name] for site in self.sites], axis=0)
        self.settled_steps += last.tolist()
        self.steps = max(self.steps, steps)
        if self.rests:
            self._add_unsettled(run, known, last == steps)

    def _add_unsettled(self, run: Simulated, known: References, spiking: np.ndarray) -> None:
        """Count what is not at its level in images that still spike in the last step."""
        differs = [_per_image(run.counts[s.name] != known.integer[s.name]) for s in self.sites]
        number = np.sum(differs, axis=0) * spiking
        self.unsettled_neurons += int(number.sum())
        self.unsettled_images += int(np.sum(number > 0))

    def _add_head(self, site: Site, run: Simulated, known: References, first_image: int) -> None:
        """Compare summed readouts: with the integer ANN's, and with the float ANN's logits."""
        name, unit = site.name, self.snn.unit(site.name)
        counts, level, logits = run.counts[name], known.integer[name], known.end_to_end[name]
        rounding = self._head_rounding(site, logits)
        away = np.abs(counts * unit - logits) > rounding
        origin = np.abs(known.fed[name] * unit - logits) > rounding
        nearest = np.round(logits / unit).astype(np.int64)
        old = self.layers[name]
        self.layers[name] = replace(
            old,
            compared=old.compared + counts.size,
            integer=old.integer + int(np.sum(counts != level)),
            end_to_end=old.end_to_end + int(np.sum(away)),
            origins=old.origins + int(np.sum(origin)),
        )
        self._remember("integer", name, counts, level, counts != level, first_image)
        self._remember("float", name, known.fed[name], nearest, origin, first_image)

    def _head_rounding(self, site: Site, logits: np.ndarray) -> np.ndarray:
        """Largest difference of a logit that rounding explains: the bias's grid, float32 sums."""
        record, unit = self._record(site), self.snn.unit(site.name)
        each_step = self.snn.encoding.ends or 1
        grid = each_step * unit / 2 if site.bias else 0.0
        drive = self.snn.unit(site.source) * record.kernel_unit
        return grid + drive * _rounding(site, record) + 4 * EPSILON * np.abs(logits)

    def _add_layer(self, site: Site, run: Simulated, known: References, first_image: int) -> None:
        name = site.name
        counts, level, end = run.counts[name], known.integer[name], known.end_to_end[name]
        origin = known.fed[name] != end
        tie, furthest = np.zeros_like(origin), 0.0
        if origin.any():  # rare, and the distances are float64 of every neuron
            distance, allowed = self._distance(site, known, end, known.fed[name])
            tie = origin & (np.abs(known.fed[name] - end) == 1) & (distance <= allowed)
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
        )
        self._remember("integer", name, counts, level, counts != level, first_image)
        self._remember("float", name, known.fed[name], end, origin & ~tie, first_image)

    def _distance(
        self, site: Site, known: References, reference: np.ndarray, fed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """How far each activation is from the boundary in dispute, and what may move it, in steps.

        The float ANN's sums are exact (snapped weights, whole inputs under 2^24); what rounds is
        the norm: subtract, multiply twice, add, of numbers no larger than the sum of magnitudes.
        On the other side, evenly spaced thresholds lie on a grid: the first is up to half a unit of
        it off, and so is every distance between two.
        """
        slope = affine(self.variables, site)[0]
        record = self._record(site)
        step = self.snn.unit(site.name)
        unit = self.snn.unit(site.source) * record.kernel_unit
        value, rounding = self._activated(site, known.drive[site.name])
        if site.shortcut:
            more, imprecise = self._added(site, known)
            value, rounding = value + more, rounding + imprecise
        number = np.maximum(reference, fed)
        boundary = (number - 0.5) * step
        grid = np.abs(slope) * unit * record.threshold_grid / 2 * number
        if "initial" in self.snn.variables["fixed"][site.name]:
            grid = step * self._fixed_point(site, known, number)
        return np.abs(value - boundary) / step, (grid + rounding) / step

    def _fixed_point(self, site: Site, known: References, number: np.ndarray) -> np.ndarray:
        """How far the grid of a potential may move a level, in quantisation steps.

        Half a grid unit for each step's bias, for each threshold, and for each unit of a shortcut's
        drive, whose gain is rounded; the threshold of a step is so many grid units.
        """
        rounded = (self.snn.encoding.ends or 1) + number
        if site.shortcut:
            source = next(one for one in plan(self.snn.arch) if one.name == site.shortcut)
            drives = known.drive if source.role == "shortcut" else known.end_to_end
            rounded = rounded + np.abs(drives[source.name])
        return rounded / 2 / np.asarray(self.snn.variables["fixed"][site.name]["threshold"])

    def _record(self, site: Site) -> Folded:
        return next(record for record in self.snn.report if record.site == site.name)

    def _activated(self, site: Site, drive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What norm and bias make of a drive, float64, and how far float32 may be off."""
        slope, offset = affine(self.variables, site)
        record = self._record(site)
        unit = self.snn.unit(site.source) * record.kernel_unit
        z, sign = np.abs(drive * unit), np.where(slope < 0, -1, 1)
        mean = np.abs(offset) + 2 * np.abs(slope) * z + self._norm_size(site)
        summed = np.abs(slope) * unit * _rounding(site, record)
        return slope * sign * drive * unit + offset, 8 * EPSILON * mean + summed

    def _added(self, site: Site, known: References) -> tuple[np.ndarray, np.ndarray]:
        """The same of what a shortcut adds: a projection's drive, or the source's activation."""
        source = next(one for one in plan(self.snn.arch) if one.name == site.shortcut)
        if source.role == "shortcut":
            return self._activated(source, known.drive[source.name])
        value = known.end_to_end[source.name] * self.snn.unit(source.name)
        return value, 8 * EPSILON * np.abs(value)

    def _norm_size(self, site: Site) -> np.ndarray | float:
        if not site.norm:
            return 0.0
        norm = self.variables["params"][site.name]["norm"]
        mean = np.asarray(self.variables["batch_stats"][site.name]["norm"]["mean"], np.float64)
        slope = affine(self.variables, site)[0]
        return 2 * np.abs(slope * mean) + np.abs(np.asarray(norm["bias"], np.float64))

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
        found = Difference(
            name, first_image + where[0], where[1:], int(spiking[where]), int(reference[where])
        )
        self.first[kind, name] = found

    def _first(self, kind: str) -> Difference | None:
        found = (self.first.get((kind, name)) for name in self.layers)
        return next((difference for difference in found if difference), None)

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
        whole = not any(record.kernel == "float" for record in self.snn.report)
        at_rest = settled < self.steps or (whole and self.rests)
        # Only where nothing more comes in; neurons with a delay were refused before.
        ends = self.snn.encoding.ends
        at_rest = at_rest and ends is not None and self.steps >= ends
        return "exact after settling" if at_rest else "approximate"


def _per_image(differs: np.ndarray) -> np.ndarray:
    """Number of differences in every image, ``[B]``."""
    return np.asarray(differs.reshape(len(differs), -1).sum(axis=1))


def _rounding(site: Site, record: Folded) -> float:
    """Error of a float32 sum in units of the drive, 0 where sums are exact.

    The roundings of n terms add up to about ``sqrt(n)`` of one; four times that is allowed.
    """
    if record.kernel in WHOLE and record.bound < 2**24:
        return 0.0
    terms = site.macs / max(int(np.prod(site.drive_shape)), 1)
    return float(4 * np.sqrt(terms) * EPSILON * record.bound)
