"""What is trained: a task is two pure functions over plain trees, and it can be evaluated.

No network is known here; a system hands in how its variables begin and what its loss is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.errors import UserError
from jaxsnn.inputs import class_numbers
from jaxsnn.inputs.preprocess import Moment
from jaxsnn.io import processes
from jaxsnn.network.arithmetic import Arithmetic
from jaxsnn.training import length_buckets


class Loss(Protocol):
    """Per-example loss of a batch, pure: casts and augments the images itself, inside jit.

    Takes ``(params, rest, images, labels int32 [B], key, train)``, the name of the device axis that
    batch statistics are averaged over (None on one device), if the task has lengths the time steps
    of this batch, and if it is paced the moment of training (not in evaluation); returns
    ``(loss float [B], (logits [B, classes], new rest))``. Images are uint8 ``[B, ...]``, or a tree
    of arrays with B in front.
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
        steps: int | None = None,
        moment: Moment | None = None,
    ) -> tuple[Array, tuple[Array, Any]]:
        """Compute the loss of every example; see the class."""
        ...


class Task(NamedTuple):
    """What is trained.

    Attributes:
        init: initial variables (``{"params": ..., ...}``) from a key.
        loss: see :class:`Loss`.
        lengths: images -> time steps of each, int ``[N]``, for a loss whose time differs from
            example to example; batches are then of few lengths
            (:mod:`jaxsnn.training.length_buckets`).
        paced: the loss changes in the course of training: it is told the moment.
        classes: that labels may name, 0..classes-1; None: unknown, so that labels are checked to be
            whole numbers from 0 alone.
        single_norm: the first site whose batch norm sees one value of each example, so that it
            learns nothing from examples one by one; None: there is none.
        arithmetic: of its training; it decides what the compiler may do, and whether micro-batches
            are turns of a loop.
    """

    init: Callable[[Array], Mapping[str, Any]]
    loss: Loss
    lengths: Callable[[Any], np.ndarray] | None = None
    paced: bool = False
    classes: int | None = None
    single_norm: str | None = None
    arithmetic: Arithmetic = Arithmetic.PLAIN


def keywords(
    axis_name: str | None, steps: int | None, moment: Moment | None = None
) -> dict[str, Any]:
    """The keyword arguments of a loss; what is None only other tasks know."""
    known = {"steps": steps, "moment": moment}
    return {"axis_name": axis_name} | {k: v for k, v in known.items() if v is not None}


def evaluate(
    task: Task,
    variables: Mapping[str, Any],
    images: Any,
    labels: Any,
    batch_size: int,
    key: Array | None = None,
    micro_batch: int | None = None,
) -> dict[str, Any]:
    """Mean loss and accuracy with ``train=False``: ``{"loss", "accuracy", "correct"}``.

    The last batch is padded and masked, so that one compiled program serves every batch. Several
    processes share the batches, and all of them return the same.

    Args:
        task: whose loss is taken.
        variables: ``{"params": ..., ...}``.
        images: uint8 [N, ...], or a tree of arrays with N in front.
        labels: whole numbers [N].
        batch_size: examples per compiled call.
        key: for tasks that are random in evaluation, too; each batch gets its own.
        micro_batch: examples that are computed at once, to save memory; it divides `batch_size`.

    Raises:
        UserError: no images, images and labels of different length, or labels that are no class
            numbers of the task.
    """
    images, labels = as_examples(images, labels, "evaluation", task.classes)
    if len(labels) == 0:
        raise UserError("evaluation needs at least one image")
    key = jax.random.key(0) if key is None else key
    params = variables["params"]
    rest = {name: value for name, value in variables.items() if name != "params"}
    program, sums = _evaluator(task.loss, micro_batch), list[tuple[Array, Array]]()
    every = enumerate(_batches(task, images, len(labels), batch_size))
    for number, (rows, real, steps) in processes.dealt(every):
        batch_key = jax.random.fold_in(key, number)
        own = jax.tree.map(lambda leaf, rows=rows: leaf[rows], images)
        sums.append(program(params, rest, own, labels[rows], real, batch_key, steps=steps))
    losses, counts = zip(*processes.in_order(jax.device_get(sums)), strict=True)
    correct = sum(int(count) for count in counts)
    loss = math.fsum(float(part) for part in losses) / len(labels)
    return {"loss": loss, "accuracy": correct / len(labels), "correct": correct}


def _batches(
    task: Task, images: Any, count: int, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int | None]]:
    """Rows of every batch, which of them are real, and the batch's time steps."""
    groups: list[tuple[np.ndarray, int | None]] = [(np.arange(count), None)]
    if task.lengths is not None:
        lengths = task.lengths(images)
        steps = length_buckets.bucket_lengths(lengths)
        own = np.searchsorted(steps, lengths)
        groups = [(np.flatnonzero(own == number), long) for number, long in enumerate(steps)]
    for rows, long in groups:
        for start in range(0, len(rows), size):
            places = np.arange(start, start + size)
            yield rows[np.minimum(places, len(rows) - 1)], places < len(rows), long


@functools.lru_cache(maxsize=16)  # one compiled program per task, however often it is evaluated
def _evaluator(loss: Loss, micro_batch: int | None) -> Callable[..., tuple[Array, Array]]:
    """``(params, rest, images, labels, real, key, steps)`` -> sum of losses, number correct."""

    def of_some(
        variables: tuple[Any, Any], batch: tuple[Any, Array, Array], key: Array, steps: int | None
    ) -> tuple[Array, Array]:
        images, labels, real = batch
        how = keywords(None, steps)
        losses, (logits, _) = loss(*variables, images, labels, key, False, **how)
        hits = (jnp.argmax(logits, axis=-1) == labels) & real
        # select, not multiply: a NaN of the padding times zero would still be a NaN
        kept = jnp.where(real, losses.astype(jnp.float32), 0.0)
        return jnp.sum(kept), jnp.sum(hits, dtype=jnp.int32)

    def sums(params: Any, rest: Any, *operands: Any, steps: int | None) -> tuple[Array, Array]:
        *batch, key = operands
        found = functools.partial(of_some, (params, rest), steps=steps)
        if micro_batch is None or micro_batch == len(batch[1]):
            return found(tuple(batch), key)
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(-1, micro_batch, *leaf.shape[1:]), tuple(batch)
        )
        keys = jax.random.split(key, len(parts[1]))
        losses, hits = jax.lax.map(lambda own: found(*own), (parts, keys))
        return jnp.sum(losses), jnp.sum(hits)

    return jax.jit(sums, static_argnames="steps")


def as_examples(
    images: Any, labels: Any, what: str, classes: int | None = None
) -> tuple[Any, np.ndarray]:
    """Images and labels as NumPy arrays, labels int32; `what` says in an error whose they are.

    Raises:
        UserError: they differ in length, or a label is no class number (:func:`class_numbers`).
    """
    images = jax.tree.map(np.asarray, images)
    labels = class_numbers(labels, classes, f"{what} labels")
    for leaf in jax.tree.leaves(images):
        if len(leaf) != len(labels):
            raise UserError(f"{what}: {len(leaf)} images but {len(labels)} labels")
    return images, labels
