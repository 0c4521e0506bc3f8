"""Activation and weight quantisers with straight-through gradients.

The activation quantiser is the median quantiser of Zou et al. (ISCAS 2020): with step ``2**-k``
the level of ``x`` is the number of boundaries ``(j - 1/2) * 2**-k``, ``j >= 1``, that it reached. A
value on a boundary belongs to the upper level (half up); no tolerance is added anywhere, so a
spiking neuron that compares with the same boundaries decides every tie in the same way.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


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


def ternary_codes(kernel: Array) -> Array:
    """Signs of the weights at least ``0.7 * mean(|kernel|)`` away from zero: -1, 0 or +1.

    One magnitude serves the whole tensor. Shape and dtype of ``kernel``. Source: Li, Zhang and Liu
    (2016), as used by Zou et al. (Front. Neurosci. 15:694170, 2021).

    >>> ternary_codes(jnp.array([1.0, -1.0, 0.2, -0.2])).tolist()
    [1.0, -1.0, 0.0, 0.0]
    """
    magnitude = 0.7 * jnp.mean(jnp.abs(kernel))
    return (kernel >= magnitude).astype(kernel.dtype) - (kernel <= -magnitude).astype(kernel.dtype)


Leaves = dict[str, Array]


class WeightQuantiser(NamedTuple):
    """How a float master kernel becomes the kernel that is used.

    Attributes:
        name: the factory's name, and
        quantise: ``(kernel, leaves) -> kernel`` of the same shape and dtype, with a
            straight-through gradient.
        codes: ``(kernel, leaves) -> (whole numbers, value of one unit)``, or None where the kernel
            has no integer form of its own (conversion then puts it on a power-of-two grid).
        learned: default leaves that training may change (a clip), scalars.
        options: the factory's arguments; with the name they rebuild it (saved networks).
    """

    name: str
    quantise: Callable[[Array, Leaves], Array]
    codes: Callable[[Array, Leaves], tuple[Array, float]] | None
    learned: Callable[[], Leaves] = dict
    options: tuple[tuple[str, Any], ...] = ()


WEIGHTS: dict[str, Callable[..., WeightQuantiser]] = {}


def weight_quantiser(factory: Callable[..., WeightQuantiser]) -> Callable[..., WeightQuantiser]:
    """Register a factory; equal options give the same object, so jit compiles once."""

    @functools.cache
    def build(**options: Any) -> WeightQuantiser:
        return factory(**options)._replace(options=tuple(options.items()))

    WEIGHTS[factory.__name__] = build
    return functools.wraps(factory)(build)


@weight_quantiser
def full_precision() -> WeightQuantiser:
    """Use the master kernel as it is."""
    return WeightQuantiser("full_precision", lambda kernel, leaves: kernel, None)


@weight_quantiser
def ternary() -> WeightQuantiser:
    """Weights -1, 0, +1 without a scale (batch norm absorbs it); identity gradient."""
    return WeightQuantiser(
        "ternary",
        lambda kernel, leaves: straight_through(ternary_codes(kernel), kernel),
        lambda kernel, leaves: (ternary_codes(kernel), 1.0),
    )
