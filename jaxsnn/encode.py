"""From an image to the drive of every step."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jax import Array

Presentation = Literal["held", "onset", "frames"]


@dataclass(frozen=True)
class Encoding:
    """How an image is presented and what one unit of it is worth.

    Attributes:
        presentation: "held" (the same current at every step), "onset" (in the first step only, and
            every bias with it), or "frames" (the input has a leading time axis and is streamed).
        scale: value of one input unit; ``1 / 256`` for uint8 pixels shown to a network that was
            trained on ``pixels / 256``.
        highest: largest magnitude of an input unit, on which the bounds of all sums rest.
    """

    presentation: Presentation = "held"
    scale: float = 1.0
    highest: int = 255

    def decode(self, images: Array) -> Array:
        """The floats that the ANN sees for ``images`` (any shape): float32."""
        return images.astype(jnp.float32) * self.scale


def gates(presentation: Presentation, first: Array | int, block: int) -> Array:
    """What the stem's current is multiplied by in steps ``first .. first + block - 1`` (0-based).

    >>> gates("onset", 0, 3).tolist()
    [1, 0, 0]
    """
    step = first + jnp.arange(block)
    return (step == 0).astype(jnp.int32) if presentation == "onset" else jnp.ones_like(step)
