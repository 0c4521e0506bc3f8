"""Does the spiking network equal its quantised ANN: which layer, which neuron, from which step.

Two references, always. The *integer ANN* runs over the folded tree with another implementation of
the level; a difference there is a fault of the simulation. It cannot reveal a wrong fold, because
the fold is common to both: the *float ANN*, batch norm and all, over the same snapped weights, can.
Each layer is compared end to end, and again fed with the float ANN's own activations, which tells
the layer where a difference starts (an origin) from those that inherit it (a cascade). Every origin
must be a tie: an activation so close to a level's boundary that float32 cannot place it.
"""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn import neurons
from jaxsnn.arch.plan import head_sites, plan, spiking_sites
from jaxsnn.conversion.convert import snapped
from jaxsnn.conversion.spiking import Spiking, settled
from jaxsnn.equality.certificate import Certificate
from jaxsnn.equality.comparison import Simulated, Tally
from jaxsnn.equality.ties import References
from jaxsnn.errors import UserError
from jaxsnn.io.progress import batches
from jaxsnn.network import net as net_module
from jaxsnn.network.net import Net, Variables
from jaxsnn.network.per_site import SiteMap
from jaxsnn.simulation.counters import last_step
from jaxsnn.simulation.dataset import check_stills
from jaxsnn.simulation.engine import Trace
from jaxsnn.simulation.fixed_steps import check_input, simulate
from jaxsnn.simulation.until_silent import settle as run_until_silent


def certify(
    snn: Spiking,
    variables: Variables,
    images: Array | np.ndarray,
    *,
    steps: int = 1,
    settle: bool = False,
    batch_size: int = 200,
    devices: int = 1,
    progress: str = "",
) -> Certificate:
    """Compare a spiking network with its quantised ANN, neuron by neuron, over a data set.

    Warns with the share of neurons and images that have not settled when the simulation ends.

    Args:
        snn: the converted network.
        variables: the trained variables that it was converted from.
        images: ``[N, H, W, C]`` integers.
        steps: steps to simulate: 1 for neurons without a state; with too few for the others to
            settle, the verdict is "approximate" and ``unsettled`` the share that has not.
        settle: end every batch with its first silent step; ``steps`` is then the most.
        batch_size: images per compiled call.
        devices: local devices that share the simulation of a batch.
        progress: name of the progress bar, empty for none.

    Raises:
        UserError: no images, variables that do not belong to the architecture, or a network that
            silence does not stop, with ``settle``.
    """
    check_stills(snn)
    images = np.asarray(images)
    if len(images) == 0:
        raise UserError("there are no images to certify on")
    whole = settled(snn)  # refuses neurons that have no integer ANN
    floats = snapped(variables, snn)
    tally = Tally(snn, variables)
    simulation = run_until_silent if settle else simulate
    for rows, real in batches(len(images), batch_size, progress):
        batch = check_input(snn, images[rows])
        trace = simulation(snn, batch, steps=steps, counts=True, devices=devices)
        known = _references(whole.program, snn.float_ann, floats, batch, dict(snn.units))
        found = (_simulated(snn, trace), known)
        spiking, references = jax.tree.map(lambda a, n=real: np.asarray(a)[:n], found)
        tally.add(spiking, references, int(rows[0]), len(trace.readout))
    certificate = tally.certificate()
    if certificate.unsettled_images:
        warnings.warn(
            f"{certificate.unsettled:.3%} of the neurons, on "
            f"{certificate.unsettled_images / certificate.images:.2%} of the images, have not "
            f"settled after {certificate.steps} steps; raise steps (--steps)",
            UserWarning,
            stacklevel=2,
        )
    return certificate


def _simulated(snn: Spiking, trace: Trace) -> Simulated:
    """What a certificate needs of a run; nothing here has a time axis."""
    heads = [site.name for site in head_sites(snn.arch)]
    readouts = {name: out[-1] for name, out in zip(heads, trace.readouts, strict=True)}
    return Simulated(
        counts=trace.counts | readouts,
        last_step={
            name: last_step(np.asarray(spikes)) for name, spikes in trace.counters.spikes.items()
        },
        prediction=trace.predictions[-1],
    )


def _currents_alone(variables: Variables) -> dict[str, Any]:
    """The folded tree whose drives are those of the synapses: no bias, gain or shortcut."""
    nothing = ("bias", "shortcut_gain")
    params = {
        name: {leaf: jnp.zeros_like(a) if leaf in nothing else a for leaf, a in tree.items()}
        for name, tree in variables["params"].items()
    }
    for tree in params.values():
        tree.pop("gain", None)
    return {**variables, "params": params}


@functools.partial(jax.jit, static_argnames="ann")
def _references(
    settling: Spiking, ann: Net, floats: Variables, images: Array, units: dict[str, float]
) -> References:
    """Both references; networks of one shape share a program, whatever their counts are worth."""
    snn, integer, variables = settling, settling.net, settling.variables
    whole = net_module.forward(integer, variables, images)
    reference = net_module.forward(ann, floats, snn.encoding.decode(images))
    names = [site.name for site in spiking_sites(snn.arch)]
    heads = [site.name for site in head_sites(snn.arch)]
    projections = [site.name for site in plan(snn.arch) if site.role == "shortcut"]
    levels = {
        name: jnp.round(reference.outs[name][0] / units[name]).astype(jnp.int32) for name in names
    }
    forced = {name: level[None] for name, level in levels.items()}
    fed = net_module.forward(integer, variables, images, forced=forced)
    drives = integer.clone(neurons=SiteMap(neurons.identity()))
    drive = net_module.forward(drives, _currents_alone(variables), images, forced=forced)
    return References(
        integer={name: whole.outs[name][0] for name in names + heads},
        end_to_end=levels | {name: reference.outs[name][0] for name in heads},
        fed={name: fed.outs[name][0] for name in names + heads},
        drive={name: drive.outs[name][0] for name in names + projections},
        predictions=(
            jnp.argmax(whole.readouts[-1][0], -1),
            jnp.argmax(reference.readouts[-1][0], -1),
        ),
    )
