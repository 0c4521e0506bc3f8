"""Images that a criterion ends leave the batch, and keep what they had at their last step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import equations, fires, firing, firing_images, firing_network, shapes_in

from jaxsnn import neurons, simulate, unpack
from jaxsnn.simulation.image_by_image import halved, programs, run

STEPS = 23
SITES = ("conv1", "conv2", "dense1")


def ahead(values, sums, counters, numbers):
    """Done: the highest readout leads by a margin, not before a certain step."""
    del counters
    ranked = jnp.sort(sums[-1], axis=-1)
    leads = ranked[..., -1] - ranked[..., -2] >= values["margin"]
    return leads & (numbers[:, None] + 1 >= values["earliest"])


def busy(limit, sums, counters, numbers):
    """Done: that many neurons of one site spike in a step."""
    del sums, numbers
    return counters.spikes["conv1"] >= limit


def values(margin, earliest=1):
    return {"margin": jnp.float32(margin), "earliest": jnp.int32(earliest)}


@functools.cache
def held(count=11):
    """A network of multiples of 1/16 whose input never ends, images of different brightness."""
    layers, arch, leaves = firing_network(5)
    snn = firing(layers, arch, leaves, neurons.integrate_and_fire())
    images = firing_images(6, count)
    return snn, images * (np.arange(count) % 4 + 1)[:, None, None, None].astype(np.float32) / 4


@functools.cache
def everything(count):
    """``simulate`` of all steps, with the spikes of every neuron."""
    snn, images = held(count)
    trace = simulate(snn, images, steps=STEPS, record=SITES)
    spikes = {site: np.asarray(unpack(trace.records[site], snn, site)) for site in SITES}
    return jax.tree.map(np.asarray, trace), spikes


def first(done):
    """First row of bool [T, B] that holds, from 1, else T; and whether there is one."""
    return np.where(done.any(0), done.argmax(0) + 1, len(done)), done.any(0)


def leads(readout, margin, earliest=1):
    """The criterion ``ahead`` after every step."""
    ranked = np.sort(readout, axis=-1)
    late = np.arange(1, len(readout) + 1)[:, None] >= earliest
    return (ranked[..., -1] - ranked[..., -2] >= margin) & late


def check(actual, trace, spikes, done):
    """``found`` is ``trace`` up to the first step that is done, image by image."""
    stops, ended = first(done)
    np.testing.assert_array_equal(actual.stops, stops)
    np.testing.assert_array_equal(actual.done, ended)
    steps = stops.max()
    alive = np.arange(1, steps + 1)[:, None] <= stops
    rows = np.minimum(np.arange(1, steps + 1)[:, None], stops) - 1
    expected = trace.readout[rows, np.arange(len(stops))]
    np.testing.assert_array_equal(actual.trace.readout, expected)
    for one, other in zip(actual.trace.counters, trace.counters, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name][:steps] * alive)
    for site, emitted in spikes.items():
        mask = alive.reshape(*alive.shape, *(1,) * (emitted.ndim - 2))
        kept = emitted[:steps] * mask
        if site in actual.trace.records:
            np.testing.assert_array_equal(unpack(actual.trace.records[site], held()[0], site), kept)
        if actual.trace.counts:
            np.testing.assert_array_equal(actual.trace.counts[site], kept.sum(0, dtype=np.int32))


def computed(stops, every):
    """Images that each step is computed for, by the rule of halving."""
    size, sizes = len(stops), []
    for last in range(every, stops.max() + every, every):
        sizes += [size] * every
        running = int((stops > last).sum())
        size = halved(size, running) if running else size
    return sizes[: stops.max()]


@pytest.mark.parametrize(("count", "every"), [(1, 2), (4, 5), (11, 1), (11, 5), (11, 40)])
def test_equals_a_simulation_that_is_cut_image_by_image(count, every):
    snn, images = held(count)
    trace, spikes = everything(count)
    for margin, earliest in ((1.0, 4), (1.5, 1)):
        done = leads(trace.readout, margin, earliest)
        options = {"record": SITES, "counts": True}
        actual = run(
            snn, images, ahead, values(margin, earliest), steps=STEPS, every=every, **options
        )
        check(actual, trace, spikes, done)
        np.testing.assert_array_equal(actual.sizes, computed(actual.stops, every))
    if count == 11:
        assert len(set(actual.stops.tolist())) > 3
        assert not actual.done.all()  # some images wait for the limit
        assert every > STEPS or actual.sizes.min() < count


def test_a_criterion_of_the_counters():
    snn, images = held()
    trace, spikes = everything(11)
    limit = int(np.median(trace.counters.spikes["conv1"])) + 2
    actual = run(snn, images, busy, jnp.int32(limit), steps=STEPS, every=3, record="conv2")
    assert set(actual.trace.records) == {"conv2"}
    check(actual, trace, spikes, trace.counters.spikes["conv1"] >= limit)
    assert len(set(actual.stops.tolist())) > 1


def test_the_last_step_is_told_from_none():
    snn, images = held()
    trace, _ = everything(11)
    for steps in (STEPS, 7):
        done = leads(trace.readout[:steps], 0.0, steps)
        actual = run(snn, images, ahead, values(0.0, steps), steps=steps, every=4)
        check(actual, trace, {}, done)
        assert actual.done.all()
        never = run(snn, images, ahead, values(0.0, steps + 1), steps=steps, every=4)
        assert not never.done.any()
        assert never.stops.tolist() == actual.stops.tolist() == [steps] * 11
        assert never.sizes.tolist() == [11] * steps


def test_dtypes_and_the_host():
    snn, images = held()
    options = {"record": SITES[:1], "counts": True}
    actual = run(snn, images, ahead, values(2.0), steps=STEPS, every=3, **options)
    leaves = jax.tree.leaves(actual)
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
    assert actual.stops.dtype == np.int32
    assert actual.done.dtype == bool
    trace = simulate(snn, images, steps=len(actual.sizes), **options)
    shapes = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(trace)]
    assert [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(actual.trace)] == shapes


def test_other_values_steps_and_orders_compile_nothing():
    snn, images = held()
    further = programs(ahead, 3, (), False, 1, 0)[1]
    before = further._cache_size()
    actual = run(snn, images, ahead, values(1.0), steps=STEPS, every=3)
    sizes = set(actual.sizes.tolist())
    assert 1 < len(sizes) <= 4  # 11, 5, 2, 1
    assert further._cache_size() - before == len(sizes)
    seen = set()
    for margin, earliest, steps in ((0.75, 4, STEPS), (1.5, 2, STEPS), (1.0, 1, 15)):
        other = run(snn, images[::-1], ahead, values(margin, earliest), steps=steps, every=3)
        sizes |= set(other.sizes.tolist())
        seen.add(tuple(other.stops.tolist()))
    assert len(seen) == 3
    assert further._cache_size() - before == len(sizes) <= 4


def test_the_device_holds_the_rows_of_one_piece():
    snn, images = held()
    begin, further = programs(ahead, 3, SITES, True, 1, 0)
    limit = jnp.int32(10**6)
    shown, going = begin(snn.program, images, limit)
    arguments = (snn.program, values(2.0), shown, going, 0, limit)
    program = jax.make_jaxpr(further)(*arguments).jaxpr
    assert len(equations(program)) > 50
    largest = max(int(np.prod(shape)) for shape in shapes_in(program))
    pixels = images.size
    assert largest <= 3 * 4 * pixels  # three steps of the widest map, four channels for two
    before = [leaf.shape for leaf in jax.tree.leaves(going)]
    after = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(further, *arguments)[0])]
    assert after == before


def test_float_weights():
    layers, arch, leaves = firing_network(5, floating=True)
    snn = firing(layers, arch, leaves, neurons.integrate_and_fire())
    images = firing_images(6, 4)
    trace = simulate(snn, images, steps=12)
    actual = run(snn, images, ahead, values(3.0), steps=12, every=12)  # one batch throughout
    stops, _ = first(leads(np.asarray(trace.readout), 3.0))
    np.testing.assert_array_equal(actual.stops, stops)
    assert len(set(stops.tolist())) > 1
    rows = np.asarray(trace.readout)[stops - 1, np.arange(4)]
    np.testing.assert_allclose(actual.trace.readout[-1], rows, rtol=1e-5, atol=1e-5)


def test_frames():
    snn, images = held()
    snn = dataclasses.replace(
        snn, encoding=dataclasses.replace(snn.encoding, presentation="frames")
    )
    draw = np.random.default_rng(8)
    frames = np.stack([images[draw.permutation(11)] for _ in range(STEPS)])
    trace = jax.tree.map(np.asarray, simulate(snn, frames, steps=STEPS))
    actual = run(snn, frames, ahead, values(1.0), steps=STEPS, every=3)
    check(actual, trace, {}, leads(trace.readout, 1.0))
    assert actual.sizes.min() < 11


def test_halving():
    assert [halved(12, running) for running in (12, 7, 6, 4, 3, 2, 1)] == [12, 12, 6, 6, 3, 3, 1]
    assert [halved(24, running, 4) for running in (13, 12, 5, 4, 1)] == [24, 12, 12, 4, 4]


def test_refusals():
    snn, images, _ = fires()
    for options, message in [
        ({"every": 0}, "every=0: give"),
        ({"every": 2.5}, "every=2.5: give"),
        ({"steps": 0}, "steps=0"),
        ({"devices": 99}, "devices=99"),
        ({"record": ("nowhere",)}, "record='nowhere'"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(snn, images, ahead, values(1.0), **({"steps": 3, "every": 2} | options))
    with pytest.raises(ValueError, match="nothing to simulate"):
        run(snn, images[:0], ahead, values(1.0), steps=3, every=2)
