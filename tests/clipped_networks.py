"""Small random networks of clipped activations (Fast-SNN), for the library and the reference."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import reference as ref

from jaxsnn import convert, methods, neurons, quantised_weights, simulate, unpack
from jaxsnn.arch.plan import parse, plan
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import hidden

UNITS = Encoding("held", 2.0**-6, 255)
SMALL = "4C3p1-6C3s2p1-8nb"


class Clipped(NamedTuple):
    """A network in both forms.

    ``layers`` are the reference's, ``variables`` the training tree, ``images`` int16 units.
    """

    layers: list
    arch: object
    variables: dict
    images: np.ndarray
    bits: int

    @property
    def steps(self):
        return 2**self.bits - 1

    @property
    def shown(self):
        """Images in the units of the ANN."""
        return self.images * UNITS.scale

    @property
    def hidden(self):
        return self.layers[:-1]

    def ann(self, ties="even"):
        return ann_of(self.arch, self.bits, ties)

    def snn(self, **options):
        method = methods.signed_if(bits=self.bits, **options)
        return convert(self.variables, self.arch, method, encoding=UNITS)


def ann_of(arch, bits, ties="even"):
    return Net(arch, hidden(neurons.clipped_relu(bits, ties)), quantised_weights(bits))


def network(seed, text=SMALL, bits=3, shape=(6, 6, 2), images=8, gammas="with_zero", classes=4):
    """A random network whose neurons use all of their levels.

    ``gammas``: signs of the norm scales, "positive", "mixed" or "with_zero" (one channel in a
    layer).
    """
    rng = np.random.default_rng(seed)
    arch = parse(text, input_shape=shape, classes=classes, head_bias=True)
    units = rng.integers(-200, 201, (images, *shape)).astype(np.int16)
    x, layers = units * UNITS.scale, []
    for site in plan(arch):
        if site.kind == "avgpool":
            layers[-1]["avg_pool"] = site.window[0]
            x = ref.mean_pool(x, site.window[0])
            continue
        layers.append(layer := _synapse(rng, site, bits))
        if site.name == "readout":
            break
        z = ref.synapse(layer, x) + layer.get("bias", 0)
        layer |= _norm(rng, z, gammas) if site.norm else {}
        layer["clip"] = float(np.float32(rng.uniform(1, 3)))
        drive = ref.charge(layer, x)
        level = ref.clipped_level(drive, layer["clip"], bits)
        x = layer["clip"] * level / (2**bits - 1)
    return Clipped(layers, arch, tree(layers), units, bits)


def _synapse(rng, site, bits):
    shape = site.kernel_shape
    master = ref._float32(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])))
    layer = {"name": site.name, "kind": site.kind, "master": master}
    if site.kind == "conv":
        layer |= {"stride": site.strides[0], "padding": site.padding}
    if site.bias:
        layer["bias"] = ref._float32(rng.normal(size=shape[-1]) * 0.3)
    if site.source == "input" or site.name == "readout":
        return layer | {"kernel": ref.symmetric_kernel(master)}
    clip = float(np.float32(rng.uniform(1.5, 3)))
    return layer | {"kernel_clip": clip, "kernel": ref.clipped_kernel(master, clip, bits)}


def _norm(rng, z, gammas):
    flat = z.reshape(-1, z.shape[-1])
    scale = rng.uniform(0.5, 1.5, z.shape[-1])
    if gammas != "positive":
        scale[1::2] *= -1
    if gammas == "with_zero":
        scale[-1] = 0
    values = {"scale": scale, "offset": rng.normal(0.6, 0.5, z.shape[-1])}
    values |= {"mean": flat.mean(0), "var": np.maximum(flat.var(0), 0.05)}
    return {name: ref._float32(value) for name, value in values.items()}


def tree(layers):
    """The training tree of reference layers, float32 arrays of NumPy."""
    params, statistics = {}, {}
    for layer in layers:
        name = layer["name"]
        params[name] = {"kernel": np.asarray(layer["master"], np.float32)}
        for leaf in ("bias", "clip", "kernel_clip"):
            if leaf in layer:
                params[name][leaf] = np.asarray(layer[leaf], np.float32)
        if "scale" in layer:
            norm = {"scale": layer["scale"], "bias": layer["offset"]}
            params[name]["norm"] = {k: v.astype(np.float32) for k, v in norm.items()}
            moments = {k: layer[k].astype(np.float32) for k in ("mean", "var")}
            statistics[name] = {"norm": moments}
    return {"params": params, "batch_stats": statistics}


def with_params(layers, variables, bits):
    """Reference layers with the params of a training tree, whose kernels are quantised again."""
    moved = []
    for layer in layers:
        leaves = variables["params"][layer["name"]]
        new = {"master": np.asarray(leaves["kernel"], np.float64)}
        new |= {
            k: np.asarray(leaves[k], np.float64) for k in ("bias", "kernel_clip") if k in leaves
        }
        if "norm" in leaves:
            new["scale"] = np.asarray(leaves["norm"]["scale"], np.float64)
            new["offset"] = np.asarray(leaves["norm"]["bias"], np.float64)
        if "kernel_clip" in leaves:
            new["kernel"] = ref.clipped_kernel(new["master"], float(new["kernel_clip"]), bits)
        else:
            new["kernel"] = ref.symmetric_kernel(new["master"])
        moved.append({**layer, **new})
    return moved


def trains(snn, images, steps, block=1):
    """Spike trains of every layer ``[T, B, ...]``, int64, and the trace."""
    names = tuple(site.name for site in plan(snn.arch) if site.role == "activation")
    trace = simulate(snn, images, steps=steps, block=block, record=names, counts=True)
    actual = {name: np.asarray(unpack(trace.records[name], snn, name), np.int64) for name in names}
    return actual, trace


@functools.cache
def cached(seed, text=SMALL, bits=3, **options):
    return network(seed, text, bits, **options)


def floats(net):
    """The images as the float network takes them."""
    return jnp.asarray(net.shown, jnp.float32)
