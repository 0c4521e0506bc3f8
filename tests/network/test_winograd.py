"""Winograd's convolution and its gradients are a direct convolution's, within rounding."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.network.convolutions import convolution
from jaxsnn.network.winograd import Blocks, fitting, winograd
from jaxsnn.network.winograd_matrices import LARGEST, transforms

SAME, VALID = ((1, 1), (1, 1)), ((0, 0), (0, 0))
BOUND = {2: 2e-6, 3: 1e-5, 4: 2e-5, 5: 2e-5, 6: 3e-5}  # error over the largest value


def slow(x, kernel, padding, gradient):
    """The convolution and its gradients in float64: for each tap a product with the shifted map."""
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
    "tiles of 1": ((3, 4), (2, 3), SAME, 2, Blocks(1, 2)),
    "tiles of 2": ((12, 12), (5, 7), SAME, 3, Blocks(2, 3)),
    "tiles of 3": ((9, 6), (3, 4), SAME, 2, Blocks(3, 2)),
    "tiles of 4": ((8, 12), (9, 4), SAME, 4, Blocks(4, 2)),
    "tiles of 6": ((12, 12), (6, 5), SAME, 2, Blocks(6, 1)),
    "one channel": ((8, 8), (1, 1), SAME, 3, Blocks(4, 3)),
    "odd map, not padded": ((13, 7), (4, 3), VALID, 2, Blocks(4, 1)),
    "map smaller than a tile": ((5, 3), (2, 3), VALID, 3, Blocks(5, 2)),
    "images that do not divide": ((7, 7), (3, 4), SAME, 5, Blocks(4, 2)),
    "more images than there are": ((6, 6), (3, 4), SAME, 2, Blocks(2, 64)),
    "uneven padding": ((6, 9), (3, 2), ((0, 2), (2, 1)), 3, Blocks(4, 2)),
    "wide padding": ((5, 5), (2, 3), ((4, 5), (6, 3)), 2, Blocks(2, 2)),
}
BOUND[1] = BOUND[2]


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_are_those_of_a_slow_convolution(case):
    size, channels, padding, images, blocks = CASES[case]
    x, kernel, gradient = operands(images, size, channels, padding)
    convolve = functools.partial(winograd, padding=padding, blocks=blocks)
    results = with_gradients(convolve)(x, kernel, gradient)
    for result, expected in zip(results, slow(x, kernel, padding, gradient), strict=True):
        assert result.dtype == jnp.float32
        assert off(result, expected) < BOUND[blocks.tile]


@pytest.mark.parametrize("tile", [2, 4, 6])
def test_wide_layers_agree_with_the_direct_convolution(tile):
    x, kernel, gradient = operands(4, (12, 12), (64, 48), SAME)
    ours = functools.partial(winograd, padding=SAME, blocks=Blocks(tile, 2))
    direct = functools.partial(convolution, strides=(1, 1), padding=SAME)
    pairs = zip(
        with_gradients(ours)(x, kernel, gradient),
        with_gradients(direct)(x, kernel, gradient),
        slow(x, kernel, SAME, gradient),
        strict=True,
    )
    for result, plain, expected in pairs:
        assert off(result, expected) < BOUND[tile]
        assert off(result, np.asarray(plain)) < BOUND[tile]


def test_bounds_tell_a_wrong_result():
    """A result that is off by a tenth of a per cent of one tap is not taken for rounding."""
    x, kernel, _ = operands(2, (8, 8), (3, 4), SAME)
    wrong = kernel.copy()
    wrong[1, 1] *= 1.001
    expected, *_ = slow(x, kernel, SAME, None)
    assert off(winograd(x, kernel, SAME, Blocks(4, 2)), expected) < BOUND[4]
    assert off(slow(x, wrong, SAME, None)[0], expected) > 5 * max(BOUND.values())


@hypothesis.given(
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    padding=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    tile=st.sampled_from([2, 4, 6]),
    images=st.integers(1, 3),
)
@hypothesis.settings(max_examples=4)
def test_any_map_and_padding(size, padding, tile, images):
    x, kernel, gradient = operands(3, size, (2, 2), padding)
    convolve = functools.partial(winograd, padding=padding, blocks=Blocks(tile, images))
    results = with_gradients(convolve)(x, kernel, gradient)
    for result, expected in zip(results, slow(x, kernel, padding, gradient), strict=True):
        assert off(result, expected) < BOUND[tile]


def test_gradients_inside_a_compiled_loop():
    """Gradient descent inside ``scan``, as in a training program, takes the direct one's path."""
    x, kernel, target = operands(4, (8, 8), (3, 4), SAME)

    def descend(convolve):
        def step(kernel, _):
            gradient = jax.grad(lambda k: jnp.mean((convolve(x, k) - target) ** 2))(kernel)
            return kernel - 0.1 * gradient, None

        return jax.jit(lambda: jax.lax.scan(step, jnp.asarray(kernel), None, length=4)[0])()

    ours = descend(functools.partial(winograd, padding=SAME, blocks=Blocks(4, 2)))
    direct = descend(functools.partial(convolution, strides=(1, 1), padding=SAME))
    assert off(direct, kernel) > 1e-2
    assert off(ours, np.asarray(direct)) < BOUND[4]


