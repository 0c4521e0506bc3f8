"""What is trained: a task is two pure functions over plain trees, and it can be evaluated.

No network is known here; a system hands in how its variables begin and what its loss is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypedDict

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
from jaxsnn.types import PyTree, Variables


class Loss(Protocol):
    """Per-example loss of a batch, pure: casts and augments the images itself, inside jit.

    Takes ``(params, rest, images, labels int32 [B], key, train)``, the name of the device axis that
    batch statistics are averaged over (None on one device), the time steps of this batch (None if
    the task has no lengths) and the moment of training (None in evaluation, and if the task is not
    paced); returns
    ``(loss float [B], (logits [B, classes], new rest))``. Images are uint8 ``[B, ...]``, or a tree
    of arrays with B in front.
    """

    def __call__(
        self,
        params: PyTree,
        rest: PyTree,
        images: Array,
        labels: Array,
        key: Array,
        train: bool,
        /,
        *,
        axis_name: str | None,
        steps: int | None = None,
        moment: Moment | None = None,
    ) -> tuple[Array, tuple[Array, PyTree]]:
        """Compute the loss of every example; see the class."""
        ...


class Evaluated(TypedDict):
    """What an evaluation gives: means of the loss and of the hits, and the number of hits."""

    loss: float
    accuracy: float
    correct: int


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

    init: Callable[[Array], Variables]
    loss: Loss
    lengths: Callable[[PyTree], np.ndarray] | None = None
    paced: bool = False
    classes: int | None = None
    single_norm: str | None = None
    arithmetic: Arithmetic = Arithmetic.PLAIN


def evaluate(
    task: Task,
    variables: Variables,
    images: PyTree,
    labels: PyTree,
    batch_size: int,
    key: Array | None = None,
    micro_batch: int | None = None,
) -> Evaluated:
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
        micro_batch: examples that are computed at once, to save memory; it divides ``batch_size``.

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
    for number, (rows, real, steps) in processes.shard(every):
        batch_key = jax.random.fold_in(key, number)
        batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], images)
        sums.append(program(params, rest, batch, labels[rows], real, batch_key, steps=steps))
    losses, counts = zip(*processes.unsharded(jax.device_get(sums)), strict=True)
    correct = sum(int(count) for count in counts)
    loss = math.fsum(float(part) for part in losses) / len(labels)
    return {"loss": loss, "accuracy": correct / len(labels), "correct": correct}


def _batches(
    task: Task, images: PyTree, count: int, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int | None]]:
    """Rows of every batch, which of them are real, and the batch's time steps."""
    groups: list[tuple[np.ndarray, int | None]] = [(np.arange(count), None)]
    if task.lengths is not None:
        lengths = task.lengths(images)
        steps = length_buckets.bucket_lengths(lengths)
        bucket = np.searchsorted(steps, lengths)
        groups = [(np.flatnonzero(bucket == number), long) for number, long in enumerate(steps)]
    for rows, long in groups:
        for start in range(0, len(rows), size):
            places = np.arange(start, start + size)
            yield rows[np.minimum(places, len(rows) - 1)], places < len(rows), long


@functools.lru_cache(maxsize=16)  # one compiled program per task, however often it is evaluated
def _evaluator(loss: Loss, micro_batch: int | None) -> Callable[..., tuple[Array, Array]]:
    """``(params, rest, images, labels, real, key, steps)`` -> sum of losses, number correct."""

    def of_some(
        variables: tuple[PyTree, PyTree],
        batch: tuple[PyTree, Array, Array],
        key: Array,
        steps: int | None,
    ) -> tuple[Array, Array]:
        images, labels, real = batch
        losses, (logits, _) = loss(
            *variables, images, labels, key, False, axis_name=None, steps=steps
        )
        hits = (jnp.argmax(logits, axis=-1) == labels) & real
        # select, not multiply: a NaN of the padding times zero would still be a NaN
        kept = jnp.where(real, losses.astype(jnp.float32), 0.0)
        return jnp.sum(kept), jnp.sum(hits, dtype=jnp.int32)

    def sums(
        params: PyTree, rest: PyTree, *operands: PyTree, steps: int | None
    ) -> tuple[Array, Array]:
        *batch, key = operands
        of_part = functools.partial(of_some, (params, rest), steps=steps)
        if micro_batch is None or micro_batch == len(batch[1]):
            return of_part(tuple(batch), key)
        parts = jax.tree.map(
            lambda leaf: leaf.reshape(-1, micro_batch, *leaf.shape[1:]), tuple(batch)
        )
        keys = jax.random.split(key, len(parts[1]))
        losses, hits = jax.lax.map(lambda part: of_part(*part), (parts, keys))
        return jnp.sum(losses), jnp.sum(hits)

    return jax.jit(sums, static_argnames="steps")


def as_examples(
    images: PyTree, labels: PyTree, what: str, classes: int | None = None
) -> tuple[PyTree, np.ndarray]:
    """Images and labels as NumPy arrays, labels int32; ``what`` says in an error whose they are.

    Raises:
        UserError: they differ in length, or a label is no class number (:func:`class_numbers`).
    """
    images = jax.tree.map(np.asarray, images)
    labels = class_numbers(labels, classes, f"{what} labels")
    for leaf in jax.tree.leaves(images):
        if len(leaf) != len(labels):
            raise UserError(f"{what}: {len(leaf)} images but {len(labels)} labels")
    return images, labels
