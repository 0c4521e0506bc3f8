"""Training: one compiled step per batch on a CPU, a compiled loop of steps on an accelerator.

The network is not known here. A system hands in a `Task`, two pure functions over plain trees, and
an Optax optimiser; everything random follows from one seed and the global step, so that a run that
was killed continues from its last checkpoint as if nothing had happened.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxsnn.checkpoint import Checkpoints, flatten, load_arrays, save_arrays
from jaxsnn.files import append_jsonl

Tree: TypeAlias = dict[str, Any]
Record: TypeAlias = dict[str, float | int | None]
Data: TypeAlias = tuple[Any, Any, Any, Any]

SHARD = "shard"  # name of the device axis that a task reduces its batch statistics over
CHECK_CALLS = 100  # at most so many compiled calls between two looks at the loss
REFRESH_SECONDS = 0.5


class Loss(Protocol):
    """Per-example loss of a batch, pure: casts and augments the images itself, inside jit.

    Takes ``(params, rest, images uint8 [B, ...], labels int32 [B], key, train)`` and the name of
    the device axis that batch statistics are averaged over (None on one device); returns
    ``(loss float [B], (logits [B, classes], new rest))``.
    """

    def __call__(
        self,
        params: Any,
        rest: Any,
        images: Array,
        labels: Array,
        key: Array,
        train: bool,
        /,
        *,
        axis_name: str | None,
    ) -> tuple[Array, tuple[Array, Any]]:
        """Compute the loss of every example; see the class."""
        ...


class Task(NamedTuple):
    """What is trained: initial variables (``{"params": ..., ...}``) from a key, and the loss."""

    init: Callable[[Array], Mapping[str, Any]]
    loss: Loss


class Totals(NamedTuple):
    """Sums over the examples of the current epoch: loss float32, correct and examples int32."""

    loss: Array
    correct: Array
    examples: Array


@flax.struct.dataclass
class TrainState:
    """All that changes during training, and all that a checkpoint holds.

    Attributes:
        step: int32, number of updates made.
        params: what the optimiser moves.
        rest: every other collection by name (``batch_stats``, ...).
        opt_state: state of the Optax optimiser.
        totals: sums of the current epoch, so that a resumed epoch reports its whole mean.
    """

    step: Array
    params: Any
    rest: Any
    opt_state: Any
    totals: Totals

    @property
    def variables(self) -> Tree:
        """The collections as the task's `init` returned them: ``{"params": ..., ...}``."""
        return {"params": self.params, **self.rest}


