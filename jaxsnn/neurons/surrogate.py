"""Surrogate gradients: a hard step forward, the derivative of something smooth backward.

The forward value is the step itself, bit for bit, for every surrogate; only what is multiplied into
the gradient differs. Each derivative is a function of ``x``, the membrane potential less the
threshold, and of a ``slope``: the larger the slope, the narrower the range in which gradients flow.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxsnn.errors import UserError

Derivative = Callable[[Array, float], Array]


def _fast_sigmoid(x: Array, slope: float) -> Array:
    return 1 / (1 + slope * jnp.abs(x)) ** 2


def _arctan(x: Array, slope: float) -> Array:
    return (slope / 2) / (1 + (jnp.pi / 2 * slope * x) ** 2)


def _sigmoid(x: Array, slope: float) -> Array:
    # not 1 - s, which has few digits left where s is near 1
    return slope * jax.nn.sigmoid(slope * x) * jax.nn.sigmoid(-slope * x)


def _triangular(x: Array, slope: float) -> Array:
    return jnp.maximum(0, 1 - slope * jnp.abs(x))


def _straight_through(x: Array, slope: float) -> Array:
    del slope
    return jnp.ones_like(x)


class Surrogate(NamedTuple):
    """A derivative, the slope that its source uses, and the source.

    Attributes:
        derivative: ``(x, slope) -> d spike / d x``, elementwise.
        slope: the usual slope.
        formula: the derivative as text, with ``a`` for the slope.
        source: where it was proposed.
    """

    derivative: Derivative
    slope: float
    formula: str
    source: str


SURROGATES: dict[str, Surrogate] = {
    "fast_sigmoid": Surrogate(
        _fast_sigmoid, 25.0, "1 / (1 + a|x|)^2", "Zenke & Vogels, Neural Computation 33, 2021"
    ),
    "arctan": Surrogate(_arctan, 2.0, "(a/2) / (1 + (pi a x / 2)^2)", "Fang et al., ICCV 2021"),
    "sigmoid": Surrogate(
        _sigmoid, 25.0, "a s (1 - s), s = 1 / (1 + exp(-a x))", "Zenke & Vogels, 2021"
    ),
    "triangular": Surrogate(_triangular, 1.0, "max(0, 1 - a|x|)", "Esser et al., PNAS 113, 2016"),
    "straight_through": Surrogate(_straight_through, 1.0, "1", "Bengio et al., 2013"),
    "superspike": Surrogate(
        _fast_sigmoid, 100.0, "1 / (1 + a|x|)^2", "Zenke & Ganguli, Neural Computation 30, 2018"
    ),
}
"""Every surrogate by name. SuperSpike is the fast sigmoid with the steeper slope of its paper."""


def surrogate(name: str) -> Surrogate:
    """The surrogate of that name.

    Raises:
        UserError: there is none; the known names are listed.
    """
    if name not in SURROGATES:
        raise UserError(f"surrogate {name!r} is unknown; choose one of {', '.join(SURROGATES)}")
    return SURROGATES[name]


def spike(x: Array, name: str = "fast_sigmoid", slope: float | None = None) -> Array:
    """The hard step ``x > 0`` as 0 or 1, with the gradient of a surrogate.

    Args:
        x: membrane potential less threshold, any shape, floating point.
        name: one of ``SURROGATES``.
        slope: how steep; None takes the usual one.

    Returns:
        The spikes, in shape and dtype of ``x``. A potential that equals the threshold does not
        spike.

    Raises:
        UserError: an unknown name, or a slope that is not above 0.

    >>> x = jnp.array([-0.04, 0.0, 0.04])
    >>> spike(x).tolist()
    [0.0, 0.0, 1.0]
    >>> jax.grad(lambda x: spike(x, "fast_sigmoid", 25).sum())(x).tolist()
    [0.25, 1.0, 0.25]
    """
    usual = surrogate(name).slope
    steep = usual if slope is None else slope
    if not steep > 0:
        raise UserError(f"slope={slope}: the slope of a surrogate is a number above 0")
    return _step(x, name, float(steep))


def _hard_step(x: Array, name: str, slope: float) -> Array:
    del name, slope
    return (x > 0).astype(x.dtype)


_step = jax.custom_jvp(_hard_step, nondiff_argnums=(1, 2))


@_step.defjvp
def _step_jvp(
    name: str, slope: float, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (x,), (change,) = primals, tangents
    return _step(x, name, slope), SURROGATES[name].derivative(x, slope) * change
