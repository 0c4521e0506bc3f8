"""Backpropagation through time: what must not change the gradients, and that training learns."""

import functools
from collections import Counter
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsnn import neurons
from jaxsnn.arch import zoo
from jaxsnn.arch.plan import parse, totals
from jaxsnn.inputs import stimulus
from jaxsnn.io.checkpoints import Checkpoints
from jaxsnn.network import convolutions
from jaxsnn.training.gradients import Plan
from jaxsnn.training.options import Options
from jaxsnn.training.task import evaluate
from jaxsnn.training.through_time import spiking_net, threshold, through_time
from jaxsnn.training.train import train
from jaxsnn.training.update import programs

SENSOR = (8, 8, 2)
LEAKY = functools.partial(neurons.leaky, slope=5.0)


@functools.cache
def network(shape=(8, 8, 1), classes=3, learn=(), loss="ce_rate"):
    arch = parse(
        "4C3-MP2-6",
        input_shape=shape,
        classes=classes,
        norm=False,
        head_bias=True,
        head_neuron=True,
    )
    emit = "potential" if loss == "ce_membrane" else "spike"
    return spiking_net(arch, LEAKY(learn=learn), LEAKY(learn=learn, emit=emit))


def grown(tree):
    """Weights three times as large, so that every layer spikes."""
    return jax.tree.map(lambda leaf: 3 * leaf if leaf.ndim > 1 else leaf, tree)


@functools.cache
def start(net):
    task = through_time(net, stimulus.held(1), loss_of(net))
    return {**(outcome := dict(task.init(jax.random.key(3)))), "params": grown(outcome["params"])}


def loss_of(net):
    return "ce_membrane" if "'potential'" in repr(net.neurons) else "ce_rate"


def images(count=8, shape=(8, 8, 1)):
    return np.random.default_rng(1).integers(0, 256, (count, *shape)).astype(np.uint8)


def recordings(lengths, events=40):
    """Codes of events spread over the steps of every recording, and lengths."""
    rng, size = np.random.default_rng(2), int(np.prod(SENSOR))
    codes = [rng.integers(0, length * size, (events,)) for length in lengths]
    return {"codes": np.array(codes, np.int32), "lengths": np.array(lengths, np.int32)}


def outcome(task, net, batch, labels, steps=None, key=None):
    """Losses, spike counts and gradients of the mean loss of a batch."""
    variables = start(net)
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    keywords = {"axis_name": None} | ({} if steps is None else {"steps": steps})

    @jax.jit
    def of(params, batch):
        losses, (counts, _) = task.loss(
            params, rest, batch, jnp.asarray(labels), jax.random.key(0), True, **keywords
        )
        return jnp.mean(losses), (losses, counts)

    (_, (losses, counts)), gradients = jax.value_and_grad(of, has_aux=True)(
        variables["params"], jax.tree.map(jnp.asarray, batch)
    )
    return losses, counts, gradients


def assert_close(one, other, tolerance=1e-6):
    """Equal trees, up to a share of the largest number: all come from sums of such numbers."""
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(other))
    chex.assert_trees_all_close(one, other, rtol=0, atol=tolerance * largest)


def assert_alive(result):
    """Readouts spike, and every parameter has a gradient."""
    _, counts, gradients = result
    assert np.asarray(counts).any()
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients))


def test_parameters_of_the_two_networks():
    assert totals(zoo.csnn_static).parameters == 29_826
    assert totals(zoo.csnn_nmnist).parameters == 35_886
    for arch, number in ((zoo.csnn_static, 29_826), (zoo.csnn_nmnist, 35_886)):
        net = spiking_net(arch, neurons.leaky())
        task = through_time(net, stimulus.held(2))
        params = jax.eval_shape(task.init, jax.random.key(0))["params"]
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == number


@functools.cache
def repeated(steps):
    """The image given at every step anew, instead of held."""

    def show(batch, key, arguments):
        x = batch.astype(jnp.float32) / 255
        return stimulus.Shown(jnp.broadcast_to(x, (steps, *x.shape)), steps)

    return stimulus.Stimulus(show)


@pytest.mark.parametrize("loss", ["ce_rate", "mse_count", "ce_membrane"])
def test_a_held_image_is_the_same_image_at_every_step(loss):
    net, labels = network(loss=loss, learn=("leak", "threshold")), np.arange(8) % 3
    held, frames = (
        outcome(through_time(net, shown, loss), net, images(), labels)
        for shown in (stimulus.held(10), repeated(10))
    )
    assert_close(held, frames)
    assert_alive(held)


