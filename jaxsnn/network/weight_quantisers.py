"""Quantisers of weights with straight-through gradients: ternary, few levels with a learned clip.

The levels below a clip are the additive powers of two of Li, Dong and Wang (ICLR 2020), as Fast-SNN
(Hu et al., IEEE TPAMI 45(12), 2023) uses them; one bit of a width is the sign.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple, ParamSpec, cast

import jax.numpy as jnp
from jax import Array
from jax.lax import stop_gradient

from jaxsnn.errors import UserError
from jaxsnn.neurons.levels import levels, straight_through
from jaxsnn.options import Options, binder

P = ParamSpec("P")


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
        is_ternary: the whole numbers are -1, 0 and +1, and stand for themselves.
        options: the factory's arguments; with the name they rebuild it (saved networks).
    """

    name: str
    quantise: Callable[[Array, Leaves], Array]
    codes: Callable[[Array, Leaves], tuple[Array, float]] | None
    learned: Callable[[], Leaves] = dict
    is_ternary: bool = False
    options: Options = ()


WEIGHTS: dict[str, Callable[..., WeightQuantiser]] = {}


def weight_quantiser(factory: Callable[P, WeightQuantiser]) -> Callable[P, WeightQuantiser]:
    """Register a factory; equal options give the same object, so jit compiles once."""

    @functools.cache
    def build(options: Options) -> WeightQuantiser:
        return rebuilt(**dict(options))._replace(options=options)

    bind, rebuilt = binder(factory), cast("Callable[..., WeightQuantiser]", factory)

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> WeightQuantiser:
        return build(bind(*args, **kwargs))

    WEIGHTS[factory.__name__] = make
    return make


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
        is_ternary=True,
    )


WEIGHT_CLIP = 3.0  # where the clip of a weight starts, in standard deviations of the weights
SMALLEST_SCALE = 1e-8  # of a kernel that is zero throughout
# Sums of one number of each set, over the largest sum, are the magnitudes (exponents of 1/2; None
# stands for zero). Two bits leave one magnitude beside zero.
_TERMS: dict[int, tuple[tuple[int | None, ...], ...]] = {
    2: ((None, 0),),
    3: ((None, 1, 2, 3),),
    4: ((None, 1, 2, 4), (None, 3)),
    5: ((None, 1, 3, 5), (None, 2, 4, 6)),
}


def magnitudes(bits: int) -> tuple[Fraction, ...]:
    """Magnitudes of the weights as shares of the clip, ascending from 0 to 1.

    >>> [str(magnitude) for magnitude in magnitudes(4)]
    ['0', '1/10', '1/5', '3/10', '2/5', '3/5', '4/5', '1']
    """
    levels(bits)
    sets = [
        [Fraction(0) if e is None else Fraction(1, 2**e) for e in terms] for terms in _TERMS[bits]
    ]
    sums = sorted({sum(chosen, Fraction(0)) for chosen in itertools.product(*sets)})
    return tuple(one / sums[-1] for one in sums)


def whole_magnitudes(bits: int) -> tuple[int, ...]:
    """The same magnitudes as the smallest whole numbers in their proportions.

    >>> whole_magnitudes(3), whole_magnitudes(4)
    ((0, 1, 2, 4), (0, 1, 2, 3, 4, 6, 8, 10))
    """
    shares = magnitudes(bits)
    unit = min(share for share in shares if share)
    while any((share / unit).denominator > 1 for share in shares):
        unit /= 2
    return tuple(int(share / unit) for share in shares)


def standardised(kernel: Array) -> Array:
    """``(kernel - mean) / deviation`` over the whole tensor, both constants for the gradient."""
    mean, deviation = jnp.mean(kernel), jnp.std(kernel, ddof=1)
    return (kernel - stop_gradient(mean)) / stop_gradient(jnp.maximum(deviation, SMALLEST_SCALE))


def _chosen(shares: Array, values: Sequence[float], bits: int) -> Array:
    """The signed entry of ``values`` whose magnitude is nearest; a tie takes the smaller one.

    One comparison for each middle, which a CPU computes for many weights at once; a search and a
    lookup it does not.
    """
    places = itertools.pairwise(float(share) for share in magnitudes(bits))
    size, nearest = jnp.abs(shares), jnp.full_like(shares, values[0])
    for (below, above), value in zip(places, values[1:], strict=True):
        nearest = jnp.where(size > (below + above) / 2, jnp.asarray(value, size.dtype), nearest)
    return jnp.sign(shares) * nearest


def project(weights: Array, clip: Array, bits: int) -> Array:
    """Put standardised weights on the levels ``clip * magnitude`` with their sign.

    The gradient passes to the weights everywhere, and to ``clip`` the sign of what is clipped and
    the rounding error, over the clip, of the rest.

    Args:
        weights: any shape, floating point.
        clip: a scalar above 0, in the units of ``weights``.
        bits: width, sign included.

    >>> project(jnp.array([-4.0, -2.0, -0.9, 0.2, 1.0, 3.5]), jnp.float32(3.0), 3).tolist()
    [-3.0, -1.5, -0.75, 0.0, 0.75, 3.0]
    """
    shares = weights / clip
    nearest = _chosen(shares, [float(share) for share in magnitudes(bits)], bits)
    slope = jnp.where(jnp.abs(shares) > 1, jnp.sign(shares), nearest - shares)
    return straight_through(clip * nearest, weights + clip * stop_gradient(slope))


@weight_quantiser
def clipped_levels(*, bits: int, clip: float = WEIGHT_CLIP) -> WeightQuantiser:
    """Standardised weights on additive powers of two, or ternary (2 bits), times a clip.

    The kernel that is used is not scaled back: a norm behind it absorbs the scale.

    Args:
        bits: width, sign included.
        clip: where the learned leaf ``kernel_clip`` starts.

    Raises:
        UserError: a width that has no levels.
    """
    whole = whole_magnitudes(bits)

    def codes(kernel: Array, leaves: Leaves) -> tuple[Array, float]:
        shares = standardised(kernel) / leaves["kernel_clip"]
        return _chosen(shares, whole, bits), float(leaves["kernel_clip"]) / whole[-1]

    return WeightQuantiser(
        "clipped_levels",
        lambda kernel, leaves: project(standardised(kernel), leaves["kernel_clip"], bits),
        codes,
        lambda: {"kernel_clip": jnp.float32(clip)},
    )


@weight_quantiser
def symmetric(*, bits: int = 8) -> WeightQuantiser:
    """Whole multiples of ``max |kernel| / (2**(bits-1) - 1)``; identity gradient.

    Of the first and the last layer. The original scales by the largest weight with its sign, whose
    codes can leave their range.

    Raises:
        UserError: ``bits`` outside 2 to 16.
    """
    if not 2 <= bits <= 16:
        raise UserError(f"bits={bits}: a symmetric quantiser has 2 to 16 bits")
    highest = 2 ** (bits - 1) - 1

    def scale(kernel: Array) -> Array:
        return jnp.maximum(jnp.max(jnp.abs(kernel)), SMALLEST_SCALE)

    def codes(kernel: Array) -> Array:
        return jnp.round(kernel / scale(kernel) * highest)

    return WeightQuantiser(
        "symmetric",
        lambda kernel, leaves: straight_through(codes(kernel) / highest * scale(kernel), kernel),
        lambda kernel, leaves: (codes(kernel), float(scale(kernel)) / highest),
    )
