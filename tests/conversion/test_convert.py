"""Conversion against the reference's threshold units: counts, logits, spikes, operations."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from helpers import (
    FLOAT,
    HIDDEN_TERNARY,
    build,
    converted,
    levels_network,
    pixels,
    pooled_network,
    pooled_units,
    tree,
    with_snapped,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn import (
    Encoding,
    Net,
    SiteMap,
    UserError,
    certify,
    convert,
    evaluate,
    float_ends,
    forward,
    hidden,
    init_variables,
    methods,
    neurons,
    parse,
    plan,
    settled,
    simulate,
)
from jaxsnn.conversion.float_reference import snapped
from jaxsnn.conversion.grid import grid_exponent
from jaxsnn.conversion.kernels import KernelForm
from jaxsnn.conversion.method import ALWAYS, NEVER
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.inputs.preprocess import PIXELS
from jaxsnn.network import weight_quantisers
from jaxsnn.network.net import template
from jaxsnn.simulation import counters

TERNARY = SiteMap(weight_quantisers.ternary())


def check(layers, snn, images, k, bound, eps, ann=None):
    """Simulated counts, logits, spikes and operations equal the reference's."""
    expected = ref.scatter_gather(layers, images / 256.0, k, bound, eps=eps)
    trace = simulate(snn, images, steps=1, counts=True)
    for layer, count in zip(layers, expected.counts, strict=False):
        np.testing.assert_array_equal(trace.counts[layer["name"]], count, err_msg=layer["name"])
    for number, layer in enumerate(layers[:-1]):
        actual = trace.counters.spikes[layer["name"]][0]
        np.testing.assert_array_equal(actual, expected.spikes[number])
    logits = np.asarray(trace.readout[0], np.float64) * snn.unit("readout")
    np.testing.assert_allclose(logits * 2**k, expected.logits, rtol=1e-5, atol=1e-6)
    events = {name: np.asarray(value) for name, value in trace.counters.events.items()}
    operations = counters.synaptic_operations(events, snn.arch)
    total = counters.total(operations, without=("readout",))
    np.testing.assert_array_equal(total[0], expected.sops)
    np.testing.assert_array_equal(trace.predictions[0], expected.logits.argmax(1))
    return expected


INTEGER = ((6, 3, 2, 1), (8, 2, 2, "valid"))
NETWORKS = [
    ({}, 1, 2),
    ({"gammas": "mixed"}, 2, 2),
    ({"gammas": "with_zero"}, 1, 1),
    ({"dyadic": False}, 0, 1),
    ({"dyadic": False, "gammas": "mixed"}, 1, 2),
    ({"dyadic": False, "gammas": "with_zero"}, 0, 4),
    ({"convs": INTEGER, "gammas": "mixed", "dyadic": False}, 1, 2),
    ({"convs": ((4, 5, 1, "same"), (5, 3, 2, "same"), (6, 4, 1, "valid")), "dense": ()}, 1, 2),
    ({"bias": True, "gammas": "mixed"}, 1, 2),
]


@pytest.mark.parametrize(("options", "k", "bound"), NETWORKS)
def test_check_6_counts_logits_spikes_and_operations(options, k, bound):
    layers, _, variables, snn, images = converted(2, k=k, bound=bound, **options)
    dyadic = options.get("dyadic", True)
    expected = check(layers, snn, images, k, bound, 0.0 if dyadic else 1e-5)
    assert all(len(np.unique(count)) > 1 for count in expected.counts)
    if dyadic:  # exact ties do happen
        ties = sum(
            int((potential == theta).sum())
            for layer, potential in zip(layers[:-1], expected.potentials, strict=True)
            for theta in ref.fold(layer, k, bound, eps=0.0)["thresholds"]
        )
        assert ties > 5 or "bias" in options
        return
    # The library's own float ANN has the same logits.
    net = Net(
        snn.arch, hidden(neurons.quantised_relu(k, bound)), float_ends(weight_quantisers.ternary())
    )
    ann = forward(net, snapped(variables, snn), snn.encoding.decode(jnp.asarray(images)))
    logits = simulate(snn, images, steps=1).readout[0] * snn.unit("readout")
    np.testing.assert_allclose(logits, ann.readouts[-1][0], rtol=1e-5, atol=1e-6)


