"""Made images, and what the grid makes of their pixels, in NumPy."""

import numpy as np


def pictures(count=6, side=32, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def on_grid(pixels, mean, std, bits):
    """``(pixel / 255 - mean) / std``, half up onto the grid, in float64."""
    exact = (pixels / 255 - np.array(mean)) / np.array(std)
    return np.floor(exact * 2**bits + 0.5).astype(int)
