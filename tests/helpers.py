"""Builders that several test modules share: reference layers as a network of the library."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import reference as ref

from jaxsnn import neurons
from jaxsnn.arch.layers import Conv, Dense
from jaxsnn.arch.notation import Arch
from jaxsnn.conversion import methods
from jaxsnn.conversion.convert import convert
from jaxsnn.conversion.float_reference import snapped
from jaxsnn.conversion.kernels import KernelForm
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.conversion.weights import float_ends
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.inputs.preprocess import PIXELS
from jaxsnn.network.per_site import SiteMap, hidden
from jaxsnn.network.site import NORM_EPSILON
from jaxsnn.network.weight_quantisers import full_precision, ternary

HIDDEN_TERNARY = float_ends(ternary())  # the weights that scatter-and-gather was published with

FLOAT = SiteMap(full_precision())
CONVS = ((6, 3, 1, "same"), (8, 2, 2, "valid"))


def pixels(rng, count, shape):
    """uint8 images [count, *shape]."""
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8)


def before_epsilon(var):
    """float64 numbers which, plus the norm's epsilon, are exactly ``var``."""
    actual = np.asarray(var, np.float64) - NORM_EPSILON
    for _ in range(4):
        total = actual + NORM_EPSILON
        actual = np.where(total < var, np.nextafter(actual, np.inf), actual)
        actual = np.where(total > var, np.nextafter(actual, -np.inf), actual)
    assert (actual + NORM_EPSILON == var).all()
    return actual


def tree(layers, dyadic=False):
    """The training variables of reference layers; ``dyadic`` cancels the norm's epsilon."""
    params, statistics = {}, {}
    for layer in layers:
        master = layer.get("master", layer["kernel"])
        params[layer["name"]] = {"kernel": np.asarray(master, np.float32)}
        if "bias" in layer:
            params[layer["name"]]["bias"] = np.asarray(layer["bias"], np.float32)
        if "scale" in layer:
            params[layer["name"]]["norm"] = {
                "scale": np.asarray(layer["scale"], np.float32),
                "bias": np.asarray(layer["offset"], np.float32),
            }
            var = before_epsilon(layer["var"]) if dyadic else np.asarray(layer["var"], np.float32)
            statistics[layer["name"]] = {"norm": {"mean": layer["mean"], "var": var}}
    return {"params": params, "batch_stats": statistics}


def build(
    seed,
    *,
    shape=(8, 8, 2),
    convs=CONVS,
    dense=(12,),
    classes=5,
    dyadic=True,
    bias=False,
    **options,
):
    """(reference layers, Arch, training variables) of one random network.

    A convolution's padding is "same", "valid" or a number (of cells on every side).
    """
    rng = np.random.default_rng(seed)
    modes = [(c, size, s, "same" if isinstance(p, int) else p) for c, size, s, p in convs]
    layers = ref.random_network(rng, shape, modes, dense, classes, dyadic=dyadic, **options)
    for layer, (*_, padding) in zip(layers, convs, strict=False):
        if isinstance(padding, int):
            layer["padding"] = ((padding, padding), (padding, padding))
    if bias:
        for layer in layers:
            layer["bias"] = rng.integers(-16, 17, layer["kernel"].shape[-1]) / 32
    specs = [Conv(c, size, s, p, bias=bias) for c, size, s, p in convs]
    specs += [Dense(units, bias=bias) for units in dense]
    arch = Arch(tuple(specs), classes=classes, input_shape=shape, head_bias=bias)
    return layers, arch, tree(layers, dyadic)


def with_snapped(layers, variables, snn):
    """The reference layers with the float kernels that conversion put on a grid."""
    moved = snapped(variables, snn)["params"]
    grid = {record.site for record in snn.report if record.form is KernelForm.GRID}
    return [
        {**layer, "kernel": np.asarray(moved[layer["name"]]["kernel"], np.float64)}
        if layer["name"] in grid
        else layer
        for layer in layers
    ]


def converted(
    seed,
    images=16,
    k=1,
    bound=2,
    encoding=PIXELS,
    method=methods.scatter_gather,
    settings=None,
    **options,
):
    """(layers for the reference, Arch, variables, Spiking, uint8 images) of a random network.

    ``settings`` are the method's own options.
    """
    options = {"ternary": method is methods.scatter_gather} | options
    layers, arch, variables = build(seed, k=k, bound=bound, **options)
    chosen = method(k=k, bound=bound, **settings or {})
    weights = HIDDEN_TERNARY if method is methods.scatter_gather else None
    snn = convert(variables, arch, chosen, weights=weights, encoding=encoding)
    shown = pixels(np.random.default_rng(seed + 1000), images, arch.input_shape)
    return with_snapped(layers, variables, snn), arch, variables, snn, shown


