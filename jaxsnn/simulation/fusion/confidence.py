"""When to stop an image: confidence in the fused prediction, its calibration, and thresholds.

The fusion of Habara, Sato and Awano (Frontiers in Neuroscience 18, 2024) gives every class a Beta
posterior. How far the best is ahead of the second is a score; tuning data turn the score into the
probability of being right; an image stops where that reaches a threshold, chosen on tuning data.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtr
from jax.typing import ArrayLike
from numpy.typing import NDArray

from jaxsnn.errors import UserError
from jaxsnn.simulation.fusion.bayes import Posterior

Floats: TypeAlias = NDArray[np.floating]


def gap(posterior: Posterior) -> Array:
    """Probability that the predicted class's neuron fires more than the runner-up's, ``[...]``.

    The two with the highest means, as independent normal variables with the posterior's means and
    variances: ``Phi((mean1 - mean2) / sqrt(variance1 + variance2))``. It is 0.5 for equal means and
    1 for different ones without any variance. An order within the model, not yet the probability of
    being right: see :class:`Calibration`.

    Args:
        posterior: of ``[..., C]``, at least two classes.

    Raises:
        UserError: one class.

    >>> round(float(gap(Posterior(jnp.array([7.0, 3.0, 1.0]), jnp.array([3.0, 7.0, 9.0])))), 4)
    0.9797
    """
    mean, variance = posterior.mean, posterior.variance
    if mean.shape[-1] < 2:
        raise UserError(f"a posterior of shape {mean.shape}: a gap needs at least two classes")
    first = jnp.argmax(mean, -1, keepdims=True)
    others = jnp.where(jnp.arange(mean.shape[-1]) == first, -jnp.inf, mean)
    second = jnp.argmax(others, -1, keepdims=True)
    best, next_best = (jnp.take_along_axis(mean, which, -1)[..., 0] for which in (first, second))
    spread = sum(jnp.take_along_axis(variance, which, -1)[..., 0] for which in (first, second))
    certain = jnp.where(best > next_best, jnp.inf, 0.0)  # without variance, whoever is ahead is
    divisor = jnp.sqrt(jnp.where(spread > 0, spread, 1))
    return ndtr(jnp.where(spread > 0, (best - next_best) / divisor, certain))


class Calibration(NamedTuple):
    """A map from scores to the probability of being right that nowhere falls.

    Straight between its points and constant outside of them. Two plain arrays: a pytree that may be
    passed to a compiled function, and ``np.savez(path, **calibration._asdict())`` keeps it.

    Attributes:
        scores: ascending, float32 ``[K]``.
        probabilities: at these scores, within 0..1, float32 ``[K]``.
    """

    scores: ArrayLike
    probabilities: ArrayLike

    def probability(self, scores: ArrayLike) -> Array:
        """Probability of being right at scores of any shape; float of the same shape.

        >>> Calibration(np.array([0.5, 1.0]), np.array([0.2, 0.8])).probability(0.75).item()
        0.5
        """
        points = jnp.asarray(self.scores), jnp.asarray(self.probabilities)
        return jnp.interp(jnp.asarray(scores), *points)


def fit(scores: ArrayLike, correct: ArrayLike) -> Calibration:
    """Isotonic regression of being right on the score (Zadrozny and Elkan, KDD 2002).

    Args:
        scores: of predictions on tuning data, float ``[N]``.
        correct: whether each was right, bool ``[N]``.

    Raises:
        UserError: no score, one that is not finite, or another number of either.

    >>> found = fit([0.1, 0.2, 0.3, 0.4], [False, True, False, True])
    >>> found.probability(jnp.array([0.0, 0.2, 0.25, 0.9])).tolist()
    [0.0, 0.5, 0.5, 1.0]
    """
    from sklearn.isotonic import IsotonicRegression

    values, right = _pairs("scores", scores, correct)
    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    model.fit(values.astype(np.float32).astype(np.float64), right.astype(np.float64))
    points = np.asarray(model.X_thresholds_), np.asarray(model.y_thresholds_)
    if len(points[0]) == 1:  # one score: the same probability everywhere
        points = np.append(points[0], points[0] + 1), np.repeat(points[1], 2)
    return Calibration(*(part.astype(np.float32) for part in points))


def expected_calibration_error(probability: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Mean distance of confidence from accuracy over equal bins (Guo et al., ICML 2017).

    ``sum_b (n_b / N) |accuracy_b - mean confidence_b|``; bins hold their upper end, the first 0.

    Args:
        probability: float ``[N]`` within 0..1.
        correct: bool ``[N]``.
        bins: number of bins of equal width.

    Raises:
        UserError: no value, one outside 0..1, another number of either, or no bin.

    >>> round(expected_calibration_error([0.75, 0.75, 0.25, 0.25], [1, 0, 0, 0], bins=2), 6)
    0.25
    """
    stated, right = _pairs("probability", probability, correct)
    if stated.min() < 0 or stated.max() > 1:
        raise UserError(f"probability from {stated.min()} to {stated.max()}: must lie within 0..1")
    if bins < 1:
        raise UserError(f"bins={bins}: at least one is needed")
    which = np.clip(np.ceil(stated * bins).astype(int) - 1, 0, bins - 1)
    surplus = np.bincount(which, weights=right - stated, minlength=bins)
    return float(np.abs(surplus).sum() / len(stated))


