"""The walk of a conversion over the sites of a network, and what every method shares.

A method folds one site at a time (:class:`Method`); the walk carries along what a count of each
site is worth, how large it can become, and checks that every sum is held.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxsnn import quant
from jaxsnn.arch import Site
from jaxsnn.encode import Encoding
from jaxsnn.grid import largest_sum, smallest_integer
from jaxsnn.lowering import Accumulator
from jaxsnn.net import NORM_EPSILON, Variables
from jaxsnn.neurons import Neuron
from jaxsnn.sitemap import SiteMap
from jaxsnn.spiking import Folded, accumulator_for

NEVER, ALWAYS = 2**31 - 1, -(2**31)  # thresholds that no drive, every drive, reaches


class Kernel(NamedTuple):
    """A folded kernel: whole numbers (int64) or floats, and what the report says of it."""

    values: np.ndarray
    unit: float
    name: str
    exponent: int = 0
    error: float = 0.0


class Drive(NamedTuple):
    """What a site's neurons see: the ANN activates ``slope * (unit * drive - center) + offset``.

    Attributes:
        site: the site's name.
        slope: float64 ``[C]``, never negative (a negative one has flipped kernel and sign).
        center, offset: float64 ``[C]``.
        unit: value of one unit of the drive.
        bound: largest possible ``|drive|``, summed over all steps.
    """

    site: str
    slope: np.ndarray
    center: np.ndarray
    offset: np.ndarray
    unit: float
    bound: int

    def reaching(self, activation: np.ndarray | float) -> np.ndarray:
        """The drive at which an activation is reached, float64; without meaning at slope 0.

        The difference comes first: an activation equal to the offset is reached at the center, with
        no rounding in between.
        """
        safe = np.where(self.slope == 0, 1.0, self.slope)
        return ((activation - self.offset) / safe + self.center) / self.unit


class Method(NamedTuple):
    """How one conversion method folds a site.

    Attributes:
        neuron: the spiking neuron of every activation site.
        step: value of one count of it (the ANN's quantisation step).
        spikes: largest ``|out|`` of it in one step.
        weights: the weight quantisers it takes by default.
        kernel: ``(site, master, quantiser, largest input counts) -> Kernel``.
        leaves: ``Drive -> (fixed leaves, largest net counts [C] or a number)``.
        threshold_grid: grid of the spacing of thresholds in drive units, 0 if each is exact.
        refusal: ``site -> reason`` why it cannot be converted; empty if it can.
        once: the input must be given in the first step only.
        encoder: spiking neuron of the first site, None for the same.
    """

    neuron: Neuron
    step: float
    spikes: int
    weights: SiteMap[quant.WeightQuantiser]
    kernel: Callable[[Site, np.ndarray, quant.WeightQuantiser, np.ndarray], Kernel]
    leaves: Callable[[Drive], tuple[dict[str, np.ndarray], np.ndarray]]
    threshold_grid: float = 0.0
    refusal: Callable[[Site], str] = lambda site: ""
    once: bool = False
    encoder: Neuron | None = None


class Fold:
    """Walks the plan once, carrying each site's unit and largest counts.

    Attributes:
        units: site -> value of one count.
        highest: site -> largest net count, one number or ``[C]``, and
        peaks: site -> largest ``|out|`` in one step.
        params, fixed: the folded tree.
        accumulators: site -> what holds the sums of one step.
        report: what was folded.
    """

    def __init__(
        self,
        variables: Variables,
        method: Method,
        weights: SiteMap[quant.WeightQuantiser],
        encoding: Encoding,
    ) -> None:
        self.variables, self.method, self.weights = variables, method, weights
        self.units = {"input": encoding.scale}
        self.highest = {"input": np.asarray(encoding.highest, np.int64)}
        self.peaks = {"input": encoding.highest}
        self.params: dict[str, dict[str, np.ndarray]] = {}
        self.fixed: dict[str, dict[str, np.ndarray]] = {}
        self.accumulators: dict[str, Accumulator] = {}
        self.report: list[Folded] = []

    def add(self, site: Site) -> None:
        """Fold the next site of the plan.

        Raises:
            ValueError: a sum, bias or threshold beyond int32, with the site's name.
        """
        if site.kind == "avgpool":
            self._add_pool(site)
            return
        master = np.asarray(self.variables["params"][site.name]["kernel"], np.float32)
        inputs = self.highest[site.source]
        kernel = self.method.kernel(site, master, self.weights.at(site), inputs)
        slope, center, offset = norm_of(self.variables, site)
        sign = np.where(slope < 0, -1, 1)
        kernel = kernel._replace(values=kernel.values * sign)
        bound, step_bound = self._sums(site, kernel)
        unit = self.units[site.source] * kernel.unit
        drive = Drive(site.name, np.abs(slope), center * sign, offset, unit, bound)
        whole = _is_whole(kernel.values)
        stored = smallest_integer(kernel.values) if whole else kernel.values.astype(np.float32)
        self.params[site.name] = {"kernel": stored}
        neuron = site.role == "activation"
        bias = self._add_neuron(drive, whole) if neuron else self._add_head(drive, whole)
        if site.bias:  # the tree keeps its paths
            self.params[site.name]["bias"] = bias
        accumulator = accumulator_for(step_bound) if whole else "float32"
        self.accumulators[site.name] = accumulator
        had = [name for name in ("norm", "bias") if getattr(site, name)]
        into = "thresholds" if neuron else "bias on the grid"
        self.report.append(
            Folded(
                site.name,
                kernel=kernel.name,
                exponent=kernel.exponent,
                norm=f"{' and '.join(had)} into {into}" if had else "none",
                flipped=int((slope < 0).sum()),
                constant=int((slope == 0).sum()),
                bound=bound,
                accumulator=accumulator,
                weight_error=kernel.error,
                step_bound=step_bound,
                threshold_grid=self.method.threshold_grid if neuron else 0.0,
            )
        )

    def _add_pool(self, site: Site) -> None:
        area = math.prod(site.window)
        self.units[site.name] = self.units[site.source] / area
        self.highest[site.name] = self.highest[site.source] * area
        self.peaks[site.name] = self.peaks[site.source] * area
        self.report.append(Folded(site.name, "none", norm="sum; 1/area into the next thresholds"))

    def _sums(self, site: Site, kernel: Kernel) -> tuple[int, int]:
        """Largest ``|sum|`` over all steps, and in one step."""
        bound = largest_sum(kernel.values, self.highest[site.source])
        if _is_whole(kernel.values) and bound >= NEVER:
            raise ValueError(
                f"{site.name}: a sum of its integer drive can reach {bound}, beyond int32 (2^31); "
                "use fewer levels, a smaller Encoding.highest or a coarser weight grid"
            )
        return bound, largest_sum(kernel.values, self.peaks[site.source])

    def _add_neuron(self, drive: Drive, whole: bool) -> np.ndarray:
        """Thresholds and counts of the site's neurons, and the zeros that are left of its bias."""
        self.fixed[drive.site], self.highest[drive.site] = self.method.leaves(drive)
        self.units[drive.site], self.peaks[drive.site] = self.method.step, self.method.spikes
        return np.zeros(len(drive.slope), np.int32 if whole else np.float32)

    def _add_head(self, drive: Drive, whole: bool) -> np.ndarray:
        """The unit of a site without neurons, and its bias in that unit."""
        self.units[drive.site] = drive.unit
        bias = drive.offset - drive.center  # a head has no norm
        if not whole:
            return (bias / drive.unit).astype(np.float32)
        return whole_bias(bias, drive.unit, drive.bound, drive.site)


def _is_whole(kernel: np.ndarray) -> bool:
    return bool(np.issubdtype(kernel.dtype, np.integer))


def whole_bias(bias: np.ndarray, unit: float, bound: int, name: str) -> np.ndarray:
    """A head's bias in units of its drive, int32.

    Raises:
        ValueError: together with a drive of up to ``bound`` it would leave int32.
    """
    codes = np.round(bias / unit)
    if np.abs(codes).max(initial=0) + bound >= NEVER:
        raise ValueError(
            f"{name}: its bias is {np.abs(bias).max():.3g}, beyond int32 on the grid {unit:.3g} of "
            "its weights; rescale the layer so that weights and bias are of similar size"
        )
    return codes.astype(np.int32)


def affine(variables: Variables, site: Site) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset ``[C]``, float64, of norm and bias: ``slope * z + offset`` is activated.

    ``z`` is the synapse's output in the units of the ANN, before bias and norm.
    """
    slope, center, offset = norm_of(variables, site)
    return slope, offset - slope * center


def norm_of(variables: Variables, site: Site) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slope, center and offset ``[C]``, float64: ``slope * (z - center) + offset`` is activated.

    The bias comes before the norm, so the center is the running mean less the bias.
    """
    params = variables["params"][site.name]
    channels = site.drive_shape[-1]
    bias = np.asarray(params["bias"], np.float64) if site.bias else np.zeros(channels)
    if not site.norm:
        return np.ones(channels), -bias, np.zeros(channels)
    norm = {**params["norm"], **variables["batch_stats"][site.name]["norm"]}
    scale, offset, mean, var = (
        np.asarray(norm[name], np.float64) for name in ("scale", "bias", "mean", "var")
    )
    slope = scale / np.sqrt(var + NORM_EPSILON)
    return slope, mean - bias, offset
