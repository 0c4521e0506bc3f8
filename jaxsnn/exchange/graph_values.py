"""What each step of a graph gives, in the notation's terms: drives, signals, sums.

A value is the images, a drive (what a synapse gives, before its activation), a sum of two drives at
the end of a residual block, a signal (what an activation or a pool gives), or some pixels of one
between zeros, to be added to a drive. Each step makes one from another, or is refused where it
stands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

from jaxsnn.arch.layers import MaxPool, Shape
from jaxsnn.exchange.graph import (
    Average,
    BatchNorm,
    MoreChannels,
    Plain,
    Start,
    Step,
    Strided,
    Synapse,
    inexpressible,
)


@dataclass(frozen=True, eq=False)
class Value:
    """What a step gives: where it stands, its shape without the batch, whether it is flattened."""

    place: str
    shape: Shape
    step: str
    flat: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Image(Value):
    """What the network is given: (channels, height, width), whether it is flattened or not."""

    whole: Shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Drive(Value):
    """What a synapse gives, with what follows it before the activation."""

    synapse: Synapse
    source: Image | Signal
    norm: BatchNorm | None = None
    pool: MaxPool | None = None
    softmax: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Sum(Value):
    """The end of a residual block; without a ``shortcut`` the block's input itself is added.

    ``padded``: some pixels of it, between channels of zeros.
    """

    branch: Drive
    shortcut: Drive | None
    base: Signal
    padded: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Signal(Value):
    """What an activation gives, or a ``pool`` behind one."""

    made_of: Drive | Sum | Signal
    pool: Average | MaxPool | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Part(Value):
    """Every stride-th pixel of a signal, between channels of zeros."""

    base: Signal
    stride: int = 1
    before: int = 0
    behind: int = 0


def after(step: Step, values: list[Value]) -> Value:
    """The value that a step makes."""
    operation = step.operation
    if isinstance(operation, Start):
        return Image(step.place, step.shape, step.name, whole=step.shape)
    if isinstance(operation, Plain) and operation.kind == "add":
        return _added(step, values)
    (value,) = values
    if isinstance(value, Drive) and value.softmax:
        raise inexpressible(step.place, "behind a softmax, which must be the last step")
    if isinstance(operation, Synapse):
        return _driven(step, operation, value)
    if isinstance(operation, BatchNorm):
        return _normed(step, operation, value)
    if isinstance(operation, Average):
        return _averaged(step, operation, value)
    if isinstance(operation, MaxPool):
        return _most(step, operation, value)
    if isinstance(operation, Strided | MoreChannels):
        return _some(step, operation, value)
    return _plain(step, operation, value)


def _plain(step: Step, operation: Plain, value: Value) -> Value:
    if operation.kind == "flatten":
        return replace(value, flat=True, shape=step.shape)
    if operation.kind == "softmax":
        if not isinstance(value, Drive):
            raise inexpressible(step.place, "a softmax of what are no logits")
        return replace(value, softmax=True)
    if operation.kind == "same" or isinstance(value, Signal):  # which is not negative
        return value
    if isinstance(value, Drive | Sum):
        return Signal(step.place, step.shape, step.name, value.flat, made_of=value)
    raise inexpressible(step.place, "a ReLU of the images; begin with a convolution")


def _driven(step: Step, synapse: Synapse, value: Value) -> Drive:
    if not isinstance(value, Image | Signal):
        raise inexpressible(step.place, f"follows {value.place} without a ReLU between them")
    if synapse.kind == "dense" and len(value.shape) > 1:
        raise inexpressible(step.place, f"a dense layer of the map {value.shape}; flatten it")
    return Drive(step.place, step.shape, step.name, synapse=synapse, source=value)


def _normed(step: Step, norm: BatchNorm, value: Value) -> Drive:
    if not isinstance(value, Drive) or value.norm is not None:
        raise inexpressible(
            step.place,
            f"a batch norm of {value.place}; it must follow a layer with weights",
        )
    if value.flat and value.synapse.kind == "conv":
        raise inexpressible(step.place, "a batch norm of a flattened map; put it before flattening")
    pool = value.pool
    if pool and not norm.rising:  # with rising scales it is the same on either side of the norm
        pool = replace(pool, before_norm=True)
    return replace(value, norm=norm, pool=pool, step=step.name, shape=step.shape)


def _averaged(step: Step, pool: Average, value: Value) -> Signal:
    if not isinstance(value, Signal):
        raise inexpressible(step.place, f"an average pool of {value.place}; it must follow a ReLU")
    return Signal(step.place, step.shape, step.name, value.flat, made_of=value, pool=pool)


def _most(step: Step, pool: MaxPool, value: Value) -> Value:
    """A max pool before or behind the activation, which is the same: it never falls.

    One behind anything else than a convolution is a layer of its own.
    """
    if isinstance(value, Drive) and not value.pool:
        return replace(value, pool=pool, step=step.name, shape=step.shape)
    if not isinstance(value, Signal):
        raise inexpressible(
            step.place, f"a max pool of {value.place}; it must follow a convolution or a ReLU"
        )
    drive = value.made_of
    if isinstance(drive, Drive) and not drive.pool:
        return Signal(step.place, step.shape, step.name, made_of=replace(drive, pool=pool))
    return Signal(step.place, step.shape, step.name, made_of=value, pool=pool)


def _some(step: Step, operation: Strided | MoreChannels, value: Value) -> Part:
    """Pixels at a stride, and zeros around channels; one after the other."""
    if isinstance(value, Signal):
        value = Part(step.place, step.shape, step.name, base=value)
    if not isinstance(value, Part):
        raise inexpressible(
            step.place, f"of {value.place}; only what a shortcut adds has strides or channels"
        )
    value = replace(value, place=step.place, shape=step.shape, step=step.name)
    if isinstance(operation, Strided):
        return replace(value, stride=value.stride * operation.stride)
    before, behind = value.before + operation.before, value.behind + operation.behind
    return replace(value, before=before, behind=behind)


def _added(step: Step, values: list[Value]) -> Sum:
    """The end of a residual block: a branch, and what its input gives besides."""
    for branch, other in (values, values[::-1]):
        if not isinstance(branch, Drive) or branch.shape != other.shape:
            continue
        shortcut = other if isinstance(other, Drive) else None
        base = shortcut.source if shortcut else other
        base = base.base if isinstance(base, Part) else base
        if isinstance(base, Signal) and any(base is source for source in _sources(branch)):
            if shortcut:
                _check_projection(branch, shortcut, base)
            if isinstance(other, Part):
                _check_part(branch, other)
            return Sum(
                step.place,
                step.shape,
                step.name,
                branch=branch,
                shortcut=shortcut,
                base=base,
                padded=isinstance(other, Part),
            )
    first, second = (value.place for value in values)
    raise inexpressible(
        step.place,
        f"adds {first} and {second}, which are no residual block: a branch of convolutions, whose "
        "last has no ReLU, and their input or a 1x1 convolution of it",
    )


def _sources(branch: Drive) -> Iterator[Value]:
    """What the convolutions of a branch take, the last one's first."""
    drive: Value = branch
    while isinstance(drive, Drive) and drive.synapse.kind == "conv" and not drive.pool:
        yield drive.source
        if not isinstance(drive.source, Signal) or drive.source.pool is not None:
            return
        drive = drive.source.made_of


