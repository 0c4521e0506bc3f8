"""Somebody's PyTorch network in our notation and our tree, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxsnn.arch.notation import Arch
from jaxsnn.errors import UserError
from jaxsnn.exchange.fitting import Fitting
from jaxsnn.exchange.read import read_weights
from jaxsnn.exchange.reference import Reference, check_reference
from jaxsnn.exchange.table import Table
from jaxsnn.exchange.weights import Weights, contiguous

InputShape = tuple[int, int, int]
StateDict = Mapping[str, Any]


class Imported(NamedTuple):
    """A network that was trained elsewhere.

    Attributes:
        arch: in our notation.
        variables: its weights, ``{"params": ..., "batch_stats": ...}``.
        table: what became of each of its arrays.
    """

    arch: Arch
    variables: dict[str, Any]
    table: Table


def from_torch(
    source: str | Path | StateDict,
    arch: Arch,
    input_shape: InputShape | None = None,
    *,
    names: Mapping[str, str] | None = None,
    epsilon: float | None = None,
    reference: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> Imported:
    """Take over a network that PyTorch trained; torch is not needed to read its weights.

    Args:
        source: a file (:func:`jaxsnn.exchange.read_weights`), or a state dict of tensors or arrays.
        arch: the network in our notation.
        input_shape: (height, width, channels) of its images, where ``arch`` has another.
        names: layer -> site, where order and shape do not decide: :func:`jaxsnn.exchange.fit`.
        epsilon: what its batch norms add to a variance; None: 1e-5.
        reference: images ``[B, C, H, W]``, as the original takes them, and the logits
            ``[B, classes]`` that it gives; ours, with ReLUs, are compared with them.

    Raises:
        UserError: a file that cannot be read, arrays that do not fit, each named, or logits that
            differ from the reference.
    """
    if input_shape is not None:
        arch = replace(arch, input_shape=tuple(input_shape))
    fitting = Fitting(_weights(source), arch, layout="torch", names=names, epsilon=epsilon)
    variables = fitting.variables()
    if reference is not None:
        check_reference(arch, variables, Reference(*reference))
    return Imported(arch, variables, fitting.table)


def _weights(source: str | Path | StateDict) -> Weights:
    if isinstance(source, str | Path):
        return read_weights(source)
    if isinstance(source, Weights):
        return source
    if isinstance(source, Mapping):
        arrays = {name: array_of(value) for name, value in source.items()}
        return Weights(arrays, "the state dict", "state dict")
    raise UserError(
        f"from_torch takes a file, a state dict or a module, not a {type(source).__name__}"
    )


def array_of(value: Any) -> NDArray[Any]:
    """A tensor of torch, or anything that NumPy understands, as an array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        narrow = value.is_floating_point() and value.element_size() < 4
        value = (value.float() if narrow else value).numpy()
    return contiguous(np.asarray(value))
