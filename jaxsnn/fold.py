"""The walk of a conversion over the sites of a network, and what every method shares.

A method folds one site at a time (:class:`Method`); the walk carries along what a count of each
site is worth, how large it can become, and checks that every sum is held.
"""

import math
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxsnn import quant
from jaxsnn.arch import Site
from jaxsnn.encode import Encoding, Presentation
from jaxsnn.grid import largest_sum, smallest_integer
from jaxsnn.lowering import Accumulator
from jaxsnn.net import NORM_EPSILON, Variables
from jaxsnn.neurons import Neuron
from jaxsnn.sitemap import SiteMap
from jaxsnn.spiking import Folded, accumulator_for

ADDED = ("gain", "shortcut_gain", "bias")  # names of arrays that a folded tree may have more
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
    weights: SiteMap[quant.WeightQuantiser]
    kernel: Callable[[Site, Master, quant.WeightQuantiser, np.ndarray], Kernel]
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
        self.duration = encoding.ends or 1
        # Counts are sums over all steps: a held input counts once in each.
        self.units = {"input": encoding.scale / self.duration}
        self.highest = {"input": np.asarray(encoding.highest * self.duration, np.int64)}
        self.peaks = {"input": encoding.highest}
        self.params: dict[str, dict[str, np.ndarray]] = {}
        self.fixed: dict[str, dict[str, np.ndarray]] = {}
        self.accumulators: dict[str, Accumulator] = {}
        self.report: list[Folded] = []
        self._projections: dict[str, Shortcut] = {}

    def add(self, site: Site) -> None:
        """Fold the next site of the plan.

        Raises:
            ValueError: a sum, bias or threshold beyond int32, with the site's name.
        """
        if site.kind == "avgpool":
            self._add_pool(site)
            return
        master = self.variables["params"][site.name]
        inputs = self.highest[site.source]
        kernel = self.method.kernel(site, master, self.weights.at(site), inputs)
        slope, center, offset = norm_of(self.variables, site)
        sign = np.where(slope < 0, -1, 1)
        kernel = kernel._replace(values=kernel.values * sign)
        bound, step_bound = self._sums(site, kernel)
        unit = self.units[site.source] * kernel.unit
        neuron = self.method.has_neurons(site)
        step = self.method.step(site, master) if neuron else 0.0
        added = self._shortcut(site)
        drive = Drive(site.name, step, np.abs(slope), center * sign, offset, unit, bound, added)
        whole = _is_whole(kernel.values)
        stored = smallest_integer(kernel.values) if whole else kernel.values.astype(np.float32)
        self.params[site.name] = {"kernel": stored}
        if site.bias:  # the tree keeps its paths
            kind = np.int32 if whole else np.float32
            self.params[site.name]["bias"] = np.zeros(len(drive.slope), kind)
        grid = 0.0
        if neuron:
            grid = self._add_neurons(drive)
        elif site.role == "shortcut":
            self._add_projection(drive)
        else:
            self._add_head(site, drive, whole)
        accumulator = accumulator_for(step_bound) if whole else "float32"
        self.accumulators[site.name] = accumulator
        had = [name for name in ("norm", "bias") if getattr(site, name)]
        into = self.method.into if neuron else "bias on the grid"
        if site.role == "shortcut":
            into = "those of the block's last neurons"
        self.report.append(
            Folded(
                site.name,
                kernel=kernel.name,
                exponent=kernel.exponent,
                scale=kernel.unit * 2.0**kernel.exponent,
                added=tuple(name for name in ADDED if self._added(site, name)),
                norm=f"{' and '.join(had)} into {into}" if had else "none",
                flipped=int((slope < 0).sum()),
                constant=int((slope == 0).sum()),
                bound=bound,
                accumulator=accumulator,
                weight_error=kernel.error,
                step_bound=step_bound,
                threshold_grid=grid,
            )
        )

    def _add_pool(self, site: Site) -> None:
        area = math.prod(site.window)
        if self.method.pool is not None:
            cells = self.method.pool(site.out_shape[-1], area)
            self.fixed[site.name], self.highest[site.name] = cells.fixed, cells.highest
            self.units[site.name] = self.units[site.source]
            self.peaks[site.name] = self.method.spikes
            self.report.append(Folded(site.name, "none", norm="sum; area into its threshold"))
            return
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

    def _add_neurons(self, drive: Drive) -> float:
        """The site's neurons; the grid of their thresholds."""
        cells = self.method.cells(drive)
        self.fixed[drive.site], self.highest[drive.site] = cells.fixed, cells.highest
        self.params[drive.site] |= cells.params
        self.units[drive.site], self.peaks[drive.site] = drive.step, self.method.spikes
        return cells.threshold_grid

    def _added(self, site: Site, name: str) -> bool:
        had = name == "bias" and site.bias
        return name in self.params[site.name] and not had

    def _shortcut(self, site: Site) -> Shortcut | None:
        """What is added at the end of a residual block: a projection's drive, or net counts."""
        if not site.shortcut or site.shortcut in self._projections:
            return self._projections.get(site.shortcut)
        channels = site.drive_shape[-1]
        scale = np.full(channels, self.units[site.shortcut])
        bound = int(np.max(self.highest[site.shortcut]))
        return Shortcut(scale, np.zeros(channels), bound)

    def _add_projection(self, drive: Drive) -> None:
        """A projection has no neurons: its norm and bias go where it is added."""
        self.units[drive.site] = drive.unit
        offset = drive.offset - drive.slope * drive.center
        self._projections[drive.site] = Shortcut(drive.slope * drive.unit, offset, drive.bound)

    def _add_head(self, site: Site, drive: Drive, whole: bool) -> None:
        """The unit of a site without neurons, and its bias in that unit, step by step."""
        bias = (drive.offset - drive.center) / self.duration  # a head has no norm
        gain = self._head_gain(drive, bias) if site.bias and whole else 1
        if gain > 1:
            self.params[drive.site]["gain"] = np.full(len(bias), gain, np.int32)
        unit = self.units[drive.site] = drive.unit / gain
        if site.bias:
            self.params[drive.site]["bias"] = (
                whole_bias(bias, unit, drive.bound * gain, drive.site, self.duration)
                if whole
                else (bias / unit).astype(np.float32)
            )

    def _head_gain(self, drive: Drive, bias: np.ndarray) -> int:
        """How much finer the bias of one step is than a unit of the drive; a power of two."""
        reach = drive.bound + self.duration * np.abs(bias / drive.unit).max(initial=0)
        finest = math.floor(math.log2(NEVER / 2 / max(reach, 1)))
        return max(min(2 ** max(finest, 0), self.method.head_gain), 1)


def _is_whole(kernel: np.ndarray) -> bool:
    return bool(np.issubdtype(kernel.dtype, np.integer))


def whole_bias(bias: np.ndarray, unit: float, bound: int, name: str, steps: int = 1) -> np.ndarray:
    """A head's bias of one step in units of its drive, int32.

    Raises:
        ValueError: over all ``steps``, with a drive of up to ``bound``, it would leave int32.
    """
    codes = np.round(bias / unit)
    if steps * np.abs(codes).max(initial=0) + bound >= NEVER:
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
