"""A converted network as a plain function of images, for other JAX programs."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jaxsnn.arch.plan import plan
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError
from jaxsnn.simulation import engine
from jaxsnn.simulation.fixed_steps import check_input, check_run


def function(snn: Spiking, *, steps: int, block: int = 1) -> Callable[[Array], Array]:
    """``images -> logits``: so many steps of the network, pure, to be jitted, vmapped, exported.

    The weights are constants of the function, so that a program that is exported
    (:func:`jax.export.export`) runs without this library. Random neurons have no place in it.

    Args:
        snn: the network.
        steps: time steps T.
        block: see :func:`jaxsnn.simulate`.

    Returns:
        A function of images as ``simulate`` takes them (``[B, H, W, C]``; frames
        ``[T, B, H, W, C]``) that returns float32 ``[B, classes]``: the sum of the readout over all
        steps times the value of one count. Of images that are traced only shape and dtype are
        looked at, no value.

    Raises:
        UserError: steps or block below 1, a network with random neurons; when it is called, images
            of another shape or dtype.
    """
    for site in plan(snn.arch):
        if snn.neurons.at(site).drops_spikes:
            raise UserError(
                f"{site.name}: its neurons draw random numbers, for which a function of images "
                "alone has no key; use simulate(), or a network without unit dropout"
            )
    axis = engine.encode_axis(snn)
    example = jnp.zeros((*(steps,) * axis, 1, *snn.arch.input_shape), jnp.uint8)
    check_run(snn, check_input(snn, example), steps, block, (), 1)
    program, unit = snn.program, _unit(snn)

    def logits(images: Array) -> Array:
        shown = check_input(snn, images)
        trace = engine.run(program, shown, None, steps=steps, block=block)
        return trace.readout[-1].astype(jnp.float32) * unit

    return logits


def _unit(snn: Spiking) -> float:
    """Value of one count of the readout; 1 where it is not converted."""
    return dict(snn.units).get(plan(snn.arch)[-1].name, 1.0)
