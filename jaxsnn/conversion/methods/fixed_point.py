"""Signed integrate and fire: T = 2^b - 1 steps of a held input, potentials in fixed point.

Kernels are whole numbers times one scale per layer, so scale, norm and bias go into thresholds and
biases per channel, all on a grid of ``1 / gain`` drive units, where ``gain`` is a power of two::

    V += gain * drive + bias,    fires at threshold = gain * step / (slope * unit)

with ``step = clip / T`` the quantisation step, and the bias that of one step. Rounding to the grid
moves level ``j`` by at most ``(T + j) / 2`` grid units; nothing else differs from the quantised ANN
but the order in which spikes come. At the end of a residual block the shortcut's drive, or the
spikes of the block's source, are added with a gain of their own on the same grid.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxsnn import neurons
from jaxsnn.arch.layers import Site
from jaxsnn.conversion import kernels
from jaxsnn.conversion.kernels import Inputs, Kernel, Master
from jaxsnn.conversion.method import NO_SHORTCUT, Cells, Drive, Method
from jaxsnn.conversion.weights import quantised_weights
from jaxsnn.errors import UserError
from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.weight_quantisers import WeightQuantiser
from jaxsnn.neurons import levels
from jaxsnn.neurons.neuron import Neuron

MOST = 2**29  # a potential is less than four times it, in int32
FINEST = 2**20  # largest gain
CONSTANT = 2**16  # threshold of a channel that no drive reaches
LARGEST_OFFSET = 4.0  # of a constant channel, in clips: beyond one nothing changes


@dataclass(frozen=True, kw_only=True)
class SignedIF(Method):
    """Every neuron integrates and fires, for ``2**bits - 1`` steps; it may take spikes back.

    The network was trained with :func:`jaxsnn.neurons.clipped_relu` of the same width, whose clips
    become thresholds. Source: Hu et al., Fast-SNN, IEEE TPAMI 45(12), 2023.

    Attributes:
        bits: width of an activation, 2 to 5: ``2**bits`` levels below a learned clip.
        signed: neurons emit negative spikes (False: the usual integrate-and-fire neuron).
        settling: the input and all biases still end after ``2**bits - 1`` steps, but the network
            runs on and settles: net counts stay in ``0..2**bits - 1`` and a potential below 0, with
            no tolerance, takes a spike back. The ANN then rounds half up, as the neuron does, and
            net counts are its levels, bit for bit.
        weight_bits: significant bits of the largest weight of a kernel that has no whole numbers of
            its own, 1 to 24 (7: int8); None: the finest grid whose sums stay below 2^24.
        negative_threshold: at or below it a neuron takes a spike back, in the units of the
            activation whatever the clip is; below 0, and without effect on ``settling``.

    Raises:
        UserError: a width without levels, ``settling`` without negative spikes, or a value that is
            none of these.

    >>> SignedIF(bits=3).duration
    7
    """

    bits: int
    signed: bool = True
    settling: bool = False
    weight_bits: int | None = None
    negative_threshold: float = neurons.NEGATIVE_THRESHOLD
    name: ClassVar[str] = "signed_if"
    shortcuts: ClassVar[bool] = True
    head_gain: ClassVar[int] = FINEST
    destination: ClassVar[str] = "thresholds and bias on a finer grid"

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        levels.levels(self.bits)
        kernels.check_bits(self.weight_bits)
        if not self.negative_threshold < 0:
            raise UserError(f"negative_threshold={self.negative_threshold}: give a number below 0")
        if self.settling and not self.signed:
            raise UserError("settling=True: only signed neurons come to rest at their level")

    @property
    def duration(self) -> int:
        """One step for every level."""
        return levels.levels(self.bits)

    @property
    def activation(self) -> Neuron:
        """ReLU below a learned clip, quantised."""
        return neurons.clipped_relu(self.bits, "up" if self.settling else "even")

    @property
    def neuron(self) -> Neuron:
        """Integrate and fire, signed, unsigned, or bounded and settling."""
        return neurons.integrate_and_fire(self.signed, self.duration, self.settling)

    @property
    def weights(self) -> SiteMap[WeightQuantiser]:
        """Of the same width, 8 bits in the first and the last layer."""
        return quantised_weights(self.bits)

    def step(self, site: Site, master: Master) -> float:
        """The highest level is the site's learned clip."""
        del site
        return float(master["clip"]) / self.duration

    def kernel(
        self, site: Site, master: Master, quantiser: WeightQuantiser, inputs: Inputs
    ) -> Kernel:
        """The quantiser's whole numbers, else a grid."""
        if codes := kernels.own_codes(master, quantiser):
            return codes
        if self.weight_bits is None:
            return kernels.finest_kernel(master, inputs)
        return kernels.significant_kernel(master, self.weight_bits)

    def cells(self, drive: Drive) -> Cells:
        """Leaves of the integrate-and-fire neuron, gains and biases of a step, int32 ``[C]``."""
        steps, constant = self.duration, drive.slope == 0
        unit = np.where(constant, drive.step / CONSTANT, drive.slope * drive.unit)
        added = drive.shortcut or NO_SHORTCUT
        threshold, share = drive.step / unit, added.scale / unit  # in units of the drive
        bias = (drive.offset - drive.slope * drive.center + added.offset) / (unit * steps)
        if drive.shortcut is None:
            most = LARGEST_OFFSET * CONSTANT
            bias = np.where(constant, np.clip(bias, -most, most), bias)
        reach = np.where(constant, 0, drive.bound.max()) + steps * np.abs(bias) + threshold
        reach = reach + np.abs(share) * added.bound.max()
        _check_reach(drive, reach)
        finest = np.exp2(np.floor(np.log2(MOST / reach)))
        gain = np.where(constant & (drive.shortcut is None), 1, np.minimum(finest, FINEST))
        params = {"gain": np.where(constant, 0, gain), "bias": np.round(bias * gain)}
        if drive.shortcut is not None:
            params["shortcut_gain"] = np.round(share * gain)
        return Cells(
            _whole(self._leaves(np.maximum(np.round(threshold * gain), 1), gain / unit)),
            np.asarray(steps),
            _whole(params),
        )

    def _leaves(self, threshold: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
        """Leaves on the grid; ``scale`` is grid units in a unit of the activation, all ``[C]``."""
        leaves = {"threshold": threshold, "initial": threshold // 2}
        if self.settling:
            leaves["negative_threshold"] = np.full_like(threshold, -1)
        elif self.signed:
            # In the units of the activation, whatever the clip is; see the neuron.
            absolute = self.negative_threshold / self.duration
            leaves["negative_threshold"] = np.floor(absolute * scale)
        return leaves


def _whole(leaves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: leaf.astype(np.int32) for name, leaf in leaves.items()}


def _check_reach(drive: Drive, reach: np.ndarray) -> None:
    """Refuse a channel whose potential would leave int32 even on the coarsest grid."""
    if (reach >= MOST).any():
        channel = int(np.flatnonzero(reach >= MOST)[0])
        raise UserError(
            f"{drive.site}: the potential of channel {channel} leaves int32, because its slope "
            f"is {drive.slope[channel]:.3g} beside its bias and clip; set a tiny norm scale to 0, "
            "which makes the channel constant"
        )
