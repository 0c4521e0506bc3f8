"""How a synapse is computed: the one place that chooses by shape, dtype and backend.

Storage and compute dtype are separate choices. Integer kernels are stored as int8 (or int32) and
computed in float32 wherever no sum can leave its 24-bit mantissa, because that is exact and, for
narrow layers on a CPU, several times faster than an integer convolution; for wide layers on a CPU
the int8 convolution wins. ``benchmarks/lowering.py`` measures the table below.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxsnn.shapes import AvgPool, Site

Accumulator = Literal["float32", "int32"]
Padding = tuple[tuple[int, int], tuple[int, int]]
DIMENSIONS = ("NHWC", "HWIO", "NHWC")

WIDE_CHANNELS = 64  # from here on int8 convolutions beat float32 ones on a CPU (measured)
NARROW_CHANNELS = 64  # below, a CPU's kernel gradient is faster as matrix products (measured)
LARGE_BATCH = 256  # beyond it a CPU convolves faster (measured: up to 4 times) in chunks,
CHUNKS = range(64, 24, -1)  # whose maps stay in the cache; of so many images, the best first
CHUNK = 8  # images whose shifted copies stay in a CPU core's cache
FEW_INPUTS, FEW_OUTPUTS = 4, 16  # up to here a CPU's direct convolution is slow (measured: 5 times)


def synapse(x: Array, kernel: Array | None, site: Site, accumulator: Accumulator) -> Array:
    """The drive that ``x`` causes at ``site``, without bias, norm or neuron.

    Args:
        x: ``[N, *site.in_shape]``, floats, or integers (pixels, signed spike counts).
        kernel: ``site.kernel_shape``, float or integer; None for average pooling.
        site: geometry of the synapse.
        accumulator: for integer operands, what holds every possible sum: "float32" below 2^24,
            "int32" below 2^31 (conversion computes the bound).

    Returns:
        ``[N, *site.drive_shape]``; int32 if both operands are integers, else float32. The average
        pool of integers is their sum (conversion puts ``1 / size**2`` into the next thresholds).
    """
    if kernel is None:
        return _average_pool(x, site)
    if not (_is_integer(x) and _is_integer(kernel)):
        return _linear(x.astype(jnp.float32), kernel.astype(jnp.float32), site)
    compute = _integer_compute(x, kernel, site, accumulator)
    drive = _linear(x.astype(compute), kernel.astype(compute), site)
    return drive.astype(jnp.int32)


def _is_integer(x: Array) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.integer))


def _integer_compute(x: Array, kernel: Array, site: Site, accumulator: Accumulator) -> jnp.dtype:
    fits_int8 = x.dtype == jnp.int8 and kernel.dtype == jnp.int8
    wide = min(kernel.shape[-2:]) >= WIDE_CHANNELS and site.kind == "conv"
    if fits_int8 and (accumulator == "int32" or (wide and jax.default_backend() == "cpu")):
        return jnp.dtype(jnp.int8)
    return jnp.dtype(jnp.float32 if accumulator == "float32" else jnp.int32)


def _linear(x: Array, kernel: Array, site: Site) -> Array:
    """Convolution or dense product in the operands' dtype; integers sum in int32."""
    sums = jnp.int32 if _is_integer(x) else x.dtype
    if site.kind == "dense":
        x = x.reshape(x.shape[0], -1)
        return jnp.matmul(x, kernel, preferred_element_type=sums, precision="highest")
    if jax.default_backend() == "cpu" and not _is_integer(x):
        return _convolution(x, kernel, site.strides, site.padding)
    return _direct(x, kernel, site.strides, site.padding, sums)


