"""What one call of torch is in our words: layer by layer, each with what it cannot be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn, cast

from jaxsnn.arch.layers import MaxPool, Padding
from jaxsnn.exchange.graph import (
    Average,
    BatchNorm,
    MoreChannels,
    Operation,
    Plain,
    Strided,
    Synapse,
    inexpressible,
)

PARAMETERS = {
    "max_pool2d": ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    "avg_pool2d": ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
    "adaptive_avg_pool2d": ("output_size",),
    "getitem": ("index",),
    "pad": ("pad", "mode", "value"),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d"), ("p", "training")),
    **dict.fromkeys(("clamp", "clamp_", "clip"), ("min", "max")),
    **dict.fromkeys(("clamp_min", "clamp_min_"), ("min",)),
    "mean": ("dim", "keepdim"),
    "softmax": ("dim",),
    "log_softmax": ("dim",),
}  # behind the tensor, in their order


class Call(NamedTuple):
    """One node of torch's graph, with the values that it had in a run.

    Attributes:
        place: for messages.
        kind: name of the module's class, of the function or of the method; "" if not torch's.
        path: of the module.
        module: the module itself, or None.
        settings: arguments behind the first tensor, by name.
        inputs: shapes of the tensors that it takes, with the batch.
        shape: of the tensor that it gives, with the batch.
    """

    place: str
    kind: str
    path: str
    module: Any
    settings: Mapping[str, object]
    inputs: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]

    def get(self, name: str, default: object = None) -> Any:
        """A setting of the module or of the call."""
        if self.module is not None:
            return getattr(self.module, name, default)
        return self.settings.get(name, default)

    def refuse(self, reason: str) -> NoReturn:
        """Raise that there is no notation for it."""
        raise inexpressible(self.place, reason)


def operation_of(call: Call) -> Operation:
    """The operation of a call.

    Raises:
        UserError: the notation cannot express it, with its place and the reason.
    """
    if call.kind not in OPERATIONS:
        what = call.kind or "code that is not torch's"
        reason = _REASONS.get(call.kind, "the notation has no such layer")
        call.refuse(f"{what}: {reason}")
    if not call.shape or any(shape[:1] != call.shape[:1] for shape in call.inputs):
        call.refuse(f"mixes the images of a batch: {call.inputs} to {call.shape}")
    return OPERATIONS[call.kind](call)


def _convolution(call: Call) -> Synapse:
    sizes = (call.get("kernel_size"), call.get("stride"), call.get("dilation"))
    (kernel, stride, dilation), groups = map(_square, sizes), call.get("groups")
    if kernel is None or stride is None or dilation is None:
        call.refuse(f"a window or stride that is no square: {sizes[0]}, {sizes[1]}")
    if groups != 1:
        call.refuse(f"groups {groups}; only groups=1: zeros between groups do the same")
    if dilation != 1:
        call.refuse(f"dilation {sizes[2]}; a larger kernel with zeros between does the same")
    if call.get("padding_mode") != "zeros":
        call.refuse(f"padding {call.get('padding_mode')!r}; only 'zeros': train with those")
    padding = call.get("padding")
    if not isinstance(padding, str):
        padding = _square(padding)
        if padding is None:
            call.refuse(f"a padding that is not the same on all sides: {call.get('padding')}")
    read = cast("Padding", padding or "valid")
    bias = call.get("bias") is not None
    return Synapse(call.path, "conv", call.get("out_channels"), bias, kernel, stride, read)


def _dense(call: Call) -> Synapse:
    return Synapse(call.path, "dense", call.get("out_features"), call.get("bias") is not None)


def _norm(call: Call) -> BatchNorm:
    if call.get("running_mean") is None:
        call.refuse("a batch norm without running statistics; train it with them")
    scale = call.get("weight")
    rising = scale is None or bool((scale >= 0).all())
    return BatchNorm(call.path, float(call.get("eps")), rising)


def _average(call: Call) -> Operation:
    window = _pair(call.get("kernel_size"))
    stride, padding = _pair(call.get("stride") or window), _pair(call.get("padding", 0))
    height, width = call.inputs[0][2:]
    if call.get("divisor_override") or padding != (0, 0):
        call.refuse("an average pool with padding or a divisor; only windows side by side")
    if window == (height, width):
        return Plain("same") if window == (1, 1) else Average(0)
    if window != stride or window[0] != window[1]:
        call.refuse(f"a pool of windows {window} with stride {stride}; only squares side by side")
    size = window[0]
    if call.shape[2:] != (height // size, width // size):
        call.refuse(f"a pool of {size} that rounds up on a map of {height}x{width}")
    return Plain("same") if size == 1 else Average(size)


def _max(call: Call) -> Operation:
    """Squares, which may overlap and be padded; what is padded is never the largest."""
    windows = call.get("kernel_size")
    sizes = (windows, call.get("stride") or windows, call.get("padding", 0))
    size, stride, padding = map(_square, sizes)
    if size is None or stride is None or padding is None:
        call.refuse(f"a max pool of windows {sizes[0]} with stride {sizes[1]}; only squares")
    if _pair(call.get("dilation", 1)) != (1, 1):
        call.refuse(f"a max pool with dilation {call.get('dilation')}")
    pool, map_shape = MaxPool(size, stride, padding), call.inputs[0][2:]
    if call.shape[2:] != tuple(pool.outputs(each) for each in map_shape):
        call.refuse(f"a max pool of {size} that rounds up on a map of {map_shape}")
    return Plain("same") if size == stride == 1 else pool


def _adaptive(call: Call) -> Operation:
    """A pool to a given size, of windows that lie side by side."""
    (height, width), (rows, columns) = call.inputs[0][2:], call.shape[2:]
    if (height, width) == (rows, columns):
        return Plain("same")
    if (rows, columns) == (1, 1):
        return Average(0)
    if height % rows or width % columns or height // rows != width // columns:
        call.refuse(f"a pool from {height}x{width} to {rows}x{columns}; only squares side by side")
    return Average(height // rows)


def _mean(call: Call) -> Operation:
    """The mean of the whole map."""
    axes = call.get("dim")
    axes = (axes,) if isinstance(axes, int) else tuple(axes or ())
    count = len(call.inputs[0])
    if count != 4 or sorted(axis % count for axis in axes) != [2, 3]:
        call.refuse(f"a mean over axes {axes} of {call.inputs[0]}; only of the whole map, (2, 3)")
    return Average(0)


def _strided(call: Call) -> Operation:
    """``x[:, :, ::2, ::2]``: every second pixel."""
    index, shape = call.get("index"), call.inputs[0]
    slices = list(cast("tuple[object, ...]", index if isinstance(index, tuple) else (index,)))
    if Ellipsis in slices:
        place, rest = slices.index(Ellipsis), len(shape) - len(slices) + 1
        slices[place : place + 1] = [slice(None)] * rest
    steps = [_step_of(one) for one in slices]
    steps += [1] * (len(shape) - len(steps))
    if steps[:2] == [1, 1] and shape[2:] == (1, 1) and call.shape == shape[:2]:
        return Plain("flatten")  # [:, :, 0, 0] behind a global pool
    if len(shape) != 4 or None in steps or steps[:2] != [1, 1] or steps[2] != steps[3]:
        call.refuse(f"takes {index} of {shape}; only pixels at a stride, [:, :, ::2, ::2]")
    return Plain("same") if call.shape == shape else Strided(steps[2] or 1)


def _step_of(index: object) -> int | None:
    """The step of a slice of everything; None of any other index."""
    if not isinstance(index, slice):
        return None
    part = cast("slice[int | None, int | None, int | None]", index)
    if part.start or part.stop is not None:
        return None
    return 1 if part.step is None else int(part.step)


def _more_channels(call: Call) -> Operation:
    """``pad(x, (0, 0, 0, 0, 4, 4))``: channels of zeros; the last axis comes first."""
    pads, value = tuple(cast("tuple[int, ...]", call.get("pad"))), call.get("value")
    pads += (0,) * (2 * len(call.inputs[0]) - len(pads))
    mode = call.get("mode", "constant")
    channels, others = pads[4:6], (*pads[:4], *pads[6:])
    if len(pads) != 8 or any(others) or min(channels) < 0 or mode != "constant" or value:
        call.refuse(f"pads by {pads} with {value or 0}, {mode!r}; only channels of zeros")
    return MoreChannels(*channels)


def _flat(call: Call) -> Plain:
    """Any way to write a map as one row for each image, or what changes nothing."""
    (shape,) = call.inputs
    if call.shape == shape:
        return Plain("same")
    squeezed = call.shape == shape[: len(call.shape)] and math.prod(shape[2:]) == 1
    if not squeezed and call.shape != (shape[0], math.prod(shape[1:])):
        call.refuse(f"turns {shape} into {call.shape}; only a map into one row for each image")
    return Plain("flatten")


def _dropout(call: Call) -> Plain:
    if call.module is None and call.get("training", True):
        call.refuse("a dropout that is active in evaluation; give training=self.training")
    return Plain("same")


def _clamped(call: Call) -> Plain:
    if call.get("min") != 0 or call.get("max") is not None:
        call.refuse(
            f"clamps to {call.get('min')} and {call.get('max')}; only min=0 alone, a ReLU: put "
            "one there and train on"
        )
    return Plain("relu")


def _sum(call: Call) -> Plain:
    if len(call.inputs) != 2:
        call.refuse("an addition of something else than two layers")
    if call.get("alpha", 1) != 1:
        call.refuse(f"an addition with alpha={call.get('alpha')}; fold it into the weights")
    return Plain("add")


def _softmax(call: Call) -> Plain:
    if len(call.shape) != 2 or call.get("dim") not in (1, -1):
        call.refuse(f"a softmax over axis {call.get('dim')} of {call.shape}; only of the logits, 1")
    return Plain("softmax")


def _square(sizes: object) -> int | None:
    """One number for both axes; None if they differ."""
    height, width = _pair(sizes)
    return height if height == width else None


def _pair(sizes: object) -> tuple[int, int]:
    if isinstance(sizes, int):
        return sizes, sizes
    numbers = tuple(cast("tuple[int, ...]", sizes))
    return numbers[0], numbers[-1]


Reader = Callable[[Call], Operation]
OPERATIONS: dict[str, Reader] = {
    "Conv2d": _convolution,
    "Linear": _dense,
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d"), _norm),
    **dict.fromkeys(("ReLU", "relu", "relu_"), lambda call: Plain("relu")),
    **dict.fromkeys(("MaxPool2d", "max_pool2d"), _max),
    **dict.fromkeys(("AvgPool2d", "avg_pool2d"), _average),
    **dict.fromkeys(("AdaptiveAvgPool2d", "adaptive_avg_pool2d"), _adaptive),
    "mean": _mean,
    "getitem": _strided,
    "pad": _more_channels,
    **dict.fromkeys(("Flatten", "flatten", "view", "reshape", "squeeze"), _flat),
    **dict.fromkeys(("Dropout", "Dropout1d", "Dropout2d"), _dropout),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d"), _dropout),
    **dict.fromkeys(("clamp", "clamp_", "clip", "clamp_min", "clamp_min_"), _clamped),
    **dict.fromkeys(("Identity", "contiguous", "clone", "float"), lambda call: Plain("same")),
    **dict.fromkeys(("add", "iadd", "add_"), _sum),
    **dict.fromkeys(("Softmax", "LogSoftmax", "softmax", "log_softmax"), _softmax),
}
_ACTIVATIONS = (
    *("ReLU6", "Hardtanh", "LeakyReLU", "PReLU", "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish"),
    *("Hardswish", "Hardsigmoid", "Softplus", "Sigmoid", "Tanh"),
    *("relu6", "hardtanh", "leaky_relu", "prelu", "elu", "selu", "gelu", "silu", "mish"),
    *("hardswish", "hardsigmoid", "softplus", "sigmoid", "tanh", "threshold", "_threshold"),
)
_ARITHMETIC = ("mul", "imul", "mul_", "sub", "isub", "sub_", "truediv", "itruediv", "div", "div_")
_REASONS = {
    **dict.fromkeys(_ACTIVATIONS, "the only activation is a ReLU; put one there and train on"),
    **dict.fromkeys(
        _ARITHMETIC,
        "the notation has no such layer; normalise images before the module, and fold factors "
        "into weights",
    ),
    "get_attr": "a tensor that is used directly; normalise images before the module, and use "
    "layers for weights",
}
