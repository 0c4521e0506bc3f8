"""Early exit equals a simulation of all steps with the rule applied afterwards, in NumPy."""

import dataclasses
import functools
import math
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import converted, shapes_in

from jaxsnn import (
    CutNormal,
    Encoding,
    Net,
    SiteMap,
    directly_trained,
    methods,
    neurons,
    parse,
    simulate,
)
from jaxsnn.arch.plan import plan
from jaxsnn.simulation.fusion.confidence import Calibration
from jaxsnn.simulation.image_by_image import programs
from jaxsnn.simulation.step_by_step import start, step
from jaxsnn.simulation.until_sure import Rule, certainty, early_exit, fused, sure

SEED = 1
STEPS = 60
CLASSES = 5
CURVE = np.linspace(7.3, 2.1, STEPS + 10).astype(np.float32)
CELL = neurons.delayed(neurons.integrate_and_fire(), 1)


@functools.cache
def network(presentation="held"):
    """A network whose neurons all fire at a rate, pools and heads as well.

    Weights are multiples of 1/256 and images of 1/16: every sum is exact.
    """
    arch = parse(
        "8C3p1-E-8C3s2p1", classes=CLASSES, input_shape=(8, 8, 1), norm=False,
        head_pool=True, head_bias=True,
    )  # fmt: skip
    net = Net(arch, SiteMap(CELL), initialiser=CutNormal(hidden=1))
    rng, params = np.random.default_rng(SEED), {}
    for site in plan(arch):
        if site.kernel_shape:
            inputs, outputs = math.prod(site.kernel_shape[:-1]), site.kernel_shape[-1]
            kernel = rng.normal(1 / inputs, 1.5 / math.sqrt(inputs), site.kernel_shape)
            bias = rng.normal(0.2, 0.1, outputs)
            params[site.name] = {"kernel": dyadic(kernel), "bias": dyadic(bias)}
    fixed = {
        site.name: {name: jnp.asarray(leaf) for name, leaf in CELL.fixed(channels).items()}
        for site in plan(arch)
        for channels in [site.drive_shape[-1]]
    }
    variables = jax.tree.map(jnp.asarray, {"params": params, "fixed": fixed})
    return directly_trained(net, variables, Encoding(presentation))


def dyadic(values):
    return (np.round(values * 256) / 256).astype(np.float32)


def images(count):
    """From dark to bright, each with another pattern."""
    draw = np.random.default_rng(7).integers(0, 17, (12, 8, 8, 1)) / 16
    bright = (np.arange(12) * 5 % 12 + 3)[:, None, None, None] / 8
    return (draw * np.round(bright * 8) / 8).astype(np.float32)[:count]


@functools.cache
def everything(count):
    trace = simulate(network(), images(count), steps=STEPS, counts=True)
    return jax.tree.map(np.asarray, trace)


def posterior_by_hand(early, final, alpha, steps):
    """Mean and variance of the Beta posterior in float64, as the paper writes it."""
    rate = early / steps + 1e-16
    beta = alpha * (1 / rate - 1)
    a, b = alpha + final, beta + steps - final
    mean = a / (a + b)
    return mean, mean * (b / (a + b)) / (a + b + 1)


def gap_by_hand(mean, variance):
    """Normal probability that the best exceeds the second, for one image's classes."""
    second, best = np.argsort(mean, kind="stable")[-2:]
    if mean[best] == mean[second]:
        return 0.5
    spread = variance[best] + variance[second]
    if not spread:
        return 1.0
    return 0.5 * (1 + math.erf((mean[best] - mean[second]) / math.sqrt(2 * spread)))


@functools.cache
def judged(count):
    """Confidence and prediction after every step, [T, B] each."""
    early, final = (one.astype(np.float64) for one in everything(count).readouts)
    sure_of, classes = np.zeros((STEPS, count)), np.zeros((STEPS, count), int)
    for t in range(STEPS):
        for image in range(count):
            counts = (early[t, image], final[t, image])
            mean, variance = posterior_by_hand(*counts, float(CURVE[t]), t + 1)
            sure_of[t, image] = gap_by_hand(mean, variance)
            classes[t, image] = np.argmax(mean)
    return sure_of, classes


def rule(threshold=0.9, earliest=1, **options):
    return Rule(CURVE, threshold, earliest, **options)


