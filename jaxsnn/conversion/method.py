"""What a conversion method is, what it is given of a site, and what it returns.

A method folds one site at a time; :mod:`jaxsnn.conversion.fold` walks over the sites and carries
along what a count of each is worth and how large it can become.
"""

import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.inputs.encoding import Presentation
from jaxsnn.network import weight_quantisers
from jaxsnn.network.per_site import SiteMap
from jaxsnn.neurons.neuron import Neuron

NEVER, ALWAYS = 2**31 - 1, -(2**31)  # thresholds that no drive, every drive, reaches


class Kernel(NamedTuple):
    """A folded kernel: whole numbers (int64) or floats, and what the report says of it."""

    values: np.ndarray
    unit: float
    name: str
    exponent: int = 0
    error: float = 0.0


class Shortcut(NamedTuple):
    """What a shortcut adds to an activation: ``scale * drive + offset``, each ``[C]``.

    Attributes:
        scale, offset: float64 ``[C]``; the drive is a projection's, or the source's net count.
        bound: largest possible ``|drive|``, summed over all steps.
    """

    scale: np.ndarray
    offset: np.ndarray
    bound: int


class Drive(NamedTuple):
    """What a site's neurons see: the ANN activates ``slope * (unit * drive - center) + offset``.

    The drive is the sum over all steps.

    Attributes:
        site: the site's name.
        step: value of one count of its neurons, the ANN's quantisation step.
        slope: float64 ``[C]``, never negative (a negative one has flipped kernel and sign).
        center, offset: float64 ``[C]``.
        unit: value of one unit of the drive.
        bound: largest possible ``|drive|``, summed over all steps.
        shortcut: what is added to the activation, None for nothing.
    """

    site: str
    step: float
    slope: np.ndarray
    center: np.ndarray
    offset: np.ndarray
    unit: float
    bound: int
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
    """

    fixed: dict[str, np.ndarray]
    highest: np.ndarray
    params: Mapping[str, np.ndarray] = types.MappingProxyType({})
    threshold_grid: float = 0.0


Master = Mapping[str, Any]  # a site's params in the training tree


class Method(NamedTuple):
    """How one conversion method folds a site.

    Attributes:
        ann: the activation of the quantised ANN.
        neuron: the spiking neuron of every activation site.
        step: ``(site, its params) -> value of one count`` (the ANN's quantisation step).
        spikes: largest ``|out|`` of it in one step.
        weights: the weight quantisers it takes by default.
        kernel: ``(site, params, quantiser, largest input counts) -> Kernel``.
        cells: ``Drive -> Cells``.
        refusal: ``site -> reason`` why it cannot be converted; empty if it can.
        presentations: how the input may be given.
        others: pairs (role, spiking neuron) of pools and heads that have neurons, too.
        pool: ``(channels, area) -> Cells`` of the neurons that are driven by a pool's sums.
        encoder: spiking neuron of the first site, None for the same.
        duration: steps for which the input and all biases are held; None: as the encoding says.
        shortcuts: it can fold residual blocks.
        head_gain: largest gain of a head, for a bias that is finer than a unit of its kernel.
        into: what norm and bias of a site with neurons become.
    """

    ann: Neuron
    neuron: Neuron
    step: Callable[[Site, Master], float]
    spikes: int
    weights: SiteMap[weight_quantisers.WeightQuantiser]
    kernel: Callable[[Site, Master, weight_quantisers.WeightQuantiser, np.ndarray], Kernel]
    cells: Callable[[Drive], Cells]
    refusal: Callable[[Site], str] = lambda site: ""
    presentations: tuple[Presentation, ...] = ("held", "onset", "frames")
    others: tuple[tuple[str, Neuron], ...] = ()
    pool: Callable[[int, int], Cells] | None = None
    encoder: Neuron | None = None
    duration: int | None = None
    shortcuts: bool = False
    head_gain: int = 1
    into: str = "thresholds"

    def has_neurons(self, site: Site) -> bool:
        """Whether spiking neurons stand behind ``site``."""
        return site.role == "activation" or site.role in dict(self.others)
