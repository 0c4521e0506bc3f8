"""The table of a fit: what becomes of each array, and everything that does not fit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.arch.notation import Arch
from jaxsnn.exchange.layers import Layer, Layers
from jaxsnn.exchange.matching import Matching, Target, targets
from jaxsnn.exchange.table import Row, Table
from jaxsnn.exchange.weights import Weights
from jaxsnn.network.site import NORM_EPSILON


def table_of(weights: Weights, layers: Layers, matching: Matching, arch: Arch) -> Table:
    """Every array of the file and of our tree.

    Args:
        weights: of the file.
        layers: that they make up.
        matching: of layers and sites.
        arch: ours.
    """
    rows: list[Row] = []
    problems, faults = list(matching.problems), list[str]()
    for name, target in targets(arch).items():
        layer = matching.layers.get(name)
        if layer is None:
            rows.append(Row("", None, name, target.shape, "missing"))
            problems.append(f"{name} {target.shape} is missing in the file")
        else:
            rows += _norm_rows(layer, target) if layer.kind == "norm" else _rows(layer, target)
            problems += _misfits(layer, target)
            faults += _faults(layer)
    left = [each for layer in matching.left for each in layer.names.values()]
    for name in (*left, *layers.others):
        rows.append(Row(name, weights[name].shape, "", None, "left over"))
        problems.append(f"{name} {weights[name].shape} is left over")
    rows += [Row(name, weights[name].shape, "", None, "not needed") for name in layers.ignored]
    return Table(weights.place, tuple(rows), (*problems, *faults), tuple(faults))


def reordered(layer: Layer, site: Site) -> bool:
    """Whether a dense layer of torch takes the values of a map channel by channel."""
    return layer.layout == "torch" and layer.kind == "dense" and len(site.in_shape) == 3


def _rows(layer: Layer, target: Target) -> Iterator[Row]:
    """Kernel and bias of a convolution or dense layer."""
    site, shape = target.site, target.shape[-1:]
    note = "" if layer.layout == "keras" else "axes turned"
    note += ", channel last" if reordered(layer, site) else ""
    yield Row(layer.names["kernel"], layer.shape, f"params/{site.name}/kernel", target.shape, note)
    if "bias" in layer.names:
        into, note = f"params/{site.name}/bias", ""
        if site.norm and not site.bias:
            into, note = f"batch_stats/{site.name}/norm/mean", "subtracted from the mean"
        yield Row(layer.names["bias"], layer.arrays["bias"].shape, into, shape, note)


def _norm_rows(layer: Layer, target: Target) -> Iterator[Row]:
    """Scale, bias, mean and variance of a batch norm."""
    change = layer.epsilon - NORM_EPSILON
    notes = {"var": f"{change:+.6g}: its epsilon is {layer.epsilon:g}" if change else ""}
    for part in ("scale", "bias", "mean", "var"):
        collection = "batch_stats" if part in ("mean", "var") else "params"
        path = f"{collection}/{target.site.name}/norm/{part}"
        if part in layer.names:
            shape = layer.arrays[part].shape
            yield Row(layer.names[part], shape, path, target.shape, notes.get(part, ""))
        else:
            constant = "ones" if part == "scale" else "zeros"
            yield Row("", None, path, target.shape, f"{layer.name} has none: {constant}")


def _misfits(layer: Layer, target: Target) -> Iterator[str]:
    """What is wrong with a layer at its target."""
    shape = layer.shape if layer.kind == "norm" else layer.turned().shape
    if shape != target.shape:
        ours = "" if layer.shape == shape else f", {shape} in our order"
        yield f"{layer.name} {layer.shape}{ours}, stands for {target.name} {target.shape}"
    for part, array in layer.arrays.items():
        if array.dtype.kind != "f":
            yield f"{layer.names[part]} has dtype {array.dtype}; floats are wanted"
    if layer.kind != "norm" and layer.kind == target.kind:
        yield from _bias_misfits("bias" in layer.names, layer.name, target.site)


def _faults(layer: Layer) -> Iterator[str]:
    """Values that no network can compute with."""
    for part, array in layer.arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            yield f"{layer.names[part]} holds {count} values that are not finite"
    if layer.kind == "norm" and (layer.arrays["var"] + np.float64(layer.epsilon) <= 0).any():
        yield f"{layer.names['var']} holds negative variances"


def _bias_misfits(has_bias: bool, layer: str, site: Site) -> Iterator[str]:
    if has_bias and not (site.bias or site.norm):
        yield f"{layer} has a bias, {site.name} has none; {_remedy(site, 'b', True)}"
    if site.bias and not has_bias:
        yield f"{layer} has no bias, {site.name} has one; {_remedy(site, 'x', False)}"


def _remedy(site: Site, suffix: str, bias: bool) -> str:
    if site.role == "readout":
        return f"write head_bias={bias}"
    return f"write its token with the suffix {'n' if site.norm else suffix}"
