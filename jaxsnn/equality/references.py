"""What a spiking network is compared with, batch by batch: the integer ANN, the float ANN, others.

The *integer ANN* runs over the folded tree with another implementation of the level. The *float
ANN*, batch norm and all, runs over the training tree with the same snapped weights. Its sums must
decide which level an activation has: float32 does where every partial sum is a whole number below
2^24 of a power of two. Where the value of a count is none (a learned clip, an average over nine),
or sums are larger, the float ANN is computed in float64.
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn import neurons
from jaxsnn.arch.layers import Site
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import head_sites, plan, spiking_sites
from jaxsnn.conversion.float_reference import pool_signs, snapped, whole_kernels, with_gains
from jaxsnn.conversion.spiking import Folded, Spiking, settled
from jaxsnn.equality.ties import References
from jaxsnn.network import net as net_module
from jaxsnn.network.jitted import jitted
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import SiteMap
from jaxsnn.types import Variables


class EndToEnd(NamedTuple):
    """What an ANN over the training tree says of one batch.

    Attributes:
        levels: activations of spiking sites, and of pools whose output a shortcut adds, in units of
            a count, rounded, int32 ``[B, ...]``.
        logits: of every head ``[B, classes]``.
        predictions: int ``[B]``.
    """

    levels: dict[str, Any]
    logits: dict[str, Any]
    predictions: Any


class OverFolded(NamedTuple):
    """What the integer ANN over the folded tree says of one batch, by site ``[B, ...]``.

    Attributes:
        levels: of spiking sites, and the sums of heads, by itself.
        fed: the same of each layer alone, fed with the float ANN's levels.
        drives: of spiking sites and projections then, without bias and shortcut.
        predictions: int ``[B]``, by itself.
    """

    levels: dict[str, Array]
    fed: dict[str, Array]
    drives: dict[str, Array]
    predictions: Array


class ReferenceNetworks:
    """The networks that a converted network is compared with.

    Args:
        snn: the converted network.
        variables: the training tree that it was converted from.

    Raises:
        UserError: neurons that have no integer ANN.
    """

    def __init__(self, snn: Spiking, variables: Variables) -> None:
        self.snn, self.variables = snn, variables
        self.whole = settled(snn).program
        self.in_double = needs_double(snn)
        self.floats = _in_double(variables, snn) if self.in_double else snapped(variables, snn)

    def of(self, images: Array) -> References:
        """What all of them say of whole images ``[B, H, W, C]``."""
        with jax.enable_x64(True) if self.in_double else contextlib.nullcontext():
            end: EndToEnd = jax.device_get(
                self._end_to_end(self.snn.float_ann, self.floats, images)
            )
        folded = _over_the_folded_tree(self.whole, images, end.levels)
        trained_predictions = None
        if self.snn.trained is not None:
            trained_predictions = self._end_to_end(
                self.snn.trained, self.variables, images
            ).predictions
        return References(
            integer=folded.levels,
            end_to_end=end.levels | end.logits,
            fed=folded.fed,
            drive=folded.drives,
            predictions=(folded.predictions, end.predictions),
            trained_predictions=trained_predictions,
        )

    def _end_to_end(self, ann: Net, variables: Variables, images: Array) -> EndToEnd:
        units, scale = dict(self.snn.units), self.snn.encoding.scale
        return end_to_end(ann, variables, images, units, scale)


def needs_double(snn: Spiking) -> bool:
    """Whether float32 would round the sums of the float ANN, although those of the SNN are whole.

    Where kernels are floats, those of the spiking network round, too.
    """
    records = {record.site: record for record in snn.report}
    return snn.is_integer and not all(
        _is_decided(snn, site.source, records[site.name]) for site in plan(snn.arch) if site.macs
    )


def _is_decided(snn: Spiking, source: str, record: Folded) -> bool:
    """Whether float32 holds every partial sum of a site of the float ANN."""
    unit = snn.encoding.scale if source == "input" else snn.unit(source)
    return not record.bound or (record.exact_in_float and math.frexp(unit)[0] == 0.5)


def _in_double(variables: Variables, snn: Spiking) -> dict[str, Any]:
    """:func:`jaxsnn.snapped` in float64, without a rounding."""
    double = jax.tree.map(_double, dict(variables))
    params = {name: dict(tree) for name, tree in double["params"].items()}
    for site, (codes, unit) in whole_kernels(variables, snn).items():
        params[site]["kernel"] = codes * unit
    return {**double, "params": with_gains(params, variables, snn)} | pool_signs(snn)


def _double(leaf: Array) -> np.ndarray:
    return np.asarray(leaf, np.float64)


def added_pools(arch: Arch) -> tuple[Site, ...]:
    """Pools whose output a shortcut adds."""
    shortcuts = {site.shortcut for site in plan(arch)}
    return tuple(site for site in plan(arch) if site.role == "pool" and site.name in shortcuts)


@jitted("ann")
def end_to_end(
    ann: Net, variables: Variables, images: Array, units: Mapping[str, float], scale: float
) -> EndToEnd:
    """Whole images through an ANN, in the arithmetic of its kernels.

    Args:
        ann: the network.
        variables: its tree.
        images: ``[B, H, W, C]`` integers, worth ``scale`` each.
        units: site -> value of one count.
        scale: of the input.
    """
    kernel = variables["params"][plan(ann.arch)[0].name]["kernel"]
    out = net_module.forward(ann, variables, images.astype(kernel.dtype) * scale)
    levels = {
        site.name: jnp.round(out.outs[site.name][0] / units[site.name]).astype(jnp.int32)
        for site in (*spiking_sites(ann.arch), *added_pools(ann.arch))
    }
    logits = {site.name: out.outs[site.name][0] for site in head_sites(ann.arch)}
    return EndToEnd(levels, logits, jnp.argmax(out.readouts[-1][0], -1))


@jitted()
def _over_the_folded_tree(
    settling: Spiking, images: Array, levels: Mapping[str, Array]
) -> OverFolded:
    """What the integer ANN says, by itself and fed with ``levels``.

    Networks of one shape share a program, whatever their counts are worth.
    """
    snn, integer, variables = settling, settling.net, settling.variables
    whole = net_module.forward(integer, variables, images)
    names = [site.name for site in spiking_sites(snn.arch)]
    heads = [site.name for site in head_sites(snn.arch)]
    projections = [site.name for site in plan(snn.arch) if site.role == "shortcut"]
    forced = {name: level[None] for name, level in levels.items()}
    fed = net_module.forward(integer, variables, images, forced=forced)
    drives = integer.clone(neurons=SiteMap(neurons.identity()))
    drive = net_module.forward(drives, _currents_alone(variables), images, forced=forced)
    return OverFolded(
        {name: whole.outs[name][0] for name in names + heads},
        {name: fed.outs[name][0] for name in names + heads},
        {name: drive.outs[name][0] for name in names + projections},
        jnp.argmax(whole.readouts[-1][0], -1),
    )


def _currents_alone(variables: Variables) -> dict[str, Any]:
    """The folded tree whose drives are those of the synapses: no bias, gain or shortcut.

    A gain of 0, of a branch that was dropped, stays.
    """
    instead: dict[str, Callable[[Array], Array]] = {
        "bias": jnp.zeros_like,
        "shortcut_gain": jnp.zeros_like,
        "gain": jnp.sign,
    }
    params = {
        name: {leaf: instead[leaf](a) if leaf in instead else a for leaf, a in tree.items()}
        for name, tree in variables["params"].items()
    }
    return {**variables, "params": params}
