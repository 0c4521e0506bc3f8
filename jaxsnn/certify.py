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
from jaxsnn.convert import Variables, affine, snapped
from jaxsnn.metrics import head_sites, spiking_sites
from jaxsnn.simulate import check_input, run
from jaxsnn.sitemap import SiteMap
from jaxsnn.spiking import Spiking, settled
from jaxsnn.sweep import batches, check_stills

EPSILON = 2.0**-24  # half a unit in the last place of float32, relative


class _Batch(NamedTuple):
    """Arrays of one batch: counts and levels per site and head ``[B, ...]``, predictions ``[B]``.

    The heads' ``end_to_end`` are the float ANN's logits.
    """

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
    settled(snn)  # refuses neurons that have no integer ANN
    floats = snapped(variables, snn)
    tally = _Tally(snn, variables)
    for rows, real in batches(len(images), batch_size, progress):
        batch = check_input(snn, images[rows])
        found = _compare(snn, floats, batch, steps)
        tally.add(jax.tree.map(lambda a, n=real: np.asarray(a)[:n], found), int(rows[0]))
    return tally.certificate(steps)


@functools.partial(jax.jit, static_argnames=("steps",))
def _compare(snn: Spiking, floats: Variables, images: Array, steps: int) -> _Batch:
    trace = run(snn, images, None, steps=steps, block=1, counts=True)
    integer = settled(snn).net
    whole = net_module.forward(integer, snn.variables, images)
    reference = net_module.forward(snn.quantised_ann, floats, snn.encoding.decode(images))
    names = [site.name for site in spiking_sites(snn.arch)]
    heads = [site.name for site in head_sites(snn.arch)]
    levels = {
        name: jnp.round(reference.outs[name][0] / snn.unit(name)).astype(jnp.int32)
        for name in names
    }
    forced = {name: level[None] for name, level in levels.items()}
    fed = net_module.forward(integer, snn.variables, images, forced=forced)
    drives = snn.net.clone(neurons=SiteMap(neurons.identity()))
    drive = net_module.forward(drives, snn.variables, images, forced=forced)
    step = jnp.arange(1, steps + 1)[:, None]
    return _Batch(
        counts=trace.counts
        | {name: out[-1] for name, out in zip(heads, trace.readouts, strict=True)},
        integer={name: whole.outs[name][0] for name in names + heads},
        end_to_end=levels | {name: reference.outs[name][0] for name in heads},
        fed={name: fed.outs[name][0] for name in names + heads},
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
        self.sites, self.heads = spiking_sites(snn.arch), head_sites(snn.arch)
        self.layers = {site.name: LayerProof(site.name) for site in (*self.sites, *self.heads)}
        self.active = {site.name: np.zeros(site.out_shape, bool) for site in self.sites}
        self.images = self.predictions = self.float_predictions = 0
        self.first: dict[tuple[str, str], Difference] = {}

    def add(self, batch: _Batch, first_image: int) -> None:
        self.images += len(batch.predictions[0])
        self.predictions += int(np.sum(batch.predictions[0] != batch.predictions[1]))
        self.float_predictions += int(np.sum(batch.predictions[0] != batch.predictions[2]))
        for site in self.sites:
            self._add_layer(site, batch, first_image)
        for site in self.heads:
            self._add_head(site, batch, first_image)

    def _add_head(self, site: Site, batch: _Batch, first_image: int) -> None:
        """Compare summed readouts: with the integer ANN's, and with the float ANN's logits."""
        name, unit = site.name, self.snn.unit(site.name)
        counts, level, logits = batch.counts[name], batch.integer[name], batch.end_to_end[name]
        rounding = self._head_rounding(site, logits)
        away = np.abs(counts * unit - logits) > rounding
        origin = np.abs(batch.fed[name] * unit - logits) > rounding
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
        self._remember("float", name, batch.fed[name], nearest, origin, first_image)

    def _head_rounding(self, site: Site, logits: np.ndarray) -> np.ndarray:
        """Largest difference of a logit that rounding explains: the bias's grid, float32 sums."""
        record = next(one for one in self.snn.report if one.site == site.name)
        grid = self.snn.unit(site.name) / 2 if site.bias else 0.0
        inexact = site.kernel_shape[0] if record.accumulator == "int32" else 0
        sums = inexact * EPSILON * record.bound * self.snn.unit(site.name)
        return grid + sums + 4 * EPSILON * np.abs(logits)

    def _add_layer(self, site: Site, batch: _Batch, first_image: int) -> None:
        name = site.name
        counts, level, end = batch.counts[name], batch.integer[name], batch.end_to_end[name]
        origin = batch.fed[name] != end
        distance, allowed = self._distance(site, batch.drive[name], end, batch.fed[name])
        tie = origin & (np.abs(batch.fed[name] - end) == 1) & (distance <= allowed)
        neuron = self.snn.neurons.at(site)
        highest = ((neuron.settled or neuron).spikes or (0, 1))[1]
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
        found = (self.first.get((kind, name)) for name in self.layers)
        return next((difference for difference in found if difference), None)

    def certificate(self, steps: int) -> Certificate:
        layers = tuple(self._finished(layer) for layer in self.layers.values())
        ties = all(layer.origins == layer.ties for layer in layers)
        equal = ties and not self.predictions and not any(layer.integer for layer in layers)
        last = max((layer.last_spike_step for layer in layers), default=0)
        neurons_only = layers[: len(self.sites)]
        return Certificate(
            equality=self._verdict(equal, last, steps),
            settled_step=last,
            images=self.images,
            steps=steps,
            mismatches=sum(layer.integer for layer in neurons_only),
            predictions=self.predictions,
            float_mismatches=sum(layer.end_to_end for layer in neurons_only),
            float_predictions=self.float_predictions,
            origins_are_ties=ties,
            first_difference=self._first("integer") or self._first("float"),
            layers=layers,
        )

    def _finished(self, layer: LayerProof) -> LayerProof:
        if layer.site not in self.active:
            return layer
        silent = 1 - float(self.active[layer.site].mean())
        return replace(layer, silent=silent, saturated=layer.saturated / max(layer.compared, 1))

    def _verdict(self, equal: bool, last: int, steps: int) -> str:
        if not equal:
            return "approximate"
        if steps == 1 and all(self.snn.neurons.at(site).stateless for site in self.sites):
            return "exact"
        # Silence is rest only where nothing more comes in; delayed neurons were refused before.
        at_rest = self.snn.encoding.presentation == "onset" and last < steps
        return "exact after settling" if at_rest else "approximate"
