"""Conversion: a function from the training tree to the folded tree.

Batch norm goes into per-channel thresholds, so that a ternary kernel stays ternary. With the drive
``u`` counted in units of ``unit_in * unit_weight`` the neuron's level is at least ``j`` iff
``u >= theta_j``, where for a norm scale ``gamma > 0`` and ``s = sqrt(var + eps) / gamma``::

    theta_j = ((j - 1/2) * step * s + mean - offset * s) / (unit_in * unit_weight)

(Zou et al., Front. Neurosci. 15:694170, 2021). A channel with ``gamma < 0`` is flipped in sign
(kernel and mean) first; one with ``gamma = 0`` has a constant level. Kernels without an integer
form are put on a power-of-two grid; an integer drive reaches ``theta`` iff it reaches its ceiling,
so thresholds are int32 and no float is compared anywhere.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn import neurons, quant
from jaxsnn.arch import Arch, Site, plan
from jaxsnn.encode import Encoding
from jaxsnn.lowering import Accumulator
from jaxsnn.net import NORM_EPSILON
from jaxsnn.sitemap import SiteMap, hidden
from jaxsnn.spiking import Folded, Spiking

Variables = Mapping[str, Any]
PIXELS = Encoding("onset", 1 / 256)  # uint8 images of a network trained on pixels / 256
NEVER, ALWAYS = 2**31 - 1, -(2**31)  # thresholds that no drive, every drive, reaches


def float_ends(hidden_weights: quant.WeightQuantiser) -> SiteMap[quant.WeightQuantiser]:
    """``hidden_weights`` everywhere but in the encoder and the heads, which stay float."""
    full = quant.full_precision()
    return SiteMap(hidden_weights, (("readout", full), ("exit", full)), first=full)


def convert(
    variables: Variables,
    arch: Arch,
    method: str = "scatter",
    *,
    k: int,
    bound: int,
    weights: SiteMap[quant.WeightQuantiser] | None = None,
    encoding: Encoding = PIXELS,
) -> Spiking:
    """Fold a trained network into integer kernels and thresholds.

    Args:
        variables: ``params`` and ``batch_stats`` of the training tree (see :mod:`jaxsnn.net`).
        arch: the architecture.
        method: "scatter": every neuron becomes ``2**k * bound`` threshold units, one time step.
        k: fractional bits of the activation quantiser it was trained with.
        bound: its upper bound ``B``.
        weights: the weight quantisers it was trained with; default: ternary, float ends.
        encoding: presentation and scale of the integer images.

    Raises:
        ValueError: an unknown method, a tree that does not belong to ``arch``, values that are not
            finite, or a layer that cannot be folded, with its name and the reason.
    """
    if method != "scatter":
        raise ValueError(f"unknown conversion method {method!r}; known: 'scatter'")
    if k < 0 or bound < 1 or int(bound) != bound:
        raise ValueError(f"k={k}, bound={bound}: k must be >= 0 and bound a whole number >= 1")
    refuse(variables, arch)
    levels = 2**k * int(bound)
    weights = weights or float_ends(quant.ternary())
    fold = _Fold(variables, k, levels, weights)
    fold.units["input"], fold.highest["input"] = encoding.scale, encoding.highest
    for site in plan(arch):
        fold.add(site)
    return Spiking(
        variables=jax.tree.map(jnp.asarray, {"params": fold.params, "fixed": fold.fixed}),
        arch=arch,
        neurons=hidden(neurons.threshold_count(levels)),
        ann=hidden(neurons.quantised_relu(k, int(bound))),
        weights=weights,
        encoding=encoding,
        accumulators=SiteMap("float32", by_name=tuple(fold.accumulators.items())),
        units=tuple(fold.units.items()),
        report=tuple(fold.report),
    )


def refuse(variables: Variables, arch: Arch) -> None:
    """Say everything that stands against a conversion at once.

    Raises:
        ValueError: listing each layer or array with the reason.
    """
    reasons = []
    for site in plan(arch):
        if site.shortcut:
            reasons.append(f"{site.name}: a shortcut's drive does not share the branch's units")
        for path, shape in _needed(site).items():
            reason = _unfit(variables, path, shape)
            if reason:
                reasons.append(f"{site.name}: {path} {reason}")
    if reasons:
        raise ValueError("cannot convert:\n  " + "\n  ".join(reasons))


def _needed(site: Site) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every array of the training tree that folding ``site`` reads."""
    channels, needed = site.drive_shape[-1:], {}
    if site.kernel_shape:
        needed[f"params/{site.name}/kernel"] = site.kernel_shape
    if site.bias:
        needed[f"params/{site.name}/bias"] = channels
    if site.norm:
        needed |= {f"params/{site.name}/norm/{leaf}": channels for leaf in ("scale", "bias")}
        needed |= {f"batch_stats/{site.name}/norm/{leaf}": channels for leaf in ("mean", "var")}
    return needed


