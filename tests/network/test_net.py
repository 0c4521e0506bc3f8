"""The one body: an independent NumPy forward for the ANN, the reference's spikes for the SNN."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from helpers import firing, firing_images, firing_network, max_pooled, tree, window_sums

from jaxsnn import Net, hidden, init_variables, neurons, parse, plan, simulate, unpack
from jaxsnn.network import net as net_module
from jaxsnn.network import weight_quantisers
from jaxsnn.network.net import forward
from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.site import NORM_EPSILON

IF = neurons.integrate_and_fire
STEPS = 7


# ---------------------------------------------------------------- spikes at every step


@functools.cache
def expected(kind, signed, onset, delay):
    layers, arch, leaves = firing_network(5, integer=kind == "integer", signed=signed)
    images = firing_images(6, integer=kind == "integer")
    per_layer = {
        name: [leaves[layer["name"]][name] for layer in layers[:-1]] for name in leaves["conv1"]
    }
    trace = ref.integrate_and_fire(
        layers,
        images,
        STEPS,
        signed=signed,
        onset=onset,
        bias_gate=[float(t == 0 or not onset) for t in range(STEPS)],
        delay=delay,
        **per_layer,
    )
    neuron = neurons.delayed(IF(signed), delay) if delay else IF(signed)
    dtype = np.int8 if kind == "integer" else np.float32
    snn = firing(layers, arch, leaves, neuron, "onset" if onset else "held", dtype)
    return trace, snn, images


@pytest.mark.parametrize(
    ("kind", "signed", "onset", "delay", "block"),
    [
        *(("dyadic", True, False, 0, block) for block in (1, 2, 3, 5, STEPS)),
        *(("dyadic", False, False, 0, block) for block in (1, 3)),
        *(("integer", True, False, 2, block) for block in (1, 3, STEPS)),
        *(("integer", False, True, 1, block) for block in (2, STEPS)),
    ],
)
def test_integrate_and_fire_equals_the_reference(kind, signed, onset, delay, block):
    trace, snn, images = expected(kind, signed, onset, delay)
    names = ("conv1", "conv2", "dense1")
    actual = simulate(snn, images, steps=STEPS, block=block, record=names, counts=True)
    for name, spikes in zip(names, trace.spikes, strict=True):
        late = np.concatenate([np.zeros_like(spikes[:delay]), spikes[: STEPS - delay]])
        assert late.any()
        assert not late.all()
        np.testing.assert_array_equal(unpack(actual.records[name], snn, name), late)
        np.testing.assert_array_equal(actual.counts[name], late.sum(0))
        axes = tuple(range(2, late.ndim))
        np.testing.assert_array_equal(actual.counters.spikes[name], np.abs(late).sum(axes))
        np.testing.assert_array_equal(actual.counters.negative[name], (late < 0).sum(axes))
    if signed and not onset:
        assert any((spikes < 0).any() for spikes in trace.spikes)
    np.testing.assert_array_equal(actual.readout, trace.readout.cumsum(0))


def test_float_weights_are_equal_at_one_lowering_and_counted_otherwise(record_property):
    layers, arch, leaves = firing_network(7, floating=True)
    snn = firing(layers, arch, leaves, IF())
    images = np.random.default_rng(8).normal(0.5, 0.5, (4, 6, 6, 2)).astype(np.float32)
    names = ("conv1", "conv2", "dense1")

    def records(block, batch=images):
        trace = simulate(snn, batch, steps=12, block=block, record=names)
        return {name: np.asarray(unpack(trace.records[name], snn, name)) for name in names}

    one, again, whole = records(1), records(1), records(12)
    truth = ref.integrate_and_fire(
        layers,
        images,
        12,
        threshold=[leaves[name]["threshold"] for name in names],
        initial=[leaves[name]["initial"] for name in names],
    )
    differing = {"blocks": 0, "float64": 0}
    for name, spikes in zip(names, truth.spikes, strict=True):
        np.testing.assert_array_equal(one[name], again[name])
        differing["blocks"] += int((one[name] != whole[name]).any(0).sum())
        differing["float64"] += int((one[name].sum(0) != spikes.sum(0)).sum())
    record_property("differing neurons", str(differing))
    neurons_compared = 4 * sum(site.neurons for site in plan(arch))
    assert differing["blocks"] <= 0.02 * neurons_compared
    assert differing["float64"] <= 0.02 * neurons_compared


def test_the_body_stepped_by_hand_is_the_engine():
    _, snn, images = expected("integer", False, True, 1)
    state = net_module.initial_state(snn.net, snn.variables, len(images))
    step = jax.jit(
        lambda x, state, gate: net_module.apply(snn.net, snn.variables, x, state, gate=gate)
    )
    total = 0
    for t in range(3):
        gate = jnp.int32([t == 0])  # input and biases in the first step only
        out = step(images[None] * (t == 0), state, gate)
        state, total = out.state, total + out.readouts[-1][0]
    np.testing.assert_array_equal(simulate(snn, images, steps=3).readout[-1], total)


# ---------------------------------------------------------------- the ANN


def randomised(net, seed=0):
    """Initial variables with every bias, norm value and leaf made random."""
    rng = np.random.default_rng(seed)
    shapes = net_module.template(net)

    def draw(path, leaf):
        name = path[-1].key
        if name == "var":
            return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
        spread = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if name == "kernel" else 0.5
        return (rng.normal(size=leaf.shape) * spread).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def numpy_forward(arch, variables, images, function, gate=1.0, forced=None):
    """Every site's output in float64, from the plan; spikes and gates of one step."""
    values, forced = {"input": np.asarray(images, np.float64)}, forced or {}
    outs = {}
    for site in plan(arch):
        x = values[site.source]
        params = variables["params"].get(site.name, {})
        if site.kind == "avgpool":
            if site.spec.size:
                z = window_sums(x, site.spec.size) / site.spec.size**2
            else:
                z = x.mean((1, 2), keepdims=True)
        elif site.kind == "dense":
            z = x.reshape(len(x), -1) @ params["kernel"].astype(np.float64)
        else:
            kernel = params["kernel"].astype(np.float64)
            z = ref.conv2d(x, kernel, site.strides[0], site.padding)
        if site.bias:
            z = z + gate * params["bias"]
        if site.norm:
            norm = params["norm"]
            stats = variables["batch_stats"][site.name]["norm"]
            z = ref.batch_norm(z, norm["scale"], norm["bias"], stats["mean"], stats["var"])
        if site.shortcut:
            z = z + values[site.shortcut]
        if site.max_pool:
            z = max_pooled(z, site.max_pool.size)
        outs[site.name] = function(z) if site.role == "activation" else z
        values[site.name] = forced.get(site.name, outs[site.name])
    return outs


