"""Spiking networks as NIR graphs: run by our own executor, equal to the simulator at every step."""

import dataclasses
from pathlib import Path

import jax
import nir
import numpy as np
import pytest
from clipped_networks import network as clipped_network
from helpers import converted
from nir_networks import (
    FRAMES,
    LEAKY,
    NETWORKS,
    RES,
    VGG,
    dyadic,
    plain_rate_coded,
    rate_coded,
    scattered,
)

from jaxsnn import (
    Encoding,
    FanInUniform,
    Net,
    SiteMap,
    UserError,
    convert,
    directly_trained,
    hidden,
    init_variables,
    load_params,
    methods,
    neurons,
    parse,
    simulate,
    spiking_net,
    unpack,
    with_leaf,
    zoo,
)
from jaxsnn.arch.plan import plan
from jaxsnn.conversion import quantised_weights
from jaxsnn.exchange.nir import Simulator, from_nir, to_nir
from jaxsnn.exchange.nir.simulators import IMPORTERS
from jaxsnn.network.weight_quantisers import full_precision

RULES = {None: (None, 1.0)} | {
    one: (importer.rules, importer.dt)
    for one, importer in IMPORTERS.items()
    if not importer.refusal
}


def outputs_beside(snn, export, images, steps=1, rules=None, dt=1.0, dtype=np.float32):
    """The outputs of the graph and the network's readouts, both summed over time."""
    network = from_nir(export.graph, dt=dt, rules=rules, dtype=dtype)
    x = np.moveaxis(images, -1, 1)
    recorded = network.run(x, steps=steps, record=network.outputs).recorded
    trace = simulate(snn, images, steps=steps)
    for name, readout in zip(network.outputs, trace.readouts, strict=True):
        out = np.asarray(recorded[name], np.float64)
        yield np.cumsum(out.reshape(*out.shape[:2], -1), 0), np.asarray(readout)


@pytest.mark.parametrize("options", NETWORKS, ids=lambda options: options["text"])
def test_scatter_and_gather_is_exact_under_every_simulators_rules(options):
    """One graph, the rules of five: reset, comparison, several spikes and leak change nothing."""
    snn, images = scattered(**options)
    several = len([s for s in plan(snn.arch) if s.role in ("exit", "readout")]) > 1
    for simulator, (rules, dt) in RULES.items():
        if simulator and "P2" in options["text"] and options["text"] != NETWORKS[3]["text"]:
            continue  # enough of them
        if simulator and several:
            with pytest.raises(ValueError, match="there are 2 outputs"):
                to_nir(snn, for_=simulator)
            continue
        export = to_nir(snn, for_=simulator)
        assert export.is_exact
        for actual, expected in outputs_beside(snn, export, images, rules=rules, dt=dt):
            np.testing.assert_array_equal(actual, expected)
            assert len(np.unique(expected)) > 12


@pytest.mark.parametrize("seed", range(3))
def test_units_spike_as_their_neurons_count(seed):
    """Negative norm scales, constant channels: every unit of every layer in the sample."""
    *_, snn, images = converted(seed, gammas="mixed")
    export = to_nir(snn, images=images)
    names = [site.name for site in plan(snn.arch)[:-1]]
    trace = simulate(snn, images, steps=1, record=names)
    for name in names:
        counts = np.asarray(unpack(trace.records[name], snn, name))[0]
        spikes = export.sample.nodes[f"{name}_units"].observables["spikes"].data[:, 0]
        channels = counts.reshape(len(images), -1, counts.shape[-1]).swapaxes(1, 2)
        for unit, fired in enumerate(np.split(spikes, 4, axis=1)):
            np.testing.assert_array_equal(fired.reshape(channels.shape), channels > unit)


def test_units_of_several_steps_are_thresholds():
    """A held image for three steps: no unit remembers what it was driven by."""
    snn, images = scattered(**NETWORKS[3])
    snn = dataclasses.replace(snn, encoding=dataclasses.replace(snn.encoding, presentation="held"))
    export = to_nir(snn, steps=3, images=images)
    kinds = {type(node).__name__ for node in export.graph.nodes.values()}
    assert kinds == {"Input", "Conv2d", "Threshold", "Output"}
    assert export.graph.metadata["bias_schedule"] == "every step"
    for actual, expected in outputs_beside(snn, export, images, steps=3):
        np.testing.assert_array_equal(actual, expected)


