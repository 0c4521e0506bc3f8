"""Does the spiking network equal its quantised ANN: which layer, which neuron, from which step.

Two references, always. The *integer ANN* runs over the folded tree with another implementation of
the level; a difference there is a fault of the simulation. It cannot reveal a wrong fold, because
the fold is common to both: the *float ANN*, batch norm and all, over the same snapped weights, can.
Each layer is compared end to end, and again fed with the float ANN's own activations, which tells
the layer where a difference starts (an origin) from those that inherit it (a cascade). Every origin
must be a tie: an activation so close to a level's boundary that float32 cannot place it.
"""

import functools
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn import net as net_module
from jaxsnn import neurons
from jaxsnn.arch import Site
from jaxsnn.certificate import Certificate, Difference, LayerProof
from jaxsnn.convert import snapped
from jaxsnn.fold import Variables, affine
from jaxsnn.metrics import spiking_sites
from jaxsnn.net import Net
from jaxsnn.simulate import check_input, run
from jaxsnn.sitemap import SiteMap
from jaxsnn.spiking import Spiking, whole_accumulators
from jaxsnn.sweep import batches, check_stills

EPSILON = 2.0**-24  # half a unit in the last place of float32, relative


class _Batch(NamedTuple):
    """Arrays of one batch: final counts and levels per site ``[B, ...]``, predictions ``[B]``."""

    counts: dict[str, Any]
    integer: dict[str, Any]
    end_to_end: dict[str, Any]
    fed: dict[str, Any]
    drive: dict[str, Any]
    last_step: dict[str, Any]
    predictions: tuple[Any, Any, Any]


def certify(
    snn: Spiking,
    variables: Variables,
    images: Array | np.ndarray,
    *,
    steps: int = 1,
    batch_size: int = 200,
    progress: str = "",
) -> Certificate:
    """Compare a spiking network with its quantised ANN, neuron by neuron, over a data set.

    Args:
        snn: the converted network.
        variables: the trained variables that it was converted from.
        images: ``[N, H, W, C]`` integers.
        steps: steps to simulate.
        batch_size: images per compiled call.
        progress: name of the progress bar, empty for none.

    Raises:
        ValueError: no images, or variables that do not belong to the architecture.
    """
    check_stills(snn)
    images = np.asarray(images)
    if len(images) == 0:
        raise ValueError("there are no images to certify on")
    integer_ann(snn)  # refuses neurons that have none
    floats = snapped(variables, snn)
    tally = _Tally(snn, variables)
    for rows, real in batches(len(images), batch_size, progress):
        batch = check_input(snn, images[rows])
        found = _compare(snn, floats, batch, steps)
        tally.add(jax.tree.map(lambda a, n=real: np.asarray(a)[:n], found), int(rows[0]))
    return tally.certificate(steps)


def integer_ann(snn: Spiking) -> Net:
    """The integer ANN over the folded tree: every neuron replaced by its settled level."""
    levels = [(s.name, _settled(snn, s)) for s in spiking_sites(snn.arch)]
    return _whole(snn, SiteMap(neurons.identity(), by_name=tuple(levels)))


def _whole(snn: Spiking, mapped: SiteMap[neurons.Neuron]) -> Net:
    """The folded network with other neurons, for net counts that come in at once."""
    return snn.net.clone(neurons=mapped, accumulators=whole_accumulators(snn))


def _settled(snn: Spiking, site: Site) -> neurons.Neuron:
    neuron = snn.neurons.at(site)
    if neuron.settled is None:
        raise ValueError(
            f"{site.name}: neuron {neuron.name!r} has no integer ANN to be compared with"
            " (noise and delays are switched off for a certificate)"
        )
    return neuron.settled


@functools.partial(jax.jit, static_argnames=("steps",))
def _compare(snn: Spiking, floats: Variables, images: Array, steps: int) -> _Batch:
    trace = run(snn, images, None, steps=steps, block=1, counts=True)
    integer = integer_ann(snn)
    whole = net_module.forward(integer, snn.variables, images)
    reference = net_module.forward(snn.quantised_ann, floats, snn.encoding.decode(images))
    names = [site.name for site in spiking_sites(snn.arch)]
    end_to_end = {
        name: jnp.round(reference.outs[name][0] / snn.unit(name)).astype(jnp.int32)
        for name in names
    }
    forced = {name: level[None] for name, level in end_to_end.items()}
    fed = net_module.forward(integer, snn.variables, images, forced=forced)
    drives = _whole(snn, SiteMap(neurons.identity()))
    drive = net_module.forward(drives, snn.variables, images, forced=forced)
    step = jnp.arange(1, steps + 1)[:, None]
    return _Batch(
        counts=trace.counts,
        integer={name: whole.outs[name][0] for name in names},
        end_to_end=end_to_end,
        fed={name: fed.outs[name][0] for name in names},
        drive={name: drive.outs[name][0] for name in names},
        last_step={
            name: jnp.max(jnp.where(trace.counters.spikes[name] > 0, step, 0), axis=0)
            for name in names
        },
        predictions=(
            trace.predictions[-1],
            jnp.argmax(whole.readouts[-1][0], -1),
            jnp.argmax(reference.readouts[-1][0], -1),
        ),
    )


