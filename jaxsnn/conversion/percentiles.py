"""Robust maxima of activations: what a firing rate of one spike a step stands for.

A rate cannot exceed one spike a step. The largest activation of a layer would make the others
slow; a percentile just below it lets few outliers saturate. Source: Rueckauer et al., Frontiers in
Neuroscience 11, 2017 ("robust normalisation").
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn import neurons
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError, finite_number
from jaxsnn.inputs.checks import check_units
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.io.progress import bar
from jaxsnn.network import net as net_module
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import hidden
from jaxsnn.neurons.activations import activation
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.types import Variables

SCALED = ("activation", "exit", "readout")  # roles of sites that have a scale


def scales(
    net: Net,
    variables: Variables,
    images: Array | np.ndarray,
    percentiles: Sequence[float],
    *,
    encoding: Encoding,
    batch_size: int = 50,
    progress: str = "",
) -> list[dict[str, float]]:
    """Percentiles of the activations of every layer, and of the logits of every head.

    All values count, zeros included, of all images and positions of a layer; between two values
    the percentile is linear. A layer whose percentile is not above 0 takes its largest value
    instead, and 1 where that is not above 0 either. Of a layer's values only as many are held as
    lie above the lowest percentile, one in a thousand for 99.9.

    Args:
        net: the full-precision network (ReLU), with batch norm.
        variables: its trained tree.
        images: ``[N, H, W, C]`` integers, as the spiking network is shown them: no augmentation.
        percentiles: each in percent: above 1, at most 100.
        encoding: what the integers are worth.
        batch_size: images per compiled call.
        progress: name of the progress bar, empty for none.

    Returns:
        For each percentile a dict of site -> value.

    Raises:
        UserError: no images, a percentile outside (1, 100], images that are no whole units, or
            activations that are not finite.
    """
    for percentile in percentiles:
        finite_number("percentile", percentile, 0, 100, above=True)
        if percentile <= 1:
            raise UserError(
                f"percentile={percentile} looks like a share; give it in percent, above 1, such as "
                "the paper's 99.9"
            )
    if len(images) == 0:
        raise UserError("there are no images to take percentiles of")
    sizes = {site.name: len(images) * math.prod(site.out_shape) for site in plan(net.arch)}
    largest: dict[str, np.ndarray] = {}
    starts = range(0, len(images), batch_size)
    for start in bar(starts, len(starts), progress):
        units = images[start : start + batch_size]
        check_units(units, encoding)
        batch = encoding.decode(jnp.asarray(units))
        for name, out in _activations(net, variables, batch).items():
            values = np.asarray(out)
            if not np.isfinite(values).all():
                raise UserError(f"{name}: an activation is not finite; look at weights and images")
            count = _above(sizes[name], min(percentiles))
            seen = np.concatenate([largest.get(name, values[:0].ravel()), values.ravel()])
            largest[name] = np.partition(seen, -count)[-count:] if len(seen) > count else seen
    by_site = {name: _robust(values, sizes[name], percentiles) for name, values in largest.items()}
    return [
        {name: row[number] for name, row in by_site.items()} for number in range(len(percentiles))
    ]


def _above(size: int, percentile: float) -> int:
    """How many of the largest of so many values decide a percentile; the others are not kept.

    >>> _above(1000, 99.9), _above(1000, 50), _above(3, 100)
    (2, 501, 1)
    """
    return size - math.floor((size - 1) * percentile / 100)


@functools.partial(jax.jit, static_argnums=0)
def _activations(net: Net, variables: Variables, images: Array) -> dict[str, Array]:
    outs = net_module.forward(net, variables, images).outs
    return {site.name: outs[site.name] for site in plan(net.arch) if site.role in SCALED}


def _robust(largest: np.ndarray, size: int, percentiles: Sequence[float]) -> list[float]:
    """Percentiles of so many values, of which the largest are given."""
    values = np.sort(largest).astype(np.float64)
    instead = values[-1] if values[-1] > 0 else 1.0
    ranks = np.array(percentiles) / 100 * (size - 1) - (size - len(values))
    interpolated = np.interp(ranks, np.arange(len(values)), values)
    return [float(one) if one > 0 else float(instead) for one in interpolated]


def normalised_ann(snn: Spiking) -> Net:
    """The network of ReLUs over the folded tree of a rate-coded one: what its rates stand for.

    It is applied to ``snn.variables`` and whole images. Each activation is that of the trained
    network divided by the layer's scale, each logit that of the head: the same classes, with
    batch norm gone. A pool without neurons gives the sum of a window, as in the spiking network.
    """
    ann = hidden(neurons.relu())
    return snn.net.clone(neurons=replace(ann, by_name=summing_pools(snn)), skip_silent=False)


def summing_pools(snn: Spiking) -> tuple[tuple[str, Neuron], ...]:
    """What stands for the average pools of a spiking network that have no neurons: sums, no means.

    Returns:
        Name and activation of each, in the order of the network, as ``SiteMap.by_name`` takes them.
    """
    return tuple(
        (site.name, _times(math.prod(site.window)))
        for site in plan(snn.arch)
        if site.kind == "avgpool" and snn.neurons.at(site).spikes is None
    )


@functools.cache
def _times(area: int) -> Neuron:
    """A mean, as the synapse of a pool gives it in floats, back to the sum."""
    return activation(lambda mean: mean * area)
