"""What counts as a tie: how far rounding alone may move a level or a logit of the float ANN."""

from typing import Any, NamedTuple

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.arch.plan import site_named
from jaxsnn.conversion.batch_norm import affine
from jaxsnn.conversion.spiking import Folded, Spiking
from jaxsnn.network.site import aligned
from jaxsnn.types import Variables

EPSILON = 2.0**-24  # half a unit in the last place of float32, relative
DOUBLE_EPSILON = 2.0**-53  # the same of float64


class References(NamedTuple):
    """What both references say of one batch: levels per site and readouts per head ``[B, ...]``.

    The heads' ``end_to_end`` are the float ANN's logits; predictions are the integer ANN's and the
    float ANN's ``[B]``, and ``trained_predictions`` those of the network as it was trained.
    """

    integer: dict[str, Any]
    end_to_end: dict[str, Any]
    fed: dict[str, Any]
    drive: dict[str, Any]
    predictions: tuple[Any, Any]
    trained_predictions: Any = None


class Ties:
    """Bounds of what rounding explains, for one spiking network and its float reference.

    Args:
        snn: the network.
        variables: the tree it was made from, as :func:`jaxsnn.conversion.snapped` leaves it.
        in_double: the float ANN is computed in float64.
    """

    def __init__(self, snn: Spiking, variables: Variables, in_double: bool = False) -> None:
        self.snn, self.variables = snn, variables
        self.epsilon = DOUBLE_EPSILON if in_double else EPSILON

    def head_rounding(self, site: Site, logits: np.ndarray) -> np.ndarray:
        """Largest difference of a logit that rounding explains: the bias's grid, float32 sums."""
        record, unit = self.snn.folded(site.name), self.snn.unit(site.name)
        each_step = self.snn.encoding.ends or 1
        grid = each_step * unit / 2 if site.bias else 0.0
        drive = self.snn.unit(site.source) * record.kernel_unit
        return grid + drive * self._rounding(site, record) + 4 * self.epsilon * np.abs(logits)

    def distance(
        self, site: Site, references: References, reference: np.ndarray, fed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """How far each activation is from the boundary in dispute, and what may move it, in steps.

        The float ANN's sums are exact (snapped weights, whole inputs under 2^24) or in float64;
        what rounds is the norm: subtract, multiply twice, add, of numbers no larger than the sum of
        magnitudes.
        On the other side, evenly spaced thresholds lie on a grid: the first is up to half a unit of
        it off, and so is every distance between two.
        """
        step = self.snn.unit(site.name)
        value, rounding = self._activated(site, references.drive[site.name])
        if site.shortcut:
            more, imprecise = self._added(site, references)
            value, rounding = value + more, rounding + imprecise
        number = np.maximum(reference, fed)
        boundary = (number - 0.5) * step
        grid = self._potential_unit(site) * self.snn.folded(site.name).threshold_grid / 2 * number
        if "initial" in self.snn.variables["fixed"][site.name]:
            grid = step * self._fixed_point(site, references, number)
        return np.abs(value - boundary) / step, (grid + rounding) / step

    def _fixed_point(self, site: Site, references: References, number: np.ndarray) -> np.ndarray:
        """How far the grid of a potential may move a level, in quantisation steps.

        Half a grid unit for each step's bias, for each threshold, and for each unit of a shortcut's
        drive, whose gain is rounded; the threshold of a step is so many grid units.
        """
        rounded = (self.snn.encoding.ends or 1) + number
        if site.shortcut:
            source = site_named(self.snn.arch, site.shortcut)
            drives = references.drive if source.role == "shortcut" else references.end_to_end
            rounded = rounded + np.abs(aligned(drives[source.name], site))
        return rounded / 2 / np.asarray(self.snn.variables["fixed"][site.name]["threshold"])

    def _potential_unit(self, site: Site) -> np.ndarray:
        """Value of one unit of what thresholds are compared with, float64 ``[C]``."""
        record, params = self.snn.folded(site.name), self.snn.variables["params"][site.name]
        each = np.abs(affine(self.variables, site)[0])
        each = each * self.snn.unit(site.source) * record.kernel_unit
        if not site.shortcut:
            return each
        gain = np.asarray(params["gain"], np.float64)
        return np.where(gain > 0, each / np.where(gain > 0, gain, 1), self._shortcut_unit(site))

    def _shortcut_unit(self, site: Site) -> np.ndarray | float:
        """Value of one unit of a shortcut's drive: a projection's has its norm."""
        source, unit = site_named(self.snn.arch, site.shortcut), self.snn.unit(site.shortcut)
        if source.role != "shortcut":
            return unit
        return np.abs(affine(self.variables, source)[0]) * unit

    def _activated(self, site: Site, drive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What norm and bias make of a drive, float64, and how far float32 may be off."""
        slope, offset = affine(self.variables, site)
        record = self.snn.folded(site.name)
        unit = self.snn.unit(site.source) * record.kernel_unit
        z, sign = np.abs(drive * unit), np.where(slope < 0, -1, 1)
        mean = np.abs(offset) + 2 * np.abs(slope) * z + self._norm_size(site)
        summed = np.abs(slope) * unit * self._rounding(site, record)
        return slope * sign * drive * unit + offset, 8 * self.epsilon * mean + summed

    def _added(self, site: Site, references: References) -> tuple[np.ndarray, np.ndarray]:
        """The same of what a shortcut adds: a projection's drive, or the source's activation."""
        source = site_named(self.snn.arch, site.shortcut)
        gain = np.asarray(self.variables["params"][site.name].get("shortcut_gain", 1), np.float64)
        if source.role == "shortcut":
            value, rounding = self._activated(source, references.drive[source.name])
            return gain * value, gain * rounding + 2 * self.epsilon * np.abs(value)
        level = aligned(references.end_to_end[source.name], site)
        value = gain * level * self.snn.unit(source.name)
        return value, 8 * self.epsilon * np.abs(value)

    def _norm_size(self, site: Site) -> np.ndarray | float:
        if not site.norm:
            return 0.0
        norm = self.variables["params"][site.name]["norm"]
        mean = np.asarray(self.variables["batch_stats"][site.name]["norm"]["mean"], np.float64)
        slope = affine(self.variables, site)[0]
        return 2 * np.abs(slope * mean) + np.abs(np.asarray(norm["bias"], np.float64))

    def _rounding(self, site: Site, record: Folded) -> float:
        """Error of a sum of the float ANN in units of the drive, 0 where sums are exact.

        The roundings of n terms add up to about ``sqrt(n)`` of one; four times that is allowed.
        """
        if record.exact_in_float and self.epsilon == EPSILON:
            return 0.0
        terms = site.macs / max(int(np.prod(site.drive_shape)), 1)
        return float(4 * np.sqrt(terms) * self.epsilon * record.bound)
