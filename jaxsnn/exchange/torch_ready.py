"""A copy of a module of torch that can be written down: on the processor, of images alone."""

# Torch is not installed where types are checked.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import copy

from jaxsnn.errors import UserError, shown
from jaxsnn.exchange.graph import inexpressible
from jaxsnn.types import Untyped

MADE_OF = ("weight_orig", "weight_g", "parametrizations")  # of pruned and normalised weights


def ready(module: Untyped) -> Untyped:
    """A copy in evaluation and float32 whose ``forward`` takes images and nothing else.

    Raises:
        UserError: it is compiled, a weight has no values yet or is computed from others, or it
            cannot be copied.
    """
    import torch  # pyright: ignore[reportMissingImports]

    if isinstance(module, torch.jit.ScriptModule):
        raise UserError(
            "a compiled TorchScript module has no steps that can be read; give the module that it "
            "was made of, or its state_dict() and the architecture as arch="
        )
    _check_arrays(module)
    _check_weights(module)
    try:
        still = copy.deepcopy(module).eval().cpu().float()
    except Exception as error:  # whatever a part of the module raises
        raise UserError(
            f"{type(module).__name__}: cannot be copied ({line_of(error)}); give its state_dict() "
            "and the architecture as arch= instead"
        ) from error
    still.__class__ = _of_images(type(still))
    return still


def _of_images(kind: Untyped) -> Untyped:
    """A class like another whose forward takes images alone: others keep their defaults.

    torch.fx would take an optional argument for one that may be anything.
    """

    def forward(self: Untyped, images: Untyped) -> Untyped:
        return kind.forward(self, images)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _check_arrays(module: Untyped) -> None:
    import torch  # pyright: ignore[reportMissingImports]

    for name, array in (*module.named_parameters(), *module.named_buffers()):
        if torch.nn.parameter.is_lazy(array) or array.is_meta:
            raise inexpressible(
                f"{type(module).__name__}, {name}",
                "has no values yet; load its weights, or run the module on one batch, before",
            )


def _check_weights(module: Untyped) -> None:
    for path, layer in module.named_modules():
        for name in MADE_OF:
            if hasattr(layer, name):
                raise inexpressible(
                    f"{path} ({type(layer).__name__})",
                    f"its weight is computed from others ({name}); make it permanent with "
                    "torch.nn.utils: prune.remove, remove_weight_norm, remove_spectral_norm or "
                    "parametrize.remove_parametrizations",
                )


def line_of(error: Exception) -> str:
    """The first line of what torch says."""
    text = shown(str(error).strip().split("\n")[0])
    return text[1:].removesuffix(text[0])
