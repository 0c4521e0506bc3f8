"""Rate coding: every activation is a firing rate, scaled by a percentile of what it was.

With ``scale`` the value that a rate of one spike a step stands for (a robust maximum of the site's
activations, :mod:`jaxsnn.conversion.percentiles`) and ``source`` that of the site before, a neuron
behind ``slope * (z - center) + offset`` integrates, at every step::

    V += slope * source / scale * drive + (offset - slope * center) / scale,   threshold 1

Scales move gains and biases alone: kernels stay what they are, so that networks of several
percentiles share them. Average pools pass on the sums of their windows: a neuron there, whose
threshold is the pool's area, would round every mean once more. Heads add up what they are given, in
integers: a neuron there would stay silent where no logit is above zero, and round all others to
whole spikes. Only where spikes of heads are counted, as the fusion of two heads does, they have
neurons.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from flax.core import FrozenDict

from jaxsnn import neurons
from jaxsnn.arch.layers import Site
from jaxsnn.conversion import kernels
from jaxsnn.conversion.kernels import Inputs, Kernel, Master
from jaxsnn.conversion.method import ENDLESS, NO_SHORTCUT, Cells, Drive, Method
from jaxsnn.errors import UserError
from jaxsnn.inputs.encoding import Presentation
from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.weight_quantisers import WeightQuantiser
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.options import plain

HEADS = ("exit", "readout")


@dataclass(frozen=True, kw_only=True)
class Rate(Method):
    """Every neuron integrates and fires at a rate that stands for its activation.

    The network was trained with :func:`jaxsnn.neurons.relu`. Rates approach its activations, over
    the layers' scales, as the number of steps grows. Source: Habara, Sato and Awano,
    BayesianSpikeFusion, Frontiers in Neuroscience 18, 2024, with the robust normalisation of
    Rueckauer et al., Frontiers in Neuroscience 11, 2017.

    Attributes:
        scales: site -> activation that one spike a step stands for, above 0, in the units of the
            activation, from :func:`jaxsnn.percentiles.scales`.
        initial: membrane potential to start from, as a share of the threshold; below 1. A half
            rounds to the nearest rate instead of down.
        delay: steps from a neuron's spike to the next layer; 0: it arrives within the step.
        weight_bits: significant bits of the largest weight of a layer, 1 to 24 (7: int8, whose
            products are the fastest); None: the finest grid whose sums stay below 2^24.
        float_weights: keep the weights in float32, as trained.
        block_ends: ``initial`` holds for the last neurons of residual blocks, too; False: they
            start at 0, as in the original's code.
        spiking_heads: exits and readout fire at a rate, too, for what counts their spikes.
        spiking_pools: average pools fire at a rate, too, as in the original; False: they pass sums
            of spikes on, which rounds nothing.

    Raises:
        UserError: a value that is none of these; a scale that is missing or not positive is named
            by :func:`jaxsnn.convert`.

    >>> Rate(scales={"conv1": 2, "readout": 8}).scales["conv1"]
    2.0
    """

    scales: Mapping[str, float]
    initial: float = 0.5
    delay: int = 0
    weight_bits: int | None = 7
    float_weights: bool = False
    block_ends: bool = True
    spiking_heads: bool = False
    spiking_pools: bool = False
    name: ClassVar[str] = "rate"
    presentations: ClassVar[tuple[Presentation, ...]] = ("held", "frames")
    shortcuts: ClassVar[bool] = True
    head_gain: ClassVar[int] = 2**12
    destination: ClassVar[str] = "gain and bias of a step"

    def __post_init__(self) -> None:
        """Check the options."""
        object.__setattr__(self, "scales", _frozen(self.scales))
        super().__post_init__()
        kernels.check_bits(self.weight_bits)
        if self.delay < 0:
            raise UserError(f"delay={self.delay}: a whole number of steps, 0 or more")
        if not -math.inf < self.initial < 1:
            raise UserError(
                f"initial={self.initial}: a potential starts below its threshold, below 1"
            )

    @property
    def activation(self) -> Neuron:
        """ReLU, in full precision."""
        return neurons.relu()

    @property
    def neuron(self) -> Neuron:
        """Integrate and fire, delayed."""
        cell = neurons.integrate_and_fire()
        return neurons.delayed(cell, self.delay) if self.delay else cell

    @property
    def neurons(self) -> SiteMap[Neuron]:
        """Heads and average pools have neurons if they are to spike."""
        heads = () if self.spiking_heads else HEADS
        pools = () if self.spiking_pools else ("pool",)
        without = ("shortcut", *heads, *pools)
        return SiteMap(self.neuron, tuple((role, neurons.identity()) for role in without))

    def step(self, site: Site, master: Master) -> float:
        """The site's scale."""
        del master
        return self.scales[site.name]

    def kernel(
        self, site: Site, master: Master, quantiser: WeightQuantiser, inputs: Inputs
    ) -> Kernel:
        """The quantiser's whole numbers, else a grid, or floats; no bias shares it."""
        if self.float_weights:
            return kernels.float_kernel(master, quantiser)
        if codes := kernels.own_codes(master, quantiser):
            return codes
        if self.weight_bits is None:
            sums = kernels.EXACT_SUMS if self.has_neurons(site) else 2**31 // ENDLESS
            return kernels.finest_kernel(master, inputs, sums_below=sums)
        return kernels.significant_kernel(master, self.weight_bits)

    def cells(self, drive: Drive) -> Cells:
        """Gains and biases of a step, float32 ``[C]``, for a threshold of 1."""
        added, initial = drive.shortcut or NO_SHORTCUT, self.initial
        bias = drive.offset - drive.slope * drive.center + added.offset
        params = {"gain": drive.slope * drive.unit / drive.step, "bias": bias / drive.step}
        if drive.shortcut is not None:
            params["shortcut_gain"] = added.scale / drive.step
            initial = initial if self.block_ends else 0.0
        ones = np.ones(len(drive.slope), np.float32)
        return Cells(
            {"threshold": ones, "initial": initial * ones},
            np.asarray(1),
            {name: value.astype(np.float32) for name, value in params.items()},
        )

    def pool(self, channels: int, area: int) -> Cells | None:
        """Thresholds for sums of spikes: a mean that reaches 1; None where pools do not spike."""
        if not self.spiking_pools:
            return None
        each = np.full(channels, area, np.float32)
        return Cells({"threshold": each, "initial": self.initial * each}, np.asarray(1))

    def refusal(self, site: Site) -> str:
        """No scale."""
        if site.role in ("pool", "shortcut") or (site.role in HEADS and not self.spiking_heads):
            return ""
        if site.name not in self.scales:
            return "has no scale; take them from jaxsnn.percentiles.scales() with the same arch"
        scale = self.scales[site.name]
        return "" if 0 < scale < math.inf else f"has the scale {scale}, which is no positive number"


def _frozen(scales: object) -> FrozenDict[str, float]:
    """Scales that can be hashed, as plain floats."""
    if not isinstance(scales, Mapping):
        raise UserError(
            f"scales is a {type(scales).__name__}; give a number for every site by its name, from "
            "jaxsnn.percentiles.scales()"
        )
    named = cast("Mapping[Any, Any]", scales)
    return FrozenDict(
        {str(site): plain(value, float, f"scales[{site!r}]") for site, value in named.items()}
    )