@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(0, 2),
    bound=st.integers(1, 3),
    gammas=st.sampled_from(["positive", "mixed", "with_zero"]),
    dyadic=st.booleans(),
    conv=st.tuples(
        st.integers(1, 5), st.integers(1, 3), st.integers(1, 2), st.sampled_from(["same", "valid"])
    ),
)
def test_any_network_equals_the_reference(seed, k, bound, gammas, dyadic, conv):
    options = {"gammas": gammas, "dyadic": dyadic, "convs": (conv,), "shape": (5, 6, 1)}
    layers, _, _, snn, images = converted(seed, 8, k=k, bound=bound, dense=(6,), **options)
    check(layers, snn, images, k, bound, 0.0 if dyadic else 1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_max_pooled_currents_and_average_pooled_counts(seed):
    layers = pooled_network(seed)
    arch = parse("6C3same-MP2-8C3p1-AP2-12", classes=5, input_shape=(12, 12, 1))
    variables = tree(layers)
    snn = convert(variables, arch, methods.scatter_gather(k=1, bound=2), weights=HIDDEN_TERNARY)
    images = pixels(np.random.default_rng(seed), 12, (12, 12, 1))
    moved = with_snapped(layers, variables, snn)
    counts, logits, operations = pooled_units(moved, images / 256.0, 1, 2)
    trace = simulate(snn, images, steps=1, counts=True)
    for layer, count in zip(layers, counts, strict=False):
        assert len(np.unique(count)) > 1
        np.testing.assert_array_equal(trace.counts[layer["name"]], count)
    actual = trace.readout[0] * snn.unit("readout")
    np.testing.assert_allclose(2 * np.asarray(actual), logits, rtol=1e-5, atol=1e-6)
    assert evaluate(snn, images).per_image_operations.tolist() == operations.tolist()


def test_check_12_without_the_sign_flip_the_counts_differ():
    _, _, _, snn, images = converted(3, dyadic=False, gammas="mixed")
    right = simulate(snn, images, steps=1, counts=True).counts["conv1"]
    kernel = np.array(snn.variables["params"]["conv1"]["kernel"])
    kernel[..., 1::2] *= -1  # as if the flip had been forgotten in the kernel
    params = {**snn.variables["params"], "conv1": {"kernel": jnp.asarray(kernel)}}
    broken = snn.replace(variables={**snn.variables, "params": params})
    wrong = simulate(broken, images, steps=1, counts=True).counts["conv1"]
    differs = np.asarray(wrong != right)
    assert differs[..., 1::2].any()
    assert not differs[..., ::2].any()
    assert [record.flipped for record in snn.report] == [3, 4, 6, 0]


def test_a_zero_scale_is_a_constant_level():
    _layers, _, _, snn, images = converted(4, gammas="with_zero")
    thresholds = np.asarray(snn.variables["fixed"]["conv1"]["thresholds"])
    # Offset 0.75 is the boundary of level 2, which it reaches.
    assert thresholds[:, 0].tolist() == [ALWAYS, ALWAYS, NEVER, NEVER]
    counts = simulate(snn, images, steps=1, counts=True).counts
    assert (counts["conv1"][..., 0] == 2).all()
    assert [record.constant for record in snn.report] == [1, 1, 1, 0]


def test_thresholds_and_logits_by_hand():
    # Levels 1..4 of step 1/2 at pixels 64, 192, 320, 448 of 256; weight 2 halves them. The second
    # layer counts halves: level j at u >= j - 1/2, so at the integer j.
    _, _, snn = levels_network()
    kernel = np.asarray(snn.variables["params"]["dense1"]["kernel"])
    unit = int(kernel[0, 0])  # what weight 1 is on the grid
    thresholds = np.asarray(snn.variables["fixed"]["dense1"]["thresholds"])
    assert thresholds[:, 0].tolist() == [unit * pixel for pixel in (64, 192, 320, 448)]
    assert snn.variables["fixed"]["dense2"]["thresholds"].tolist() == [[j, j] for j in (1, 2, 3, 4)]
    images = np.array([0, 31, 32, 63, 64, 95, 96, 191, 192, 255], np.uint8).reshape(-1, 1, 1, 1)
    trace = simulate(snn, images, steps=1, counts=True)
    # Weight 2: boundaries at 32, 96, 160, 224.
    expected = [[0, 0], [0, 0], [0, 1], [0, 1], [1, 1], [1, 1], [1, 2], [1, 3], [2, 3], [2, 4]]
    assert trace.counts["dense1"].tolist() == expected
    second = [[max(a - b, 0), max(b - a, 0)] for a, b in expected]
    assert trace.counts["dense2"].tolist() == second
    logits = np.asarray(trace.readout[0]) * snn.unit("readout")
    assert logits[:, 0].tolist() == [sum(pair) / 2 for pair in second]


def test_what_is_kept_ternary_and_what_goes_on_a_grid():
    layers, _, variables, snn, _ = converted(5, dyadic=False)
    params = snn.variables["params"]
    for layer in layers[1:-1]:
        kernel = np.asarray(params[layer["name"]]["kernel"])
        assert kernel.dtype == np.int8
        np.testing.assert_array_equal(kernel, layer["kernel"])
    records = {record.site: record for record in snn.report}
    assert [records[layer["name"]].kernel for layer in layers] == [
        "grid",
        "ternary",
        "ternary",
        "grid",
    ]
    for site, highest in (("conv1", 255), ("readout", 4)):
        record, kernel = records[site], np.asarray(params[site]["kernel"], np.int64)
        assert record.bound == highest * np.abs(kernel).sum(tuple(range(kernel.ndim - 1))).max()
        assert 2**22 < record.bound < 2**24  # the finest grid that fits
        master = np.asarray(variables["params"][site]["kernel"], np.float64)
        moved = np.abs(kernel * 2.0**-record.exponent - master).max()
        assert record.weight_error == pytest.approx(moved)
        assert 0 < moved <= 2.0**-record.exponent / 2
    for leaf in jax.tree.leaves(snn.variables):
        assert jnp.issubdtype(leaf.dtype, jnp.integer)
    assert all(fixed["thresholds"].dtype == jnp.int32 for fixed in snn.variables["fixed"].values())


def test_weights_in_full_precision_convert_on_a_grid_everywhere():
    layers, arch, variables = build(6, ternary=False, dyadic=False, gammas="mixed")
    snn = convert(variables, arch, methods.scatter_gather(k=1, bound=2), weights=FLOAT)
    assert {record.form for record in snn.report} == {KernelForm.GRID}
    images = pixels(np.random.default_rng(1), 8, arch.input_shape)
    check(with_snapped(layers, variables, snn), snn, images, 1, 2, 1e-5)


def test_ternary_sums_beyond_float32_are_held_in_int32_and_refused_beyond_that():
    arch = parse("2-2", classes=2, input_shape=(1, 1, 1))
    variables = levels_network()[1]
    variables = {**variables, "params": {**variables["params"]}}
    variables["params"]["readout"] = {"kernel": np.ones((2, 2), np.float32)}
    wide = convert(
        variables,
        arch,
        methods.scatter_gather(k=0, bound=1),
        weights=TERNARY,
        encoding=Encoding("onset", 1 / 256, 2**24),
    )
    assert wide.report[0].accumulator == "int32"
    assert wide.report[0].bound == 2**24
    images = np.full((1, 1, 1, 1), 2**24, np.int32)
    assert simulate(wide, images, steps=1).readout.shape == (1, 1, 2)
    with pytest.raises(ValueError, match=r"dense1: a sum of its integer drive can reach 21474836"):
        convert(
            variables,
            arch,
            methods.scatter_gather(k=0, bound=1),
            weights=TERNARY,
            encoding=Encoding("onset", 1 / 256, 2**31 - 1),
        )


@pytest.mark.parametrize("value", [0.1, -3.25, 2.0**-20])
def test_a_heads_bias_keeps_its_value_whatever_grid_the_kernel_lies_on(value):
    arch, variables, _ = levels_network()
    arch = dataclasses.replace(arch, head_bias=True)
    variables["params"]["readout"]["bias"] = np.float32([0, value, 0])
    snn = convert(variables, arch, methods.scatter_gather(k=1, bound=2))
    dark = simulate(snn, np.zeros((1, 1, 1, 1), np.uint8), steps=1)
    logits = np.asarray(dark.readout[0, 0]) * snn.unit("readout")
    np.testing.assert_allclose(logits, [0, value, 0], rtol=1e-3, atol=1e-7)
    assert int(dark.predictions[0, 0]) == (1 if value > 0 else 0)


def test_a_bias_too_large_for_its_grid_is_refused():
    arch, variables, _ = levels_network()
    arch = dataclasses.replace(arch, head_bias=True)
    variables["params"]["readout"] = {
        "kernel": np.full((2, 3), 1e-7, np.float32) * np.float32([1.1, 0.7, 0.3]),
        "bias": np.float32([0, 1e4, 0]),
    }
    with pytest.raises(ValueError, match=r"readout: .*bias"):
        convert(variables, arch, methods.scatter_gather(k=1, bound=2))


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6, 1e12, 1e25])
def test_grid_exponents_hold_every_sum(scale):
    kernel = (np.random.default_rng(0).normal(size=(3, 3, 2, 4)) * scale).astype(np.float32)
    exponent = grid_exponent(kernel, 255)
    codes = np.round(kernel.astype(np.float64) * 2.0**exponent)
    assert np.abs(codes).sum((0, 1, 2)).max() * 255 < 2**24
    finer = np.round(kernel.astype(np.float64) * 2.0 ** (exponent + 1))
    assert scale < 1e-6 or np.abs(finer).sum((0, 1, 2)).max() * 255 >= 2**24


