"""From an image to the drive of every step."""

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array

from jaxsnn.errors import UserError, finite_number, whole_number

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
        duration: steps after which a held image ends, and all biases with it; None: never.
    """

    presentation: Presentation = "held"
    scale: float = 1.0
    highest: int = 255
    duration: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be; those of NumPy become plain ones.

        Raises:
            UserError: naming field and value.
        """
        if self.presentation not in get_args(Presentation):
            names = ", ".join(get_args(Presentation))
            raise UserError(f"presentation={self.presentation!r} is unknown; choose one of {names}")
        self._set("scale", finite_number("scale", self.scale, 0, above=True))
        self._set("highest", whole_number("highest", self.highest, 1, 2**31 - 1))
        if self.duration is None:
            return
        self._set("duration", whole_number("duration", self.duration))
        if self.presentation != "held":
            raise UserError(
                f"duration={self.duration} with presentation {self.presentation!r}: only a held "
                "image is shown for so many steps; leave it out"
            )

    def _set(self, name: str, value: float) -> None:
        object.__setattr__(self, name, value)

    @property
    def ends(self) -> int | None:
        """The step with which the input and all biases end; None: they do not, or frames do."""
        return 1 if self.presentation == "onset" else self.duration

    def decode(self, images: Array) -> Array:
        """The floats that the ANN sees for ``images`` (any shape): float32."""
        return images.astype(jnp.float32) * self.scale


def gates(encoding: Encoding, first: Array | int, block: int) -> Array:
    """What the stem's current is multiplied by in steps ``first .. first + block - 1`` (0-based).

    >>> gates(Encoding("onset"), 0, 3).tolist(), gates(Encoding(duration=2), 0, 3).tolist()
    ([1, 0, 0], [1, 1, 0])
    """
    step = first + jnp.arange(block)
    return jnp.ones_like(step) if encoding.ends is None else (step < encoding.ends).astype(int)


def jitter(units: Array, keys: Array, ratio: Array | float, highest: int) -> Array:
    """Multiplicative noise on the input, once per image: ``x (1 + ratio * xi)``.

    ``xi`` is uniform in [-1/2, 1/2), drawn for every pixel; a signal-to-noise ratio of
    ``12 / ratio**2``. Rounded half up to whole units. Source: the reference code of Zou et al.
    (Advanced Intelligent Systems, 2023), where only the input is noisy.

    Args:
        units: ``[B, H, W, C]`` whole input units of any integer dtype, below 2^23.
        keys: one PRNG key per image ``[B]``, so that no batch size changes an image's noise.
        ratio: 0 changes no bit of any value.
        highest: :attr:`Encoding.highest`, to which magnitudes are cut.

    Returns:
        int32 ``[B, H, W, C]``.

    Raises:
        UserError: units that are not integers.

    >>> keys = jax.random.split(jax.random.key(0), 1)
    >>> grey = jnp.full((1, 1, 3, 1), 100, jnp.uint8)
    >>> jitter(grey, keys, 0.0, 255).ravel().tolist()
    [100, 100, 100]
    >>> noisy = jitter(grey, keys, 1.0, 255)
    >>> bool(noisy.min() >= 50), bool(noisy.max() <= 150), len(set(noisy.ravel().tolist()))
    (True, True, 3)
    """
    if not jnp.issubdtype(units.dtype, jnp.integer):
        raise UserError(
            f"input units are {units.dtype}; noise acts on whole units, not scaled ones"
        )

    def draw(key: Array) -> Array:
        return jax.random.uniform(key, units.shape[1:], minval=-0.5, maxval=0.5)

    whole = units.astype(jnp.float32)
    noisy = jnp.floor(whole * (1 + ratio * jax.vmap(draw)(keys)) + 0.5)
    return jnp.clip(noisy, -highest, highest).astype(jnp.int32)
