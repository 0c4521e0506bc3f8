"""What a conversion method is, what it is told of a site, and what it returns.

A method folds one site at a time; :mod:`jaxsnn.conversion.fold` walks over the sites and carries
along what a count of each is worth and how large it can become.
"""

import abc
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.conversion.kernels import Inputs, Kernel, Master
from jaxsnn.inputs.encoding import Presentation
from jaxsnn.network.per_site import SiteMap, hidden
from jaxsnn.network.weight_quantisers import WeightQuantiser, full_precision
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.options import plain_fields

ENDLESS = 2**12  # steps for which the sums of a head hold at least, where no step is the last
NEVER, ALWAYS = 2**31 - 1, -(2**31)  # thresholds that no drive, every drive, reaches


class Shortcut(NamedTuple):
    """What a shortcut adds to an activation: ``scale * drive + offset``, each ``[C]``.

    Attributes:
        scale, offset: float64 ``[C]``; the drive is a projection's, or the source's net count.
        bound: largest possible ``|drive|`` of each channel, summed over all steps, int64 ``[C]``.
    """

    scale: np.ndarray
    offset: np.ndarray
    bound: np.ndarray


NO_SHORTCUT = Shortcut(np.zeros(1), np.zeros(1), np.zeros(1, np.int64))


class Drive(NamedTuple):
    """What a site's neurons see: the ANN activates ``slope * (unit * drive - center) + offset``.

    The drive is the sum over all steps.

    Attributes:
        site: the site's name.
        step: value of one count of its neurons, the ANN's quantisation step.
        slope: float64 ``[C]``, never negative (a negative one has flipped kernel and sign).
        center, offset: float64 ``[C]``.
        unit: value of one unit of the drive.
        bound: largest possible ``|drive|`` of each channel, summed over all steps, int64 ``[C]``.
        shortcut: what is added to the activation, None for nothing.
    """

    site: str
    step: float
    slope: np.ndarray
    center: np.ndarray
    offset: np.ndarray
    unit: float
    bound: np.ndarray
    shortcut: Shortcut | None = None

    def reaching(self, activation: np.ndarray | float) -> np.ndarray:
        """The drive at which an activation is reached, float64; without meaning at slope 0.

        The difference comes first: an activation equal to the offset is reached at the center, with
        no rounding in between.
        """
        safe = np.where(self.slope == 0, 1.0, self.slope)
        return ((activation - self.offset) / safe + self.center) / self.unit


class Cells(NamedTuple):
    """A site's neurons in the folded tree.

    Attributes:
        fixed: leaves by name.
        highest: largest net counts, one number or ``[C]``.
        params: what stands beside the kernel: ``gain``, with it ``bias`` and ``shortcut_gain``.
        threshold_grid: grid of the spacing of thresholds in drive units, 0 if each is exact.
        gain_error: largest relative change of a shortcut's gain, 0 if each is exact.
    """

    fixed: dict[str, np.ndarray]
    highest: np.ndarray
    params: Mapping[str, np.ndarray] = types.MappingProxyType({})
    threshold_grid: float = 0.0
    gain_error: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Method(abc.ABC):
    """How a trained network becomes a spiking one. The fields of a method are its options.

    Methods are frozen and hashable, and their options plain Python values. How the input is shown
    and what the weights were quantised by while the network was trained is no method's matter:
    :func:`jaxsnn.convert` is told that.

    Attributes:
        name: what reports call it.
        presentations: how the input may be shown.
        shortcuts: it can fold residual blocks.
        head_gain: largest gain of a head, for a bias that is finer than a unit of its kernel.
        destination: what norm and bias of a site with neurons become, for reports.
    """

    name: ClassVar[str]
    presentations: ClassVar[tuple[Presentation, ...]] = ("held", "onset", "frames")
    shortcuts: ClassVar[bool] = False
    head_gain: ClassVar[int] = 1
    destination: ClassVar[str] = "thresholds"

    def __post_init__(self) -> None:
        """Make the options plain Python values.

        Raises:
            UserError: naming the option.
        """
        plain_fields(self)

    @property
    @abc.abstractmethod
    def activation(self) -> Neuron:
        """The activation of the quantised ANN."""

    @property
    @abc.abstractmethod
    def neuron(self) -> Neuron:
        """The spiking neuron behind every hidden synapse."""

    @abc.abstractmethod
    def step(self, site: Site, master: Master) -> float:
        """Value of one count at ``site``: the ANN's quantisation step."""

    @abc.abstractmethod
    def kernel(
        self, site: Site, master: Master, quantiser: WeightQuantiser, inputs: Inputs
    ) -> Kernel:
        """The kernel of ``site`` in the spiking network.

        Raises:
            UserError: there is none, with the site's name and the reason.
        """

    @abc.abstractmethod
    def cells(self, drive: Drive) -> Cells:
        """The neurons that see ``drive``.

        Raises:
            UserError: a number beyond int32, with the site's name and the reason.
        """

    @property
    def neurons(self) -> SiteMap[Neuron]:
        """The spiking neuron of every site, identity where there is none."""
        return hidden(self.neuron)

    @property
    def weights(self) -> SiteMap[WeightQuantiser]:
        """The weight quantisers that a tree is taken to have been trained with: none."""
        return SiteMap(full_precision())

    @property
    def duration(self) -> int | None:
        """Steps for which the input and all biases are held; None: as the encoding says."""
        return None

    def pool(self, channels: int, area: int) -> Cells | None:
        """The neurons driven by a pool's sums; None if it has none, which its target's do then."""
        del channels, area
        return None

    def pools_currents(self, site: Site) -> bool:
        """Whether the largest current of every step is what ``site`` may pool; else its counts."""
        del site
        return False

    def refusal(self, site: Site) -> str:
        """Why ``site`` cannot be converted; empty if it can."""
        del site
        return ""

    def has_neurons(self, site: Site) -> bool:
        """Whether spiking neurons stand behind ``site``."""
        return self.neurons.at(site).spikes is not None

    @property
    def largest_spike(self) -> int:
        """Largest ``|out|`` of a neuron in one step."""
        return max(abs(count) for count in self.neuron.spikes or (0, 1))