def test_a_wrong_threshold_is_found():
    """The sample of a network beside the graph of another, whose one threshold is one higher."""
    snn, images = scattered(**NETWORKS[0])
    thresholds = np.array(snn.variables["fixed"]["conv2"]["thresholds"])
    sample = to_nir(snn, images=images).sample
    actual = 0
    for channel in range(thresholds.shape[1]):
        moved = thresholds.copy()
        moved[:, channel] += 1
        other = from_nir(to_nir(with_leaf(snn, "conv2", "thresholds", moved)).graph)
        x = np.moveaxis(images, -1, 1)[None]
        spikes = np.asarray(other.run(x, record=["conv2_units"]).recorded["conv2_units"])[0]
        expected = sample.nodes["conv2_units"].observables["spikes"].data[:, 0]
        actual += (spikes.reshape(expected.shape) != expected).any()
    assert actual >= 4


def test_sums_that_float32_simulators_do_not_hold():
    snn, _ = scattered(**NETWORKS[0])
    params = {**snn.variables["params"]}
    params["conv1"] = {"kernel": params["conv1"]["kernel"].astype(np.int32) * 64}
    large = dataclasses.replace(
        snn,
        variables={**snn.variables, "params": params},
        report=(dataclasses.replace(snn.report[0], step_bound=2**22), *snn.report[1:]),
    )
    for simulator in (None, "norse"):
        with pytest.raises(ValueError, match=r"conv1: drives and thresholds reach .*sums_below="):
            to_nir(large, for_=simulator)


def test_the_kept_lenet_on_the_finest_grid_is_refused():
    """Its sums reach 14 million: one wrong spike in millions, in a simulator that says nothing."""
    kept = Path(__file__).resolve().parents[2] / "results" / "mnist_lenet" / "k1B2" / "kept.npz"
    snn = convert(
        load_params(kept, zoo.lenet_scatter),
        zoo.lenet_scatter,
        methods.scatter_gather(k=1, bound=2),
    )
    with pytest.raises(ValueError, match=r"conv1: drives and thresholds reach \d{8} .*sums_below"):
        to_nir(snn)


def test_the_largest_sums_that_are_exact():
    """Drives up to 2^21 - 1 beside thresholds at them: half a unit still decides."""
    arch = parse("2", input_shape=(1, 1, 1), classes=2, norm=False, head_bias=True)
    net = Net(arch, hidden(neurons.quantised_relu(0, 1)))
    variables = jax.tree.map(np.array, init_variables(net, jax.random.key(0)))
    encoding = Encoding("held", 1.0, 2**21 - 1)
    variables["params"]["dense1"]["kernel"][:] = [[1.0, -1.0]]
    snn = convert(variables, arch, methods.scatter_gather(k=0, bound=1), encoding=encoding)
    top = 2**21 - 1
    snn = with_leaf(snn, "dense1", "thresholds", np.array([[top, -top + 1]], np.int32))
    images = np.array([top, top - 1, -top, -top + 1, 0], np.int32).reshape(-1, 1, 1, 1)
    export = to_nir(snn, images=images)
    bias = export.graph.nodes["dense1"].bias.ravel()
    assert bias.tolist() == [2**22 + 0.5 - top, 2**22 + 0.5 + top - 1]
    spikes = export.sample.nodes["dense1_units"].observables["spikes"].data
    assert spikes[:, 0].tolist() == [
        [True, False], [False, True], [False, True], [False, True], [False, True],
    ]  # fmt: skip


def test_files_hold_what_a_receiver_needs(tmp_path):
    snn, images = scattered(**NETWORKS[0])
    export = to_nir(snn, for_="norse", images=images)
    beside = export.write(tmp_path / "lenet.nir")
    assert beside == tmp_path / "lenet_sample.nir"
    graph, sample = nir.read(tmp_path / "lenet.nir"), nir.read_data(beside)
    said = graph.metadata
    assert (said["dt"], said["steps"], said["images_compared"]) == (1.0, 1, 12)
    assert (said["reset"], said["comparison"], said["equality"]) == ("zero", ">", "exact")
    assert said["bias_schedule"] == "once"
    assert said["unit_of_output"] == snn.unit("readout")
    assert said["made_for"] == "norse 1.1.0"
    assert len(said["hash"]) == 64
    moved = with_leaf(snn, "conv1", "thresholds", snn.variables["fixed"]["conv1"]["thresholds"] + 1)
    assert to_nir(moved).graph.metadata["hash"] != said["hash"]
    network = from_nir(tmp_path / "lenet.nir")
    x = sample.nodes["input"].observables["input"].data
    x = x.swapaxes(0, 1).reshape(1, 12, *network["input"].shape)
    assert (x[0] == np.moveaxis(images, -1, 1)).all()
    nodes = [name for name in sample.nodes if name != "input"]
    recorded = network.run(x, record=nodes).recorded
    for name in nodes:
        (expected,) = sample.nodes[name].observables.values()
        actual = np.asarray(recorded[name]).swapaxes(0, 1).reshape(expected.data.shape)
        np.testing.assert_array_equal(actual, expected.data)


