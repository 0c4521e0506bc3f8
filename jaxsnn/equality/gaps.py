"""Where a converted network departs from the network it came from: layer by layer, in three parts.

Of every neuron the quantised ANN loses what lies above its clip (clipping) and the rest of its
division into levels (quantisation); the spiking network loses what comes of spikes in the wrong
order: its net count is not the level of the drive that it received. What it received is not what
the ANN's neuron did, because of the layers before (inherited).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn import neurons
from jaxsnn.arch.plan import spiking_sites
from jaxsnn.conversion.convert import check_variables
from jaxsnn.conversion.float_reference import snapped
from jaxsnn.conversion.spiking import Spiking, settled
from jaxsnn.errors import UserError
from jaxsnn.io.progress import batches
from jaxsnn.network import net as net_module
from jaxsnn.network.jitted import jitted
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import SiteMap
from jaxsnn.simulation.fixed_steps import check_input, simulate
from jaxsnn.types import Variables


class Gap(NamedTuple):
    """Mean absolute errors of a layer over neurons and images, as shares of the highest activation.

    Attributes:
        site: the layer.
        clipping: what the float activation has above the clip.
        quantisation: what rounding to a level takes away or adds.
        wrong_order: net count against the level of the drive that the neuron itself received.
        inherited: that level against the quantised ANN's.
    """

    site: str
    clipping: float
    quantisation: float
    wrong_order: float
    inherited: float


def gaps(
    snn: Spiking,
    variables: Variables,
    images: Array | np.ndarray,
    *,
    steps: int,
    batch_size: int = 50,
    progress: str = "",
) -> list[Gap]:
    """Split the difference between a spiking network and its unquantised activations.

    Args:
        snn: the converted network.
        variables: the trained variables that it was converted from.
        images: ``[N, H, W, C]`` integers.
        steps: time steps to simulate.
        batch_size: images per compiled call.
        progress: name of the progress bar, empty for none.

    Raises:
        UserError: no images, variables that do not fit the network, or a network that has no
            integer ANN.
    """
    images = np.asarray(images)
    if len(images) == 0:
        raise UserError("no images to compare on; give one or more")
    check_variables(variables, snn)
    whole, floats, units = settled(snn).program, snapped(variables, snn), dict(snn.units)
    sums: dict[str, np.ndarray] = {}
    for rows, real in batches(len(images), min(batch_size, len(images)), progress):
        batch = check_input(snn, images[rows])
        counts = simulate(snn, batch, steps=steps, counts=True).counts
        for name, parts in _per_image(whole, snn.float_ann, floats, batch, counts, units).items():
            sums[name] = sums.get(name, 0) + np.asarray(parts, np.float64)[:, :real].sum(1)
    return [Gap(name, *(total / len(images)).tolist()) for name, total in sums.items()]


@jitted("ann")
def _per_image(
    whole: Spiking,
    ann: Net,
    floats: Variables,
    images: Array,
    counts: dict[str, Array],
    units: dict[str, float],
) -> dict[str, Array]:
    """Site -> the four errors, mean over the neurons of every image, ``[4, B]``."""
    level = net_module.forward(whole.net, whole.variables, images).outs
    forced = {name: count[None] for name, count in counts.items()}
    after_counts = net_module.forward(whole.net, whole.variables, images, forced=forced).outs
    x = whole.encoding.decode(images)
    quantised = net_module.forward(ann, floats, x).outs
    bare = ann.clone(neurons=SiteMap(neurons.identity()))
    exact = {site.name: quantised[site.name] for site in spiking_sites(whole.arch)}
    drives = net_module.forward(bare, floats, x, forced=exact).outs
    by_site: dict[str, Array] = {}
    for site in spiking_sites(whole.arch):
        name, unit = site.name, units[site.name]
        highest = _highest(whole.neurons.at(site))
        drive, received = drives[name][0] / unit, after_counts[name][0].astype(jnp.float32)
        errors: Any = (
            jnp.maximum(drive - highest, 0),
            jnp.clip(drive, 0, highest) - quantised[name][0] / unit,
            counts[name] - received,
            received - level[name][0],
        )
        axes = tuple(range(1, drive.ndim))
        by_site[name] = jnp.stack([jnp.mean(jnp.abs(one), axis=axes) / highest for one in errors])
    return by_site


def _highest(level: neurons.Neuron) -> int:
    return (level.spikes or (0, 1))[1]
