"""Calibration: what a trained network's activations reach, and what every method needs of that.

Nothing is trained. Robust maxima of the activations (:mod:`jaxsnn.conversion.percentiles`) become
the bounds and scales of the methods, and the candidates of the clips
(:mod:`jaxsnn.conversion.clips`); how finely activations must be quantised is read from what the
quantised network says of the same images. Labels are not needed.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from jax import Array

from jaxsnn import neurons
from jaxsnn.arch.notation import Arch
from jaxsnn.conversion import methods, percentiles
from jaxsnn.conversion.balance import balanced, factors
from jaxsnn.conversion.clips import choose, with_clips
from jaxsnn.conversion.convert import check_trained, convert
from jaxsnn.conversion.method import Method
from jaxsnn.conversion.methods.median import MOST_LEVELS
from jaxsnn.conversion.quantised_trials import STEPPED, activations, logits, relative, with_step
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError, finite_number, whole_number
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.inputs.preprocess import PIXELS
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import SiteMap, hidden
from jaxsnn.network.weight_quantisers import WeightQuantiser, full_precision
from jaxsnn.types import Variables

ROBUST = 99.9
PERCENTILES = (99.0, 99.9, 99.99, 100.0)
FINEST = 10  # most fractional bits that are tried
AGREEMENT = 0.995  # of the images, that a quantised network must see as the network itself does
MARGIN = 1.5  # of the largest count over the largest activation that was seen
MOST_COUNT = 32767

Scales: TypeAlias = Mapping[float, Mapping[str, float]]
"""Percentile -> site -> that percentile of its activations."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What calibration images say of a network; a method's options are made from it.

    Attributes:
        arch: the architecture.
        variables: the training tree, balanced, with a learned clip ``params/<site>/clip`` for every
            activation, for ``signed_if``; the other methods do not look at it.
        encoding: what an input unit is worth.
        weights: the weight quantisers that it was trained with.
        scales: percentile -> site -> that percentile of its activations, of heads too.
        agreement: share of the images that a network with activations in steps of ``2**-k`` sees as
            the network itself does, for k = 0, 1, ...
        clip_errors: percentile -> error of the network whose activations are all clipped there and
            quantised to ``bits`` bits: root mean square error of its logits over that of the
            logits.
        clips: site -> clip, chosen site by site from the best of these on
            (:mod:`jaxsnn.conversion.clips`).
        clip_error: error with these clips.
        bits: that width.
        k: fractional bits that suffice: the fewest that agree, or those that agree most.
        images: number of calibration images.
    """

    arch: Arch
    variables: Variables
    encoding: Encoding
    weights: SiteMap[WeightQuantiser]
    scales: Scales
    agreement: tuple[float, ...]
    clip_errors: Mapping[float, float]
    clips: Mapping[str, float]
    clip_error: float
    bits: int
    k: int
    images: int

    @property
    def trained(self) -> Net:
        """The network as it was trained: ReLUs, and its quantisers of weights."""
        return Net(self.arch, hidden(neurons.relu()), self.weights)

    @property
    def percentile(self) -> float:
        """The percentile that disturbs the logits least where all activations are clipped there."""
        return min(self.clip_errors, key=self.clip_errors.__getitem__)

    @property
    def largest(self) -> float:
        """The largest activation of a hidden site that was seen."""
        top = self.scales[max(self.scales)]
        return max((top[site] for site in activations(self.arch)), default=0.0)

    def highest(self, k: int | None = None) -> int:
        """Largest net count in steps of ``2**-k``, with a margin, at most 32767."""
        k = self.k if k is None else k
        return min(max(math.ceil(MARGIN * self.largest * 2**k), 1), MOST_COUNT)

    def bound(self, k: int | None = None) -> int:
        """Whole upper bound of the activations that has as many levels as a neuron may have."""
        k = self.k if k is None else k
        return max(1, min(math.ceil(self.largest), MOST_LEVELS >> k))

    def scatter_gather(self, k: int | None = None) -> methods.scatter_gather:
        """Scatter and gather with ``k`` fractional bits; None: those that suffice."""
        k = self.k if k is None else k
        return methods.scatter_gather(k=k, bound=self.bound(k))

    def negative_spikes(self, k: int | None = None) -> methods.negative_spikes:
        """Negative spikes with ``k`` fractional bits; None: those that suffice.

        Weights are on the finest grid of exact sums, since nothing was trained to bear less.
        """
        k = self.k if k is None else k
        return methods.negative_spikes(k=k, highest=self.highest(k), weight_bits=None)

    def signed_if(self, *, settling: bool = True) -> methods.signed_if:
        """Signed integrate and fire of the calibrated width, over the calibrated clips."""
        return methods.signed_if(bits=self.bits, settling=settling)

    def rate(self, percentile: float | None = None) -> methods.rate:
        """Rate coding with scales of a percentile.

        Args:
            percentile: one of those that were measured; None: 99.9, or the next above it.

        Raises:
            UserError: it was not measured.
        """
        percentile = _robust(self.scales) if percentile is None else percentile
        if percentile not in self.scales:
            listed = ", ".join(f"{one:g}" for one in sorted(self.scales))
            raise UserError(
                f"percentile={percentile}: measured were {listed}; name it in calibrate()"
            )
        return methods.rate(scales=self.scales[percentile], weight_bits=None)

    @property
    def candidates(self) -> tuple[Method, ...]:
        """Every method, with options that suit the network."""
        settling, published = self.signed_if(), self.signed_if(settling=False)
        exact = (self.scatter_gather(), self.negative_spikes(), settling)
        return (*exact, published, self.rate())

    def convert(self, method: Method) -> Spiking:
        """Convert by a method, which says whether its input comes once or is held.

        Raises:
            UserError: as :func:`jaxsnn.convert`.
        """
        once = "onset" in method.presentations and method.duration is None
        encoding = replace(
            self.encoding, presentation="onset" if once else "held", duration=method.duration
        )
        return convert(self.variables, self.arch, method, trained=self.trained, encoding=encoding)


def calibrate(
    variables: Variables,
    arch: Arch,
    images: Array | np.ndarray,
    *,
    encoding: Encoding = PIXELS,
    percentiles: Sequence[float] = PERCENTILES,
    bits: int = 5,
    agreement: float = AGREEMENT,
    weights: SiteMap[WeightQuantiser] | None = None,
    balance: bool = True,
    batch_size: int = 100,
    progress: str = "",
) -> Calibration:
    """Read from a few hundred images what every method needs to convert a trained network.

    Args:
        variables: ``params`` and ``batch_stats`` of a network of ReLUs.
        arch: its architecture.
        images: ``[N, H, W, C]`` whole input units, best of the training images.
        encoding: what one unit is worth; how it is shown is the method's to say.
        percentiles: candidates of the activations' robust maxima, in percent.
        bits: width that the clips of ``signed_if`` are chosen for.
        agreement: least share of the images, above 0, whose class quantisation may not change.
        weights: weight quantisers that it was trained with; None: full precision.
        balance: divide activations by powers of two, so that one quantiser suits all layers
            (:mod:`jaxsnn.conversion.balance`; no logit changes); False for what was trained so.
        batch_size: images per compiled call.
        progress: name of the progress bars, empty for none.

    Raises:
        UserError: variables that do not fit, no images, no whole units, a percentile or share out
            of range, values that are not finite, or ``balance`` with ``weights``.

    >>> import jax, jaxsnn
    >>> arch = jaxsnn.parse("4C3b-8", input_shape=(6, 6, 1), classes=3)
    >>> net = jaxsnn.Net(arch, jaxsnn.hidden(jaxsnn.neurons.relu()))
    >>> variables = jaxsnn.init_variables(net, jax.random.key(0))
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 1), dtype=np.uint8)
    >>> ready = calibrate(variables, arch, images)
    >>> jaxsnn.certify(ready.convert(ready.scatter_gather(k=4)), ready.variables, images).equality
    'exact'
    """
    finite_number("agreement", agreement, 0, 1, above=True)
    whole_number("batch_size", batch_size)
    images = np.asarray(images)
    net = Net(arch, hidden(neurons.relu()), weights or SiteMap(full_precision()))
    check_trained(variables, net)
    scales = _scales(net, variables, images, percentiles, encoding, batch_size, progress)
    whole = functools.partial(logits, images=images, encoding=encoding, batch_size=batch_size)
    reference = whole(net, variables, progress=progress)
    if balance:
        variables, scales = _balanced(variables, net, scales)
    agreed = _agreements(whole, net, variables, reference.argmax(-1), progress)
    error_of = _error_of(whole, net, bits, variables, reference)
    clips = choose(error_of, scales, activations(arch), progress=progress)
    return Calibration(
        arch=arch,
        variables=with_clips(variables, arch, clips.clips),
        encoding=encoding,
        weights=net.weights,
        scales=MappingProxyType(scales),
        agreement=agreed,
        clip_errors=MappingProxyType(clips.errors),
        clips=MappingProxyType(clips.clips),
        clip_error=clips.error,
        bits=bits,
        k=sufficient(agreed, agreement),
        images=len(images),
    )


def _balanced(variables: Variables, net: Net, scales: Scales) -> tuple[Variables, Scales]:
    """The tree whose activations reach about 1 everywhere, and their percentiles then."""
    if net.weights != SiteMap(full_precision()):
        raise UserError(
            "balance=True scales kernels by powers of two, which quantisers of weights would undo; "
            "give balance=False with weights="
        )
    arch = net.arch
    by = factors(arch, {site: scales[_robust(scales)][site] for site in activations(arch)})
    divided = {p: {site: each[site] / by[site] for site in each} for p, each in scales.items()}
    return balanced(variables, arch, by), divided


def _agreements(
    whole: Callable[..., np.ndarray],
    net: Net,
    variables: Variables,
    classes: np.ndarray,
    progress: str,
) -> tuple[float, ...]:
    """Share of the images of which the network predicts the same with steps of 1, 1/2, 1/4, ..."""
    stepped, shares = net.clone(neurons=hidden(STEPPED)), list[float]()
    for k in range(FINEST + 1):
        quantised = whole(stepped, with_step(variables, net.arch, k), progress=progress)
        shares.append(float(np.mean(quantised.argmax(-1) == classes)))
    return tuple(shares)


def _error_of(
    whole: Callable[..., np.ndarray],
    net: Net,
    bits: int,
    variables: Variables,
    reference: np.ndarray,
) -> Callable[[Mapping[str, float]], float]:
    """Clips -> relative error of the logits when activations are clipped there, to bits."""
    clipped = net.clone(neurons=hidden(neurons.clipped_relu(bits, "up")))

    def error_of(clips: Mapping[str, float]) -> float:
        quantised = whole(clipped, with_clips(variables, net.arch, clips), progress="")
        return relative(quantised, reference)

    return error_of


def _robust(scales: Mapping[float, object]) -> float:
    """The percentile whose activations become 1: 99.9, or the next above it."""
    return next(one for one in sorted(scales) if one >= ROBUST)


def sufficient(agreed: Sequence[float], wanted: float) -> int:
    """The first k that agrees as well as is wanted, or the first of those that agree best.

    >>> sufficient([0.2, 0.97, 0.99, 1.0], 0.98), sufficient([0.2, 0.9, 0.9], 0.98)
    (2, 1)
    """
    enough = [k for k, share in enumerate(agreed) if share >= wanted]
    return enough[0] if enough else int(np.argmax(agreed))


def _scales(
    net: Net,
    variables: Variables,
    images: np.ndarray,
    wanted: Sequence[float],
    encoding: Encoding,
    batch_size: int,
    progress: str,
) -> Scales:
    """Percentile -> site -> value; the largest value is always among them."""
    every = tuple(sorted({*map(float, wanted), 100.0}))
    measured = percentiles.scales(
        net, variables, images, every, encoding=encoding, batch_size=batch_size, progress=progress
    )
    return dict(zip(every, measured, strict=True))