def max_pooled(x, size):
    """Largest value of every size x size window of [B, H, W, C]; a rest at the end is dropped."""
    rows, columns = x.shape[1] // size, x.shape[2] // size
    x = x[:, : rows * size, : columns * size]
    return x.reshape(len(x), rows, size, columns, size, -1).max((2, 4))


def window_sums(x, size):
    """Sum of every size x size window of [B, H, W, C]."""
    rows, columns = x.shape[1] // size, x.shape[2] // size
    x = x[:, : rows * size, : columns * size]
    return x.reshape(len(x), rows, size, columns, size, -1).sum((2, 4))


def pooled_network(seed):
    """Layers of 6C3same-MP2-8C3p1-AP2-12 for 12x12 images, every second norm scale negative."""
    rng = np.random.default_rng(seed)
    x = ref.random_images(rng, 32, (12, 12, 1))
    layers = []
    same = ((1, 1), (1, 1))
    for name, kernel, rest in (
        ("conv1", (3, 3, 1, 6), {"max_pool": 2}),
        ("conv2", (3, 3, 6, 8), {"avg_pool": 2}),
        ("dense1", (72, 12), {}),
        ("readout", (12, 5), {}),
    ):
        master = (rng.normal(size=kernel) / np.sqrt(np.prod(kernel[:-1]))).astype(np.float32)
        snap = name in ("conv2", "dense1")
        kind = {"kind": "dense"}
        if len(kernel) == 4:
            kind = {"kind": "conv", "stride": 1, "padding": same}
        values = {"kernel": ref.ternary(master) if snap else master.astype(np.float64)}
        layer = {"name": name, "master": master, **kind, **values, **rest}
        layers.append(layer)
        if name == "readout":
            return layers
        z = ref.synapse(layer, x)
        layer |= ref._random_norm(rng, z, "mixed", False)
        x = ref.batch_norm(z, *ref.norm_of(layer))
        x = max_pooled(x, 2) if "max_pool" in layer else x
        x = ref.median_level(x, 1, 2) / 2
        x = window_sums(x, 2) / 4 if "avg_pool" in layer else x
    raise AssertionError("the readout comes last")


def pooled_units(layers, images, k, bound, flip=True):
    """Counts per layer, logits and synaptic operations of threshold units, with pools.

    Max pooling acts on the potentials, average pooling on the counts.
    """
    x = 2.0**k * images
    counts, operations, area = [], np.zeros(len(images), np.int64), 1
    for index, layer in enumerate(layers[:-1]):
        if index:
            operations += ref.sops(np.round(x * area).astype(np.int64), layer)
        folded = ref.fold(layer, k, bound, flip=flip)
        potential = ref.synapse(folded, x)
        potential = max_pooled(potential, layer["max_pool"]) if "max_pool" in layer else potential
        x = sum((potential >= theta).astype(np.int64) for theta in folded["thresholds"])
        counts.append(x)
        area = layer.get("avg_pool", 1) ** 2
        x = window_sums(x, layer["avg_pool"]) / area if area > 1 else x
    return counts, ref.synapse(layers[-1], x), operations


