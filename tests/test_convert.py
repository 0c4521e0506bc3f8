"""Conversion against the reference's threshold units: counts, logits, spikes, operations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from helpers import (
    FLOAT,
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
    convert,
    evaluate,
    forward,
    hidden,
    init_variables,
    metrics,
    neurons,
    parse,
    plan,
    quant,
    simulate,
)
from jaxsnn.convert import float_ends, snapped
from jaxsnn.fold import ALWAYS, NEVER
from jaxsnn.grid import grid_exponent
from jaxsnn.spiking import Spiking

TERNARY = SiteMap(quant.ternary())


def check(layers, snn, images, k, bound, eps, ann=None):
    """Simulated counts, logits, spikes and operations equal the reference's."""
    expected = ref.scatter_gather(layers, images / 256.0, k, bound, eps=eps)
    trace = simulate(snn, images, steps=1, counts=True)
    for layer, count in zip(layers, expected.counts, strict=False):
        np.testing.assert_array_equal(trace.counts[layer["name"]], count, err_msg=layer["name"])
    for number, layer in enumerate(layers[:-1]):
        found = trace.counters.spikes[layer["name"]][0]
        np.testing.assert_array_equal(found, expected.spikes[number])
    logits = np.asarray(trace.readout[0], np.float64) * snn.unit("readout")
    np.testing.assert_allclose(logits * 2**k, expected.logits, rtol=1e-5, atol=1e-6)
    events = {name: np.asarray(value) for name, value in trace.counters.events.items()}
    operations = metrics.synaptic_operations(events, snn.arch)
    total = metrics.total(operations, without=("readout",))
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
    net = Net(snn.arch, hidden(neurons.quantised_relu(k, bound)), float_ends(quant.ternary()))
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
    snn = convert(variables, arch, k=1, bound=2)
    images = pixels(np.random.default_rng(seed), 12, (12, 12, 1))
    moved = with_snapped(layers, variables, snn)
    counts, logits, operations = pooled_units(moved, images / 256.0, 1, 2)
    trace = simulate(snn, images, steps=1, counts=True)
    for layer, count in zip(layers, counts, strict=False):
        assert len(np.unique(count)) > 1
        np.testing.assert_array_equal(trace.counts[layer["name"]], count)
    found = trace.readout[0] * snn.unit("readout")
    np.testing.assert_allclose(2 * np.asarray(found), logits, rtol=1e-5, atol=1e-6)
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
    snn = convert(variables, arch, k=1, bound=2, weights=FLOAT)
    assert {record.kernel for record in snn.report} == {"grid"}
    images = pixels(np.random.default_rng(1), 8, arch.input_shape)
    check(with_snapped(layers, variables, snn), snn, images, 1, 2, 1e-5)


def test_ternary_sums_beyond_float32_are_held_in_int32_and_refused_beyond_that():
    arch = parse("2-2", classes=2, input_shape=(1, 1, 1))
    variables = levels_network()[1]
    variables = {**variables, "params": {**variables["params"]}}
    variables["params"]["readout"] = {"kernel": np.ones((2, 2), np.float32)}
    wide = convert(
        variables, arch, k=0, bound=1, weights=TERNARY, encoding=Encoding("onset", 1 / 256, 2**24)
    )
    assert wide.report[0].accumulator == "int32"
    assert wide.report[0].bound == 2**24
    images = np.full((1, 1, 1, 1), 2**24, np.int32)
    assert simulate(wide, images, steps=1).readout.shape == (1, 1, 2)
    with pytest.raises(ValueError, match=r"dense1: a sum of its integer drive can reach 21474836"):
        convert(
            variables,
            arch,
            k=0,
            bound=1,
            weights=TERNARY,
            encoding=Encoding("onset", 1 / 256, 2**31 - 1),
        )


@pytest.mark.parametrize("value", [0.1, -3.25, 2.0**-20])
def test_a_heads_bias_keeps_its_value_whatever_grid_the_kernel_lies_on(value):
    arch, variables, _ = levels_network()
    arch = dataclasses.replace(arch, head_bias=True)
    variables["params"]["readout"]["bias"] = np.float32([0, value, 0])
    snn = convert(variables, arch, k=1, bound=2)
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
        convert(variables, arch, k=1, bound=2)


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
        convert(changed(variables, path, value), arch, k=1, bound=2)


def test_a_missing_bias_is_refused():
    _, arch, variables = build(8, bias=True)
    with pytest.raises(ValueError, match=r"dense1.*bias"):
        convert(changed(variables, ("params", "dense1", "bias"), None), arch, k=1, bound=2)


def test_all_reasons_are_given_at_once():
    _, arch, variables = build(8)
    broken = changed(variables, ("params", "conv1", "kernel"), None)
    broken = changed(broken, ("batch_stats", "dense1"), None)
    with pytest.raises(ValueError, match=r"(?s)conv1: .*dense1: "):
        convert(broken, arch, k=1, bound=2)


def test_residual_blocks_are_refused():
    arch = parse("4C3p1-[4C3p1-4C3p1]+identity", input_shape=(6, 6, 1))
    net = Net(arch, hidden(neurons.quantised_relu(1, 2)))
    variables = init_variables(net, jax.random.key(0))
    with pytest.raises(ValueError, match=r"block1\.conv2: a shortcut"):
        convert(variables, arch, k=1, bound=2)


def test_unknown_methods_and_impossible_levels_are_refused():
    _, arch, variables = build(8)
    with pytest.raises(ValueError, match="unknown conversion method 'rate'"):
        convert(variables, arch, "rate", k=1, bound=2)
    for k, bound in ((-1, 2), (1, 0), (1, 1.5)):
        with pytest.raises(ValueError, match="k must be >= 0 and bound a whole number"):
            convert(variables, arch, k=k, bound=bound)


def test_conversion_does_not_change_what_it_is_given():
    _, arch, variables = build(9, gammas="mixed")
    before = jax.tree.map(np.array, variables)
    snn = convert(variables, arch, k=1, bound=2)
    snapped(variables, snn)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, variables))
    assert isinstance(snn, Spiking)
    assert [site.name for site in plan(arch)] == [record.site for record in snn.report]
