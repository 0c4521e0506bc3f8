"""Slow, plain NumPy simulators written from the papers' mathematics.

The independent judge of the library: nothing here is imported from it, loops are preferred to
speed, and all arithmetic is float64 or int64. Time stands first, images are NHWC, kernels HWIO
(dense kernels ``[inputs, units]``, inputs flattened in (H, W, C) order).

A network is a list of layers in execution order; the last one is the readout, which has no norm and
no neuron. A layer is a dictionary with

    kind       "conv" or "dense"
    kernel     the weights the network computes with (ternary ones are int64)
    stride     int, padding ((top, bottom), (left, right))            convolutions only
    scale, offset, mean, var    batch norm, one value a channel       absent in the readout
    bias       optional, one value a channel

``random_network`` adds ``name`` and ``master``, the float weights before they were made ternary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Layer = dict[str, Any]
Padding = tuple[tuple[int, int], tuple[int, int]]


class ScatterGather(NamedTuple):
    """One step of a network of threshold units."""

    counts: list[Array]  # per hidden layer int64 [B, ...]: units that fired
    logits: Array  # float64 [B, classes], in units of 2^-k
    spikes: Array  # int64 [hidden layers, B]
    sops: Array  # int64 [B]: encoder and readout excluded
    chip_sops: Array  # int64 [B]: sops * 2 * 2^k * bound
    potentials: list[Array]  # per hidden layer, after the sign flip


class Trace(NamedTuple):
    """Every step of an integrate-and-fire network, ``[T, B, ...]``."""

    spikes: list[Array]  # per hidden layer int64 in {-1, 0, 1}, at the step of emission
    potentials: list[Array]  # per hidden layer, after the subtraction
    readout: Array  # the readout's drive in each step (not summed over steps)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME rule along one axis: ceil(size / stride) outputs, odd cell at the end."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def conv2d(x: Array, w: Array, stride: int = 1, padding: Padding = ((0, 0), (0, 0))) -> Array:
    """Cross-correlation of x [B, H, W, C] with w [kh, kw, C, Cout], one kernel cell at a time."""
    if x.shape[-1] != w.shape[2]:
        raise ValueError(f"input has {x.shape[-1]} channels, kernel {w.shape} expects {w.shape[2]}")
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = w.shape[:2]
    rows = (x.shape[1] - height) // stride + 1
    columns = (x.shape[2] - width) // stride + 1
    out = np.zeros((len(x), rows, columns, w.shape[3]), np.result_type(x, w))
    for i in range(height):
        for j in range(width):
            down = slice(i, i + stride * (rows - 1) + 1, stride)
            across = slice(j, j + stride * (columns - 1) + 1, stride)
            out += x[:, down, across, :] @ w[i, j]
    return out


def ternary(w: Array) -> Array:
    """Weights -> {-1, 0, 1} int64: limit 0.7 mean|w| over the tensor, inclusive (spec 1.2)."""
    limit = 0.7 * np.abs(w).mean()
    return (w >= limit).astype(np.int64) - (w <= -limit)


def median_level(x: Array, k: int, bound: float | None) -> Array:
    """Number of j >= 1 with x >= (j - 1/2) 2^-k, at most 2^k bound (spec 1.1, half up)."""
    x = np.asarray(x, np.float64)
    if not np.isfinite(x).all():
        raise ValueError("median_level needs finite numbers")
    level = np.zeros(x.shape, np.int64)
    j = 1
    while bound is None or j <= bound * 2**k:
        reached = x >= (j - 0.5) * 2.0**-k
        if not reached.any():
            break
        level += reached
        j += 1
    return level


def batch_norm(
    z: Array, scale: Array, offset: Array, mean: Array, var: Array, eps: float = 1e-5
) -> Array:
    """Inference-mode batch norm over the last axis."""
    return scale * (z - mean) / np.sqrt(var + eps) + offset


def synapse(layer: Layer, x: Array) -> Array:
    """What the kernel alone delivers, [B, ...] -> [B, H, W, C] or [B, units]."""
    if layer["kind"] == "dense":
        return x.reshape(len(x), -1) @ layer["kernel"]
    return conv2d(x, layer["kernel"], layer["stride"], layer["padding"])


def norm_of(layer: Layer) -> tuple[Array, Array, Array, Array]:
    """Scale, offset, mean and variance of a layer."""
    return layer["scale"], layer["offset"], layer["mean"], layer["var"]


def quantised_ann(
    layers: Sequence[Layer], images: Array, k: int, bound: float | None, eps: float = 1e-5
) -> tuple[list[Array], Array]:
    """Float64 forward of the quantised ANN: levels of every hidden layer, and the logits.

    An activation is level * 2^-k; ReLU is the absence of negative levels.
    """
    x = np.asarray(images, np.float64)
    levels = []
    for layer in layers[:-1]:
        z = synapse(layer, x) + layer.get("bias", 0)
        levels.append(median_level(batch_norm(z, *norm_of(layer), eps), k, bound))
        x = levels[-1] * 2.0**-k
    return levels, synapse(layers[-1], x) + layers[-1].get("bias", 0)


def fold(layer: Layer, k: int, bound: float, eps: float = 1e-5, flip: bool = True) -> Layer:
    """Replace batch norm by ``thresholds`` float64 [2^k bound, channels] (spec 1.5).

    theta_j = s (j - 1/2) + 2^k (mean - offset s), s = sqrt(var + eps) / scale. A channel with a
    negative scale first changes the sign of its kernel, bias, mean and scale (``flip=False`` leaves
    it as it is, which is wrong: for tests). A channel with scale 0 outputs a constant level n: its
    first n thresholds are -inf, the others +inf.
    """
    scale, offset, mean, var = (np.asarray(value, np.float64) for value in norm_of(layer))
    sign = np.where((scale < 0) & flip, -1, 1)
    folded = {**layer, "kernel": layer["kernel"] * sign}
    if "bias" in layer:
        folded["bias"] = layer["bias"] * sign
    j = np.arange(1, int(2**k * bound) + 1)[:, None]
    step = np.sqrt(var + eps) / np.where(scale == 0, 1.0, scale * sign)
    thresholds = step * (j - 0.5) + 2**k * (mean * sign - offset * step)
    constant = np.where(j <= median_level(offset, k, bound), -np.inf, np.inf)
    return {**folded, "thresholds": np.where(scale == 0, constant, thresholds)}


def sops(spikes: Array, layer: Layer) -> Array:
    """Synaptic operations per image, int64 [B]: |spikes| counted once per weight they meet.

    A convolution counts the entries of its input patches (so borders cost less) times its output
    channels.
    """
    size = np.abs(spikes).astype(np.int64)
    fan_out = layer["kernel"].shape[-1]
    if layer["kind"] == "dense":
        return fan_out * size.reshape(len(size), -1).sum(1)
    ones = np.ones((*layer["kernel"].shape[:3], 1), np.int64)
    entries = conv2d(size, ones, layer["stride"], layer["padding"])
    return fan_out * entries.reshape(len(size), -1).sum(1)


def spikes_behind_average(spikes: Array, size: int) -> Array:
    """How many spikes of every window of [B, H, W, C] an average pool passes on, one by one.

    Signs and sums do not matter: +1 and -1 are two spikes, a count of 3 is three. Size 0 takes the
    whole map; a rest at the end reaches no window.
    """
    batch, height, width, channels = spikes.shape
    down, across = (size, size) if size else (height, width)
    passed = np.zeros((batch, height // down, width // across, channels), np.int64)
    for n, y, x, c in np.argwhere(spikes):
        if y // down < passed.shape[1] and x // across < passed.shape[2]:
            passed[n, y // down, x // across, c] += abs(int(spikes[n, y, x, c]))
    return passed


def scatter_gather(
    layers: Sequence[Layer],
    images: Array,
    k: int,
    bound: float,
    drop: Array | None = None,
    eps: float = 1e-5,
    flip: bool = True,
) -> ScatterGather:
    """Each neuron is 2^k * bound units with thresholds of their own, each fires once or not.

    Args:
        layers: the network, still with batch norm.
        images: [B, H, W, C]; the first layer sees 2^k times the image.
        k: fractional bits of a level.
        bound: largest activation.
        drop: bool [B, H, W, C, 2^k * bound], True deletes that encoder unit's spike.
        eps: of batch norm.
        flip: see ``fold``.
    """
    units = int(2**k * bound)
    x = 2.0**k * np.asarray(images, np.float64)
    counts, potentials = [], []
    operations = np.zeros(len(x), np.int64)
    for index, layer in enumerate(layers[:-1]):
        if index > 0:
            operations += sops(x, layer)
        folded = fold(layer, k, bound, eps, flip)
        potential = synapse(folded, x) + 2**k * folded.get("bias", 0)
        fired = np.zeros((*potential.shape, units), bool)
        for unit in range(units):
            fired[..., unit] = potential >= folded["thresholds"][unit]
        if index == 0 and drop is not None:
            fired &= ~drop
        x = fired.sum(-1, dtype=np.int64)
        counts.append(x)
        potentials.append(potential)
    logits = synapse(layers[-1], x) + 2**k * layers[-1].get("bias", 0)
    spikes = np.array([count.reshape(len(x), -1).sum(1) for count in counts])
    return ScatterGather(counts, logits, spikes, operations, 2 * units * operations, potentials)


class Tracking(NamedTuple):
    """Every step of a network whose net spike counts follow the potentials, ``[T, B, ...]``."""

    spikes: list[Array]  # per hidden layer int64 in -per_step .. per_step
    potentials: list[Array]  # per hidden layer, never reset
    logits: Array  # float64 [T, B, classes], of the net counts so far, in units of 2^-k


def tracking(
    layers: Sequence[Layer],
    images: Array,
    k: int,
    cap: int,
    steps: int,
    *,
    eps: float = 1e-5,
    flip: bool = True,
    negative: bool = True,
    per_step: int = 1,
    rising: bool = False,
) -> Tracking:
    """Integrate the input, given once, and let the net count n follow (spec 2.3, ties go up).

    +1 where n < cap and V >= theta_{n+1}; -1 where n > 0 and V < theta_n; up to ``per_step`` times
    in a step.

    Args:
        layers: the network, still with batch norm.
        images: [B, H, W, C]; the first layer sees 2^k times the image, in the first step.
        k: fractional bits of a level.
        cap: largest net count.
        steps: number of time steps.
        eps: of batch norm.
        flip: see ``fold``.
        negative: allow negative spikes.
        per_step: largest spike count of one step.
        rising: behind the first layer, delete the positive spikes of a step that lowers V.
    """
    folded = [fold(layer, k, cap / 2**k, eps, flip) for layer in layers[:-1]]
    potential: list[Any] = [0.0] * len(folded)
    net: list[Any] = [0] * len(folded)
    spikes: list[list[Array]] = [[] for _ in folded]
    recorded: list[list[Array]] = [[] for _ in folded]
    total, logits = 0.0, []
    for t in range(steps):
        x = 2.0**k * np.asarray(images, np.float64) * (t == 0)
        for i, layer in enumerate(folded):
            bias = 2**k * layer.get("bias", 0) * (t == 0)
            before = potential[i]
            potential[i] = before + synapse(layer, x) + bias
            level = np.zeros(potential[i].shape, np.int64) + net[i]
            fell = (potential[i] < before) & (rising and i > 0)
            ends = np.full(layer["thresholds"].shape[1], np.inf)
            table = np.vstack([-ends, layer["thresholds"], ends])  # of counts 0 .. cap + 1
            channel = np.arange(table.shape[1])
            x = np.zeros_like(level)
            for _ in range(per_step):
                up = potential[i] >= table[level + x + 1, channel]
                down = (potential[i] < table[level + x, channel]) & negative
                x = x + up - down
            x = np.where(fell, np.minimum(x, 0), x)
            net[i] = level + x
            spikes[i].append(x)
            recorded[i].append(potential[i])
        total = total + synapse(layers[-1], x) + 2**k * layers[-1].get("bias", 0) * (t == 0)
        logits.append(total)
    return Tracking(
        [np.array(s) for s in spikes], [np.array(v) for v in recorded], np.array(logits)
    )


def per_layer(value: Any, count: int) -> list[Any]:
    """A list or tuple as it is, anything else once per layer."""
    return list(value) if isinstance(value, list | tuple) else [value] * count


def gated_drive(layer: Layer, x: Array, gate: float, eps: float) -> Array:
    """Current of one step; the constant part (bias, norm offset) is multiplied by the gate."""
    z, constant = synapse(layer, x), layer.get("bias", 0)
    if "scale" in layer:
        scale, offset, mean, var = norm_of(layer)
        gain = scale / np.sqrt(var + eps)
        z, constant = gain * z, gain * (constant - mean) + offset
    return z + gate * constant


def integrate_and_fire(
    layers: Sequence[Layer],
    images: Array,
    steps: int,
    *,
    threshold: Any = 1.0,
    initial: Any = 0.0,
    signed: bool = False,
    negative_threshold: Any = -1e-3,
    negative_compare: Callable[[Array, Any], Array] = np.less_equal,
    onset: bool = False,
    bias_gate: Sequence[float] | None = None,
    delay: int = 0,
    amplitude: Any = 1.0,
    eps: float = 1e-5,
) -> Trace:
    """Step an integrate-and-fire network: integrate, compare, emit, subtract (soft reset).

    A neuron emits +1 where V >= threshold. A signed one emits -1 where
    ``negative_compare(V, negative_threshold)`` and its net count so far is positive. ``threshold``,
    ``initial``, ``negative_threshold`` and ``amplitude`` are numbers or per-channel arrays for all
    hidden layers, or a list with one such value each.

    Args:
        layers: the network; a norm is applied in every step.
        images: [B, H, W, C], the first layer's input in every step.
        steps: number of time steps.
        threshold: firing threshold, and what a spike subtracts.
        initial: membrane potential before the first step.
        signed: allow negative spikes.
        negative_threshold: below ``threshold``.
        negative_compare: ``np.less`` or ``np.less_equal``.
        onset: present the image in the first step only.
        bias_gate: factor of all biases and norm offsets in each step; ones by default.
        delay: steps between emission and arrival, for every hidden layer.
        amplitude: what one spike is worth to the consumer.
        eps: of batch norm.
    """
    hidden = len(layers) - 1
    theta, start = per_layer(threshold, hidden), per_layer(initial, hidden)
    lower, worth = per_layer(negative_threshold, hidden), per_layer(amplitude, hidden)
    if any(np.any(np.asarray(a) >= b) for a, b in zip(lower, theta, strict=True)):
        raise ValueError("negative_threshold must lie below threshold")
    gate = np.ones(steps) if bias_gate is None else bias_gate
    potential: list[Any] = [None] * hidden
    net: list[Any] = [0] * hidden
    spikes: list[list[Array]] = [[] for _ in range(hidden)]
    recorded: list[list[Array]] = [[] for _ in range(hidden)]
    readout = []
    for t in range(steps):
        x = np.asarray(images, np.float64) * (0.0 if onset and t > 0 else 1.0)
        for i in range(hidden):
            drive = gated_drive(layers[i], x, gate[t], eps)
            if t == 0:
                potential[i] = np.zeros(drive.shape) + start[i]
            v = potential[i] + drive
            up = v >= theta[i]
            # Never both: the negative threshold lies below the other.
            down = signed & negative_compare(v, lower[i]) & (net[i] > 0)
            spike = up.astype(np.int64) - down
            potential[i] = v - theta[i] * spike
            net[i] = net[i] + spike
            spikes[i].append(spike)
            recorded[i].append(potential[i])
            arriving = spikes[i][t - delay] if t >= delay else np.zeros_like(spike)
            x = worth[i] * arriving
        readout.append(gated_drive(layers[-1], x, gate[t], eps))
    return Trace([np.array(s) for s in spikes], [np.array(v) for v in recorded], np.array(readout))


def random_images(rng: np.random.Generator, count: int, shape: tuple[int, int, int]) -> Array:
    """Images [count, *shape] of 8-bit pixels / 256."""
    return rng.integers(0, 256, (count, *shape)) / 256.0


def _float32(x: Array) -> Array:
    return np.asarray(x).astype(np.float32).astype(np.float64)


def _random_kernel(
    rng: np.random.Generator, shape: tuple[int, ...], snap: bool, dyadic: bool
) -> dict[str, Array]:
    master = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
    master = np.round(master * 64) / 64 if dyadic else _float32(master)
    return {"kernel": ternary(master) if snap else master, "master": master}


def _random_norm(rng: np.random.Generator, z: Array, gammas: str, dyadic: bool) -> dict[str, Array]:
    """Batch norm calibrated on currents z, with the levels 0 .. 4 of step 1/2 all in reach."""
    channels = z.shape[-1]
    flat = z.reshape(-1, channels)
    scale, offset = rng.uniform(0.6, 1.6, channels), rng.normal(0.5, 0.3, channels)
    mean, var = flat.mean(0), np.maximum(flat.var(0), 0.05)
    if dyadic:
        scale = 2.0 ** rng.integers(-1, 2, channels)
        mean, offset = np.round(mean * 16) / 16, np.round(offset * 16) / 16
        var = 4.0 ** np.round(np.log(var) / np.log(4))
    if gammas != "positive":
        scale[1::2] *= -1
    if gammas == "with_zero":
        scale[0], offset[0] = 0.0, 0.75
    return {
        key: _float32(value)
        for key, value in {"scale": scale, "offset": offset, "mean": mean, "var": var}.items()
    }


def random_network(
    rng: np.random.Generator,
    shape: tuple[int, int, int] = (8, 8, 2),
    convs: Sequence[tuple[int, int, int, str]] = ((6, 3, 1, "same"), (8, 2, 2, "valid")),
    dense: Sequence[int] = (12,),
    classes: int = 5,
    *,
    ternary: bool = True,
    dyadic: bool = True,
    gammas: str = "positive",
    k: int = 1,
    bound: float | None = 2,
) -> list[Layer]:
    """Build a small network that fires; every parameter is representable in float32.

    Args:
        rng: source of all randomness.
        shape: (H, W, C) of the input.
        convs: (channels, kernel, stride, "same" or "valid") per convolution.
        dense: units per hidden dense layer.
        classes: units of the readout.
        ternary: make hidden kernels ternary (never the first layer's nor the readout's).
        dyadic: float kernels on the grid 1/64, scales powers of two, offsets and means on 1/16,
            variances powers of four: with eps = 0 all arithmetic is exact, and ties happen.
        gammas: "positive"; "mixed", every second norm scale negative; "with_zero", mixed and each
            layer's first scale 0 with offset 0.75 (exactly on a level boundary for k = 1).
        k: fractional bits of the levels the norms are calibrated for.
        bound: largest activation they are calibrated for.
    """
    if gammas not in ("positive", "mixed", "with_zero"):
        raise ValueError(f"gammas is {gammas!r}; use 'positive', 'mixed' or 'with_zero'")
    x = random_images(rng, 32, shape)
    layers: list[Layer] = []
    specs: list[Any] = [*convs, *dense, classes]
    for index, spec in enumerate(specs):
        snap = ternary and 0 < index < len(specs) - 1
        layer: Layer = {"kind": "dense", "name": f"dense{index - len(convs) + 1}"}
        if index < len(convs):
            channels, size, stride, mode = spec
            padding = [
                same_padding(s, size, stride) if mode == "same" else (0, 0) for s in x.shape[1:3]
            ]
            layer = {
                "kind": "conv",
                "name": f"conv{index + 1}",
                "stride": stride,
                "padding": tuple(padding),
            }
            layer |= _random_kernel(rng, (size, size, x.shape[-1], channels), snap, dyadic)
        else:
            layer |= _random_kernel(rng, (int(np.prod(x.shape[1:])), spec), snap, dyadic)
        layers.append(layer)
        if index == len(specs) - 1:
            layer["name"] = "readout"
            break
        z = synapse(layer, x)
        layer |= _random_norm(rng, z, gammas, dyadic)
        x = median_level(batch_norm(z, *norm_of(layer)), k, bound) * 2.0**-k
    return layers


# ---------------------------------------------------------------- Fast-SNN (signed IF)
#
# Layers have, beside the entries above, `clip`, the activation's largest value and the neuron's
# threshold, and optionally `avg_pool`, the side of the windows whose mean follows the neuron.

NEGATIVE_THRESHOLD = -1e-3
MAGNITUDES = {
    2: "0 1",
    3: "0 1/4 1/2 1",
    4: "0 1/10 1/5 3/10 2/5 3/5 4/5 1",
    5: "0 1/48 1/24 1/16 1/12 1/8 1/6 3/16 1/4 1/3 3/8 1/2 2/3 11/16 3/4 1",
}


class SignedLayer(NamedTuple):
    """Every step of one layer of (signed) integrate-and-fire neurons, ``[T, B, ...]``."""

    spikes: Array  # int64 in {-1, 0, 1}
    potentials: Array  # after the reset
    charges: Array  # what was added in the step
    margins: Array  # distance to the nearest threshold that was looked at, in firing thresholds


class SignedIF(NamedTuple):
    """A network of such layers."""

    layers: list[SignedLayer]
    logits: Array  # float64 [B, classes], mean over steps


def weight_shares(shares: Array, bits: int) -> Array:
    """The signed magnitude nearest to each share of the clip; a tie takes the smaller one."""
    table = np.array([float(Fraction(text)) for text in MAGNITUDES[bits].split()])
    away = np.abs(np.minimum(np.abs(shares), 1)[..., None] - table)
    return np.sign(shares) * table[away.argmin(-1)]  # the first of equals


def standardised(master: Array) -> Array:
    """Over the whole tensor, with n - 1."""
    master = np.asarray(master, np.float64)
    return (master - master.mean()) / master.std(ddof=1)


def clipped_kernel(master: Array, clip: float, bits: int) -> Array:
    """The ``bits``-bit kernel, not scaled back."""
    return clip * weight_shares(standardised(master) / clip, bits)


def symmetric_kernel(master: Array) -> Array:
    """The 8-bit kernel of the first and the last layer."""
    master = np.asarray(master, np.float64)
    largest = np.abs(master).max()
    return np.round(master / largest * 127) / 127 * largest


def clipped_level(x: Array, clip: float, bits: int, up: bool = False) -> Array:
    """Level 0 .. 2^bits - 1 of x; halves go to the even level, or up."""
    scaled = np.clip(np.asarray(x, np.float64) / clip, 0, 1) * (2**bits - 1)
    return (np.floor(scaled + 0.5) if up else np.round(scaled)).astype(np.int64)


def charge(layer: Layer, x: Array) -> Array:
    """Synapse, bias, batch norm, in this order and in every step."""
    z = synapse(layer, x) + layer.get("bias", 0)
    return batch_norm(z, *norm_of(layer)) if "scale" in layer else z


def mean_pool(x: Array, size: int) -> Array:
    """Mean of every size x size window of [B, H, W, C], without overlap."""
    if size == 1:
        return x
    rows, columns = x.shape[1] // size, x.shape[2] // size
    total = np.zeros((len(x), rows, columns, x.shape[3]))
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * size : (i + 1) * size, j * size : (j + 1) * size]
            total[:, i, j] = window.mean((1, 2))
    return total


def clipped_ann(
    layers: Sequence[Layer], images: Array, bits: int, up: bool = False
) -> tuple[list[Array], list[Array], Array]:
    """Float64 forward of the clipped ANN: levels, scaled drives (before rounding), logits."""
    x, levels, scaled = np.asarray(images, np.float64), [], []
    for layer in layers[:-1]:
        drive = charge(layer, x)
        levels.append(clipped_level(drive, layer["clip"], bits, up))
        scaled.append(drive / layer["clip"] * (2**bits - 1))
        x = mean_pool(layer["clip"] * levels[-1] / (2**bits - 1), layer.get("avg_pool", 1))
    return levels, scaled, charge(layers[-1], x)


def signed_if_layer(layer: Layer, train: Array, signed: bool = True) -> SignedLayer:
    """One layer over all steps of what comes in, ``[T, B, ...]`` in units of the activations."""
    theta, kept = layer["clip"], []
    potential: Any = None
    net: Any = 0
    for x in train:
        z = charge(layer, x)
        v = z + (theta / 2 if potential is None else potential)
        margin = np.abs(v - theta)
        fired = (v >= theta).astype(np.int64)
        v = v - theta * fired
        net = net + fired
        back = np.zeros_like(fired)
        if signed:
            back = ((v <= NEGATIVE_THRESHOLD) & (net > 0)).astype(np.int64)
            near = np.where(net > 0, np.abs(v - NEGATIVE_THRESHOLD), np.inf)
            margin = np.minimum(margin, near)
        potential = v + theta * back
        net = net - back
        kept.append((fired - back, potential, z, margin / theta))
    return SignedLayer(*map(np.array, zip(*kept, strict=True)))


def signed_if(layers: Sequence[Layer], images: Array, steps: int, signed: bool = True) -> SignedIF:
    """The unfolded network: the image and every bias and norm in each of ``steps`` steps."""
    train = np.repeat(np.asarray(images, np.float64)[None], steps, axis=0)
    result = []
    for layer in layers[:-1]:
        result.append(signed_if_layer(layer, train, signed))
        train = emitted(layer, result[-1].spikes)
    return SignedIF(result, np.mean([charge(layers[-1], x) for x in train], axis=0))


def emitted(layer: Layer, spikes: Array) -> Array:
    """What the next layer gets for a layer's spikes [T, B, ...]: clip times spikes, pooled."""
    return np.array([mean_pool(layer["clip"] * one, layer.get("avg_pool", 1)) for one in spikes])


