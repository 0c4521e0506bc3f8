"""Synaptic operations are spikes that reach synapses: every pool, neuron and method, one by one."""

import jax
import numpy as np
import pytest
import reference as ref
from helpers import HIDDEN_TERNARY, pixels

from jaxsnn import (
    CutNormal,
    Encoding,
    Net,
    convert,
    directly_trained,
    evaluate,
    hidden,
    init_variables,
    methods,
    neurons,
    parse,
    quantised_weights,
    simulate,
    spiking_net,
    sweep,
    unpack,
)
from jaxsnn.arch import plan
from jaxsnn.conversion import percentiles
from jaxsnn.simulation.counters import count

# Behind the first layer, whose drive is of one sign, neurons take spikes back.
POOLS = {  # site -> sizes of the pools without neurons between it and its spikes' source
    "4C3p1-4C3p1-AP2-5C3-6": {"conv2": (), "conv3": (2,), "dense1": (), "readout": ()},
    "4C3p1-4C3-AP3-AP2-6": {"conv2": (), "dense1": (3, 2), "readout": ()},  # 11 leaves a rest
    "4C3p1-AP3-AP2-5C2p1-6": {"conv2": (3, 2), "dense1": (), "readout": ()},  # 13 leaves a rest
    "4C3-E-AP2-5C3s2-GP": {"exit1": (0,), "conv2": (2,), "readout": (0,)},
    "4C3p1-MP2-5C3p1-AP2": {"conv2": (), "readout": (2,)},
    "4C3p1-4C3p1-MP3s2p1-5C3p1-AP2": {"conv2": (), "conv3": (), "readout": (2,)},
    "4C3p1-4C3p1-MP2s1-AP2-6": {"conv2": (), "dense1": (2,), "readout": ()},
    "4C3p1-4C3p1-AP2-[4C3p1-4C3p1]+bias-6": {
        "conv2": (),
        "block1.conv1": (2,),
        "block1.shortcut": (2,),
        "block1.conv2": (),
        "dense1": (),
        "readout": (),
    },
}
LEVELS = neurons.quantised_relu(k=2, bound=2)


def trained(text, activation, **options):
    """An untrained network of 13x13 images whose hidden neurons fire at many levels."""
    arch = parse(text, input_shape=(13, 13, 1), classes=3)
    net = Net(arch, hidden(activation), initialiser=CutNormal(hidden=0.5), **options)
    return arch, net, init_variables(net, jax.random.key(3))


def threshold_units(text):
    arch, _, variables = trained(text, LEVELS)
    method = methods.scatter_gather(k=2, bound=2)
    return convert(variables, arch, method, weights=HIDDEN_TERNARY), 1


def negative(text, **options):
    arch, _, variables = trained(text, LEVELS)
    return convert(variables, arch, methods.negative_spikes(k=2, bound=2, **options)), 12


def graded(text):
    return negative(text, per_step=3)


def signed_if(text):
    arch, _, variables = trained(text, neurons.clipped_relu(3), weights=quantised_weights(3))
    return convert(variables, arch, methods.signed_if(bits=3)), 7


def leaky(text):
    arch = parse(text, input_shape=(13, 13, 1), classes=3, norm=False, head_bias=True)
    net = spiking_net(arch, neurons.leaky(0.9, 0.2), neurons.leaky(0.9, 1.0))
    return directly_trained(
        net, init_variables(net, jax.random.key(0)), Encoding("held", 1 / 64)
    ), 8


def rates(text):
    arch, net, variables = trained(text, neurons.relu())
    images, encoding = (
        pixels(np.random.default_rng(2), 6, arch.input_shape),
        Encoding("held", 1 / 256),
    )
    scales = percentiles.scales(net, variables, images, [99.0], encoding=encoding)[0]
    return convert(variables, arch, methods.rate(scales=scales), encoding=encoding), 20


CASES = [
    (threshold_units, "4C3p1-AP3-AP2-5C2p1-6"),
    (threshold_units, "4C3p1-MP2-5C3p1-AP2"),
    (negative, "4C3p1-4C3p1-AP2-5C3-6"),
    (graded, "4C3p1-4C3-AP3-AP2-6"),
    (signed_if, "4C3p1-4C3p1-AP2-[4C3p1-4C3p1]+bias-6"),
    (leaky, "4C3-E-AP2-5C3s2-GP"),
    (leaky, "4C3p1-MP2-5C3p1-AP2"),
    (negative, "4C3p1-4C3p1-MP3s2p1-5C3p1-AP2"),
    (signed_if, "4C3p1-4C3p1-MP2s1-AP2-6"),
    (rates, "4C3p1-4C3p1-MP3s2p1-5C3p1-AP2"),
    (rates, "4C3-E-AP2-5C3s2-GP"),
]