@pytest.mark.parametrize("shown", [stimulus.held, repeated], ids=["held", "frames"])
@pytest.mark.parametrize("block", [1, 4, 5, 10, 16])
def test_time_blocks_change_nothing(block, shown):
    net, labels = network(learn=("leak",)), np.arange(8) % 3
    whole, blocks = (
        outcome(through_time(net, shown(10), time_block=size), net, images(), labels)
        for size in (None, block)
    )
    assert_close(blocks, whole, 2e-6)
    assert_alive(whole)


def test_time_blocks_with_a_mask_change_nothing():
    net, lengths = network(SENSOR), [7, 3, 6, 2]
    whole, blocks = (
        outcome(
            through_time(net, stimulus.event_frames(SENSOR), time_block=size),
            net,
            recordings(lengths),
            [0, 1, 2, 1],
            7,
        )
        for size in (None, 3)
    )
    assert_close(blocks, whole, 2e-6)
    assert_alive(whole)


def kept():
    """An optimiser that moves nothing and keeps the gradients as its state."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda gradients, state, params=None: (jax.tree.map(jnp.zeros_like, gradients), gradients),
    )


def updated(task, batch, labels, micro_batch, steps=None):
    """The state after one update on the whole batch: gradients, loss, number correct."""
    plan = Plan(len(labels), 1, 1, 1, micro_batch)
    initial, update = programs(task, kept(), plan)
    state = jax.tree.map(jnp.array, initial(jax.random.key(0)))
    state = state.replace(params=grown(state.params))
    constants = jax.tree.map(jnp.asarray, (np.arange(len(labels)), batch, labels))
    state = update(state, *constants, jax.random.key(1), count=1, steps=steps)
    return state.opt_state, state.totals


@pytest.mark.parametrize("events", [False, True])
def test_micro_batches_give_the_gradients_of_the_batch(events):
    net = network(SENSOR if events else (8, 8, 1))
    shown = stimulus.event_frames(SENSOR) if events else stimulus.held(8)
    task, steps = through_time(net, shown), 8 if events else None
    batch = recordings([8, 5, 2, 7]) if events else images(4)
    whole, totals = updated(task, batch, np.array([0, 1, 2, 0]), None, steps)
    for leaf in jax.tree.leaves(whole):
        assert np.asarray(leaf).any()
    for size in (1, 2, 4):
        parts, sums = updated(task, batch, np.array([0, 1, 2, 0]), size, steps)
        assert_close(parts, whole)
        assert float(sums.loss) == pytest.approx(float(totals.loss), rel=1e-6)
        assert int(sums.correct) == int(totals.correct)
        assert int(sums.examples) == 4


@pytest.mark.parametrize("loss", ["ce_rate", "mse_count"])
def test_padded_recordings_are_as_each_alone(loss):
    net, lengths, labels = network(SENSOR), [6, 2, 4], np.array([2, 0, 1])
    task = through_time(net, stimulus.event_frames(SENSOR), loss)
    batch = recordings(lengths)
    together = outcome(task, net, batch, labels, 9)
    alone = [
        outcome(
            task,
            net,
            jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], batch),
            labels[row : row + 1],
            length,
        )
        for row, length in enumerate(lengths)
    ]
    np.testing.assert_allclose(together[0], [one[0][0] for one in alone], rtol=1e-6)
    np.testing.assert_array_equal(together[1], [one[1][0] for one in alone])
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 3, *(one[2] for one in alone))
    assert_close(together[2], mean, 2e-6)
    assert_alive(together)


def test_without_a_mask_the_silent_steps_count():
    """The behaviour of the original, as an option: a longer padding, another loss."""
    net, labels = network(SENSOR), np.array([2, 0])
    shown = stimulus.event_frames(SENSOR, padded_loss=True)
    batch, task = recordings([3, 3]), through_time(net, shown)
    short, long = (outcome(task, net, batch, labels, steps)[0] for steps in (3, 12))
    assert np.abs(short - long).min() > 1e-3
    assert outcome(through_time(net, shown), net, batch, labels, 3)[0].tolist() == short.tolist()


def counted(task, calls):
    """The same task, noting for how many steps its loss is traced."""

    def loss(*operands, axis_name, steps=None, moment=None):
        calls[operands[5], steps] += 1
        return task.loss(*operands, axis_name=axis_name, steps=steps)

    return task._replace(loss=loss)


@functools.cache
def separable(count=60):
    """Images, bright on the left (0), on the right (1) or nowhere (2)."""
    rng = np.random.default_rng(4)
    x, labels = rng.integers(0, 40, (count, 8, 8, 1)), rng.integers(0, 3, count)
    x[labels == 0, :, :4] += 180
    x[labels == 1, :, 4:] += 180
    return x.astype(np.uint8), labels.astype(np.int32)


def test_training_learns():
    task = through_time(network(), stimulus.held(8))
    data = (*separable(), *separable())
    options = Options(25, 12, micro_batch=4, seed=1)
    _, history = train(task, optax.adam(1e-2), data, options, False)
    assert history[-1]["train_loss"] < history[0]["train_loss"] - 0.1
    assert history[-1]["validation_accuracy"] >= 0.9


@functools.cache
def eventful():
    """Recordings of six lengths, the class in the polarity and the place of their events."""
    rng, lengths = np.random.default_rng(5), np.repeat([2, 3, 5, 6, 9, 12], [7, 4, 6, 3, 5, 4])
    labels = rng.integers(0, 2, len(lengths))
    size, codes = SENSOR[0] * SENSOR[1], []
    for length, label in zip(lengths, labels, strict=True):
        steps = rng.integers(0, length, 60)
        place = rng.integers(0, size // 2, 60) + label * size // 2
        codes.append((steps * size + place) * SENSOR[2] + label)
    batch = {"codes": np.array(codes, np.int32), "lengths": lengths.astype(np.int32)}
    return batch, labels.astype(np.int32)


@pytest.mark.slow
def test_bucketed_training_compiles_four_programs_at_most():
    calls = Counter()
    shown = stimulus.event_frames(SENSOR)
    task = counted(through_time(network(SENSOR, 2), shown), calls)
    batch, labels = eventful()
    data = (batch, labels, batch, labels)
    state, history = train(task, optax.adam(5e-3), data, Options(3, 4, micro_batch=2), False)
    lengths = {2, 3, 5, 6, 9, 12}
    for training in (True, False):
        steps = {steps for train, steps in calls if train == training}
        assert 2 <= len(steps) <= 4
        assert steps <= lengths
    assert max(calls.values()) == 1
    # 29 recordings: seven batches of four an epoch, and the last partial one is dropped.
    assert int(state.step) == 3 * 7
    assert int(state.totals.examples) == 28
    assert [record["step"] for record in history] == [7, 14, 21]


@pytest.mark.slow
def test_evaluation_of_recordings_is_that_of_each_alone():
    net, (batch, labels) = network(SENSOR, 2), eventful()
    task = through_time(net, stimulus.event_frames(SENSOR))
    got = evaluate(task, start(net), batch, labels, 5)
    rest = {"fixed": start(net)["fixed"]}
    losses, correct = [], 0
    for row, length in enumerate(batch["lengths"]):
        one = jax.tree.map(lambda leaf, row=row: jnp.asarray(leaf[row : row + 1]), batch)
        own_loss, (counts, _) = task.loss(
            start(net)["params"],
            rest,
            one,
            jnp.asarray(labels[row : row + 1]),
            jax.random.key(0),
            False,
            axis_name=None,
            steps=int(length),
        )
        losses.append(float(own_loss[0]))
        correct += int(np.argmax(counts[0]) == labels[row])
    assert got["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert got["correct"] == correct


class BrokenOffError(Exception):
    """Stands for the end of the process within this one."""


@pytest.mark.slow
def test_a_bucketed_run_broken_off_within_an_epoch_continues_bit_for_bit(tmp_path):
    shown = stimulus.event_frames(SENSOR, rotation=10.0)
    task = through_time(network(SENSOR, 2), shown)
    data, optimiser = (*eventful(), None, None), optax.adam(5e-3)
    fields = {"epochs": 3, "batch_size": 4, "seed": 5, "micro_batch": 2}
    want, _ = train(task, optimiser, data, Options(**fields), False)

    def broken(step):
        if step > 7:  # asked for the rate of epoch 2, whose last checkpoint is before its end
            raise BrokenOffError
        return 5e-3

    options = Options(**fields, directory=tmp_path, checkpoint_seconds=0)
    with pytest.raises(BrokenOffError):
        train(task, optimiser, data, options, False, broken)
    assert 7 < Checkpoints(tmp_path / "checkpoints").steps()[-1] < 14
    got, history = train(
        task, optimiser, data, Options(**fields, directory=tmp_path, resume=True), False
    )
    assert [record["epoch"] for record in history] == [2, 3]
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


DEVICES = """
import sys; sys.path.insert(0, sys.argv[1])
import chex, jax, numpy as np, optax, test_through_time as own
from jaxsnn.training.through_time import through_time
from jaxsnn.inputs import stimulus
from jaxsnn.training.options import Options
from jaxsnn.training.train import train
task = through_time(own.network(), stimulus.held(6))
events = through_time(own.network(own.SENSOR, 2), stimulus.event_frames(own.SENSOR))
for task, data in ((task, own.separable()), (events, own.eventful())):
    states = []
    for devices in (1, 2):
        options = Options(2, 4, devices=devices, micro_batch=2)
        states.append(train(task, optax.sgd(0.1), (*data, None, None), options, False)[0])
    one, two = states
    assert len(jax.tree.leaves(two.params)[0].sharding.device_set) == 2
    np.testing.assert_allclose(one.totals.loss, two.totals.loss, rtol=1e-5)
    chex.assert_trees_all_close(*(jax.device_get(s.params) for s in states), rtol=0, atol=1e-5)