NETWORKS = {
    "plain": ("6C3s2same-8C2-12", (7, 9, 2), {}),
    "pools": ("6C3p1-MP2-5C3nb-AP2-LP2-7b", (13, 13, 1), {"head_bias": True}),
    "residual": (
        "4C3p1-[4C3p1-4C3p1]+identity-[6C3s2p1-6C3p1]+norm-E-[5C3p1-5C3p1]+bias-E-9",
        (6, 6, 3),
        {"head_bias": True},
    ),
    "head pool": ("6C3-MP2-E-8C2", (9, 8, 1), {"head_pool": True, "norm": False}),
}


@functools.cache
def example(name):
    text, shape, options = NETWORKS[name]
    arch = parse(text, classes=4, input_shape=shape, **options)
    net = Net(arch, hidden(neurons.relu()))
    images = np.random.default_rng(1).normal(size=(5, *shape)).astype(np.float32)
    return arch, net, randomised(net), images


@pytest.mark.parametrize("name", NETWORKS)
def test_ann_forward_against_numpy(name):
    arch, net, variables, images = example(name)
    out = forward(net, variables, images)
    expected = numpy_forward(arch, variables, images, lambda z: np.maximum(z, 0))
    assert set(out.outs) == set(expected)
    for site, value in expected.items():
        assert np.ptp(value) > 0
        np.testing.assert_allclose(out.outs[site][0], value, rtol=1e-4, atol=1e-5)
    heads = [site.name for site in plan(arch) if site.role in ("exit", "readout")]
    assert len(out.readouts) == len(heads)
    for readout, head in zip(out.readouts, heads, strict=True):
        np.testing.assert_array_equal(readout, out.outs[head])


def test_quantised_and_ternary_forward_against_the_reference():
    layers = ref.random_network(np.random.default_rng(3), dyadic=False, gammas="mixed")
    arch = parse("6C3same-8C2s2-12", classes=5, input_shape=(8, 8, 2))
    ends = SiteMap(
        weight_quantisers.ternary(),
        (("readout", weight_quantisers.full_precision()),),
        (),
        weight_quantisers.full_precision(),
    )
    net = Net(arch, hidden(neurons.quantised_relu(1, 2)), ends)
    images = ref.random_images(np.random.default_rng(4), 6, (8, 8, 2))
    out = forward(net, tree(layers), jnp.asarray(images, jnp.float32))
    levels, logits = ref.quantised_ann(layers, images, 1, 2)
    for layer, level in zip(layers, levels, strict=False):
        np.testing.assert_array_equal(out.outs[layer["name"]][0], level / 2)
    np.testing.assert_allclose(out.readouts[-1][0], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["pools", "residual", "head pool"])
def test_gate_multiplies_every_bias(name):
    arch, net, variables, images = example(name)
    block = jnp.asarray(np.stack([images, images, images]))
    state = net_module.initial_state(net, variables, len(images))
    out = net.apply(variables, block, state, gate=jnp.array([1.0, 0.0, 0.5]))
    for step, gate in enumerate((1.0, 0.0, 0.5)):
        expected = numpy_forward(arch, variables, images, lambda z: np.maximum(z, 0), gate)
        for site, value in expected.items():
            np.testing.assert_allclose(out.outs[site][step], value, rtol=1e-4, atol=1e-5)


