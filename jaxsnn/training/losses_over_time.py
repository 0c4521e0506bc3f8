"""Losses on what a spiking readout does over time; pure functions of arrays, one value an example.

All take ``[T, B, classes]`` and, for examples of different length, a mask ``[T, B]`` of ones and
zeros: an example's loss is then the mean over its own steps, so that padding changes nothing.
"""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jax import Array

Loss = Callable[[Array, Array, Array | None], Array]

CORRECT_RATE, INCORRECT_RATE = 0.8, 0.2  # spikes a step that `mse_count` asks for


def over_time(values: Array, mask: Array | None) -> Array:
    """Mean over the first axis, of the steps that the mask keeps: ``[T, B] -> [B]``."""
    if mask is None:
        return jnp.mean(values, axis=0)
    # select, not multiply: whatever a padded step holds must not come through
    kept = jnp.where(mask > 0, values, 0)
    return jnp.sum(kept, axis=0) / jnp.maximum(jnp.sum(mask, axis=0), 1)


def cross_entropy_rate(spikes: Array, labels: Array, mask: Array | None = None) -> Array:
    """Cross entropy of ``softmax(S(t))`` at every step, averaged over the steps ("CE rate").

    On spikes of 0 and 1 with ten classes the least possible value is ln(1 + 9/e) = 1.461150, where
    the right class spikes at every step and no other ever; a silent readout has ln 10. Source:
    Eshraghian et al., Proc. IEEE 111, 2023.

    Args:
        spikes: ``[T, B, classes]`` float.
        labels: int32 ``[B]``.
        mask: ``[T, B]``, or None.

    >>> always = jnp.zeros((5, 1, 10)).at[:, :, 3].set(1)
    >>> [round(float(cross_entropy_rate(s, jnp.array([3]))[0]), 6) for s in (always, 0 * always)]
    [1.46115, 2.302585]
    """
    if mask is not None:  # here, too: the gradient of a value that is left out may be no number
        spikes = jnp.where(mask[..., None] > 0, spikes, 0)
    classes = jnp.broadcast_to(labels, spikes.shape[:2])
    return over_time(optax.softmax_cross_entropy_with_integer_labels(spikes, classes), mask)


def cross_entropy_membrane(potentials: Array, labels: Array, mask: Array | None = None) -> Array:
    """Cross entropy of the readout's membrane potentials at every step, averaged over the steps.

    Arguments as for :func:`cross_entropy_rate`, with membrane potentials for spikes.
    """
    return cross_entropy_rate(potentials, labels, mask)


def mse_count(spikes: Array, labels: Array, mask: Array | None = None) -> Array:
    """Squared error of the spike counts, averaged over the classes, in spikes per step.

    The right class shall spike in 80 % of the steps T and every other in 20 %:
    ``mean_c (count_c - rate_c T)^2 / T``. Source: Eshraghian et al., Proc. IEEE 111, 2023.
    Arguments as for :func:`cross_entropy_rate`.

    >>> silent = jnp.zeros((10, 1, 2))
    >>> round(float(mse_count(silent, jnp.array([0]))[0]), 6)  # (8^2 + 2^2) / 2 / 10
    3.4
    """
    steps = spikes.shape[0] if mask is None else jnp.sum(mask, axis=0)[:, None]
    count = steps * over_time(spikes, None if mask is None else mask[..., None])
    right = labels[:, None] == jnp.arange(spikes.shape[-1])
    wanted = jnp.where(right, CORRECT_RATE, INCORRECT_RATE) * steps
    return jnp.mean((count - wanted) ** 2 / jnp.maximum(steps, 1), axis=-1)


LOSSES: dict[str, Loss] = {
    "ce_rate": cross_entropy_rate,
    "ce_membrane": cross_entropy_membrane,
    "mse_count": mse_count,
}
"""Every loss by name."""