def stopped(count, threshold, earliest, curve=None):
    """Step, prediction and confidence of each image: a loop over what was simulated."""
    confidences, classes = judged(count)
    confidences = confidences if curve is None else np.interp(confidences, *curve)
    result = []
    for image in range(count):
        stop, done = STEPS, False
        for t in range(earliest, STEPS + 1):
            # No rounding decides whether a confidence reaches the threshold.
            assert abs(confidences[t - 1, image] - threshold) > 1e-6
            if confidences[t - 1, image] >= threshold:
                stop, done = t, True
                break
        result.append((stop, classes[stop - 1, image], confidences[stop - 1, image], done))
    return [np.array(column) for column in zip(*result, strict=True)]


def check(actual, count, threshold, earliest, curve=None):
    """``found`` is the slow rule's result."""
    stops, classes, confidences, done = stopped(count, threshold, earliest, curve)
    np.testing.assert_array_equal(actual.stops, stops)
    np.testing.assert_array_equal(actual.predictions, classes)
    np.testing.assert_array_equal(actual.done, done)
    np.testing.assert_allclose(actual.confidence, confidences, rtol=0, atol=2e-6)
    trace = everything(count)
    spikes, operations = np.zeros(count, np.int64), np.zeros(count, np.int64)
    channels = {site.name: site.drive_shape[-1] for site in plan(network().arch)}
    heads = [site.name for site in plan(network().arch) if site.role in ("exit", "readout")]
    for image, stop in enumerate(stops):
        for counted in trace.counters.spikes.values():
            spikes[image] += counted[:stop, image].sum()
        for name, counted in trace.counters.events.items():
            if name not in heads:
                operations[image] += counted[:stop, image].sum() * channels[name]
    np.testing.assert_array_equal(actual.spikes, spikes)
    np.testing.assert_array_equal(actual.operations, operations)
    for head, whole in zip(actual.trace.readouts, trace.readouts, strict=True):
        rows = np.minimum(np.arange(1, stops.max() + 1)[:, None], stops) - 1
        np.testing.assert_array_equal(head, whole[rows, np.arange(count)])


@pytest.mark.parametrize(("count", "every"), [(1, 3), (5, 4), (12, 1), (12, 8)])
def test_equals_a_rule_applied_to_a_whole_simulation(count, every):
    for threshold, earliest in ((0.9, 1), (0.8, 21)):
        stopped = early_exit(
            network(), images(count), rule(threshold, earliest), steps=STEPS, every=every
        )
        check(stopped, count, threshold, earliest)
        assert np.all(np.diff(stopped.sizes) <= 0)
        if count == 12:
            assert len(set(stopped.stops.tolist())) > (4 if earliest == 1 else 2)
            assert stopped.sizes.min() < 12


def test_images_that_are_done_are_not_computed():
    stopped = early_exit(network(), images(12), rule(0.8), steps=STEPS, every=1)
    size, sizes = 12, []
    for last in range(1, stopped.stops.max() + 1):
        sizes.append(size)
        running = int((stopped.stops > last).sum())
        while size > 1 and running and running <= size // 2:
            size //= 2
    assert stopped.sizes.tolist() == sizes
    assert len(set(sizes)) > 2
    assert sum(sizes) < 0.75 * 12 * stopped.stops.max()


def test_images_without_a_spike_are_said():
    for earliest in (1, 4, 30):  # the first step ends before a spike has come through the delays
        stopped = early_exit(network(), images(6), rule(0.0, earliest), steps=STEPS, every=3)
        early, final = (np.asarray(one)[-1].sum(-1) for one in stopped.trace.readouts)
        assert stopped.undecided.tolist() == (early + final == 0).tolist()
        assert stopped.undecided.all() == (earliest == 1)
        assert not stopped.predictions[stopped.undecided].any()
    assert not stopped.undecided.any()


def test_a_calibrated_rule():
    curve = np.array([0.5, 0.8, 1.0], np.float32), np.array([0.1, 0.4, 0.9], np.float32)
    stop_rule = rule(0.6, calibration=Calibration(*curve))
    actual = early_exit(network(), images(5), stop_rule, steps=STEPS, every=4)
    check(actual, 5, 0.6, 1, curve)
    assert actual.stops.min() < STEPS
    assert not np.array_equal(actual.stops, stopped(5, 0.6, 1)[0])