def _unfit(variables: Variables, path: str, shape: tuple[int, ...]) -> str:
    """What is wrong with the array at ``path``; empty if nothing."""
    leaf: Any = variables
    for name in path.split("/"):
        leaf = leaf.get(name) if isinstance(leaf, Mapping) else None
    if leaf is None:
        return "is missing"
    if np.shape(leaf) != tuple(shape):
        return f"has shape {np.shape(leaf)}, expected {tuple(shape)}"
    if not np.all(np.isfinite(leaf)):
        return "is not finite"
    return "is negative" if path.endswith("/var") and np.any(np.asarray(leaf) < 0) else ""


class _Fold:
    """Walks the plan once, carrying each site's unit and largest count."""

    def __init__(
        self,
        variables: Variables,
        k: int,
        levels: int,
        weights: SiteMap[quant.WeightQuantiser],
    ) -> None:
        self.variables, self.step, self.levels, self.weights = variables, 2.0**-k, levels, weights
        self.units: dict[str, float] = {}
        self.highest: dict[str, int] = {}
        self.params: dict[str, dict[str, np.ndarray]] = {}
        self.fixed: dict[str, dict[str, np.ndarray]] = {}
        self.accumulators: dict[str, Accumulator] = {}
        self.report: list[Folded] = []

    def add(self, site: Site) -> None:
        if site.kind == "avgpool":
            self._add_pool(site)
            return
        kernel, unit_weight, record = self._kernel(site)
        unit = self.units[site.source] * unit_weight
        slope, offset = affine(self.variables, site)
        sign = np.where(slope < 0, -1, 1)
        kernel = kernel * sign
        if site.role == "activation":
            self.fixed[site.name] = {"thresholds": self._thresholds(slope, offset, unit)}
            self.params[site.name] = {"kernel": smallest_integer(kernel)}
            self.units[site.name], self.highest[site.name] = self.step, self.levels
            into = "thresholds"
            if site.bias:  # the tree keeps its paths
                self.params[site.name]["bias"] = np.zeros(len(slope), np.int32)
        else:
            self.params[site.name] = {"kernel": smallest_integer(kernel)}
            if site.bias:
                bias = whole_bias(offset, unit, record["bound"], site.name)
                self.params[site.name]["bias"] = bias
            self.units[site.name], into = unit, "bias on the grid"
        self.accumulators[site.name] = record["accumulator"]
        had = [name for name in ("norm", "bias") if getattr(site, name)]
        norm = f"{' and '.join(had)} into {into}" if had else "none"
        flipped, constant = int((slope < 0).sum()), int((slope == 0).sum())
        self.report.append(
            Folded(site.name, norm=norm, flipped=flipped, constant=constant, **record)
        )

    def _add_pool(self, site: Site) -> None:
        area = math.prod(site.window)
        self.units[site.name] = self.units[site.source] / area
        self.highest[site.name] = self.highest[site.source] * area
        self.report.append(Folded(site.name, "none", norm="sum; 1/area into the next thresholds"))

    def _kernel(self, site: Site) -> tuple[np.ndarray, float, dict[str, Any]]:
        """Integer kernel, the value of its unit, and what the report says of it."""
        master = np.asarray(self.variables["params"][site.name]["kernel"], np.float32)
        quantiser, highest = self.weights.at(site), self.highest[site.source]
        if quantiser.codes is not None:
            codes, unit = quantiser.codes(jnp.asarray(master))
            kernel, exponent, error = np.asarray(codes, np.int64), 0, 0.0
        else:
            exponent = grid_exponent(master, highest, coarsen=not _bias_on_grid(site))
            kernel, unit = on_grid(master, exponent), 2.0**-exponent
            error = float(np.max(np.abs(kernel * unit - master), initial=0))
        bound = largest_sum(kernel, highest)
        if bound >= NEVER:
            raise ValueError(
                f"{site.name}: a sum of its integer drive can reach {bound}, beyond int32 (2^31); "
                "use fewer levels, a smaller Encoding.highest or a coarser weight grid"
            )
        accumulator = "float32" if bound < 2**24 else "int32"
        name = quantiser.name if quantiser.codes is not None else "grid"
        return (
            kernel,
            unit,
            {
                "kernel": name,
                "exponent": exponent,
                "bound": bound,
                "accumulator": accumulator,
                "weight_error": error,
            },
        )

    def _thresholds(self, slope: np.ndarray, offset: np.ndarray, unit: float) -> np.ndarray:
        """int32 ``[levels, C]``: smallest integer drive at which the level is at least j."""
        boundary = (np.arange(1, self.levels + 1) - 0.5)[:, None] * self.step
        safe = np.where(slope == 0, 1.0, np.abs(slope))
        theta = np.ceil((boundary - offset) / safe / unit)
        constant = np.where(offset >= boundary, ALWAYS, NEVER)
        return np.where(slope == 0, constant, np.clip(theta, ALWAYS, NEVER)).astype(np.int32)


