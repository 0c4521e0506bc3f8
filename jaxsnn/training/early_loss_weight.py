"""Side exits in training: how much an early classifier weighs in the joint loss.

Source: Habara, Sato and Awano, BayesianSpikeFusion, Frontiers in Neuroscience 18, 2024, and its
code: ``loss = final + w * early``, where w grows towards the share of the work that is done where
the early classifier stands.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.errors import UserError

LEAST = 0.01  # weight of an early classifier in the first two epochs


def share_of_macs(arch: Arch) -> float:
    """Multiply-accumulates up to the first side exit over those of the whole trunk.

    Heads count on neither side; convolutions of shortcuts do.

    Raises:
        UserError: the network has no side exit.

    >>> from jaxsnn.arch import zoo
    >>> round(share_of_macs(zoo.bsf_vgg11), 6)
    0.505792
    """
    trunk, before = 0, 0
    for site in plan(arch):
        if site.role == "exit" and not before:
            before = trunk
        trunk += site.macs if site.role in ("activation", "shortcut") else 0
    if not before:
        raise UserError("the network has no side exit; write E behind a layer, or zoo.bsf()")
    return before / trunk


@dataclass(frozen=True)
class Ramp:
    """Weight of the early classifiers' losses at an update of training.

    0.01 in the first two epochs, then ``0.01 + (e - 1) / epochs * (goal - 0.01)`` in epoch e,
    counted from 0, until it is the goal, and the goal from there on.

    Attributes:
        goal: what the weight tends to, :func:`share_of_macs`.
        epochs: of the training, of its first phase where it has several, and
        updates: of an epoch.

    >>> round(float(Ramp(goal=0.505792, epochs=200, updates=10)(1010)), 6)
    0.257896
    """

    goal: float
    epochs: int
    updates: int

    def __call__(self, update: ArrayLike) -> Array:
        """The weight, a float32 scalar, at global ``update`` (from 0)."""
        epoch = jnp.asarray(update) // self.updates
        share = jnp.clip(epoch - 1, 0, self.epochs) / self.epochs
        return LEAST + share.astype(jnp.float32) * (self.goal - LEAST)
