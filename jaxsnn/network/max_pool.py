"""Max pooling of currents, with a gradient that is quick on a CPU, too."""

import functools

import jax
import jax.numpy as jnp
from jax import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: Array, size: int) -> Array:
    """Largest value of every ``size`` by ``size`` window; a rest at the border is left out.

    Among equal values the gradient goes to the first, row by row (PyTorch's rule); XLA's own
    gradient has the same rule and is a slow scatter on a CPU. Forward mode is not supported.

    Args:
        x: ``[N, H, W, C]``, any dtype.
        size: of the windows, which do not overlap.

    >>> x = jnp.array([[1.0, 3.0, 0.0], [3.0, 2.0, 0.0]]).reshape(1, 2, 3, 1)
    >>> max_pool(x, 2).tolist()
    [[[[3.0]]]]
    >>> jax.grad(lambda x: max_pool(x, 2).sum())(x).ravel().tolist()
    [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    return functools.reduce(jnp.maximum, _window_entries(x, size))


def _window_entries(x: Array, size: int) -> list[Array]:
    """The windows' first entries, then their second ones and so on: ``[N, H', W', C]`` each."""
    rows, columns = x.shape[1] // size * size, x.shape[2] // size * size
    return [x[:, i:rows:size, j:columns:size] for i in range(size) for j in range(size)]


def _pool_forward(x: Array, size: int) -> tuple[Array, tuple[Array, Array]]:
    largest = functools.reduce(jnp.maximum, _window_entries(x, size))
    return largest, (x, largest)


def _pool_backward(size: int, residuals: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    x, largest = residuals
    taken = jnp.zeros(largest.shape, bool)
    shares: list[Array] = []
    for entry in _window_entries(x, size):
        first = (entry == largest) & ~taken
        shares.append(jnp.where(first, gradient, 0))
        taken = taken | first
    images, rows, columns, channels = largest.shape
    whole = jnp.stack(shares, axis=3).reshape(images, rows, columns, size, size, channels)
    whole = whole.swapaxes(2, 3).reshape(images, rows * size, columns * size, channels)
    rest = (x.shape[1] - rows * size, x.shape[2] - columns * size)
    return (jnp.pad(whole, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0))),)


max_pool.defvjp(_pool_forward, _pool_backward)
