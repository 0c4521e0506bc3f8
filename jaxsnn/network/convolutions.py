"""Ways to compute one convolution.

:mod:`jaxsnn.network.synapse` chooses by shape, dtype and processor.
"""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxsnn.network import kernel_gradient
from jaxsnn.network.kernel_gradient import Padding, columns_beside, images_at_once

DIMENSIONS = ("NHWC", "HWIO", "NHWC")

NARROW_CHANNELS = 64  # below, two columns at once are faster than one (measured)
LARGE_BATCH = 256  # beyond it a CPU convolves faster (measured: up to 4 times) in chunks,
CHUNKS = range(64, 24, -1)  # whose maps stay in the cache; of so many images, the best first
MOST_WINDOWS = 2**30  # bytes of the windows that an accelerator lays out at once
FEW_INPUTS, FEW_OUTPUTS = 4, 16  # up to here a CPU's direct convolution is slow (measured: 5 times)


def direct(
    x: Array, kernel: Array, strides: tuple[int, int], padding: Padding, sums: jnp.dtype
) -> Array:
    """XLA's own convolution of ``x [N, H, W, C]``, summed in the dtype ``sums``."""
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=DIMENSIONS,
        preferred_element_type=sums,
        precision="highest",
    )


def tiled(x: Array, kernel: Array) -> Array:
    """Convolution whose windows do not overlap, as one matrix product.

    In float32 on a CPU this is twice as fast, in both directions, where channels are many.
    """
    height, width, channels, outputs = kernel.shape
    rows, columns = x.shape[1] // height, x.shape[2] // width
    tiles = x.reshape(-1, rows, height, columns, width, channels).swapaxes(2, 3)
    tiles = tiles.reshape(-1, height * width * channels)
    out = jnp.matmul(tiles, kernel.reshape(-1, outputs), precision="highest")
    return out.reshape(-1, rows, columns, outputs)


