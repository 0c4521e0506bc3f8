"""Winograd's convolution and its gradients are those of a convolution, within rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.network.winograd import Blocks, winograd

SAME, VALID = ((1, 1), (1, 1)), ((0, 0), (0, 0))
BOUND = {2: 2e-6, 3: 5e-6, 4: 2e-5, 5: 3e-5, 6: 5e-5}  # error over the largest value


def slow(x, kernel, padding, gradient):
    """The convolution and its gradients in float64: a product with the shifted map for each tap."""
    x, kernel = np.pad(x, ((0, 0), *padding, (0, 0))).astype(np.float64), kernel.astype(np.float64)
    rows, columns = x.shape[1] - 2, x.shape[2] - 2
    out = np.zeros((len(x), rows, columns, kernel.shape[-1]))
    to_x, to_kernel = np.zeros(x.shape), np.zeros(kernel.shape)
    for i, j in np.ndindex(3, 3):
        shifted = np.s_[:, i : i + rows, j : j + columns]
        out += x[shifted] @ kernel[i, j]
        if gradient is not None:
            to_x[shifted] += gradient @ kernel[i, j].T
            to_kernel[i, j] = np.einsum("nhwc,nhwo->co", x[shifted], gradient)
    (top, bottom), (left, right) = padding
    inner = to_x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]
    return out, inner, to_kernel


def operands(images, size, channels, padding, seed=0):
    """Input, kernel and output gradient, float32."""
    rng = np.random.default_rng(seed)
    out = [length + sum(ends) - 2 for length, ends in zip(size, padding, strict=True)]
    shapes = (images, *size, channels[0]), (3, 3, *channels), (images, *out, channels[1])
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def with_gradients(convolve):
    """Value and both gradients in one compiled program."""

    def apply(x, kernel, gradient):
        value, pull_back = jax.vjp(convolve, x, kernel)
        return value, *pull_back(gradient)

    return jax.jit(apply)


def off(result, expected):
    """Largest difference over the largest value."""
    assert result.shape == expected.shape
    return np.max(np.abs(np.asarray(result, np.float64) - expected)) / np.max(np.abs(expected))


CASES = {
    "tiles of 2": ((12, 12), (5, 7), SAME, 3, Blocks(2, 3)),
    "tiles of 3": ((9, 6), (3, 4), SAME, 2, Blocks(3, 2)),
    "tiles of 4": ((8, 12), (9, 4), SAME, 4, Blocks(4, 2)),
    "tiles of 5": ((10, 10), (3, 2), SAME, 2, Blocks(5, 1)),
    "tiles of 6": ((12, 12), (6, 5), SAME, 2, Blocks(6, 1)),
    "one channel": ((8, 8), (1, 1), SAME, 3, Blocks(4, 3)),
    "odd map, not padded": ((13, 7), (4, 3), VALID, 2, Blocks(4, 1)),
    "map smaller than a tile": ((5, 3), (2, 3), VALID, 3, Blocks(6, 2)),
    "images that do not divide": ((7, 7), (3, 4), SAME, 5, Blocks(4, 2)),
    "more images than there are": ((6, 6), (3, 4), SAME, 2, Blocks(6, 64)),
    "uneven padding": ((6, 9), (3, 2), ((0, 2), (2, 1)), 3, Blocks(4, 2)),
    "wide padding": ((5, 5), (2, 3), ((4, 5), (6, 3)), 2, Blocks(2, 2)),
}


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_are_those_of_a_slow_convolution(case):
    size, channels, padding, images, blocks = CASES[case]
    x, kernel, gradient = operands(images, size, channels, padding)
    convolve = functools.partial(winograd, padding=padding, blocks=blocks)
    results = with_gradients(convolve)(x, kernel, gradient)
    for result, expected in zip(results, slow(x, kernel, padding, gradient), strict=True):
        assert result.dtype == jnp.float32
        assert off(result, expected) < BOUND[blocks.tile]
