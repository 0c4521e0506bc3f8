"""The compiled update of training: batches gathered on the device, gradients, one optimiser step.

Everything random follows from one key and the global step, so that a run that is continued draws
what it would have drawn.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxsnn.inputs.preprocess import Moment
from jaxsnn.io import processes
from jaxsnn.network.arithmetic import Arithmetic, compiler_options
from jaxsnn.training.task import Loss, Task, keywords

SHARD = "shard"  # name of the device axis that a task reduces its batch statistics over


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
        average: of the params over the updates, where the plan wants one.
    """

    step: Array
    params: Any
    rest: Any
    opt_state: Any
    totals: Totals
    average: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """The collections as the task's `init` returned them: ``{"params": ..., ...}``."""
        return {"params": self.params if self.average is None else self.average, **self.rest}


class Plan(NamedTuple):
    """The numbers that a compiled update is built for.

    Attributes:
        batch_size: examples of an update, over all devices together.
        steps_per_epoch: updates of an epoch.
        steps_per_call: most updates of a compiled call.
        devices: of all processes, that share a batch.
        micro_batch: examples whose gradient is computed at once; None: all that a device has.
        averaging: share that the average of the params keeps in an update; 0: there is none.
    """

    batch_size: int
    steps_per_epoch: int
    steps_per_call: int
    devices: int
    micro_batch: int | None = None
    averaging: float = 0.0


Found = tuple[Any, Any, Array, Array]  # gradients, new rest, sum of losses, number correct


@functools.lru_cache(maxsize=16)  # another call with the same task and optimiser compiles nothing
def programs(
    task: Task, optimiser: optax.GradientTransformation, plan: Plan
) -> tuple[Callable[[Array], TrainState], Callable[..., TrainState]]:
    """Two compiled functions: key -> initial state, and the update of the state in place.

    The second takes ``(state, order int32 [N], images [N, ...], labels int32 [N], key, count,
    steps)``, the last two by name, and makes `count` updates (always one if
    ``plan.steps_per_call`` is 1) on examples of so many time steps (None: the task knows). It
    reuses the memory of the state that it is given.
    """

    def initial(key: Array) -> TrainState:
        variables = task.init(key)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(
            step=zero,
            params=variables["params"],
            rest={name: value for name, value in variables.items() if name != "params"},
            opt_state=optimiser.init(variables["params"]),
            totals=Totals(jnp.zeros((), jnp.float32), zero, zero),
            average=variables["params"] if plan.averaging else None,
        )

    compiled = functools.partial(jax.jit, compiler_options=compiler_options(task.arithmetic))
    # The first is not jitted: a task draws in a program of its own, compiled for a single run.
    if _one_program_each(task, plan):
        return initial, _part_by_part(task, optimiser, plan, compiled)
    update = _update(_gradients(task, plan), optimiser, plan)
    return initial, compiled(update, donate_argnums=0, static_argnames="steps")


def _one_program_each(task: Task, plan: Plan) -> bool:
    """Whether micro-batches are calls of a program instead of turns of a loop.

    A processor takes a slow path for the gradient of a convolution inside a loop (up to 50 times);
    networks that are trained through time have none there (``Arithmetic.IN_LOOP``).
    """
    loops = plan.micro_batch is None or task.arithmetic is Arithmetic.IN_LOOP
    return not loops and jax.default_backend() == "cpu"


def _part_by_part(
    task: Task,
    optimiser: optax.GradientTransformation,
    plan: Plan,
    compiled: Callable[..., Any],
) -> Callable[..., TrainState]:
    """One update, as a call for every micro-batch and one for the optimiser's step."""
    share = plan.batch_size // plan.devices
    parts = share // (plan.micro_batch or share)
    gradients = _gradients(task, plan._replace(micro_batch=None))

    @functools.partial(compiled, static_argnames="steps", donate_argnums=0)
    def add(
        sums: Found,
        params: Any,
        step: Array,
        constants: tuple[Array, Any, Array, Array],
        part: Array,
        steps: int | None,
    ) -> Found:
        order, images, labels, key = constants
        rows = _rows(order, step, plan).reshape(plan.devices, parts, -1)[:, part].reshape(-1)
        key = jax.random.fold_in(jax.random.fold_in(key, step), part)
        slopes, rest, *counts = sums
        more, rest, *more_counts = gradients(
            params, rest, images, labels, rows, key, step, steps=steps
        )
        slopes = jax.tree.map(lambda total, one: total + one / parts, slopes, more)
        return (slopes, rest, counts[0] + more_counts[0], counts[1] + more_counts[1])

    @functools.partial(compiled, donate_argnums=0)
    def move(state: TrainState, sums: Found) -> TrainState:
        return _moved(state, sums, optimiser, plan)

    everywhere = NamedSharding(mesh_of(plan.devices), P())

    @functools.partial(jax.jit, out_shardings=everywhere)  # as `add` gives it: one program
    def nothing(params: Any, rest: Any) -> Found:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, rest, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)

    def update(state: TrainState, *constants: Any, count: int, steps: int | None) -> TrainState:
        del count  # one: see `steps_per_call`
        sums = nothing(state.params, state.rest)
        state = dataclasses.replace(state, rest=None)  # its memory is reused
        for part in range(parts):
            sums = add(sums, state.params, state.step, constants, part, steps=steps)
        return move(state, sums)

    return update


def mesh_of(devices: int) -> Mesh:
    """So many devices, as many of each process, as a mesh of the one axis `SHARD`."""
    return Mesh(np.array(processes.devices(devices)), (SHARD,))