def firing_network(seed, *, integer=False, floating=False, signed=False):
    """Layers without norm, and what an integrate-and-fire network of them needs.

    Kernels, biases, thresholds and initial potentials are dyadic (``integer``: whole kernels and
    biases; ``floating``: normal numbers). Returns (layers, Arch, {site: leaves}).
    """
    rng = np.random.default_rng(seed)
    shapes = {"conv1": (3, 3, 2, 4), "conv2": (2, 2, 4, 5), "dense1": (45, 7), "readout": (7, 3)}
    layers, leaves = [], {}
    for name, shape in shapes.items():
        kernel = rng.normal(size=shape) * 1.5 / np.sqrt(np.prod(shape[:-1]))
        bias = rng.normal(size=shape[-1]) * 0.1
        if integer:
            kernel, bias = np.round(kernel * 3), np.round(bias * 6)
        elif not floating:
            kernel, bias = np.round(kernel * 16) / 16, np.round(bias * 16) / 16
        kernel, bias = ref._float32(kernel), ref._float32(bias)
        layer = {"kind": "dense", "name": name, "kernel": kernel, "bias": bias}
        if name.startswith("conv"):
            stride = 2 if name == "conv2" else 1
            padding = ((1, 1), (1, 1)) if name == "conv2" else ((0, 0), (0, 0))
            layer |= {"kind": "conv", "stride": stride, "padding": padding}
        layers.append(layer)
        if name != "readout":
            threshold = rng.choice([3.0, 2.0, 4.0] if integer else [0.5, 1.0, 0.75], shape[-1])
            leaves[name] = {"threshold": threshold, "initial": threshold / 2}
            if signed:
                leaves[name]["negative_threshold"] = np.full(shape[-1], -0.125)
    specs = (
        Conv(4, 3, norm=False, bias=True),
        Conv(5, 2, stride=2, padding=1, norm=False, bias=True),
        Dense(7, norm=False, bias=True),
    )
    arch = Arch(specs, classes=3, input_shape=(6, 6, 2), norm=False, head_bias=True)
    return layers, arch, leaves


def firing(layers, arch, leaves, neuron, presentation="held", dtype=np.float32):
    """The network of ``firing_network`` as a Spiking, built by hand."""
    params = {
        layer["name"]: {
            "kernel": layer["kernel"].astype(dtype),
            "bias": layer["bias"].astype(dtype),
        }
        for layer in layers
    }
    fixed = {
        site: {name: np.asarray(value, np.float32) for name, value in one.items()}
        for site, one in leaves.items()
    }
    return Spiking(
        variables=jax.tree.map(jnp.asarray, {"params": params, "fixed": fixed}),
        arch=arch,
        neurons=hidden(neuron),
        ann=hidden(neurons.relu()),
        weights=FLOAT,
        encoding=Encoding(presentation, 1.0),
        accumulators=SiteMap("float32"),
        units=(),
    )


def firing_images(seed, count=4, integer=False):
    """Small images for ``firing_network``: whole numbers, or multiples of 1/16."""
    x = np.random.default_rng(seed).integers(0, 4 if integer else 16, (count, 6, 6, 2))
    return x.astype(np.int32) if integer else (x / 16).astype(np.float32)


def levels_network(k=1, bound=2, classes=3):
    """One hidden unit per pixel value: a dense network whose levels one knows by heart.

    One pixel, weight 1 (256/256), identity norm: level j is reached at pixel (j - 1/2) 2^-k 256.
    """
    arch = Arch((Dense(2), Dense(2)), classes=classes, input_shape=(1, 1, 1))
    unit = {"scale": np.ones(2, np.float32), "bias": np.zeros(2, np.float32)}
    stats = {"mean": np.zeros(2), "var": before_epsilon(np.ones(2))}
    variables = {
        "params": {
            "dense1": {"kernel": np.array([[1.0, 2.0]], np.float32), "norm": unit},
            "dense2": {"kernel": np.array([[1.0, -1.0], [-1.0, 1.0]], np.float32), "norm": unit},
            "readout": {"kernel": np.ones((2, classes), np.float32)},
        },
        "batch_stats": {"dense1": {"norm": stats}, "dense2": {"norm": stats}},
    }
    method = methods.scatter_gather(k=k, bound=bound)
    return arch, variables, convert(variables, arch, method, weights=HIDDEN_TERNARY)


def shapes_in(jaxpr):
    """Shapes of all intermediate arrays of a jaxpr, those of inner programs included."""
    return [v.aval.shape for e in equations(jaxpr) for v in e.outvars if hasattr(v.aval, "shape")]


def equations(jaxpr):
    """All equations of a jaxpr, those of inner programs included."""
    result = []
    for equation in jaxpr.eqns:
        result.append(equation)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                if hasattr(inner, "jaxpr"):
                    result += equations(inner.jaxpr)
                elif hasattr(inner, "eqns"):
                    result += equations(inner)
    return result


@functools.cache
def scatter():
    """Threshold counts of 11 images, and labels."""
    *_, snn, images = converted(21, images=11, gammas="mixed", shape=(6, 6, 1))
    return snn, images, np.arange(11) % 5


@functools.cache
def fires():
    """Integrate and fire with signed spikes, 7 images shown throughout, and labels."""
    layers, arch, leaves = firing_network(5, signed=True)
    snn = firing(layers, arch, leaves, neurons.integrate_and_fire(True))
    return snn, firing_images(6, 7), np.arange(7) % 3