"""


@pytest.mark.slow
def test_two_devices_train_as_one_does(run_python):
    run_python(DEVICES, Path(__file__).parent, devices=2)


def test_tasks_of_equal_arguments_are_the_same_object():
    net = network()
    assert through_time(net, stimulus.held(4)) is through_time(net, stimulus.held(4))
    assert through_time(net, stimulus.held(4)) is not through_time(net, stimulus.held(5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "hinge"}, r"loss 'hinge' is unknown; choose one of ce_rate, ce_membrane"),
        ({"loss": "ce_membrane"}, "emits its potential, this one emits its spike"),
        ({"time_block": 0}, r"time_block=0: give a whole number of at least 1"),
    ],
)
def test_tasks_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        through_time(network(), stimulus.held(4), **options)


def test_a_readout_that_emits_its_potential_has_a_loss_of_its_own():
    with pytest.raises(ValueError, match="emits its spike, this one emits its potential"):
        through_time(network(loss="ce_membrane"), stimulus.held(4), "mse_count")


def test_batch_norm_does_not_go_with_time_blocks():
    arch = parse("3", input_shape=(1, 1, 2), classes=2, head_neuron=True)
    net = spiking_net(arch, LEAKY())
    with pytest.raises(ValueError, match="time_block does not go with batch norm"):
        through_time(net, stimulus.held(4), time_block=2)


def test_stimuli_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="steps=0: give a whole number of at least 1"):
        stimulus.held(0)
    batch = jax.tree.map(jnp.asarray, recordings([2]))
    with pytest.raises(ValueError, match="number of steps of their batch"):
        stimulus.event_frames(SENSOR).show(batch, None, None)


@pytest.mark.parametrize("window", [(3, 3), (5, 5), (1, 1), (2, 3)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 2), (1, 0))])
def test_a_convolution_as_one_product_of_windows(window, strides, padding):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 7, 8, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*window, 3, 4)), jnp.float32)

    def usual(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=dimensions, precision="highest"
        )

    got, pull = jax.vjp(
        lambda x, kernel: convolutions.patches(x, kernel, strides, padding), x, kernel
    )
    want, usual_pull = jax.vjp(usual, x, kernel)
    assert_close(got, want)
    gradient = jnp.asarray(rng.normal(size=want.shape), jnp.float32)
    assert_close(pull(gradient), usual_pull(gradient), 3e-6)


def test_the_threshold_that_counts_is_the_one_that_the_neuron_uses():
    """A learned one below 0.001 is used as 0.001; identity readouts have none."""
    trees = {"params": {"readout": {"threshold": jnp.array([-1.0, 0.5])}}}
    assert threshold(trees, "readout").tolist() == [np.float32(0.001), 0.5]
    assert threshold({"fixed": {}}, "readout") is None


def test_evaluation_in_micro_batches_is_that_of_whole_batches():
    task, (images, labels) = through_time(network(), stimulus.held(4)), separable(22)
    variables = task.init(jax.random.key(3))
    whole = evaluate(task, variables, images, labels, 12)
    for micro_batch in (1, 3, 12):
        parts = evaluate(task, variables, images, labels, 12, micro_batch=micro_batch)
        assert parts["correct"] == whole["correct"]
        assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-6)