def test_a_power_of_two_encoding_and_a_pixel_scale_that_is_none():
    for scale in (1 / 256, 1 / 255):
        layers, _, _, snn, images = converted(
            7, dyadic=False, gammas="mixed", encoding=Encoding("onset", scale)
        )
        expected = ref.scatter_gather(layers, images * scale, 1, 2)
        trace = simulate(snn, images, steps=1, counts=True)
        for layer, count in zip(layers, expected.counts, strict=False):
            np.testing.assert_array_equal(trace.counts[layer["name"]], count)


# ---------------------------------------------------------------- negative spikes


def negative(seed, **options):
    return converted(
        seed, method=methods.negative_spikes, **{"dyadic": False, "bound": None} | options
    )


def real_thresholds(layer, unit, k, j):
    """theta_j of every channel in drive units, float64 (spec 1.5), for positive scales."""
    s = np.sqrt(np.float64(layer["var"]) + 1e-5) / layer["scale"]
    return ((j - 0.5) * 2.0**-k * s + layer["mean"] - layer["offset"] * s) / unit


@pytest.mark.parametrize("bits", [5, 8, 12])
def test_kernels_have_significant_bits_and_thresholds_lie_on_their_grid(bits):
    layers, _, variables, snn, _ = negative(11, settings={"weight_bits": bits})
    for layer, record in zip(layers, snn.report, strict=True):
        kernel = np.asarray(snn.variables["params"][layer["name"]]["kernel"], np.int64)
        assert 2 ** (bits - 1) <= np.abs(kernel).max() < 2**bits
        master = np.asarray(variables["params"][layer["name"]]["kernel"], np.float64)
        np.testing.assert_array_equal(kernel, np.round(master * 2.0**record.exponent))
        assert record.weight_error == np.abs(kernel * 2.0**-record.exponent - master).max()
        if layer["name"] == "readout":
            continue
        unit = snn.unit({"conv1": "input", "conv2": "conv1", "dense1": "conv2"}[layer["name"]])
        leaves = snn.variables["fixed"][layer["name"]]
        for j in (1, 2, 7):
            theta = real_thresholds(layer, unit * 2.0**-record.exponent, 1, j)
            actual = np.asarray(neurons.even_threshold(leaves, jnp.full(len(theta), j)))
            near = np.abs(theta - np.round(theta)) < j * 2.0**-17
            reached = np.asarray(leaves["highest"]) >= j
            np.testing.assert_array_equal(actual[~near & reached], np.ceil(theta)[~near & reached])
            assert (~near & reached).any()