def test_forced_values_replace_what_later_sites_see():
    arch, net, variables, images = example("residual")
    clean = forward(net, variables, images)
    rng = np.random.default_rng(2)
    forced = {
        name: rng.normal(size=clean.outs[name][0].shape) for name in ("conv1", "block2.conv1")
    }
    out = forward(
        net,
        variables,
        images,
        forced={n: jnp.asarray(v, jnp.float32)[None] for n, v in forced.items()},
    )
    expected = numpy_forward(arch, variables, images, lambda z: np.maximum(z, 0), forced=forced)
    for site, value in expected.items():
        np.testing.assert_allclose(out.outs[site][0], value, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(out.outs["conv1"], clean.outs["conv1"])
    assert not np.allclose(out.readouts[-1], clean.readouts[-1])


def test_stem_replaces_the_first_synapse():
    arch, net, variables, images = example("pools")
    current = net_module.stem(net, variables, jnp.asarray(images))
    assert current.shape == (5, *plan(arch)[0].drive_shape)
    out = forward(net, variables, jnp.zeros_like(images), stem=current[None])
    np.testing.assert_allclose(
        out.readouts[-1], forward(net, variables, images).readouts[-1], rtol=1e-5, atol=1e-6
    )


def test_batch_norm_in_training_and_evaluation():
    arch = parse("3C3", classes=2, input_shape=(5, 5, 2))
    net = Net(arch, hidden(neurons.identity()))
    variables = randomised(net)
    images = np.random.default_rng(5).normal(1, 2, (6, 5, 5, 2)).astype(np.float32)
    state = net_module.initial_state(net, variables, 6)
    out, updated = net.apply(variables, images[None], state, train=True, mutable=["batch_stats"])
    z = ref.conv2d(images, variables["params"]["conv1"]["kernel"])
    norm = variables["params"]["conv1"]["norm"]
    old = variables["batch_stats"]["conv1"]["norm"]
    mean, var = z.mean((0, 1, 2)), z.var((0, 1, 2))  # biased variance
    batch = ref.batch_norm(z, norm["scale"], norm["bias"], mean, var, NORM_EPSILON)
    np.testing.assert_allclose(out.outs["conv1"][0], batch, rtol=1e-4, atol=1e-4)
    new = updated["batch_stats"]["conv1"]["norm"]
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * var, rtol=1e-4)
    running = ref.batch_norm(z, norm["scale"], norm["bias"], old["mean"], old["var"])
    evaluated = forward(net, variables, images)
    np.testing.assert_allclose(evaluated.outs["conv1"][0], running, rtol=1e-4, atol=1e-5)


def test_wrong_images_are_refused_with_both_shapes():
    _, net, variables, _ = example("plain")
    with pytest.raises(ValueError, match=r"shape \(1, 2, 8, 9, 2\).*\[batch, 7, 9, 2\]"):
        forward(net, variables, jnp.zeros((2, 8, 9, 2)))
    with pytest.raises(ValueError, match="the network takes"):
        net_module.stem(net, variables, jnp.zeros((7, 9, 2)))


def test_initial_variables():
    arch = parse("200C3same-50", classes=40, input_shape=(4, 4, 3), head_bias=True)
    net = Net(arch, hidden(neurons.threshold_count(4)))
    variables = init_variables(net, jax.random.key(1))
    kernel = np.asarray(variables["params"]["dense1"]["kernel"])
    # A normal of deviation 0.02 cut at two deviations keeps 0.8796 of it.
    assert np.abs(kernel).max() <= 0.04
    assert kernel.std() == pytest.approx(0.0176, rel=0.02)
    assert variables["params"]["readout"]["kernel"].std() == pytest.approx(0.088, rel=0.05)
    norm = variables["params"]["conv1"]["norm"]
    assert norm["scale"].mean() == pytest.approx(1, abs=1e-3)
    assert norm["scale"].std() == pytest.approx(0.002, rel=0.2)
    assert not norm["bias"].any()
    assert not variables["params"]["readout"]["bias"].any()
    assert (variables["batch_stats"]["conv1"]["norm"]["var"] == 1).all()
    assert variables["fixed"]["dense1"]["thresholds"].shape == (4, 50)
    assert "thresholds" not in variables["params"]["dense1"]
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), net_module.template(net))
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables)


def test_site_maps_go_by_name_then_first_then_role_then_default():
    sites = {s.name: s for s in plan(parse("4C3-AP2-8", input_shape=(8, 8, 1)))}
    where = SiteMap("d", (("pool", "p"), ("activation", "a")), (("dense1", "n"),), "f")
    assert [where.at(s) for s in sites.values()] == ["f", "p", "n", "d"]
    assert SiteMap("d", by_name=(("conv1", "n"),), first="f").at(sites["conv1"]) == "n"
    assert hidden(IF()).at(sites["readout"]) is neurons.identity()
    assert hidden(IF()).at(sites["pool1" if "pool1" in sites else "avgpool1"]) is neurons.identity()
    assert hidden(IF()).at(sites["dense1"]) is IF()