def test_thresholds_that_end_at_once_and_never():
    stopped = early_exit(network(), images(5), rule(0.0, 9), steps=STEPS, every=4)
    assert stopped.stops.tolist() == [9] * 5
    assert stopped.done.all()
    assert stopped.sizes.tolist() == [5] * 9
    impossible = Calibration(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.3, 0.5]))
    stop_rule = rule(0.6, calibration=impossible)
    stopped = early_exit(network(), images(5), stop_rule, steps=STEPS, every=4)
    assert stopped.stops.tolist() == [STEPS] * 5
    assert not stopped.done.any()
    whole = everything(5)
    chex.assert_trees_all_equal(stopped.trace._replace(counts={}), whole._replace(counts={}))


def test_another_rule_compiles_nothing():
    snn, shown = network(), images(12)
    stopped = early_exit(snn, shown, rule(), steps=STEPS, every=1)
    sizes, stops = set(stopped.sizes.tolist()), {tuple(stopped.stops.tolist())}
    further = programs(sure, 1, (), False, 1, 0)[1]
    before, sizes_before = further._cache_size(), len(sizes)
    for threshold, earliest, shift in ((0.8, 5, 0), (np.float64(0.9), 3, 4.0), (0.85, 1, -1)):
        stop_rule = Rule(CURVE + shift, threshold, earliest)
        stopped = early_exit(snn, shown, stop_rule, steps=STEPS - earliest, every=1)
        sizes |= set(stopped.sizes.tolist())
        stops.add(tuple(stopped.stops.tolist()))
    assert len(stops) == 4
    assert sizes <= {12, 6, 3, 1}
    assert further._cache_size() - before <= len(sizes) - sizes_before


def test_the_device_holds_no_row_per_step():
    snn, shown = network().program, jnp.asarray(images(12))
    begin, further = programs(sure, 4, (), False, 1, 0)
    shapes = {}
    for steps in (STEPS, 50 * STEPS):
        stop_rule = Rule(jnp.ones(steps), jnp.float32(0.9), jnp.int32(1))
        limit = jnp.int32(steps)
        frames, going = begin(snn, shown, limit)
        program = jax.make_jaxpr(further)(snn, stop_rule, frames, going, 0, limit).jaxpr
        actual = [shape for shape in shapes_in(program) if shape != (steps,)]
        assert not [shape for shape in actual if steps in shape]
        shapes[steps] = actual
    assert shapes[STEPS] == shapes[50 * STEPS]
    assert len(shapes[STEPS]) > 50


def test_heads_by_number():
    swapped = rule(early=1, final=0)
    actual = early_exit(network(), images(5), swapped, steps=STEPS, every=30)
    early, final = everything(5).readouts
    row = actual.stops - 1, np.arange(5)
    mean, _ = posterior_by_hand(
        final[row].astype(float), early[row].astype(float), CURVE[row[0]][:, None].astype(float),
        actual.stops[:, None],
    )  # fmt: skip
    np.testing.assert_array_equal(actual.predictions, mean.argmax(-1))
    assert not np.array_equal(actual.stops, stopped(5, 0.9, 1)[0])


def test_a_stream_of_one_image_is_the_simulation():
    snn, shown, stop_rule = network(), images(5), rule()
    trace = everything(5)
    confidences, _ = judged(5)
    state = first = start(snn, 5)
    for t in range(STEPS):
        state, posterior = step(snn, stop_rule, state, shown)
        assert state.number == t + 1
        for total, readout in zip(state.carry.total, trace.readouts, strict=True):
            np.testing.assert_array_equal(total, readout[t])
        expected = fused(stop_rule, tuple(one[t] for one in trace.readouts), np.full(5, t + 1))
        np.testing.assert_array_equal(posterior.a, expected.a)
        np.testing.assert_allclose(posterior.b, expected.b, rtol=1e-6)
        np.testing.assert_allclose(certainty(stop_rule, posterior), confidences[t], atol=2e-6)
    assert np.asarray(state.carry.total[-1]).any()
    again, _ = step(snn, stop_rule, first, shown)  # no state is changed or given away
    assert again.number == 1


