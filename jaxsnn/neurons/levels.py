"""Quantisers of activations with straight-through gradients: whole levels, and a learned clip.

The median quantiser is that of Zou et al. (ISCAS 2020): with step ``2**-k`` the level of ``x`` is
the number of boundaries ``(j - 1/2) * 2**-k``, ``j >= 1``, that it reached. A value on a boundary
belongs to the upper level (half up); no tolerance is added anywhere, so a spiking neuron that
compares with the same boundaries decides every tie in the same way.

The clipped quantiser is that of Fast-SNN (Hu et al., IEEE TPAMI 45(12), 2023): ``b`` bits are
``2**b`` uniform levels below a learned clip; 32 bits are full precision and have no quantiser.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from jaxsnn.errors import UserError


def straight_through(hard: Array, soft: Array) -> Array:
    """Value of ``hard`` (bit for bit), gradient of ``soft``; both of one shape."""
    return jax.lax.stop_gradient(hard) + (soft - jax.lax.stop_gradient(soft))


def median_level(x: Array, k: int, levels: int | None = None) -> Array:
    """Number of boundaries ``(j - 1/2) * 2**-k``, ``j = 1..levels``, that ``x`` has reached.

    ``floor(x / step + 1/2)`` alone would round the float just below a boundary up, because the sum
    rounds; the guess is therefore corrected by comparing ``x`` with the two boundaries around it.

    Args:
        x: any shape, floating point.
        k: fractional bits; the step is ``2**-k``.
        levels: highest level, ``2**k * B`` for an upper bound ``B``; None for no bound.

    Returns:
        The levels, in the shape and dtype of ``x``: whole numbers ``>= 0``.

    >>> median_level(jnp.array([-1.0, 0.24, 0.25, 0.74, 0.75, 5.0]), k=1, levels=4).tolist()
    [0.0, 0.0, 1.0, 1.0, 2.0, 4.0]
    """
    step = 2.0**-k
    guess = jnp.floor(x / step + 0.5)
    level = guess + (x >= (guess + 0.5) * step) - (x < (guess - 0.5) * step)
    return jnp.clip(level, 0, levels)


def median_quantise(x: Array, k: int, bound: float | None = None) -> Array:
    """Quantise ``x`` to ``2**-k * median_level(x)``, the ReLU included.

    The gradient is 1 on ``0 < x <= bound`` and 0 elsewhere (straight through the rounding). Source:
    Zou et al. (ISCAS 2020).

    Args:
        x: any shape, floating point.
        k: fractional bits; the step is ``2**-k``.
        bound: upper clip ``B``, None for no bound.

    >>> median_quantise(jnp.array([-1.0, 0.24, 0.25, 1.9, 5.0]), k=1, bound=2).tolist()
    [0.0, 0.0, 0.5, 2.0, 2.0]
    """
    levels = None if bound is None else round(2**k * bound)
    inside = x > 0 if bound is None else (x > 0) & (x <= bound)
    return straight_through(median_level(x, k, levels) * 2.0**-k, jnp.where(inside, x, 0))


BITS = (2, 3, 4, 5)
Ties = Literal["even", "up"]


def levels(bits: int) -> int:
    """Highest level of an activation of ``bits`` bits, and the time steps it stands for: 2^b - 1.

    Raises:
        UserError: a width that has no levels: 32 bits are full precision.

    >>> [levels(bits) for bits in BITS]
    [3, 7, 15, 31]
    """
    if bits not in BITS:
        raise UserError(
            f"bits={bits}: quantised networks have {', '.join(map(str, BITS))} bits; a network of "
            "32 bits has no levels that spikes could count"
        )
    return 2**bits - 1


def clip_level(x: Array, clip: Array, bits: int, ties: Ties = "even") -> Array:
    """Level ``0..2**bits - 1`` of ``x`` in the range ``0..clip``, whole numbers in its dtype.

    Args:
        x: any shape, floating point.
        clip: upper end of the range, a scalar above 0.
        bits: width.
        ties: to which level a value in the middle of two goes: the even one, or the upper one,
            as a neuron that fires at its threshold decides.
    """
    highest = levels(bits)
    scaled = jnp.clip(x / clip, 0, 1) * highest
    return jnp.round(scaled) if ties == "even" else median_level(scaled, 0, highest)


def clip_quantise(x: Array, clip: Array, bits: int, ties: Ties = "even") -> Array:
    """Quantise ``x`` to ``clip * level / (2**bits - 1)``, the ReLU included.

    The gradient passes to ``x`` where ``0 < x <= clip``, and above it to ``clip``, which also gets
    the rounding error of what is below: ``q - x / clip``, with q the level over the highest
    (Fast-SNN; arguments as in :func:`clip_level`).

    >>> clip_quantise(jnp.array([-1.0, 0.4, 1.2, 5.0]), jnp.float32(3.0), 2).tolist()
    [0.0, 0.0, 1.0, 3.0]
    """
    share = clip_level(x, clip, bits, ties) / levels(bits)
    above, inside = x / clip > 1, (x > 0) & (x / clip <= 1)
    slope = jnp.where(inside, share - x / clip, above)
    soft = jnp.where(inside, x, 0) + clip * stop_gradient(slope)
    return straight_through(clip * share, soft)
