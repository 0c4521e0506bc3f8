"""Layer specs of single synapses, and what follows from them: shapes, counts, fan-out (no jax)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from jaxsnn.errors import UserError

Shape = tuple[int, ...]
Padding = Literal["same", "valid"] | int
Role = Literal["activation", "pool", "shortcut", "exit", "readout"]


def require(value: object, least: int, what: str) -> None:
    """Raise a UserError unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{what} must be an integer of at least {least}, got {value!r}")


@dataclass(frozen=True)
class MaxPool:
    """The largest value of every size x size window; as a layer it stands behind the neurons.

    A stride of 0 is the size: windows side by side. What padding adds is never the largest. With
    ``before_norm`` the norm of the convolution in front comes behind the pool. Where a layer stands
    for such a pool, the neurons in front of it have the norm already, and in a channel whose scale
    is negative the smallest of their values is what the largest current becomes.

    Raises:
        UserError: a size is not positive, or padding by more than half a window.
    """

    size: int
    stride: int = 0
    padding: int = 0
    before_norm: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible sizes; a stride of 0 becomes the size."""
        require(self.size, 1, "the max pooling size")
        require(self.stride, 0, "the stride of a max pool")
        require(self.padding, 0, "the padding of a max pool")
        object.__setattr__(self, "stride", self.stride or self.size)
        if 2 * self.padding > self.size:
            raise UserError(
                f"a max pool of {self.size} is padded by at most half its size, not by "
                f"{self.padding}"
            )

    def outputs(self, size: int) -> int:
        """Windows along an axis of that length, below 1 where none fits.

        >>> MaxPool(3, 2, 1).outputs(7)
        4
        """
        return (size + 2 * self.padding - self.size) // self.stride + 1


@dataclass(frozen=True)
class Conv:
    """A convolution with a square kernel, then norm or bias, then max pooling, then the neuron.

    ``max_pool`` pools the currents before the neuron. ``learned_pool`` marks a pooling layer whose
    weights are learned: a convolution with stride = kernel that keeps the channel count.

    Raises:
        UserError: a size is not positive, a learned pool whose windows overlap or are padded, or a
            pool before a norm that is not there.
    """

    channels: int
    kernel: int
    stride: int = 1
    padding: Padding = "valid"
    norm: bool = True
    bias: bool = False
    max_pool: MaxPool | None = None
    learned_pool: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible sizes."""
        require(self.channels, 1, "the number of channels")
        require(self.kernel, 1, "the kernel size")
        require(self.stride, 1, "the stride")
        if self.padding not in ("same", "valid"):
            require(self.padding, 0, "a padding other than 'same' and 'valid'")
        if self.learned_pool and (self.stride, self.padding) != (self.kernel, "valid"):
            raise UserError(
                f"a learned pool needs stride = kernel and padding 'valid', got stride "
                f"{self.stride}, kernel {self.kernel}, padding {self.padding!r}"
            )
        if self.max_pool and self.max_pool.before_norm and not self.norm:
            raise UserError(
                "a max pool before a norm, of a convolution that has none; leave out its suffix 'n'"
            )


