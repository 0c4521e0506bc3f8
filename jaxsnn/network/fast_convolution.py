"""Convolutions for training on a processor alone, with derivatives of their own.

:mod:`jaxsnn.network.synapse` chooses. Operands of bfloat16: XLA gives a processor's convolution to
oneDNN only where the kernel is a plain operand, so the input's gradient is written as a forward
convolution with the reversed kernel, kept apart from the reversal by a barrier; the kernel's is
matrix products (:mod:`jaxsnn.network.kernel_gradient`).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxsnn.network import kernel_gradient
from jaxsnn.network.convolutions import DIMENSIONS
from jaxsnn.network.kernel_gradient import Padding

SMALL_MAP = 8  # columns up to which XLA's own gradient of a kernel is the faster one (measured)
FEW_CHANNELS = 16  # inputs below which it is, too


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def half_convolution(x: Array, kernel: Array, strides: tuple[int, int], padding: Padding) -> Array:
    """Convolution of bfloat16 operands; result and gradient of ``x`` bfloat16, of the kernel too.

    Args:
        x: ``[N, H, W, C_in]`` bfloat16.
        kernel: HWIO, bfloat16.
        strides: vertical and horizontal stride.
        padding: explicit zero padding ``((top, bottom), (left, right))``.
    """
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)


def _forward(
    x: Array, kernel: Array, strides: tuple[int, int], padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return half_convolution(x, kernel, strides, padding), (x, kernel)


def _with_reversed(kernel: Array, gradient: Array, around: Sequence[tuple[int, int]]) -> Array:
    """The gradient's convolution with the reversed kernel, which XLA must not undo."""
    reversed_kernel = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    return lax.conv_general_dilated(
        gradient, reversed_kernel, (1, 1), around, dimension_numbers=DIMENSIONS
    )


def _backward(
    strides: tuple[int, int], padding: Padding, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    plain = functools.partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        dimension_numbers=DIMENSIONS,
    )
    around = tuple(
        (size - 1 - before, size - 1 - behind)
        for size, (before, behind) in zip(kernel.shape[:2], padding, strict=True)
    )
    if strides == (1, 1) and min(min(pair) for pair in around) >= 0:
        to_x = _with_reversed(kernel, gradient, around)
    else:
        to_x = jax.vjp(lambda x: plain(x, kernel), x)[1](gradient)[0]
    if x.shape[2] > SMALL_MAP and x.shape[3] >= FEW_CHANNELS and kernel.shape[0] >= 3:
        products = kernel_gradient.of_taps(x, gradient, kernel.shape, strides, padding)
        return to_x, products.astype(kernel.dtype)
    return to_x, jax.vjp(lambda kernel: plain(x, kernel), kernel)[1](gradient)[0]


half_convolution.defvjp(_forward, _backward)