def test_a_stream_of_other_images_is_the_simulation_of_frames():
    draw = np.random.default_rng(2)
    frames = np.stack([images(5)[draw.permutation(5)] for _ in range(20)])
    frames[12:] = 0
    expected = simulate(network("frames"), frames, steps=20)
    for snn in (network(), network("frames")):
        state = start(snn, 5)
        for t in range(20):
            state, posterior = step(snn, rule(), state, frames[t])
            for total, readout in zip(state.carry.total, expected.readouts, strict=True):
                np.testing.assert_array_equal(total, readout[t])
            assert posterior.mean.shape == (5, CLASSES)
    stopped = early_exit(network("frames"), frames, Rule(CURVE, 0.6, 15), steps=20, every=3)
    assert len(stopped.stops) == 5
    for image, stop in enumerate(stopped.stops):
        for head, readout in zip(stopped.trace.readouts, expected.readouts, strict=True):
            np.testing.assert_array_equal(head[-1, image], readout[stop - 1, image])


def test_a_stream_compiles_once_and_may_be_scanned():
    snn, shown = network(), jnp.asarray(images(3))
    compiled = sys.modules["jaxsnn.simulation.step_by_step"]._step
    before = compiled._cache_size()
    state, stop_rule = start(snn, 3), rule()
    for t in range(5):
        state, posterior = step(snn, rule(0.5 + t / 10), state, shown * (t % 2))
    assert compiled._cache_size() - before == 1

    def following(carry, x):
        carry, actual = step(snn, stop_rule, carry, x)
        return carry, actual.mean

    frames = jnp.stack([shown * (t % 2) for t in range(5)])
    first = start(snn, 3)._replace(number=jnp.int32(0))
    _, means = jax.lax.scan(following, first, frames)
    np.testing.assert_allclose(means[-1], posterior.mean, rtol=1e-6)


def test_refusals():
    snn, shown = network(), images(4)
    for stop_rule, message in [
        (Rule(CURVE[:20], 0.9), r"alpha has shape \(20,\), the simulation 60 steps"),
        (Rule(CURVE[:, None], 0.9), r"alpha has shape \(70, 1\)"),
        (Rule(-CURVE, 0.9), "at least 0"),
        (Rule(CURVE * np.nan, 0.9), "finite"),
        (rule(1.5), "threshold=1.5"),
        (rule(-0.1), "threshold=-0.1"),
        (rule(float("nan")), "threshold=nan"),
        (rule(0.9, 0), "earliest=0.* 1 to 60"),
        (rule(0.9, 61), "earliest=61.* 1 to 60"),
        (rule(0.9, 2.5), "earliest=2.5"),
        (rule(early=2), "early=2: the network has 2 heads, exit1, readout"),
        (rule(final=-3), "final=-3: the network has 2 heads"),
        (rule(final=0), "early=0 and final=0 are one head, exit1"),
    ]:
        with pytest.raises(ValueError, match=message):
            early_exit(snn, shown, stop_rule, steps=STEPS)
    for options, message in [
        ({"every": 0}, "every=0"),
        ({"steps": 0}, "steps=0"),
        ({"devices": 99}, "devices=99"),
    ]:
        with pytest.raises(ValueError, match=message):
            early_exit(snn, shown, rule(), **({"steps": STEPS} | options))
    with pytest.raises(ValueError, match="not finite"):
        early_exit(snn, shown * np.nan, rule(), steps=STEPS)


def test_networks_that_are_refused():
    snn = network()
    sums = SiteMap(CELL, (("exit", neurons.identity()),))
    with pytest.raises(ValueError, match="exit1: 'identity' does not fire at most one spike"):
        early_exit(dataclasses.replace(snn, neurons=sums), images(2), rule(), steps=STEPS)
    *_, single, pixels = converted(3, 2, method=methods.negative_spikes, shape=(4, 4, 1), convs=())
    with pytest.raises(ValueError, match="readout: 'identity'"):
        early_exit(single, pixels, rule(early=-1), steps=STEPS)


def test_streams_that_are_refused():
    snn, shown = network(), images(4)
    with pytest.raises(ValueError, match="batch=0"):
        start(snn, 0)
    with pytest.raises(ValueError, match="4 images for a stream of 3"):
        step(snn, rule(), start(snn, 3), shown)
    with pytest.raises(ValueError, match="images have shape"):
        step(snn, rule(), start(snn, 4), shown[:, :4])
    state, _ = step(snn, Rule(CURVE[:1], 0.9), start(snn, 4), shown)
    with pytest.raises(ValueError, match=r"step 2 of a stream, but the rule's alpha has shape"):
        step(snn, Rule(CURVE[:1], 0.9), state, shown)