def test_sums_are_bounded_by_counts_over_all_steps_and_by_spikes_in_one():
    layers, _, _, snn, images = negative(12)
    highest, peak = np.array([255]), 255
    for layer, record in zip(layers, snn.report, strict=True):
        kernel = np.asarray(snn.variables["params"][layer["name"]]["kernel"], np.int64)
        flat = np.abs(kernel).reshape(-1, kernel.shape[-1])
        inputs = np.resize(highest, len(flat))  # channels come last in a window
        sums = (inputs[:, None] * flat).sum(0)
        assert record.bound == sums.max()
        assert record.step_bound == peak * flat.sum(0).max()
        if layer["name"] in snn.variables["fixed"]:
            leaves = snn.variables["fixed"][layer["name"]]
            highest, peak = np.asarray(leaves["highest"], np.int64), 1
            # The cap of a channel is what its largest drive reaches, at most 127.
            drive = jnp.asarray(sums, jnp.int32)
            reached = neurons.even_level(127).step(
                leaves | {"highest": jnp.full(len(highest), 127)}, (), drive
            )[1]
            np.testing.assert_array_equal(highest, reached)
    assert 0 < min(highest) <= max(highest) <= 127
    counts = simulate(snn, images, steps=60, counts=True).counts
    for name, leaves in snn.variables["fixed"].items():
        assert (np.asarray(counts[name]) <= np.asarray(leaves["highest"])).all()


