"""torch's layers in NumPy, float64, images [B, C, H, W]: what ours are compared with."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def conv(x, weight, bias=None, stride=1, padding=0):
    """``torch.nn.Conv2d``; the weight is [out, in, height, width]."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(x, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    out = np.einsum("bchwij,ocij->bohw", windows, weight)
    return out if bias is None else out + bias[:, None, None]


def norm(x, weight, bias, mean, var, epsilon=1e-5):
    """``torch.nn.BatchNorm2d`` in evaluation; also over [B, C]."""
    shape = (-1, *(1,) * (x.ndim - 2))
    mean, var, weight, bias = (part.reshape(shape) for part in (mean, var, weight, bias))
    return (x - mean) / np.sqrt(var + epsilon) * weight + bias


def pool(x, size, reduce):
    """``MaxPool2d`` (``np.max``) and ``AvgPool2d`` (``np.mean``); a rest at the border is lost."""
    batch, channels, height, width = x.shape
    rows, columns = height // size, width // size
    cut = x[:, :, : rows * size, : columns * size]
    return reduce(cut.reshape(batch, channels, rows, size, columns, size), axis=(3, 5))


def dense(x, weight, bias=None):
    """``Flatten`` and ``Linear``; the weight is [out, in]."""
    out = x.reshape(len(x), -1) @ weight.T
    return out if bias is None else out + bias


def relu(x):
    """``ReLU``."""
    return np.maximum(x, 0)


def drawn(rng, *shape):
    """A weight of the size that keeps activations near one."""
    return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def drawn_norm(rng, name, channels):
    """Arrays of a batch norm, of either sign."""
    return {
        f"{name}.weight": rng.normal(size=channels).astype(np.float32),
        f"{name}.bias": rng.normal(size=channels).astype(np.float32),
        f"{name}.running_mean": rng.normal(size=channels).astype(np.float32),
        f"{name}.running_var": rng.uniform(0.1, 2, channels).astype(np.float32),
        f"{name}.num_batches_tracked": np.array(9),
    }


def norm_of(x, arrays, name, epsilon=1e-5):
    """Apply a batch norm of a state dict."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return norm(x, *(arrays[f"{name}.{part}"] for part in parts), epsilon)