# ---------------------------------------------------------------- neurons with a memory


def every_step(snn, export, frames):
    """Every spiking layer and the summed output, at every step, of graph and simulator."""
    steps = len(frames)
    names = [s.name for s in plan(snn.arch) if snn.neurons.at(s).spikes]
    trace = simulate(snn, frames, steps=steps, record=names)
    network = from_nir(export.graph)
    recorded = network.run(np.moveaxis(frames, -1, 2), record=[n.name for n in network.nodes])
    recorded = recorded.recorded
    for name in names:
        spikes = np.asarray(unpack(trace.records[name], snn, name))
        spikes = np.moveaxis(spikes, -1, 2) if spikes.ndim == 5 else spikes[..., None, None]
        yield name, np.asarray(recorded[f"{name}_spikes"]), spikes
    out = np.asarray(recorded["output"])[..., 0, 0].cumsum(0)
    yield "readout", out, np.asarray(trace.readout)


@pytest.mark.parametrize(
    ("reset", "readout"),
    [
        ("delayed", None),
        ("delayed", neurons.leaky(0.5, reset="delayed")),
        ("subtract", neurons.leaky(0.5, reset="none", emit="potential")),
        ("zero", neurons.leaky(0.5, reset="zero")),
        ("none", None),
    ],
    ids=["delayed", "spiking", "potential", "zero", "none"],
)
def test_directly_trained_networks(reset, readout):
    """Half of every potential stays; a readout that sums, spikes, or emits its potential."""
    snn = dyadic(LEAKY, neurons.leaky(0.5, reset=reset), readout, seed=1)
    export = to_nir(snn, steps=8, images=FRAMES)
    assert not export.is_exact
    kinds = {type(node).__name__ for node in export.graph.nodes.values()}
    assert ("LIF" in kinds) == (reset == "zero")
    for name, actual, expected in every_step(snn, export, FRAMES):
        np.testing.assert_array_equal(actual, expected, err_msg=name)
        assert expected.any(), name


def test_learned_leaks_and_thresholds_of_each_channel():
    learn = {"leak": [0.5, 0.75, 0.25, 1.0, 0.0], "threshold": [1.0, 0.5, 0.75]}
    for reset in ("delayed", "zero"):
        cell = neurons.leaky(reset=reset, learn=("leak", "threshold"))
        snn = dyadic(LEAKY, cell, None, seed=2, learned=learn)
        frames = FRAMES[:4]
        for name, actual, expected in every_step(snn, to_nir(snn, steps=4, images=frames), frames):
            np.testing.assert_array_equal(actual, expected, err_msg=name)
            assert expected.any(), name


def test_float_weights_are_compared_on_images():
    """Sums in another order: spikes are the same on these images, which the graph says."""
    net = spiking_net(LEAKY, neurons.leaky(0.9, reset="subtract"))
    variables = jax.tree.map(np.array, init_variables(net, jax.random.key(3)))
    variables["params"] = jax.tree.map(lambda a: 3 * a, variables["params"])
    snn = directly_trained(net, variables, Encoding("frames", 1.0))
    with pytest.raises(ValueError, match="give images=, on which every spike is compared"):
        to_nir(snn, steps=8)
    export = to_nir(snn, steps=8, images=FRAMES)
    assert export.graph.metadata["equality"] == "compared"
    assert export.graph.metadata["images_compared"] == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "signed"),
    [
        ("4C3p1-4C3s2p1-10nb", False),
        ("4C3p1-4C3s2p1-10nb", True),
        ("3C3p1-[3C3p1-4C3s2p1]+norm-[4C3p1-7C3s2p1]+padded-6nb", True),
    ],
    ids=["unsigned", "signed", "residual"],
)
def test_integrate_and_fire_that_takes_spikes_back(text, signed):
    """Whole numbers of up to 31 bits, hence float64; residual blocks, too."""
    if "[" in text:
        snn, images = residual(text, signed)
    else:
        net = clipped_network(5, text, bits=3, shape=(6, 6, 2), gammas="mixed")
        snn, images = net.snn(signed=signed), net.images
    export = to_nir(snn, steps=7, images=images)
    assert export.is_exact
    for actual, expected in outputs_beside(snn, export, images, 7, dtype=np.float64):
        np.testing.assert_array_equal(actual, expected)
    negative = [
        observable.data.min() < 0
        for name, node in export.sample.nodes.items()
        if name != "input" and "output" not in name
        for observable in node.observables.values()
    ]
    assert any(negative) == signed


