"""What an accelerator computes, computed here: the same integers, and no convolution of integers.

With ``JAX_PLATFORMS=cuda,cpu`` the same tests look at the sums of a graphics card.
"""

import dataclasses
import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference as ref
from jax import export

from jaxsnn import Net, convert, hidden, methods, neurons, simulate
from jaxsnn.arch.layers import Conv, Dense
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import parse, plan
from jaxsnn.network import convolutions, synapse
from jaxsnn.network.arithmetic import Arithmetic
from jaxsnn.network.net import forward, init_variables
from jaxsnn.simulation.engine import run
from jaxsnn.training.gradients import Plan
from jaxsnn.training.one_pass import classification
from jaxsnn.training.update import programs

SPECS = [
    (Conv(5, 3, padding="same"), (7, 6, 3)),
    (Conv(66, 3, stride=2, padding=1), (7, 7, 65)),
    (Conv(4, 2, stride=2), (6, 6, 64)),
    (Dense(9), (3, 4, 2)),
]


@pytest.fixture
def accelerator(monkeypatch):
    """The choices that are made for an accelerator, whatever computes them here."""
    if jax.default_backend() == "cpu":
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()
    yield
    jax.clear_caches()


def expected(x, kernel, site):
    x, kernel = x.astype(np.int64), kernel.astype(np.int64)
    if site.kind == "dense":
        return x.reshape(len(x), -1) @ kernel
    return ref.conv2d(x, kernel, site.strides[0], site.padding)


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("accumulator", ["float32", "int32"])
@pytest.mark.parametrize("data", [np.int8, np.uint8, np.int32])
@pytest.mark.parametrize(("spec", "shape"), SPECS)
def test_integers_are_exact(spec, shape, data, accumulator):
    site = plan(Arch((spec,), input_shape=shape))[0]
    rng = np.random.default_rng(0)
    x = rng.integers(*((-128, 128) if data == np.int8 else (0, 256)), (4, *shape)).astype(data)
    kernel = rng.integers(-100, 101, site.kernel_shape).astype(np.int8)  # below 2^24 in all cases
    actual = synapse.synapse(jnp.asarray(x), jnp.asarray(kernel), site, accumulator)
    assert actual.dtype == jnp.int32
    np.testing.assert_array_equal(actual, expected(x, kernel, site))


@pytest.mark.usefixtures("accelerator")
def test_kernels_are_cast_once_before_a_loop_over_time():
    arch = Arch((Conv(4, 3, padding=1), Conv(6, 3)), input_shape=(7, 6, 3))
    site = next(site for site in plan(arch) if site.name == "conv2")
    rng = np.random.default_rng(0)
    spikes = rng.integers(-1, 2, (4, *site.in_shape)).astype(np.int8)
    kernel = rng.integers(-127, 128, site.kernel_shape).astype(np.int8)
    cast = synapse.prepared(jnp.asarray(kernel), site, "float32")
    assert cast.dtype == jnp.bfloat16
    actual = synapse.synapse(jnp.asarray(spikes), cast, site, "float32")
    np.testing.assert_array_equal(actual, expected(spikes, kernel, site))
    assert synapse.prepared(jnp.asarray(kernel), site, "int32").dtype == jnp.int8


@pytest.mark.usefixtures("accelerator")
def test_a_large_batch_is_laid_out_in_parts(monkeypatch):
    site = plan(Arch((Conv(4, 3, padding=1),), input_shape=(6, 6, 2)))[0]
    rng = np.random.default_rng(0)
    x = rng.integers(-1, 2, (12, 6, 6, 2)).astype(np.int8)
    kernel = rng.integers(-127, 128, site.kernel_shape).astype(np.int8)
    image = 6 * 6 * 9 * 2 * 2  # bytes of its windows in bfloat16
    monkeypatch.setattr(convolutions, "MOST_WINDOWS", 5 * image)  # 4 divides 12, 5 does not
    program = jax.make_jaxpr(lambda x: synapse.synapse(x, jnp.asarray(kernel), site, "float32"))
    assert "bf16[4,6,6,18]" in str(program(x))
    actual = synapse.synapse(jnp.asarray(x), jnp.asarray(kernel), site, "float32")
    np.testing.assert_array_equal(actual, expected(x, kernel, site))


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("spec", [Dense(64), Conv(64, 3)])
def test_sums_up_to_the_bound_are_exact(spec):
    """Odd sums next to 2^24, of the largest products: what a rounding accumulator would lose."""
    site = plan(Arch((spec,), input_shape=(12, 12, 120)))[0]
    taps = int(np.prod(site.kernel_shape[:-1]))
    kernel = np.zeros((taps, 64), np.int8)
    kernel[:1039], kernel[1039] = 127, 2  # 1,039 * 127 * 127 + 254 = 2^24 - 18,931
    x = np.full((3, 12, 12, 120), 127, np.int8)
    x[0, ..., ::2], x[1] = -127, np.random.default_rng(0).integers(-128, 128, x[1].shape)
    kernel = kernel.reshape(site.kernel_shape)
    whole = expected(x, kernel, site)
    assert whole.max() == 2**24 - 18_931
    drive = jax.jit(lambda x, kernel: synapse.synapse(x, kernel, site, "float32"))
    np.testing.assert_array_equal(drive(x, kernel), whole)


