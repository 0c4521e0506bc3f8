"""The register of conversion methods, and what several of them share."""

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.conversion.grid import grid_exponent, on_grid, significant_exponent
from jaxsnn.conversion.method import Kernel, Master, Method
from jaxsnn.errors import UserError
from jaxsnn.network import weight_quantisers
from jaxsnn.network.per_site import SiteMap

MOST_LEVELS = 4096  # thresholds per neuron; beyond it the table outgrows the kernels
METHODS: dict[str, Callable[..., Method]] = {}


def named(name: str) -> Callable[[Callable[..., Method]], Callable[..., Method]]:
    """Register a conversion method under a name."""

    def register(build: Callable[..., Method]) -> Callable[..., Method]:
        METHODS[name] = build
        return build

    return register


def method(name: str, options: dict[str, Any]) -> Method:
    """Build the method ``name``.

    Raises:
        UserError: there is none, an option is unknown or missing, or a value does not suit it.
    """
    if name not in METHODS:
        known = ", ".join(map(repr, sorted(METHODS)))
        raise UserError(f"unknown conversion method {name!r}; known: {known}")
    own = inspect.signature(METHODS[name]).parameters
    unknown = [option for option in options if option not in own]
    if unknown:
        raise UserError(
            f"method {name!r} has no option {', '.join(unknown)}; known: {', '.join(own) or 'none'}"
        )
    needed = [one for one, how in own.items() if how.default is how.empty and one not in options]
    if needed:
        raise UserError(
            f"method {name!r} needs {', '.join(needed)}: the values it was trained with"
        )
    return METHODS[name](**options)


def float_ends(
    hidden_weights: weight_quantisers.WeightQuantiser,
) -> SiteMap[weight_quantisers.WeightQuantiser]:
    """``hidden_weights`` everywhere but in the encoder and the heads, which stay float."""
    full = weight_quantisers.full_precision()
    return SiteMap(hidden_weights, (("readout", full), ("exit", full)), first=full)


def median_levels(k: int, bound: int | None) -> int:
    """Highest level ``2**k * bound`` of the median quantiser.

    Raises:
        UserError: no such quantiser, or more levels than a table of thresholds may have.
    """
    check_fraction(k, bound)
    if bound is None or bound < 1 or int(bound) != bound:
        raise UserError(f"k={k}, bound={bound}: k must be >= 0 and bound a whole number >= 1")
    levels = 2**k * int(bound)
    if levels > MOST_LEVELS:
        raise UserError(
            f"k={k}, bound={bound}: {levels} levels; a neuron has at most {MOST_LEVELS}, choose a "
            "smaller k or bound"
        )
    return levels


def check_fraction(k: int, bound: int | None) -> None:
    """Refuse a number of fractional bits that is none.

    Raises:
        UserError: naming both values.
    """
    if k < 0 or int(k) != k:
        raise UserError(f"k={k}, bound={bound}: k must be >= 0 and bound a whole number >= 1")


def grid_kernel(
    bits: int | None,
    site: Site,
    params: Master,
    quantiser: weight_quantisers.WeightQuantiser,
    highest: np.ndarray,
    *,
    shared: bool = True,
) -> Kernel:
    """The quantiser's own integers, else a power-of-two grid.

    ``bits`` significant bits, or the finest grid whose sums stay below 2^24: None, and where a
    bias of a site without neurons has to share the grid (``shared``).
    """
    master = np.asarray(params["kernel"], np.float32)
    if quantiser.codes is not None:
        used = quantiser.quantise(jnp.asarray(master), dict(params))
        found, unit = quantiser.codes(jnp.asarray(master), dict(params))
        codes = np.asarray(found, np.int64)
        error = float(np.max(np.abs(codes * unit - np.asarray(used)), initial=0))
        return Kernel(codes, unit, quantiser.name, error=error)
    with_bias = shared and site.bias and site.role != "activation"
    if bits is None or with_bias:
        exponent = grid_exponent(master, highest, coarsen=not with_bias)
    else:
        exponent = significant_exponent(master, bits)
    kernel, unit = on_grid(master, exponent), 2.0**-exponent
    error = float(np.max(np.abs(kernel * unit - master), initial=0))
    return Kernel(kernel, unit, "grid", exponent, error)


def float_kernel(
    site: Site, params: Master, quantiser: weight_quantisers.WeightQuantiser, highest: np.ndarray
) -> Kernel:
    """The kernel as the ANN uses it."""
    del site, highest
    used = quantiser.quantise(jnp.asarray(params["kernel"], jnp.float32), dict(params))
    return Kernel(np.asarray(used), 1.0, "float")
