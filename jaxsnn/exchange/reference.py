"""Whether our network gives what the original gives, and if not, which layer differs first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.errors import UserError
from jaxsnn.exchange.fitting import network_of
from jaxsnn.network.net import Out, forward

Array = np.ndarray

TOLERANCE = 1e-3  # of the largest value: float32 sums in another order differ by some 1e-6


class Reference(NamedTuple):
    """What the original gives for a few images.

    Attributes:
        images: as the original takes them, normalised, ``[B, C, H, W]``.
        logits: ``[B, classes]``, before any softmax.
    """

    images: Array
    logits: Array


class Seen(NamedTuple):
    """What one of the original's layers gives.

    Attributes:
        place: the layer in the original.
        values: ``[B, C, H, W]`` or ``[B, units]``, behind activation and max pool.
    """

    place: str
    values: Array


def check_reference(
    arch: Arch,
    variables: Mapping[str, Any],
    reference: Reference,
    layers: Mapping[str, Seen] | None = None,
    tolerance: float = TOLERANCE,
) -> float:
    """Compare our network, with ReLUs, to what the original gives.

    Args:
        arch: ours.
        variables: the original's, in our tree.
        reference: images and logits.
        layers: site -> what the original's layer there gives, which is compared, too.
        tolerance: largest difference, as a part of the largest value.

    Returns:
        The largest difference of the logits, as a part of the largest logit.

    Raises:
        UserError: they differ by more, with the first layer that does, or the shapes are others.
    """
    images, logits = (np.asarray(part, np.float32) for part in reference)
    check_images(images, arch.input_shape)
    check_logits(logits, len(images), arch.classes)
    out = _run(arch, variables, images)
    ours = np.asarray(out.readouts[-1][0])
    differs = difference(ours, logits)
    departs = _first(arch, out, layers or {}, tolerance)
    if differs > tolerance or departs:
        raise UserError(
            f"the network differs from the reference: its logits by {differs:.2g} of the largest; "
            + (departs or _advice(ours, logits))
        )
    return differs


def check_images(images: Array, input_shape: tuple[int, int, int]) -> None:
    """Refuse images that are not ``[B, C, H, W]`` of an input shape (H, W, C).

    Raises:
        UserError: naming both shapes.
    """
    height, width, channels = input_shape
    if images.ndim != 4 or images.shape[1:] != (channels, height, width):
        raise UserError(
            f"reference images {images.shape}: wanted [B, {channels}, {height}, {width}], as torch "
            "has them"
        )


def check_logits(logits: Array, images: int, classes: int) -> None:
    """Refuse logits that are not ``[images, classes]``.

    Raises:
        UserError: naming both shapes.
    """
    if logits.shape != (images, classes):
        raise UserError(
            f"reference logits {logits.shape}: wanted {(images, classes)}, one row for each image"
        )


def _run(arch: Arch, variables: Mapping[str, Any], images: Array) -> Out:
    net = network_of(arch)
    with jax.default_matmul_precision("highest"):
        return forward(net, variables, jnp.asarray(images.transpose(0, 2, 3, 1)))


def difference(ours: Array, theirs: Array, least: float = 0) -> float:
    """Largest difference as a part of the largest value; infinite where one is no number.

    ``least`` counts as the largest where all values are smaller: rounding errors beside zeros.
    """
    tiny = float(np.finfo(np.float32).tiny)
    largest = max(float(np.abs(theirs).max(initial=0)), least, tiny)
    apart = float(np.abs(ours - theirs).max(initial=0)) / largest
    return apart if np.isfinite(apart) else float("inf")


def _first(arch: Arch, out: Out, layers: Mapping[str, Seen], tolerance: float) -> str:
    """Which layer differs first; "" if none does."""
    least = tolerance * float(np.abs(out.readouts[-1][0]).max(initial=0))
    for site in plan(arch):
        if site.name not in layers:
            continue
        place, theirs = layers[site.name]
        ours = np.asarray(out.outs[site.name][0])
        if theirs.ndim == 4:
            theirs = theirs.transpose(0, 2, 3, 1)
        if theirs.shape != ours.shape:
            return f"the first layer is {site.name} ({place}): {ours.shape} against {theirs.shape}"
        differs = difference(ours, theirs, least)
        if differs > tolerance:
            return f"the first layer to differ is {site.name} ({place}), by {differs:.2g}"
    return ""


def _advice(ours: Array, theirs: Array) -> str:
    """What to look at where the logits alone are known."""
    for behind in (jax.nn.log_softmax, jax.nn.softmax):
        if difference(np.asarray(behind(ours)), theirs) <= TOLERANCE:
            return f"it is what comes behind a {behind.__name__}; give the logits before that"
    return (
        "look at the images (mean, deviation, order of channels), at pools, padding and "
        "activations of the notation"
    )
