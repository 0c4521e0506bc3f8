"""From a float kernel to the spiking network's: whole numbers, or floats as they are."""

import enum
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.conversion.grid import grid_exponent, largest_sum, on_grid, significant_exponent
from jaxsnn.errors import UserError
from jaxsnn.network.weight_quantisers import WeightQuantiser
from jaxsnn.types import Variables

EXACT_SUMS = 2**24  # below it float32 holds every whole number
MOST_BITS = 24  # of a float32 weight

Master = Variables  # a site's params in the training tree


class KernelForm(enum.Enum):
    """What the kernel of a folded site is.

    Attributes:
        NONE: there is none (a pool).
        TRAINED: floats of a network that was not converted.
        FLOAT: floats, as the ANN uses them.
        GRID: whole multiples of a power of two, to which conversion moved the weights.
        CODES: the whole numbers of the weight quantiser.
    """

    NONE = "none"
    TRAINED = "trained"
    FLOAT = "float"
    GRID = "grid"
    CODES = "codes"

    @property
    def is_whole(self) -> bool:
        """Whether it is of whole numbers."""
        return self in (KernelForm.GRID, KernelForm.CODES)


class Kernel(NamedTuple):
    """A folded kernel.

    Attributes:
        values: whole numbers (int64), or float32.
        unit: value of one, in the units of the weights.
        form: what the values are.
        quantiser: name of the weight quantiser whose whole numbers they are, else empty.
        exponent: of :attr:`KernelForm.GRID`: the unit is ``2**-exponent``.
        error: largest change of a weight.
    """

    values: np.ndarray
    unit: float
    form: KernelForm
    quantiser: str = ""
    exponent: int = 0
    error: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self.form.is_whole


class Inputs(NamedTuple):
    """What reaches a synapse, and what becomes of its drive.

    Attributes:
        unit: value of one count.
        highest: largest net counts over all steps, one number or ``[C]``.
        slope: what a norm multiplies the drive with, float64 ``[C]``, never negative.
        added: largest that a shortcut adds to the activation; 0: there is none.
    """

    unit: float
    highest: np.ndarray
    slope: np.ndarray
    added: float


def float_kernel(master: Master, quantiser: WeightQuantiser) -> Kernel:
    """The kernel as the ANN uses it."""
    used = quantiser.quantise(jnp.asarray(master["kernel"], jnp.float32), dict(master))
    return Kernel(np.asarray(used), 1.0, KernelForm.FLOAT)


def own_codes(master: Master, quantiser: WeightQuantiser) -> Kernel | None:
    """The quantiser's own whole numbers, None if it has none."""
    if quantiser.codes is None:
        return None
    kernel, leaves = jnp.asarray(master["kernel"], jnp.float32), dict(master)
    numbers, unit = quantiser.codes(kernel, leaves)
    codes, used = np.asarray(numbers, np.int64), np.asarray(quantiser.quantise(kernel, leaves))
    error = float(np.max(np.abs(codes * unit - used), initial=0))
    return Kernel(codes, unit, KernelForm.CODES, quantiser.name, error=error)


def significant_kernel(master: Master, bits: int) -> Kernel:
    """On the finest power-of-two grid on which the largest weight has so many significant bits."""
    kernel = np.asarray(master["kernel"], np.float32)
    return _moved(kernel, significant_exponent(kernel, bits))


def finest_kernel(
    master: Master, inputs: Inputs, *, sums_below: int = EXACT_SUMS, coarsen: bool = True
) -> Kernel:
    """On the finest power-of-two grid whose sums over all steps stay below a bound.

    Args:
        master: the site's params.
        inputs: what reaches the synapse.
        sums_below: largest ``|sum|``, exclusive.
        coarsen: take a coarser grid if it holds the same numbers; not where a bias shares it.
    """
    kernel = np.asarray(master["kernel"], np.float32)
    return _moved(kernel, grid_exponent(kernel, inputs.highest, sums_below, coarsen))


def bounded_kernel(
    site: Site, master: Master, quantiser: WeightQuantiser, inputs: Inputs, sums_below: int
) -> Kernel:
    """Whole numbers whose sums stay below a bound, a head's bias included.

    Raises:
        UserError: the sums of the quantiser's own numbers, or of any grid that keeps a weight,
            reach the bound.
    """
    bias = 0.0  # in the units of weights and inputs
    if site.bias and site.role in ("exit", "readout"):
        bias = float(np.abs(np.asarray(master["bias"], np.float64)).max()) / inputs.unit
    kernel = own_codes(master, quantiser)
    if kernel is None:
        weights = np.asarray(master["kernel"], np.float32)
        exponent = grid_exponent(weights, inputs.highest, sums_below, coarsen=not bias)
        kernel = _moved(weights, exponent)
        while _reach(kernel, inputs, bias) >= sums_below and kernel.values.any():
            kernel = _moved(weights, kernel.exponent - 1)
    if kernel.form is KernelForm.GRID and np.any(master["kernel"]) and not kernel.values.any():
        raise UserError(
            f"{site.name}: on a grid whose sums stay below sums_below={sums_below} every weight is "
            "0; raise sums_below"
        )
    if (reach := _reach(kernel, inputs, bias)) >= sums_below:
        raise UserError(
            f"{site.name}: the sums of its whole weights can reach {reach}, which is not below "
            f"sums_below={sums_below}; raise sums_below, or use fewer levels"
        )
    return kernel


def check_bits(bits: int | None) -> None:
    """Refuse a number of significant bits that no weight has.

    Raises:
        UserError: naming it.
    """
    if bits is not None and not 1 <= bits <= MOST_BITS:
        raise UserError(f"weight_bits={bits}: a weight has 1 to {MOST_BITS} significant bits")


def _reach(kernel: Kernel, inputs: Inputs, bias: float) -> int:
    """Largest ``|sum|`` with a bias, in units of the drive."""
    return largest_sum(kernel.values, inputs.highest) + math.ceil(bias / kernel.unit)


def _moved(master: np.ndarray, exponent: int) -> Kernel:
    values, unit = on_grid(master, exponent), 2.0**-exponent
    error = float(np.max(np.abs(values * unit - master), initial=0))
    return Kernel(values, unit, KernelForm.GRID, exponent=exponent, error=error)
