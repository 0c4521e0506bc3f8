"""The settle stop: simulate until a whole step is silent, and drop images that have settled.

Where the input ends, with no delay and no random neuron, an image is settled for good with the
first step from then on in which no neuron spikes: no spike is no drive (zero times any weight is
zero, in floats too), biases end with the input, and a potential without drive stays where it was,
below every threshold that would fire. What such an image adds to any sum is zero.

This is a criterion of :mod:`jaxsnn.simulation.image_by_image`, which runs it.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.arch.plan import plan
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError
from jaxsnn.simulation import image_by_image
from jaxsnn.simulation.counters import Counters
from jaxsnn.simulation.engine import Trace

EVERY = 4  # steps between two looks


def settle(
    snn: Spiking,
    images: Array | np.ndarray,
    *,
    steps: int,
    every: int = EVERY,
    counts: bool = False,
    devices: int = 1,
) -> Trace:
    """Simulate until a whole step is silent, or for ``steps`` steps.

    The result is that of ``simulate(snn, images, steps=T)``: bit for bit, where sums are exact;
    float weights may round differently in batches of another size. T is the last step with a spike
    in any image, or the last but one of the input, and one silent step more, or ``steps``. Which
    images still spike then, the last row of the counters says.

    Args:
        snn: a converted network whose input ends, of tracking or integrate-and-fire
            neurons.
        images: ``[B, H, W, C]`` integers.
        steps: most steps to simulate.
        every: steps between two looks at what has settled.
        counts: return every site's net spike count.
        devices: local devices to share the batch between (it must divide B).

    Returns:
        A trace of NumPy arrays on the host; on the device no more than ``every`` rows exist.

    Raises:
        UserError: a network that silence does not stop, with the reason, or as ``simulate``.
    """
    reason = restless(snn)
    if reason:
        raise UserError(f"a silent step does not end this simulation: {reason}; leave settle out")
    ends = jnp.asarray(snn.encoding.ends or 1, jnp.int32)
    ended = image_by_image.run(
        snn, images, silent, ends, steps=steps, every=every, counts=counts, devices=devices
    )
    return ended.trace


def silent(ends: Array, sums: tuple[Array, ...], counters: Counters, numbers: Array) -> Array:
    """Which images are at rest: no spike in a step that is not before the input's last.

    Args:
        ends: step with which input and biases end, int32.
        sums: not looked at.
        counters: of K steps, int32 ``[K, B]`` per site.
        numbers: of these steps, int32 ``[K]``, from 0.

    Returns:
        bool ``[K, B]``.
    """
    del sums
    spikes = jnp.asarray(sum(counters.spikes.values()))
    return (spikes == 0) & (numbers[:, None] + 1 >= ends)


def restless(snn: Spiking) -> str:
    """Why a silent step would not end a simulation of ``snn``; empty where it does."""
    if snn.encoding.ends is None:
        return (
            f"its input is presented as {snn.encoding.presentation!r} without an end, not once "
            "('onset') or for a duration"
        )
    for site in plan(snn.arch):
        neuron = snn.neurons.at(site)
        if site.role == "activation" and not neuron.silence_is_final:
            return f"{site.name}: {neuron.name!r} may spike after a silent step"
        if site.source == "input" and neuron.holds_back:
            return f"{site.name}: {neuron.name!r} may hold back the input, which no spike shows"
        follows = neuron.stateless or neuron.silent_without_drive
        if site.role != "activation" and not follows:
            return f"{site.name}: {neuron.name!r} has a state that no spike shows"
    return ""
