"""How a synapse is computed: the one place that chooses by shape, dtype and backend.

Storage and compute dtype are separate choices. Integer kernels are stored as int8 (or wider) and
computed in float32 wherever no sum can leave its 24-bit mantissa, because that is exact and, for
narrow layers on a CPU, several times faster than an integer convolution. For wide layers on a CPU
products of bfloat16 with float32 sums win where they are faster than those of float32 (spikes and
int8 weights have at most 8 significant bits, so this is exact under the same bound), and the int8
convolution where they are not. Of int32 a CPU has no fast convolution, but a fast matrix product:
the windows are laid out for it. ``benchmarks/lowering.py`` measures the table below.

Training alone takes other ways (:mod:`jaxsnn.network.arithmetic`): operands of bfloat16, or
Winograd's transforms of float32 (:mod:`jaxsnn.network.winograd`), which round.

An accelerator multiplies spikes with int8 weights in bfloat16 where float32 holds the sums, and
lays the windows of every convolution that must be exact out for a matrix product: its own
convolutions may transform the operands first (Winograd, FFT), which rounds, and of int32 it has
none.
"""

import functools
import math
import time
from pathlib import Path
from typing import Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxsnn.arch.layers import AvgPool, Site
from jaxsnn.errors import UserError
from jaxsnn.network import winograd
from jaxsnn.network.arithmetic import Arithmetic
from jaxsnn.network.convolutions import (
    convolution,
    direct,
    in_parts,
    laid_out,
    patches,
    row_products,
    tiled,
    unless_silent,
)
from jaxsnn.network.fast_convolution import half_convolution
from jaxsnn.network.kernel_gradient import images_at_once

Accumulator = Literal["float32", "int32"]

MEASURED = (512, 1536, 512)  # rows, values between and columns of the products that are timed
WIDE_CHANNELS = 64  # from here on bfloat16 and int8 beat float32 on a CPU (measured)


def synapse(
    x: Array,
    kernel: Array | None,
    site: Site,
    accumulator: Accumulator,
    skip_silent: bool = False,
    arithmetic: Arithmetic = Arithmetic.PLAIN,
) -> Array:
    """The drive that ``x`` causes at ``site``, without bias, norm or neuron.

    Args:
        x: ``[N, *site.in_shape]``, floats, or integers (pixels, signed spike counts).
        kernel: ``site.kernel_shape``, float or integer, or integer as :func:`prepared` leaves it;
            None for average pooling.
        site: geometry of the synapse.
        accumulator: for integer operands, what holds every possible sum: "float32" below 2^24,
            "int32" below 2^31 (conversion computes the bound).
        skip_silent: spend nothing on integers that are zero throughout; the same result.
        arithmetic: of the products of floats.

    Returns:
        ``[N, *site.drive_shape]``; int32 if both operands are integers, else float32 (float64 of
        such a kernel), or bfloat16 where that is the arithmetic (but for heads and narrow layers).
        The average pool of integers is their sum (conversion puts ``1 / size**2`` into the next
        thresholds).
    """
    if kernel is None:
        return _average_pool(x, site)
    if not (_is_integer(x) and (_is_integer(kernel) or kernel.dtype == jnp.bfloat16)):
        if arithmetic is Arithmetic.FAST_BFLOAT16 and _worth_halving(x, site):
            return _half(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), site)
        wide = _float_sums(kernel.dtype)
        return _product(x.astype(wide), kernel.astype(wide), site, arithmetic)
    compute = _compute_dtype(x.dtype, kernel, site, accumulator)
    drive = _linear(x, kernel.astype(compute), site, skip_silent)
    return drive.astype(jnp.int32)


def prepared(kernel: Array, site: Site, accumulator: Accumulator) -> Array:
    """An integer kernel in the dtype in which spikes meet it, cast once before a loop over time."""
    if site.source == "input" or not _is_integer(kernel):
        return kernel
    compute = _compute_dtype(jnp.dtype(jnp.int8), kernel, site, accumulator)
    return kernel.astype(compute) if compute == jnp.bfloat16 else kernel


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _float_sums(operands: jnp.dtype) -> jnp.dtype:
    """The dtype of sums of floats: float64 stays what it is, all others are summed in float32."""
    return jnp.dtype(jnp.float64 if operands == jnp.float64 else jnp.float32)


def _is_integer(x: Array) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.integer))


def _compute_dtype(
    spikes: jnp.dtype, kernel: Array, site: Site, accumulator: Accumulator
) -> jnp.dtype:
    """The dtype of the products of integers that are held by ``accumulator``."""
    small = spikes == jnp.int8 and kernel.dtype in (jnp.int8, jnp.bfloat16)
    if accumulator == "int32":
        return jnp.dtype(jnp.int8 if small else jnp.int32)
    if small and not _on_cpu():
        return jnp.dtype(jnp.bfloat16)
    wide = min(kernel.shape[-2:]) >= WIDE_CHANNELS and site.kind == "conv"
    if small and wide:
        return jnp.dtype(jnp.bfloat16 if fast_bfloat16() else jnp.int8)
    return jnp.dtype(jnp.float32)


