"""Gradient of a convolution with respect to its kernel, as matrix products, for processors.

XLA computes it there as a convolution whose window is the whole output map, which is slow for
narrow channels, for strides, and for large maps; :func:`fitting` knows where (measured by
``benchmarks/lowering.py``).
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

Padding = tuple[tuple[int, int], tuple[int, int]]
Shape = tuple[int, ...]
Products = Callable[[Array, Array, Shape, tuple[int, int], Padding], Array]

WIDE_CHANNELS = 64  # from here on a product for each row beats one with the gradient's copies
LARGE_MAP, LARGE_INPUT = 16, 2**15  # columns, or values of an image, from which XLA's own is slow
CHUNK = 8  # images whose shifted copies stay in a CPU core's cache
TAP_CHUNK = 16  # images of bfloat16, of which only one tap is copied at a time
ROWS = 512  # of a matrix product: enough for its speed, and still in the cache (measured)


def fitting(images: Shape, kernel: Shape) -> Products | None:
    """The products that are faster than XLA's own gradient, where there are any.

    Args:
        images: ``(N, H, W, C_in)``.
        kernel: HWIO.

    >>> fitting((128, 24, 24, 16), (5, 5, 16, 16)).__name__
    'of_narrow'
    >>> fitting((32, 32, 32, 96), (3, 3, 96, 256)).__name__
    'of_rows'
    >>> fitting((32, 8, 8, 384), (3, 3, 384, 384)) is None
    True
    """
    inputs, outputs = kernel[-2:]
    if kernel[0] < 3:
        return None
    if max(inputs, outputs) < WIDE_CHANNELS:
        return of_narrow if inputs >= 8 else None
    large = images[2] >= LARGE_MAP or images[1] * images[2] * inputs >= LARGE_INPUT
    return of_rows if large and outputs >= WIDE_CHANNELS else None


def of_rows(
    x: Array, gradient: Array, shape: Shape, strides: tuple[int, int], padding: Padding
) -> Array:
    """One matrix product per row of the kernel, chunk by chunk of images.

    Args:
        x: ``[N, H, W, C_in]`` float32.
        gradient: ``[N, H_out, W_out, C_out]`` float32, with respect to the output.
        shape: HWIO shape of the kernel.
        strides: vertical and horizontal stride.
        padding: explicit zero padding ``((top, bottom), (left, right))``.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    images, rows, columns, outputs = gradient.shape
    height, width, inputs, _ = shape
    below = (rows - 1) * strides[0] + 1

    def add_chunk(total: Array, operands: tuple[Array, Array]) -> tuple[Array, None]:
        wide = columns_beside(operands[0], width, columns, strides[1])
        right = operands[1].reshape(-1, outputs)
        lefts = [wide[:, i : i + below : strides[0]] for i in range(height)]
        products = [left.reshape(-1, width * inputs).T @ right for left in lefts]
        return total + jnp.stack(products), None

    together = images_at_once(images, rows * columns)
    zeros = jnp.zeros((height, width * inputs, outputs), x.dtype)
    return lax.scan(add_chunk, zeros, _chunks(x, gradient, together))[0].reshape(shape)


def of_narrow(
    x: Array, gradient: Array, shape: Shape, strides: tuple[int, int], padding: Padding
) -> Array:
    """One matrix product a chunk of images; arguments as for :func:`of_rows`.

    On the left the input with its neighbouring columns, one for each column of the kernel; on the
    right the output's gradient shifted by each row of the kernel. Copies of a narrow gradient are
    smaller than those of whole patches, and chunks of images keep both in the cache.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    images, rows, columns, outputs = gradient.shape
    height, width, inputs, _ = shape
    below = x.shape[1] - (rows - 1) * strides[0] - 1  # rows under the last window's first one

    def add_chunk(total: Array, operands: tuple[Array, Array]) -> tuple[Array, None]:
        x, gradient = operands
        zero, same = jnp.zeros((), x.dtype), (0, 0, 0)
        shifted = [
            lax.pad(gradient, zero, (same, (row, below - row, strides[0] - 1), same, same))
            for row in range(height)
        ]
        left = columns_beside(x, width, columns, strides[1]).reshape(-1, width * inputs)
        right = jnp.concatenate(shifted, axis=-1).reshape(-1, height * outputs)
        return total + left.T @ right, None

    together = CHUNK if images % CHUNK == 0 else images
    zeros = jnp.zeros((width * inputs, height * outputs), x.dtype)
    total = lax.scan(add_chunk, zeros, _chunks(x, gradient, together))[0]
    return total.reshape(width, inputs, height, outputs).transpose(2, 0, 1, 3)


def of_taps(
    x: Array, gradient: Array, shape: Shape, strides: tuple[int, int], padding: Padding
) -> Array:
    """One matrix product per tap of the kernel, chunk by chunk of images, added up in float32.

    For operands of bfloat16, whose copies cost less than those of the columns that a row needs;
    arguments as for :func:`of_rows`, in any floating dtype. The result is float32.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    images, rows, columns, outputs = gradient.shape
    height, width, inputs, _ = shape
    below, beside = (rows - 1) * strides[0] + 1, (columns - 1) * strides[1] + 1

    def add_chunk(total: Array, operands: tuple[Array, Array]) -> tuple[Array, None]:
        x, right = operands[0], operands[1].reshape(-1, outputs)
        taps = [
            x[:, i : i + below : strides[0], j : j + beside : strides[1]].reshape(-1, inputs).T
            for i in range(height)
            for j in range(width)
        ]
        products = jnp.stack([tap @ right for tap in taps])
        return total + products.astype(jnp.float32), None

    divisors = [n for n in range(1, TAP_CHUNK + 1) if images % n == 0]
    zeros = jnp.zeros((height * width, inputs, outputs), jnp.float32)
    total = lax.scan(add_chunk, zeros, _chunks(x, gradient, max(divisors)))[0]
    return total.reshape(shape)


def columns_beside(x: Array, width: int, columns: int, stride: int) -> Array:
    """The columns that each window covers side by side: ``[N, H, columns, width * C]``."""
    reach = (columns - 1) * stride + 1
    seen = [x[:, :, first : first + reach : stride] for first in range(width)]
    return jnp.concatenate(seen, axis=-1)


def images_at_once(images: int, positions: int) -> int:
    """The fewest images that divide all and have rows enough for a fast product, else all.

    >>> images_at_once(32, 256), images_at_once(32, 4), images_at_once(7, 100)
    (2, 32, 7)
    """
    divisors = (n for n in range(1, images) if images % n == 0)
    return next((n for n in divisors if n * positions >= ROWS), images)


def _chunks(x: Array, gradient: Array, together: int) -> tuple[Array, Array]:
    return (
        x.reshape(-1, together, *x.shape[1:]),
        gradient.reshape(-1, together, *gradient.shape[1:]),
    )
