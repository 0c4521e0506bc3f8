"""Signed integrate and fire: T = 2^b - 1 steps of a held input (Hu et al., Fast-SNN, 2023).

Kernels are whole numbers times one scale per layer, so scale, norm and bias go into thresholds and
biases per channel, all on a grid of ``1 / gain`` drive units, where ``gain`` is a power of two::

    V += gain * drive + bias,    fires at threshold = gain * step / (slope * unit)

with ``step = clip / T`` the quantisation step, and the bias that of one step. Rounding to the grid
moves level ``j`` by at most ``(T + j) / 2`` grid units; nothing else differs from the quantised ANN
but the order in which spikes come. At the end of a residual block the shortcut's drive, or the
spikes of the block's source, are added with a gain of their own on the same grid.
"""

import functools

import numpy as np

from jaxsnn import neurons
from jaxsnn.arch.layers import Site
from jaxsnn.conversion.method import Cells, Drive, Method, Shortcut
from jaxsnn.conversion.methods.shared import grid_kernel, named
from jaxsnn.errors import UserError
from jaxsnn.network import weight_quantisers
from jaxsnn.network.per_site import SiteMap
from jaxsnn.neurons import levels

MOST = 2**29  # a potential is less than four times it, in int32
FINEST = 2**20  # largest gain
CONSTANT = 2**16  # threshold of a channel that no drive reaches
LARGEST_OFFSET = 4.0  # of a constant channel, in clips: beyond one nothing changes


def quantised_weights(bits: int) -> SiteMap[weight_quantisers.WeightQuantiser]:
    """The weight quantisers of a network of ``bits`` bits: 8 in the first and the last layer."""
    ends = weight_quantisers.symmetric(bits=8)
    hidden = weight_quantisers.clipped_levels(bits=bits)
    return SiteMap(hidden, (("readout", ends), ("exit", ends)), first=ends)


@named("signed_if")
def signed_if(
    bits: int,
    signed: bool = True,
    settling: bool = False,
    kernel_bits: int | None = None,
    negative_threshold: float = neurons.NEGATIVE_THRESHOLD,
) -> Method:
    """Every neuron integrates and fires, for ``2**bits - 1`` steps; it may take spikes back.

    Args:
        bits: width that the network was trained with.
        signed: neurons emit negative spikes (False: the usual integrate-and-fire neuron).
        settling: the input and all biases still end after ``2**bits - 1`` steps, but the network
            runs on and settles: net counts stay in ``0..2**bits - 1`` and a potential below 0, with
            no tolerance, takes a spike back. The ANN then rounds half up, as the neuron does.
        kernel_bits: significant bits of kernels that have no whole numbers of their own (7: int8);
            None for the finest grid whose sums stay below 2^24.
        negative_threshold: at or below it a neuron takes a spike back, in the units of the
            activation whatever the clip is; without effect on ``settling``.

    Raises:
        UserError: a width without levels, ``settling`` without negative spikes, or a negative
            threshold that is not below 0.
    """
    steps = levels.levels(bits)
    if not negative_threshold < 0:
        raise UserError(f"negative_threshold={negative_threshold}: give a number below 0")
    if settling and not signed:
        raise UserError("settling=True: only signed neurons come to rest at their level")
    return Method(
        ann=neurons.clipped_relu(bits, "up" if settling else "even"),
        neuron=neurons.integrate_and_fire(signed, levels=steps, bounded=settling),
        step=lambda site, params: float(params["clip"]) / steps,
        spikes=1,
        weights=quantised_weights(bits),
        kernel=functools.partial(grid_kernel, kernel_bits),
        cells=functools.partial(
            _fixed_point, steps, negative_threshold if signed else None, settling
        ),
        refusal=_pooled,
        duration=steps,
        shortcuts=True,
        head_gain=FINEST,
        into="thresholds and bias on a finer grid",
    )


def _pooled(site: Site) -> str:
    if getattr(site.spec, "max_pool", 0):
        return "a max pool acts on currents without their bias; use strides or an average pool"
    return ""


def _fixed_point(steps: int, below: float | None, settling: bool, drive: Drive) -> Cells:
    """Leaves of the integrate-and-fire neuron, gains and the biases of a step, int32 ``[C]``."""
    constant = drive.slope == 0
    unit = np.where(constant, drive.step / CONSTANT, drive.slope * drive.unit)
    added = drive.shortcut or Shortcut(np.zeros(1), np.zeros(1), 0)
    threshold, share = drive.step / unit, added.scale / unit  # in units of the drive
    bias = (drive.offset - drive.slope * drive.center + added.offset) / (unit * steps)
    if drive.shortcut is None:
        most = LARGEST_OFFSET * CONSTANT
        bias = np.where(constant, np.clip(bias, -most, most), bias)
    reach = np.where(constant, 0, drive.bound) + steps * np.abs(bias) + threshold
    reach = reach + np.abs(share) * added.bound
    _check_reach(drive, reach)
    finest = np.exp2(np.floor(np.log2(MOST / reach)))
    gain = np.where(constant & (drive.shortcut is None), 1, np.minimum(finest, FINEST))
    fires = np.maximum(np.round(threshold * gain), 1)
    leaves = {"threshold": fires, "initial": fires // 2}
    if below is not None:
        # An absolute number in the units of the activation, which a clip is not; see the neuron.
        absolute = below / (unit * steps)
        lowest = np.full_like(fires, -1) if settling else np.floor(absolute * gain)
        leaves["negative_threshold"] = lowest
    params = {"gain": np.where(constant, 0, gain), "bias": np.round(bias * gain)}
    if drive.shortcut is not None:
        params["shortcut_gain"] = np.round(share * gain)
    return Cells(
        {name: leaf.astype(np.int32) for name, leaf in leaves.items()},
        np.asarray(steps),
        {name: leaf.astype(np.int32) for name, leaf in params.items()},
    )


def _check_reach(drive: Drive, reach: np.ndarray) -> None:
    """Refuse a channel whose potential would leave int32 even on the coarsest grid."""
    if (reach >= MOST).any():
        channel = int(np.flatnonzero(reach >= MOST)[0])
        raise UserError(
            f"{drive.site}: the potential of channel {channel} leaves int32, because its slope "
            f"is {drive.slope[channel]:.3g} beside its bias and clip; set a tiny norm scale to 0, "
            "which makes the channel constant"
        )
