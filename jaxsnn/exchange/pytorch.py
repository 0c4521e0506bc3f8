"""Somebody's PyTorch network in our notation and our tree, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from jaxsnn.arch.notation import Arch, checked_shape
from jaxsnn.errors import UserError, shown
from jaxsnn.exchange.checkpoints import state_dict
from jaxsnn.exchange.fitting import Fitting
from jaxsnn.exchange.read import read_weights
from jaxsnn.exchange.reference import Reference, check_reference
from jaxsnn.exchange.torch_module import Imported, array_of, from_module
from jaxsnn.exchange.weights import Weights

InputShape = tuple[int, int, int]
StateDict = Mapping[str, Any]


def from_torch(
    source: Any,
    arch: Arch | None = None,
    input_shape: InputShape | None = None,
    *,
    names: Mapping[str, str] | None = None,
    epsilon: float | None = None,
    reference: tuple[np.ndarray, np.ndarray] | None = None,
) -> Imported:
    """Take over a network that PyTorch trained.

    Of weights the architecture must be given, and torch is not needed. Of a module it is found by
    ``torch.fx`` (extra ``torch``): Conv2d, Linear, BatchNorm, ReLU as a module or function, max
    pools, which may overlap and be padded, average and global pools, flatten, dropout, residual
    blocks whose shortcut is the identity, the identity at strides between channels of zeros (option
    A) or a 1x1 convolution. The module is run on a few images and compared with ours layer by
    layer.

    Args:
        source: an ``nn.Module``, a file (:func:`jaxsnn.exchange.read_weights`), or a state dict of
            tensors or arrays, alone or in a checkpoint.
        arch: the network in our notation; not for a module.
        input_shape: (height, width, channels) of its images; None: those of ``arch``.
        names: layer -> site, where order and shape do not decide: :func:`jaxsnn.exchange.fit`.
        epsilon: what its batch norms add to a variance; None: 1e-5, or what the module says.
        reference: images ``[B, C, H, W]``, as the original takes them, and the logits
            ``[B, classes]`` that it gives; ours, with ReLUs, are compared with them.

    Raises:
        UserError: a file that cannot be read, arrays that do not fit, each named; a step of a
            module that the notation cannot express, with its place; or logits that differ from the
            reference, with the first layer that differs.
    """
    compared = None if reference is None else _reference(reference)
    if hasattr(source, "state_dict"):
        if arch is not None or names or epsilon is not None or input_shape is None:
            raise UserError(
                "from_torch needs input_shape= of a module, and finds everything else: arch=, "
                "names= and epsilon= are for weights"
            )
        return from_module(source, checked_shape(input_shape), compared)
    if not isinstance(arch, Arch):
        raise UserError(
            f"from_torch needs arch=, the architecture that jaxsnn.parse makes of the notation, "
            f"got {shown(arch)}; only a module says it itself"
        )
    if input_shape is not None:
        arch = replace(arch, input_shape=checked_shape(input_shape))
    fitting = Fitting(_weights(source), arch, names=names, epsilon=epsilon)
    variables = fitting.variables()
    if compared is not None:
        check_reference(arch, variables, compared)
    return Imported(arch, variables, fitting.table)


def _reference(pair: Any) -> Reference:
    """Images and logits, of torch or NumPy, with or without gradients."""
    kind = type(pair).__name__
    if not isinstance(pair, tuple | list) or len(cast("list[object]", pair)) != 2:
        raise UserError(
            f"reference= takes two arrays, (images, logits), got {kind}; the images "
            "as the original takes them, and what it gives for them"
        )
    return Reference(*map(array_of, cast("list[object]", pair)))


def _weights(source: object) -> Weights:
    if isinstance(source, str | Path):
        return read_weights(source)
    if isinstance(source, Weights):
        return source
    if isinstance(source, Mapping):
        whole = dict(cast("StateDict", source))  # or a checkpoint that holds one (torch.load)
        tensors, skipped = state_dict(whole, "the checkpoint", is_tensor=_is_tensor)
        arrays = {name: array_of(each) for name, each in tensors.items()}
        return Weights(arrays, "the state dict", "state dict", skipped=skipped)
    raise UserError(
        f"from_torch takes a file, a state dict or a module, not a {type(source).__name__}"
    )


def _is_tensor(value: object) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")
