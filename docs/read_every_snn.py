"""Reads every ``snn.npz`` and simulates it with NumPy alone; snn_format.md describes the format."""

import json

import numpy as np


def read(path):
    """Description of a file, and its arrays by site and leaf, as int64 or float64."""
    loaded = dict(np.load(path))
    description = json.loads(str(loaded.pop("meta.json")))
    arrays = {site["name"]: {} for site in description["sites"]}
    for name, array in loaded.items():
        site, leaf = name.split("/")[1:]
        arrays[site][leaf] = array.astype("f8" if array.dtype.kind == "f" else "i8")
    return description, arrays


def simulate(description, arrays, images, steps):
    """What every site gives in every step, ``{name: [T, B, ...]}``; heads are not summed."""
    coding, states = description["encoding"], {}
    if description["report"][0]["kernel"] == "trained" and images.dtype.kind in "iu":
        images = images * coding["scale"]
    ends = 1 if coding["presentation"] == "onset" else coding["duration"]
    outs = {site["name"]: [] for site in description["sites"]}
    for step in range(steps):
        on = ends is None or step < ends
        shown = images[step] if coding["presentation"] == "frames" else images * on
        values = {"input": shown.astype("f8" if images.dtype.kind == "f" else "i8")}
        for site in description["sites"]:
            name, leaves = site["name"], arrays[site["name"]]
            drive = synapse(site, leaves.get("kernel"), values[site["source"]])
            drive = drive * leaves.get("gain", 1) + on * leaves.get("bias", 0)
            if site["shortcut"]:
                added = shortcut(site, values[site["shortcut"]])
                drive = drive + added * leaves.get("shortcut_gain", 1)
            drive = pooled(drive, site["max_pool"])
            states[name], values[name] = fire(site["neuron"], leaves, states.get(name), drive)
            outs[name].append(values[name])
    return {name: np.stack(out) for name, out in outs.items()}


def synapse(site, kernel, x):
    """Drive of a convolution, a dense layer or an average pool, which adds up whole numbers."""
    if site["kind"] == "maxpool":
        return x
    if site["kind"] == "dense":
        return x.reshape(len(x), -1) @ kernel
    x = np.pad(x, ((0, 0), *site["padding"], (0, 0)))
    (rows, columns, _), (down, right), drive = site["drive_shape"], site["strides"], 0
    for i, j in np.ndindex(*site["window"]):
        part = x[:, i::down, j::right][:, :rows, :columns]
        drive = drive + (part if kernel is None else part @ kernel[i, j])
    mean = kernel is None and x.dtype.kind == "f"
    return drive / np.prod(site["window"]) if mean else drive


def shortcut(site, x):
    """Every so many-th pixel, between channels of zeros."""
    missing, stride = site["drive_shape"][-1] - x.shape[-1], site["shortcut_stride"]
    pads = (missing // 2, missing - missing // 2)
    return np.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), pads))


def pooled(x, windows):
    """The largest of every window; None has no windows."""
    if windows is None:
        return x
    size, stride, edge = windows["size"], windows["stride"], (windows["padding"],) * 2
    rows, columns = ((n + sum(edge) - size) // stride + 1 for n in x.shape[1:3])
    x = np.pad(x, ((0, 0), edge, edge, (0, 0)), constant_values=x.min() - 1)
    places = np.ndindex(size, size)
    entries = [x[:, i::stride, j::stride][:, :rows, :columns] for i, j in places]
    return np.max(entries, axis=0)


def fire(neuron, leaves, state, drive):
    """State and output of neurons after one step; neurons.md describes each."""
    return globals()[neuron["name"]](neuron["options"], leaves, state, drive)


def identity(options, leaves, state, drive):  # noqa: D103
    return state, drive


def threshold_count(options, leaves, state, drive):  # noqa: D103
    return state, (drive[..., None, :] >= leaves["thresholds"]).sum(-2)


def maximum(options, leaves, state, drive):  # noqa: D103
    sign = leaves.get("sign", 1)
    return state, sign * pooled(sign * drive, options)


def running_maximum(options, leaves, state, drive):  # noqa: D103
    counts, before = (0 * drive, 0) if state is None else state
    counts = counts + drive
    largest = maximum(options, leaves, (), counts)[1]
    return (counts, largest), largest - before


def integrate_and_fire(options, leaves, state, drive):  # noqa: D103
    potential, count = (leaves["initial"], 0) if state is None else state
    potential, threshold = potential + drive, leaves["threshold"]
    up = potential >= threshold
    if options["bounded"]:
        up = up & (count < options["levels"])
    potential, count, down = potential - threshold * up, count + up, 0 * up
    if options["signed"]:
        down = ~up & (potential <= leaves["negative_threshold"]) & (count > 0)
    return (potential + threshold * down, count - down), up.astype(int) - down


def tracking(options, leaves, state, drive):  # noqa: D103
    before, count = (0, 0) if state is None else state
    potential, out = before + drive, 0
    for _ in range(options["per_step"]):
        net = count + out
        up = (net < leaves["highest"]) & (potential >= even_threshold(leaves, net + 1))
        down = (net > 0) & (potential < even_threshold(leaves, net))
        out = out + up - down
    if options["rising"]:
        out = np.where(potential < before, np.minimum(out, 0), out)
    return (potential, count + out), out


def even_threshold(leaves, number):
    """Threshold of a spike, by its number from 1 on."""
    if leaves["first"].dtype.kind == "f":
        return leaves["first"] + (number - 1) * leaves["step"]
    fraction = (number - 1) * leaves["step_fraction"] + leaves["first_fraction"]
    return leaves["first"] + (number - 1) * leaves["step"] + (fraction >> 16)


def leaky(options, leaves, state, drive):  # noqa: D103
    before = 0 if state is None else state
    leak, threshold = np.clip(leaves["leak"], 0, 1), np.maximum(leaves["threshold"], 1e-3)
    potential = leak * before + drive
    if options["reset"] == "delayed":
        potential = potential - threshold * (before > threshold)
    spikes = (potential > threshold).astype(float)
    after = {"subtract": potential - threshold * spikes, "zero": potential * (1 - spikes)}
    out = potential if options["emit"] == "potential" else spikes
    return after.get(options["reset"], potential), out


def delayed(options, leaves, state, drive):  # noqa: D103
    inner, queue = (None, [0 * drive] * options["steps"]) if state is None else state
    inner, out = fire(options["inner"], leaves, inner, drive)
    return (inner, [*queue[1:], out]), queue[0]
