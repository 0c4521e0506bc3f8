"""What stands against a conversion, said before any work starts."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn import quant
from jaxsnn.arch import Arch, Site, plan
from jaxsnn.method import Method
from jaxsnn.net import Variables
from jaxsnn.sitemap import SiteMap


def refuse(
    variables: Variables,
    arch: Arch,
    method: Method,
    weights: SiteMap[quant.WeightQuantiser],
) -> None:
    """Say everything that stands against a conversion at once.

    Raises:
        ValueError: listing each layer or array with the reason.
    """
    reasons: list[str] = []
    for site in plan(arch):
        if site.shortcut and not method.shortcuts:
            reasons.append(f"{site.name}: a shortcut's drive does not share the branch's units")
        if reason := method.refusal(site):
            reasons.append(f"{site.name}: {reason}")
        for path, shape in (_needed(site) | _learned(site, method, weights)).items():
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


def _learned(
    site: Site, method: Method, weights: SiteMap[quant.WeightQuantiser]
) -> dict[str, tuple[int, ...]]:
    """Path -> shape of the learned leaves of the ANN's activation and of its weight quantiser."""
    channels = site.drive_shape[-1]
    leaves = method.ann.learned(channels) if site.role == "activation" else {}
    leaves = leaves | (weights.at(site).learned() if site.kernel_shape else {})
    return {f"params/{site.name}/{name}": np.shape(leaf) for name, leaf in leaves.items()}


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
    if path.endswith("clip") and np.any(np.asarray(leaf) <= 0):
        return "is not positive: a clip has worn away; train it again with its guard"
    return "is negative" if path.endswith("/var") and np.any(np.asarray(leaf) < 0) else ""
