"""Synapses as NIR convolutions: channels first, units as channels, dense layers over whole maps.

A dense layer is a convolution whose window is the whole map, so that no ``Flatten`` is needed:
importers differ in whether its axes count the batch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.exchange.nir.draft import Draft, Signal
from jaxsnn.exchange.nir.windows import windows

if TYPE_CHECKING:
    from nir import Conv2d

Pads = tuple[tuple[int, int], tuple[int, int]]


def as_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A site's shape ``(H, W, C)`` or ``(units,)`` as ``(C, H, W)``.

    >>> as_map((4, 5, 2)), as_map((7,))
    ((2, 4, 5), (7, 1, 1))
    """
    *sizes, channels = shape
    height, width = sizes or (1, 1)
    return channels, height, width


def synapse(
    draft: Draft, site: Site, kernel: np.ndarray, bias: np.ndarray, source: Signal
) -> Conv2d:
    """A site's synapse; its outputs are all those of ``bias [U * C]``, unit by unit.

    Args:
        draft: says the dtype.
        site: a convolution or a dense layer.
        kernel: ``site.kernel_shape``, the same for every unit.
        bias: ``[U * C]``.
        source: what comes in; its units are added up, so each gets the same kernel.
    """
    channels, height, width = source.shape
    if site.kind == "dense":
        kernel = kernel.reshape(height, width, channels, -1)
    units = len(bias) // kernel.shape[-1]
    weight = np.tile(kernel.transpose(3, 2, 0, 1), (units, source.units, 1, 1))
    return window(draft, weight, bias, source, site.strides, site.padding)


def window(
    draft: Draft,
    weight: np.ndarray,
    bias: np.ndarray,
    source: Signal,
    strides: tuple[int, int],
    padding: Pads,
) -> Conv2d:
    """A convolution of ``weight [out, in, height, width]``, whatever its padding.

    NIR pads both sides alike. Where a site does not, the side that has less gets as much as the
    other, and the window zeros there.
    """
    import nir

    extra = tuple((max(pads) - pads[0], max(pads) - pads[1]) for pads in padding)
    weight = np.pad(weight, ((0, 0), (0, 0), *extra)).astype(draft.dtype)
    both = max(padding[0]), max(padding[1])
    conv = nir.Conv2d(
        source.shape[1:], weight, strides, both, (1, 1), 1, np.asarray(bias, draft.dtype)
    )
    counts = windows(
        source.shape[1:], weight.shape[2:], strides, tuple((pad, pad) for pad in both), (1, 1)
    )
    conv.output_type = {"output": np.array([len(weight), *counts])}  # nir assumes square windows
    return conv


def channel_sums(
    draft: Draft, source: Signal, size: tuple[int, int], strides: tuple[int, int]
) -> Conv2d:
    """The sums of every window of ``size``, channel by channel; units are added up."""
    channels = source.shape[0]
    each = np.tile(np.eye(channels), (1, source.units))
    weight = each[:, :, None, None] * np.ones(size)
    return window(draft, weight, np.zeros(channels), source, strides, ((0, 0), (0, 0)))


def padded_identity(
    draft: Draft, source: Signal, channels: int, stride: int, gain: np.ndarray
) -> Conv2d:
    """Every ``stride``-th pixel times ``gain``, its channels between channels of zeros.

    What :func:`jaxsnn.network.site.aligned` makes of a shortcut, as a 1x1 convolution.

    Args:
        draft: says the dtype.
        source: of the shortcut; units are added up.
        channels: of the result, at least those of the source.
        stride: in either direction.
        gain: ``[channels]``, or one value.
    """
    missing = channels - source.shape[0]
    each = np.pad(np.eye(source.shape[0]), ((missing // 2, missing - missing // 2), (0, 0)))
    weight = np.broadcast_to(gain, channels)[:, None] * np.tile(each, (1, source.units))
    none = ((0, 0), (0, 0))
    return window(
        draft, weight[:, :, None, None], np.zeros(channels), source, (stride, stride), none
    )


def unit_sums(draft: Draft, source: Signal, size: int, bias: float) -> Conv2d:
    """The sums of every ``size`` by ``size`` window plus ``bias``, for each unit by itself."""
    channels = math.prod(source.node_shape[:1])
    weight = np.eye(channels)[:, :, None, None] * np.ones((size, size))
    biases = np.full(channels, bias)
    return window(draft, weight, biases, source, (size, size), ((0, 0), (0, 0)))


def outputs(conv: Conv2d) -> tuple[int, int, int]:
    """The shape ``(channels, height, width)`` of a convolution's output."""
    channels, height, width = (int(size) for size in conv.output_type["output"])
    return channels, height, width