@dataclass(frozen=True)
class Dense:
    """A dense layer, which flattens its input in (height, width, channel) order.

    Raises:
        UserError: ``units`` is not positive.
    """

    units: int
    norm: bool = True
    bias: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible sizes."""
        require(self.units, 1, "the number of units")


@dataclass(frozen=True)
class AvgPool:
    """Average pooling over size x size windows without overlap; size 0 takes the whole map.

    Raises:
        UserError: ``size`` is negative.
    """

    size: int

    def __post_init__(self) -> None:
        """Refuse impossible sizes."""
        require(self.size, 0, "the average pooling size")


Spec = Conv | Dense | AvgPool | MaxPool


@dataclass(frozen=True)
class Site:
    """One synapse or pool of a network, with the neuron behind it (if it has one).

    ``source`` names the site whose output comes in ("input" for the image). ``drive_shape`` is the
    shape of the drive after the synapse, ``out_shape`` the one after max pooling: (H, W, C) for
    maps, (units,) for dense layers. ``shortcut`` stands on the last convolution of a residual block
    and names what is added to its drive: the site "blockN.shortcut" (its drive) if the shortcut is
    a convolution, otherwise the site whose output is the block's input; of that every
    ``shortcut_stride``-th pixel is added, between channels of zeros where it has fewer.
    """

    name: str
    role: Role
    spec: Spec
    source: str
    in_shape: Shape
    drive_shape: Shape
    out_shape: Shape
    shortcut: str = ""
    shortcut_stride: int = 1

    @property
    def kind(self) -> Literal["conv", "dense", "avgpool", "maxpool"]:
        """What the synapse computes."""
        return _KINDS[type(self.spec)]

    @property
    def norm(self) -> bool:
        """Whether a batch norm follows the synapse."""
        return isinstance(self.spec, Conv | Dense) and self.spec.norm

    @property
    def bias(self) -> bool:
        """Whether the synapse has a bias of its own."""
        return isinstance(self.spec, Conv | Dense) and self.spec.bias

    @property
    def max_pool(self) -> MaxPool | None:
        """The max pool of its currents, before the neuron."""
        return self.spec.max_pool if isinstance(self.spec, Conv) else None

    @property
    def neuron_shape(self) -> Shape:
        """Shape of what its neurons see: a max pool behind neurons is itself one, with memory."""
        return self.drive_shape if isinstance(self.spec, MaxPool) else self.out_shape

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of the window; (1, 1) for a dense layer."""
        if isinstance(self.spec, Conv):
            return self.spec.kernel, self.spec.kernel
        if isinstance(self.spec, Dense):
            return 1, 1
        size = self.spec.size
        return (size, size) if size else (self.in_shape[0], self.in_shape[1])

    @property
    def strides(self) -> tuple[int, int]:
        """Vertical and horizontal stride."""
        if isinstance(self.spec, Conv | MaxPool):
            return self.spec.stride, self.spec.stride
        return self.window

    @property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Explicit padding ((top, bottom), (left, right))."""
        if isinstance(self.spec, MaxPool):
            sides = self.spec.padding, self.spec.padding
            return sides, sides
        if not isinstance(self.spec, Conv):
            return (0, 0), (0, 0)
        height, width = self.in_shape[:2]
        return explicit_padding(self.spec, height), explicit_padding(self.spec, width)

    @property
    def kernel_shape(self) -> Shape:
        """(height, width, in, out) of a convolution, (in, out) of a dense layer, () of a pool."""
        if isinstance(self.spec, Conv):
            return (*self.window, self.in_shape[-1], self.spec.channels)
        return (math.prod(self.in_shape), self.spec.units) if isinstance(self.spec, Dense) else ()

    @property
    def parameters(self) -> int:
        """Number of weights and biases, without those of the norm."""
        weights = math.prod(self.kernel_shape) if self.kernel_shape else 0
        return weights + (self.drive_shape[-1] if self.bias else 0)

    @property
    def norm_parameters(self) -> int:
        """Four values per channel: scale, offset, running mean, running variance."""
        return 4 * self.drive_shape[-1] if self.norm else 0

    @property
    def neurons(self) -> int:
        """Number of activation neurons; pools, shortcuts, exits and the readout count none."""
        return math.prod(self.out_shape) if self.role == "activation" else 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image, products with padding included; 0 for a pool."""
        if isinstance(self.spec, Conv):
            return math.prod(self.drive_shape[:2]) * math.prod(self.kernel_shape)
        return math.prod(self.kernel_shape) if isinstance(self.spec, Dense) else 0

    @property
    def max_fan_out(self) -> int:
        """Largest number of synapses that one incoming spike drives."""
        channels = 1 if isinstance(self.spec, AvgPool | MaxPool) else self.drive_shape[-1]
        return int(fan_out_windows(self).max()) * channels


_KINDS: dict[type[Spec], Literal["conv", "dense", "avgpool", "maxpool"]] = {
    Conv: "conv",
    Dense: "dense",
    AvgPool: "avgpool",
    MaxPool: "maxpool",
}


def arrays_of(site: Site) -> dict[str, Shape]:
    """Path -> shape of every array of a site in the training tree, all float32.

    Quantisers and neurons that learn something have leaves of their own beside these.

    >>> from jaxsnn.arch import parse, plan
    >>> arrays_of(plan(parse("4C3", classes=2, head_bias=True))[-1])
    {'params/readout/kernel': (2704, 2), 'params/readout/bias': (2,)}
    """
    channels, arrays = site.drive_shape[-1:], dict[str, Shape]()
    if site.kernel_shape:
        arrays[f"params/{site.name}/kernel"] = site.kernel_shape
    if site.bias:
        arrays[f"params/{site.name}/bias"] = channels
    if site.norm:
        arrays |= {f"params/{site.name}/norm/{leaf}": channels for leaf in ("scale", "bias")}
        arrays |= {f"batch_stats/{site.name}/norm/{leaf}": channels for leaf in ("mean", "var")}
    return arrays


def explicit_padding(spec: Conv, size: int) -> tuple[int, int]:
    """Zeros before and after one axis of length ``size``; "same" is TensorFlow's rule.

    >>> explicit_padding(Conv(8, 3, stride=2, padding="same"), 28)
    (0, 1)
    """
    if isinstance(spec.padding, int):
        return spec.padding, spec.padding
    if spec.padding == "valid":
        return 0, 0
    total = max((math.ceil(size / spec.stride) - 1) * spec.stride + spec.kernel - size, 0)
    return total // 2, total - total // 2


def fan_out_windows(site: Site) -> npt.NDArray[np.int64]:
    """Count the output positions whose window covers each input position.

    One spike at (row, column) costs ``windows[row, column] * output channels`` synaptic operations,
    so spikes at a border cost less (spec of the negative-spike conversion, section 2.6).

    Returns:
        int64 array of shape ``site.in_shape[:-1]``: [H, W] for maps, [] behind a dense layer. Dense
        layers have one window: all ones.

    >>> from jaxsnn.arch import parse, plan
    >>> fan_out_windows(plan(parse("4C3same", input_shape=(3, 4, 1)))[0]).tolist()
    [[4, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]]
    """
    if isinstance(site.spec, Dense):
        return np.ones(site.in_shape[:-1], np.int64)
    return np.multiply.outer(_covering(site, 0), _covering(site, 1))


def _covering(site: Site, axis: int) -> npt.NDArray[np.int64]:
    """Per input position of one axis: the number of windows that cover it."""
    outputs = site.out_shape if isinstance(site.spec, MaxPool) else site.drive_shape
    starts = np.arange(outputs[axis]) * site.strides[axis] - site.padding[axis][0]
    position = np.arange(site.in_shape[axis])[:, None]
    covered = (starts <= position) & (position < starts + site.window[axis])
    return covered.sum(axis=1, dtype=np.int64)