def _gradients(task: Task, plan: Plan) -> Callable[..., Found]:
    """(params, rest, images, labels, rows, key, number, steps) -> what all devices find."""
    mesh = mesh_of(plan.devices)
    axis_name = SHARD if mesh.size > 1 else None

    def local(
        params: Any,
        rest: Any,
        images: Any,
        labels: Array,
        rows: Array,
        key: Array,
        number: Array,
        steps: int | None,
    ) -> Found:
        if axis_name is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis_name))
        size = plan.micro_batch or len(rows)

        def part(rest: Any, rows: Array, key: Array) -> Found:
            batch = jax.tree.map(lambda leaf: leaf[rows], images)
            moment = Moment(number, number // plan.steps_per_epoch, rows)
            how = keywords(axis_name, steps, moment if task.paced else None)
            return _of_batch(task.loss, params, rest, batch, labels[rows], key, how)

        if size == len(rows):
            found = part(rest, rows, key)
        else:
            found = _accumulated(part, params, rest, rows.reshape(-1, size), key)
        return found if axis_name is None else _over_devices(found, axis_name)

    def apply(*operands: Any, steps: int | None) -> Found:
        body: Callable[..., Found] = functools.partial(local, steps=steps)
        if axis_name is None:
            return body(*operands)
        # Unchecked: the checked mode would already sum the gradient of what all devices share.
        specs = (P(), P(), P(), P(), P(SHARD), P(), P())
        shared = jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)
        return shared(*operands)

    return apply


def _of_batch(
    loss: Loss, params: Any, rest: Any, images: Any, labels: Array, key: Array, how: dict[str, Any]
) -> Found:
    """Gradients of the mean loss of some examples."""

    def mean_loss(params: Any) -> tuple[Array, Any]:
        losses, (logits, new_rest) = loss(params, rest, images, labels, key, True, **how)
        return jnp.mean(losses), (new_rest, losses, logits)

    gradients, (new_rest, losses, logits) = jax.grad(mean_loss, has_aux=True)(params)
    correct = jnp.sum(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.int32)
    return gradients, new_rest, jnp.sum(losses, dtype=jnp.float32), correct


def _accumulated(
    part: Callable[[Any, Array, Array], Found], params: Any, rest: Any, rows: Array, key: Array
) -> Found:
    """Gradients of the mean loss of all ``rows [M, size]``, one row after the other.

    The gradient is taken inside the loop, so that only one micro-batch's activations are kept.
    """

    def add(carry: Found, own: tuple[Array, Array]) -> tuple[Found, None]:
        gradients, rest, loss, correct = carry
        more, rest, more_loss, more_correct = part(rest, own[0], jax.random.fold_in(key, own[1]))
        gradients = jax.tree.map(lambda total, one: total + one / len(rows), gradients, more)
        return (gradients, rest, loss + more_loss, correct + more_correct), None

    nothing = (jax.tree.map(jnp.zeros_like, params), rest, jnp.float32(0), jnp.int32(0))
    return lax.scan(add, nothing, (rows, jnp.arange(len(rows))))[0]


def _over_devices(found: Found, axis_name: str) -> Found:
    """Mean gradients and statistics, and sums, of all devices."""
    gradients, rest, loss, correct = found
    rest = jax.tree.map(
        lambda leaf: lax.pmean(leaf, axis_name) if jnp.issubdtype(leaf, jnp.floating) else leaf,
        rest,
    )
    gradients = lax.pmean(gradients, axis_name)
    return gradients, rest, lax.psum(loss, axis_name), lax.psum(correct, axis_name)


def _rows(order: Array, step: Array, plan: Plan) -> Array:
    """The examples of an update."""
    first = step % plan.steps_per_epoch * plan.batch_size
    return lax.dynamic_slice_in_dim(order, first, plan.batch_size)


def _moved(
    state: TrainState, sums: Found, optimiser: optax.GradientTransformation, plan: Plan
) -> TrainState:
    """The state after the optimiser's step, with what the examples of a batch gave."""
    slopes, rest, loss, correct = sums
    updates, opt_state = optimiser.update(slopes, state.opt_state, state.params)
    added = Totals(loss, correct, jnp.int32(plan.batch_size))
    begins = state.step % plan.steps_per_epoch == 0
    totals = jax.tree.map(lambda old, new: jnp.where(begins, new, old + new), state.totals, added)
    params = optax.apply_updates(state.params, updates)
    average = None
    if plan.averaging:
        average = optax.incremental_update(params, state.average, 1 - plan.averaging)
    return TrainState(state.step + 1, params, rest, opt_state, totals, average)


def _update(
    gradients: Callable[..., Found],
    optimiser: optax.GradientTransformation,
    plan: Plan,
) -> Callable[..., TrainState]:
    """(state, order [N], images, labels, key, count, steps) -> state after `count` updates."""

    def one(
        state: TrainState,
        order: Array,
        images: Any,
        labels: Array,
        key: Array,
        steps: int | None,
    ) -> TrainState:
        rows, own = _rows(order, state.step, plan), jax.random.fold_in(key, state.step)
        operands = (state.params, state.rest, images, labels, rows, own, state.step)
        return _moved(state, gradients(*operands, steps=steps), optimiser, plan)

    def update(state: TrainState, *constants: Any, count: Array, steps: int | None) -> TrainState:
        following = functools.partial(one, steps=steps)
        if plan.steps_per_call == 1:
            return following(state, *constants)
        # A loop of traced length: the last, shorter call of an epoch needs no second program.
        return lax.fori_loop(0, count, lambda _, state: following(state, *constants), state)

    return update
