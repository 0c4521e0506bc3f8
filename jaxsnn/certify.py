"""Does the spiking network equal its quantised ANN: which layer, which neuron, from which step.

Two references, always. The *integer ANN* runs over the folded tree with another implementation of
the level; a difference there is a fault of the simulation. It cannot reveal a wrong fold, because
the fold is common to both: the *float ANN*, batch norm and all, over the same snapped weights, can.
Each layer is compared end to end, and again fed with the float ANN's own activations, which tells
the layer where a difference starts (an origin) from those that inherit it (a cascade). Every origin
must be a tie: an activation so close to a level's boundary that float32 cannot place it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn import net as net_module
from jaxsnn import neurons
from jaxsnn.certificate import Certificate
from jaxsnn.convert import snapped
from jaxsnn.metrics import head_sites, spiking_sites
from jaxsnn.net import Variables
from jaxsnn.simulate import check_input, run
from jaxsnn.sitemap import SiteMap
from jaxsnn.spiking import Spiking, settled
from jaxsnn.sweep import batches, check_stills
from jaxsnn.tally import Batch, Tally


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
        steps: steps to simulate: 1 for neurons without a state; with too few for the others to
            settle, the verdict is "approximate" and ``unsettled`` the share that has not.
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
    tally = Tally(snn, variables)
    for rows, real in batches(len(images), batch_size, progress):
        batch = check_input(snn, images[rows])
        found = _compare(snn, floats, batch, steps)
        tally.add(jax.tree.map(lambda a, n=real: np.asarray(a)[:n], found), int(rows[0]))
    return tally.certificate(steps)


@functools.partial(jax.jit, static_argnames=("steps",))
def _compare(snn: Spiking, floats: Variables, images: Array, steps: int) -> Batch:
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
    drives = integer.clone(neurons=SiteMap(neurons.identity()))
    drive = net_module.forward(drives, snn.variables, images, forced=forced)
    step = jnp.arange(1, steps + 1)[:, None]
    return Batch(
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
