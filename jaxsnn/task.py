"""What is trained: a task is two pure functions over plain trees, and it can be evaluated.

No network is known here; a system hands in how its variables begin and what its loss is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


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
    images, labels = as_examples(images, labels, "evaluation")
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


def as_examples(images: Any, labels: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels as NumPy arrays, labels int32; `what` says in an error whose they are.

    Raises:
        ValueError: they differ in length.
    """
    images, labels = np.asarray(images), np.asarray(labels).astype(np.int32)
    if len(images) != len(labels):
        raise ValueError(f"{what}: {len(images)} images but {len(labels)} labels")
    return images, labels
