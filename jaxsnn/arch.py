"""The field's notation ("16C5-P2-256") <-> frozen specs, and the plan of a network (no jax)."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from jaxsnn.shapes import (
    AvgPool,
    Conv,
    Dense,
    Padding,
    Role,
    Shape,
    Site,
    connect,
    fan_out_windows,
    require,
)

__all__ = [
    "Arch", "AvgPool", "Conv", "Dense", "Exit", "Residual", "Shape", "Site", "Totals",
    "fan_out_windows", "format", "parse", "plan", "totals",
]  # fmt: skip

Pool = Literal["avg", "max", "conv"]
Shortcut = Literal["identity", "norm", "bias"]


@dataclass(frozen=True)
class Residual:
    """A residual block: branch + shortcut is the drive of the neuron behind the last convolution.

    The shortcut is the block's input itself ("identity") or a 1x1 convolution with a batch norm
    ("norm") or a bias ("bias").

    Raises:
        ValueError: an empty branch, pooling inside it, or an unknown shortcut.
    """

    branch: tuple[Conv, ...]
    shortcut: Shortcut

    def __post_init__(self) -> None:
        """Refuse branches that have no notation."""
        object.__setattr__(self, "branch", tuple(self.branch))
        if not self.branch or any(conv.max_pool or conv.learned_pool for conv in self.branch):
            raise ValueError(
                "a residual branch is one or more convolutions without pooling; use a stride"
            )
        if self.shortcut not in get_args(Shortcut):
            raise ValueError(
                f"shortcut must be 'identity', 'norm' or 'bias', got {self.shortcut!r}"
            )


@dataclass(frozen=True)
class Exit:
    """A side exit: global average pool and a dense head with bias on the layer before it."""


Layer = Conv | Dense | AvgPool | Residual | Exit


@dataclass(frozen=True)
class Arch:
    """A network: hidden layers, input shape (H, W, C), and a readout of `classes` units.

    `pool` says what the token `P` means, `norm` whether hidden synapses are followed by a batch
    norm or have a bias. `head_pool` averages the last map before the readout, `head_bias` gives
    the readout a bias, `head_neuron` a neuron (otherwise its potential is read).

    Raises:
        ValueError: a size is not positive, or `pool` is unknown.
    """

    layers: tuple[Layer, ...]
    classes: int = 10
    input_shape: tuple[int, int, int] = (28, 28, 1)
    pool: Pool | None = None
    norm: bool = True
    head_pool: bool = False
    head_bias: bool = False
    head_neuron: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible sizes; lists become tuples so that every Arch is hashable."""
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        require(self.classes, 1, "classes")
        if len(self.input_shape) != 3:
            raise ValueError(
                f"input_shape must be (height, width, channels), got {self.input_shape}"
            )
        for size in self.input_shape:
            require(size, 1, f"every size of input_shape {self.input_shape}")
        if self.pool not in (None, *get_args(Pool)):
            raise ValueError(f"pool must be 'avg', 'max', 'conv' or None, got {self.pool!r}")

    @property
    def options(self) -> dict[str, Any]:
        """Every field but the layers: `parse(format(arch), **arch.options) == arch`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "layers"}


@dataclass(frozen=True)
class Totals:
    """Sums over all sites; `macs` include the encoder (first synapse), exits and the readout."""

    parameters: int
    norm_parameters: int
    neurons: int
    macs: int
    encoder_macs: int

    @property
    def all_parameters(self) -> int:
        """Weights, biases and the four norm values per channel."""
        return self.parameters + self.norm_parameters

    @property
    def macs_without_encoder(self) -> int:
        """Multiply-accumulates whose input is spikes."""
        return self.macs - self.encoder_macs


def totals(arch: Arch) -> Totals:
    """Add up parameters, neurons and multiply-accumulates per image.

    >>> totals(parse("16C5same-P2-256", pool="conv")).all_parameters
    807952
    """
    sites = plan(arch)
    return Totals(
        parameters=sum(site.parameters for site in sites),
        norm_parameters=sum(site.norm_parameters for site in sites),
        neurons=sum(site.neurons for site in sites),
        macs=sum(site.macs for site in sites),
        encoder_macs=sites[0].macs,
    )


@functools.lru_cache(maxsize=512)
def plan(arch: Arch) -> tuple[Site, ...]:
    """Return every synapse and average pool in execution order, the readout last.

    >>> [site.name for site in plan(parse("16C5-P2-[16C3p1]+identity-E-64", pool="conv"))]
    ['conv1', 'pool1', 'block1.conv1', 'exit1.pool', 'exit1', 'dense1', 'readout']

    Raises:
        ValueError: the first layer is no synapse, a window does not fit its map, or a shortcut
            does not match its branch; token number, token and shapes are named.
    """
    sites: list[Site] = []
    counts: Counter[str] = Counter()
    source, shape = "input", arch.input_shape
    for layer, place in zip(arch.layers, _places(arch), strict=True):
        if source == "input" and (not isinstance(layer, Conv | Dense) or _is_pool(layer)):
            raise ValueError(f"{place}: the first layer must be a convolution or a dense layer")
        sites += _sites(layer, source, shape, counts, place, arch)
        if not isinstance(layer, Exit):
            source, shape = sites[-1].name, sites[-1].out_shape
    if not sites:
        raise ValueError("the architecture has no layers; write at least one, such as '256'")
    head = Dense(arch.classes, norm=False, bias=arch.head_bias)
    return (*sites, *_head("readout", "readout", head, arch.head_pool, source, shape, "readout"))


def _is_pool(layer: Layer) -> bool:
    return isinstance(layer, Conv) and layer.learned_pool


def _sites(
    layer: Layer, source: str, shape: Shape, counts: Counter[str], place: str, arch: Arch
) -> list[Site]:
    stem = "pool" if _is_pool(layer) else type(layer).__name__.lower()
    counts[stem] += 1
    name = f"{stem}{counts[stem]}"
    if isinstance(layer, Residual):
        return _block(layer, name.replace("residual", "block"), source, shape, place)
    if isinstance(layer, Exit):
        return _head(name, "exit", Dense(arch.classes, False, True), True, source, shape, place)
    if isinstance(layer, Conv) and layer.learned_pool and layer.channels != shape[-1]:
        raise ValueError(
            f"{place}: a learned pool keeps the {shape[-1]} channels of {shape}, "
            f"got channels={layer.channels}"
        )
    role: Role = "pool" if isinstance(layer, AvgPool) else "activation"
    return [connect(name, role, layer, source, shape, place)]


def _head(
    name: str, role: Role, head: Dense, pool: bool, source: str, shape: Shape, place: str
) -> list[Site]:
    sites: list[Site] = []
    if pool:
        sites = [connect(f"{name}.pool", "pool", AvgPool(0), source, shape, place)]
        source, shape = sites[0].name, sites[0].out_shape
    return [*sites, connect(name, role, head, source, shape, place)]


def _block(layer: Residual, name: str, source: str, shape: Shape, place: str) -> list[Site]:
    """Sites of a residual block; a projection comes just before the convolution it is added to."""
    sites: list[Site] = []
    before, inner, stride = source, shape, 1
    for number, conv in enumerate(layer.branch, 1):
        sites.append(
            connect(f"{name}.conv{number}", "activation", conv, before, inner, f"{place}, {name}")
        )
        before, inner, stride = sites[-1].name, sites[-1].out_shape, stride * conv.stride
    last = sites.pop()
    added, projected = source, shape
    if layer.shortcut != "identity":
        norm = layer.shortcut == "norm"
        spec = Conv(layer.branch[-1].channels, 1, stride, norm=norm, bias=not norm)
        sites.append(connect(f"{name}.shortcut", "shortcut", spec, source, shape, place))
        added, projected = sites[-1].name, sites[-1].out_shape
    if projected != last.drive_shape:
        raise ValueError(
            f"{place}, {name}: the branch ends with {last.drive_shape} but the {layer.shortcut} "
            f"shortcut with {projected}; match strides, padding and channels, or use +norm or +bias"
        )
    return [*sites, replace(last, shortcut=added)]


# Notation: one token per layer, "-" between them (inside [ ] it separates the branch's tokens).

_CONV = re.compile(r"([0-9]+)C([0-9]+)(?:s([0-9]+))?(same|p[0-9]+)?(nb|n|b|x)?")
_DENSE = re.compile(r"([0-9]+)(nb|n|b|x)?")
_POOL = re.compile(r"([AML]?)P([0-9]+)(nb|n|b|x)?")
_BLOCK = re.compile(r"\[(.*)\]\+(identity|norm|bias)")
_POOLS: dict[str, Pool] = {"A": "avg", "M": "max", "L": "conv"}
_SUFFIXES = {"n": (True, False), "b": (False, True), "nb": (True, True), "x": (False, False)}
_TOKENS = "16C5, 16C5s2same, 16C5p1, 256, P2, AP2, MP2, LP2, GP, E or [16C3p1-16C3p1]+identity"


def parse(text: str, **options: Any) -> Arch:
    """Read the notation; `options` are the fields of `Arch` other than `layers`.

    `16C5` is a 5x5 convolution with 16 channels (then `s2` stride, `same` or `p1` padding), `256` a
    dense layer, `P2` a pool as `pool` says (`AP2` average, `MP2` maximum before the neuron, `LP2`
    learned 2x2 stride-2 convolution), `GP` a global average, `E` a side exit and
    `[64C3p1-64C3p1]+identity` a residual block (`+norm`, `+bias`: with a 1x1 convolution). Synapses
    take a last suffix where they differ from `norm`: `b` bias, `n` norm, `nb` both, `x` neither.

    >>> parse("16C5same-P2-256", pool="max").layers[0]
    Conv(channels=16, kernel=5, stride=1, padding='same', norm=True, bias=False, max_pool=2, \
learned_pool=False)

    Raises:
        ValueError: token number, token, what is wrong with it or its shapes, and the remedy.
    """
    arch = Arch((), **options)
    layers: list[Layer] = []
    for number, token in enumerate(re.split(r"-(?![^\[]*\])", text.strip()), 1):
        try:
            _append(layers, token, arch)
        except ValueError as error:
            raise ValueError(f"token {number} ({token!r}): {error}") from None
    arch = replace(arch, layers=tuple(layers))
    plan(arch)  # refuses shapes that do not fit
    return arch


def _append(layers: list[Layer], token: str, arch: Arch) -> None:
    if token == "E":
        layers.append(Exit())
    elif token == "GP":
        layers.append(AvgPool(0))
    elif match := _BLOCK.fullmatch(token):
        branch = tuple(_conv(inner, arch) for inner in match[1].split("-"))
        layers.append(Residual(branch, _shortcut(match[2])))
    elif match := _DENSE.fullmatch(token):
        layers.append(Dense(int(match[1]), *_norm_bias(match[2], arch)))
    elif match := _POOL.fullmatch(token):
        _append_pool(layers, match, arch)
    else:
        layers.append(_conv(token, arch))


def _shortcut(word: str) -> Shortcut:
    return "identity" if word == "identity" else "norm" if word == "norm" else "bias"


def _norm_bias(suffix: str | None, arch: Arch) -> tuple[bool, bool]:
    return _SUFFIXES[suffix] if suffix else (arch.norm, not arch.norm)


def _conv(token: str, arch: Arch) -> Conv:
    match = _CONV.fullmatch(token)
    if not match:
        raise ValueError(f"{token!r} is not a layer; write {_TOKENS}")
    padding: Padding = "valid"
    if match[4]:
        padding = "same" if match[4] == "same" else int(match[4][1:])
    stride = int(match[3]) if match[3] else 1
    return Conv(int(match[1]), int(match[2]), stride, padding, *_norm_bias(match[5], arch))


def _append_pool(layers: list[Layer], match: re.Match[str], arch: Arch) -> None:
    pool, size = _POOLS.get(match[1], arch.pool), int(match[2])
    if pool is None:
        raise ValueError('say what P means: pool="avg", "max" or "conv", or write AP, MP or LP')
    if size < 1:
        raise ValueError("the pool size must be at least 1; write GP for a global average")
    if not layers:
        raise ValueError("a pool needs a layer before it; start with a convolution")
    if match[3] and pool != "conv":
        raise ValueError(f"only a learned pool has weights; leave out the suffix {match[3]!r}")
    last = layers[-1]
    if pool == "avg":
        layers.append(AvgPool(size))
    elif pool == "conv":
        norm, bias = _norm_bias(match[3], arch)
        layers.append(Conv(_channels(layers), size, size, "valid", norm, bias, learned_pool=True))
    elif isinstance(last, Conv) and not last.max_pool:
        layers[-1] = replace(last, max_pool=size)
    else:
        raise ValueError(
            "max pooling acts on the currents of the convolution right before it, but there is "
            "none; put it behind one, or write AP"
        )


def _channels(layers: list[Layer]) -> int:
    for layer in reversed(layers):
        if isinstance(layer, Residual):
            return layer.branch[-1].channels
        if isinstance(layer, Conv):
            return layer.channels
        if isinstance(layer, Dense):
            return layer.units
    raise ValueError("a learned pool needs a convolution before it")


def format(arch: Arch) -> str:
    """Write the notation; the inverse of `parse` with `arch.options`.

    >>> format(parse("16C5same-P2-256", pool="conv"))
    '16C5same-P2-256'
    """
    return "-".join(token for layer in arch.layers for token in _tokens(layer, arch))


def _places(arch: Arch) -> Iterator[str]:
    number = 1
    for layer in arch.layers:
        tokens = _tokens(layer, arch)
        yield f"token {number} ({'-'.join(tokens)!r})"
        number += len(tokens)


def _tokens(layer: Layer, arch: Arch) -> list[str]:
    if isinstance(layer, Exit):
        return ["E"]
    if isinstance(layer, Dense):
        return [f"{layer.units}{_suffix(layer, arch)}"]
    if isinstance(layer, AvgPool):
        return [_pool_token("avg", layer.size, arch) if layer.size else "GP"]
    if isinstance(layer, Residual):
        branch = "-".join(token for conv in layer.branch for token in _tokens(conv, arch))
        return [f"[{branch}]+{layer.shortcut}"]
    pools = [_pool_token("max", layer.max_pool, arch)] if layer.max_pool else []
    if layer.learned_pool:
        return [_pool_token("conv", layer.kernel, arch, _suffix(layer, arch)), *pools]
    stride = f"s{layer.stride}" if layer.stride != 1 else ""
    padding = f"p{layer.padding}" if isinstance(layer.padding, int) else layer.padding
    padding = padding.replace("valid", "")
    return [f"{layer.channels}C{layer.kernel}{stride}{padding}{_suffix(layer, arch)}", *pools]


def _suffix(layer: Conv | Dense, arch: Arch) -> str:
    wanted = (layer.norm, layer.bias)
    if wanted == _norm_bias(None, arch):
        return ""
    return next(suffix for suffix, pair in _SUFFIXES.items() if pair == wanted)


def _pool_token(pool: Pool, size: int, arch: Arch, suffix: str = "") -> str:
    letter = next(letter for letter, kind in _POOLS.items() if kind == pool)
    return f"{'' if arch.pool == pool else letter}P{size}{suffix}"
