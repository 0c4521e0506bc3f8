"""Synapses against plain NumPy sums, and the kernel gradient against JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from jax import lax

from jaxsnn.arch.layers import Conv, Dense
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.network import kernel_gradient, synapse

GEOMETRIES = [
    # images, (H, W), in, out, kernel, strides, padding
    (1, (7, 7), 1, 3, (3, 3), (1, 1), ((0, 0), (0, 0))),
    (5, (8, 9), 4, 6, (3, 3), (1, 1), ((1, 1), (1, 1))),
    (16, (9, 9), 8, 5, (5, 5), (1, 1), ((2, 2), (2, 2))),
    (32, (9, 7), 8, 4, (3, 3), (2, 2), ((0, 1), (1, 0))),
    (17, (11, 8), 3, 2, (2, 4), (3, 2), ((1, 0), (2, 1))),
    (3, (6, 6), 2, 2, (1, 1), (1, 1), ((0, 0), (0, 0))),
    (2, (5, 16), 8, 7, (5, 3), (1, 3), ((0, 0), (3, 2))),
]


def direct(x, kernel, strides, padding):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@pytest.mark.parametrize("products", [kernel_gradient.of_narrow, kernel_gradient.of_rows])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_kernel_gradient_against_autodiff(geometry, products):
    images, size, inputs, outputs, window, strides, padding = geometry
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(images, *size, inputs)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*window, inputs, outputs)), jnp.float32)
    out, pull = jax.vjp(lambda kernel: direct(x, kernel, strides, padding), kernel)
    gradient = jnp.asarray(rng.normal(size=out.shape), jnp.float32)
    actual = products(x, gradient, kernel.shape, strides, padding)
    np.testing.assert_allclose(actual, pull(gradient)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "spec",
    [
        Conv(5, 3, padding="same"),  # narrow: the matrix products
        Conv(70, 3, stride=2, padding=1),  # wide: JAX's own, of a large map a product for each row
        Conv(5, 2, stride=2),
    ],
)
@pytest.mark.parametrize("side", [7, 17])
def test_gradients_of_a_whole_synapse(spec, side):
    rng = np.random.default_rng(1)
    site = plan(Arch((spec,), input_shape=(side, side, 8)))[0]
    products = kernel_gradient.fitting((3, *site.in_shape), site.kernel_shape)
    assert (products is kernel_gradient.of_rows) == (side == 17 and spec.channels == 70)
    x = jnp.asarray(rng.normal(size=(3, *site.in_shape)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=site.kernel_shape), jnp.float32)
    weight = jnp.asarray(rng.normal(size=(3, *site.drive_shape)), jnp.float32)

    def ours(x, kernel):
        return (synapse.synapse(x, kernel, site, "float32") * weight).sum()

    def theirs(x, kernel):
        return (direct(x, kernel, site.strides, site.padding) * weight).sum()

    for mine, expected in zip(
        jax.grad(ours, (0, 1))(x, kernel), jax.grad(theirs, (0, 1))(x, kernel), strict=True
    ):
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4)


SPECS = [
    (Conv(5, 3, padding="same"), (7, 6, 3)),
    (Conv(66, 3, stride=2, padding=1), (7, 7, 65)),  # wide: int8 products on a CPU
    (Conv(4, 2, stride=2), (6, 6, 3)),
    (Dense(9), (3, 4, 2)),
]


def numpy_synapse(x, kernel, site):
    x, kernel = x.astype(np.int64), kernel.astype(np.int64)
    if site.kind == "dense":
        return x.reshape(len(x), -1) @ kernel
    return ref.conv2d(x, kernel, site.strides[0], site.padding)


@pytest.mark.parametrize("accumulator", ["float32", "int32"])
@pytest.mark.parametrize(
    ("data", "weights"),
    [(np.int8, np.int8), (np.uint8, np.int8), (np.int32, np.int16), (np.uint8, np.int32)],
)
@pytest.mark.parametrize(("spec", "shape"), SPECS)
def test_integer_synapses_are_exact(spec, shape, data, weights, accumulator):
    rng = np.random.default_rng(2)
    site = plan(Arch((spec,), input_shape=shape))[0]
    low, high = (-127, 128) if data == np.int8 else (0, 256)
    x = rng.integers(low, high, (4, *shape)).astype(data)
    # The largest possible sum stays below 2^24: 585 inputs * 255 * 100 < 2^24.
    kernel = rng.integers(-100, 101, site.kernel_shape).astype(weights)
    drive = synapse.synapse(jnp.asarray(x), jnp.asarray(kernel), site, accumulator)
    assert drive.dtype == jnp.int32
    np.testing.assert_array_equal(drive, numpy_synapse(x, kernel, site))


def test_int32_stays_exact_where_float32_does_not():
    # 2^24 + 1 is no float32: 255 * 65794 = 16777470 > 2^24, then plus ones.
    site = plan(Arch((Dense(1),), input_shape=(1, 1, 4)))[0]
    x = np.array([[255, 1, 1, 1]], np.uint8).reshape(1, 1, 1, 4)
    kernel = np.array([[65795], [1], [0], [0]], np.int32)
    exact = 255 * 65795 + 1  # 16777726, even: pick the odd neighbour too
    actual = synapse.synapse(jnp.asarray(x), jnp.asarray(kernel), site, "int32")
    assert actual.tolist() == [[exact]]
    odd = np.array([[65795], [2], [0], [0]], np.int32)
    assert synapse.synapse(jnp.asarray(x), jnp.asarray(odd), site, "int32").tolist() == [[16777727]]
    assert synapse.synapse(jnp.asarray(x), jnp.asarray(odd), site, "float32").tolist() != [
        [16777727]
    ]


def test_int8_products_do_not_wrap():
    site = plan(Arch((Dense(1),), input_shape=(1, 1, 1000)))[0]
    x = jnp.full((1, 1, 1, 1000), -128, jnp.int8)
    kernel = jnp.full((1000, 1), -128, jnp.int8)
    for accumulator in ("float32", "int32"):
        assert synapse.synapse(x, kernel, site, accumulator).tolist() == [[16_384_000]]


def test_average_pool_is_a_mean_of_floats_and_a_sum_of_integers():
    arch = Arch((Conv(3, 1),), input_shape=(5, 4, 3), head_pool=True)
    site = next(site for site in plan(arch) if site.kind == "avgpool")
    x = np.random.default_rng(3).integers(-3, 4, (2, 5, 4, 3))
    mean = synapse.synapse(jnp.asarray(x, jnp.float32), None, site, "float32")
    np.testing.assert_allclose(mean, x.mean((1, 2), keepdims=True), rtol=1e-6)
    total = synapse.synapse(jnp.asarray(x, jnp.int8), None, site, "float32")
    assert total.dtype == jnp.int32
    np.testing.assert_array_equal(total, x.sum((1, 2), keepdims=True))
    with pytest.raises(ValueError, match="conv1: a synapse needs a kernel"):
        synapse.synapse(jnp.zeros((1, 5, 4, 3)), None, plan(arch)[0], "float32")


def test_spikes_times_float_weights_are_float32():
    site = plan(Arch((Dense(2),), input_shape=(1, 1, 2)))[0]
    x = jnp.array([[[[1, -2]]]], jnp.int8)
    kernel = jnp.array([[0.5, 0.25], [1.5, -1.0]])
    actual = synapse.synapse(x, kernel, site, "float32")
    assert actual.dtype == jnp.float32
    assert actual.tolist() == [[-2.5, 2.25]]


def test_average_pool_has_a_gradient_inside_jit():
    arch = Arch((Conv(3, 1),), input_shape=(2, 2, 3), head_pool=True)
    site = next(site for site in plan(arch) if site.kind == "avgpool")
    pooled = jax.jit(jax.grad(lambda x: synapse.synapse(x, None, site, "float32")[..., 0].sum()))
    expected = np.zeros((1, 2, 2, 3))
    expected[..., 0] = 1 / 4
    np.testing.assert_array_equal(pooled(jnp.ones((1, 2, 2, 3))), expected)
