"""Simulates an ``snn.npz`` with NumPy alone, in 40 lines; snn_format.md says which networks."""

import json

import numpy as np


def simulate(path, images, steps):
    """Output of every site in every step, ``{name: [T, B, ...]}``, for images in whole pixels."""
    arrays = dict(np.load(path))
    sites, shown = map(json.loads(str(arrays["meta.json"])).get, ("sites", "encoding"))
    on = np.arange(steps) < (1 if shown["presentation"] == "onset" else shown["duration"] or steps)
    outs = {"input": np.multiply.outer(1.0 * on, images)}
    for site in sites:
        leaf = {k.split("/")[2]: a for k, a in arrays.items() if f"/{site['name']}/" in k}
        drive = leaf.get("gain", 1) * synapse(site, leaf.get("kernel"), outs[site["source"]])
        drive[on] += leaf.get("bias", 0)
        drive, other = np.stack([drive, outs.get(site["shortcut"], 0 * drive)])  # of one shape
        outs[site["name"]] = fire(site, leaf, drive + leaf.get("shortcut_gain", 1) * other)
    return outs


def synapse(site, kernel, x):
    """Drive of a dense layer, of a convolution, or of an average pool, which adds up."""
    if site["kind"] == "dense":
        return x.reshape(*x.shape[:2], -1) @ kernel
    x = np.pad(x, [(0, 0), (0, 0), *site["padding"], (0, 0)])
    x = np.lib.stride_tricks.sliding_window_view(x, site["window"], axis=(2, 3))
    x = x[:, :, :: site["strides"][0], :: site["strides"][1]]  # [T, B, rows, columns, C, window]
    return x.sum((5, 6)) if kernel is None else np.tensordot(x, kernel, ([5, 6, 4], [0, 1, 2]))


def fire(site, leaf, drive):
    """Spikes of every step: spike n + 1 is due once all drive so far reaches first + n * step."""
    match site["max_pool"], site["neuron"]["name"], site["neuron"]["options"]:
        case None, "identity", _:
            return drive
        case None, "threshold_count", _:
            return (drive[..., None, :] >= leaf["thresholds"]).sum(-2, dtype=float)
        case None, "tracking", {"per_step": 1, "rising": False} if leaf["first"].dtype.kind == "i":
            first, step = (leaf[k] + leaf[f"{k}_fraction"] / 2**16 for k in ("first", "step"))
            highest, back = leaf["highest"], -1
        case None, "integrate_and_fire", {"levels": int(levels), "bounded": bounded}:
            first, step = leaf["threshold"] - leaf["initial"], leaf["threshold"]
            highest, back = levels if bounded else np.inf, leaf.get("negative_threshold", -np.inf)
        case _:
            raise ValueError(f"{site['name']} is for read_every_snn.py: {site['neuron']}")
    spikes = np.zeros_like(drive)
    for t, total in enumerate(drive.cumsum(0)):
        spikes[t] = (total >= np.floor(first + (n := spikes.sum(0)) * step)) & (n < highest)
        spikes[t] -= (total <= np.floor(first + (n - 1) * step) + back) & (n > 0)
    return spikes
