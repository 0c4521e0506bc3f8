"""Somebody's arrays in our tree of variables: turned, re-ordered, and their norms carried over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.exchange.fit_table import reordered, table_of
from jaxsnn.exchange.layers import Layer, layers_of
from jaxsnn.exchange.matching import NORM, match
from jaxsnn.exchange.weights import Layout, Weights, contiguous
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import hidden
from jaxsnn.network.site import NORM_EPSILON
from jaxsnn.neurons import relu

Array = np.ndarray
Tree = dict[str, Any]


class Fitting:
    """Layers beside sites; nothing is computed until :meth:`variables` is asked for.

    Args:
        arrays: by name.
        arch: ours.
        layout, names, epsilon: see :func:`fit`.

    Attributes:
        table: what becomes of every array.
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        arch: Arch,
        *,
        layout: Layout | None = None,
        names: Mapping[str, str] | None = None,
        epsilon: float | None = None,
    ) -> None:
        if isinstance(arrays, Weights):
            weights = arrays
        else:
            weights = Weights({name: contiguous(np.asarray(a)) for name, a in arrays.items()})
        layers = layers_of(weights, layout or weights.layout, epsilon, weights.epsilons)
        self.arch = arch
        self._matching = match(layers.layers, arch, names, ordered=weights.ordered)
        self.table = table_of(weights, layers, self._matching, arch)

    @property
    def net(self) -> Net:
        """The network that the arrays were trained in: ``trained=`` of a conversion."""
        return network_of(self.arch)

    def variables(self) -> Tree:
        """The tree of :func:`jaxsnn.init_variables` for this architecture, float32.

        Raises:
            UserError: something does not fit, or an array holds what is no finite number.
        """
        self.table.check()
        tree: Tree = {"params": {}}
        for site in plan(self.arch):
            if site.kind in ("avgpool", "maxpool"):
                continue
            synapse = self._matching.layers[site.name]
            params: Tree = {"kernel": _single(kernel_of(synapse, site))}
            if site.bias:
                params["bias"] = _single(synapse.arrays["bias"])
            tree["params"][site.name] = params
            if site.norm:
                norm = self._matching.layers[site.name + NORM]
                params["norm"], stats = _norm(norm, synapse, site)
                tree.setdefault("batch_stats", {})[site.name] = {"norm": stats}
        return tree


def fit(
    arrays: Mapping[str, Array],
    arch: Arch,
    layout: Layout | None = None,
    *,
    names: Mapping[str, str] | None = None,
    epsilon: float | None = None,
) -> Tree:
    """Variables of our network from the arrays of somebody's.

    Kernels are turned to (height, width, in, out), those of dense layers to (in, out), and the
    inputs of a dense layer behind a map from torch's order (channel, height, width) to ours. A
    convolution's bias before a batch norm goes into the running mean, which it is subtracted from;
    an epsilon other than ours, 1e-5, goes into the variance. The function that is computed stays
    the same. Layers are matched by :func:`jaxsnn.exchange.matching.match`.

    Args:
        arrays: by name, from :func:`jaxsnn.exchange.read_weights` or from anywhere.
        arch: the architecture, whose sites they become.
        layout: "torch" or "keras", their order of axes and names; None: what the file says, torch
            if it says nothing.
        names: layer -> site, or the site's name with "/norm" for a batch norm, where order and
            shape do not decide: ``{"layer2.0.downsample.0": "block4.shortcut"}``.
        epsilon: what their batch norms add to a variance; None: what the file says, otherwise
            what the library does, 1e-5 in torch and 1e-3 in Keras.

    Returns:
        ``{"params": ..., "batch_stats": ...}``, float32 arrays of NumPy.

    Raises:
        UserError: naming every array that is left over, missing or of another shape.

    >>> from jaxsnn.arch import parse
    >>> arch = parse("2C3x", input_shape=(4, 4, 1), classes=5)
    >>> theirs = {"conv.weight": np.zeros((2, 1, 3, 3)), "fc.weight": np.zeros((5, 8))}
    >>> fit(theirs, arch)["params"]["readout"]["kernel"].shape
    (8, 5)
    """
    return Fitting(arrays, arch, layout=layout, names=names, epsilon=epsilon).variables()


def network_of(arch: Arch) -> Net:
    """Somebody's network as it is taken over: ReLUs, and weights in full precision."""
    return Net(arch, hidden(relu()))


def kernel_of(layer: Layer, site: Site) -> Array:
    """A layer's kernel as a site has it."""
    kernel = layer.turned()
    if not reordered(layer, site):
        return kernel
    height, width, channels = site.in_shape
    mapped = kernel.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
    return mapped.reshape(kernel.shape)


def _norm(norm: Layer, synapse: Layer, site: Site) -> tuple[dict[str, Array], dict[str, Array]]:
    """Scale and bias, mean and variance; with a bias that goes before and our epsilon."""
    channels = norm.shape[0]
    parts = {"scale": np.ones(channels), "bias": np.zeros(channels), **norm.arrays}
    exact = {part: np.asarray(array, np.float64) for part, array in parts.items()}
    if "bias" in synapse.arrays and not site.bias:
        exact["mean"] = exact["mean"] - np.asarray(synapse.arrays["bias"], np.float64)
    exact["var"] = exact["var"] + (norm.epsilon - NORM_EPSILON)
    single = {part: _single(array) for part, array in exact.items()}
    return (
        {part: single[part] for part in ("scale", "bias")},
        {part: single[part] for part in ("mean", "var")},
    )


def _single(array: Array) -> Array:
    return np.array(array, np.float32, order="C")
