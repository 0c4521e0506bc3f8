"""Gradients of a batch, over micro-batches and over the devices that share it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxsnn.inputs.preprocess import Moment
from jaxsnn.io import processes
from jaxsnn.training.task import Task
from jaxsnn.types import PyTree

SHARD = "shard"  # name of the device axis that a task reduces its batch statistics over


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


Sums = tuple[PyTree, PyTree, Array, Array]  # gradients, new rest, sum of losses, number correct


def mesh_of(devices: int) -> Mesh:
    """So many devices, as many of each process, as a mesh of the one axis ``SHARD``."""
    return Mesh(np.array(processes.devices(devices)), (SHARD,))


def gradients_of(task: Task, plan: Plan) -> Callable[..., Sums]:
    """(params, rest, images, labels, rows, key, number, steps) -> what all devices find."""
    mesh = mesh_of(plan.devices)
    axis_name = SHARD if mesh.size > 1 else None

    def local(
        params: PyTree,
        rest: PyTree,
        images: PyTree,
        labels: Array,
        rows: Array,
        key: Array,
        number: Array,
        steps: int | None,
    ) -> Sums:
        if axis_name is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis_name))
        size = plan.micro_batch or len(rows)

        def part(rest: PyTree, rows: Array, key: Array) -> Sums:
            batch = jax.tree.map(lambda leaf: leaf[rows], images)
            moment = Moment(number, number // plan.steps_per_epoch, rows)
            loss = functools.partial(
                task.loss, axis_name=axis_name, steps=steps, moment=moment if task.paced else None
            )
            return _of_batch(loss, params, rest, batch, labels[rows], key)

        if size == len(rows):
            result = part(rest, rows, key)
        else:
            result = _accumulated(part, params, rest, rows.reshape(-1, size), key)
        return result if axis_name is None else _over_devices(result, axis_name)

    def apply(*operands: PyTree, steps: int | None) -> Sums:
        body: Callable[..., Sums] = functools.partial(local, steps=steps)
        if axis_name is None:
            return body(*operands)
        # Unchecked: the checked mode would already sum the gradient of what all devices share.
        specs = (P(), P(), P(), P(), P(SHARD), P(), P())
        shared = jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)
        return shared(*operands)

    return apply


def _of_batch(
    loss: Callable[..., tuple[Array, tuple[Array, PyTree]]],
    params: PyTree,
    rest: PyTree,
    images: PyTree,
    labels: Array,
    key: Array,
) -> Sums:
    """Gradients of the mean loss of some examples; the loss has its keyword arguments already."""

    def mean_loss(params: PyTree) -> tuple[Array, PyTree]:
        losses, (logits, new_rest) = loss(params, rest, images, labels, key, True)
        return jnp.mean(losses), (new_rest, losses, logits)

    gradients, (new_rest, losses, logits) = jax.grad(mean_loss, has_aux=True)(params)
    correct = jnp.sum(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.int32)
    return gradients, new_rest, jnp.sum(losses, dtype=jnp.float32), correct


def _accumulated(
    part: Callable[[PyTree, Array, Array], Sums],
    params: PyTree,
    rest: PyTree,
    rows: Array,
    key: Array,
) -> Sums:
    """Gradients of the mean loss of all ``rows [M, size]``, one row after the other.

    The gradient is taken inside the loop, so that only one micro-batch's activations are kept.
    """

    def add(carry: Sums, following: tuple[Array, Array]) -> tuple[Sums, None]:
        (gradients, rest, loss, correct), (row, number) = carry, following
        more, rest, more_loss, more_correct = part(rest, row, jax.random.fold_in(key, number))
        gradients = jax.tree.map(lambda total, one: total + one / len(rows), gradients, more)
        return (gradients, rest, loss + more_loss, correct + more_correct), None

    nothing = (jax.tree.map(jnp.zeros_like, params), rest, jnp.float32(0), jnp.int32(0))
    return lax.scan(add, nothing, (rows, jnp.arange(len(rows))))[0]


def _over_devices(result: Sums, axis_name: str) -> Sums:
    """Mean gradients and statistics, and sums, of all devices."""
    gradients, rest, loss, correct = result
    rest = jax.tree.map(
        lambda leaf: lax.pmean(leaf, axis_name) if jnp.issubdtype(leaf, jnp.floating) else leaf,
        rest,
    )
    gradients = lax.pmean(gradients, axis_name)
    return gradients, rest, lax.psum(loss, axis_name), lax.psum(correct, axis_name)


def rows_of(order: Array, step: Array, plan: Plan) -> Array:
    """The examples of an update."""
    first = step % plan.steps_per_epoch * plan.batch_size
    return lax.dynamic_slice_in_dim(order, first, plan.batch_size)
