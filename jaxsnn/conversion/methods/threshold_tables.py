"""Scatter and gather: a table of thresholds for every channel, compared in one step."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jaxsnn import neurons
from jaxsnn.arch.layers import Site
from jaxsnn.conversion import kernels
from jaxsnn.conversion.kernels import Inputs, Kernel, Master
from jaxsnn.conversion.method import ALWAYS, NEVER, Cells, Drive, Method
from jaxsnn.conversion.methods.median import median_levels
from jaxsnn.conversion.methods.residual import LARGEST, joined, kernel_with_room, sums_below
from jaxsnn.errors import UserError
from jaxsnn.network.weight_quantisers import WeightQuantiser
from jaxsnn.neurons.neuron import Neuron


@dataclass(frozen=True, kw_only=True)
class ScatterGather(Method):
    """Every neuron becomes ``2**k * bound`` threshold units that share a drive: one time step.

    The network was trained with :func:`jaxsnn.neurons.quantised_relu` of the same ``k`` and
    ``bound``. Its spike counts are the levels of the quantised ANN, bit for bit. Source: Zou et
    al., Frontiers in Neuroscience 15:694170, 2021. Their hidden weights are ternary: a network that
    was trained so is converted with ``trained=``, or ``weights=float_ends(ternary())``.

    Attributes:
        k: fractional bits of an activation: a spike is worth ``2**-k``.
        bound: largest activation, a whole number in the units of an activation.
        sums_below: bound of every layer's sums and of a head's sums with its bias, exclusive, in
            units of the drive (weight grid times input count). Float weights are put on the finest
            power-of-two grid that keeps it; a smaller bound suits a simulator whose numbers are
            short, a larger one (up to 2^31) makes the grid finer at the price of int32 sums. None:
            2^24, which float32 holds, for such weights, and 2^31 for weights that are whole. Where
            branch and shortcut of a residual block are added, the sum stays below it (None: 2^30)
            and the two kernels leave room for their gains.
        encoder_sums_below: the same of the first layer alone, whose weights usually are floats and
            whose inputs are large: with 2^31 its grid is finer, and its sums int32. None: as
            ``sums_below``.

    Raises:
        UserError: a value that is none of these, or more than 4,096 levels.

    >>> ScatterGather(k=1, bound=2)
    ScatterGather(k=1, bound=2, sums_below=None, encoder_sums_below=None)
    """

    k: int
    bound: int
    sums_below: int | None = None
    encoder_sums_below: int | None = None
    name: ClassVar[str] = "scatter_gather"
    shortcuts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        median_levels(self.k, self.bound)
        for name in ("sums_below", "encoder_sums_below"):
            bound = getattr(self, name)
            if bound is not None and not 2 <= bound <= 2**31:
                raise UserError(f"{name}={bound}: give a whole number of 2 to 2^31")

    @property
    def levels(self) -> int:
        """Threshold units of a neuron."""
        return median_levels(self.k, self.bound)

    @property
    def activation(self) -> Neuron:
        """ReLU and median quantiser, bounded."""
        return neurons.quantised_relu(self.k, self.bound)

    @property
    def neuron(self) -> Neuron:
        """A count of the thresholds that the drive reached."""
        return neurons.threshold_count(self.levels)

    def step(self, site: Site, master: Master) -> float:
        """The spacing of the levels."""
        del site, master
        return 2.0**-self.k

    def kernel(
        self, site: Site, master: Master, quantiser: WeightQuantiser, inputs: Inputs
    ) -> Kernel:
        """The quantiser's whole numbers, else the finest grid."""
        below = self.sums_below
        if site.source == "input" and self.encoder_sums_below is not None:
            below = self.encoder_sums_below
        if below is not None:
            below = sums_below(site, below) if quantiser.codes is None else below
            return kernels.bounded_kernel(site, master, quantiser, inputs, below)
        shares_bias = site.bias and site.role in ("exit", "readout")
        return kernels.own_codes(master, quantiser) or kernel_with_room(
            site, master, inputs, self.step(site, master), coarsen=not shares_bias
        )

    def pools_currents(self, site: Site) -> bool:
        """Every step has its whole drive."""
        del site
        return True

    def cells(self, drive: Drive) -> Cells:
        """int32 ``[levels, C]``: smallest integer drive at which the level is at least j."""
        one, params, error = joined(drive, self.sums_below or LARGEST)
        boundary = (np.arange(1, self.levels + 1) - 0.5)[:, None] * drive.step
        theta = np.ceil(one.reaching(boundary))
        constant = np.where(one.offset >= boundary, ALWAYS, NEVER)
        table = np.where(one.slope == 0, constant, np.clip(theta, ALWAYS, NEVER))
        return Cells(
            {"thresholds": table.astype(np.int32)},
            np.asarray(self.levels),
            params,
            gain_error=error,
        )
