"""The engine: records, blocks, streams, devices, memory, settled mode, noise."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from helpers import (
    FLOAT,
    converted,
    firing,
    firing_images,
    firing_network,
    levels_network,
    shapes_in,
)

from jaxsnn import (
    Encoding,
    SiteMap,
    convert,
    evaluate,
    hidden,
    methods,
    neurons,
    parse,
    plan,
    settled,
    simulate,
    unpack,
    with_leaf,
    with_unit_dropout,
)
from jaxsnn import simulate as simulate_function
from jaxsnn.arch.layers import Dense
from jaxsnn.arch.notation import Arch
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.network import weight_quantisers
from jaxsnn.simulation import counters
from jaxsnn.simulation.engine import run
from jaxsnn.simulation.fixed_steps import _simulate, image_keys

IF = neurons.integrate_and_fire
assert simulate_function is simulate


@functools.cache
def scatter():
    return converted(11, gammas="mixed")


@functools.cache
def spiking(signed=True, delay=0, presentation="held"):
    layers, arch, leaves = firing_network(5, signed=signed)
    neuron = neurons.delayed(IF(signed), delay) if delay else IF(signed)
    return firing(layers, arch, leaves, neuron, presentation)


def equal(one, other):
    """Whether two trees are bit for bit the same."""
    left, right = jax.tree.leaves(one), jax.tree.leaves(other)
    assert len(left) == len(right) > 0
    return all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(left, right, strict=True)
    )


def test_records_unpack_to_the_counts():
    _, _, _, snn, images = scatter()
    names = [site.name for site in plan(snn.arch)][:-1]
    trace = simulate(snn, images, steps=1, record=names, counts=True)
    assert set(trace.records) == set(names)
    for name in names:
        shape = trace.counts[name].shape
        assert trace.records[name].dtype == jnp.uint8
        assert trace.records[name].shape == (1, 4, *shape[:-1], -(-shape[-1] // 8))
        spikes = unpack(trace.records[name], snn, name)
        np.testing.assert_array_equal(spikes[0], trace.counts[name])
        axes = tuple(range(1, len(shape)))
        np.testing.assert_array_equal(spikes[0].sum(axes), trace.counters.spikes[name][0])
        assert trace.counts[name].max() == 4
    # Only what was asked for is returned.
    bare = simulate(snn, images, steps=1, record=("conv2",))
    assert list(bare.records) == ["conv2"]
    assert bare.counts == {}


def test_signed_records_keep_their_signs():
    snn, images = spiking(), firing_images(6)
    trace = simulate(snn, images, steps=6, record=("conv2",), counts=True)
    spikes = np.asarray(unpack(trace.records["conv2"], snn, "conv2"))
    assert set(np.unique(spikes)) == {-1, 0, 1}
    np.testing.assert_array_equal(spikes.sum(0), trace.counts["conv2"])


@pytest.mark.parametrize("block", [1, 2, 3, 4, 8])
def test_any_block_gives_the_same_trace(block):
    # 5 steps in blocks of 2, 3, 4 or 8: the rest of the last block must not be counted.
    snn, images = spiking(), firing_images(6)
    names = ("conv1", "dense1")
    expected = simulate(snn, images, steps=5, block=5, record=names, counts=True)
    trace = simulate(snn, images, steps=5, block=block, record=names, counts=True)
    assert trace.readout.shape == (5, 4, 3)
    assert equal(trace, expected)
    for name in names:
        total = np.asarray(unpack(trace.records[name], snn, name), int).sum(0)
        np.testing.assert_array_equal(trace.counts[name], total)


def test_check_10_invariants_of_the_counters():
    snn, images = spiking(), firing_images(6)
    names = ("conv1", "conv2", "dense1")
    trace = simulate(snn, images, steps=9, block=4, counts=True, record=names)
    for name in names:
        net = trace.counts[name]
        spikes, negative = trace.counters.spikes[name], trace.counters.negative[name]
        axes = tuple(range(1, net.ndim))
        np.testing.assert_array_equal((spikes - 2 * negative).sum(0), net.sum(axes))
        running = np.asarray(unpack(trace.records[name], snn, name), int).cumsum(0)
        assert running.min() >= 0
        steps = np.arange(1, 10).reshape(-1, *(1,) * (running.ndim - 1))
        assert (running <= steps).all()
    assert int(trace.counters.negative["conv2"].sum()) > 0


def test_check_13_operations_are_border_aware_and_count_negative_spikes():
    snn, images = spiking(), firing_images(6)
    layers, _, _ = firing_network(5, signed=True)
    names = ("conv1", "conv2", "dense1")
    trace = simulate(snn, images, steps=6, record=names)
    events = {name: np.asarray(value) for name, value in trace.counters.events.items()}
    operations = counters.synaptic_operations(events, snn.arch)
    assert set(operations) == {"conv2", "dense1", "readout"}
    for source, layer in zip(names, layers[1:], strict=True):
        spikes = np.asarray(unpack(trace.records[source], snn, source), np.int64)
        expected = np.array([ref.sops(step, layer) for step in spikes])
        np.testing.assert_array_equal(operations[layer["name"]], expected)
        assert operations[layer["name"]].dtype == np.int64
    total = counters.total(operations, without=("readout",))
    np.testing.assert_array_equal(total, operations["conv2"] + operations["dense1"])


def test_predictions_and_readouts_by_hand():
    _, _, snn = levels_network(k=0, bound=2)
    # Levels 1, 2 at pixels 128, 384 and, with weight 2, 64, 192; then differences a - b and b - a.
    images = np.array([0, 64, 128, 255], np.uint8).reshape(-1, 1, 1, 1)
    trace = simulate(snn, images, steps=1, counts=True)
    assert trace.counts["dense1"].tolist() == [[0, 0], [0, 1], [1, 1], [1, 2]]
    assert trace.counters.spikes["dense1"].tolist() == [[0, 1, 2, 3]]
    assert trace.counters.spikes["dense2"].tolist() == [[0, 1, 0, 1]]
    assert trace.counters.events["readout"].tolist() == [[0, 1, 0, 1]]
    assert trace.predictions.tolist() == [[0, 0, 0, 0]]  # equal logits: the lowest class


def dense_integrator(weight):
    """One neuron of threshold 1 behind one pixel of the given weight, and a readout of weight 1."""
    arch = Arch((Dense(1, norm=False),), classes=1, input_shape=(1, 1, 1), norm=False)
    params = {"dense1": {"kernel": [[weight]]}, "readout": {"kernel": [[1.0]]}}
    fixed = {"dense1": {"threshold": [1.0], "initial": [0.0]}}
    is_leaf = lambda leaf: isinstance(leaf, list)  # noqa: E731
    return Spiking(
        variables=jax.tree.map(jnp.asarray, {"params": params, "fixed": fixed}, is_leaf=is_leaf),
        arch=arch,
        neurons=hidden(IF()),
        ann=hidden(neurons.relu()),
        weights=FLOAT,
        encoding=Encoding("frames"),
        accumulators=SiteMap("float32"),
        units=(),
    )


@pytest.mark.parametrize("block", [1, 2, 3, 5, 7])
def test_frames_are_streamed_in_order_at_every_block(block):
    snn = dense_integrator(0.5)
    frames = np.float32([[1, 0], [1, 4], [3, 0], [0, 0], [1, 2], [9, 9]]).reshape(6, 2, 1, 1, 1)
    # Image 0: V = .5, 1 fires 0, 1.5 fires .5, .5, 1 fires. Image 1: 0, 2 fires 1, 1 fires 0, 0,
    # 1 fires. The sixth frame is not reached in five steps.
    trace = simulate(snn, frames, steps=5, block=block, counts=True)
    assert trace.readout[:, 0, 0].tolist() == [0, 1, 2, 2, 3]
    assert trace.readout[:, 1, 0].tolist() == [0, 1, 2, 2, 3]
    assert trace.counts["dense1"].tolist() == [[3], [3]]
    assert trace.counters.spikes["dense1"].tolist() == [[0, 0], [1, 1], [1, 1], [0, 0], [1, 1]]


def test_too_few_frames_are_refused():
    snn = dense_integrator(0.5)
    with pytest.raises(ValueError, match="3 frames cannot be streamed for 4 steps"):
        simulate(snn, np.ones((3, 2, 1, 1, 1), np.float32), steps=4)
    with pytest.raises(ValueError, match="images have 4 axes, 'frames' input has 5"):
        simulate(snn, np.ones((2, 1, 1, 1), np.float32), steps=1)


def test_refusals():
    _, _, _, snn, images = scatter()
    for call, message in [
        (
            lambda: simulate(snn, images / 256, steps=1),
            "images are float64.*before scaling",
        ),
        (lambda: simulate(snn, images[:, :4], steps=1), "the network takes"),
        (lambda: simulate(snn, images, steps=0), "steps=0: give a whole number"),
        (
            lambda: simulate(snn, images, steps=1, block=0),
            "block=0: give a whole number of at least 1",
        ),
        (
            lambda: simulate(snn, images, steps=1, record=("conv9",)),
            "'conv9'.*conv1, conv2",
        ),
        (lambda: simulate(snn, images, steps=1, record=("readout",)), "no spiking site"),
        (lambda: simulate(snn, images, steps=1, devices=99), "devices=99: there are 1"),
        (lambda: simulate(snn, images, steps=1, devices=0), "devices=0"),
        (lambda: with_leaf(snn, "conv1", "threshold", 1), "known: conv1/thresholds"),
        (lambda: with_unit_dropout(snn, "readout"), "known: conv1, conv2, dense1"),
        (lambda: with_unit_dropout(snn, "conv1", 1.5), "1.5 is no probability"),
        (lambda: simulate(with_unit_dropout(snn, "conv1"), images, steps=1), "pass key="),
        (lambda: settled(spiking()), "conv1: theory gives no final count.*integrate_and_fire"),
    ]:
        with pytest.raises(ValueError, match=f"(?s){message}"):
            call()


def test_settled_mode_is_the_simulation():
    _, _, _, snn, images = scatter()
    assert equal(
        simulate(settled(snn), images, steps=1, counts=True),
        simulate(snn, images, steps=1, counts=True),
    )


def test_one_compile_for_every_batch():
    _, _, _, snn, images = scatter()
    before = _simulate._cache_size()
    evaluate(snn, images, batch_size=5)  # 5 + 5 + 5 + 1
    assert _simulate._cache_size() == before + 1
    moved = snn.variables["fixed"]["conv1"]["thresholds"] + 1
    evaluate(with_leaf(snn, "conv1", "thresholds", moved), images, batch_size=5)
    assert _simulate._cache_size() == before + 1


def test_memory_does_not_grow_with_the_number_of_steps():
    snn, images = spiking(), jnp.asarray(firing_images(6))
    sizes = [4 * site.neurons for site in plan(snn.arch) if site.neurons]

    def largest(block):
        engine = functools.partial(run, steps=50, block=block)
        jaxpr = jax.make_jaxpr(engine)(snn, images, None)
        shapes = shapes_in(jaxpr.jaxpr)
        assert len(shapes) > 50
        return max(int(np.prod(shape)) for shape in shapes)

    # Largest map: 64 neurons x 4 images. Counters are [50, 4], the readout [50, 4, 3].
    assert largest(1) < 50 * min(sizes)
    assert largest(50) >= 50 * max(sizes)  # the measure does see what a whole block holds


# ---------------------------------------------------------------- noise


def test_noise_of_zero_is_clean_and_of_one_is_silent():
    _, _, _, snn, images = scatter()
    key = jax.random.key(3)
    clean = simulate(snn, images, steps=1, counts=True)
    none = simulate(with_unit_dropout(snn, "conv1"), images, steps=1, key=key, counts=True)
    assert equal(none, clean)
    gone = simulate(with_unit_dropout(snn, "conv1", 1.0), images, steps=1, key=key, counts=True)
    assert not gone.counts["conv1"].any()
    some = simulate(with_unit_dropout(snn, "conv1", 0.2), images, steps=1, key=key, counts=True)
    ratio = some.counts["conv1"].sum() / clean.counts["conv1"].sum()
    assert ratio == pytest.approx(0.8, abs=0.03)


def test_noise_asked_for_twice_is_noise_of_the_last_ratio():
    _, _, _, snn, images = scatter()
    options = {"steps": 1, "key": jax.random.key(3), "counts": True}
    once = simulate(with_unit_dropout(snn, "conv1", 0.5), images, **options)
    twice = with_unit_dropout(with_unit_dropout(snn, "conv1", 0.9), "conv1", 0.5)
    assert equal(simulate(twice, images, **options), once)


def test_noise_depends_on_the_image_not_on_the_batch():
    _, _, _, snn, images = scatter()
    snn = with_unit_dropout(snn, "conv1", 0.4)
    key = jax.random.key(5)
    whole = simulate(snn, images, steps=1, key=key, counts=True).counts
    part = simulate(snn, images[6:10], steps=1, key=key, counts=True, first_image=6).counts
    for name, count in part.items():
        np.testing.assert_array_equal(count, whole[name][6:10])
    moved = simulate(snn, images[6:10], steps=1, key=key, counts=True).counts["conv1"]
    assert (moved != whole["conv1"][6:10]).any()
    assert image_keys(None, 0, 4) is None


def test_noise_is_drawn_anew_in_every_step_and_alike_in_every_block():
    snn = with_unit_dropout(spiking(), "conv1", 0.5)
    options = {"steps": 5, "key": jax.random.key(1), "record": ("conv1",)}
    traces = [simulate(snn, firing_images(6), block=block, **options) for block in (1, 2)]
    assert equal(*traces)


# ---------------------------------------------------------------- devices

DEVICES = """
import sys; sys.path.insert(0, "tests")
import chex, jax, numpy as np
from helpers import converted, firing, firing_images, firing_network
from jaxsnn import neurons, simulate, evaluate, with_unit_dropout
assert jax.local_device_count() == 8
_, _, _, snn, images = converted(11, gammas="mixed")
layers, arch, leaves = firing_network(5, signed=True)
fires = firing(layers, arch, leaves, neurons.integrate_and_fire(True))
def same(snn, images, **options):
    one = simulate(snn, images, counts=True, devices=1, **options)
    for devices in (2, 8):
        many = simulate(snn, images, counts=True, devices=devices, **options)
        assert len(jax.tree.leaves(one)) > 5
        chex.assert_trees_all_equal(one, many, strict=True)