def residual(text, signed):
    """A converted network with a residual block, all numbers random."""
    arch = parse(text, input_shape=(6, 6, 2), classes=4, head_bias=True)
    net = Net(arch, hidden(neurons.clipped_relu(3)), quantised_weights(3))
    variables = init_variables(net.clone(initialiser=FanInUniform()), jax.random.key(1))
    images = np.random.default_rng(2).integers(-200, 201, (6, 6, 6, 2)).astype(np.int16)
    encoding = Encoding("held", 1 / 64, 200)
    return convert(
        variables, arch, methods.signed_if(bits=3, signed=signed), encoding=encoding
    ), images


def test_settling_networks_while_their_input_lasts():
    net = clipped_network(6, "4C3p1-4C3s2p1-10nb", bits=2, gammas="mixed")
    snn = net.snn(settling=True)
    export = to_nir(snn, steps=3, images=net.images)
    for actual, expected in outputs_beside(snn, export, net.images, 3, dtype=np.float64):
        np.testing.assert_array_equal(actual, expected)
    with pytest.raises(ValueError, match="its biases end after 3 of 9 steps"):
        to_nir(snn, steps=9, images=net.images)


@pytest.mark.parametrize(("arch", "delay"), [(VGG, 1), (VGG, 0), (RES, 1)])
def test_rate_coded_networks(arch, delay):
    """Gains go into the weights, spikes arrive a step later where the network says so."""
    snn, images = rate_coded(arch, delay)
    export = to_nir(snn, steps=20, images=images)
    assert not export.is_exact
    delays = [n for n in export.graph.nodes if n.endswith("_later")]
    assert bool(delays) == bool(delay)
    for actual, expected in outputs_beside(snn, export, images, 20):
        np.testing.assert_array_equal(actual, expected)
        assert expected.any()


def test_a_rate_coded_network_in_sinabs_where_it_computes_the_same():
    """No burst, and no potential below minus the threshold: nothing else is different."""
    snn, images = plain_rate_coded((2.0, 6.0, 18.0, 34.0))
    export = to_nir(snn, for_="sinabs", steps=12, images=images)
    kinds = {type(node).__name__ for node in export.graph.nodes.values()}
    assert kinds == {"Input", "Conv2d", "IF", "Output"}
    bursts, _ = plain_rate_coded((0.25, 1.0, 2.0, 4.0))
    with pytest.raises(ValueError, match="conv1: sinabs would compute other spikes"):
        to_nir(bursts, for_="sinabs", steps=12, images=images)
    late, _ = plain_rate_coded((2.0, 6.0, 18.0, 34.0), delay=1)
    with pytest.raises(ValueError, match="'conv1_later' is a Delay, which it does not import"):
        to_nir(late, for_="sinabs", steps=12, images=images)


# ---------------------------------------------------------------- refusals


def leaky_network(reset="delayed", arch=LEAKY, **options):
    return dyadic(arch, neurons.leaky(0.5, reset=reset, **options), None, seed=1)


@pytest.mark.parametrize("simulator", ["norse", "snntorch", "spikingjelly"])
def test_leaky_networks_for_other_simulators(simulator):
    """A reset to zero is NIR's; the graph says with which factors that simulator gets it."""
    snn = leaky_network("zero")
    export = to_nir(snn, for_=simulator, steps=8, images=FRAMES)
    node = next(n for n in export.graph.nodes.values() if isinstance(n, nir.LIF))
    dt = 1e-4 if simulator == "snntorch" else 1.0
    assert node.tau.ravel()[0] == pytest.approx(2 * dt)
    assert node.r.ravel()[0] == pytest.approx(1 if simulator == "norse" else 2)
    with pytest.raises(ValueError, match=f"{simulator} has no leaky neuron with the reset 'del"):
        to_nir(leaky_network(), for_=simulator, steps=8, images=FRAMES)


@pytest.mark.parametrize("simulator", ["norse", "snntorch", "spikingjelly"])
def test_what_resets_to_a_value_is_no_place_for_soft_resets(simulator):
    snn, images = rate_coded(VGG, 0)
    message = f"conv1: {simulator} resets nir.IF to a value, where these neurons subtract"
    with pytest.raises(ValueError, match=message):
        to_nir(snn, for_=simulator, steps=5, images=images)


