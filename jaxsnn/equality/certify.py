"""Does the spiking network equal its quantised ANN: which layer, which neuron, from which step.

Two references, always. The *integer ANN* runs over the folded tree with another implementation of
the level; a difference there is a fault of the simulation. It cannot reveal a wrong fold, because
the fold is common to both: the *float ANN*, batch norm and all, over the same snapped weights, can.
Each layer is compared end to end, and again fed with the float ANN's own activations, which tells
the layer where a difference starts (an origin) from those that inherit it (a cascade). Every origin
must be a tie: an activation so close to a level's boundary that float32 cannot place it.
"""

import warnings

import numpy as np
from jax import Array

from jaxsnn.arch.plan import head_sites
from jaxsnn.conversion.convert import check_variables
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.equality.certificate import Certificate
from jaxsnn.equality.comparison import Simulated, Tally, on_the_host
from jaxsnn.equality.rates import certify_rates, is_rate_coded
from jaxsnn.equality.references import ReferenceNetworks
from jaxsnn.equality.ties import Ties
from jaxsnn.errors import UserError
from jaxsnn.io.progress import batches
from jaxsnn.simulation.counters import last_step
from jaxsnn.simulation.dataset import batch_for, check_stills
from jaxsnn.simulation.engine import Trace
from jaxsnn.simulation.fixed_steps import check_input, simulate
from jaxsnn.simulation.until_silent import settle as run_until_silent
from jaxsnn.types import Variables


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

    A rate-coded network has none. Its rates are compared with the normalised ANN, beside what
    theory allows, and the certificate is a :class:`RateCertificate`.

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
        UserError: no images, variables that do not belong to the architecture, a network that was
            not converted or has no reference, or one that silence does not stop, with ``settle``.
    """
    check_stills(snn)
    images = np.asarray(images)
    if len(images) == 0:
        raise UserError("there are no images to certify on")
    if not snn.is_converted:
        raise UserError(
            "the network was trained as it is, not converted: there is no ANN to compare it with"
        )
    check_variables(variables, snn)
    batch_size = batch_for(len(images), batch_size, devices)
    if is_rate_coded(snn):
        if settle:
            raise UserError("settle=True: rates do not come to rest; give steps alone")
        return certify_rates(snn, variables, images, steps, batch_size, devices, progress)
    networks = ReferenceNetworks(snn, variables)  # refuses neurons that have no integer ANN
    tally = Tally(snn, variables, Ties(snn, networks.floats, networks.in_double))
    simulation = run_until_silent if settle else simulate
    for rows, real in batches(len(images), batch_size, progress):
        batch = check_input(snn, images[rows])
        trace = simulation(snn, batch, steps=steps, counts=True, devices=devices)
        compared = (_simulated(snn, trace), networks.of(batch))
        spiking, references = on_the_host(compared, real)
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
