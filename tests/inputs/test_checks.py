"""Every entrance of a value asks for its unit and its range, of NumPy and JAX arrays alike."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import converted, levels_network

from jaxsnn import (
    Encoding,
    Net,
    certify,
    convert,
    directly_trained,
    evaluate,
    hidden,
    init_variables,
    methods,
    neurons,
    parse,
    simulate,
    spiking_net,
    sweep,
    with_leaf,
)
from jaxsnn.conversion import percentiles
from jaxsnn.errors import UserError
from jaxsnn.inputs import held, normalised, standardised, units_of

ARRAYS = pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
SCALED = "images are float32, but the network takes integers worth 0.00390625 each"


@functools.cache
def rates(bits=None):
    """A rate-coded network whose kernels are floats, and what it was converted from."""
    arch = parse("4C3-6", input_shape=(5, 5, 1), classes=3)
    net = Net(arch, hidden(neurons.relu()))
    variables = init_variables(net, jax.random.key(0))
    encoding = Encoding("held", 1 / 256)
    scales = {"conv1": 1.0, "dense1": 1.0, "readout": 1.0}
    method = methods.rate(scales=scales, weight_bits=bits, float_weights=bits is None)
    snn = convert(variables, arch, method, encoding=encoding)
    return snn, net, variables


@functools.cache
def trained():
    arch = parse("4C3-6", input_shape=(5, 5, 1), classes=3, norm=False)
    net = spiking_net(arch, neurons.leaky(0.9, 0.2), neurons.leaky(0.9, 1.0))
    variables = init_variables(net, jax.random.key(0))
    return net, variables, directly_trained(net, variables, Encoding("held", 1 / 255))


def pixels(array, dtype=np.uint8, factor=1.0):
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 1))
    return array((values * factor).astype(dtype))


@ARRAYS
@pytest.mark.parametrize("bits", [None, 7])
def test_scaled_images_are_refused_by_every_converted_network(array, bits):
    snn, net, variables = rates(bits)
    shown = pixels(array, np.float32, 1 / 256)
    whole = simulate(snn, pixels(array), steps=5)
    for call in (
        lambda: simulate(snn, shown, steps=5),
        lambda: evaluate(snn, shown, steps=5),
        lambda: sweep(snn, shown, steps=5),
        lambda: percentiles.scales(net, variables, shown, [99.0], encoding=snn.encoding),
    ):
        with pytest.raises(UserError, match=SCALED):
            call()
    assert whole.readout.shape == (5, 4, 3)
    settings = {"float_weights": True}
    *_, negative, images = converted(3, 2, method=methods.negative_spikes, settings=settings)
    floats = array(images.astype(np.float32) / 256)
    with pytest.raises(UserError, match=SCALED):
        simulate(negative, floats, steps=2)


@ARRAYS
def test_scaled_images_are_refused_by_a_certificate(array):
    _, variables, snn = levels_network()
    with pytest.raises(UserError, match=SCALED):
        certify(snn, variables, array(np.full((2, 1, 1, 1), 0.5, np.float32)))


@ARRAYS
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(array, value):
    snn, shown = trained()[2], np.zeros((4, 5, 5, 1), np.float32)
    shown[2, 1, 1, 0] = value
    with pytest.raises(UserError, match="images hold a value that is not finite"):
        simulate(snn, array(shown), steps=2)


@ARRAYS
def test_grey_values_as_floats_are_not_what_a_scaled_network_was_shown(array):
    snn = trained()[2]
    units = simulate(snn, pixels(array), steps=6)
    scaled = simulate(snn, pixels(array, np.float32, np.float32(1 / 255)), steps=6)
    np.testing.assert_array_equal(units.predictions, scaled.predictions)
    with pytest.raises(UserError, match=r"floats holds 25[0-9], but with .* at most 1;"):
        simulate(snn, pixels(array, np.float32), steps=6)


@pytest.mark.parametrize("value", [2**63, 2**63 + 5, 2**64 - 1])
def test_units_beyond_int64_do_not_wrap(value):
    snn = rates()[0]
    images = np.full((1, 5, 5, 1), value, np.uint64)
    with pytest.raises(UserError, match=r"beyond Encoding.highest = 255"):
        simulate(snn, images, steps=1)


@ARRAYS
@pytest.mark.parametrize("value", [256, -256, -(2**31)])
def test_units_beyond_the_highest_are_refused_whatever_their_sign(array, value):
    snn = rates()[0]
    with pytest.raises(UserError, match=r"beyond Encoding.highest = 255"):
        simulate(snn, array(np.full((1, 5, 5, 1), value, np.int32)), steps=1)
    simulate(snn, array(np.full((1, 5, 5, 1), np.sign(value) * 255, np.int32)), steps=1)


@pytest.mark.parametrize("dtype", [bool, np.complex64])
def test_what_is_no_number_is_refused(dtype):
    with pytest.raises(UserError, match=r"images are (bool|complex64)"):
        simulate(trained()[2], np.zeros((1, 5, 5, 1), dtype), steps=1)


@pytest.mark.parametrize("scale", [np.nan, 0, -1, np.inf, "1", None, np.float32(0)])
def test_what_no_unit_can_be_worth(scale):
    for build in (lambda: Encoding(scale=scale), lambda: held(5, scale)):
        with pytest.raises(UserError, match=r"scale=.*: give a finite number above 0"):
            build()


def test_other_fields_of_an_encoding():
    for fields, message in (
        ({"highest": 0}, "highest=0: give a whole number"),
        ({"highest": 2.5}, "highest=2.5: give a whole number"),
        ({"highest": 2**31}, "highest=2147483648: give a whole number"),
        ({"duration": 0}, "duration=0: give a whole number"),
        ({"duration": 1.5}, "duration=1.5: give a whole number"),
        ({"presentation": "hold"}, "'hold' is unknown; choose one of held, onset, frames"),
    ):
        with pytest.raises(UserError, match=message):
            Encoding(**fields)
    numpy = Encoding("held", np.float64(0.5), np.int64(7), np.int32(3))
    assert numpy == Encoding("held", 0.5, 7, 3)
    assert [type(one) for one in (numpy.scale, numpy.highest, numpy.duration)] == [float, int, int]


@pytest.mark.parametrize("share", [0.999, 0.5, 1.0])
def test_a_percentile_is_in_percent(share):
    snn, net, variables = rates()
    with pytest.raises(UserError, match=f"percentile={share} looks like a share"):
        percentiles.scales(net, variables, pixels(np.asarray), [share], encoding=snn.encoding)


@pytest.mark.parametrize("percentile", [0, -1, 100.5, np.nan])
def test_no_percentile(percentile):
    snn, net, variables = rates()
    with pytest.raises(UserError, match=r"percentile=.*: give a finite number above 0"):
        percentiles.scales(net, variables, pixels(np.asarray), [percentile], encoding=snn.encoding)


def test_leaves_and_weights_are_numbers():
    snn, _, variables = rates()
    scales = dict.fromkeys(("conv1", "dense1", "readout"), 1.0)
    leaf = snn.variables["fixed"]["conv1"]["threshold"]
    with pytest.raises(UserError, match="conv1/threshold would hold NaN"):
        with_leaf(snn, "conv1", "threshold", leaf.at[1].set(np.nan))
    values = jnp.stack([leaf, leaf.at[0].set(np.nan)])
    with pytest.raises(UserError, match="conv1/threshold would hold NaN"):
        sweep(snn, pixels(np.asarray), leaves=("conv1", "threshold", values))
    with_leaf(snn, "conv1", "threshold", jnp.full_like(leaf, np.inf))  # never fires
    for value in (np.nan, np.inf):
        broken = jax.tree.map(jnp.array, variables)
        broken["params"]["dense1"]["kernel"] *= value
        with pytest.raises(UserError, match="dense1/kernel is not finite"):
            convert(broken, snn.arch, methods.rate(scales=scales), encoding=snn.encoding)
        net, tree, _ = trained()
        tree = jax.tree.map(jnp.array, tree)
        tree["params"]["conv1"]["kernel"] += value
        with pytest.raises(UserError, match="values of params/conv1/kernel hold a value that"):
            directly_trained(net, tree, Encoding("held", 1 / 255))


@pytest.mark.parametrize("recipe", [standardised(4), normalised((0.5,), (0.25,), 4)])
@ARRAYS
def test_recipes_take_grey_values(recipe, array):
    units_of(recipe, pixels(np.asarray, np.int32))
    with pytest.raises(UserError, match="images are float32; give whole grey values"):
        recipe.test(pixels(array, np.float32, 1 / 255))
    with pytest.raises(UserError, match=r"images hold values of 0 to 2[0-9]{3}; grey values are 0"):
        recipe.test(pixels(array, np.int32, 10.0))
    with pytest.raises(UserError, match=r"images hold values of -25[0-9] to 0"):
        recipe.test(pixels(array, np.int32, -1.0))