def noisy():
    from jaxsnn import with_unit_dropout

    return with_unit_dropout(scattered(**NETWORKS[0])[0], "conv1", 0.5)


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (lambda: scattered(**NETWORKS[0])[0], {"for_": "spyx"}, "spyx cannot run it: its neurons"),
        (lambda: scattered(**NETWORKS[0])[0], {"for_": "brian"}, "'brian' is no simulator known"),
        (lambda: scattered(**NETWORKS[0])[0], {"steps": 0}, "steps=0"),
        (noisy, {"steps": 1}, "conv1: its neurons are 'unit_dropout'"),
        (leaky_network, {}, "conv1 has a memory; say for how many steps="),
        (
            lambda: leaky_network(arch=parse("4C3-MP2-8", input_shape=(8, 8, 2), norm=False)),
            {"steps": 2},
            "conv1: NIR has no max pooling of currents",
        ),
        (
            lambda: leaky_network("zero", emit="potential"),
            {"steps": 2},
            "emits its potential and is reset to zero",
        ),
        (
            lambda: leaky_network("zero", arch=parse("8", input_shape=(8, 8, 2), norm=False)),
            {"steps": 2, "for_": "sinabs", "images": FRAMES},
            "is a LIF, which it does not import",
        ),
    ],
)
def test_what_is_refused(build, options, message):
    with pytest.raises(ValueError, match=message):
        to_nir(build(), **options)


def test_simulators_go_by_name_or_member():
    snn, _ = scattered(**NETWORKS[0])
    one, other = (to_nir(snn, for_=which).graph for which in ("sinabs", Simulator.SINABS))
    assert one.metadata == other.metadata


TRACKING = [{}, {"rising": True}, {"per_step": 3, "rising": True}]


@pytest.mark.parametrize("settings", TRACKING, ids=str)
def test_negative_spikes_that_follow_their_level(settings):
    """Input once, then 12 steps until all is at rest: every spike, up and down, of every step."""
    *_, snn, images = converted(
        3, method=methods.negative_spikes, gammas="mixed", settings=settings
    )
    export = to_nir(snn, steps=12, images=images)
    assert export.is_exact
    network = from_nir(export.graph)
    x = np.zeros((12, len(images), *network["input"].shape))
    x[0] = np.moveaxis(images, -1, 1)
    out = np.asarray(network.run(x).recorded["output"])[..., 0, 0].cumsum(0)
    trace = simulate(snn, images, steps=12)
    np.testing.assert_array_equal(out, trace.readout)
    assert (np.diff(out, axis=0) != 0).any()
    assert sum(int(n.sum()) for n in trace.counters.negative.values()) > 0


def tracked_residual(text, method):
    """A converted network of tracking neurons, or of threshold units, with a residual block."""
    arch = parse(text, input_shape=(6, 6, 2), classes=4)
    net = Net(arch, hidden(method.activation), initialiser=FanInUniform())
    variables = init_variables(net, jax.random.key(1))
    images = np.random.default_rng(2).integers(-200, 201, (5, 6, 6, 2)).astype(np.int16)
    encoding = Encoding("onset", 1 / 64, 200)
    weights = SiteMap(full_precision())
    return convert(variables, arch, method, weights=weights, encoding=encoding), images


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["3C3p1-[3C3p1-4C3s2p1]+norm-6", "3C3p1-[3C3p1-5C3s2p1]+padded-[5C3p1]+identity"]
)
def test_a_residual_block_of_negative_spikes(text):
    snn, images = tracked_residual(text, methods.negative_spikes(k=1))
    export = to_nir(snn, steps=10, images=images)
    assert export.is_exact
    network = from_nir(export.graph, dtype=np.float64)
    x = np.zeros((10, len(images), *network["input"].shape))
    x[0] = np.moveaxis(images, -1, 1)
    out = np.asarray(network.run(x).recorded["output"])[..., 0, 0].cumsum(0)
    np.testing.assert_array_equal(out, simulate(snn, images, steps=10).readout)
    assert (np.diff(out, axis=0) != 0).any()


def test_threshold_units_behind_a_shortcut_are_not_written():
    method = methods.scatter_gather(k=1, bound=2, sums_below=2**20)
    snn, images = tracked_residual("3C3p1-[3C3p1]+identity", method)
    with pytest.raises(UserError, match=r"block1.conv1: threshold units behind a shortcut"):
        to_nir(snn, steps=1, images=images)