def test_one_step_in_float32_and_settled_sums_in_int32():
    _, _, _, snn, images = negative(13, settings={"weight_bits": 15})
    by_site = {record.site: record for record in snn.report}
    record = by_site["dense1"]
    assert record.step_bound < 2**24 <= record.bound
    assert record.accumulator == "float32"
    trace = simulate(snn, images, steps=80, counts=True)
    whole = settled(snn)
    assert dict(whole.accumulators.by_name)["dense1"] == "int32"
    rest = simulate(whole, images, steps=1, counts=True)
    for name, count in trace.counts.items():
        np.testing.assert_array_equal(rest.counts[name], count)
    np.testing.assert_array_equal(rest.readout[0], trace.readout[-1])


def test_even_thresholds_by_hand():
    # As in the test of the table above: pixels 64, 192, ... and, in halves, 1/2, 3/2, ...
    arch, variables, _ = levels_network()
    snn = convert(variables, arch, methods.negative_spikes(k=1, bound=2))
    fixed = snn.variables["fixed"]
    first = [np.asarray(neurons.even_threshold(fixed["dense1"], jnp.full(2, j))) for j in (1, 2, 4)]
    assert [one.tolist() for one in first] == [[64, 64], [192, 192], [448, 448]]
    second = [np.asarray(neurons.even_threshold(fixed["dense2"], jnp.full(2, j))) for j in (1, 2)]
    assert [one.tolist() for one in second] == [[1, 1], [2, 2]]
    assert fixed["dense1"]["highest"].tolist() == [2, 4]  # 192 of at most 255, 448 of 510
    images = np.array([0, 31, 32, 63, 64, 95, 96, 191, 192, 255], np.uint8).reshape(-1, 1, 1, 1)
    trace = simulate(snn, images, steps=9, counts=True)
    expected = [[0, 0], [0, 0], [0, 1], [0, 1], [1, 1], [1, 1], [1, 2], [1, 3], [2, 3], [2, 4]]
    assert trace.counts["dense1"].tolist() == expected


