"""The same network with activations of similar size, so that one step of a quantiser suits all.

A ReLU, a pool and a shortcut pass a positive factor on: activations divided by ``s`` and the next
kernel multiplied by it are the same network. With powers of two not a bit of a logit changes.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.types import Variables


def factors(arch: Arch, scales: Mapping[str, float]) -> dict[str, float]:
    """What the activations of every site are to be divided by: powers of two.

    Args:
        arch: the architecture.
        scales: activation's site -> robust maximum of its activations, above 0.

    Returns:
        Site -> the least power of two that is at least its scale; pools have that of their source,
        sites that a shortcut without weights joins have the largest of them, heads 1. The input
        ("input") stays as it is.

    >>> from jaxsnn.arch import parse
    >>> factors(parse("4C3-AP2-8", classes=2, input_shape=(6, 6, 1)), {"conv1": 3.0, "dense1": 0.2})
    {'input': 1.0, 'conv1': 4.0, 'avgpool1': 4.0, 'dense1': 0.25, 'readout': 1.0}
    """
    roots = _roots(arch)
    exponents: dict[str, int] = {}
    for name, root in roots.items():
        if name in scales:
            exponent = math.ceil(math.log2(scales[name]))
            exponents[root] = max(exponents.get(root, exponent), exponent)
    shared = {name: 2.0 ** exponents[root] for name, root in roots.items() if root in exponents}
    ends = {site.shortcut: site.name for site in plan(arch) if site.shortcut}
    by_site = {"input": 1.0}
    for site in plan(arch):
        if site.role == "shortcut":
            by_site[site.name] = shared[ends[site.name]]
        else:
            by_site[site.name] = 1.0 if site.role in ("exit", "readout") else shared[site.name]
    return by_site


def balanced(variables: Variables, arch: Arch, by: Mapping[str, float]) -> dict[str, Any]:
    """The tree whose activations are divided by ``by``; its logits are the same, bit for bit.

    Args:
        variables: ``params`` and ``batch_stats``, of kernels in full precision.
        arch: the architecture.
        by: from :func:`factors`.
    """
    params = {name: dict(tree) for name, tree in variables["params"].items()}
    for site in plan(arch):
        if not site.kernel_shape:
            continue
        tree = params[site.name]
        before, after = np.float32(by[site.source]), np.float32(by[site.name])
        if site.norm:  # what comes before the norm stays as it is
            tree["kernel"] = tree["kernel"] * before
            tree["norm"] = {leaf: value / after for leaf, value in tree["norm"].items()}
        else:
            tree["kernel"] = tree["kernel"] * (before / after)
            if site.bias:
                tree["bias"] = tree["bias"] / after
        if "clip" in tree:
            tree["clip"] = tree["clip"] / after
    return {**variables, "params": params}


def _roots(arch: Arch) -> dict[str, str]:
    """Activations and pools -> one name for all that must have the same factor."""
    roots: dict[str, str] = {}
    for site in plan(arch):
        if site.role == "pool":
            roots[site.name] = roots[site.source]
        elif site.role == "activation":
            roots[site.name] = _joined(site, roots)
    return roots


def _joined(site: Site, roots: dict[str, str]) -> str:
    """The name of its own, or that of the site which a shortcut without weights adds to it."""
    return roots.get(site.shortcut, site.name) if site.shortcut else site.name