class _Tally:
    """Adds up batches on the host, in Python integers."""

    def __init__(self, snn: Spiking, variables: Variables) -> None:
        self.snn, self.variables = snn, variables
        self.sites = spiking_sites(snn.arch)
        self.layers = {site.name: LayerProof(site.name) for site in self.sites}
        self.active = {site.name: np.zeros(site.out_shape, bool) for site in self.sites}
        self.images = self.predictions = self.float_predictions = 0
        self.first: dict[tuple[str, str], Difference] = {}

    def add(self, batch: _Batch, first_image: int) -> None:
        self.images += len(batch.predictions[0])
        self.predictions += int(np.sum(batch.predictions[0] != batch.predictions[1]))
        self.float_predictions += int(np.sum(batch.predictions[0] != batch.predictions[2]))
        for site in self.sites:
            self._add_layer(site, batch, first_image)

    def _add_layer(self, site: Site, batch: _Batch, first_image: int) -> None:
        name = site.name
        counts, level, end = batch.counts[name], batch.integer[name], batch.end_to_end[name]
        origin = batch.fed[name] != end
        distance, allowed = self._distance(site, batch.drive[name], end, batch.fed[name])
        tie = origin & (np.abs(batch.fed[name] - end) == 1) & (distance <= allowed)
        highest = (self.snn.neurons.at(site).spikes or (0, 1))[1]
        old = self.layers[name]
        self.active[name] |= (counts != 0).any(axis=0)
        self.layers[name] = replace(
            old,
            compared=old.compared + counts.size,
            integer=old.integer + int(np.sum(counts != level)),
            end_to_end=old.end_to_end + int(np.sum(counts != end)),
            origins=old.origins + int(np.sum(origin)),
            ties=old.ties + int(np.sum(tie)),
            furthest=max(old.furthest, float(np.max(distance[origin], initial=0.0))),
            saturated=old.saturated + int(np.sum(counts >= highest)),
            last_spike_step=max(old.last_spike_step, int(batch.last_step[name].max(initial=0))),
        )
        self._remember("integer", name, counts, level, counts != level, first_image)
        self._remember("float", name, batch.fed[name], end, origin & ~tie, first_image)

    def _distance(
        self, site: Site, drive: np.ndarray, reference: np.ndarray, fed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """How far each activation is from the boundary in dispute, and float32's error, in steps.

        The float ANN's sums are exact (snapped weights, whole inputs under 2^24); what rounds is
        the norm: subtract, multiply twice, add, of numbers no larger than the sum of magnitudes.
        """
        slope, offset = affine(self.variables, site)
        step = self.snn.unit(site.name)
        unit = self._unit_in(site)
        z = np.abs(drive * unit)
        sign = np.where(slope < 0, -1, 1)
        value = slope * sign * drive * unit + offset
        boundary = (np.maximum(reference, fed) - 0.5) * step
        mean = np.abs(offset) + 2 * np.abs(slope) * z + self._norm_size(site)
        return np.abs(value - boundary) / step, 8 * EPSILON * mean / step

    def _unit_in(self, site: Site) -> float:
        record = next(r for r in self.snn.report if r.site == site.name)
        return self.snn.unit(site.source) * 2.0**-record.exponent

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
        found = (self.first.get((kind, site.name)) for site in self.sites)
        return next((difference for difference in found if difference), None)

    def certificate(self, steps: int) -> Certificate:
        layers = tuple(self._finished(layer) for layer in self.layers.values())
        mismatches = sum(layer.integer for layer in layers)
        ties = all(layer.origins == layer.ties for layer in layers)
        settled = max((layer.last_spike_step for layer in layers), default=0)
        return Certificate(
            equality=self._verdict(mismatches == 0 and ties, settled, steps),
            settled_step=settled,
            images=self.images,
            steps=steps,
            mismatches=mismatches,
            predictions=self.predictions,
            float_mismatches=sum(layer.end_to_end for layer in layers),
            float_predictions=self.float_predictions,
            origins_are_ties=ties,
            first_difference=self._first("integer") or self._first("float"),
            layers=layers,
        )

    def _finished(self, layer: LayerProof) -> LayerProof:
        active = self.active[layer.site]
        silent = 1 - float(active.mean())
        return replace(layer, silent=silent, saturated=layer.saturated / max(layer.compared, 1))

    def _verdict(self, equal: bool, settled: int, steps: int) -> str:
        if not equal:
            return "approximate"
        stateless = all(self.snn.neurons.at(site).init is neurons.no_state for site in self.sites)
        if stateless and steps == 1:
            return "exact"
        return "exact after settling" if settled < steps else "approximate"