@pytest.mark.usefixtures("accelerator")
def test_integers_are_multiplied_in_bfloat16_and_never_convolved():
    site = plan(Arch((Conv(8, 3, padding="same"),), input_shape=(6, 6, 4)))[0]
    kernel = jnp.ones(site.kernel_shape, jnp.int8)

    def program(x, kernel, sums="float32"):
        return str(jax.make_jaxpr(lambda x, k: synapse.synapse(x, k, site, sums))(x, kernel))

    spikes, pixels = jnp.ones((2, 6, 6, 4), jnp.int8), jnp.ones((2, 6, 6, 4), jnp.uint8)
    assert "bf16" in program(spikes, kernel)
    assert "preferred_element_type=float32" in program(spikes, kernel)
    assert "preferred_element_type=int32" in program(spikes, kernel, "int32")
    assert "bf16" not in program(pixels, kernel.astype(jnp.int16))
    for x in (spikes, pixels):
        for accumulator in ("float32", "int32"):
            assert "conv_general_dilated" not in program(x, kernel, accumulator)
    images, weights = jnp.ones((2, 6, 6, 4)), kernel.astype(jnp.float32)
    assert "conv_general_dilated" in program(
        images, weights
    )  # training keeps the accelerator's own
    exact = jax.make_jaxpr(
        lambda x: synapse.synapse(x, weights, site, "float32", arithmetic=Arithmetic.EXACT)
    )
    assert "conv_general_dilated" not in str(exact(images))


@pytest.fixture(scope="module")
def network():
    """A small network with negative spikes, the ANN it comes from, and images."""
    arch = parse("8C3same-P2-64C3same-64C3-16", pool="conv", input_shape=(8, 8, 1), classes=5)
    ann = Net(arch, hidden(neurons.quantised_relu(1)))
    fresh = init_variables(ann, jax.random.key(0))
    snn = convert(fresh, arch, methods.negative_spikes(k=1, bound=None, weight_bits=7))
    return snn, ann, np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)


OPTIONS = {"steps": 8, "block": 2, "counts": True, "record": ("conv2",)}


@pytest.fixture(scope="module")
def on_processor(network):
    """A simulation as a processor computes it, on one."""
    snn, _, images = network
    with pytest.MonkeyPatch.context() as patch, jax.default_device(jax.devices("cpu")[0]):
        patch.setattr(jax, "default_backend", lambda: "cpu")
        jax.clear_caches()
        return jax.tree.map(np.asarray, simulate(snn, images, **OPTIONS))


@pytest.mark.parametrize("skip_silent", [False, True])
def test_a_simulation_is_the_same_as_a_processors(network, on_processor, accelerator, skip_silent):
    del accelerator  # from here on
    snn = dataclasses.replace(network[0], skip_silent=skip_silent)
    again = simulate(snn, network[2], **OPTIONS)
    chex.assert_trees_all_equal(on_processor, again)


@pytest.mark.usefixtures("accelerator")
def test_the_certificates_float_reference_is_not_convolved(network):
    snn, ann, images = network
    x = jnp.asarray(images, jnp.float32)

    def program(net):
        variables = init_variables(ann, jax.random.key(0))
        return str(jax.make_jaxpr(lambda x: forward(net, variables, x).readouts)(x))

    assert "conv_general_dilated" not in program(snn.float_ann)
    method = methods.negative_spikes(k=1, float_weights=True)
    floats = convert(init_variables(ann, jax.random.key(0)), ann.arch, method)
    step = jax.make_jaxpr(lambda images: run(floats, images, None, steps=2, block=1))(x)
    assert "conv_general_dilated" not in str(step)  # a folded network of float weights
    assert "conv_general_dilated" in program(ann)


@pytest.mark.usefixtures("accelerator")
def test_bfloat16_is_trained_by_convolutions_of_the_accelerators_own():
    """Products of a few images at a time, in a loop, are a processor's way to a gradient."""
    site = plan(Arch((Conv(64, 3, padding=1),), input_shape=(12, 12, 16)))[0]

    def total(kernel, x):
        arithmetic = Arithmetic.FAST_BFLOAT16
        return synapse.synapse(x, kernel, site, "float32", arithmetic=arithmetic).sum()

    kernel, x = jnp.ones(site.kernel_shape), jnp.ones((32, *site.in_shape))
    text = str(jax.make_jaxpr(jax.grad(total, (0, 1)))(kernel, x))
    assert len(re.findall(r"bf16\[[\d,]+\] = conv_general_dilated", text)) >= 2
    assert "scan" not in text
    assert "dot_general" not in text


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_programs_can_be_lowered_for_an_accelerator(network, platform):
    """Lowered as far as that goes without one: nothing in them is a processor's alone."""
    snn, ann, images = network
    for one in (snn, dataclasses.replace(snn, skip_silent=True)):
        program = jax.jit(functools.partial(run, steps=4, block=2))
        text = export.export(program, platforms=[platform])(one, images, None).mlir_module()
        assert "stablehlo.convolution" not in text
        assert re.search(r"dot_general.*bf16.*-> tensor<[\dx]+x64xf32>", text)
    initial, update = programs(classification(ann), optax.adam(1e-3), Plan(6, 1, 1, 1, None))
    examples = (jnp.arange(6), jnp.asarray(images), jnp.zeros(6, jnp.int32))
    state = initial(jax.random.key(0))
    lowered = export.export(update, platforms=[platform])
    text = lowered(state, *examples, jax.random.key(0), count=1, steps=None).mlir_module()
    assert "stablehlo.convolution" in text
