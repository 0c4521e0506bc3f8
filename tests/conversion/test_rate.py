"""Rate coding beside a slow simulator of the normalised network, written from the paper."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jaxsnn import convert, evaluate, methods, parse, simulate, sweep
from jaxsnn.arch.plan import plan
from jaxsnn.conversion import percentiles
from jaxsnn.conversion.float_reference import snapped
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.network import net as net_module
from jaxsnn.network.initialisers import FanInUniform
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import hidden
from jaxsnn.neurons.activations import relu
from jaxsnn.simulation.engine import unpack

HELD = Encoding("held", 1 / 256, 256)
VGG = parse(
    "6C3p1-8C3s2p1-E-8C3p1", classes=4, input_shape=(7, 7, 1), head_pool=True, head_bias=True
)
RES = parse(
    "6C3p1-[6C3p1-6C3p1]+bias-[8C3s2p1-8C3p1]+bias-E-[8C3p1-8C3p1]+identity",
    classes=4, input_shape=(6, 6, 1), head_pool=True, head_bias=True,
)  # fmt: skip


def trained(arch, seed=0):
    """A network with statistics of its own, and whole images."""
    net = Net(arch, hidden(relu()), initialiser=FanInUniform())
    variables = jax.tree.map(np.array, net_module.init_variables(net, jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    for tree in variables["batch_stats"].values():
        tree["norm"]["mean"] += rng.normal(0, 0.1, tree["norm"]["mean"].shape).astype(np.float32)
        tree["norm"]["var"] *= rng.uniform(0.2, 1, tree["norm"]["var"].shape).astype(np.float32)
    for name, tree in variables["params"].items():
        if "norm" in tree:
            shape = tree["norm"]["scale"].shape
            tree["norm"]["scale"][:] = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1, 1], shape)
            tree["norm"]["bias"][:] = rng.normal(0, 0.2, shape)
        assert name
    images = rng.integers(-256, 257, (9, *arch.input_shape)).astype(np.int16)
    return net, variables, images


def converted(arch, seed=0, percentile=99.0, **options):
    net, variables, images = trained(arch, seed)
    (scales,) = percentiles.scales(net, variables, images, [percentile], encoding=HELD)
    paper = {"initial": 0.0, "delay": 1, "spiking_heads": True, "spiking_pools": True}
    options = paper | options
    snn = convert(variables, arch, methods.rate(scales=scales, **options), encoding=HELD)
    return net, variables, images, scales, snn


def accumulating(arch, seed=0, **options):
    """The same with heads that add up what they are given."""
    return converted(arch, seed, **options, spiking_heads=False)


# ---------------------------------------------------------------- percentiles


def test_percentiles_are_of_all_values_and_between_two_linear():
    """Check 8, on a layer whose activations are known: 0 to 1000."""
    arch = parse("1C1x", classes=2, input_shape=(1, 1001, 1))
    net = Net(arch, hidden(relu()))
    variables = net_module.init_variables(net, jax.random.key(0))
    variables["params"]["conv1"]["kernel"] = jnp.ones((1, 1, 1, 1))
    images = np.arange(1001, dtype=np.int32).reshape(1, 1, 1001, 1)
    encoding = Encoding("held", 1.0, 1000)
    actual = percentiles.scales(net, variables, images, (99.9, 50, 100), encoding=encoding)
    assert [one["conv1"] for one in actual] == pytest.approx([999.0, 500.0, 1000.0])


@pytest.mark.parametrize("arch", [VGG, RES])
def test_percentiles_of_a_whole_network(arch):
    net, variables, images = trained(arch)
    (actual,) = percentiles.scales(net, variables, images, [90.0], encoding=HELD, batch_size=4)
    outs = net_module.forward(net, variables, HELD.decode(images)).outs
    for site in plan(arch):
        if site.role in ("activation", "exit", "readout"):
            want = np.percentile(np.asarray(outs[site.name], np.float64), 90.0)
            assert actual[site.name] == pytest.approx(want, rel=1e-5)
    assert set(actual) == {s.name for s in plan(arch) if s.role not in ("pool", "shortcut")}


def test_a_silent_layer_and_a_head_below_zero_keep_a_scale():
    arch = parse("2C1x-E", classes=2, input_shape=(2, 2, 1), head_bias=True, head_pool=True)
    net = Net(arch, hidden(relu()))
    variables = net_module.init_variables(net, jax.random.key(0))
    variables["params"]["conv1"]["kernel"] = -jnp.ones((1, 1, 1, 2))
    variables["params"]["readout"]["bias"] = jnp.array([-3.0, -1.0])
    variables["params"]["exit1"]["bias"] = jnp.array([-3.0, 2.0])
    images = np.full((3, 2, 2, 1), 256, np.int16)
    (actual,) = percentiles.scales(net, variables, images, [50], encoding=HELD)
    assert actual == {"conv1": 1.0, "exit1": 2.0, "readout": 1.0}


@pytest.mark.parametrize("percentile", [0, -1, 100.5, float("nan")])
def test_percentiles_out_of_range_are_refused(percentile):
    net, variables, images = trained(VGG)
    with pytest.raises(ValueError, match=r"percentile=.*: give a finite number above 0"):
        percentiles.scales(net, variables, images, [percentile], encoding=HELD)


def test_activations_that_are_no_numbers_are_refused():
    net, variables, images = trained(VGG)
    variables["params"]["conv2"]["kernel"][0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="conv2: an activation is not finite"):
        percentiles.scales(net, variables, images, [99], encoding=HELD)
    with pytest.raises(ValueError, match="no images"):
        percentiles.scales(net, variables, images[:0], [99], encoding=HELD)


# ---------------------------------------------------------------- normalisation


@pytest.mark.parametrize("arch", [VGG, RES])
@pytest.mark.parametrize(
    "options",
    [{"float_weights": True}, {}, {"weight_bits": None}, {"spiking_pools": False}],
    ids=str,
)
def test_the_normalised_network_computes_the_same_logits(arch, options):
    """Check 9: batch norm is gone, logits are those of the network divided by the head's scale."""
    net, variables, images, scales, snn = converted(arch, **options)
    before = net_module.forward(snn.float_ann, snapped(variables, snn), HELD.decode(images))
    after = net_module.forward(percentiles.normalised_ann(snn), snn.variables, jnp.asarray(images))
    for site in plan(arch):
        if site.role not in ("pool", "shortcut"):
            ours = np.asarray(after.outs[site.name]) * scales[site.name]
            np.testing.assert_allclose(ours, before.outs[site.name], rtol=1e-4, atol=1e-5)
    assert not any("norm" in tree for tree in snn.variables["params"].values())
    if "float_weights" in options:  # nothing was rounded at all
        plain = net_module.forward(net, variables, HELD.decode(images))
        scaled = after.readouts[-1] * scales["readout"]
        np.testing.assert_allclose(scaled, plain.readouts[-1], rtol=1e-4, atol=1e-5)


