"""The walk of a conversion over the sites of a network, and what every method shares.

A method folds one site at a time (:class:`jaxsnn.conversion.method.Method`); the walk carries along
what a count of each site is worth, how large it can become, and checks that every sum is held.
"""

import math

import numpy as np

from jaxsnn.arch.layers import MaxPool, Site
from jaxsnn.conversion.batch_norm import Norm, norm_of
from jaxsnn.conversion.grid import channel_sums, largest_sum, smallest_integer
from jaxsnn.conversion.kernels import Inputs, Kernel, KernelForm
from jaxsnn.conversion.method import ENDLESS, NEVER, Cells, Drive, Method, Shortcut
from jaxsnn.conversion.spiking import Folded, accumulator_for
from jaxsnn.errors import UserError
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.network import weight_quantisers
from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.synapse import Accumulator
from jaxsnn.types import Variables

ADDED = ("gain", "shortcut_gain", "bias")  # names of arrays that a folded tree may have more


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
        weights: SiteMap[weight_quantisers.WeightQuantiser],
        encoding: Encoding,
    ) -> None:
        self.variables, self.method, self.weights = variables, method, weights
        self.ends = encoding.ends is not None
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
        self._slopes: dict[str, np.ndarray] = {}

    def add(self, site: Site) -> None:
        """Fold the next site of the plan.

        Raises:
            UserError: a sum, bias or threshold beyond int32, with the site's name.
        """
        if isinstance(site.spec, MaxPool):
            self._add_max_pool(site, site.spec)
            return
        if site.kind == "avgpool":
            self._add_pool(site)
            return
        norm = norm_of(self.variables, site)
        self._slopes[site.name] = norm.slope
        kernel = self._kernel(site, norm.slope)
        bounds, step_bound = self._sums(site, kernel)
        bound, whole = int(bounds.max()), kernel.is_whole
        self._store(site, kernel)
        cells = self._add_cells(site, self._drive(site, kernel, norm, bounds), whole)
        self.accumulators[site.name] = accumulator_for(step_bound) if whole else "float32"
        self.report.append(
            Folded(
                site.name,
                kernel.form,
                kernel.quantiser,
                exponent=kernel.exponent,
                scale=kernel.unit * 2.0**kernel.exponent,
                added=tuple(name for name in ADDED if self._added(site, name)),
                norm=self._destination(site),
                flipped=int((norm.slope < 0).sum()),
                constant=int((norm.slope == 0).sum()),
                bound=bound,
                accumulator=self.accumulators[site.name],
                weight_error=kernel.error,
                step_bound=step_bound,
                threshold_grid=cells.threshold_grid,
                gain_error=cells.gain_error,
            )
        )

    def _kernel(self, site: Site, slope: np.ndarray) -> Kernel:
        """The method's kernel; channels whose norm turns the sign around have it turned here."""
        added = self._shortcut(site)
        most = 0.0 if added is None else float((added.scale * added.bound).max())
        inputs = Inputs(self.units[site.source], self.highest[site.source], np.abs(slope), most)
        master = self.variables["params"][site.name]
        kernel = self.method.kernel(site, master, self.weights.at(site), inputs)
        return kernel._replace(values=kernel.values * np.where(slope < 0, -1, 1))

    def _drive(self, site: Site, kernel: Kernel, norm: Norm, bound: np.ndarray) -> Drive:
        """What the site's neurons will see."""
        master = self.variables["params"][site.name]
        return Drive(
            site.name,
            self.method.step(site, master) if self.method.has_neurons(site) else 0.0,
            np.abs(norm.slope),
            norm.center * np.where(norm.slope < 0, -1, 1),
            norm.offset,
            self.units[site.source] * kernel.unit,
            bound,
            self._shortcut(site),
        )

    def _store(self, site: Site, kernel: Kernel) -> None:
        """The kernel, and a bias of zeros where training has one: the tree keeps its paths."""
        values, whole = kernel.values, kernel.is_whole
        stored = smallest_integer(values) if whole else values.astype(np.float32)
        self.params[site.name] = {"kernel": stored}
        if site.bias:
            kind = np.int32 if whole else np.float32
            self.params[site.name]["bias"] = np.zeros(values.shape[-1], kind)

    def _add_cells(self, site: Site, drive: Drive, whole: bool) -> Cells:
        """Neurons, a projection or a head; the latter two have no cells."""
        if self.method.has_neurons(site):
            return self._add_neurons(drive)
        if site.role == "shortcut":
            self._add_projection(drive)
        else:
            self._add_head(site, drive, whole)
        return Cells({}, np.asarray(0))

    def _destination(self, site: Site) -> str:
        """What became of norm and bias, for the report."""
        had = [name for name in ("norm", "bias") if getattr(site, name)]
        into = self.method.destination if self.method.has_neurons(site) else "bias on the grid"
        if site.role == "shortcut":
            into = "those of the block's last neurons"
        return f"{' and '.join(had)} into {into}" if had else "none"

    def _add_pool(self, site: Site) -> None:
        area = math.prod(site.window)
        cells = self.method.pool(site.out_shape[-1], area)
        if cells is not None:
            self.fixed[site.name], self.highest[site.name] = cells.fixed, cells.highest
            self.units[site.name] = self.units[site.source]
            self.peaks[site.name] = self.method.largest_spike
            into = "sum; area into its threshold"
            self.report.append(Folded(site.name, KernelForm.NONE, norm=into))
            return
        self.units[site.name] = self.units[site.source] / area
        self.highest[site.name] = self.highest[site.source] * area
        self.peaks[site.name] = self.peaks[site.source] * area
        into = "sum; 1/area into the next thresholds"
        self.report.append(Folded(site.name, KernelForm.NONE, norm=into))

    def _add_max_pool(self, site: Site, pool: MaxPool) -> None:
        """Counts as they come in; before a norm the smallest, where its scale is negative."""
        self.units[site.name] = self.units[site.source]
        self.highest[site.name] = self.highest[site.source]
        self.peaks[site.name] = self.peaks[site.source]
        if pool.before_norm:
            falling = self._slopes[site.source] < 0
            self.fixed[site.name] = {"sign": np.where(falling, -1, 1).astype(np.int32)}
        self.report.append(Folded(site.name, KernelForm.NONE, norm="largest net count"))

    def _sums(self, site: Site, kernel: Kernel) -> tuple[np.ndarray, int]:
        """Largest ``|sum|`` of each channel over all steps ``[C]``, and of any in one step."""
        bound = channel_sums(kernel.values, self.highest[site.source])
        if kernel.is_whole and bound.max() >= NEVER:
            raise UserError(
                f"{site.name}: a sum of its integer drive can reach {bound.max()}, beyond int32 "
                "(2^31); use fewer levels, a smaller Encoding.highest or a coarser weight grid"
            )
        return bound, largest_sum(kernel.values, self.peaks[site.source])

    def _add_neurons(self, drive: Drive) -> Cells:
        """The site's neurons."""
        cells = self.method.cells(drive)
        self.fixed[drive.site], self.highest[drive.site] = cells.fixed, cells.highest
        self.params[drive.site] |= cells.params
        self.units[drive.site], self.peaks[drive.site] = drive.step, self.method.largest_spike
        return cells

    def _added(self, site: Site, name: str) -> bool:
        had = name == "bias" and site.bias
        return name in self.params[site.name] and not had

    def _shortcut(self, site: Site) -> Shortcut | None:
        """What is added at the end of a residual block: a projection's drive, or net counts."""
        if not site.shortcut or site.shortcut in self._projections:
            return self._projections.get(site.shortcut)
        channels = site.drive_shape[-1]
        scale = np.full(channels, self.units[site.shortcut])
        bound = np.full(channels, np.max(self.highest[site.shortcut]), np.int64)
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
        if gain > 1 or (site.bias and whole and self.method.head_gain > 1):  # the same tree for all
            self.params[drive.site]["gain"] = np.full(len(bias), gain, np.int32)
        unit = self.units[drive.site] = drive.unit / gain
        if site.bias:
            self.params[drive.site]["bias"] = (
                whole_bias(bias, unit, int(drive.bound.max()) * gain, drive.site, self.duration)
                if whole
                else (bias / unit).astype(np.float32)
            )

    def _head_gain(self, drive: Drive, bias: np.ndarray) -> int:
        """How much finer the bias of one step is than a unit of the drive; a power of two."""
        reach = drive.bound.max() + self.duration * np.abs(bias / drive.unit).max(initial=0)
        reach *= 1 if self.ends else ENDLESS
        finest = math.floor(math.log2(NEVER / 2 / max(reach, 1)))
        return max(min(2 ** max(finest, 0), self.method.head_gain), 1)


def whole_bias(bias: np.ndarray, unit: float, bound: int, name: str, steps: int = 1) -> np.ndarray:
    """A head's bias of one step in units of its drive, int32.

    Raises:
        UserError: over all ``steps``, with a drive of up to ``bound``, it would leave int32.
    """
    codes = np.round(bias / unit)
    if steps * np.abs(codes).max(initial=0) + bound >= NEVER:
        raise UserError(
            f"{name}: its bias is {np.abs(bias).max():.3g}, beyond int32 on the grid {unit:.3g} of "
            "its weights; rescale the layer so that weights and bias are of similar size"
        )
    return codes.astype(np.int32)