@dataclasses.dataclass(frozen=True)
class Options:
    """How to train.

    Attributes:
        epochs: passes over the training images in all, those before a resume included.
        batch_size: examples of one update, over all devices together.
        seed: of the initial weights, the order of the images and all noise.
        directory: where ``metrics.jsonl``, ``model.npz``, ``best.npz`` and ``checkpoints/`` go;
            None writes nothing.
        resume: continue from the newest checkpoint in `directory`.
        checkpoint_seconds: a checkpoint at least so often; there is one after every epoch anyway.
        steps_per_call: updates per compiled call; None leaves it to the backend.
        devices: local devices that share each batch.
    """

    epochs: int
    batch_size: int
    seed: int = 0
    directory: str | Path | None = None
    resume: bool = False
    checkpoint_seconds: float = 60.0
    steps_per_call: int | None = None
    devices: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            ValueError: a number below 1, a batch that the devices cannot share equally, more
                devices than there are, or `resume` without a directory.
        """
        for name in ("epochs", "batch_size", "devices", "steps_per_call"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value}: give a whole number of at least 1")
        if self.batch_size % self.devices:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of devices = {self.devices}"
            )
        if self.devices > jax.local_device_count():
            raise ValueError(
                f"devices = {self.devices}, but only {jax.local_device_count()} are here"
            )
        if self.resume and self.directory is None:
            raise ValueError("resume needs the directory of the run to continue")


def steps_per_call(options: Options) -> int:
    """Number of updates in one compiled call; the only place that looks at the backend.

    XLA:CPU takes a slow path for the gradient of a convolution inside a loop (ten times slower for
    LeNet), so a CPU runs one step a call. On an accelerator launching a call costs more than a
    small step, so that many share one.
    """
    if options.steps_per_call is not None:
        return options.steps_per_call
    return 1 if jax.default_backend() == "cpu" else 64


def train(
    task: Task,
    optimiser: optax.GradientTransformation,
    data: Data,
    options: Options,
    progress: bool = True,
    schedule: Callable[[int], Any] | None = None,
) -> tuple[TrainState, list[Record]]:
    """Train a task; with a directory, kill-safe and resumable bit for bit.

    The images stay on the device as uint8 and every batch is gathered inside the compiled step. The
    last, partial batch of an epoch is dropped. With several devices each takes its share of every
    batch and draws its own noise: a task without noise then trains as on one device, up to the
    order of float sums.

    Args:
        task: initial variables and loss.
        optimiser: updates params; schedules count global steps.
        data: training images uint8 [N, ...] and labels [N], validation images and labels (None or
            empty: no validation).
        options: see `Options`.
        progress: a progress bar on a terminal, else a line per epoch; False prints nothing.
        schedule: step -> learning rate, only for the record of the rate in ``metrics.jsonl``.

    Returns:
        The final state, and one record for each epoch that this call finished (fields as in
        ``metrics.jsonl``; epochs count from 1, the learning rate is that of the last update).

    Raises:
        ValueError: fewer images than a batch, images and labels of different length, `resume`
            without a checkpoint or with one of another run, a directory that already holds
            checkpoints without `resume`, or a loss that is not finite (the checkpoints from before
            it stay).
    """
    run = _Run(task, optimiser, data, options, schedule)
    state = run.start()
    history: list[Record] = []
    with _Display(options, run.steps_per_epoch, progress) as display:
        for epoch in range(int(state.step) // run.steps_per_epoch, options.epochs):
            state, record = run.epoch(state, epoch, display)
            history.append(record)
    return state, history


def evaluate(
    task: Task,
    variables: Mapping[str, Any],
    images: Any,
    labels: Any,
    batch_size: int,
    key: Array | None = None,
) -> dict[str, Any]:
    """Mean loss and accuracy with ``train=False``: ``{"loss", "accuracy", "correct"}``.

    The last batch is padded and masked, so that one compiled program serves every batch.

    Args:
        task: whose loss is taken.
        variables: ``{"params": ..., ...}``.
        images: uint8 [N, ...].
        labels: whole numbers [N].
        batch_size: examples per compiled call.
        key: for tasks that are random in evaluation, too; each batch gets its own.

    Raises:
        ValueError: no images, or images and labels of different length.
    """
    images, labels = _checked(images, labels, "evaluation")
    if len(images) == 0:
        raise ValueError("evaluation needs at least one image")
    key = jax.random.key(0) if key is None else key
    params = variables["params"]
    rest = {name: value for name, value in variables.items() if name != "params"}
    sums: list[tuple[Array, Array]] = []
    for number, start in enumerate(range(0, len(images), batch_size)):
        rows = np.arange(start, start + batch_size)
        real = rows < len(images)
        rows = np.minimum(rows, len(images) - 1)
        batch_key = jax.random.fold_in(key, number)
        sums.append(
            _evaluator(task.loss)(params, rest, images[rows], labels[rows], real, batch_key)
        )
    losses, counts = zip(*jax.device_get(sums), strict=True)
    correct = sum(int(count) for count in counts)
    loss = math.fsum(float(part) for part in losses) / len(images)
    return {"loss": loss, "accuracy": correct / len(images), "correct": correct}


@functools.lru_cache(maxsize=16)  # one compiled program per task, however often it is evaluated
def _evaluator(loss: Loss) -> Callable[..., tuple[Array, Array]]:
    def sums(
        params: Any, rest: Any, images: Array, labels: Array, real: Array, key: Array
    ) -> tuple[Array, Array]:
        losses, (logits, _) = loss(params, rest, images, labels, key, False, axis_name=None)
        hits = (jnp.argmax(logits, axis=-1) == labels) & real
        # select, not multiply: a NaN of the padding times zero would still be a NaN
        return jnp.sum(jnp.where(real, losses.astype(jnp.float32), 0.0)), jnp.sum(
            hits, dtype=jnp.int32
        )

    return jax.jit(sums)


def _checked(images: Any, labels: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = np.asarray(images), np.asarray(labels).astype(np.int32)
    if len(images) != len(labels):
        raise ValueError(f"{what}: {len(images)} images but {len(labels)} labels")
    return images, labels


class _Run:
    """One call of `train`: the constants of the run, and what happens around the compiled step."""

    def __init__(
        self,
        task: Task,
        optimiser: optax.GradientTransformation,
        data: Data,
        options: Options,
        schedule: Callable[[int], Any] | None,
    ) -> None:
        images, labels = _checked(data[0], data[1], "training")
        self.steps_per_epoch = len(images) // options.batch_size
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"{len(images)} training images do not fill one batch of {options.batch_size}; "
                "choose a smaller batch_size"
            )
        self.validation = None
        if data[2] is not None and len(data[2]):
            self.validation = _checked(data[2], data[3], "validation")
        self.task, self.options, self.schedule = task, options, schedule
        self.init_key, self.order_key, self.step_key = jax.random.split(
            jax.random.key(options.seed), 3
        )
        self.steps_per_call = steps_per_call(options)
        plan = _Plan(options.batch_size, self.steps_per_epoch, self.steps_per_call, options.devices)
        self.initial, self.update = _programs(task, optimiser, plan)
        self.everywhere = NamedSharding(_mesh(options.devices), P())
        self.images, self.labels = jax.device_put((images, labels), self.everywhere)
        self.checkpoints = None
        if options.directory is not None:
            run = {"seed": options.seed, "batch_size": options.batch_size, "images": len(images)}
            self.checkpoints = Checkpoints(Path(options.directory) / "checkpoints", run)
        self.saved = (-1, time.monotonic())  # step and time of the last checkpoint
        self.best = -1.0  # validation accuracy of best.npz

    def start(self) -> TrainState:
        """The initial state, or that of the newest checkpoint, on the devices."""
        template = jax.eval_shape(self.initial, self.init_key)
        state = None
        if self.checkpoints is not None:
            state = self._resumed(self.checkpoints, template)
        if state is None:
            state = self.initial(self.init_key)
        # Copied, because the step reuses the memory of the state it is given; and of strong types,
        # because a weak one would become strong in the first step and compile it twice.
        state = jax.tree.map(lambda leaf: jnp.array(leaf, dtype=leaf.dtype), state)
        state = jax.device_put(state, self.everywhere)
        if self.checkpoints is not None and not self.options.resume:
            self._save(state)  # a kill before the first periodic checkpoint can be resumed, too
        self.saved = (int(state.step), time.monotonic())
        return state

    def _resumed(self, checkpoints: Checkpoints, template: TrainState) -> TrainState | None:
        if not self.options.resume:
            if steps := checkpoints.steps():
                raise ValueError(
                    f"{checkpoints.directory} holds an earlier run up to step {steps[-1]}; "
                    "continue it with resume, or choose another directory"
                )
            return None
        state = checkpoints.restore_latest(template)
        if state is None:
            raise ValueError(f"{checkpoints.directory} holds no checkpoint to resume from")
        best = checkpoints.directory.parent / "best.npz"
        if best.exists():
            self.best = load_arrays(best)[1]["validation_accuracy"]
        return state

    def epoch(self, state: TrainState, epoch: int, display: _Display) -> tuple[TrainState, Record]:
        """Train to the end of the epoch (counted from 0) and write down what came out."""
        began = time.monotonic()
        order = _order(jax.random.fold_in(self.order_key, epoch), len(self.images))
        order = jax.device_put(order, self.everywhere)
        step, end = int(state.step), (epoch + 1) * self.steps_per_epoch
        looked, calls = began, 0
        while step < end:
            count = min(self.steps_per_call, end - step)
            constants = (order, self.images, self.labels, self.step_key)
            state = self.update(state, *constants, count=count)
            step, calls = step + count, calls + 1
            now = time.monotonic()
            # Reading the loss waits for the device, so not after every call.
            if step == end or now - looked > REFRESH_SECONDS or calls % CHECK_CALLS == 0:
                totals = self._checked(state)
                display.show(epoch, step, step - epoch * self.steps_per_epoch, totals)
                looked = now
            if step < end and now - self.saved[1] >= self.options.checkpoint_seconds:
                self._save(state)
        record = self._record(state, epoch, began)
        self._write(state, record)
        display.line(record)
        return state, record

    def _checked(self, state: TrainState) -> Totals:
        """The totals on the host; a loss that is not finite stays in them and ends the run."""
        totals: Totals = jax.device_get(state.totals)
        if not np.isfinite(totals.loss):
            self._diverged(state, "the loss")
        return totals

    def _diverged(self, state: TrainState, what: str) -> None:
        step = int(state.step)
        stays = f"; the checkpoint of step {self.saved[0]} stays" if self.checkpoints else ""
        raise ValueError(
            f"{what} is not finite in epoch {(step - 1) // self.steps_per_epoch + 1}, at or before "
            f"step {step}{stays}; lower the learning rate"
        )

    def _record(self, state: TrainState, epoch: int, began: float) -> Record:
        totals, step = self._checked(state), int(state.step)
        seconds = time.monotonic() - began
        record: Record = {
            "epoch": epoch + 1,
            "step": step,
            "train_loss": float(totals.loss) / int(totals.examples),
            "train_accuracy": int(totals.correct) / int(totals.examples),
            "validation_loss": None,
            "validation_accuracy": None,
            "learning_rate": None if self.schedule is None else float(self.schedule(step - 1)),
            "seconds": round(seconds, 3),
        }
        if self.validation is not None:
            # One device does it; copies on all of them would all do the same.
            variables = jax.device_put(state.variables, jax.local_devices()[0])
            found = evaluate(self.task, variables, *self.validation, self.options.batch_size)
            record["validation_loss"] = found["loss"] if math.isfinite(found["loss"]) else None
            record["validation_accuracy"] = found["accuracy"]
        return record

    def _write(self, state: TrainState, record: Record) -> None:
        host = self._on_host(state)
        if self.options.directory is None:
            return
        # The line before the checkpoint: a kill in between repeats the line and never loses it.
        directory = Path(self.options.directory)
        append_jsonl(directory / "metrics.jsonl", record)
        accuracy = record["validation_accuracy"]
        if accuracy is not None and accuracy > self.best:
            self.best = accuracy
            save_arrays(directory / "best.npz", flatten(host.variables), record)
        self._save(host)

    def _save(self, state: TrainState) -> None:
        if self.checkpoints is None:
            return
        host = self._on_host(state)
        step = int(host.step)
        self.checkpoints.save(step, host)
        model = Path(str(self.options.directory)) / "model.npz"
        save_arrays(model, flatten(host.variables), {"step": step})
        self.saved = (step, time.monotonic())

    def _on_host(self, state: TrainState) -> TrainState:
        """The state as NumPy arrays, refused if training has diverged."""
        host: TrainState = jax.device_get(state)
        self._checked(host)
        for name, leaf in flatten(host.variables).items():
            if np.isnan(leaf).any():
                self._diverged(host, name)
        return host


@functools.partial(jax.jit, static_argnums=1)
def _order(key: Array, examples: int) -> Array:
    return jax.random.permutation(key, examples)


class _Plan(NamedTuple):
    """The numbers that a compiled update is built for."""

    batch_size: int
    steps_per_epoch: int
    steps_per_call: int
    devices: int


@functools.lru_cache(maxsize=16)  # another call with the same task and optimiser compiles nothing
def _programs(
    task: Task, optimiser: optax.GradientTransformation, plan: _Plan
) -> tuple[Callable[[Array], TrainState], Callable[..., TrainState]]:
    def initial(key: Array) -> TrainState:
        variables = task.init(key)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(
            step=zero,
            params=variables["params"],
            rest={name: value for name, value in variables.items() if name != "params"},
            opt_state=optimiser.init(variables["params"]),
            totals=Totals(jnp.zeros((), jnp.float32), zero, zero),
        )

    update = _update(_gradients(task.loss, _mesh(plan.devices)), optimiser, plan)
    return jax.jit(initial), jax.jit(update, donate_argnums=0)


def _mesh(devices: int) -> Mesh:
    return Mesh(np.array(jax.local_devices()[:devices]), (SHARD,))


def _gradients(loss: Loss, mesh: Mesh) -> Callable[..., tuple[Any, Any, Array, Array]]:
    """(params, rest, images, labels, rows, key) -> gradients, new rest, sum of loss, correct."""
    shards = mesh.size
    axis_name = SHARD if shards > 1 else None

    def local(
        params: Any, rest: Any, images: Array, labels: Array, rows: Array, key: Array
    ) -> tuple[Any, Any, Array, Array]:
        def mean_loss(params: Any) -> tuple[Array, Any]:
            losses, (logits, new_rest) = loss(
                params, rest, batch, targets, key, True, axis_name=axis_name
            )
            return jnp.mean(losses), (new_rest, losses, logits)

        if axis_name is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis_name))
        batch, targets = images[rows], labels[rows]
        gradients, (new_rest, losses, logits) = jax.grad(mean_loss, has_aux=True)(params)
        loss_sum = jnp.sum(losses, dtype=jnp.float32)
        correct = jnp.sum(jnp.argmax(logits, axis=-1) == targets, dtype=jnp.int32)
        if axis_name is None:
            return gradients, new_rest, loss_sum, correct
        gradients = lax.pmean(gradients, axis_name)
        new_rest = jax.tree.map(
            lambda leaf: lax.pmean(leaf, axis_name) if jnp.issubdtype(leaf, jnp.floating) else leaf,
            new_rest,
        )
        return gradients, new_rest, lax.psum(loss_sum, axis_name), lax.psum(correct, axis_name)

    if axis_name is None:
        return local
    specs = (P(), P(), P(), P(), P(SHARD), P())
    # Unchecked: the checked mode would already sum the gradient of what all devices share.
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)


def _update(
    gradients: Callable[..., tuple[Any, Any, Array, Array]],
    optimiser: optax.GradientTransformation,
    plan: _Plan,
) -> Callable[..., TrainState]:
    """(state, order [N], images, labels, key, count) -> state after `count` updates."""
    size = plan.batch_size

    def one(
        state: TrainState, order: Array, images: Array, labels: Array, key: Array
    ) -> TrainState:
        position = state.step % plan.steps_per_epoch
        rows = lax.dynamic_slice_in_dim(order, position * size, size)
        slopes, rest, loss, correct = gradients(
            state.params, state.rest, images, labels, rows, jax.random.fold_in(key, state.step)
        )
        updates, opt_state = optimiser.update(slopes, state.opt_state, state.params)
        added = Totals(loss, correct, jnp.int32(size))
        totals = jax.tree.map(
            lambda old, new: jnp.where(position == 0, new, old + new), state.totals, added
        )
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, rest, opt_state, totals)

    def update(state: TrainState, *constants: Array, count: Array) -> TrainState:
        if plan.steps_per_call == 1:
            return one(state, *constants)
        # A loop of traced length: the last, shorter call of an epoch needs no second program.
        return lax.fori_loop(0, count, lambda _, state: one(state, *constants), state)

    return update


class _Display:
    """What the user sees: a bar on a terminal, otherwise one line for each epoch."""

    def __init__(self, options: Options, steps_per_epoch: int, progress: bool) -> None:
        console = Console()
        self.options = options
        self.print = console.print if progress else None
        self.started: tuple[int, int, float] = (
            -1,
            0,
            0.0,
        )  # epoch, position and time of first look
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Progress(
            *columns, console=console, disable=not (progress and console.is_terminal)
        )
        self.task = self.bar.add_task("training", total=options.epochs * steps_per_epoch)

    def __enter__(self) -> _Display:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, epoch: int, step: int, position: int, totals: Totals) -> None:
        """Move the bar to a step; `position` counts the steps within the epoch."""
        now = time.monotonic()
        if self.started[0] != epoch:
            self.started = (epoch, position, now)
        _, first, began = self.started
        speed = (position - first) * self.options.batch_size / (now - began) if now > began else 0
        text = f"epoch {epoch + 1}/{self.options.epochs}"
        if totals.examples:
            loss, accuracy = totals.loss / totals.examples, totals.correct / totals.examples
            text += f"  loss {loss:.4f}  accuracy {accuracy:.2%}  {speed:,.0f} images/s"
        self.bar.update(self.task, completed=step, description=text)

    def line(self, record: Record) -> None:
        """Print the record of an epoch."""
        if self.print is None:
            return
        parts = [f"epoch {record['epoch']}/{self.options.epochs}"]
        names = ("train_loss", "train_accuracy", "validation_accuracy")
        for name in names:
            if (value := record[name]) is not None:
                shown = f"{value:.4f}" if name.endswith("loss") else f"{value:.2%}"
                parts.append(f"{name.replace('_', ' ')} {shown}")
        self.print(
            "  ".join([*parts, f"{record['seconds']:.1f} s"]), highlight=False, soft_wrap=True
        )