def one_by_one(snn, spikes, site, pools):
    """Operations of one consumer in every step and image, from its source's spikes, in a loop."""
    layer = {"kind": site.kind, "kernel": np.zeros(site.kernel_shape)}
    if site.kind == "conv":
        layer |= {"stride": site.strides[0], "padding": site.padding}
    result = []
    for step in spikes:
        arriving = step
        for size in pools:
            arriving = ref.spikes_behind_average(arriving, size)
        result.append(ref.sops(arriving, layer))
    return np.array(result)


@pytest.mark.slow
@pytest.mark.parametrize(("build", "text"), CASES)
def test_operations_are_spikes_that_reach_synapses_one_by_one(build, text):
    snn, steps = build(text)
    sites = {site.name: site for site in plan(snn.arch)}
    images = pixels(np.random.default_rng(1), 3, snn.arch.input_shape)
    evaluation = evaluate(snn, images, steps=steps)
    assert set(evaluation.operations) == set(POOLS[text])
    signs, cancelled, sources = set(), False, {}
    for name, pools in POOLS[text].items():
        source = sites[name].source
        if snn.neurons.at(sites[source]).spikes is not None:
            pools = ()  # this pool has neurons, whose spikes arrive
        for _ in pools:
            source = sites[source].source
        sources[name] = source, pools
    recorded = tuple({source for source, _ in sources.values()})
    records = simulate(snn, images, steps=steps, record=recorded).records
    for name, (source, pools) in sources.items():
        spikes = np.asarray(unpack(records[source], snn, source), np.int64)
        expected = one_by_one(snn, spikes, sites[name], pools)
        np.testing.assert_array_equal(evaluation.operations[name], expected.sum(1), err_msg=name)
        assert evaluation.operations[name].dtype == np.int64
        assert expected.sum() > 0, name
        signs |= set(np.unique(spikes).tolist())
        if pools and spikes.min() < 0:
            net = one_by_one(snn, np.abs(window_net(spikes, pools[0])), sites[name], pools[1:])
            cancelled |= net.sum() < expected.sum()
    assert (signs >= {-1, 1}) == (build in (negative, graded, signed_if))
    assert (max(signs) > 1) == (build in (threshold_units, graded))
    assert cancelled == (build in (negative, graded, signed_if))


def test_sweeps_and_evaluations_share_the_count():
    snn, _ = threshold_units("4C3p1-MP2-5C3p1-AP2")
    images = pixels(np.random.default_rng(1), 3, snn.arch.input_shape)
    evaluation, swept = evaluate(snn, images, steps=2), sweep(snn, images, steps=[1, 2])
    assert (
        swept.operations[-1]
        == evaluation.image_operations.sum()
        == evaluation.operations["conv2"].sum()
    )
    assert evaluation.image_head_operations.sum() == evaluation.operations["readout"].sum()


def window_net(spikes, size):
    """Net sums of the windows of [T, B, H, W, C], in which opposite spikes cancel."""
    rows, columns = spikes.shape[2] // size, spikes.shape[3] // size
    cut = spikes[:, :, : rows * size, : columns * size]
    return cut.reshape(*cut.shape[:2], rows, size, columns, size, -1).sum((3, 5))


def test_by_hand_two_opposite_spikes_in_one_window_are_two():
    arch = parse("1C1-AP2-2C1", input_shape=(2, 3, 1), classes=3, norm=False)
    site = next(one for one in plan(arch) if one.name == "conv2")
    out = np.array([[1, -1, 1], [0, 0, 5]], np.int8).reshape(
        1, 1, 2, 3, 1
    )  # the last column: a rest
    outs = {"conv1": out, "conv2": np.zeros((1, 1, 1, 1, 2), np.int8)}
    actual = count(outs, arch, hidden(neurons.tracking(9, 5)))
    assert site.source == "avgpool1"
    assert actual.events["conv2"].tolist() == [[2]]
    assert (actual.spikes["conv1"].tolist(), actual.negative["conv1"].tolist()) == ([[8]], [[1]])


def test_what_is_no_spike_is_not_counted():
    arch = parse("2", input_shape=(1, 1, 1), classes=3, norm=False)
    outs = {"dense1": np.full((1, 1, 2), 7.5, np.float32)}
    actual = count(outs, arch, hidden(neurons.relu()))
    assert (actual.spikes["dense1"].tolist(), actual.events["readout"].tolist()) == ([[0]], [[0]])
