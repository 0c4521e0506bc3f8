"""Nodes with a sliding window: ``Conv1d``, ``Conv2d``, ``SumPool2d``, ``AvgPool2d``.

Samples are ``[C, L]`` or ``[C, H, W]``; all sizes are as PyTorch defines them, rounded down.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxsnn.errors import UserError
from jaxsnn.exchange.nir.operation import Params, Shape, State, Stateless
from jaxsnn.network.convolutions import laid_out

Padding = tuple[tuple[int, int], ...]


def windows(
    sizes: Shape, window: Shape, strides: Shape, padding: Padding, dilation: Shape
) -> Shape:
    """How many windows fit along each axis.

    Raises:
        UserError: none does.

    >>> windows((34, 34), (5, 5), (2, 2), ((1, 1), (1, 1)), (1, 1))
    (16, 16)
    """
    counts = tuple(
        (size + sum(pad) - spread * (width - 1) - 1) // stride + 1
        for size, width, stride, pad, spread in zip(
            sizes, window, strides, padding, dilation, strict=True
        )
    )
    if min(counts) < 1:
        raise UserError(f"has a window of {window}, which does not fit a padded map of {sizes}")
    return counts


@dataclass(frozen=True)
class Convolution(Stateless):
    """A cross-correlation over one or two axes, with a bias.

    Params: ``weight [out, in / groups, *window]``, ``bias [out]``.

    Attributes:
        strides, dilation: one for each axis.
        padding: zeros in front of and behind each axis.
        groups: groups of channels that do not see each other.
    """

    strides: Shape
    padding: Padding
    dilation: Shape
    groups: int

    def output_shape(self, shape: Shape, params: Params) -> Shape:
        """``[in, *sizes] -> [out, *windows]``."""
        outputs, inputs, *window = params["weight"].shape
        wanted = inputs * self.groups
        if len(shape) != len(self.strides) + 1 or shape[0] != wanted:
            raise UserError(
                f"takes {wanted} channels and {len(self.strides)} further axes, gets {shape}"
            )
        counts = windows(shape[1:], tuple(window), self.strides, self.padding, self.dilation)
        return (outputs, *counts)

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """The sums, in full precision."""
        # Channels last: inside a loop XLA's CPU convolves so 13 times faster (measured).
        last = jnp.moveaxis(x, 1, -1)
        kernel = jnp.moveaxis(params["weight"], (0, 1), (-1, -2))
        product = self._convolved(last, kernel) if _on_cpu() else self._laid_out(last, kernel)
        return state, jnp.moveaxis(product + params["bias"], -1, 1)

    def _convolved(self, x: Array, kernel: Array) -> Array:
        """XLA's own convolution, of channels last."""
        letters = "HW"[: len(self.strides)]
        return lax.conv_general_dilated(
            x,
            kernel,
            self.strides,
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
            feature_group_count=self.groups,
            precision=lax.Precision.HIGHEST,
        )

    def _laid_out(self, x: Array, kernel: Array) -> Array:
        """A matrix product: an accelerator may transform a convolution first, which rounds.

        Windows in one dimension, with gaps or in groups it convolves itself.
        """
        if len(self.strides) != 2 or set(self.dilation) != {1} or self.groups != 1:
            return self._convolved(x, kernel)
        (rows, columns), (above, beside) = self.strides, self.padding
        return laid_out(x, kernel, (rows, columns), (above, beside), x.dtype)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


@dataclass(frozen=True)
class Pool(Stateless):
    """Sum or mean over windows of ``[C, H, W]``; zeros of the padding count in a mean.

    Attributes:
        window, strides, padding: for height and width.
        mean: divide by the size of the window.
    """

    window: Shape
    strides: Shape
    padding: Padding
    mean: bool

    def output_shape(self, shape: Shape, params: Params) -> Shape:
        """``[C, H, W] -> [C, *windows]``."""
        del params
        if len(shape) != 3:
            raise UserError(f"pools maps (channels, height, width), gets {shape}")
        return (
            shape[0],
            *windows(shape[1:], self.window, self.strides, self.padding, (1, 1)),
        )

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """The sums, divided where a mean is asked for."""
        del params
        total = lax.reduce_window(
            x,
            np.zeros((), x.dtype),
            lax.add,
            (1, 1, *self.window),
            (1, 1, *self.strides),
            ((0, 0), (0, 0), *self.padding),
        )
        return state, total / math.prod(self.window) if self.mean else total