def test_few_activations_of_the_calibration_images_exceed_one():
    """Check 10."""
    _, _, images, _, snn = converted(VGG, percentile=99.9, float_weights=True)
    outs = net_module.forward(
        percentiles.normalised_ann(snn), snn.variables, jnp.asarray(images)
    ).outs
    for site in plan(VGG):
        if site.role == "activation":
            values = np.asarray(outs[site.name])
            assert (values <= 1 + 1e-6).mean() >= 0.999 - 1 / values.size


def test_percentiles_move_no_kernel():
    one, other = (converted(RES, percentile=p)[-1].variables["params"] for p in (90.0, 99.9))
    for name, tree in one.items():
        assert np.array_equal(tree["kernel"], other[name]["kernel"])
        assert tree["kernel"].dtype == jnp.int8
    assert not np.allclose(one["conv1"]["gain"], other["conv1"]["gain"])


# ---------------------------------------------------------------- spikes


@pytest.mark.parametrize("arch", [VGG, RES])
@pytest.mark.parametrize(
    ("delay", "initial", "block_ends", "spiking_pools"),
    [(1, 0.0, True, True), (0, 0.5, True, False), (2, 0.25, False, True)],
)
def test_spikes_are_those_of_the_slow_simulator(arch, delay, initial, block_ends, spiking_pools):
    options = {"delay": delay, "initial": initial, "block_ends": block_ends}
    options["spiking_pools"] = spiking_pools
    _, variables, images, scales, snn = converted(arch, **options)
    without = ("shortcut",) if spiking_pools else ("shortcut", "pool")
    names = [site.name for site in plan(arch) if site.role not in without]
    trace = simulate(snn, images, steps=40, block=5, record=names, counts=True)
    slow = reference.rate_coded(
        plan(arch), snapped(variables, snn), HELD.decode(images), scales, 40, **options
    )
    total = 0
    for name in names:
        spikes = np.asarray(unpack(trace.records[name], snn, name))
        differ = spikes != slow[name]  # a potential within a rounding of the threshold may
        assert differ.mean() < 1e-4
        total += spikes.sum()
    assert total > 1000
    heads = [name for name in names if name in ("exit1", "readout")]
    for name, readout in zip(heads, trace.readouts, strict=True):
        assert np.array_equal(readout, unpack(trace.records[name], snn, name).cumsum(0))


