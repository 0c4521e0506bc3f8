"""Negative spikes: evenly spaced thresholds that a net count follows (Zou et al., 2023)."""

import functools

import numpy as np

from jaxsnn import neurons
from jaxsnn.arch.layers import Site
from jaxsnn.conversion.method import ALWAYS, NEVER, Cells, Drive, Method
from jaxsnn.conversion.methods.shared import (
    check_fraction,
    float_kernel,
    grid_kernel,
    median_levels,
    named,
)
from jaxsnn.errors import UserError
from jaxsnn.network import weight_quantisers
from jaxsnn.network.per_site import SiteMap
from jaxsnn.neurons.tracking import FRACTION_BITS


@named("negative")
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
    check_fraction(k, bound)
    cap = highest if bound is None else median_levels(k, bound)
    if bits is not None and not 1 <= bits <= 24:
        raise UserError(f"bits={bits}: a weight has 1 to 24 significant bits")
    cells = _even_integers if exact else _even_floats
    return Method(
        ann=neurons.quantised_relu(k, None if bound is None else int(bound)),
        neuron=neurons.tracking(cap, per_step, rising),
        encoder=neurons.tracking(cap, per_step) if rising else None,
        step=lambda site, params: 2.0**-k,
        spikes=per_step,
        weights=SiteMap(weight_quantisers.full_precision()),
        kernel=functools.partial(grid_kernel, bits) if exact else float_kernel,
        cells=functools.partial(cells, cap),
        refusal=_pooled_later,
        presentations=("onset",),
    )


def _pooled_later(site: Site) -> str:
    if getattr(site.spec, "max_pool", 0) and site.source != "input":
        return (
            "the largest current of every step does not add up to the largest sum; use an average "
            "pool or a learned one (pool='avg', pool='conv')"
        )
    return ""


def _spacing(drive: Drive) -> tuple[np.ndarray, np.ndarray]:
    """First threshold and distance of the thresholds, float64 ``[C]``, in drive units."""
    safe = np.where(drive.slope == 0, 1.0, drive.slope) * drive.unit
    return drive.reaching(0.5 * drive.step), drive.step / safe


def _constant(cap: int, drive: Drive) -> tuple[np.ndarray, np.ndarray]:
    """Which channels have one level whatever their drive, bool ``[C]``, and that level."""
    first, each = _spacing(drive)
    lowest, highest = (
        np.clip(np.floor((drive_end - first) / each) + 1, 0, cap)
        for drive_end in (-drive.bound, drive.bound)
    )
    level = np.clip(np.floor(drive.offset / drive.step + 0.5), 0, cap)
    zero = drive.slope == 0
    return zero | (lowest == highest), np.where(zero, level, lowest).astype(np.int64)


def _even_integers(cap: int, drive: Drive) -> Cells:
    """Leaves of the tracking neuron for whole drives; largest counts that a drive can reach."""
    constant, level = _constant(cap, drive)
    one = 1 << FRACTION_BITS
    first, each = (
        np.where(constant, 0, np.clip(value * one, -(2.0**60), 2.0**60)).round().astype(np.int64)
        for value in _spacing(drive)
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
    whole = {name: value.astype(np.int32) for name, value in leaves.items()}
    return Cells(whole, highest, threshold_grid=2.0**-FRACTION_BITS)


def _check_span(drive: Drive, beyond: np.ndarray) -> None:
    if beyond.any():
        channel = int(np.flatnonzero(beyond)[0])
        raise UserError(
            f"{drive.site}: the thresholds of channel {channel} leave int32, because its norm "
            f"scale is tiny (slope {drive.slope[channel]:.3g}); set that scale to 0, which makes "
            "the channel constant"
        )


def _even_floats(cap: int, drive: Drive) -> Cells:
    """Leaves of the tracking neuron for float drives."""
    constant, level = _constant(cap, drive)
    first, each = _spacing(drive)
    highest = np.where(constant, level, cap)
    none = np.zeros(len(first), np.int32)
    leaves = {
        "first": np.where(constant, -np.inf, first).astype(np.float32),
        "step": np.where(constant, 0, each).astype(np.float32),
        "first_fraction": none,
        "step_fraction": none,
        "highest": highest.astype(np.int32),
    }
    return Cells(leaves, highest)