def _check_projection(branch: Drive, shortcut: Drive, base: Signal) -> None:
    synapse, strides = shortcut.synapse, _strides(branch, base)
    if (synapse.kernel, synapse.padding, shortcut.pool) != (1, "valid", None):
        raise inexpressible(shortcut.place, "a shortcut that is no 1x1 convolution")
    if synapse.stride != strides:
        raise inexpressible(
            shortcut.place, f"a shortcut of stride {synapse.stride}, where its branch has {strides}"
        )
    if not (shortcut.norm or synapse.bias):
        raise inexpressible(shortcut.place, "a shortcut with neither batch norm nor bias")


def _check_part(branch: Drive, part: Part) -> None:
    """A shortcut of option A has the strides of its branch, and zeros on both sides."""
    strides = _strides(branch, part.base)
    if part.stride != strides:
        raise inexpressible(
            part.place, f"a shortcut of stride {part.stride}, where its branch has {strides}"
        )
    half = (part.before + part.behind) // 2
    if part.before != half:
        raise inexpressible(
            part.place,
            f"{part.before} channels of zeros before and {part.behind} behind those of a shortcut; "
            "only as many before as behind, or one fewer",
        )


def _strides(branch: Drive, base: Signal) -> int:
    return math.prod(drive.synapse.stride for drive in branch_of(branch, base))


def branch_of(last: Drive, base: Signal) -> list[Drive]:
    """The convolutions of a branch, the last one first."""
    drives = [last]
    while drives[-1].source is not base:
        drives.append(cast("Drive", cast("Signal", drives[-1].source).made_of))
    return drives
