"""The compiled update of training: batches gathered on the device, gradients, one optimiser step.

Everything random follows from one key and the global step, so that a run that is continued draws
what it would have drawn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxsnn.task import Loss, Task

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
    """

    step: Array
    params: Any
    rest: Any
    opt_state: Any
    totals: Totals

    @property
    def variables(self) -> dict[str, Any]:
        """The collections as the task's `init` returned them: ``{"params": ..., ...}``."""
        return {"params": self.params, **self.rest}


class Plan(NamedTuple):
    """The numbers that a compiled update is built for; `batch_size` counts all devices together."""

    batch_size: int
    steps_per_epoch: int
    steps_per_call: int
    devices: int


@functools.lru_cache(maxsize=16)  # another call with the same task and optimiser compiles nothing
def programs(
    task: Task, optimiser: optax.GradientTransformation, plan: Plan
) -> tuple[Callable[[Array], TrainState], Callable[..., TrainState]]:
    """Two compiled functions: key -> initial state, and the update of the state in place.

    The second takes ``(state, order int32 [N], images [N, ...], labels int32 [N], key, count)``,
    `count` by name, and makes that many updates (always one if ``plan.steps_per_call`` is 1). It
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
        )

    update = _update(_gradients(task.loss, mesh_of(plan.devices)), optimiser, plan)
    # Not jitted: a task draws in a program of its own, which is compiled for a single run.
    return initial, jax.jit(update, donate_argnums=0)


def mesh_of(devices: int) -> Mesh:
    """The first local devices as a mesh of the one axis `SHARD`."""
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
    plan: Plan,
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
