"""A network and the fusion of its heads one step at a time, for input that comes as it comes.

What :func:`jaxsnn.early_exit` does to a whole batch, for a sensor: show an image, read how sure the
fusion is, show the next.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError, whole_number
from jaxsnn.simulation import engine
from jaxsnn.simulation.engine import Carry, encode_axis
from jaxsnn.simulation.fixed_steps import check_input
from jaxsnn.simulation.fusion.bayes import Posterior
from jaxsnn.simulation.horizon import check_horizon
from jaxsnn.simulation.until_sure import Rule, check_heads, fused


class Stream(NamedTuple):
    """A network between two steps.

    Attributes:
        carry: membrane potentials and what the heads have counted.
        number: steps so far.
    """

    carry: Carry
    number: int | Array


def start(snn: Spiking, batch: int) -> Stream:
    """The network before its first step, for ``batch`` images.

    Raises:
        UserError: ``batch`` below 1.
    """
    return Stream(engine.start(snn.program, whole_number("batch", batch), None, False), 0)


def step(snn: Spiking, rule: Rule, state: Stream, images: Array) -> tuple[Stream, Posterior]:
    """One step of the network and of the fusion; a pure function, compiled once.

    With the same images in every step it is what :func:`jaxsnn.simulate` computes. In a loop that
    is compiled (``lax.scan``) the curve's last value holds for steps beyond it.

    Args:
        snn: as for :func:`jaxsnn.early_exit`.
        rule: its alpha curve and heads are used; :func:`jaxsnn.early_exit.certainty` says how sure
            it then is.
        state: from :func:`start` or the step before, which stays as it is.
        images: what is shown in this step, ``[B, H, W, C]``.

    Returns:
        The next state, and the posterior ``[B, classes]`` so far, whose means are the scores.

    Raises:
        UserError: more steps than the alpha curve has, another batch than the state's, or as
            ``simulate``.
    """
    check_heads(snn, rule)
    curve, seen = np.shape(rule.alpha), state.number
    if len(curve) != 1 or (isinstance(seen, int) and seen >= curve[0]):
        raise UserError(
            f"step {seen + 1} of a stream, but the rule's alpha has shape {curve}: give a value "
            "for every step"
        )
    check_horizon(snn, seen + 1 if isinstance(seen, int) else curve[0])
    batch = state.carry.total[0].shape[0]
    axis = encode_axis(snn)
    shown = check_input(snn, images[None] if axis else images)
    if shown.shape[axis] != batch:
        raise UserError(f"{shown.shape[axis]} images for a stream of {batch}; show as many")
    carry, posterior = _step(snn.program, rule, state.carry, shown, jnp.asarray(seen, jnp.int32))
    return Stream(carry, seen + 1), posterior


@jax.jit
def _step(
    snn: Spiking, rule: Rule, carry: Carry, images: Array, number: Array
) -> tuple[Carry, Posterior]:
    shown = engine.show(snn, images, 1)
    carry, _ = engine.proceed(snn, shown, 1, None, (), carry, number[None])
    return carry, fused(rule, carry.total, number + 1)
