"""The plan of a network: every synapse with its shapes and counts, from the notation (no jax)."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxsnn.arch.layers import AvgPool, Conv, Dense, MaxPool, Role, Shape, Site, Spec
from jaxsnn.arch.notation import Arch, Exit, Layer, Residual, read, tokens
from jaxsnn.errors import UserError

LARGEST = 2**36  # values of one array: 256 GiB of float32


@dataclass(frozen=True)
class Totals:
    """Sums over all sites; ``macs`` include the encoder (first synapse), exits and the readout."""

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


PROJECTION = ".shortcut"  # end of the names of sites that shortcuts with weights are


def site_named(arch: Arch, name: str) -> Site:
    """Return the site of that name.

    Raises:
        UserError: there is none; the known names are listed.
    """
    for site in plan(arch):
        if site.name == name:
            return site
    raise UserError(f"no site {name!r}; known: {', '.join(site.name for site in plan(arch))}")


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
    """Return every synapse, average pool and max pool behind neurons in order, the readout last.

    >>> [site.name for site in plan(parse("16C5-P2-[16C3p1]+identity-E-64", pool="conv"))]
    ['conv1', 'pool1', 'block1.conv1', 'exit1.pool', 'exit1', 'dense1', 'readout']

    Raises:
        UserError: the first layer is no synapse, a window does not fit its map, or a shortcut
            does not match its branch (token number, token and shapes are named), or an array
            would be larger than any memory.
    """
    sites: list[Site] = []
    counts: Counter[str] = Counter()
    source, shape = "input", arch.input_shape
    for layer, place in zip(arch.layers, _places(arch), strict=True):
        if source == "input" and (not isinstance(layer, Conv | Dense) or _is_pool(layer)):
            raise UserError(f"{place}: the first layer must be a convolution or a dense layer")
        sites += _sites(layer, source, shape, counts, place, arch)
        if not isinstance(layer, Exit):
            source, shape = sites[-1].name, sites[-1].out_shape
    if not sites:
        raise UserError("the architecture has no layers; write at least one, such as '256'")
    head = Dense(arch.classes, norm=False, bias=arch.head_bias)
    ends = _head("readout", "readout", head, arch.head_pool, source, shape, "readout")
    _refuse_oversized([*sites, *ends])
    return (*sites, *ends)


def _places(arch: Arch) -> Iterator[str]:
    number = 1
    for layer in arch.layers:
        written = tokens(layer, arch)
        yield f"token {number} ({'-'.join(written)!r})"
        number += len(written)


def _is_pool(layer: Layer) -> bool:
    return isinstance(layer, Conv) and layer.learned_pool


def _refuse_oversized(sites: Sequence[Site]) -> None:
    """Refuse a network of which no computer could hold one array.

    Raises:
        UserError: naming the site, and what is too large of it.
    """
    for site in sites:
        for what, shape in (
            ("drive", site.drive_shape),
            ("output", site.out_shape),
            ("kernel", site.kernel_shape or ()),
        ):
            if math.prod(shape) > LARGEST:
                raise UserError(
                    f"{site.name}: {math.prod(shape):.3g} values in its {what} {shape}, more than "
                    f"the {LARGEST:.3g} that an array can have; make the layer or its input smaller"
                )


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
        raise UserError(
            f"{place}: a learned pool keeps the {shape[-1]} channels of {shape}, "
            f"got channels={layer.channels}"
        )
    role: Role = "pool" if isinstance(layer, AvgPool | MaxPool) else "activation"
    return [_connect(name, role, layer, source, shape, place)]


def _head(
    name: str, role: Role, head: Dense, pool: bool, source: str, shape: Shape, place: str
) -> list[Site]:
    sites: list[Site] = []
    if pool:
        sites = [_connect(f"{name}.pool", "pool", AvgPool(0), source, shape, place)]
        source, shape = sites[0].name, sites[0].out_shape
    return [*sites, _connect(name, role, head, source, shape, place)]


def _block(layer: Residual, name: str, source: str, shape: Shape, place: str) -> list[Site]:
    """Sites of a residual block; a projection comes just before the convolution it is added to."""
    sites: list[Site] = []
    before, inner, stride = source, shape, 1
    for number, conv in enumerate(layer.branch, 1):
        sites.append(
            _connect(f"{name}.conv{number}", "activation", conv, before, inner, f"{place}, {name}")
        )
        before, inner, stride = sites[-1].name, sites[-1].out_shape, stride * conv.stride
    last = sites.pop()
    added, projected, skipped = source, shape, 1
    if layer.shortcut == "padded":
        skipped = stride
        height, width = (-(-size // stride) for size in shape[:2])
        projected = (height, width, max(shape[-1], last.drive_shape[-1]))
    elif layer.shortcut != "identity":
        norm = layer.shortcut == "norm"
        spec = Conv(layer.branch[-1].channels, 1, stride, norm=norm, bias=not norm)
        sites.append(_connect(f"{name}{PROJECTION}", "shortcut", spec, source, shape, place))
        added, projected = sites[-1].name, sites[-1].out_shape
    if projected != last.drive_shape:
        raise UserError(
            f"{place}, {name}: the branch ends with {last.drive_shape} but the {layer.shortcut} "
            f"shortcut with {projected}; match strides, padding and channels, or use "
            "+padded, +norm or +bias"
        )
    return [*sites, replace(last, shortcut=added, shortcut_stride=skipped)]


def _connect(name: str, role: Role, spec: Spec, source: str, in_shape: Shape, place: str) -> Site:
    """The site of ``spec`` behind ``source``; ``place`` names the layer in errors."""
    if isinstance(spec, Dense):
        return Site(name, role, spec, source, in_shape, (spec.units,), (spec.units,))
    if len(in_shape) != 3:
        raise UserError(
            f"{place}: needs a map (height, width, channels), but {in_shape} comes in; "
            "put it before the dense layers"
        )
    site = Site(name, role, spec, source, in_shape, (), ())
    if isinstance(spec, MaxPool):
        return _max_pooled(replace(site, drive_shape=in_shape), spec, place)
    height, width = (_outputs(site, axis) for axis in (0, 1))
    if min(height, width) < 1:
        raise UserError(
            f"{place}: its {site.window[0]}x{site.window[1]} window does not fit the incoming map "
            f"{in_shape}; pad it, take a smaller window, or a larger input_shape"
        )
    drive = (height, width, spec.channels if isinstance(spec, Conv) else in_shape[2])
    site = replace(site, drive_shape=drive, out_shape=drive)
    return _max_pooled(site, site.max_pool, place) if site.max_pool else site


def _max_pooled(site: Site, pool: MaxPool, place: str) -> Site:
    """The site with the shape that is left of its drive."""
    drive = site.drive_shape
    out = (pool.outputs(drive[0]), pool.outputs(drive[1]), drive[2])
    if min(out) < 1:
        raise UserError(
            f"{place}: max pooling by {pool.size} empties the map {drive}; take a smaller pool"
        )
    return replace(site, out_shape=out)


def _outputs(site: Site, axis: int) -> int:
    padded = site.in_shape[axis] + sum(site.padding[axis])
    return (padded - site.window[axis]) // site.strides[axis] + 1


def scaled(arch: Arch, width: float) -> Arch:
    """The network with ``width`` times the channels and units in every hidden layer.

    Rounded to whole eighths, and at least 8; learned pools follow the layer before them.

    >>> from jaxsnn.arch import zoo
    >>> [layer.channels for layer in scaled(zoo.cnn1, 0.25).layers[:3]]
    [24, 64, 64]
    """

    def times(size: int) -> int:
        return max(8, 8 * math.floor(size * width / 8 + 0.5))

    def one(layer: Layer) -> Layer:
        if isinstance(layer, Conv):
            return replace(layer, channels=times(layer.channels))
        if isinstance(layer, Dense):
            return replace(layer, units=times(layer.units))
        if isinstance(layer, Residual):
            inner = tuple(replace(conv, channels=times(conv.channels)) for conv in layer.branch)
            return replace(layer, branch=inner)
        return layer

    return arch if width == 1 else replace(arch, layers=tuple(one(layer) for layer in arch.layers))


def parse(text: str, **options: Any) -> Arch:
    """Read the notation; ``options`` are the fields of ``Arch`` other than ``layers``.

    ``16C5`` is a 5x5 convolution with 16 channels (then ``s2`` stride, ``same`` or ``p1`` padding),
    ``256`` a dense layer, ``P2`` a pool as ``pool`` says (``AP2`` average, ``MP2`` maximum before
    the neuron, ``LP2`` learned 2x2 stride-2 convolution), ``GP`` a global average, ``BP2`` the
    maximum of what neurons give, of a residual block's, too; ``MP3s2p1`` has windows of 3 with
    stride 2 and padding 1, and the norm comes behind ``MP2n``. ``E`` is a side exit and
    ``[64C3p1-64C3p1]+identity`` a residual block (``+padded``: with strides and channels of zeros;
    ``+norm``, ``+bias``: with a 1x1 convolution). Synapses take a last suffix where they differ
    from ``norm``: ``b`` bias, ``n`` norm, ``nb`` both, ``x`` neither.

    >>> parse("16C5same-P2-256", pool="max").layers[0].max_pool
    MaxPool(size=2, stride=2, padding=0, before_norm=False)

    Raises:
        UserError: token number, token, what is wrong with it or its shapes, and the remedy.
    """
    arch = Arch((), **options)
    arch = replace(arch, layers=read(text, arch))
    plan(arch)  # refuses shapes that do not fit
    return arch


def pools_behind_neurons(arch: Arch, stays: Callable[[Site], bool]) -> Arch:
    """The network whose max pools stand behind the neurons of their convolution.

    A neuron's level never falls while its drive rises, so that both places give the same.

    Args:
        arch: the network.
        stays: whether the pool of a site remains before its neurons.

    >>> from jaxsnn.arch import format
    >>> format(pools_behind_neurons(parse("4C3-MP2-4C3-MP2n-8"), lambda site: site.name == "conv1"))
    '4C3-MP2-4C3-BP2n-8'
    """
    pooled = (site for site in plan(arch) if site.max_pool)
    layers: list[Layer] = []
    for layer in arch.layers:
        if not isinstance(layer, Conv) or not layer.max_pool or stays(next(pooled)):
            layers.append(layer)
        else:
            layers += [replace(layer, max_pool=None), layer.max_pool]
    return replace(arch, layers=tuple(layers))


CONSUMERS = ("activation", "shortcut", "exit", "readout")


def spiking_sites(arch: Arch) -> tuple[Site, ...]:
    """Sites whose neurons spike: the hidden synapses, encoder included, heads excluded."""
    return tuple(site for site in plan(arch) if site.role == "activation")


def head_sites(arch: Arch) -> tuple[Site, ...]:
    """Dense heads: side exits first, the readout last, as the readouts come."""
    return tuple(site for site in plan(arch) if site.role in ("exit", "readout"))


def consumers(arch: Arch) -> tuple[Site, ...]:
    """Synapses that are driven by spikes: all but the encoder (its input is analogue)."""
    return tuple(s for s in plan(arch) if s.role in CONSUMERS and s.source != "input")
