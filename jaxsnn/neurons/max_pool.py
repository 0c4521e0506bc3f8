"""Max pooling of maps, with a gradient that is quick on a CPU, too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: Array, size: int, stride: int, padding: int = 0) -> Array:
    """Largest value of every ``size`` by ``size`` window; a rest at the border is left out.

    Among equal values the gradient goes to the first, row by row (PyTorch's rule); XLA's own
    gradient has the same rule and is a slow scatter on a CPU. Forward mode is not supported.

    Args:
        x: ``[N, H, W, C]``, any dtype.
        size: of the windows.
        stride: from window to window.
        padding: rows and columns around the map that belong to windows and are never the largest.

    >>> x = jnp.array([[1.0, 3.0, 0.0], [3.0, 2.0, -1.0]]).reshape(1, 2, 3, 1)
    >>> max_pool(x, 2, 2).tolist()
    [[[[3.0]]]]
    >>> max_pool(x, 2, 2, 1)[..., 0].tolist()
    [[[1.0, 3.0], [3.0, 2.0]]]
    >>> jax.grad(lambda x: max_pool(x, 2, 1).sum())(x).ravel().tolist()
    [0.0, 2.0, 0.0, 0.0, 0.0, 0.0]
    """
    return functools.reduce(jnp.maximum, _window_entries(x, size, stride, padding))


def _lowest(dtype: jnp.dtype) -> np.ndarray:
    """What no value is below."""
    lowest = jnp.iinfo(dtype).min if jnp.issubdtype(dtype, jnp.integer) else -jnp.inf
    return np.asarray(lowest, dtype)


def _extent(outputs: int, stride: int) -> int:
    """From the first entry of the first window to the same one of the last, both included."""
    return (outputs - 1) * stride + 1


def _window_entries(x: Array, size: int, stride: int, padding: int) -> list[Array]:
    """The windows' first entries, then their second ones and so on: ``[N, H', W', C]`` each."""
    if padding:
        edges = ((0, 0, 0), (padding, padding, 0), (padding, padding, 0), (0, 0, 0))
        x = jax.lax.pad(x, _lowest(x.dtype), edges)
    rows, columns = (_extent((n - size) // stride + 1, stride) for n in x.shape[1:3])
    return [
        x[:, i : i + rows : stride, j : j + columns : stride]
        for i in range(size)
        for j in range(size)
    ]


def _pool_forward(
    x: Array, size: int, stride: int, padding: int
) -> tuple[Array, tuple[Array, Array]]:
    largest = functools.reduce(jnp.maximum, _window_entries(x, size, stride, padding))
    return largest, (x, largest)


def _pool_backward(
    size: int, stride: int, padding: int, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array]:
    x, largest = residuals
    taken = jnp.zeros(largest.shape, bool)
    shares: list[Array] = []
    for entry in _window_entries(x, size, stride, padding):
        first = (entry == largest) & ~taken
        shares.append(jnp.where(first, gradient, 0))
        taken = taken | first
    if (stride, padding) == (size, 0):
        return (_side_by_side(shares, x, size),)
    return (_overlapping(shares, x, size, stride, padding),)


def _side_by_side(shares: list[Array], x: Array, size: int) -> Array:
    """The gradient of ``x`` from those of the entries of its windows, which share nothing."""
    images, rows, columns, channels = shares[0].shape
    whole = jnp.stack(shares, axis=3).reshape(images, rows, columns, size, size, channels)
    whole = whole.swapaxes(2, 3).reshape(images, rows * size, columns * size, channels)
    rest = (x.shape[1] - rows * size, x.shape[2] - columns * size)
    return jnp.pad(whole, ((0, 0), (0, rest[0]), (0, rest[1]), (0, 0)))


def _overlapping(shares: list[Array], x: Array, size: int, stride: int, padding: int) -> Array:
    """The same where an entry of ``x`` may be the largest of several windows, or of padding."""
    extents = [_extent(n, stride) for n in shares[0].shape[1:3]]
    whole = jnp.zeros(x.shape, shares[0].dtype)
    for number, share in enumerate(shares):
        edges = [(0, 0, 0)]
        for start, extent, total in zip(divmod(number, size), extents, x.shape[1:3], strict=True):
            before = start - padding  # below 0: the first windows begin in the padding
            edges.append((before, total - before - extent, stride - 1))
        whole = whole + jax.lax.pad(share, np.zeros((), share.dtype), [*edges, (0, 0, 0)])
    return whole


max_pool.defvjp(_pool_forward, _pool_backward)