@pytest.mark.parametrize("weights", [{}, {"weight_bits": None}, {"float_weights": True}])
@pytest.mark.parametrize("arch", [VGG, RES])
def test_heads_add_up_what_their_sources_fire(arch, weights):
    """Against the slow simulator's spikes times the trained head, in float64."""
    _, variables, images, scales, snn = accumulating(arch, **weights)
    whole = not weights.get("float_weights")
    steps, tree = 30, snapped(variables, snn)
    trace = simulate(snn, images, steps=steps, block=7)
    slow = reference.rate_coded(plan(arch), tree, HELD.decode(images), scales, steps)
    sites = {site.name: site for site in plan(arch)}
    heads = [site for site in plan(arch) if site.role in ("exit", "readout")]
    assert len(heads) == len(trace.readouts) == 2
    for head, readout in zip(heads, trace.readouts, strict=True):
        source = head.source
        while source not in scales:  # a pool's rate is worth what its source's is
            source = sites[source].source
        kernel, bias = (
            np.asarray(tree["params"][head.name][leaf], np.float64) for leaf in ("kernel", "bias")
        )
        spikes = slow[head.source].reshape(steps, len(images), -1)
        sums = np.cumsum(spikes * scales[source] @ kernel + bias, axis=0)
        unit, step = snn.unit(head.name), np.arange(1, steps + 1)[:, None, None]
        rounding = unit / 2 * step + 1e-4 if whole else 1e-3
        assert (np.abs(np.asarray(readout, np.float64) * unit - sums) <= rounding).all()
        assert np.abs(sums[-1]).max() > 100 * np.max(rounding)
        assert readout.dtype == (np.int32 if whole else np.float32)
        other = simulate(snn, images, steps=steps, block=1).readouts[heads.index(head)]
        assert not whole or np.array_equal(readout, other)


def below_zero(**options):
    """A network whose hidden neurons fire and whose logits are all below zero."""
    arch = parse("4x", classes=3, input_shape=(1, 1, 1), head_bias=True)
    net = Net(arch, hidden(relu()))
    variables = net_module.init_variables(net, jax.random.key(0))
    variables["params"]["dense1"]["kernel"] = jnp.full((1, 4), 0.5)
    variables["params"]["readout"] = {
        "kernel": jnp.array([[-0.25, -0.125, -0.5]] * 4), "bias": jnp.array([-0.5, 0.0, -0.25]),
    }  # fmt: skip
    scales = {"dense1": 1.0, "readout": 1.0}
    encoding = Encoding("held", 1 / 128, 128)
    snn = convert(variables, arch, methods.rate(scales=scales, **options), encoding=encoding)
    return snn, np.full((5, 1, 1, 1), 96, np.uint8)


def test_logits_below_zero_are_told_apart():
    """Rates 0.375: logits -0.875, -0.1875, -1.0; a neuron there never fires."""
    snn, images = below_zero()
    evaluation = evaluate(snn, images, np.ones(5, int), steps=800)
    assert evaluation.predictions[-1].tolist() == [1] * 5
    assert evaluation.undecided[-1] == 0
    logits = np.asarray(simulate(snn, images, steps=800).readout[-1]) * snn.unit("readout") / 800
    assert logits == pytest.approx(
        np.array([[-0.875, -0.1875, -1.0]] * 5), abs=4e-3
    )  # two spikes on their way


def test_images_without_a_spike_to_decide_on_are_counted():
    snn, images = below_zero(spiking_heads=True)
    evaluation = evaluate(snn, images, np.ones(5, int), steps=80, batch_size=2)
    assert evaluation.undecided.tolist() == [5] * 80
    assert evaluation.undecided_share == 1
    assert evaluation.predictions[-1].tolist() == [0] * 5


