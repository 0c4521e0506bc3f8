"""A network step by step, from a state that goes on, and as a function of other programs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clipped_networks import network as clipped_network
from helpers import HIDDEN_TERNARY
from jax import export

import jaxsnn
from jaxsnn import Encoding, Net, UserError, neurons
from jaxsnn.conversion import directly_trained
from jaxsnn.network.per_site import SiteMap

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 8, 8, 2), dtype=np.uint8)
ARCH = jaxsnn.parse("6C3same-P2-8", input_shape=(8, 8, 2), classes=4, pool="conv")


def variables(activation):
    net = Net(ARCH, jaxsnn.hidden(activation), initialiser=jaxsnn.CutNormal(hidden=0.4))
    return jaxsnn.init_variables(net, jax.random.key(0))


def scatter():
    tree = variables(neurons.quantised_relu(1, 2))
    method = jaxsnn.methods.scatter_gather(k=1, bound=2)
    return jaxsnn.convert(tree, ARCH, method, weights=HIDDEN_TERNARY)


def negative():
    tree = variables(neurons.quantised_relu(1, None))
    return jaxsnn.convert(tree, ARCH, jaxsnn.methods.negative_spikes(k=1, bound=None))


def trained_on_frames():
    arch = jaxsnn.parse("5C3same-8", input_shape=(8, 8, 2), classes=4, norm=False)
    net = Net(arch, SiteMap(neurons.leaky(), (("readout", neurons.identity()),)))
    tree = jaxsnn.init_variables(net, jax.random.key(1))
    # Large enough to spike, and of few bits, so that every order of a sum is exact.
    tree = jax.tree.map(lambda leaf: jnp.round(64 * leaf) / 4 if leaf.ndim > 1 else leaf, tree)
    return directly_trained(net, tree, Encoding("frames", 1 / 64))


NETWORKS = {"scatter": scatter, "negative": negative, "frames": trained_on_frames}
STEPS = 6


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


def shown(snn, steps=STEPS):
    """What the whole run sees, and what a step sees of it."""
    if snn.encoding.presentation != "frames":
        return IMAGES, lambda number: IMAGES
    frames = np.random.default_rng(1).integers(0, 256, (steps, *IMAGES.shape), dtype=np.uint8)
    return frames, lambda number: frames[number]


def rows(trace, number):
    return jax.tree.map(lambda leaf: leaf[number], (trace.readouts, trace.counters))


def test_every_step_is_a_row_of_the_whole_run(network):
    images, at = shown(network)
    site = jaxsnn.plan(network.arch)[0].name
    trace = jaxsnn.simulate(network, images, steps=STEPS, record=(site,))
    spikes = jaxsnn.unpack(trace.records[site], network, site)
    state = jaxsnn.start(network, len(IMAGES))
    for number in range(STEPS):
        state, out = jaxsnn.step(network, state, at(number), record=site)
        chex.assert_trees_all_equal((out.readouts, out.counters), rows(trace, number))
        np.testing.assert_array_equal(out.spikes[site], spikes[number])
        np.testing.assert_array_equal(out.predictions, trace.predictions[number])
    assert int(state.steps) == STEPS
    assert sum(int(total.sum()) for total in trace.counters.spikes.values()) > 0


def test_a_run_goes_on_where_another_ended(network, tmp_path):
    images, _ = shown(network)
    whole = jaxsnn.simulate(network, images, steps=STEPS)
    parts = (images[:4], images[4:]) if network.encoding.presentation == "frames" else (images,) * 2
    state = jaxsnn.start(network, len(IMAGES))
    first = jaxsnn.simulate(network, parts[0], steps=4, block=2, state=state)
    leaves, structure = jax.tree.flatten(first.state)  # a state is arrays, which can be kept
    np.savez(tmp_path / "state.npz", *map(np.asarray, leaves))
    with np.load(tmp_path / "state.npz") as kept:
        again = jax.tree.unflatten(structure, [jnp.asarray(kept[name]) for name in kept.files])
    second = jaxsnn.simulate(network, parts[1], steps=2, state=again)
    joined = jax.tree.map(
        lambda a, b: np.concatenate([a, b]),
        (first.readouts, first.counters),
        (second.readouts, second.counters),
    )
    chex.assert_trees_all_equal(joined, (whole.readouts, whole.counters))
    assert whole.state is None


def test_random_neurons_draw_the_same(key):
    snn = jaxsnn.with_unit_dropout(scatter(), "conv1", 0.3)
    trace = jaxsnn.simulate(snn, IMAGES, steps=3, key=key, first_image=5)
    state = jaxsnn.start(snn, len(IMAGES), key=key, first_image=5)
    for number in range(3):
        state, out = jaxsnn.step(snn, state, IMAGES)
        chex.assert_trees_all_equal((out.readouts, out.counters), rows(trace, number))


def test_a_step_compiles_once():
    snn = negative()
    state = jaxsnn.start(snn, len(IMAGES))
    state, _ = jaxsnn.step(snn, state, IMAGES)
    from jaxsnn.simulation import one_step

    compiled = one_step._step._cache_size()
    for _ in range(3):
        state, _ = jaxsnn.step(snn, state, IMAGES)
    assert one_step._step._cache_size() == compiled


def test_what_does_not_go_on_is_refused(key):
    snn = scatter()
    state = jaxsnn.start(snn, 2)
    with pytest.raises(UserError, match="3 images for a state of 2; show as many"):
        jaxsnn.step(snn, state, IMAGES)
    with pytest.raises(UserError, match="a run that is to go on ends with a whole block"):
        jaxsnn.simulate(snn, IMAGES[:2], steps=3, block=2, state=state)
    with pytest.raises(UserError, match="give key and counts to start"):
        jaxsnn.simulate(snn, IMAGES[:2], steps=2, state=state, key=key)
    for batch in (0, 2.0, "2"):
        with pytest.raises(UserError, match=f"batch={batch!r}: give a whole number of at least 1"):
            jaxsnn.start(snn, batch)
    with pytest.raises(UserError, match="first_image=-1"):
        jaxsnn.start(snn, 2, key=key, first_image=-1)


def test_steps_are_counted_with_those_before():
    """The sums of this network are bounded for the three steps of its input alone."""
    net = clipped_network(3, "10nb", bits=2, shape=(2, 2, 1))
    snn = net.snn(signed=True)
    last = jaxsnn.start(snn, len(net.images))._replace(steps=jnp.int32(3))
    for on in (lambda: jaxsnn.step(snn, last, net.images),
               lambda: jaxsnn.simulate(snn, net.images, steps=1, state=last)):  # fmt: skip
        with pytest.raises(UserError, match=r"steps=4: the bounds .* hold for the 3 steps"):
            on()


def test_as_a_function_it_is_jitted_and_vmapped(network):
    images, _ = shown(network)
    trace = jaxsnn.simulate(network, images, steps=STEPS)
    logits = jaxsnn.function(network, steps=STEPS)
    unit = dict(network.units).get("readout", 1.0)
    expected = np.asarray(trace.readout[-1], np.float32) * np.float32(unit)
    np.testing.assert_array_equal(logits(images), expected)
    np.testing.assert_array_equal(jax.jit(logits)(images), expected)
    both = jax.vmap(logits)(np.stack([images, images]))
    np.testing.assert_array_equal(both[1], expected)


def test_a_function_of_images_has_no_key():
    snn = jaxsnn.with_unit_dropout(scatter(), "conv1", 0.3)
    with pytest.raises(UserError, match="conv1: its neurons draw random numbers"):
        jaxsnn.function(snn, steps=3)


def test_logits_have_the_units_of_the_ann():
    snn = negative()
    spiking = jaxsnn.function(snn, steps=60)(IMAGES)
    tree = jaxsnn.conversion.snapped(variables(neurons.quantised_relu(1, None)), snn)
    ann = jaxsnn.forward(snn.float_ann, tree, snn.encoding.decode(jnp.asarray(IMAGES)))
    np.testing.assert_allclose(spiking, ann.readouts[-1][0], rtol=1e-4, atol=1e-4)


def test_an_exported_network_runs_without_this_library(tmp_path, run_python):
    snn = negative()
    logits = jax.jit(jaxsnn.function(snn, steps=40))
    program = export.export(logits)(jax.ShapeDtypeStruct(IMAGES.shape, jnp.uint8))
    (tmp_path / "network.bin").write_bytes(program.serialize())
    np.save(tmp_path / "images.npy", IMAGES)
    run_python(
        """
import sys
from pathlib import Path

sys.modules["jaxsnn"] = None  # importing it would fail
import numpy as np
from jax import export

place = Path(sys.argv[1])
program = export.deserialize(bytearray((place / "network.bin").read_bytes()))
np.save(place / "logits.npy", program.call(np.load(place / "images.npy")))
""",
        tmp_path,
    )
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), logits(IMAGES))
