"""Conversion methods by name: how each folds kernels and thresholds (see :mod:`jaxsnn.fold`).

A method is a function of ``k``, ``bound`` and its own options that returns a :class:`Method`.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsnn import neurons, quant
from jaxsnn.arch import Site
from jaxsnn.fold import ALWAYS, NEVER, Drive, Kernel, Method
from jaxsnn.grid import grid_exponent, on_grid, significant_exponent
from jaxsnn.neurons.tracking import FRACTION_BITS
from jaxsnn.sitemap import SiteMap

MOST_LEVELS = 4096  # thresholds per neuron; beyond it the table outgrows the kernels
METHODS: dict[str, Callable[..., Method]] = {}


def method(name: str, k: int, bound: int | None, options: dict[str, Any]) -> Method:
    """Build the method ``name``.

    Raises:
        ValueError: there is none, it has no such option, or ``k`` or ``bound`` does not suit it.
    """
    if name not in METHODS:
        known = ", ".join(map(repr, sorted(METHODS)))
        raise ValueError(f"unknown conversion method {name!r}; known: {known}")
    if k < 0 or int(k) != k:
        raise ValueError(f"k={k}, bound={bound}: k must be >= 0 and bound a whole number >= 1")
    own = list(inspect.signature(METHODS[name]).parameters)[2:]
    unknown = [option for option in options if option not in own]
    if unknown:
        raise ValueError(
            f"method {name!r} has no option {', '.join(unknown)}; known: {', '.join(own) or 'none'}"
        )
    return METHODS[name](k, bound, **options)


def _named(name: str) -> Callable[[Callable[..., Method]], Callable[..., Method]]:
    def register(build: Callable[..., Method]) -> Callable[..., Method]:
        METHODS[name] = build
        return build

    return register


def float_ends(hidden_weights: quant.WeightQuantiser) -> SiteMap[quant.WeightQuantiser]:
    """``hidden_weights`` everywhere but in the encoder and the heads, which stay float."""
    full = quant.full_precision()
    return SiteMap(hidden_weights, (("readout", full), ("exit", full)), first=full)


def _levels(k: int, bound: int | None) -> int:
    if bound is None or bound < 1 or int(bound) != bound:
        raise ValueError(f"k={k}, bound={bound}: k must be >= 0 and bound a whole number >= 1")
    levels = 2**k * int(bound)
    if levels > MOST_LEVELS:
        raise ValueError(
            f"k={k}, bound={bound}: {levels} levels; a neuron has at most {MOST_LEVELS}, choose a "
            "smaller k or bound"
        )
    return levels


# ---------------------------------------------------------------- kernels


def _grid_kernel(
    bits: int | None,
    site: Site,
    master: np.ndarray,
    quantiser: quant.WeightQuantiser,
    highest: np.ndarray,
) -> Kernel:
    """The quantiser's own integers, else a power-of-two grid.

    ``bits`` significant bits, or the finest grid whose sums stay below 2^24: None, and wherever a
    bias shares the grid.
    """
    if quantiser.codes is not None:
        codes, unit = quantiser.codes(jnp.asarray(master))
        return Kernel(np.asarray(codes, np.int64), unit, quantiser.name)
    with_bias = site.bias and site.role != "activation"
    if bits is None or with_bias:
        exponent = grid_exponent(master, highest, coarsen=not with_bias)
    else:
        exponent = significant_exponent(master, bits)
    kernel, unit = on_grid(master, exponent), 2.0**-exponent
    error = float(np.max(np.abs(kernel * unit - master), initial=0))
    return Kernel(kernel, unit, "grid", exponent, error)


def _float_kernel(
    site: Site, master: np.ndarray, quantiser: quant.WeightQuantiser, highest: np.ndarray
) -> Kernel:
    """The kernel as the ANN uses it."""
    del site, highest
    return Kernel(np.asarray(quantiser.quantise(jnp.asarray(master))), 1.0, "float")


# ---------------------------------------------------------------- scatter and gather


@_named("scatter")
def scatter(k: int, bound: int | None) -> Method:
    """Every neuron becomes ``2**k * bound`` threshold units; one time step."""
    levels, step = _levels(k, bound), 2.0**-k
    return Method(
        neuron=neurons.threshold_count(levels),
        step=step,
        spikes=levels,
        weights=float_ends(quant.ternary()),
        kernel=functools.partial(_grid_kernel, None),
        leaves=functools.partial(_threshold_table, levels, step),
    )


def _threshold_table(
    levels: int, step: float, drive: Drive
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """int32 ``[levels, C]``: smallest integer drive at which the level is at least j."""
    boundary = (np.arange(1, levels + 1) - 0.5)[:, None] * step
    theta = np.ceil(drive.reaching(boundary))
    constant = np.where(drive.offset >= boundary, ALWAYS, NEVER)
    table = np.where(drive.slope == 0, constant, np.clip(theta, ALWAYS, NEVER))
    return {"thresholds": table.astype(np.int32)}, np.asarray(levels)


# ---------------------------------------------------------------- negative spikes


@_named("negative")
def negative(
    k: int,
    bound: int | None,
    highest: int = 127,
    bits: int | None = 7,
    exact: bool = True,
    per_step: int = 1,
    rising: bool = False,
) -> Method:
    """Every neuron tracks its level with spikes +1 and -1; input and biases are given once.

    Args:
        k: fractional bits.
        bound: upper bound of the activation, None for none.
        highest: largest net count where there is no ``bound``; a larger level is cut there.
        bits: significant bits of the largest weight (7 or fewer are stored as int8); None for the
            finest grid whose sums over all steps stay below 2^24.
        exact: integers throughout; False keeps the float weights and thresholds, for comparison.
        per_step: largest spike count of one step, and
        rising: no positive spike while the potential falls: see :func:`jaxsnn.neurons.tracking`.
    """
    step, cap = 2.0**-k, highest if bound is None else _levels(k, bound)
    if bits is not None and not 1 <= bits <= 24:
        raise ValueError(f"bits={bits}: a weight has 1 to 24 significant bits")
    leaves = _even_integers if exact else _even_floats
    return Method(
        neuron=neurons.tracking(cap, per_step, rising),
        encoder=neurons.tracking(cap, per_step) if rising else None,
        step=step,
        spikes=per_step,
        weights=SiteMap(quant.full_precision()),
        kernel=functools.partial(_grid_kernel, bits) if exact else _float_kernel,
        leaves=functools.partial(leaves, cap, step),
        threshold_grid=2.0**-FRACTION_BITS if exact else 0.0,
        refusal=_pooled_later,
        once=True,
    )


def _pooled_later(site: Site) -> str:
    if getattr(site.spec, "max_pool", 0) and site.source != "input":
        return (
            "the largest current of every step does not add up to the largest sum; use an average "
            "pool or a learned one (pool='avg', pool='conv')"
        )
    return ""


def _spacing(step: float, drive: Drive) -> tuple[np.ndarray, np.ndarray]:
    """First threshold and distance of the thresholds, float64 ``[C]``, in drive units."""
    safe = np.where(drive.slope == 0, 1.0, drive.slope) * drive.unit
    return drive.reaching(0.5 * step), step / safe


def _constant(cap: int, step: float, drive: Drive) -> tuple[np.ndarray, np.ndarray]:
    """Which channels have one level whatever their drive, bool ``[C]``, and that level."""
    first, each = _spacing(step, drive)
    lowest, highest = (
        np.clip(np.floor((drive_end - first) / each) + 1, 0, cap)
        for drive_end in (-drive.bound, drive.bound)
    )
    level = np.clip(np.floor(drive.offset / step + 0.5), 0, cap)
    zero = drive.slope == 0
    return zero | (lowest == highest), np.where(zero, level, lowest).astype(np.int64)


def _even_integers(cap: int, step: float, drive: Drive) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Leaves of the tracking neuron for whole drives; largest counts that a drive can reach."""
    constant, level = _constant(cap, step, drive)
    one = 1 << FRACTION_BITS
    first, each = (
        np.where(constant, 0, np.clip(value * one, -(2.0**60), 2.0**60)).round().astype(np.int64)
        for value in _spacing(step, drive)
    )
    reached = (drive.bound * one - first) // np.maximum(each, 1) + 1
    highest = np.where(constant, level, np.clip(reached, 0, cap))
    first = first + one - 1  # so that a shift gives the ceiling
    each = np.where(highest > 1, each, 0)  # no second threshold is in reach
    fixed = constant | (highest == 0)
    span = (first + (highest - 1) * each) // one - first // one
    _check_span(drive, ~fixed & ((first // one < ALWAYS) | (span > NEVER)))
    leaves = {
        "first": np.where(fixed, ALWAYS, first // one),
        "step": each // one,
        "first_fraction": np.where(fixed, 0, first % one),
        "step_fraction": each % one,
        "highest": highest,
    }
    return {name: value.astype(np.int32) for name, value in leaves.items()}, highest


def _check_span(drive: Drive, beyond: np.ndarray) -> None:
    if beyond.any():
        channel = int(np.flatnonzero(beyond)[0])
        raise ValueError(
            f"{drive.site}: the thresholds of channel {channel} leave int32, because its norm "
            f"scale is tiny (slope {drive.slope[channel]:.3g}); set that scale to 0, which makes "
            "the channel constant"
        )


def _even_floats(cap: int, step: float, drive: Drive) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Leaves of the tracking neuron for float drives."""
    constant, level = _constant(cap, step, drive)
    first, each = _spacing(step, drive)
    highest = np.where(constant, level, cap)
    none = np.zeros(len(first), np.int32)
    leaves = {
        "first": np.where(constant, -np.inf, first).astype(np.float32),
        "step": np.where(constant, 0, each).astype(np.float32),
        "first_fraction": none,
        "step_fraction": none,
        "highest": highest.astype(np.int32),
    }
    return leaves, highest
