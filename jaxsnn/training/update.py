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
import optax
from jax import Array, lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxsnn.network.arithmetic import Arithmetic, compiler_options
from jaxsnn.training.gradients import Plan, Sums, gradients_of, mesh_of, rows_of
from jaxsnn.training.task import Task
from jaxsnn.types import PyTree, Tree


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
    params: PyTree
    rest: PyTree
    opt_state: PyTree
    totals: Totals
    average: PyTree = None

    @property
    def variables(self) -> Tree:
        """The collections as the task's ``init`` returned them: ``{"params": ..., ...}``."""
        return {"params": self.params if self.average is None else self.average, **self.rest}


@functools.lru_cache(maxsize=16)  # another call with the same task and optimiser compiles nothing
def programs(
    task: Task, optimiser: optax.GradientTransformation, plan: Plan
) -> tuple[Callable[[Array], TrainState], Callable[..., TrainState]]:
    """Two functions: key -> initial state, and the compiled update of the state in place.

    The second takes ``(state, order int32 [N], images [N, ...], labels int32 [N], key, count,
    steps)``, the last two by name, and makes ``count`` updates (always one if
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
    update = _update(gradients_of(task, plan), optimiser, plan)
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
    gradients = gradients_of(task, plan._replace(micro_batch=None))

    @functools.partial(compiled, static_argnames="steps", donate_argnums=0)
    def add(
        sums: Sums,
        params: PyTree,
        step: Array,
        constants: tuple[Array, PyTree, Array, Array],
        part: Array,
        steps: int | None,
    ) -> Sums:
        order, images, labels, key = constants
        rows = rows_of(order, step, plan).reshape(plan.devices, parts, -1)[:, part].reshape(-1)
        key = jax.random.fold_in(jax.random.fold_in(key, step), part)
        slopes, rest, *counts = sums
        more, rest, *more_counts = gradients(
            params, rest, images, labels, rows, key, step, steps=steps
        )
        slopes = jax.tree.map(lambda total, one: total + one / parts, slopes, more)
        return (slopes, rest, counts[0] + more_counts[0], counts[1] + more_counts[1])

    @functools.partial(compiled, donate_argnums=0)
    def move(state: TrainState, sums: Sums) -> TrainState:
        return _moved(state, sums, optimiser, plan)

    everywhere = NamedSharding(mesh_of(plan.devices), P())

    @functools.partial(jax.jit, out_shardings=everywhere)  # as `add` gives it: one program
    def nothing(params: PyTree, rest: PyTree) -> Sums:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, rest, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)

    def update(state: TrainState, *constants: PyTree, count: int, steps: int | None) -> TrainState:
        del count  # one: see `steps_per_call`
        sums = nothing(state.params, state.rest)
        state = dataclasses.replace(state, rest=None)  # its memory is reused
        for part in range(parts):
            sums = add(sums, state.params, state.step, constants, part, steps=steps)
        return move(state, sums)

    return update


def _moved(
    state: TrainState, sums: Sums, optimiser: optax.GradientTransformation, plan: Plan
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
    gradients: Callable[..., Sums],
    optimiser: optax.GradientTransformation,
    plan: Plan,
) -> Callable[..., TrainState]:
    """(state, order [N], images, labels, key, count, steps) -> state after ``count`` updates."""

    def one(
        state: TrainState,
        order: Array,
        images: PyTree,
        labels: Array,
        key: Array,
        steps: int | None,
    ) -> TrainState:
        rows, step_key = rows_of(order, state.step, plan), jax.random.fold_in(key, state.step)
        operands = (state.params, state.rest, images, labels, rows, step_key, state.step)
        return _moved(state, gradients(*operands, steps=steps), optimiser, plan)

    def update(
        state: TrainState, *constants: PyTree, count: Array, steps: int | None
    ) -> TrainState:
        following = functools.partial(one, steps=steps)
        if plan.steps_per_call == 1:
            return following(state, *constants)
        # A loop of traced length: the last, shorter call of an epoch needs no second program.
        return lax.fori_loop(0, count, lambda _, state: following(state, *constants), state)

    return update