def test_a_pool_without_neurons_rounds_no_mean():
    """Spikes of 1, 1, 0 and 0 in every step: a neuron fires in every other, a sum is right at once.

    Means are right after every step, those of a neuron after two.
    """
    arch = parse("1C1x-AP2", classes=1, input_shape=(2, 2, 1))
    net = Net(arch, hidden(relu()))
    variables = net_module.init_variables(net, jax.random.key(0))
    variables["params"]["conv1"]["kernel"] = jnp.ones((1, 1, 1, 1))
    variables["params"]["readout"]["kernel"] = jnp.ones((1, 1))
    image = np.array([128, 128, 0, 0], np.uint8).reshape(1, 2, 2, 1)
    encoding, logits = Encoding("held", 1 / 128, 128), {}
    for spiking in (False, True):
        options = {"scales": {"conv1": 1.0}, "initial": 0.0, "spiking_pools": spiking}
        snn = convert(variables, arch, methods.rate(**options), encoding=encoding)
        sums = np.asarray(simulate(snn, image, steps=4).readout).ravel() * snn.unit("readout")
        logits[spiking] = (sums / np.arange(1, 5)).tolist()
    assert logits == {False: [0.5, 0.5, 0.5, 0.5], True: [0.0, 0.5, pytest.approx(1 / 3), 0.5]}


def test_heads_need_no_scale_unless_they_fire():
    _, variables, _ = trained(VGG)
    scales = {site.name: 1.0 for site in plan(VGG) if site.role == "activation"}
    convert(variables, VGG, methods.rate(scales=scales), encoding=HELD)
    with pytest.raises(ValueError, match="readout: has no scale"):
        convert(variables, VGG, methods.rate(scales=scales, spiking_heads=True), encoding=HELD)


@pytest.mark.parametrize("block", [1, 3, 8])
def test_the_block_of_time_changes_nothing(block):
    *_, images, _, snn = converted(RES)
    one = simulate(snn, images, steps=24, block=block)
    other = simulate(snn, images, steps=24, block=24)
    assert np.array_equal(one.readout, other.readout)
    for site, spikes in one.counters.spikes.items():
        assert np.array_equal(spikes, other.counters.spikes[site])


def test_a_constant_current_fires_at_its_rate():
    """Check 11: floor(T z) spikes of a current z in [0, 1], and T above it."""
    arch = parse("5x", classes=2, input_shape=(1, 1, 1))
    net = Net(arch, hidden(relu()))
    variables = net_module.init_variables(net, jax.random.key(0))
    variables["params"]["dense1"]["kernel"] = jnp.array([[0.25, 0.5, 0.75, 1.0, 1.5]])
    scales = {"dense1": 1.0, "readout": 1.0}
    encoding = Encoding("held", 1 / 128, 128)
    for options, start in (({"initial": 0.0}, 0), ({}, 0.5)):  # by default the nearest rate
        method = methods.rate(scales=scales, **options)
        snn = convert(variables, arch, method, encoding=encoding)
        for grey, steps in ((128, 37), (96, 50), (16, 99)):
            image = np.full((1, 1, 1, 1), grey, np.uint8)
            counts = simulate(snn, image, steps=steps, counts=True).counts["dense1"][0]
            z = np.array([0.25, 0.5, 0.75, 1.0, 1.5]) * grey / 128  # powers of two: no rounding
            want = np.minimum(np.floor(steps * z + start), steps)
            assert np.asarray(counts).tolist() == want.tolist()


def test_rates_converge_to_the_normalised_activations():
    """Check 12: the error shrinks as 1 / T."""
    arch = parse("8-6", classes=3, input_shape=(2, 2, 1))
    *_, images, _, snn = converted(arch, percentile=100.0, delay=0)
    outs = net_module.forward(
        percentiles.normalised_ann(snn), snn.variables, jnp.asarray(images)
    ).outs
    want = np.clip(outs["dense2"][0], 0, 1)
    errors = []
    for steps in (100, 1000):
        counts = simulate(snn, images, steps=steps, counts=True).counts["dense2"]
        errors.append(np.abs(np.asarray(counts) / steps - want).max())
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 3


