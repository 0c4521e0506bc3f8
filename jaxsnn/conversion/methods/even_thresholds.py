"""Negative spikes: evenly spaced thresholds on a grid, which a net count follows up and down."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from jaxsnn import neurons
from jaxsnn.arch.layers import Site
from jaxsnn.conversion import kernels
from jaxsnn.conversion.kernels import Inputs, Kernel, Master
from jaxsnn.conversion.method import ALWAYS, NEVER, Cells, Drive, Method
from jaxsnn.conversion.methods.median import check_fraction, median_levels
from jaxsnn.conversion.methods.residual import joined, kernel_with_room
from jaxsnn.errors import UserError
from jaxsnn.inputs.encoding import Presentation
from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.weight_quantisers import WeightQuantiser
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.neurons.tracking import FRACTION_BITS

ONE = 1 << FRACTION_BITS  # units of the thresholds' grid in a unit of the drive


@dataclass(frozen=True, kw_only=True)
class NegativeSpikes(Method):
    """Every neuron follows its level with spikes +1 and -1; input and biases come once.

    At the end of a residual block it follows the sum of branch and shortcut
    (:mod:`jaxsnn.conversion.methods.residual`).

    The network was trained with :func:`jaxsnn.neurons.quantised_relu` of the same ``k`` and
    ``bound``. When all is silent, net counts are the levels of the quantised ANN, bit for bit: at
    the latest after as many steps as there are layers times the highest level. Source: Zou et al.,
    Advanced Intelligent Systems, 2023.

    Attributes:
        k: fractional bits of an activation: a spike is worth ``2**-k``.
        bound: largest activation, a whole number in the units of an activation; None for none.
        highest: largest net count where there is no ``bound``, 1 to 32767; a larger level of the
            ANN is cut there, which the certificate counts. Take it from a calibration
            (:meth:`jaxsnn.Calibration.highest`); it grows from block to block.
        weight_bits: significant bits of the largest weight of a layer, 1 to 24 (7 or fewer are
            stored as int8); None: the finest grid whose sums over all steps stay below 2^24, 2^17
            where a projection is added at the end of a residual block, and where net counts are
            2^21, or as much less, down to 2^17, as a channel with a weak branch needs.
        float_weights: keep the weights and thresholds in float32, for comparison. Sums then
            depend on their order, and the certificate's word may be "approximate".
        per_step: largest spike count of one step, 1 to 127 (graded spikes above 1).
        rising: emit no positive spike in a step in which the potential falls; not in the first
            layer (:func:`jaxsnn.neurons.tracking`).

    Raises:
        UserError: a value that is none of these.

    >>> NegativeSpikes(k=1).bound is None
    True
    """

    k: int
    bound: int | None = None
    highest: int = 127
    weight_bits: int | None = 7
    float_weights: bool = False
    per_step: int = 1
    rising: bool = False
    name: ClassVar[str] = "negative_spikes"
    presentations: ClassVar[tuple[Presentation, ...]] = ("onset",)
    shortcuts: ClassVar[bool] = True
    head_gain: ClassVar[int] = ONE

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_fraction(self.k)
        kernels.check_bits(self.weight_bits)
        neurons.tracking(self.largest_count, self.per_step, self.rising)  # refuses what is none

    @property
    def largest_count(self) -> int:
        """Largest net spike count."""
        return self.highest if self.bound is None else median_levels(self.k, self.bound)

    @property
    def activation(self) -> Neuron:
        """ReLU and median quantiser, bounded or not."""
        return neurons.quantised_relu(self.k, self.bound)

    @property
    def neuron(self) -> Neuron:
        """The tracking neuron."""
        return neurons.tracking(self.largest_count, self.per_step, self.rising)

    @property
    def neurons(self) -> SiteMap[Neuron]:
        """An encoder that held its spikes back would hide from the settle stop: it never does."""
        encoder = neurons.tracking(self.largest_count, self.per_step)
        return replace(super().neurons, first=encoder if self.rising else None)

    def step(self, site: Site, master: Master) -> float:
        """The spacing of the levels."""
        del site, master
        return 2.0**-self.k

    def kernel(
        self, site: Site, master: Master, quantiser: WeightQuantiser, inputs: Inputs
    ) -> Kernel:
        """The quantiser's whole numbers, else a grid."""
        if self.float_weights:
            return kernels.float_kernel(master, quantiser)
        if codes := kernels.own_codes(master, quantiser):
            return codes
        if self.weight_bits is None:
            return kernel_with_room(site, master, inputs, self.step(site, master))
        return kernels.significant_kernel(master, self.weight_bits)

    def cells(self, drive: Drive) -> Cells:
        """Leaves of the tracking neuron; largest counts that a drive can reach."""
        one = joined(drive, whole=not self.float_weights)
        even = _even_floats if self.float_weights else _even_integers
        cells = even(self.largest_count, one.drive)
        return cells._replace(params=one.params, gain_error=one.gain_error)

    def pools_currents(self, site: Site) -> bool:
        """The first layer's drive comes in one step."""
        return site.source == "input"


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
    first, each = (
        np.where(constant, 0, np.clip(value * ONE, -(2.0**60), 2.0**60)).round().astype(np.int64)
        for value in _spacing(drive)
    )
    reached = (drive.bound * ONE - first) // np.maximum(each, 1) + 1
    highest = np.where(constant, level, np.clip(reached, 0, cap))
    first = first + ONE - 1  # so that a shift gives the ceiling
    each = np.where(highest > 1, each, 0)  # no second threshold is in reach
    fixed = constant | (highest == 0)
    span = (first + (highest - 1) * each) // ONE - first // ONE
    _check_span(drive, ~fixed & ((first // ONE < ALWAYS) | (span > NEVER)))
    leaves = {
        "first": np.where(fixed, ALWAYS, first // ONE),
        "step": each // ONE,
        "first_fraction": np.where(fixed, 0, first % ONE),
        "step_fraction": each % ONE,
        "highest": highest,
    }
    whole = {name: value.astype(np.int32) for name, value in leaves.items()}
    return Cells(whole, highest, threshold_grid=1 / ONE)


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