def test_average_pools_settle_too():
    layers = pooled_network(3)
    layers[0].pop("max_pool")
    rng = np.random.default_rng(3)
    kernel = rng.normal(size=(12 * 12 * 8 // 4, 12)) / 17
    layers[2] |= {"kernel": kernel, "master": kernel}
    arch = parse("6C3same-8C3p1-AP2-12", classes=5, input_shape=(12, 12, 1))
    variables = tree(layers)
    snn = convert(variables, arch, methods.negative_spikes(k=1, bound=2))
    images = pixels(rng, 6, (12, 12, 1))
    proof = certify(snn, variables, images, steps=3 * 4 + 1)
    assert proof.equality == "exact after settling"
    assert sum(layer.compared for layer in proof.layers) > 6 * 144 * 14
    record = {one.site: one for one in snn.report}["dense1"]
    weights = np.abs(np.asarray(snn.variables["params"]["dense1"]["kernel"], np.int64))
    assert record.step_bound == 4 * weights.sum(0).max()  # four spikes in a window


def test_a_heads_bias_is_given_once():
    arch, variables, _ = levels_network()
    arch = dataclasses.replace(arch, head_bias=True)
    variables["params"]["readout"]["bias"] = np.float32([0, 0.1, -3.25])
    snn = convert(variables, arch, methods.negative_spikes(k=1, bound=None))
    trace = simulate(snn, np.zeros((1, 1, 1, 1), np.uint8), steps=5)
    logits = np.asarray(trace.readout[:, 0]) * snn.unit("readout")
    np.testing.assert_allclose(logits, [[0, 0.1, -3.25]] * 5, rtol=1e-3, atol=1e-7)


def test_float_weights_and_thresholds_for_comparison():
    layers, _, variables, snn, images = negative(
        14, settings={"float_weights": True}, gammas="with_zero"
    )
    for layer in layers[:-1]:
        kernel = np.asarray(snn.variables["params"][layer["name"]]["kernel"])
        assert kernel.dtype == np.float32
        master = np.asarray(variables["params"][layer["name"]]["kernel"])
        np.testing.assert_array_equal(np.abs(kernel), np.abs(master))
        assert snn.variables["fixed"][layer["name"]]["first"].dtype == jnp.float32
    assert {record.form for record in snn.report} == {KernelForm.FLOAT}
    trace = simulate(snn, images, steps=80, counts=True)
    levels, logits = ref.quantised_ann(layers, images / 256.0, 1, None)
    wrong = [
        (np.asarray(trace.counts[layer["name"]]) != level).mean()
        for layer, level in zip(layers, levels, strict=False)
    ]
    assert max(wrong) < 1e-3  # ties of rounding, if any
    actual = np.asarray(trace.readout[-1]) * snn.unit("readout")
    np.testing.assert_allclose(actual, logits, rtol=1e-3, atol=1e-3)


def test_tiny_norm_scales_become_constant_or_are_refused():
    _, arch, variables = build(15, ternary=False, dyadic=False)
    norm = variables["params"]["conv1"]["norm"]
    norm["scale"][:3], norm["bias"][:3] = 1e-12, [0.6, 1.6, -5.0]
    snn = convert(variables, arch, methods.negative_spikes(k=1, bound=None))
    leaves = snn.variables["fixed"]["conv1"]
    assert leaves["highest"][:3].tolist() == [1, 3, 0]  # of boundaries 1/4, 3/4, 5/4, 7/4
    images = pixels(np.random.default_rng(0), 4, arch.input_shape)
    assert certify(snn, variables, images, steps=60).equality == "exact after settling"
    # A level that the tiny slope still decides, far above the first boundary.
    variables["batch_stats"]["conv1"]["norm"]["mean"][0] = 0
    norm["bias"][0] = 30.25
    with pytest.raises(ValueError, match=r"conv1: the thresholds of channel 0 leave int32"):
        convert(variables, arch, methods.negative_spikes(k=1, bound=None))


NEGATIVE_REFUSED = [
    ({"encoding": Encoding("held", 1 / 256)}, "'held'.*takes input that is 'onset'"),
    ({"weight_bits": 0}, "weight_bits=0"),
    ({"weight_bits": 24, "encoding": Encoding("onset", 1, 2**20)}, "conv1: a sum .*beyond int32"),
    ({"highest": 0}, "highest=0"),
    ({"bound": 1.5}, "bound=1.5: give a whole number or None"),
    ({"bound": 0}, "bound=0: the largest activation"),
    ({"k": -1}, "k=-1"),
    ({"k": "1"}, "k='1': give a whole number"),
    ({"k": True}, "k=True: give a whole number"),
    ({"rising": 2}, "rising=2: give True or False"),
]


@pytest.mark.parametrize(("options", "message"), NEGATIVE_REFUSED)
def test_what_the_negative_method_refuses(options, message):
    options = dict(options)
    encoding = options.pop("encoding", PIXELS)
    _, arch, variables = build(8, ternary=False, dyadic=False)
    with pytest.raises(ValueError, match=message):
        convert(variables, arch, methods.negative_spikes(**{"k": 1} | options), encoding=encoding)


# ---------------------------------------------------------------- refusals


def changed(variables, path, value):
    """A copy of the tree with one leaf replaced, or removed where value is None."""
    copy = jax.tree.map(np.array, variables)
    node = copy
    for name in path[:-1]:
        node = node[name]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return copy


REFUSED = [
    (("params", "conv1", "kernel"), None, "conv1: params/conv1/kernel is missing"),
    (("params", "conv2", "norm"), None, "conv2: .*norm.*is missing"),
    (("batch_stats", "conv2", "norm"), None, "conv2: .*norm.*is missing"),
    (("batch_stats", "dense1"), None, "dense1: .*norm.*is missing"),
    (("params", "conv1", "norm", "scale"), None, "conv1.*scale"),
    (("batch_stats", "dense1", "norm", "mean"), None, "dense1.*mean"),
    (("params", "readout", "kernel"), np.full((12, 5), np.nan), "readout.*not finite"),
    (("params", "conv1", "norm", "bias"), np.full(6, np.inf), "conv1.*bias.*not finite"),
    (
        ("batch_stats", "conv2", "norm", "var"),
        np.full(8, -1.0),
        "conv2: batch_stats/conv2/norm/var is neg",
    ),
    (("params", "conv2", "kernel"), np.ones((2, 2, 5, 8)), r"conv2.*\(2, 2, 5, 8\)"),
    (("batch_stats", "conv1", "norm", "mean"), np.ones(5), r"conv1.*mean.*\(5,\)"),
]


@pytest.mark.parametrize(("path", "value", "message"), REFUSED)
def test_refusals_name_the_layer_and_the_reason(path, value, message):
    _, arch, variables = build(8)
    with pytest.raises(ValueError, match=message):
        convert(changed(variables, path, value), arch, methods.scatter_gather(k=1, bound=2))


def test_a_missing_bias_is_refused():
    _, arch, variables = build(8, bias=True)
    with pytest.raises(ValueError, match=r"dense1.*bias"):
        convert(
            changed(variables, ("params", "dense1", "bias"), None),
            arch,
            methods.scatter_gather(k=1, bound=2),
        )


def test_all_reasons_are_given_at_once():
    _, arch, variables = build(8)
    broken = changed(variables, ("params", "conv1", "kernel"), None)
    broken = changed(broken, ("batch_stats", "dense1"), None)
    with pytest.raises(ValueError, match=r"(?s)conv1: .*dense1: "):
        convert(broken, arch, methods.scatter_gather(k=1, bound=2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithoutShortcuts(methods.scatter_gather):
    """A method that takes no residual blocks, as is the default of all."""

    shortcuts = False


def test_residual_blocks_are_refused_by_a_method_that_does_not_take_them():
    arch = parse("4C3p1-[4C3p1-4C3p1]+identity", input_shape=(6, 6, 1))
    net = Net(arch, hidden(neurons.quantised_relu(1, 2)))
    variables = init_variables(net, jax.random.key(0))
    with pytest.raises(ValueError, match=r"block1\.conv2: scatter_gather takes no residual blocks"):
        convert(variables, arch, WithoutShortcuts(k=1, bound=2))


def test_a_name_is_no_method():
    _, arch, variables = build(8)
    with pytest.raises(UserError, match=r"method is 'scatter'; give an object of jaxsnn\.methods"):
        convert(variables, arch, "scatter")


def test_conversion_does_not_change_what_it_is_given():
    _, arch, variables = build(9, gammas="mixed")
    before = jax.tree.map(np.array, variables)
    snn = convert(variables, arch, methods.scatter_gather(k=1, bound=2), weights=HIDDEN_TERNARY)
    snapped(variables, snn)
    chex.assert_trees_all_equal(before, variables)
    assert isinstance(snn, Spiking)
    assert [site.name for site in plan(arch)] == [record.site for record in snn.report]


def test_a_bias_before_a_norm_is_folded_as_the_network_computes_it():
    arch = parse("6C3p1nb-9nb", classes=4, input_shape=(6, 6, 1))
    rng = np.random.default_rng(8)
    shapes = template(Net(arch, hidden(neurons.identity())))

    def draw(path, leaf):
        spread = 0.3 if "kernel" in str(path[-1]) else 0.8
        values = rng.normal(size=leaf.shape) * spread
        return np.float32(np.abs(values) + 0.5 if "var" in str(path[-1]) else values)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    snn = convert(
        variables,
        arch,
        methods.scatter_gather(k=1, bound=2),
        weights=SiteMap(weight_quantisers.full_precision()),
    )
    images = rng.integers(0, 256, (20, 6, 6, 1), dtype=np.uint8)
    proof = certify(snn, variables, images)
    assert proof.equality == "exact", str(proof)
    assert all(layer.silent < 1 for layer in proof.layers[:2])


@pytest.mark.parametrize("slope", [0.3, 1.7, -0.9])
def test_an_activation_on_a_boundary_belongs_to_the_upper_level(slope):
    """With the drive at the mean the activation is the offset, whatever the norm's slope."""
    arch = parse("4", classes=2, input_shape=(1, 1, 1))
    boundaries = np.float32([0.25, 0.75, 1.25, 1.75])
    norm = {"scale": np.full(4, slope, np.float32), "bias": boundaries}
    statistics = {"mean": np.full(4, 77 / 256, np.float32), "var": np.full(4, 0.61, np.float32)}
    params = {"dense1": {"kernel": np.ones((1, 4), np.float32), "norm": norm}}
    params["readout"] = {"kernel": np.ones((4, 2), np.float32)}
    variables = {"params": params, "batch_stats": {"dense1": {"norm": statistics}}}
    snn = convert(
        variables,
        arch,
        methods.scatter_gather(k=1, bound=2),
        weights=SiteMap(weight_quantisers.full_precision()),
    )
    trace = simulate(snn, np.full((1, 1, 1, 1), 77, np.uint8), steps=1, counts=True)
    assert np.asarray(trace.counts["dense1"])[0].tolist() == [1, 2, 3, 4]