def row_products(
    x: Array, kernel: Array, strides: tuple[int, int], padding: Padding, skip_silent: bool
) -> Array:
    """Convolution as one matrix product per row of the kernel; float32 sums.

    The columns that a window covers are laid side by side, chunk by chunk of images, so that the
    copies stay in the cache.

    Args:
        x: ``[N, H, W, C_in]``.
        kernel: HWIO, in the dtype of the products.
        strides: vertical and horizontal stride.
        padding: explicit zero padding ``((top, bottom), (left, right))``.
        skip_silent: spend nothing on a chunk of images that is zero throughout.
    """
    height, width, channels, outputs = kernel.shape
    rows, columns = _output_size(x, kernel, strides, padding)
    below = (rows - 1) * strides[0] + 1

    def convolve(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        wide = columns_beside(x, width, columns, strides[1]).astype(kernel.dtype)
        total = jnp.zeros((), jnp.float32)
        for i in range(height):
            left = wide[:, i : i + below : strides[0]].reshape(-1, width * channels)
            right = kernel[i].reshape(-1, outputs)
            total = total + jnp.matmul(left, right, preferred_element_type=jnp.float32)
        return total.reshape(-1, rows, columns, outputs)

    some = unless_silent(convolve) if skip_silent else convolve
    return in_parts(some, x, images_at_once(x.shape[0], rows * columns))


def patches(
    x: Array,
    kernel: Array,
    strides: tuple[int, int],
    padding: Padding,
    sums: jnp.dtype | None = None,
) -> Array:
    """Convolution as one matrix product of all windows, laid out as rows, with the kernel.

    Its gradient is slices and products again: where it is taken inside a loop (``scan``, ``map``)
    a CPU computes it many times faster than that of a convolution. Narrow kernels take the
    windows of two neighbouring columns at once, which copies less and multiplies some zeros.
    """
    height, _, channels, outputs = kernel.shape
    rows, columns = _output_size(x, kernel, strides, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    together = block_width(columns, 2) if channels < NARROW_CHANNELS else 1
    kernel = side_by_side(kernel, together, strides[1])
    run, between = kernel.shape[1] * channels, together * strides[1] * channels
    flat = x.reshape(*x.shape[:2], -1)
    starts = range(0, columns // together * between, between)
    blocks = jnp.stack([flat[:, :, start : start + run] for start in starts], axis=2)
    below = (rows - 1) * strides[0] + 1
    windows = [blocks[:, i : i + below : strides[0]] for i in range(height)]
    left = jnp.concatenate(windows, axis=-1).reshape(-1, height * run)
    right = kernel.reshape(-1, together * outputs)
    out = jnp.matmul(left, right, precision="highest", preferred_element_type=sums)
    return out.reshape(-1, rows, columns, outputs)


def laid_out(
    x: Array, kernel: Array, strides: tuple[int, int], padding: Padding, sums: jnp.dtype
) -> Array:
    """Convolution as one matrix product of all windows: the maps, shifted to every tap, in a row.

    An accelerator's way: few and large operations, where a CPU copies runs that are contiguous. Of
    a large batch so many images at once that their windows stay below a gibibyte.

    Args:
        x: ``[N, H, W, C_in]``, in the dtype of the products.
        kernel: HWIO, likewise.
        strides: vertical and horizontal stride.
        padding: explicit zero padding ``((top, bottom), (left, right))``.
        sums: dtype of the sums, and of the result ``[N, H_out, W_out, C_out]``.
    """
    height, width, channels, outputs = kernel.shape
    rows, columns = _output_size(x, kernel, strides, padding)
    below, right = (rows - 1) * strides[0] + 1, (columns - 1) * strides[1] + 1
    taps = kernel.reshape(-1, outputs)

    def convolve(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        shifted = [
            x[:, i : i + below : strides[0], j : j + right : strides[1]]
            for i, j in itertools.product(range(height), range(width))
        ]
        windows = jnp.concatenate(shifted, axis=-1)
        return jnp.matmul(windows, taps, precision="highest", preferred_element_type=sums)

    image = rows * columns * height * width * channels * x.dtype.itemsize
    most = min(max(MOST_WINDOWS // image, 1), x.shape[0])
    together = max(size for size in range(1, most + 1) if x.shape[0] % size == 0)
    return in_parts(convolve, x, together)


def in_parts(apply: Callable[[Array], Array], x: Array, together: int) -> Array:
    """``apply`` to so many images of ``x [N, ...]`` at once; ``together`` divides N."""
    if together == x.shape[0]:
        return apply(x)
    out = lax.map(apply, x.reshape(-1, together, *x.shape[1:]))
    return out.reshape(-1, *out.shape[2:])


def _output_size(
    x: Array, kernel: Array, strides: tuple[int, int], padding: Padding
) -> tuple[int, int]:
    """Rows and columns of the output."""
    height, width = (size + sum(pad) for size, pad in zip(x.shape[1:3], padding, strict=True))
    rows = (height - kernel.shape[0]) // strides[0] + 1
    return rows, (width - kernel.shape[1]) // strides[1] + 1


def side_by_side(kernel: Array, copies: int, stride: int) -> Array:
    """The kernel of ``copies`` neighbouring output columns: ``[h, w + ..., in, copies * out]``.

    The kernel is laid out once per column and padded with zeros, which change no sum.
    """
    added = (copies - 1) * stride
    shifted = [
        jnp.pad(kernel, ((0, 0), (shift, added - shift), (0, 0), (0, 0)))
        for shift in range(0, added + 1, stride)
    ]
    return jnp.concatenate(shifted, axis=-1)


def unless_silent(linear: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """``linear``, or zeros at no cost where its argument is zero throughout."""

    def apply(x: Array) -> Array:
        shape = jax.eval_shape(linear, x)
        return lax.cond(jnp.any(x != 0), linear, lambda x: jnp.zeros(shape.shape, shape.dtype), x)

    return apply


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolution(x: Array, kernel: Array, strides: tuple[int, int], padding: Padding) -> Array:
    """Float32 convolution that takes fast paths on a CPU, in both directions.

    Args:
        x: ``[N, H, W, C_in]`` float32.
        kernel: HWIO, float32.
        strides: vertical and horizontal stride.
        padding: explicit zero padding ``((top, bottom), (left, right))``.
    """
    inputs, outputs = kernel.shape[-2:]
    _, columns = _output_size(x, kernel, strides, padding)
    if inputs <= FEW_INPUTS and outputs <= FEW_OUTPUTS:
        width = block_width(columns, FEW_OUTPUTS // outputs + 1)
        return _widened(x, kernel, strides, padding, width)
    whole = functools.partial(direct, kernel=kernel, strides=strides, padding=padding, sums=x.dtype)
    return whole(x) if kernel.shape[0] < 3 else _in_chunks(whole, x)


def _in_chunks(apply: Callable[[Array], Array], x: Array) -> Array:
    """``apply`` to a large batch part by part, where its size can be divided so.

    Only ever forward: the gradient of a convolution inside a loop takes a slow path.
    """
    sizes = [size for size in CHUNKS if x.shape[0] % size == 0]
    large = sizes and x.shape[0] > LARGE_BATCH
    return in_parts(apply, x, sizes[0] if large else x.shape[0])


def _widened(
    x: Array, kernel: Array, strides: tuple[int, int], padding: Padding, width: int
) -> Array:
    """``width`` neighbouring output columns as channels of one position, then put side by side."""
    wide = side_by_side(kernel, width, strides[1])
    out = direct(x, wide, (strides[0], strides[1] * width), padding, x.dtype)
    return out.reshape(*out.shape[:2], -1, kernel.shape[-1])


def block_width(columns: int, least: int) -> int:
    """Smallest divisor of ``columns`` that is at least ``least``; 1 if none is below 9.

    >>> block_width(24, 2), block_width(25, 2), block_width(23, 2)
    (2, 5, 1)
    """
    return next((width for width in range(least, 9) if columns % width == 0), 1)


def _forward(
    x: Array, kernel: Array, strides: tuple[int, int], padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return convolution(x, kernel, strides, padding), (x, kernel)


def _backward(
    strides: tuple[int, int], padding: Padding, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    plain = functools.partial(direct, strides=strides, padding=padding, sums=x.dtype)
    to_x = jax.vjp(lambda x: plain(x, kernel), x)[1](gradient)[0]
    products = kernel_gradient.fitting(x.shape, kernel.shape)
    if products is not None:
        return to_x, products(x, gradient, kernel.shape, strides, padding)
    return to_x, jax.vjp(lambda kernel: plain(x, kernel), kernel)[1](gradient)[0]


convolution.defvjp(_forward, _backward)
