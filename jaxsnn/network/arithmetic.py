"""In which arithmetic the products of floats are computed, and what the installed XLA offers.

Training may be fast: its gradients are estimates anyway. What is claimed to be exact is computed in
plain float32, or from integers (:mod:`jaxsnn.network.synapse`), in programs that know none of this.
"""

import enum
import functools
import warnings
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxsnn.errors import UserError

Compute = Literal["auto", "float32", "bfloat16"]

ONEDNN = "xla_cpu_experimental_onednn_custom_call"  # an XLA option, and
ONEDNN_CONVOLUTION = "__onednn$conv"  # what a program that was compiled with it calls


class Arithmetic(enum.Enum):
    """How a network computes the products of floats."""

    PLAIN = "float32, every sum in the order of one convolution"
    EXACT = "float32 sums that are exact, as of weights on a grid, and stay so on any device"
    IN_LOOP = "float32, its gradient taken inside a loop"
    FAST_FLOAT32 = "float32, with the transforms that train fastest on a processor"
    FAST_BFLOAT16 = "operands of bfloat16, parameters and sums of batches float32"

    @property
    def fast(self) -> bool:
        """Whether it is for training alone."""
        return self in (Arithmetic.FAST_FLOAT32, Arithmetic.FAST_BFLOAT16)


def training_arithmetic(compute: Compute) -> Arithmetic:
    """The arithmetic to train in.

    Args:
        compute: "float32"; "bfloat16"; "auto": bfloat16 where it is faster, on an accelerator and
            where XLA gives a processor's convolutions to oneDNN, else float32.

    Raises:
        UserError: bfloat16 on a processor for which this XLA would compute it in float32.
    """
    accelerated = jax.default_backend() != "cpu"
    fast = accelerated or onednn_convolves()
    if compute == "bfloat16" and not fast:
        raise UserError(
            "--compute bfloat16: this XLA computes convolutions of bfloat16 in float32 on a "
            f"processor (jax {jax.__version__}; jax 0.12 with Python 3.12 or newer does not); "
            "possible here: float32, auto"
        )
    half = fast if compute == "auto" else compute == "bfloat16"
    return Arithmetic.FAST_BFLOAT16 if half else Arithmetic.FAST_FLOAT32


def compute_of(arithmetic: Arithmetic) -> Literal["float32", "bfloat16"]:
    """What ``--compute`` calls it.

    >>> compute_of(Arithmetic.FAST_BFLOAT16), compute_of(Arithmetic.PLAIN)
    ('bfloat16', 'float32')
    """
    return "bfloat16" if arithmetic is Arithmetic.FAST_BFLOAT16 else "float32"


def compiler_options(arithmetic: Arithmetic) -> dict[str, bool] | None:
    """XLA's options for the outermost ``jit`` of a training program; None: none.

    They hold for that program alone, so that no other one is compiled with them.
    """
    half = arithmetic is Arithmetic.FAST_BFLOAT16
    return {ONEDNN: True} if half and jax.default_backend() == "cpu" else None


@functools.cache
def onednn_convolves() -> bool:
    """Whether this XLA gives a processor's bfloat16 convolutions to oneDNN; looked at once.

    Some versions know the option and ignore it, so the compiled program is looked at.
    """
    if jax.default_backend() != "cpu":
        return False
    image = jax.ShapeDtypeStruct((8, 16, 16, 32), jnp.bfloat16)
    kernel = jax.ShapeDtypeStruct((3, 3, 32, 32), jnp.bfloat16)
    try:
        program = jax.jit(_convolve, compiler_options={ONEDNN: True}).lower(image, kernel)
        with warnings.catch_warnings(action="ignore"):  # it cannot be stored in a cache of programs
            text = program.compile().as_text() or ""
    except jax.errors.JaxRuntimeError:  # an XLA that does not know the option
        return False
    return ONEDNN_CONVOLUTION in text


def _convolve(images: Array, kernel: Array) -> Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
