"""Evaluation in padded batches equals a loop over images, with and without the settle stop."""

import functools

import chex
import jax
import numpy as np
import pytest
import reference as ref
from helpers import converted, fires, pixels, scatter

from jaxsnn import convert, evaluate, methods, parse, simulate, sweep, with_unit_dropout
from jaxsnn.io.progress import batches as batches_of
from jaxsnn.simulation.image_by_image import programs
from jaxsnn.simulation.until_silent import EVERY, silent


@functools.cache
def settling():
    """Dense network with negative spikes; the last images of a data set settle first."""
    layers, *_, snn, images = converted(
        34,
        images=11,
        k=1,
        bound=None,
        method=methods.negative_spikes,
        shape=(3, 3, 1),
        convs=(),
        dense=(9, 9, 9),
    )
    images[7:] //= 32
    return layers, snn, images, np.arange(11) % 5


def test_batches_are_of_one_size_and_repeat_the_last_row():
    actual = [(rows.tolist(), real) for rows, real in batches_of(5, 2)]
    assert actual == [([0, 1], 2), ([2, 3], 2), ([4, 4], 1)]


@pytest.mark.parametrize("batch_size", [4, 11, 16])
def test_evaluation_equals_a_loop_over_images(batch_size):
    snn, images, labels = fires()
    evaluation = evaluate(snn, images, labels, steps=4, batch_size=batch_size)
    singles = [simulate(snn, images[n : n + 1], steps=4) for n in range(7)]
    predictions = np.concatenate([np.asarray(t.predictions) for t in singles], axis=1)
    np.testing.assert_array_equal(evaluation.predictions, predictions)
    np.testing.assert_array_equal(evaluation.correct, (predictions == labels).sum(1))
    assert evaluation.accuracy_per_step == [n / 7 for n in evaluation.correct.tolist()]
    for name, steps in evaluation.spikes.items():
        np.testing.assert_array_equal(steps, sum(t.counters.spikes[name][:, 0] for t in singles))
        negative = sum(t.counters.negative[name][:, 0] for t in singles)
        np.testing.assert_array_equal(evaluation.negative[name], negative)
        assert steps.dtype == np.int64
    channels = {"conv2": 5, "dense1": 7, "readout": 3}
    for name, steps in evaluation.operations.items():
        events = sum(t.counters.events[name][:, 0] for t in singles)
        np.testing.assert_array_equal(steps, np.asarray(events) * channels[name])
    spikes = [sum(int(s.sum()) for s in t.counters.spikes.values()) for t in singles]
    assert evaluation.per_image_spikes.tolist() == spikes
    operations = [
        sum(int(t.counters.events[n].sum()) * channels[n] for n in ("conv2", "dense1"))
        for t in singles
    ]
    assert evaluation.per_image_operations.tolist() == operations
    for n, trace in enumerate(singles):
        for field, parts in (
            (evaluation.image_spikes, trace.counters.spikes),
            (evaluation.image_negative, trace.counters.negative),
        ):
            np.testing.assert_array_equal(field[:, n], sum(a[:, 0] for a in parts.values()))
        heads = np.asarray(trace.counters.events["readout"][:, 0]) * 3
        np.testing.assert_array_equal(evaluation.image_head_operations[:, n], heads)
    assert evaluation.image_spikes.shape == evaluation.image_operations.shape == (4, 7)
    assert evaluation.image_operations.dtype == evaluation.image_head_operations.dtype == np.int64
    assert evaluation.images == 7


def test_noise_does_not_depend_on_the_batch_size():
    snn, images, labels = scatter()
    noisy = with_unit_dropout(snn, "conv1", 0.3)
    one, other = (
        evaluate(noisy, images, labels, batch_size=size, key=jax.random.key(2)) for size in (3, 11)
    )
    chex.assert_trees_all_equal(one, other)
    clean = evaluate(snn, images, labels)
    assert one.per_image_spikes.sum() < clean.per_image_spikes.sum()


def test_evaluation_without_labels_and_with_wrong_ones():
    snn, images, labels = scatter()
    unlabelled = evaluate(snn, images)
    assert unlabelled.correct is None
    with pytest.raises(ValueError, match="no accuracy without labels"):
        _ = unlabelled.accuracy_per_step
    with pytest.raises(ValueError, match="11 images but 10 labels"):
        evaluate(snn, images, labels[:-1])
    with pytest.raises(ValueError, match=r"labels.*\(11, 5\)"):
        evaluate(snn, images, np.eye(5, dtype=int)[labels])
    with pytest.raises(ValueError, match=r"label 5 at index \d+ is outside 0\.\.4.*count from 1"):
        evaluate(snn, images, np.array([5, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5]))
    with pytest.raises(ValueError, match="dtype <U"):
        evaluate(snn, images, labels.astype(str))
    with pytest.raises(ValueError, match="no images"):
        evaluate(snn, images[:0])
    with pytest.raises(ValueError, match="batch_size"):
        evaluate(snn, images, batch_size=0)


