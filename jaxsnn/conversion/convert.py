"""Conversion: a function from the training tree to the folded tree.

Batch norm goes into per-channel thresholds, so that a ternary kernel stays ternary. With the drive
``u`` counted in units of ``unit_in * unit_weight`` the neuron's level is at least ``j`` iff
``u >= theta_j``, where for a norm scale ``gamma > 0`` and ``s = sqrt(var + eps) / gamma``::

    theta_j = ((j - 1/2) * step * s + mean - offset * s) / (unit_in * unit_weight)

(Zou et al., Front. Neurosci. 15:694170, 2021). A channel with ``gamma < 0`` is flipped in sign
(kernel and mean) first; one with ``gamma = 0`` has a constant level. Kernels without an integer
form are put on a power-of-two grid; an integer drive reaches ``theta`` iff it reaches its ceiling,
so thresholds are int32 and no float is compared anywhere.

"scatter" keeps a table of all ``theta_j``. "negative" (Zou et al., Advanced Intelligent Systems,
2023) keeps the first and their distance, on a grid of ``2**-16`` drive units: its neurons follow
their level with spikes +1 and -1 and need as many steps as the largest level and the depth ask for,
at most the number of spiking layers times the cap. "signed_if" (Hu et al., IEEE TPAMI, 2023) holds
the input for as many steps as there are levels, and its neurons keep one threshold and a bias.
"rate" (Habara et al., Front. Neurosci. 18, 2024) holds it for good: rates stand for activations.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.fold import Fold
from jaxsnn.conversion.grid import on_grid
from jaxsnn.conversion.method import Method
from jaxsnn.conversion.methods.shared import method as method_named
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.inputs.preprocess import PIXELS
from jaxsnn.network import weight_quantisers
from jaxsnn.network.net import Variables
from jaxsnn.network.per_site import SiteMap, hidden
from jaxsnn.neurons.neuron import Neuron


def convert(
    variables: Variables,
    arch: Arch,
    method: str = "scatter",
    *,
    weights: SiteMap[weight_quantisers.WeightQuantiser] | None = None,
    encoding: Encoding = PIXELS,
    **options: Any,
) -> Spiking:
    """Fold a trained network into integer kernels and thresholds.

    Args:
        variables: ``params`` and ``batch_stats`` of the training tree (see
            :mod:`jaxsnn.network.net`).
        arch: the architecture.
        method: "scatter": every neuron becomes ``2**k * bound`` threshold units, one time step.
            "negative": every neuron tracks its level with spikes +1 and -1 and settles on it.
            "signed_if": every neuron integrates and fires for ``2**bits - 1`` steps.
            "rate": every neuron integrates and fires for as long as one likes.
        weights: the weight quantisers it was trained with; default: for "scatter" ternary with
            float ends, for "negative" and "rate" full precision, for "signed_if" those of its
            ``bits``.
        encoding: presentation and scale of the integer images ("signed_if" holds them).
        options: those of the method. "scatter" and "negative" need ``k``, fractional bits of the
            activation quantiser that the network was trained with, and ``bound``, its upper bound
            ``B``, None for none ("negative" only). "signed_if" needs ``bits``, and takes
            ``signed`` and ``settling``: see :func:`jaxsnn.conversion.methods.signed_if.signed_if`.
            "rate" needs ``scales``: see :func:`jaxsnn.conversion.methods.rate.rate`. "negative"
            takes ``highest``: largest net count where there is no bound (127; a
            larger level of the ANN is cut there, which the certificate shows); ``bits``:
            significant bits of the largest weight (7: int8), None for the finest grid whose sums
            stay below 2^24; ``exact``: False keeps float weights and thresholds, for comparison;
            ``per_step`` and ``rising``: see :func:`jaxsnn.neurons.tracking`.

    Raises:
        UserError: an unknown method or option, a tree that does not belong to ``arch``, values
            that are not finite, or a layer that cannot be folded, with its name and the reason.
    """
    chosen = method_named(method, options)
    weights = weights or chosen.weights
    if chosen.duration:
        encoding = replace(encoding, presentation="held", duration=chosen.duration)
    if encoding.presentation not in chosen.presentations:
        raise UserError(
            f"presentation {encoding.presentation!r}: {method!r} takes input that is "
            f"{' or '.join(map(repr, chosen.presentations))}; give such an encoding=Encoding(...)"
        )
    refuse(variables, arch, chosen, weights)
    fold = Fold(variables, chosen, weights, encoding)
    for site in plan(arch):
        fold.add(site)
    return Spiking(
        variables=jax.tree.map(jnp.asarray, {"params": fold.params, "fixed": fold.fixed}),
        arch=arch,
        neurons=_neurons(chosen),
        ann=hidden(chosen.ann),
        weights=weights,
        encoding=encoding,
        accumulators=SiteMap("float32", by_name=tuple(fold.accumulators.items())),
        units=tuple(fold.units.items()),
        report=tuple(fold.report),
    )


def _neurons(method: Method) -> SiteMap[Neuron]:
    """Spiking neurons at every site that has some, none (identity) elsewhere."""
    mapped = hidden(method.neuron)
    by_role = {**dict(mapped.by_role), **dict(method.others)}
    return replace(mapped, by_role=tuple(by_role.items()), first=method.encoder)


def whole_kernels(variables: Variables, snn: Spiking) -> dict[str, tuple[np.ndarray, float]]:
    """Kernels that conversion takes as whole numbers: site -> (int64 numbers, value of one).

    A kernel with whole numbers of its own is their multiple; one that conversion moved lies on a
    grid of a power of two.
    """
    sites, found = {site.name: site for site in plan(snn.arch)}, dict[str, Any]()
    for record in snn.report:
        if record.kernel in ("none", "trained", "float"):
            continue
        tree = variables["params"][record.site]
        master = np.asarray(tree["kernel"], np.float32)
        quantiser = snn.weights.at(sites[record.site])
        if record.kernel == "grid":
            found[record.site] = on_grid(master, record.exponent), 2.0**-record.exponent
        elif quantiser.codes is not None:
            codes, unit = quantiser.codes(jnp.asarray(master), tree)
            found[record.site] = np.asarray(codes), float(unit)
    return {name: (codes.astype(np.int64), unit) for name, (codes, unit) in found.items()}


def snapped(variables: Variables, snn: Spiking) -> dict[str, Any]:
    """The training tree with every kernel as the spiking network has it (float32).

    :attr:`jaxsnn.Spiking.float_ann`, which quantises no more, is the certificate's second
    reference.
    """
    params = {name: dict(tree) for name, tree in variables["params"].items()}
    sites = {site.name: site for site in plan(snn.arch)}
    whole = whole_kernels(variables, snn)
    for record in snn.report:
        if record.kernel in ("none", "trained"):
            continue
        tree = params[record.site]
        if record.site in whole:
            codes, unit = whole[record.site]
            tree["kernel"] = jnp.asarray(codes * unit, jnp.float32)
        else:
            quantiser = snn.weights.at(sites[record.site])
            tree["kernel"] = quantiser.quantise(jnp.asarray(tree["kernel"], jnp.float32), tree)
    return {**variables, "params": params}


def refuse(
    variables: Variables,
    arch: Arch,
    method: Method,
    weights: SiteMap[weight_quantisers.WeightQuantiser],
) -> None:
    """Say everything that stands against a conversion at once.

    Raises:
        UserError: listing each layer or array with the reason.
    """
    reasons: list[str] = []
    for site in plan(arch):
        if site.shortcut and not method.shortcuts:
            reasons.append(f"{site.name}: a shortcut's drive does not share the branch's units")
        if reason := method.refusal(site):
            reasons.append(f"{site.name}: {reason}")
        for path, shape in (_needed(site) | _learned(site, method, weights)).items():
            reason = _unfit(variables, path, shape)
            if reason:
                reasons.append(f"{site.name}: {path} {reason}")
    if reasons:
        raise UserError("cannot convert:\n  " + "\n  ".join(reasons))


def _needed(site: Site) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every array of the training tree that folding ``site`` reads."""
    channels, needed = site.drive_shape[-1:], {}
    if site.kernel_shape:
        needed[f"params/{site.name}/kernel"] = site.kernel_shape
    if site.bias:
        needed[f"params/{site.name}/bias"] = channels
    if site.norm:
        needed |= {f"params/{site.name}/norm/{leaf}": channels for leaf in ("scale", "bias")}
        needed |= {f"batch_stats/{site.name}/norm/{leaf}": channels for leaf in ("mean", "var")}
    return needed


def _learned(
    site: Site, method: Method, weights: SiteMap[weight_quantisers.WeightQuantiser]
) -> dict[str, tuple[int, ...]]:
    """Path -> shape of the learned leaves of the ANN's activation and of its weight quantiser."""
    channels = site.drive_shape[-1]
    leaves = method.ann.learned(channels) if site.role == "activation" else {}
    leaves = leaves | (weights.at(site).learned() if site.kernel_shape else {})
    return {f"params/{site.name}/{name}": np.shape(leaf) for name, leaf in leaves.items()}


def _unfit(variables: Variables, path: str, shape: tuple[int, ...]) -> str:
    """What is wrong with the array at ``path``; empty if nothing."""
    leaf: Any = variables
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
    return "is negative" if path.endswith("/var") and np.any(np.asarray(leaf) < 0) else ""