def test_nothing_arrives_before_the_pipeline_is_full():
    """Check 13: with zero biases the first spike comes at step D + 1."""
    net, variables, images = trained(VGG, seed=3)
    for tree in variables["params"].values():
        for leaf in tree.get("norm", {}):
            tree["norm"][leaf] = np.abs(tree["norm"][leaf]) * (leaf == "scale")
        tree["kernel"] = np.abs(tree["kernel"])
        if "bias" in tree:
            tree["bias"] = tree["bias"] * 0
    for tree in variables["batch_stats"].values():
        tree["norm"]["mean"] *= 0
    images = np.full_like(images, 256)
    (scales,) = percentiles.scales(net, variables, images, [50.0], encoding=HELD)
    for depth, name in enumerate(scales, 1):  # every neuron that can fire fires at once
        scales[name] *= 1e-3**depth
    paper = {"initial": 0.0, "delay": 1, "spiking_heads": True, "spiking_pools": True}
    snn = convert(variables, VGG, methods.rate(scales=scales, **paper), encoding=HELD)
    final = np.asarray(simulate(snn, images, steps=12).readout).sum((1, 2))
    early = np.asarray(simulate(snn, images, steps=12).readouts[0]).sum((1, 2))
    stages = {"final": 3 + 2, "early": 2 + 2}  # blocks, then pool and dense neurons
    assert not final[: stages["final"]].any()
    assert final[stages["final"]] > 0
    assert not early[: stages["early"]].any()
    assert early[stages["early"]] > 0


def test_batches_leave_nothing_behind():
    """Check 14."""
    *_, images, _, snn = converted(VGG)
    simulate(snn, images[:4], steps=20)
    after = simulate(snn, images[4:8], steps=20).readout
    alone = simulate(snn, images[[4]], steps=20).readout
    assert np.array_equal(after[:, :1], alone)


def test_percentiles_and_initial_potentials_are_swept_in_one_program():
    net, variables, images = trained(RES)
    labels = np.arange(len(images)) % 4
    actual = percentiles.scales(net, variables, images, [90.0, 99.9], encoding=HELD)
    method = functools.partial(methods.rate, delay=1, spiking_pools=True)
    networks = [
        convert(variables, RES, method(scales=scales, initial=initial), encoding=HELD)
        for scales in actual
        for initial in (0.0, 0.5)
    ]
    table = sweep(networks[0], images, labels, steps=(8, 20), networks=networks)
    assert table.axes == (("networks", (0, 1, 2, 3)), ("steps", (8, 20)))
    for number, snn in enumerate(networks):
        alone = simulate(snn, images, steps=20)
        assert np.array_equal(table.predictions[number, 1], alone.predictions[-1])
        spikes = sum(int(part[:8].sum()) for part in alone.counters.spikes.values())
        assert table.spikes[number, 0] == spikes
    assert len(set(table.spikes[:, 1].tolist())) == 4
    with pytest.raises(ValueError, match=r"params/\S+/kernel differs"):
        sweep(networks[0], images, networks=[networks[0], accumulating(RES, seed=1)[-1]])
    with pytest.raises(ValueError, match=r"networks\[1\] has another architecture, other neurons"):
        sweep(networks[0], images, networks=[networks[0], accumulating(RES, delay=0)[-1]])


# ---------------------------------------------------------------- refusals

REFUSED = [
    ({"scales": {}, "spiking_heads": True}, r"conv1: has no scale(.|\n)*readout: has no scale"),
    ({"delay": -1}, "delay=-1"),
    ({"initial": 1.0}, "initial=1.0"),
    ({"initial": float("nan")}, "initial=nan"),
    ({"encoding": Encoding("onset", 1 / 256)}, "'onset'.*takes input that is 'held' or 'frames'"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_cannot_be_converted_is_refused(options, message):
    options = dict(options)
    encoding = options.pop("encoding", HELD)
    net, variables, images = trained(VGG)
    (scales,) = percentiles.scales(net, variables, images, [99.0], encoding=HELD)
    with pytest.raises(ValueError, match=message):
        convert(variables, VGG, methods.rate(**{"scales": scales} | options), encoding=encoding)


def test_scales_that_are_not_positive_are_refused():
    net, variables, images = trained(VGG)
    (scales,) = percentiles.scales(net, variables, images, [99.0], encoding=HELD)
    with pytest.raises(ValueError, match=r"conv2: has the scale -1\.0"):
        convert(variables, VGG, methods.rate(scales=scales | {"conv2": -1.0}), encoding=HELD)