def stopping(confidences: ArrayLike, threshold: float, earliest: int = 1) -> NDArray[np.int64]:
    """First step, from 1, at which each image's confidence reaches the threshold; T if at none.

    Args:
        confidences: after every step, float ``[T, N]``.
        threshold: at or above which an image stops.
        earliest: no image stops before this step.

    Raises:
        UserError: no step, or ``earliest`` outside of ``1..T``.

    >>> stopping(np.array([[0.9, 0.1], [0.2, 0.6], [0.8, 0.9]]), 0.8, earliest=2).tolist()
    [3, 3]
    """
    return _first(_highest(confidences, earliest), threshold, earliest)


def stopped_accuracy(correct: ArrayLike, steps: ArrayLike) -> float:
    """Share of images that are right at the step, from 1, at which each stops.

    Args:
        correct: whether each image is right after every step, bool ``[T, N]``.
        steps: int ``[N]`` from :func:`stopping`.

    >>> stopped_accuracy(np.array([[True, False], [False, True]]), [1, 2])
    1.0
    """
    right, when = np.asarray(correct), np.asarray(steps)
    return float(np.mean(right[when - 1, np.arange(len(when))]))


def choose_threshold(
    confidences: ArrayLike,
    correct: ArrayLike,
    target_accuracy: float,
    thresholds: ArrayLike,
    earliest: int = 1,
) -> float | None:
    """The smallest threshold that keeps the accuracy on tuning data; None if none does.

    Args:
        confidences: after every step, float ``[T, N]``.
        correct: whether each image is right after every step, bool ``[T, N]``.
        target_accuracy: that the images' accuracy where they stop must reach, a fraction.
        thresholds: to choose from, ``[K]`` in any order.
        earliest: see :func:`stopping`.

    Raises:
        UserError: arrays that do not fit each other; see :func:`stopping`.

    >>> confidences = np.array([[0.6, 0.9], [0.7, 0.9]])
    >>> choose_threshold(confidences, [[False, True], [True, True]], 1.0, [0.5, 0.7, 0.9])
    0.7
    """
    highest, right = _highest(confidences, earliest), np.asarray(correct)
    if right.shape != np.shape(confidences):
        raise UserError(
            f"confidences {np.shape(confidences)}, correct {right.shape}: both must be "
            "[steps, images]"
        )
    for threshold in np.unique(np.asarray(thresholds, np.float64)).tolist():
        if stopped_accuracy(right, _first(highest, threshold, earliest)) >= target_accuracy:
            return threshold
    return None


def _highest(confidences: ArrayLike, earliest: int) -> Floats:
    """Highest confidence since step ``earliest``, from there on: ``[T - earliest + 1, N]``."""
    values = np.asarray(confidences)
    if values.ndim != 2 or not values.size:
        raise UserError(f"confidences of shape {values.shape}: must be [steps, images], none 0")
    if not np.all(np.isfinite(values)):
        raise UserError(f"confidences: {np.sum(~np.isfinite(values))} of {values.size} not finite")
    if not 1 <= earliest <= len(values):
        raise UserError(f"earliest={earliest}: must be a step of 1 to {len(values)}")
    return np.maximum.accumulate(values[earliest - 1 :], axis=0)


def _first(highest: Floats, threshold: float, earliest: int) -> NDArray[np.int64]:
    """Step of the first confidence that reaches the threshold, the last step if none does."""
    waited = np.sum(highest < float(threshold), axis=0)
    return np.minimum(waited, len(highest) - 1) + earliest


def _pairs(name: str, values: ArrayLike, correct: ArrayLike) -> tuple[Floats, Floats]:
    """Finite values and whether they are right, both ``[N]`` and of the same length."""
    checked, right = np.asarray(values, np.float64), np.asarray(correct, np.float64)
    if checked.ndim != 1 or checked.shape != right.shape or not len(checked):
        raise UserError(f"{name} {checked.shape}, correct {right.shape}: both must be [images]")
    if not np.all(np.isfinite(checked)):
        raise UserError(f"{name}: {np.sum(~np.isfinite(checked))} of {len(checked)} are not finite")
    return checked, right
