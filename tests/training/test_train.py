"""Training: gradients, order of the data, one compile, resume after kills, several devices."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_tasks import ADAM, LONG_STEPS, PERCEPTRON, digits, linear, long_run, perceptron

from jaxsnn import neurons
from jaxsnn.arch.plan import parse
from jaxsnn.errors import UserError
from jaxsnn.inputs.stimulus import held
from jaxsnn.io.arrays import load_arrays, load_params
from jaxsnn.io.checkpoints import Checkpoints
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import hidden
from jaxsnn.training.one_pass import classification
from jaxsnn.training.options import Options
from jaxsnn.training.task import Task, evaluate
from jaxsnn.training.through_time import spiking_net, through_time
from jaxsnn.training.train import train


def softmax_regression(kernel, images, labels):
    """Losses [N], hits [N] and gradient of the mean loss of ``linear``, in float64."""
    inputs = images.reshape(len(images), -1).astype(np.float64) / 255
    logits = inputs @ np.asarray(kernel, np.float64)
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    share = exponential / exponential.sum(axis=1, keepdims=True)
    losses = -np.log(share[np.arange(len(labels)), labels])
    gradient = inputs.T @ (share - np.eye(logits.shape[1])[labels]) / len(labels)
    return losses, logits.argmax(axis=1) == labels, gradient


def assert_equal_trees(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def test_one_update_is_the_gradient_step_worked_out_by_hand():
    """The batch is the whole data set; the first update changes nothing, the second is checked."""
    images, labels = digits()[:2]
    task, optimiser = linear(), optax.sgd(lambda count: jnp.where(count == 1, 0.5, 0.0))
    (start, _), (state, history) = (
        train(task, optimiser, (images, labels, None, None), Options(epochs, 1500), False)
        for epochs in (1, 2)
    )
    losses, hits, gradient = softmax_regression(start.params["kernel"], images, labels)
    expected = np.asarray(start.params["kernel"], np.float64) - 0.5 * gradient
    np.testing.assert_allclose(state.params["kernel"], expected, atol=1e-6)
    assert history[1]["train_loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert history[1]["train_accuracy"] == hits.mean()
    assert history[1]["validation_accuracy"] is None


def test_training_learns_and_reaches_every_parameter():
    start, _ = train(PERCEPTRON, ADAM, digits(), Options(1, 64), False)
    state, history = train(PERCEPTRON, ADAM, digits(), Options(6, 64), False)
    for before, after in zip(
        jax.tree.leaves(start.params), jax.tree.leaves(state.params), strict=True
    ):
        assert not np.array_equal(before, after)
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["validation_accuracy"] > 0.85
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 3


@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_each_epoch_visits_the_images_once_in_an_order_of_its_own(steps_per_call: int):
    """``seen`` counts the visits of each image; ``last`` is the newest batch."""

    def init(key):
        del key
        counts = {"seen": jnp.zeros(11, jnp.int32), "last": jnp.zeros(4, jnp.int32)}
        return {"params": {"unused": jnp.zeros(1)}, "visits": counts}

    def loss(params, rest, images, labels, key, train, *, axis_name, steps=None, moment=None):
        visits = {"seen": rest["visits"]["seen"].at[labels].add(1), "last": labels}
        zeros = jnp.zeros(len(labels)) * params["unused"]
        return zeros, (jax.nn.one_hot(images[:, 0], 11), {"visits": visits} if train else rest)

    numbers = np.arange(11)
    data = (numbers[:, None].astype(np.uint8), numbers, None, None)
    task, optimiser, orders = Task(init, loss), optax.sgd(0.1), set()
    for seed in range(3):
        for epochs in (1, 2):
            options = Options(epochs, 4, seed=seed, steps_per_call=steps_per_call)
            state, history = train(task, optimiser, data, options, False)
            seen = np.asarray(state.rest["visits"]["seen"])
            assert seen.sum() == epochs * 8  # two whole batches; the third would have three images
            assert seen.max() <= epochs
            assert history[-1]["train_accuracy"] == 1.0  # every label came with its own image
            orders.add(tuple(state.rest["visits"]["last"].tolist()))
    assert len(orders) > 3


def test_the_average_of_the_weights_is_what_is_kept(tmp_path):
    """Of three updates, one in an epoch, the first of which changes nothing; over a resume, too."""
    task, optimiser = linear(), optax.sgd(lambda count: jnp.where(count == 0, 0.0, 0.5))
    data, share = (*digits()[:2], None, None), 0.75
    kernels = [
        np.asarray(train(task, optimiser, data, Options(epochs, 1500), False)[0].params["kernel"])
        for epochs in (1, 2, 3)
    ]
    average = kernels[0].astype(np.float64)
    for kernel in kernels[1:]:
        average = share * average + (1 - share) * kernel
    for epochs, resume in ((2, False), (3, True)):
        options = Options(epochs, 1500, directory=tmp_path, resume=resume, averaging=share)
        state, _ = train(task, optimiser, data, options, False)
    np.testing.assert_allclose(state.variables["params"]["kernel"], average, atol=1e-6)
    np.testing.assert_allclose(state.params["kernel"], kernels[-1], atol=1e-6)
    np.testing.assert_array_equal(
        load_arrays(tmp_path / "model.npz")[0]["params/kernel"], state.variables["params"]["kernel"]
    )


@pytest.mark.parametrize("steps_per_call", [1, 7])
def test_training_and_evaluation_compile_once(steps_per_call: int, caplog):
    calls: Counter[Any] = Counter()
    task = linear(calls)
    options = Options(3, 64, steps_per_call=steps_per_call)  # 23 steps: the last call has 2 of 7
    with jax.log_compiles():
        train(task, optax.sgd(0.1), digits(), options, False)
    assert calls == {True: 1, False: 1}
    compiled = [text for text in caplog.messages if text.startswith("Compiling jit(update)")]
    assert len(compiled) == 1


def test_many_steps_in_one_call_train_as_single_ones_do():
    states = [
        train(PERCEPTRON, ADAM, digits(), Options(2, 64, steps_per_call=n), False)[0]
        for n in (1, 5)
    ]
    assert int(states[0].step) == int(states[1].step) == 46
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6),
        states[0].params,
        states[1].params,
    )


def test_evaluation_of_a_padded_batch_equals_numpy():
    images, labels = digits()[0][:10], digits()[1][:10]
    calls: Counter[Any] = Counter()
    task = linear(calls)
    kernel = np.asarray(task.init(jax.random.key(4))["params"]["kernel"])
    losses, hits, _ = softmax_regression(kernel, images, labels)
    assert 0 < hits.sum() < 10
    for batch_size in (4, 10, 64):
        evaluation = evaluate(task, {"params": {"kernel": kernel}}, images, labels, batch_size)
        assert evaluation["loss"] == pytest.approx(losses.mean(), rel=1e-5)
        assert (evaluation["correct"], evaluation["accuracy"]) == (hits.sum(), hits.sum() / 10)
        assert isinstance(evaluation["correct"], int)
    assert calls == {False: 3}  # one for each batch size, whatever the number of batches


class KilledError(Exception):
    """Stands for the end of the process within this one."""


def killed_schedule(step: int) -> float:
    """Asked for the learning rate of the second epoch, after its last step, it ends the run."""
    if step > 23:
        raise KilledError
    return 1e-3


@pytest.mark.parametrize("steps_per_call", [1, 5])
def test_a_run_broken_off_within_an_epoch_continues_bit_for_bit(tmp_path, steps_per_call: int):
    common = {"epochs": 3, "batch_size": 64, "seed": 5, "steps_per_call": steps_per_call}
    want, records = train(PERCEPTRON, ADAM, digits(), Options(**common), False, lambda step: 1e-3)
    options = Options(**common, directory=tmp_path, checkpoint_seconds=0)
    with pytest.raises(KilledError):
        train(PERCEPTRON, ADAM, digits(), options, False, killed_schedule)
    last = Checkpoints(tmp_path / "checkpoints").steps()[-1]
    assert 23 < last < 46
    options = Options(**common, directory=tmp_path, resume=True)
    got, resumed = train(PERCEPTRON, ADAM, digits(), options, False, lambda step: 1e-3)
    assert_equal_trees(got, want)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for got_record, want_record in zip(lines, records, strict=True):  # the whole epoch's mean, too
        assert got_record.pop("seconds") >= 0
        assert got_record == {k: v for k, v in want_record.items() if k != "seconds"}
    assert len(resumed) == 2


def test_a_finished_run_resumes_to_itself_and_a_longer_one_goes_on(tmp_path):
    done, _ = train(PERCEPTRON, ADAM, digits(), Options(1, 64, directory=tmp_path), False)
    again, history = train(
        PERCEPTRON,
        ADAM,
        digits(),
        Options(1, 64, directory=tmp_path, resume=True),
        False,
    )
    assert_equal_trees(again, done)
    assert history == []
    longer, history = train(
        PERCEPTRON,
        ADAM,
        digits(),
        Options(2, 64, directory=tmp_path, resume=True),
        False,
    )
    assert [record["epoch"] for record in history] == [2]
    straight, _ = train(PERCEPTRON, ADAM, digits(), Options(2, 64), False)
    assert_equal_trees(longer, straight)


def test_weights_lie_beside_the_checkpoints(tmp_path):
    options = Options(3, 64, directory=tmp_path)
    state, history = train(PERCEPTRON, ADAM, digits(), options, False)
    arrays, meta = load_arrays(tmp_path / "model.npz")
    assert meta == {"step": 69}
    assert set(arrays) == {"params/dense1/kernel", "params/readout/kernel", "ballast/noise"}
    assert_equal_trees(load_params(tmp_path / "model.npz", state.variables), state.variables)
    accuracies = [record["validation_accuracy"] for record in history]
    best = load_params(tmp_path / "best.npz", state.variables)
    evaluation = evaluate(PERCEPTRON, best, *digits()[2:], 64)
    assert evaluation["accuracy"] == max(accuracies)
    assert load_arrays(tmp_path / "best.npz")[1]["epoch"] == 1 + accuracies.index(max(accuracies))


def test_resume_refuses_what_it_cannot_continue(tmp_path):
    def run(task=PERCEPTRON, batch_size=64, seed=0, resume=True, optimiser=ADAM, folder=tmp_path):
        options = Options(1, batch_size, seed=seed, directory=folder, resume=resume)
        return train(task, optimiser, digits(), options, False)

    with pytest.raises(ValueError, match=r"elsewhere.checkpoints holds no checkpoint"):
        run(folder=tmp_path / "elsewhere")
    run(resume=False)
    with pytest.raises(ValueError, match="earlier run up to step 23"):
        run(resume=False)
    with pytest.raises(ValueError, match=r"params/dense1/kernel is float32\[64, 32\].*\[64, 48\]"):
        run(task=perceptron(48))
    with pytest.raises(ValueError, match="another network or optimiser"):
        run(optimiser=optax.sgd(1e-3, momentum=0.9))
    with pytest.raises(ValueError, match="batch_size = 64, not 32"):
        run(batch_size=32)
    with pytest.raises(ValueError, match="seed = 0, not 1"):
        run(seed=1)


@pytest.mark.parametrize("where", ["loss", "update"])
def test_divergence_ends_the_run_and_leaves_the_last_good_checkpoint(tmp_path, where: str):
    """The loss turns NaN in step 30, or the very last update of epoch 2 ruins the parameters."""
    task = linear()

    def loss(params, rest, images, labels, key, train, *, axis_name, steps=None, moment=None):
        losses, (logits, _) = task.loss(params, rest, images, labels, key, train, axis_name=None)
        step = rest["count"]["step"] + (1 if train else 0)
        losses = jnp.where((step == 30) & (where == "loss"), jnp.nan, losses)
        return losses, (logits, {**rest, "count": {"step": step}})

    def init(key):
        return {**task.init(key), "count": {"step": jnp.zeros((), jnp.int32)}}

    broken = 45 if where == "update" else -1
    rate = lambda count: jnp.where(count == broken, jnp.nan, 1e-3)  # noqa: E731
    options = Options(4, 64, directory=tmp_path)
    with pytest.raises(
        ValueError, match=r"not finite in epoch 2, at or before step \d+; .*step 23"
    ):
        train(Task(init, loss), optax.sgd(rate), digits(), options, False)
    assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == 23
    assert load_arrays(tmp_path / "model.npz")[1] == {"step": 23}
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"steps_per_call": 0}, "steps_per_call=0"),
        ({"devices": 3}, "no multiple of devices = 3"),
        ({"batch_size": 4096, "devices": 4096}, "devices = 4096, but only"),
        ({"averaging": 1.0}, "averaging = 1.0: give 0 or more"),
        ({"resume": True}, "resume needs the directory"),
    ],
)
def test_options_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Options(**{"epochs": 1, "batch_size": 64, **values})


def test_data_that_do_not_fit_are_refused():
    images, labels = digits()[:2]
    for data, message in [
        ((images[:63], labels[:63], None, None), "63 training images"),
        ((images, labels[:-1], None, None), "1500 images but 1499 labels"),
        ((images, labels, images, labels[:5]), "validation: 1500 images but 5 labels"),
    ]:
        with pytest.raises(ValueError, match=message):
            train(linear(), optax.sgd(0.1), data, Options(1, 64), False)
    with pytest.raises(ValueError, match="at least one image"):
        evaluate(linear(), {}, images[:0], labels[:0], 4)


def test_progress_is_a_line_per_epoch_a_bar_on_a_terminal_or_silent(capsys, monkeypatch):
    def printed(progress: bool) -> str:
        train(PERCEPTRON, ADAM, digits(), Options(2, 64), progress)
        return capsys.readouterr().out

    assert printed(False) == ""
    lines = printed(True).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "validation accuracy" in lines[1]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    bar = printed(True)
    assert "images/s" in bar
    assert "46/46" in bar


def child(code: str, cache: Path) -> subprocess.Popen[bytes]:
    """A Python process that has imported ``small_tasks`` and runs ``code``."""
    folders = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    setup = f"import sys; sys.path[:0] = {folders}; import small_tasks\n"
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.Popen([sys.executable, "-c", setup + code], env=environment)


def wait_for(condition, process: subprocess.Popen[bytes], pause: float) -> None:
    """Return as soon as the condition holds; the process must still be running then."""
    while not condition():
        assert process.poll() is None, f"the run ended early with {process.returncode}"
        time.sleep(pause)


def stopped_while_writing(folder: Path, process: subprocess.Popen[bytes]) -> bool:
    """Freeze the process if a checkpoint is half written, and let it run on if it just ended."""

    def unfinished() -> bool:
        return any("orbax-checkpoint-tmp" in entry.name for entry in folder.iterdir())

    if not unfinished():
        return False
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    if unfinished():
        return True
    process.send_signal(signal.SIGCONT)
    return False


@pytest.mark.slow
def test_three_kills_lose_nothing(tmp_path):
    """Two kills at random moments and one within the writing of a checkpoint, then the rest."""
    folder = tmp_path / "run" / "checkpoints"
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"moments drawn with seed {seed}")
    delays = np.random.default_rng(seed).uniform(0, 0.3, 2)
    reached = -1
    for number in range(3):
        code = f"small_tasks.long_run({str(tmp_path / 'run')!r}, resume={number > 0})"
        process = child(code, tmp_path / "cache")
        try:
            # Checkpoints beyond the last run's newest one prove that this run has resumed.
            checkpoints, before = Checkpoints(folder), max(reached, 0)
            wait_for(lambda: max(checkpoints.steps(), default=-1) > before, process, 0.01)  # noqa: B023
            if number < 2:
                time.sleep(delays[number])
            else:
                wait_for(lambda: stopped_while_writing(folder, process), process, 0.001)  # noqa: B023
            assert process.poll() is None
        finally:
            process.kill()
            process.wait()
        assert process.returncode == -signal.SIGKILL
        reached = checkpoints.steps()[-1]
        assert before < reached < LONG_STEPS
    assert any("orbax-checkpoint-tmp" in entry.name for entry in folder.iterdir())
    assert_equal_trees(long_run(str(tmp_path / "run"), True, 60), long_run(None))


@pytest.mark.slow
def test_four_devices_train_as_one_does(run_python):
    folder = str(Path(__file__).parents[1])
    run_python(
        f"import sys; sys.path.insert(0, {folder!r}); import small_tasks\n"
        "small_tasks.compare_devices()",
        devices=4,
    )


@pytest.mark.parametrize("part", ["training", "validation"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: labels + 1, r"label 10 at index \d+ is outside 0\.\.9; .*count from 1"),
        (lambda labels: labels - 1, "label -1"),
        (lambda labels: labels + 0.6, "dtype float64"),
        (lambda labels: np.eye(10)[labels], r"shape \(\d+, 10\); .*argmax"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(part, change, message):
    images, labels, held_images, held_labels = digits()
    if part == "training":
        labels = change(labels)
    else:
        held_labels = change(held_labels)
    task = PERCEPTRON._replace(classes=10)
    data = (images, labels, held_images, held_labels)
    with pytest.raises(UserError, match=f"{part} labels.*{message}"):
        train(task, ADAM, data, Options(1, 64), False)
    if part == "training":
        with pytest.raises(UserError, match=f"evaluation labels.*{message}"):
            evaluate(task, {"params": {}}, images, labels, 64)


def test_the_network_says_how_many_classes_there_are():
    net = Net(parse("4", input_shape=(2, 2, 1), classes=3), hidden(neurons.relu()))
    assert classification(net).classes == 3


def test_another_split_is_not_resumed(tmp_path):
    images, labels, held_images, held_labels = digits()
    options = Options(1, 64, directory=tmp_path)
    train(PERCEPTRON, ADAM, (images, labels, held_images, held_labels), options, False)
    other = (images[::-1], labels[::-1], held_images, held_labels)
    with pytest.raises(UserError, match="was written with checksum of the training labels = "):
        train(PERCEPTRON, ADAM, other, Options(1, 64, directory=tmp_path, resume=True), False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1}, "batch_size = 1: batch norm at dense1 would normalise a single value"),
        ({"batch_size": 8, "micro_batch": 1}, "micro_batch = 1: batch norm at dense1"),
    ],
)
@pytest.mark.parametrize("notation", ["4", "4C3-4"])
def test_batch_norm_over_one_value_is_refused(tmp_path, options, message, notation):
    net = Net(parse(notation, input_shape=(8, 8, 1), classes=10), hidden(neurons.relu()))
    images, labels = digits()[0][..., None], digits()[1]
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=message):
        train(
            classification(net),
            ADAM,
            (images, labels, None, None),
            Options(1, **options, directory=folder),
            False,
        )
    assert not folder.exists()


@pytest.mark.parametrize("notation", ["4C3", "4b", "4C3-4b"])
def test_batch_norm_over_a_map_and_layers_without_it_train_one_by_one(notation):
    net = Net(parse(notation, input_shape=(8, 8, 1), classes=10), hidden(neurons.relu()))
    assert classification(net).single_norm is None


def test_batch_norm_of_a_held_image_sees_one_value_in_its_first_layer_alone():
    cell = neurons.leaky(0.9, 0.3)
    for notation, site in (("4", "dense1"), ("4b-4", None)):
        net = spiking_net(parse(notation, input_shape=(8, 8, 1), classes=10), cell, cell)
        assert through_time(net, held(5)).single_norm == site


def test_micro_batches_give_the_update_of_the_whole_batch_in_programs_that_compile_once():
    arch = parse("8C3same-12", input_shape=(8, 8, 1), classes=3, norm=False)
    task = classification(Net(arch, hidden(neurons.relu())))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
    labels = rng.integers(0, 3, 24)
    data, optimiser = (images, labels, None, None), optax.sgd(0.1)
    whole, _ = train(task, optimiser, data, Options(2, 12), False)
    traced = Counter()

    def loss(*operands, **options):
        traced["loss"] += 1
        return task.loss(*operands, **options)

    counted = task._replace(loss=loss)
    parts, history = train(counted, optimiser, data, Options(2, 12, micro_batch=4), False)
    assert traced["loss"] == 1
    chex.assert_trees_all_close(whole.params, parts.params, rtol=1e-4, atol=1e-6)
    assert int(parts.totals.examples) == 24
    assert float(parts.totals.loss) == pytest.approx(float(whole.totals.loss), rel=1e-4)
    assert [record["step"] for record in history] == [2, 4]