def _direct(
    x: Array, kernel: Array, strides: tuple[int, int], padding: Padding, sums: jnp.dtype
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        dimension_numbers=DIMENSIONS,
        preferred_element_type=sums,
        precision="highest",
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution(x: Array, kernel: Array, strides: tuple[int, int], padding: Padding) -> Array:
    """Float32 convolution that takes fast paths on a CPU, in both directions."""
    inputs, outputs = kernel.shape[-2:]
    columns = (x.shape[2] + sum(padding[1]) - kernel.shape[1]) // strides[1] + 1
    if inputs <= FEW_INPUTS and outputs <= FEW_OUTPUTS:
        width = block_width(columns, FEW_OUTPUTS // outputs + 1)
        return _widened(x, kernel, strides, padding, width)
    direct = functools.partial(
        _direct, kernel=kernel, strides=strides, padding=padding, sums=x.dtype
    )
    return direct(x) if kernel.shape[0] < 3 else _in_chunks(direct, x)


def _in_chunks(apply: Callable[[Array], Array], x: Array) -> Array:
    """``apply`` to a large batch part by part, where its size can be divided so.

    Only ever forward: the gradient of a convolution inside a loop takes a slow path.
    """
    sizes = [size for size in CHUNKS if x.shape[0] % size == 0]
    if not sizes or x.shape[0] <= LARGE_BATCH:
        return apply(x)
    out = lax.map(apply, x.reshape(-1, sizes[0], *x.shape[1:]))
    return out.reshape(-1, *out.shape[2:])


def _widened(
    x: Array, kernel: Array, strides: tuple[int, int], padding: Padding, width: int
) -> Array:
    """``width`` neighbouring output columns as channels of one position, then put side by side.

    The kernel is laid out once per column and padded with zeros, which change no sum.
    """
    added = (width - 1) * strides[1]
    copies = [
        jnp.pad(kernel, ((0, 0), (shift, added - shift), (0, 0), (0, 0)))
        for shift in range(0, added + 1, strides[1])
    ]
    wide = jnp.concatenate(copies, axis=-1)
    out = _direct(x, wide, (strides[0], strides[1] * width), padding, x.dtype)
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
    return _convolution(x, kernel, strides, padding), (x, kernel)


def _backward(
    strides: tuple[int, int], padding: Padding, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    direct = functools.partial(_direct, strides=strides, padding=padding, sums=x.dtype)
    to_x = jax.vjp(lambda x: direct(x, kernel), x)[1](gradient)[0]
    narrow = max(kernel.shape[-2:]) < NARROW_CHANNELS and kernel.shape[0] >= 3
    if narrow and kernel.shape[-2] >= 8:
        return to_x, kernel_gradient(x, gradient, kernel.shape, strides, padding)
    return to_x, jax.vjp(lambda kernel: direct(x, kernel), kernel)[1](gradient)[0]


_convolution.defvjp(_forward, _backward)


def kernel_gradient(
    x: Array, gradient: Array, shape: tuple[int, ...], strides: tuple[int, int], padding: Padding
) -> Array:
    """Gradient of a convolution with respect to its kernel, as one matrix product a chunk.

    On the left the input with its neighbouring columns, one for each column of the kernel; on the
    right the output's gradient shifted by each row of the kernel. Copies of a narrow gradient are
    smaller than those of whole patches, and chunks of images keep both in the cache.

    Args:
        x: ``[N, H, W, C_in]`` float32.
        gradient: ``[N, H_out, W_out, C_out]`` float32.
        shape: HWIO shape of the kernel.
        strides: vertical and horizontal stride.
        padding: explicit zero padding ``((top, bottom), (left, right))``.
    """
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    images, rows, columns, channels_out = gradient.shape
    height, width, channels_in, _ = shape
    below = x.shape[1] - (rows - 1) * strides[0] - 1  # rows under the last window's first one
    reach = (columns - 1) * strides[1] + 1
    chunk = CHUNK if images % CHUNK == 0 else images

    def add_chunk(total: Array, operands: tuple[Array, Array]) -> tuple[Array, None]:
        x, gradient = operands
        zero, same = jnp.zeros((), x.dtype), (0, 0, 0)
        seen = [x[:, :, column : column + reach : strides[1]] for column in range(width)]
        shifted = [
            lax.pad(gradient, zero, (same, (row, below - row, strides[0] - 1), same, same))
            for row in range(height)
        ]
        left = jnp.concatenate(seen, axis=-1).reshape(-1, width * channels_in)
        right = jnp.concatenate(shifted, axis=-1).reshape(-1, height * channels_out)
        return total + left.T @ right, None

    chunks = (
        x.reshape(-1, chunk, *x.shape[1:]),
        gradient.reshape(-1, chunk, *gradient.shape[1:]),
    )
    zeros = jnp.zeros((width * channels_in, height * channels_out), x.dtype)
    total = lax.scan(add_chunk, zeros, chunks)[0]
    return total.reshape(width, channels_in, height, channels_out).transpose(2, 0, 1, 3)


def _average_pool(x: Array, site: Site) -> Array:
    if not isinstance(site.spec, AvgPool):
        raise ValueError(f"{site.name}: a synapse needs a kernel; only average pooling has none")
    integer = _is_integer(x)
    x = x.astype(jnp.int32 if integer else jnp.float32)
    zero = jnp.zeros((), x.dtype)
    window, strides = (1, *site.window, 1), (1, *site.strides, 1)
    total = lax.reduce_window(x, zero, lax.add, window, strides, "VALID")
    return total if integer else total / (site.window[0] * site.window[1])