@functools.cache
def fast_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 matrices faster than float32 ones; measured once.

    Processors differ: an AMD EPYC takes half the time for them, an Intel Xeon with the same
    instructions 1.4 times as much (measured). Whatever is chosen, the integers are the same.
    """
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux: nothing is known
        return False
    if "avx512_bf16" not in flags and "amx_bf16" not in flags:
        return False
    with jax.ensure_compile_time_eval():  # it may be asked for while a program is traced
        return _product_seconds(jnp.bfloat16) < _product_seconds(jnp.float32)


def _product_seconds(dtype: jnp.dtype) -> float:
    """The best time of a matrix product as a wide layer has it."""
    rows, between, columns = MEASURED
    left, right = jnp.ones((rows, between), dtype), jnp.ones((between, columns), dtype)
    product = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
    product(left, right).block_until_ready()
    seconds: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        product(left, right).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _linear(x: Array, kernel: Array, site: Site, skip_silent: bool) -> Array:
    """Product of integers in the kernel's dtype; integers sum in int32, others in float32."""
    if site.kind == "conv" and kernel.dtype == jnp.bfloat16 and _on_cpu():
        return row_products(x, kernel, site.strides, site.padding, skip_silent)
    product = functools.partial(_product, kernel=kernel, site=site, arithmetic=Arithmetic.EXACT)
    return (unless_silent(product) if skip_silent else product)(x)


def _worth_halving(x: Array, site: Site) -> bool:
    """Whether operands of bfloat16 train faster: not those of narrow convolutions on a CPU.

    A dense layer's are where they come in bfloat16, behind a wide convolution.
    """
    if not _on_cpu():
        return True
    if site.kind == "dense":
        return x.dtype == jnp.bfloat16
    return site.kernel_shape[-1] >= WIDE_CHANNELS


def _half(x: Array, kernel: Array, site: Site) -> Array:
    """Convolution or dense product of bfloat16 operands, in training."""
    if site.kind == "dense":
        out = jnp.matmul(x.reshape(x.shape[0], -1), kernel)
    elif _windows_are_tiles(site):
        out = tiled(x, kernel)
    elif not _on_cpu():  # whose own gradient of a convolution is fast
        out = direct(x, kernel, site.strides, site.padding, x.dtype)
    else:
        out = cast("Array", half_convolution(x, kernel, site.strides, site.padding))
    return out.astype(jnp.float32) if site.role in ("exit", "readout") else out


def _product(x: Array, kernel: Array, site: Site, arithmetic: Arithmetic) -> Array:
    """Convolution or dense product; operands that must stay exact are not transformed."""
    x = x.astype(kernel.dtype)
    sums = jnp.dtype(jnp.int32) if _is_integer(kernel) else _float_sums(kernel.dtype)
    if site.kind == "dense":
        x = x.reshape(x.shape[0], -1)
        return jnp.matmul(x, kernel, preferred_element_type=sums, precision="highest")
    if arithmetic is Arithmetic.EXACT and not _on_cpu():
        return laid_out(x, kernel, site.strides, site.padding, sums)
    in_loop = arithmetic is Arithmetic.IN_LOOP
    windows = functools.partial(
        patches, kernel=kernel, strides=site.strides, padding=site.padding, sums=sums
    )
    if _on_cpu() and kernel.dtype == jnp.int32:  # 8 to 90 times as fast as XLA's own (measured)
        return in_parts(windows, x, images_at_once(x.shape[0], math.prod(site.drive_shape[:2])))
    if _on_cpu() and (in_loop or _fewer_outputs_than_taps(site)):
        return windows(x)
    if _on_cpu() and arithmetic is Arithmetic.FAST_FLOAT32:
        blocks = winograd.fitting(x.shape, kernel.shape, site.strides, site.padding)
        if blocks is not None:
            return winograd.winograd(x, kernel, site.padding, blocks)
    if _on_cpu() and not _is_integer(kernel):
        if min(kernel.shape[-2:]) >= WIDE_CHANNELS and _windows_are_tiles(site):
            return tiled(x, kernel)
        return convolution(x, kernel, site.strides, site.padding)
    return direct(x, kernel, site.strides, site.padding, sums)


def _windows_are_tiles(site: Site) -> bool:
    """Whether every input position lies in exactly one window, as in a learned 2x2 pooling."""
    (height, width), (rows, columns, _) = site.window, site.in_shape
    fits = rows % height == 0 and columns % width == 0
    return fits and site.strides == site.window and site.padding == ((0, 0), (0, 0))


def _fewer_outputs_than_taps(site: Site) -> bool:
    """Whether the output map has fewer rows or columns than the window, as in the last layers.

    XLA convolves such maps 20 to 100 times more slowly than a matrix product (measured with windows
    of 3x3 and 64 channels or more); the windows laid out are few, whatever their size.
    """
    return any(o < w for o, w in zip(site.drive_shape[:2], site.window, strict=True))


def _average_pool(x: Array, site: Site) -> Array:
    if not isinstance(site.spec, AvgPool):
        raise UserError(f"{site.name}: a synapse needs a kernel; only average pooling has none")
    integer = _is_integer(x)
    x = x.astype(jnp.int32 if integer else _float_sums(x.dtype))
    zero = np.zeros((), x.dtype)  # a constant: of a traced zero there is no gradient
    window, strides = (1, *site.window, 1), (1, *site.strides, 1)
    total = lax.reduce_window(x, zero, lax.add, window, strides, "VALID")
    return total if integer else total / (site.window[0] * site.window[1])
