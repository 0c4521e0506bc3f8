"""Fusion of an early and the final classifier: a Beta prior updated by spike counts.

Habara, Sato and Awano, Frontiers in Neuroscience 18, 2024 (BayesianSpikeFusion). A final neuron
that has spiked ``M`` times in ``N`` steps did so with an unknown probability. The early
classifier's rate ``E = m / N`` of the same class is the mean of its Beta prior, whose first
parameter is ``alpha``: ``Beta(alpha, alpha (1 / E - 1))``. The posterior is
``Beta(alpha + M, alpha (1 / E - 1) + N - M)``; its mean is the score, the class of the highest
score the prediction.

Pure functions for float32 and any number of leading axes. Counts are cumulative, row ``t`` of
``[T, B, C]`` holding those of steps 1 to ``t + 1``; they lie in ``0..N``.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy import typing as npt

from jaxsnn.errors import UserError

SILENT_RATE = 1e-16  # stands for the rate of an early neuron that has not spiked, as in the paper


class Posterior(NamedTuple):
    """A Beta distribution of a neuron's firing probability in one step, for every neuron.

    Both parameters are kept, because each is a sum of terms that are not negative: nothing cancels,
    and 1 - mean is exact too, as ``b / (a + b)``. Where the early neuron is silent ``b`` is about
    1e16 alpha, which float32 holds; its square is never formed.

    Attributes:
        a: first parameter, float ``[..., C]``.
        b: second parameter, likewise; 0 where all is certain (every step a spike), and the variance
            is then 0.
    """

    a: Array
    b: Array

    @property
    def mean(self) -> Array:
        """Expected firing probability, float ``[..., C]``: the score of the fusion."""
        return self.a / (self.a + self.b)

    @property
    def variance(self) -> Array:
        """Variance of the firing probability, float ``[..., C]``: mean (1 - mean) / (a + b + 1)."""
        total = self.a + self.b
        return (self.a / total) * (self.b / total) / (total + 1)


def posterior(early: ArrayLike, final: ArrayLike, alpha: ArrayLike, steps: ArrayLike) -> Posterior:
    """Posterior of the final neurons' firing probabilities (Habara et al., 2024).

    ``alpha (1 / E - 1)`` is computed as ``alpha (N - m) / m``, without the cancelling ``1 / E``;
    for ``m = 0`` the divisor is 1e-16 ``N``.

    Args:
        early: spike counts ``m`` of the early classifier, integer ``[..., C]``.
        final: spike counts ``M`` of the final classifier, likewise.
        alpha: first parameter of the prior, at least 0; broadcasts against the counts. Results have
            its dtype, at least float32.
        steps: number of steps ``N`` so far, at least 1; broadcasts likewise.

    >>> found = posterior(jnp.array([5, 10]), jnp.array([3, 10]), 4.0, 10)
    >>> found.a.tolist(), found.b.tolist()  # Beta(4 + 3, 4 + 7) and Beta(4 + 10, 0)
    ([7.0, 14.0], [11.0, 0.0])
    """
    dtype = jnp.promote_types(jnp.result_type(alpha), jnp.float32)
    m, total, prior, count = (jnp.asarray(x, dtype) for x in (early, final, alpha, steps))
    divisor = jnp.where(m > 0, m, SILENT_RATE * count)
    return Posterior(prior + total, prior * (count - m) / divisor + (count - total))


def posterior_mean(early: ArrayLike, final: ArrayLike, alpha: ArrayLike, steps: ArrayLike) -> Array:
    """Score of every class, float ``[..., C]``: the mean of :func:`posterior`, same arguments.

    ``(alpha + M) / (alpha / E + N)``, between the final neuron's rate ``M / N`` (exactly so for
    ``alpha = 0``) and the early neuron's ``E`` (for large ``alpha``).

    >>> [round(float(posterior_mean(m, 3, 4.0, 10)), 6) for m in (5, 2)]
    [0.388889, 0.233333]
    """
    return posterior(early, final, alpha, steps).mean


def counts(spikes: ArrayLike) -> Array:
    """Cumulative spike counts, int32 ``[T, ...]``, of spikes of 0 and 1 ``[T, ...]`` of any dtype.

    >>> counts(jnp.array([[True], [False], [True]])).tolist()
    [[1], [1], [2]]
    """
    return jnp.cumsum(jnp.asarray(spikes), axis=0, dtype=jnp.int32)


def fused(early_counts: ArrayLike, final_counts: ArrayLike, alpha: ArrayLike) -> Array:
    """Scores after every step, float ``[T, B, C]``.

    Args:
        early_counts: cumulative counts of the early classifier, integer ``[T, B, C]``.
        final_counts: cumulative counts of the final classifier, likewise.
        alpha: curve of the prior's first parameter, ``[T]``; see :func:`check_curve`.

    Raises:
        UserError: shapes that do not fit each other.
    """
    early, final, curve = (jnp.asarray(x) for x in (early_counts, final_counts, alpha))
    if early.ndim != 3 or early.shape != final.shape:
        raise UserError(
            f"counts of the early classifier {early.shape}, of the final one {final.shape}: "
            "both must be [steps, images, classes]"
        )
    _check_length(curve.shape, len(early))
    steps = jnp.arange(1, len(early) + 1)[:, None, None]
    return posterior_mean(early, final, curve[:, None, None], steps)


def predictions(early_counts: ArrayLike, final_counts: ArrayLike, alpha: ArrayLike) -> Array:
    """Class of the highest score after every step, int32 ``[T, B]``; the lowest index wins ties.

    Arguments and errors as for :func:`fused`.

    >>> early = jnp.array([[[0, 1, 0]], [[0, 1, 0]]])
    >>> final = jnp.array([[[0, 0, 0]], [[0, 0, 1]]])
    >>> [predictions(early, final, jnp.full(2, alpha)).ravel().tolist() for alpha in (0.0, 1.0)]
    [[0, 2], [1, 1]]
    """
    return jnp.argmax(fused(early_counts, final_counts, alpha), axis=-1).astype(jnp.int32)


def check_curve(alpha: npt.ArrayLike, steps: int) -> npt.NDArray[np.float64]:
    """The alpha curve as float64 ``[T]``, if it may be used for a simulation of ``steps`` steps.

    Raises:
        UserError: another length, a negative value, or one that is not finite.
    """
    curve = np.asarray(alpha, np.float64)
    _check_length(curve.shape, steps)
    wrong = np.flatnonzero(~np.isfinite(curve) | (curve < 0))
    if len(wrong):
        raise UserError(
            f"alpha is {curve[wrong[0]]} at step {wrong[0] + 1} of {steps}: every value must be "
            "finite and at least 0; tune the curve again"
        )
    return curve


def check_counts(
    early: npt.ArrayLike, final: npt.ArrayLike
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Both cumulative counts as they are, if they can be counts ``[T, B, C]`` of so many steps.

    Raises:
        UserError: other shapes, no whole numbers, or counts outside of ``0..N`` at step ``N``.
    """
    both = (np.asarray(early), np.asarray(final))
    shapes = [count.shape for count in both]
    if shapes[0] != shapes[1] or len(shapes[0]) != 3 or not both[0].size:
        raise UserError(
            f"counts of the early classifier {shapes[0]}, of the final one {shapes[1]}: both must "
            "be [steps, images, classes], and none of them 0"
        )
    _check_cumulative("early", both[0])
    _check_cumulative("final", both[1])
    return both


def _check_cumulative(name: str, count: np.ndarray) -> None:
    if not np.issubdtype(count.dtype, np.integer):
        raise UserError(f"{name} counts of dtype {count.dtype}: must be whole numbers")
    least, most = count.min(), count.max(axis=(1, 2))
    if least < 0 or np.any(most > np.arange(1, len(count) + 1)):
        raise UserError(
            f"{name} counts run from {least} to {most.max()} in {len(count)} steps: give "
            "cumulative counts of neurons that spike at most once a step"
        )


def _check_length(shape: tuple[int, ...], steps: int) -> None:
    """Refuse a curve that does not have one value for every step."""
    if shape != (steps,):
        raise UserError(
            f"an alpha curve of shape {shape} for a simulation of {steps} steps: it needs one "
            f"value a step, shape ({steps},); tune it with as many steps as are simulated"
        )
