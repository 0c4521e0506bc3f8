"""Conversion: a function from the training tree to the folded tree.

Batch norm goes into per-channel thresholds, so that a ternary kernel stays ternary. With the drive
``u`` counted in units of ``unit_in * unit_weight`` the neuron's level is at least ``j`` iff
``u >= theta_j``, where for a norm scale ``gamma > 0`` and ``s = sqrt(var + eps) / gamma``::

    theta_j = ((j - 1/2) * step * s + mean - offset * s) / (unit_in * unit_weight)

(Zou et al., Front. Neurosci. 15:694170, 2021). A channel with ``gamma < 0`` is flipped in sign
(kernel and mean) first; one with ``gamma = 0`` has a constant level. Kernels without an integer
form are put on a power-of-two grid; an integer drive reaches ``theta`` iff it reaches its ceiling,
so thresholds are int32 and no float is compared anywhere.

Scatter-and-gather keeps a table of all ``theta_j``, negative spikes the first and their distance on
a grid, the integrate-and-fire neurons one threshold and a bias: :mod:`jaxsnn.conversion.methods`.
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn import neurons
from jaxsnn.arch.layers import Site, arrays_of
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.fold import Fold
from jaxsnn.conversion.max_pools import spiking_arch, with_max_pools
from jaxsnn.conversion.method import Method
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError, shown
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.inputs.preprocess import PIXELS
from jaxsnn.network import weight_quantisers
from jaxsnn.network.arithmetic import Arithmetic
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import SiteMap, hidden
from jaxsnn.network.site import NORM_EPSILON
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.types import PyTree, Variables


def convert(
    variables: Variables,
    arch: Arch,
    method: Method,
    *,
    trained: Net | None = None,
    weights: SiteMap[weight_quantisers.WeightQuantiser] | None = None,
    encoding: Encoding = PIXELS,
) -> Spiking:
    """Fold a trained network into the kernels and thresholds of a spiking one.

    Args:
        variables: ``params`` and ``batch_stats`` of the training tree (see
            :mod:`jaxsnn.network.net`).
        arch: the architecture. The network that comes back has its max pools behind the neurons
            (:mod:`jaxsnn.conversion.max_pools`).
        method: how, with the method's own options; one of :mod:`jaxsnn.methods`.
        trained: the network that the variables were trained in. A tree of arrays knows neither its
            activation nor its quantisers; with ``trained`` a certificate also compares predictions
            with those of the network as it was trained, untouched by conversion.
        weights: the weight quantisers of the converted network; default: those of ``trained``, else
            those that the method takes a tree to have, :attr:`jaxsnn.methods.Method.weights`.
        encoding: how the integer images are shown, and what one unit is worth. A method that holds
            its input for a number of steps of its own sets the encoding's duration.

    Raises:
        UserError: no method, a presentation that it does not take, a tree that does not belong to
            ``arch``, ``trained`` of another architecture or with spiking neurons, values that are
            not finite, or a layer that cannot be folded, with its name and the reason.
    """
    if not isinstance(method, Method):
        raise UserError(
            f"method is {shown(method)}; give an object of jaxsnn.methods, for example "
            "methods.scatter_gather(k=1, bound=2)"
        )
    trained = None if trained is None else as_trained(trained, arch)
    weights = weights or (method.weights if trained is None else trained.weights)
    if method.duration:
        encoding = replace(encoding, presentation="held", duration=method.duration)
    if encoding.presentation not in method.presentations:
        raise UserError(
            f"presentation {encoding.presentation!r}: {method.name} takes input that is "
            f"{' or '.join(map(repr, method.presentations))}; give such an encoding=Encoding(...)"
        )
    if encoding.duration is not None and method.duration is None:
        raise UserError(
            f"Encoding(duration={encoding.duration}): {method.name} takes an image that stays for "
            "the whole run; leave duration out"
        )
    refuse(variables, arch, method, weights, trained)
    arch = spiking_arch(arch, method)
    fold = Fold(variables, method, weights, encoding)
    for site in plan(arch):
        fold.add(site)
    return Spiking(
        variables=jax.tree.map(jnp.asarray, {"params": fold.params, "fixed": fold.fixed}),
        arch=arch,
        neurons=with_max_pools(method.neurons, arch),
        ann=hidden(method.activation),
        weights=weights,
        encoding=encoding,
        accumulators=SiteMap("float32", by_name=tuple(fold.accumulators.items())),
        units=tuple(fold.units.items()),
        report=tuple(fold.report),
        trained=trained,
    )


def as_trained(trained: Net, arch: Arch) -> Net:
    """What decides the predictions of a network: neither where it started nor how it was trained.

    Raises:
        UserError: another architecture, or neurons with a state.
    """
    if trained.arch != arch:
        raise UserError(
            "trained is a network of another architecture than arch; give the network that these "
            "variables were trained in"
        )
    spiking = (site.name for site in plan(arch) if not trained.neurons.at(site).stateless)
    if name := next(spiking, ""):
        raise UserError(
            f"{name}: trained has spiking neurons there; give the ANN that is converted, or leave "
            "it out"
        )
    return Net(arch, trained.neurons, trained.weights, arithmetic=Arithmetic.EXACT)


def refuse(
    variables: Variables,
    arch: Arch,
    method: Method,
    weights: SiteMap[weight_quantisers.WeightQuantiser],
    trained: Net | None = None,
) -> None:
    """Say everything that stands against a conversion at once.

    Raises:
        UserError: listing each layer or array with the reason.
    """
    reasons: list[str] = []
    for site in plan(arch):
        if site.shortcut and not method.shortcuts:
            reasons.append(f"{site.name}: {method.name} takes no residual blocks")
        if reason := method.refusal(site):
            reasons.append(f"{site.name}: {reason}")
        activation = method.activation if site.role == "activation" else neurons.identity()
        reasons += _misfits(variables, site, activation, weights, trained)
    if reasons:
        raise UserError("cannot convert:\n  " + "\n  ".join(reasons))


def check_variables(variables: Variables, snn: Spiking) -> None:
    """Refuse variables that a network cannot have been converted from.

    Raises:
        UserError: listing each array that is missing, of another shape or not finite.
    """
    heading = (
        "the network cannot have been converted from these variables (a calibration has others: "
        "ready.variables):"
    )
    _check(variables, snn.arch, snn.ann, snn.weights, snn.trained, heading)


def check_trained(variables: Variables, net: Net) -> None:
    """Refuse variables that do not belong to a network.

    Raises:
        UserError: listing each array that is missing, of another shape or not finite.
    """
    heading = "the variables do not fit the network:"
    _check(variables, net.arch, net.neurons, net.weights, None, heading)


def _check(
    variables: Variables,
    arch: Arch,
    activations: SiteMap[Neuron],
    weights: SiteMap[weight_quantisers.WeightQuantiser],
    trained: Net | None,
    heading: str,
) -> None:
    """Refuse variables, with all misfits below a heading."""
    sites = ((site, activations.at(site)) for site in plan(arch))
    misfits = [_misfits(variables, site, one, weights, trained) for site, one in sites]
    if any(misfits):
        raise UserError("\n  ".join([heading, *itertools.chain(*misfits)]))


def _misfits(
    variables: Variables,
    site: Site,
    activation: Neuron,
    weights: SiteMap[weight_quantisers.WeightQuantiser],
    trained: Net | None,
) -> list[str]:
    """What is wrong with the arrays of a site, and with those of the network as it was trained."""
    arrays = arrays_of(site) | _learned(site, activation, weights)
    if trained is not None:
        arrays |= _learned(site, trained.neurons.at(site), trained.weights)
    reasons = {path: _unfit(variables, path, shape) for path, shape in arrays.items()}
    return [f"{site.name}: {path} {reason}" for path, reason in reasons.items() if reason]


def _learned(
    site: Site, activation: Neuron, weights: SiteMap[weight_quantisers.WeightQuantiser]
) -> dict[str, tuple[int, ...]]:
    """Path -> shape of the learned leaves of an ANN's activation and of its weight quantiser."""
    leaves = activation.learned(site.drive_shape[-1])
    leaves = leaves | (weights.at(site).learned() if site.kernel_shape else {})
    return {f"params/{site.name}/{name}": np.shape(leaf) for name, leaf in leaves.items()}


def _unfit(variables: Variables, path: str, shape: tuple[int, ...]) -> str:
    """What is wrong with the array at ``path``; empty if nothing."""
    leaf: PyTree = variables
    for name in path.split("/"):
        leaf = leaf.get(name) if isinstance(leaf, Mapping) else None
    if leaf is None:
        return "is missing"
    if np.shape(leaf) != tuple(shape):
        return f"has shape {np.shape(leaf)}, expected {tuple(shape)}"
    if not np.all(np.isfinite(leaf)):
        return "is not finite"
    if path.endswith("clip") and np.any(np.asarray(leaf) <= 0):
        return "is not positive: a clip has worn away; train it again with its guard"
    negative = path.endswith("/var") and np.any(np.asarray(leaf) + NORM_EPSILON <= 0)
    return "is negative" if negative else ""
