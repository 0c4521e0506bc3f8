"""The end of a residual block: branch and shortcut as whole numbers on one grid.

A block's last neurons activate, with ``u`` the branch's drive and ``s`` the shortcut's (a
projection's drive, or net counts of the block's source)::

    slope * (unit * u - center) + offset + added.scale * s + added.offset

In whole numbers they see ``gain * u + shortcut_gain * s``. The branch's gain is a power of two; the
shortcut's is ``gain * added.scale / (slope * unit)``, rounded. For each channel the gain is the
smallest that makes the rounded one right to ``PRECISION``, or the largest that int32 has room for,
and both are halved as often as they can be. What this rounding moves is no difference between ANN
and spiking network: both references of a certificate take it over
(:func:`jaxsnn.conversion.snapped`).

A channel whose branch's drive moves nothing (a norm scale of 0, with which many blocks start
training; weights that have decayed), because it cannot reach ``MOVES`` of a level, has the gains 0
and 1: it keeps its shortcut and its offset. Among floats only what float32 cannot hold is dropped.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.arch.plan import PROJECTION
from jaxsnn.conversion import kernels
from jaxsnn.conversion.grid import channel_sums
from jaxsnn.conversion.kernels import EXACT_SUMS, Inputs, Kernel, Master
from jaxsnn.conversion.method import Drive, Shortcut
from jaxsnn.errors import UserError

PRECISION = 2.0**-12  # relative, of a shortcut's gain
MOVES = 2.0**-7  # of a level: what a drive has to reach that is to move anything
HELD = 2.0**-24  # of a level: the same of floats, which is what float32 holds beside one
LEAST_PRECISION = 2.0**-7  # of the largest sum: no rounding of a gain moves it by more
LARGEST = 2**30  # end of the sums of branch and shortcut, so that thresholds fit into int32, too
COUNTED = 2**21  # end of the sums of a float kernel to whose drive net counts are added, at most,
SUMS_BELOW = 2**17  # of one that shares a grid with a projection, and
ROOM = 2**8  # for gains where a method has a bound of its own


class Joined(NamedTuple):
    """Branch and shortcut as one drive.

    Attributes:
        drive: their sum, without a shortcut; its unit is 1 and its slope the value of one.
        params: what stands beside the kernel: ``gain`` and ``shortcut_gain``, int32 or float32
            ``[C]``; empty where there is no shortcut.
        gain_error: largest relative change of a shortcut's gain.
    """

    drive: Drive
    params: Mapping[str, np.ndarray]
    gain_error: float = 0.0


class Gains(NamedTuple):
    """What multiplies the two drives, float64 ``[C]``: whole numbers where kernels are."""

    branch: np.ndarray
    shortcut: np.ndarray


def sums_below(site: Site, bound: int | None = None) -> int:
    """What a float kernel's sums over all steps stay below, so that a gain has room.

    Args:
        site: whose kernel it is.
        bound: a method's, of sums with their gains; None: no sum can leave float32.
    """
    gets_gain = bool(site.shortcut) or site.role == "shortcut"
    if not gets_gain:
        return EXACT_SUMS if bound is None else bound
    if bound is not None:
        return bound // ROOM
    counted = site.shortcut and not site.shortcut.endswith(PROJECTION)
    return COUNTED if counted else SUMS_BELOW


def kernel_with_room(
    site: Site, master: Master, inputs: Inputs, step: float, coarsen: bool = True
) -> Kernel:
    """On the finest grid whose sums leave room for the gains of every channel.

    Where net counts are added, it is as coarse as the weakest branch needs: the finer a unit of its
    drive, the more of them a count is worth, and their sum has an end (``LARGEST``).

    Args:
        site: whose kernel it is.
        master: the site's params.
        inputs: what reaches the synapse.
        step: value of one count of the site's neurons.
        coarsen: see :func:`jaxsnn.conversion.kernels.finest_kernel`.
    """
    below = sums_below(site)
    kernel = kernels.finest_kernel(master, inputs, sums_below=below, coarsen=coarsen)
    while inputs.added and below > SUMS_BELOW and not _have_room(kernel, inputs, step):
        below //= 2
        kernel = kernels.finest_kernel(master, inputs, sums_below=below, coarsen=coarsen)
    return kernel


def _have_room(kernel: Kernel, inputs: Inputs, step: float) -> bool:
    """Whether branch and shortcut of every channel that moves anything have gains of 1 or more."""
    bound = channel_sums(kernel.values, inputs.highest)
    each = inputs.slope * inputs.unit * kernel.unit
    moves = moves_levels(each, int(bound.max()), step)
    sums = bound + inputs.added / np.where(moves, each, np.inf)
    return bool((sums < LARGEST - LARGEST // 1024).all())  # less what rounding a gain adds


def joined(drive: Drive, below: int = LARGEST, whole: bool = True) -> Joined:
    """Branch and shortcut on one grid.

    Args:
        drive: what the site's neurons see.
        below: bound of the sum, exclusive.
        whole: gains are whole numbers; False: floats, for kernels that are.

    Raises:
        UserError: below the bound no gains fit whose rounding moves the largest sum by at most
            ``LEAST_PRECISION`` of it.
    """
    added = drive.shortcut
    if added is None:
        return Joined(drive, {})
    each = drive.slope * drive.unit
    moves = moves_levels(each, int(drive.bound.max()), drive.step, MOVES if whole else HELD)
    share = np.where(moves, added.scale / np.where(moves, each, 1.0), 0.0)
    gains = Gains(np.ones_like(share), share)
    if whole:
        gains = _whole_gains(drive, added, share, below)
    error = _errors(gains, share).max(initial=0)
    gains = Gains(
        np.where(moves, gains.branch, 0.0), np.where(moves, gains.shortcut, added.scale > 0)
    )
    dtype = np.int32 if whole else np.float32
    params = {"gain": gains.branch.astype(dtype), "shortcut_gain": gains.shortcut.astype(dtype)}
    return Joined(_summed(drive, added, gains), params, float(error))


def moves_levels(each: np.ndarray, bound: int, step: float, least: float = MOVES) -> np.ndarray:
    """Where a drive up to ``bound``, one of which is worth ``each``, reaches ``least`` levels."""
    return each * bound >= least * step


def _whole_gains(drive: Drive, added: Shortcut, share: np.ndarray, below: int) -> Gains:
    """The smallest gains that are precise, else the largest; ``share`` is ``s`` in units of ``u``.

    Raises:
        UserError: the shortcut's rounding moves the sum by more than that of weights may, or to 0.
    """
    wanted = 0.5 / PRECISION / np.where(share > 0, share, np.inf)
    fitting = (below - added.bound) / np.maximum(drive.bound + share * added.bound, 1)
    exponent = np.minimum(
        np.ceil(np.log2(np.maximum(wanted, 1.0))), np.floor(np.log2(np.maximum(fitting, 0.25)))
    )
    gain = np.exp2(exponent)
    gains = Gains(gain, np.round(share * gain))
    moved = np.abs(gains.shortcut / gain - share) * added.bound
    coarse = moved > LEAST_PRECISION * (drive.bound + share * added.bound)
    refused = (exponent < 0) | coarse | ((share > 0) & (gains.shortcut == 0))
    if refused.any():
        channel = int(np.flatnonzero(refused)[0])
        raise UserError(
            f"{drive.site}: a shortcut's drive does not share the branch's units: in channel "
            f"{channel} one of it is {share[channel]:.3g} of those, and with whole gains whose "
            f"sums stay below {below:,} the rounding moves the largest sum by more than "
            f"{LEAST_PRECISION:.1%}; use fewer levels or a coarser weight grid"
        )
    common = np.gcd(*(each.astype(np.int64) for each in gains))
    return Gains(gains.branch / common, gains.shortcut / common)


def _errors(gains: Gains, share: np.ndarray) -> np.ndarray:
    """Relative changes of the shortcut's gain, ``[C]``."""
    exact = gains.branch * share
    return np.abs(gains.shortcut - exact) / np.where(exact > 0, exact, 1)


def _summed(drive: Drive, added: Shortcut, gains: Gains) -> Drive:
    """The drive ``gains.branch * u + gains.shortcut * s``."""
    moves = gains.branch > 0
    gain = np.where(moves, gains.branch, 1.0)
    bound = gains.branch * drive.bound + gains.shortcut * added.bound
    return drive._replace(
        slope=np.where(moves, drive.slope * drive.unit / gain, added.scale),
        center=np.where(moves, drive.center * gain / drive.unit, 0.0),
        offset=drive.offset + added.offset - np.where(moves, 0.0, drive.slope * drive.center),
        unit=1.0,
        bound=np.ceil(bound).astype(np.int64),
        shortcut=None,
    )