@pytest.mark.parametrize("tile", range(1, LARGEST + 1))
def test_matrices_compute_a_filter_of_three_taps(tile):
    """Of one dimension, with integers, in float64: A^T [(G g) * (B^T d)] is their correlation."""
    rng = np.random.default_rng(tile)
    taps, data = rng.integers(-9, 10, 3), rng.integers(-9, 10, tile + 2)
    inputs, kernel, outputs = (np.array(matrix) for matrix in transforms(tile))
    result = outputs @ ((kernel @ taps) * (inputs @ data))
    np.testing.assert_allclose(result, np.correlate(data, taps, "valid"), atol=1e-11)


def test_matrices_of_the_paper():
    """F(2, 3) as Lavin and Gray print it; a sign may move from one matrix to another."""
    inputs, kernel, outputs = (np.array(matrix) for matrix in transforms(2))
    np.testing.assert_array_equal(
        np.abs(inputs), [[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]]
    )
    np.testing.assert_array_equal(
        np.abs(kernel), [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 1]]
    )
    np.testing.assert_array_equal(np.abs(outputs), [[1, 1, 1, 0], [0, 1, 1, 1]])


WIDE = (3, 3, 128, 256)


@pytest.mark.parametrize(
    ("images", "kernel", "strides", "padding"),
    [
        ((64, 24, 24, 128), (5, 5, 128, 256), (1, 1), ((2, 2), (2, 2))),
        ((64, 24, 24, 128), (1, 1, 128, 256), (1, 1), VALID),
        ((64, 24, 24, 128), WIDE, (2, 2), SAME),
        ((64, 28, 28, 1), (3, 3, 1, 96), (1, 1), SAME),
        ((64, 12, 12, 256), (3, 3, 256, 10), (1, 1), SAME),
        ((64, 2, 2, 128), WIDE, (1, 1), SAME),
        ((2, 12, 12, 128), WIDE, (1, 1), SAME),
    ],
    ids=["5x5", "1x1", "stride 2", "one input", "few outputs", "small map", "few images"],
)
def test_not_chosen_where_it_is_no_use(images, kernel, strides, padding):
    assert fitting(images, kernel, strides, padding) is None


@pytest.mark.parametrize(
    ("size", "tile"), [(24, 6), (12, 6), (6, 6), (32, 4), (16, 4), (14, 4), (8, 4), (7, 4), (4, 4)]
)
@pytest.mark.parametrize("images", [64, 100, 128])
def test_the_tile_with_the_fewest_products_is_chosen(size, tile, images):
    blocks = fitting((images, size, size, 128), WIDE, (1, 1), SAME)
    assert blocks is not None
    assert blocks.tile == tile
    parts = -(-images // blocks.images)
    assert 0 <= parts * blocks.images - images < parts  # no part has more than one image of zeros


@pytest.mark.parametrize(
    ("shape", "kernel", "padding", "blocks", "message"),
    [
        ((1, 8, 8, 2), (5, 5, 2, 3), SAME, Blocks(4, 1), r"\(5, 5, 2, 3\).*3x3"),
        ((1, 8, 8, 2), (3, 3, 2, 3), SAME, Blocks(7, 1), "tile=7.*1 to 6"),
        ((1, 8, 8, 2), (3, 3, 2, 3), SAME, Blocks(4, 0), "images=0.*at least one"),
        ((1, 8, 8, 2), (3, 3, 2, 3), ((0, -1), (0, 0)), Blocks(4, 1), "-1.*negative"),
        ((1, 2, 8, 2), (3, 3, 2, 3), VALID, Blocks(4, 1), r"\(1, 2, 8, 2\).*smaller"),
    ],
)
def test_what_cannot_be_is_refused(shape, kernel, padding, blocks, message):
    with pytest.raises(ValueError, match=message):
        winograd(jnp.zeros(shape), jnp.zeros(kernel), padding, blocks)