def test_a_network_with_one_hidden_layer_has_no_operations_but_the_readouts():
    arch = parse("6", classes=3, input_shape=(2, 2, 1))
    rng = np.random.default_rng(0)
    norm = {"scale": np.ones(6), "bias": np.full(6, 0.5)}
    variables = {
        "params": {
            "dense1": {"kernel": rng.normal(size=(4, 6)), "norm": norm},
            "readout": {"kernel": rng.normal(size=(6, 3))},
        },
        "batch_stats": {"dense1": {"norm": {"mean": np.zeros(6), "var": np.ones(6)}}},
    }
    snn = convert(variables, arch, methods.scatter_gather(k=1, bound=2))
    images = pixels(rng, 4, (2, 2, 1))
    evaluation = evaluate(snn, images, np.zeros(4, int))
    assert evaluation.per_image_operations.tolist() == [0, 0, 0, 0]
    assert evaluation.per_image_spikes.min() > 0
    np.testing.assert_array_equal(
        evaluation.operations["readout"], [3 * evaluation.per_image_spikes.sum()]
    )
    np.testing.assert_array_equal(evaluation.image_head_operations, 3 * evaluation.image_spikes)
    assert sweep(snn, images, np.zeros(4, int)).operations.tolist() == [0]


# ---------------------------------------------------------------- settle stop


def test_evaluation_until_silence_equals_a_fixed_number_of_steps():
    _, snn, images, labels = settling()
    further = programs(silent, EVERY, (), False, 1, 0)[1]
    before = further._cache_size()
    evaluation = evaluate(snn, images, labels, steps=60, settle=True, batch_size=4)
    assert further._cache_size() - before in (1, 2, 3)  # batches of 4, 2 and 1 at most
    again = further._cache_size()
    evaluate(snn, images, labels, steps=60, settle=True, batch_size=4)
    assert further._cache_size() == again
    assert evaluation.steps < 60
    fixed = evaluate(snn, images, labels, steps=evaluation.steps, batch_size=11)
    chex.assert_trees_all_equal(evaluation, fixed)
    assert not evaluation.unsettled.any()
    assert evaluation.last_spike_step.max() == evaluation.steps - 1
    last = [  # the last batch of 3 images ran for fewer steps than the others
        int(evaluate(snn, images[part], steps=60, settle=True).steps)
        for part in (slice(0, 4), slice(8, 11))
    ]
    assert last[1] < last[0]
    types = [
        one.dtype
        for one in (evaluation.predictions, evaluation.image_spikes, evaluation.image_operations)
    ]
    assert types == [np.int32, np.int64, np.int64]


def test_totals_against_numpy():
    layers, snn, images, labels = settling()
    evaluation = evaluate(snn, images, labels, steps=60, settle=True, batch_size=5)
    expected = ref.tracking(layers, images / 256.0, 1, 127, evaluation.steps, eps=0.0)
    axes = [tuple(range(2, one.ndim)) for one in expected.spikes]
    pairs = list(zip(expected.spikes, axes, strict=True))
    spikes = sum(np.abs(one).sum(axis) for one, axis in pairs)
    np.testing.assert_array_equal(evaluation.image_spikes, spikes)
    negative = sum((one < 0).sum(axis) for one, axis in pairs)
    np.testing.assert_array_equal(evaluation.image_negative, negative)
    operations = [
        np.array([ref.sops(step, layer) for step in one])
        for one, layer in zip(expected.spikes, layers[1:], strict=True)
    ]
    np.testing.assert_array_equal(evaluation.image_operations, sum(operations[:-1]))
    np.testing.assert_array_equal(evaluation.image_head_operations, operations[-1])
    np.testing.assert_array_equal(evaluation.predictions, expected.logits.argmax(-1))
    silent = spikes == 0
    for n, last in enumerate(evaluation.last_spike_step):
        assert silent[last:, n].all()
        assert last == 0 or not silent[last - 1, n]
    np.testing.assert_array_equal(evaluation.per_image_spikes, spikes.sum(0))


@pytest.mark.parametrize("settle", [True, False])
def test_a_limit_below_the_settling_step_warns_with_the_share(settle):
    _, snn, images, labels = settling()
    whole = evaluate(snn, images, labels, steps=60, settle=True)
    limit = int(np.sort(whole.last_spike_step)[-3]) - 1
    still = int((whole.image_spikes[limit - 1] > 0).sum())
    assert 0 < still < 11
    with pytest.warns(
        UserWarning, match=rf"{still / 11:.2%} of the images \({still}\).*raise steps"
    ):
        evaluation = evaluate(snn, images, labels, steps=limit, settle=settle, batch_size=4)
    assert evaluation.steps == limit
    assert evaluation.unsettled.sum() == still
    np.testing.assert_array_equal(evaluation.predictions, whole.predictions[:limit])
    np.testing.assert_array_equal(evaluation.image_spikes, whole.image_spikes[:limit])


def test_what_silence_does_not_stop_is_refused():
    snn, images, labels = scatter()
    with pytest.raises(ValueError, match="conv1: 'threshold_count' may spike after a silent step"):
        evaluate(snn, images, labels, settle=True)
    snn, images, labels = fires()
    with pytest.raises(ValueError, match="presented as 'held' without an end, not once"):
        evaluate(snn, images, labels, steps=4, settle=True)