def rate_coded(
    sites,
    variables,
    images,
    scales,
    steps,
    delay=1,
    initial=0.0,
    block_ends=True,
    spiking_pools=True,
):
    """Spikes ``{site: [T, B, ...]}`` of the normalised network, step by step in float64.

    Kernels times ``norm * previous scale / scale``, biases ``/ scale``, thresholds 1 (spec 4), then
    ``V += f(x); s = V >= 1; V -= s``, handed on ``delay`` steps later (spec 5). ``sites`` are the
    synapses in execution order, with their geometry. Pools that do not spike pass means on.
    """
    worth, state, queue, spikes = {"input": 1.0}, {}, {}, {}
    held = np.asarray(images, np.float64)

    def drive(site, values):
        x, scale = values[site.source], scales.get(site.name)
        if site.kind == "avgpool":
            return x.sum((1, 2)).reshape(len(x), *site.out_shape)
        tree = variables["params"][site.name]
        kernel = np.asarray(tree["kernel"], np.float64)
        bias = np.asarray(tree["bias"], np.float64) if site.bias else 0.0
        slope, shift = 1.0, bias
        if site.norm:
            norm, stats = tree["norm"], variables["batch_stats"][site.name]["norm"]
            slope = np.asarray(norm["scale"], np.float64) / np.sqrt(
                np.asarray(stats["var"], np.float64) + 1e-5
            )
            shift = (bias - stats["mean"]) * slope + norm["bias"]
        if site.role == "shortcut":
            scale = scales[end_of[site.name]]
        return conv(x, kernel * slope * worth[site.source] / scale, site) + shift / scale

    def conv(x, kernel, site):
        if site.kind == "dense":
            return x.reshape(len(x), -1) @ kernel
        (top, bottom), (left, right) = site.padding
        x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
        rows, columns, _ = site.drive_shape
        out = np.zeros((len(x), *site.drive_shape))
        for i in range(kernel.shape[0]):
            for j in range(kernel.shape[1]):
                stride = site.strides[0]
                window = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
                out += window[:, :rows, :columns] @ kernel[i, j]
        return out

    end_of = {site.shortcut: site.name for site in sites if site.shortcut}
    for site in sites:
        worth[site.name] = scales.get(site.name, worth.get(site.source, 1.0))
    for _ in range(steps):
        values = {"input": held}
        for site in sites:
            current = drive(site, values)
            if site.role == "shortcut":
                values[site.name] = current
                continue
            if site.shortcut:
                added = values[site.shortcut]
                if not site.shortcut.endswith("shortcut"):  # spikes of the block's source
                    added = added * worth[site.shortcut] / scales[site.name]
                current = current + added
            # A mean reaches 1 where the sum reaches the area: ninths do not add up to 1 in floats.
            threshold = float(np.prod(site.window)) if site.kind == "avgpool" else 1.0
            if site.kind == "avgpool" and not spiking_pools:
                values[site.name] = current / threshold
                continue
            start = 0.0 if site.shortcut and not block_ends else initial * threshold
            potential = state.get(site.name, start) + current
            out = (potential >= threshold).astype(np.float64)
            state[site.name] = potential - threshold * out
            waiting = queue.setdefault(site.name, [np.zeros_like(out)] * delay)
            waiting.append(out)
            values[site.name] = waiting.pop(0)
            spikes.setdefault(site.name, []).append(values[site.name])
    return {name: np.stack(actual) for name, actual in spikes.items()}
