"""Accuracy after every step of two heads' spike trains, alone and fused; one batch at a time."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from jaxsnn.errors import UserError
from jaxsnn.simulation.fusion import bayes, confidence

Floats = NDArray[np.float64]
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


class Judged(NamedTuple):
    """The fused prediction of N images after every step.

    Attributes:
        scores: :func:`jaxsnn.simulation.fusion.gap`, float32 ``[T, N]``.
        correct: bool ``[T, N]``.
    """

    scores: NDArray[np.float32]
    correct: NDArray[np.bool_]


def accuracies(batches: Iterable[Batch], curves: Mapping[str, ArrayLike]) -> dict[str, Floats]:
    """Accuracy after every step, float64 ``[T]``: "final" and "early" alone, and each fusion.

    Args:
        batches: spike counts of the early and of the final classifier summed over steps 1..t,
            integer ``[T, B, C]`` each, and labels ``[B]``, one batch after another.
        curves: name -> alpha ``[T]`` of a fusion.

    Raises:
        UserError: no batch, or a curve of another length than the spike trains.
    """
    correct: dict[str, np.ndarray] = {}
    images = 0
    for early, final, labels in batches:
        for name, predicted in _predictions(early, final, curves).items():
            hits = np.asarray(predicted == labels).sum(1)
            correct[name] = correct.get(name, 0) + hits
        images += len(labels)
    if not images:
        raise UserError("there are no spike trains to take the accuracy of")
    return {name: hits / images for name, hits in correct.items()}


def _predictions(
    early: np.ndarray, final: np.ndarray, curves: Mapping[str, ArrayLike]
) -> dict[str, Array]:
    """Predicted classes ``[T, B]`` of each head alone and of each fusion."""
    predictions = {"final": jnp.argmax(final, -1), "early": jnp.argmax(early, -1)}
    for name, alpha in curves.items():
        bayes.check_curve(alpha, len(final))
        predictions[name] = bayes.predictions(early, final, alpha)
    return predictions


def undecided(batches: Iterable[Batch]) -> Floats:
    """Share of images of which neither head has fired so far, after every step, float64 ``[T]``.

    All classes of such an image have the same posterior, and the prediction is class 0.

    Args:
        batches: as for :func:`accuracies`.

    Raises:
        UserError: no batch.

    >>> early, final = np.zeros((3, 2, 4), int), np.zeros((3, 2, 4), int)
    >>> final[1:, 0, 2] = 1  # the first of two images, from the second step on
    >>> undecided([(early, final, np.zeros(2, int))]).tolist()
    [1.0, 0.5, 0.5]
    """
    number, images = np.zeros(1, np.int64), 0
    for early, final, labels in batches:
        fired = np.any(early, axis=-1) | np.any(final, axis=-1)
        number, images = number + np.sum(~fired, axis=1), images + len(labels)
    if not images:
        raise UserError("there are no spike trains to look for spikes in")
    return np.asarray(number / images, np.float64)


def judged(batches: Iterable[Batch], alpha: ArrayLike) -> Judged:
    """How sure the fusion is of every image after every step, and whether it is right.

    Args:
        batches: as for :func:`accuracies`.
        alpha: float ``[T]``.
    """
    parts = [
        (*map(np.asarray, _judged(early, final, jnp.asarray(alpha, jnp.float32))), labels)
        for early, final, labels in batches
    ]
    scores = np.concatenate([score for score, _, _ in parts], axis=1)
    correct = np.concatenate([chosen == labels for _, chosen, labels in parts], axis=1)
    return Judged(scores, correct)


@jax.jit
def _judged(early: Array, final: Array, alpha: Array) -> tuple[Array, Array]:
    steps = jnp.arange(1, len(alpha) + 1)[:, None, None]
    posterior = bayes.posterior(early, final, alpha[:, None, None], steps)
    return confidence.gap(posterior), jnp.argmax(posterior.mean, -1)
