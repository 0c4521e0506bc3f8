"""Training: one compiled step per batch on a CPU, a compiled loop of steps on an accelerator.

The network is not known here. A system hands in a ``Task``, two pure functions over plain trees,
and an Optax optimiser; everything random follows from one seed and the global step, so that a run
that was killed continues from its last checkpoint as if nothing had happened.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
import zlib
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from jaxsnn.errors import UserError
from jaxsnn.io import processes
from jaxsnn.io.arrays import flatten
from jaxsnn.io.progress import Display
from jaxsnn.training.gradients import Plan, mesh_of
from jaxsnn.training.length_buckets import bucket_lengths, in_batches
from jaxsnn.training.options import Options, refuse_single_norm, steps_per_call
from jaxsnn.training.run_files import Record, TrainFiles
from jaxsnn.training.schedules import Schedule
from jaxsnn.training.task import Task, as_examples, evaluate
from jaxsnn.training.update import Totals, TrainState, programs
from jaxsnn.types import PyTree, Variables

Data: TypeAlias = tuple[PyTree, PyTree, PyTree, PyTree]
AfterEpoch: TypeAlias = Callable[[Record, Variables], Record]
Finish: TypeAlias = Callable[[Variables], Variables]

CHECK_CALLS = 100  # at most so many compiled calls between two looks at the loss
REFRESH_SECONDS = 0.5
ESTIMATE_SECONDS = 5.0  # of updates, from which the time of all is told


def train(
    task: Task,
    optimiser: optax.GradientTransformation,
    data: Data,
    options: Options,
    progress: bool = True,
    schedule: Schedule | None = None,
    after_epoch: AfterEpoch | None = None,
    finish: Finish | None = None,
) -> tuple[TrainState, list[Record]]:
    """Train a task; with a directory, kill-safe and resumable bit for bit.

    The images stay on the device as they are given and every batch is gathered inside the compiled
    step. The last, partial batch of an epoch is dropped. With several devices each takes its share
    of every batch and draws its own noise: a task without noise then trains as on one device, up to
    the order of float sums. So do the devices of several processes (:mod:`jaxsnn.io.processes`):
    each calls this with equal arguments, and the first writes the files.

    Args:
        task: initial variables and loss.
        optimiser: updates params; schedules count global steps.
        data: training images uint8 [N, ...] (or a tree of arrays with N in front) and labels [N],
            validation images and labels (None or empty: no validation).
        options: see ``Options``.
        progress: a progress bar on a terminal, else a line per epoch; False prints nothing.
        schedule: step -> learning rate, only for the record of the rate in ``metrics.jsonl``.
        after_epoch: ``(record, variables) -> record``, called before the record of an epoch is
            written, which it may add to.
        finish: ``variables -> variables``, called once, behind the last update of the last epoch
            and before that epoch is evaluated; every collection but the params is replaced.

    Returns:
        The final state, and one record for each epoch that this call finished (fields as in
        ``metrics.jsonl``; epochs count from 1, the learning rate is that of the last update).

    Raises:
        UserError: batches of one example where batch norm sees one value of each, fewer images
            than a batch, images and labels of different length, labels that
            are no class numbers, ``resume``
            without a checkpoint or with one of another run, processes with different data, a
            directory that already holds checkpoints without ``resume``, or a loss that is not
            finite (the checkpoints from before it stay).
    """
    run = _Run(task, optimiser, data, options, schedule, after_epoch, finish)
    state = run.start()
    history: list[Record] = []
    sizes = (options.epochs, run.steps_per_epoch, options.batch_size)
    with Display(*sizes, progress) as display:
        for epoch in range(int(state.step) // run.steps_per_epoch, options.epochs):
            state, record = run.epoch(state, epoch, display)
            history.append(record)
    processes.barrier()  # the files are there for all
    return state, history


class _Run:
    """One call of ``train``: constants of the run, and what happens around the compiled step."""

    def __init__(
        self,
        task: Task,
        optimiser: optax.GradientTransformation,
        data: Data,
        options: Options,
        schedule: Schedule | None,
        after_epoch: AfterEpoch | None,
        finish: Finish | None,
    ) -> None:
        refuse_single_norm(options, task.single_norm)
        images, labels = as_examples(data[0], data[1], "training", task.classes)
        self.steps_per_epoch = len(labels) // options.batch_size
        if self.steps_per_epoch == 0:
            raise UserError(
                f"{len(labels)} training images do not fill one batch of {options.batch_size}; "
                "choose a smaller batch_size"
            )
        self.validation = None
        if data[3] is not None and len(data[3]):
            self.validation = as_examples(data[2], data[3], "validation", task.classes)
        self.task, self.options, self.schedule = task, options, schedule
        self.after_epoch, self.finish = after_epoch, finish
        self.estimated = False  # how long it will take has been said
        self.init_key, self.order_key, self.step_key = jax.random.split(
            jax.random.key(options.seed), 3
        )
        self.lengths = None if task.lengths is None else task.lengths(images)
        # Neighbouring batches of different length are different programs.
        self.steps_per_call = 1 if self.lengths is not None else steps_per_call(options)
        sizes = (options.batch_size, self.steps_per_epoch, self.steps_per_call)
        share = (options.devices, options.micro_batch, options.averaging)
        plan = Plan(*sizes, *share)
        self.initial, self.update = programs(task, optimiser, plan)
        self.replicated = NamedSharding(mesh_of(options.devices), PartitionSpec())
        processes.same_arrays("training images and labels", (images, labels))
        self.images, self.labels = processes.replicated((images, labels), self.replicated)
        self.files = None
        if options.directory is not None:
            run = {"seed": options.seed, "batch_size": options.batch_size, "images": len(labels)}
            if options.micro_batch is not None:  # what is drawn at random depends on it
                run["micro_batch"] = options.micro_batch
            if self.validation is not None:
                # Another split would train on what was held out, and judge by what was learned.
                run["checksum of the training labels"] = zlib.crc32(labels.tobytes())
            self.files = TrainFiles(options.directory, run)

    def start(self) -> TrainState:
        """The initial state, or that of the newest checkpoint, on the devices."""
        if self.files is not None and self.options.resume:
            state = self.files.resume(jax.eval_shape(self.initial, self.init_key))
        else:
            if self.files is not None:
                self.files.begin()
            state = self.initial(self.init_key)
        # Copied, because the step reuses the memory of the state it is given; and of strong types,
        # because a weak one would become strong in the first step and compile it twice.
        state = jax.tree.map(lambda leaf: jnp.array(leaf, dtype=leaf.dtype), state)
        state = processes.replicated(state, self.replicated)
        if self.files is not None and not self.options.resume:
            # A kill before the first periodic checkpoint can be resumed, too.
            self.files.save(self._on_host(state))
        return state

    def epoch(self, state: TrainState, epoch: int, display: Display) -> tuple[TrainState, Record]:
        """Train to the end of the epoch (counted from 0) and write down what came out."""
        began = time.monotonic()
        order, lengths = self._batches(epoch)
        order = processes.replicated(order, self.replicated)
        step, end = int(state.step), (epoch + 1) * self.steps_per_epoch
        looked, calls, timed = began, 0, began
        while step < end:
            count = min(self.steps_per_call, end - step)
            constants = (order, self.images, self.labels, self.step_key)
            steps = None if lengths is None else lengths[step - epoch * self.steps_per_epoch]
            state = self.update(state, *constants, count=count, steps=steps)
            step, calls = step + count, calls + 1
            now = time.monotonic()
            if not self.estimated and calls == 1:  # compiling lies behind it
                jax.block_until_ready(state)
                timed = time.monotonic()
            elif not self.estimated and now - timed > ESTIMATE_SECONDS:
                jax.block_until_ready(state)
                timed, self.estimated = time.monotonic() - timed, True
                left = self.options.epochs * self.steps_per_epoch - step
                display.estimate((calls - 1) * self.steps_per_call, timed, left)
            # Reading the loss waits for the device, so not after every call.
            if step == end or now - looked > REFRESH_SECONDS or calls % CHECK_CALLS == 0:
                position = step - epoch * self.steps_per_epoch
                display.show(epoch, step, position, *_means(self._checked(state)))
                looked = now
            files = self.files
            if files and step < end and now - files.time >= self.options.checkpoint_seconds:
                files.save(self._on_host(state))
        if self.finish is not None and epoch + 1 == self.options.epochs:
            state = self._finished(state, self.finish)
        record = self._record(state, epoch, began)
        host = self._on_host(state)
        if self.after_epoch is not None:
            record = self.after_epoch(record, host.variables)
        if self.files is not None:
            self.files.end_epoch(host, record)
        display.line(record)
        return state, record

    def _finished(self, state: TrainState, finish: Finish) -> TrainState:
        """The state with what ``finish`` makes of the other collections than the params."""
        host: TrainState = jax.device_get(state)
        rest = {name: leaf for name, leaf in finish(host.variables).items() if name != "params"}
        return dataclasses.replace(state, rest=processes.replicated(rest, self.replicated))

    def _batches(self, epoch: int) -> tuple[PyTree, tuple[int, ...] | None]:
        """The order of the examples in an epoch, and the time steps of its batches, if any."""
        order = _order(jax.random.fold_in(self.order_key, epoch), len(self.labels))
        if self.lengths is None:
            return order, None
        steps = bucket_lengths(self.lengths)
        size, seed = self.options.batch_size, self.options.seed + epoch
        batches = in_batches(np.asarray(order), self.lengths, steps, size, seed)
        return batches.order.astype(np.int32), batches.steps

    def _checked(self, state: TrainState) -> Totals:
        """The totals on the host; a loss that is not finite stays in them and ends the run."""
        totals: Totals = jax.device_get(state.totals)
        if not np.isfinite(totals.loss):
            self._diverged(state, "the loss")
        return totals

    def _diverged(self, state: TrainState, what: str) -> None:
        step = int(state.step)
        stays = f"; the checkpoint of step {self.files.step} stays" if self.files else ""
        raise UserError(
            f"{what} is not finite in epoch {(step - 1) // self.steps_per_epoch + 1}, at or before "
            f"step {step}{stays}; lower the learning rate"
        )

    def _record(self, state: TrainState, epoch: int, began: float) -> Record:
        loss, accuracy = _means(self._checked(state))
        step = int(state.step)
        seconds = time.monotonic() - began
        record: Record = {
            "epoch": epoch + 1,
            "step": step,
            "train_loss": loss,
            "train_accuracy": accuracy,
            "validation_loss": None,
            "validation_accuracy": None,
            "learning_rate": None
            if self.schedule is None
            else float(np.asarray(self.schedule(step - 1))),
            "seconds": round(seconds, 3),
        }
        if self.validation is not None:
            # One device of each process does it; copies on all of them would all do the same.
            variables = jax.tree.map(lambda leaf: leaf.addressable_data(0), state.variables)
            size, micro_batch = self.options.batch_size, self.options.micro_batch
            validated = evaluate(
                self.task, variables, *self.validation, size, micro_batch=micro_batch
            )
            record["validation_loss"] = (
                validated["loss"] if math.isfinite(validated["loss"]) else None
            )
            record["validation_accuracy"] = validated["accuracy"]
        return record

    def _on_host(self, state: TrainState) -> TrainState:
        """The state as NumPy arrays, refused if training has diverged."""
        host: TrainState = jax.device_get(state)
        self._checked(host)
        for name, leaf in flatten(host.variables).items():
            if np.isnan(leaf).any():
                self._diverged(host, name)
        return host


def _means(totals: Totals) -> tuple[float, float]:
    """Mean loss and accuracy of the epoch so far."""
    examples = int(totals.examples)
    return float(totals.loss) / examples, int(totals.correct) / examples


@functools.partial(jax.jit, static_argnums=1)
def _order(key: Array, examples: int) -> Array:
    return jax.random.permutation(key, examples)
