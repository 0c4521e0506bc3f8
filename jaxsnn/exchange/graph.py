"""A network as the steps of its computation, in words of ours: what a tracer writes down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from jaxsnn.arch.layers import MaxPool, Padding, Shape
from jaxsnn.errors import UserError


@dataclass(frozen=True)
class Start:
    """The images."""


@dataclass(frozen=True)
class Synapse:
    """A convolution with a square kernel, or a dense layer; ``path`` names its weights."""

    path: str
    kind: Literal["conv", "dense"]
    units: int
    bias: bool
    kernel: int = 1
    stride: int = 1
    padding: Padding = "valid"


@dataclass(frozen=True)
class BatchNorm:
    """A batch norm in evaluation; ``rising``: no scale is negative."""

    path: str
    epsilon: float
    rising: bool


@dataclass(frozen=True)
class Average:
    """The mean of windows of size x size without overlap; size 0 takes the whole map."""

    size: int


@dataclass(frozen=True)
class Strided:
    """Every stride-th row and column of a map."""

    stride: int


@dataclass(frozen=True)
class MoreChannels:
    """So many channels of zeros before and behind a map's."""

    before: int
    behind: int


@dataclass(frozen=True)
class Plain:
    """A step without weights and settings; "same" passes its input on."""

    kind: Literal["relu", "flatten", "same", "add", "softmax"]


Operation = Start | Synapse | BatchNorm | Average | MaxPool | Strided | MoreChannels | Plain


class Step(NamedTuple):
    """One step.

    Attributes:
        name: of the step.
        place: where in the original it stands, for messages.
        operation: what is done.
        inputs: names of the steps that it takes.
        shape: of what it gives, without the batch: (C, H, W) or (units,).
    """

    name: str
    place: str
    operation: Operation
    inputs: tuple[str, ...]
    shape: Shape


class Graph(NamedTuple):
    """A network.

    Attributes:
        steps: in order; each takes earlier ones.
        output: name of the step that gives the logits.
        values: step -> what it gives for a few images, ``[B, C, H, W]`` or ``[B, units]``.
    """

    steps: tuple[Step, ...]
    output: str
    values: Mapping[str, np.ndarray]


def inexpressible(place: str, reason: str) -> UserError:
    """What to raise for a step that our notation has no words for."""
    return UserError(f"{place}: {reason}")