same(snn, images, steps=1, record=("conv2",))
same(with_unit_dropout(snn, "conv1", 0.3), images, steps=1, key=jax.random.key(0))
same(fires, firing_images(6, 16), steps=5, block=2, record=("conv1",))
one = evaluate(snn, images[:13], np.arange(13) % 5, batch_size=8)
many = evaluate(snn, images[:13], np.arange(13) % 5, batch_size=8, devices=8)
chex.assert_trees_all_equal(one, many)
try:
    simulate(snn, images[:9], steps=1, devices=8)
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_eight_devices_are_bit_identical(run_python):
    assert "batch of 9 must be a multiple" in run_python(DEVICES, devices=8)


def test_spiking_is_a_frozen_tree_of_arrays():
    _, _, _, snn, _ = scatter()
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(snn))
    with pytest.raises(dataclasses.FrozenInstanceError):
        snn.variables = {}
    assert jax.tree.structure(snn) == jax.tree.structure(jax.tree.map(lambda leaf: leaf + 1, snn))


def test_counts_beyond_int8_are_unpacked_whole():
    arch = parse("3", classes=2, input_shape=(1, 1, 1))
    variables = {"params": {"dense1": {"kernel": np.ones((1, 3), np.float32)}}, "batch_stats": {}}
    norm = {"scale": np.ones(3, np.float32), "bias": np.zeros(3, np.float32)}
    variables["params"]["dense1"]["norm"] = norm
    statistics = {"mean": np.zeros(3, np.float32), "var": np.full(3, 0.5, np.float32)}
    variables["batch_stats"]["dense1"] = {"norm": statistics}
    variables["params"]["readout"] = {"kernel": np.ones((3, 2), np.float32)}
    weights = SiteMap(weight_quantisers.full_precision())
    snn = convert(variables, arch, methods.scatter_gather(k=7, bound=2), weights=weights)
    image = np.full((1, 1, 1, 1), 255, np.uint8)
    trace = simulate(snn, image, steps=1, counts=True, record=("dense1",))
    assert int(trace.counts["dense1"][0, 0]) == 180  # 128 * 255 / 256 / sqrt(0.50001), half up
    assert equal(unpack(trace.records["dense1"], snn, "dense1")[0], trace.counts["dense1"])


def test_pixels_beyond_the_bound_of_the_sums_are_refused():
    _, _, _, snn, images = scatter()
    narrow = dataclasses.replace(snn, encoding=Encoding("onset", 1.0, highest=1))
    with pytest.raises(ValueError, match=r"an input of \d+ is beyond Encoding.highest = 1"):
        simulate(narrow, images, steps=1)
    assert simulate(narrow, images % 2, steps=1).readout.shape[0] == 1
