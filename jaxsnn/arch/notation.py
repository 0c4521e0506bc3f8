"""The field's notation ("16C5-P2-256"): networks as layers, read and written as tokens (no jax)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from jaxsnn.arch.layers import AvgPool, Conv, Dense, MaxPool, Padding, require
from jaxsnn.errors import UserError

Pool = Literal["avg", "max", "conv"]
Shortcut = Literal["identity", "padded", "norm", "bias"]


def checked_shape(shape: object) -> tuple[int, int, int]:
    """The shape of images, (height, width, channels), as a tuple.

    Raises:
        UserError: it has another length, or a size is no integer of at least 1.
    """
    sizes = tuple(cast("list[object]", shape)) if isinstance(shape, list | tuple) else ()
    if len(sizes) != 3:
        raise UserError(f"input_shape must be (height, width, channels), got {shape!r}")
    for size in sizes:
        require(size, 1, f"every size of input_shape {shape!r}")
    return cast("tuple[int, int, int]", sizes)


@dataclass(frozen=True)
class Residual:
    """A residual block: branch + shortcut is the drive of the neuron behind the last convolution.

    The shortcut is the block's input itself ("identity"), that input where the branch has strides
    or more channels ("padded": the pixels at its strides, between channels of zeros; option A of He
    et al., CVPR 2016), or a 1x1 convolution with a batch norm ("norm") or a bias ("bias").

    Raises:
        UserError: an empty branch, pooling inside it, or an unknown shortcut.
    """

    branch: tuple[Conv, ...]
    shortcut: Shortcut

    def __post_init__(self) -> None:
        """Refuse branches that have no notation."""
        object.__setattr__(self, "branch", tuple(self.branch))
        if not self.branch or any(conv.max_pool or conv.learned_pool for conv in self.branch):
            raise UserError(
                "a residual branch is one or more convolutions without pooling; use a stride"
            )
        if self.shortcut not in get_args(Shortcut):
            allowed = ", ".join(map(repr, get_args(Shortcut)))
            raise UserError(f"shortcut must be one of {allowed}, got {self.shortcut!r}")


@dataclass(frozen=True)
class Exit:
    """A side exit: global average pool and a dense head with bias on the layer before it."""


Layer = Conv | Dense | AvgPool | MaxPool | Residual | Exit


@dataclass(frozen=True)
class Arch:
    """A network: hidden layers, input shape (H, W, C), and a readout of ``classes`` units.

    ``pool`` says what the token ``P`` means, ``norm`` whether hidden synapses are followed by a
    batch norm or have a bias. ``head_pool`` averages the last map before the readout, ``head_bias``
    gives the readout a bias, ``head_neuron`` a neuron (otherwise its potential is read).

    Raises:
        UserError: a size is not positive, or ``pool`` is unknown.
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
        object.__setattr__(self, "input_shape", checked_shape(self.input_shape))
        require(self.classes, 1, "classes")
        if self.pool not in (None, *get_args(Pool)):
            raise UserError(f"pool must be 'avg', 'max', 'conv' or None, got {self.pool!r}")

    @property
    def options(self) -> dict[str, Any]:
        """Every field but the layers: ``parse(format(arch), **arch.options) == arch``."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "layers"}


# Notation: one token per layer, "-" between them (inside [ ] it separates the branch's tokens).

_CONV = re.compile(r"([0-9]+)C([0-9]+)(?:s([0-9]+))?(same|p[0-9]+)?(nb|n|b|x)?")
_DENSE = re.compile(r"([0-9]+)(nb|n|b|x)?")
_POOL = re.compile(r"([AMLB]?)P([0-9]+)(?:s([0-9]+))?(?:p([0-9]+))?(nb|n|b|x)?")
_BLOCK = re.compile(r"\[(.*)\]\+(identity|padded|norm|bias)")
_POOLS: dict[str, Pool] = {"A": "avg", "M": "max", "L": "conv"}
_BEHIND = "B"  # the letter of a max pool behind neurons
_SUFFIXES = {"n": (True, False), "b": (False, True), "nb": (True, True), "x": (False, False)}
_TOKENS = (
    "16C5, 16C5s2same, 16C5p1, 256, P2, AP2, MP2, MP3s2p1, BP2, LP2, GP, E or "
    "[16C3p1-16C3p1]+identity"
)


def read(text: str, arch: Arch) -> tuple[Layer, ...]:
    """Read the layers of ``text`` with the options of ``arch``; shapes are not looked at.

    Raises:
        UserError: token number, token, what is wrong with it and the remedy.
    """
    layers: list[Layer] = []
    for number, token in enumerate(re.split(r"-(?![^\[]*\])", text.strip()), 1):
        try:
            _append(layers, token, arch)
        except UserError as error:
            raise UserError(f"token {number} ({token!r}): {error}") from None
    return tuple(layers)


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
    return next(shortcut for shortcut in get_args(Shortcut) if shortcut == word)


def _norm_bias(suffix: str | None, arch: Arch) -> tuple[bool, bool]:
    return _SUFFIXES[suffix] if suffix else (arch.norm, not arch.norm)


def _conv(token: str, arch: Arch) -> Conv:
    match = _CONV.fullmatch(token)
    if not match:
        raise UserError(f"{token!r} is not a layer; write {_TOKENS}")
    padding: Padding = "valid"
    if match[4]:
        padding = "same" if match[4] == "same" else int(match[4][1:])
    stride = int(match[3]) if match[3] else 1
    return Conv(int(match[1]), int(match[2]), stride, padding, *_norm_bias(match[5], arch))


def _append_pool(layers: list[Layer], match: re.Match[str], arch: Arch) -> None:
    pool, size = _POOLS.get(match[1], arch.pool), int(match[2])
    if pool is None and match[1] != _BEHIND:
        raise UserError('say what P means: pool="avg", "max" or "conv", or write AP, MP or LP')
    if size < 1:
        raise UserError("the pool size must be at least 1; write GP for a global average")
    if not layers:
        raise UserError("a pool needs a layer before it; start with a convolution")
    behind, suffix = match[1] == _BEHIND, match[5]
    if behind or pool == "max":
        _append_max_pool(layers, _max_pool(match), behind)
        return
    if match[3] or match[4]:
        raise UserError(
            f"only max pools (MP, BP) overlap or are padded; write {match[1]}P{size}, with windows "
            "side by side"
        )
    if suffix and pool != "conv":
        raise UserError(f"only a learned pool has weights; leave out the suffix {suffix!r}")
    if pool == "avg":
        layers.append(AvgPool(size))
    else:
        norm, bias = _norm_bias(suffix, arch)
        layers.append(Conv(_channels(layers), size, size, "valid", norm, bias, learned_pool=True))


def _max_pool(match: re.Match[str]) -> MaxPool:
    """Its suffix n says that the norm in front comes behind the pool."""
    if match[5] not in (None, "n"):
        raise UserError(
            f"a max pool has no weights; leave out the suffix {match[5]!r}, or write n for a norm "
            "that comes behind the pool"
        )
    stride = int(match[3]) if match[3] else int(match[2])
    require(stride, 1, "the stride of a max pool")
    return MaxPool(int(match[2]), stride, int(match[4] or 0), match[5] == "n")


def _append_max_pool(layers: list[Layer], pool: MaxPool, behind: bool) -> None:
    last = layers[-1]
    if behind and pool.before_norm and not (isinstance(last, Conv) and last.norm):
        raise UserError(
            "the suffix n of a max pool belongs to the norm of the convolution right before it, "
            "but there is none; leave it out"
        )
    if behind:
        layers.append(pool)
    elif isinstance(last, Conv) and not last.max_pool:
        layers[-1] = replace(last, max_pool=pool)
    else:
        raise UserError(
            "max pooling acts on the currents of the convolution right before it, but there is "
            "none; put it behind one, or write AP, or BP for the largest of what neurons give"
        )


def _channels(layers: list[Layer]) -> int:
    for layer in reversed(layers):
        if isinstance(layer, Residual):
            return layer.branch[-1].channels
        if isinstance(layer, Conv):
            return layer.channels
        if isinstance(layer, Dense):
            return layer.units
    raise UserError("a learned pool needs a convolution before it")


def format(arch: Arch) -> str:
    """Write the notation; the inverse of ``parse`` with ``arch.options``.

    >>> from jaxsnn.arch import parse
    >>> format(parse("16C5same-P2-256", pool="conv"))
    '16C5same-P2-256'
    """
    return "-".join(token for layer in arch.layers for token in tokens(layer, arch))


def tokens(layer: Layer, arch: Arch) -> list[str]:
    """The tokens of one layer: a convolution with max pooling has two."""
    if isinstance(layer, Exit):
        return ["E"]
    if isinstance(layer, Dense):
        return [f"{layer.units}{_suffix(layer, arch)}"]
    if isinstance(layer, AvgPool):
        return [_pool_token("avg", layer.size, arch) if layer.size else "GP"]
    if isinstance(layer, MaxPool):
        return [f"{_BEHIND}P{_windows(layer)}"]
    if isinstance(layer, Residual):
        branch = "-".join(token for conv in layer.branch for token in tokens(conv, arch))
        return [f"[{branch}]+{layer.shortcut}"]
    pools = [_pool_token("max", _windows(layer.max_pool), arch)] if layer.max_pool else []
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


def _windows(pool: MaxPool) -> str:
    """Size, and stride, padding and norm where they are not the usual ones."""
    stride = f"s{pool.stride}" if pool.stride != pool.size else ""
    padding = f"p{pool.padding}" if pool.padding else ""
    return f"{pool.size}{stride}{padding}{'n' if pool.before_norm else ''}"


def _pool_token(pool: Pool, size: int | str, arch: Arch, suffix: str = "") -> str:
    letter = next(letter for letter, kind in _POOLS.items() if kind == pool)
    return f"{'' if arch.pool == pool else letter}P{size}{suffix}"
