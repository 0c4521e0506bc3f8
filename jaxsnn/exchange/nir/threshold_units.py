"""Scatter and gather in NIR: every threshold unit a neuron, so written that all simulators agree.

A unit fires iff its drive ``u`` (a whole number) reaches its threshold ``theta``, once, in the one
step that the network has. As ``IF`` with the same threshold M for all units, a power of two::

    v = u + (M + 1/2 - theta),   M > |u| + |theta|

it fires iff ``v > M``. No potential is at the threshold, so ``>`` and ``>=`` are the same; none
holds two thresholds or lies below 0, so several spikes and floors make no difference; and of what a
reset or a leak would do nothing is seen, because there is no second step. All numbers are multiples
of 1/2 below 2 M, which float32 holds up to 2^23.

Where a network has more steps, a unit is a ``Threshold``, which has no memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.errors import UserError
from jaxsnn.exchange.nir.draft import Draft, Signal
from jaxsnn.exchange.nir.kernels import outputs, synapse, unit_sums
from jaxsnn.exchange.nir.simulators import Simulator

if TYPE_CHECKING:
    from nir import NIRNode

LARGEST = 2**22  # of M: 2 M is the end of the half numbers of float32
SUMS_BELOW = 2**21  # sums below it always fit, for a threshold counts up to the largest sum
LEAK = 1.0  # time constant in seconds where a simulator has no neuron without a leak


def add_units(
    draft: Draft,
    site: Site,
    kernel: np.ndarray,
    thresholds: np.ndarray,
    bound: int,
    source: Signal,
    simulator: Simulator | None,
    one_step: bool,
) -> Signal:
    """Synapse and threshold units of a site; max pooling, too.

    Args:
        draft: the graph.
        site: of the network.
        kernel: whole numbers, ``site.kernel_shape``.
        thresholds: int ``[levels, C]``; beyond ``bound`` never or always reached.
        bound: largest possible ``|u|``.
        source: what comes in.
        simulator: who is to run it.
        one_step: units are neurons, which forget nothing within their one step.

    Raises:
        UserError: numbers that float32 does not hold, with the option of the conversion that
            keeps them small enough.
    """
    theta = np.clip(thresholds.astype(np.int64), -bound - 1, bound + 1)
    offset = _offset(site, bound + int(np.abs(theta).max()), simulator) if one_step else 0
    bias = (offset + 0.5 - theta).ravel()  # [levels, C], unit by unit
    conv = synapse(draft, site, kernel, bias, source)
    name = draft.add(site.name, conv, *source.nodes)
    node = _neuron(draft, outputs(conv), offset, simulator)
    spikes = draft.add(f"{site.name}_units", node, name)
    channels, height, width = outputs(conv)
    levels = len(thresholds)
    signal = Signal((spikes,), (channels // levels, height, width), levels)
    pool = site.max_pool
    if pool is None:
        return signal
    if (pool.stride, pool.padding) != (pool.size, 0):
        raise UserError(
            f"{site.name}: the windows of its max pool overlap or are padded, which no pool of NIR "
            "does; use windows side by side, strides or an average pool"
        )
    return _any(draft, site, signal, pool.size, simulator, one_step)


def _any(
    draft: Draft, site: Site, source: Signal, size: int, simulator: Simulator | None, one_step: bool
) -> Signal:
    """The largest drive of a window reaches a threshold iff any of its drives does."""
    offset = _power_above(size * size + 1) if one_step else 0
    conv = unit_sums(draft, source, size, offset - 0.5)
    name = draft.add(f"{site.name}_windows", conv, *source.nodes)
    node = _neuron(draft, outputs(conv), offset, simulator)
    spikes = draft.add(f"{site.name}_pooled", node, name)
    return Signal((spikes,), (source.shape[0], *outputs(conv)[1:]), source.units)


def _neuron(
    draft: Draft, shape: tuple[int, int, int], threshold: int, simulator: Simulator | None
) -> NIRNode:
    """What fires above ``threshold``; without an offset a stateless node."""
    import nir

    level = draft.full(shape, threshold)
    if not threshold:
        return nir.Threshold(level)
    zero = draft.full(shape, 0)
    if simulator is Simulator.SNNTORCH:
        tau, r = draft.full(shape, LEAK), draft.full(shape, LEAK / draft.dt)
        return nir.LIF(tau, r, zero, level, v_reset=zero)
    return nir.IF(draft.full(shape, 1 / draft.dt), level, v_reset=zero)


def _offset(site: Site, reach: int, simulator: Simulator | None) -> int:
    offset = _power_above(reach)
    if offset > LARGEST:
        who = simulator.value if simulator else "whoever runs it in float32"
        raise UserError(
            f"{site.name}: drives and thresholds reach {reach} together, but {who} holds half "
            f"numbers only below 2^23, so that together they have to stay below 2^22; convert on a "
            f"coarser grid, with methods.scatter_gather(..., sums_below=2**21)"
        )
    return offset


def _power_above(value: int) -> int:
    """The smallest power of two above ``value``."""
    return 1 << value.bit_length()