def _bias_on_grid(site: Site) -> bool:
    return site.bias and site.role != "activation"


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
    params = variables["params"][site.name]
    channels = site.drive_shape[-1]
    bias = np.asarray(params["bias"], np.float64) if site.bias else np.zeros(channels)
    if not site.norm:
        return np.ones(channels), bias
    norm = {**params["norm"], **variables["batch_stats"][site.name]["norm"]}
    scale, offset, mean, var = (
        np.asarray(norm[name], np.float64) for name in ("scale", "bias", "mean", "var")
    )
    slope = scale / np.sqrt(var + NORM_EPSILON)
    return slope, offset + slope * (bias - mean)


def grid_exponent(
    kernel: np.ndarray, highest: int, limit: int = 2**24, coarsen: bool = True
) -> int:
    """Finest ``g`` for which no sum over a kernel on the grid ``2**-g`` can reach ``limit``.

    Coarser if the kernel lies exactly on a coarser grid and ``coarsen`` says so (a bias that shares
    the grid wants it fine). Inputs are integers up to ``highest``.

    >>> grid_exponent(np.array([[0.5], [-0.25]]), highest=255)
    2
    """
    largest = float(np.max(np.abs(kernel), initial=0))
    exponent = min(30, math.frexp(limit)[1] - math.frexp(largest)[1] + 1) if largest else 30
    while largest_sum(on_grid(kernel, exponent), highest) >= limit:
        exponent -= 1
    codes = on_grid(kernel, exponent)
    while coarsen and codes.any() and not (codes % 2).any():
        codes, exponent = codes // 2, exponent - 1
    return exponent


def on_grid(kernel: np.ndarray, exponent: int) -> np.ndarray:
    """Nearest multiples of ``2**-exponent``, as int64 multiples."""
    return np.round(np.asarray(kernel, np.float64) * 2.0**exponent).astype(np.int64)


def largest_sum(kernel: np.ndarray, highest: int) -> int:
    """Largest possible ``|sum|`` of a drive: ``max over outputs of sum |kernel| * highest``."""
    return int(np.abs(kernel).sum(axis=tuple(range(kernel.ndim - 1))).max(initial=0)) * highest


def smallest_integer(kernel: np.ndarray) -> np.ndarray:
    """The same numbers as int8, int16 or int32, whichever holds them first."""
    return kernel.astype(np.result_type(*(np.min_scalar_type(v) for v in _signed_ends(kernel))))


def _signed_ends(kernel: np.ndarray) -> tuple[int, int]:
    highest = int(np.abs(kernel).max(initial=0))
    return -highest - 1, -1


def snapped(variables: Variables, snn: Spiking) -> dict[str, Any]:
    """The training tree with every kernel that conversion moved put on the same grid (float32).

    The float ANN of these variables is the certificate's second reference.
    """
    params = {name: dict(tree) for name, tree in variables["params"].items()}
    for record in snn.report:
        if record.kernel == "grid":
            codes = on_grid(np.asarray(params[record.site]["kernel"]), record.exponent)
            params[record.site]["kernel"] = jnp.asarray(codes * 2.0**-record.exponent, jnp.float32)
    return {**variables, "params": params}
