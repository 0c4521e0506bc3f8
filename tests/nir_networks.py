"""Networks that are written as NIR graphs, and what they are shown."""

import jax
import numpy as np
from helpers import HIDDEN_TERNARY, pixels

from jaxsnn import (
    CutNormal,
    Encoding,
    FanInUniform,
    Net,
    convert,
    directly_trained,
    hidden,
    init_variables,
    methods,
    neurons,
    parse,
    spiking_net,
)
from jaxsnn.conversion import percentiles

HELD = Encoding("held", 1 / 256, 256)
VGG = parse(
    "6C3p1-8C3s2p1-E-8C3p1", classes=4, input_shape=(7, 7, 1), head_pool=True, head_bias=True
)
RES = parse(
    "6C3p1-[6C3p1-6C3p1]+bias-[8C3s2p1-8C3p1]+bias-E-[8C3p1-8C3p1]+identity",
    classes=4, input_shape=(6, 6, 1), head_pool=True, head_bias=True,
)  # fmt: skip


def scattered(text, seed=0, shape=(9, 9, 2), k=1, bound=2, **options):
    """A random scatter-and-gather network whose thresholds are met, and images."""
    arch = parse(text, input_shape=shape, classes=5, **options)
    net = Net(arch, hidden(neurons.quantised_relu(k, bound)), initialiser=CutNormal(hidden=0.4))
    variables = jax.tree.map(np.array, init_variables(net, jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    for tree in variables["params"].values():
        tree["kernel"] = np.round(64 * tree["kernel"]) / 64  # a coarse grid where they stay float
        if "norm" in tree:
            size = tree["norm"]["scale"].shape
            tree["norm"]["scale"][:] = rng.uniform(0.2, 0.6, size) * rng.choice([-1, 1, 1], size)
            tree["norm"]["bias"][:] = rng.uniform(-0.2, 0.6, size)
    method = methods.scatter_gather(k=k, bound=bound)
    snn = convert(variables, arch, method, weights=HIDDEN_TERNARY)
    return snn, pixels(rng, 12, shape)


NETWORKS = [
    {"text": "6C3same-8C3-16", "pool": "conv"},
    {"text": "6C3same-P2-8C3-16-12", "pool": "conv", "k": 0, "bound": 3},
    {"text": "6C4s2same-MP2-16", "pool": "max"},  # more zeros on one side than on the other
    {"text": "6C3p1-MP2-8C3same-AP2-16", "pool": "avg", "shape": (10, 10, 1)},
    {"text": "20-16", "pool": "conv", "shape": (4, 4, 1), "k": 2, "bound": 1},
    {"text": "6C3same-E-8C3", "pool": "conv", "head_pool": True, "head_bias": True},
    {"text": "6C3s2same-8", "pool": "conv", "shape": (8, 5, 1)},  # windows that are no squares
]


def dyadic(arch, cell, readout, seed, learned=None):
    """A directly trained network whose weights are multiples of 1/16, so that sums are exact."""
    net = spiking_net(arch, cell, readout).clone(initialiser=FanInUniform())
    variables = jax.tree.map(np.array, init_variables(net, jax.random.key(seed)))
    for tree in variables["params"].values():
        for leaf in ("kernel", "bias"):
            if leaf in tree:
                tree[leaf] = np.round(3 * tree[leaf] * 16) / 16
        for leaf, values in (learned or {}).items():
            if leaf in tree:
                tree[leaf] = np.resize(np.float32(values), tree[leaf].shape)
    return directly_trained(net, variables, Encoding("frames", 1.0))


FRAMES = np.random.default_rng(7).integers(0, 3, (8, 4, 8, 8, 2)).astype(np.float32)
LEAKY = parse("4C3p1-AP2-5C3-8", input_shape=(8, 8, 2), classes=3, norm=False, head_bias=True)


def rate_coded(arch, delay, seed=0):
    """A rate-coded network at the 99th percentile of its activations, and signed images."""
    net = Net(arch, hidden(neurons.relu()), initialiser=FanInUniform())
    variables = jax.tree.map(np.array, init_variables(net, jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    for tree in variables["batch_stats"].values():
        tree["norm"]["var"] *= rng.uniform(0.2, 1, tree["norm"]["var"].shape).astype(np.float32)
    images = rng.integers(-256, 257, (9, *arch.input_shape)).astype(np.int16)
    (scales,) = percentiles.scales(net, variables, images, [99.0], encoding=HELD)
    method = methods.rate(scales=scales, initial=0.0, delay=delay)
    return convert(variables, arch, method, encoding=HELD), images


def plain_rate_coded(scales, delay=0):
    """Positive weights without norm, so that potentials never fall, and images."""
    arch = parse("6C3p1-8C3s2p1-8", classes=4, input_shape=(7, 7, 1), norm=False)
    net = Net(arch, hidden(neurons.relu()), initialiser=FanInUniform())
    variables = jax.tree.map(np.array, init_variables(net, jax.random.key(0)))
    for tree in variables["params"].values():
        tree["kernel"] = np.abs(np.round(64 * tree["kernel"]) / 64)
    images = np.random.default_rng(0).integers(0, 257, (6, 7, 7, 1)).astype(np.int16)
    names = ("conv1", "conv2", "dense1", "readout")
    named = dict(zip(names, scales, strict=True))
    method = methods.rate(scales=named, initial=0.0, delay=delay)
    return convert(variables, arch, method, encoding=HELD), images
