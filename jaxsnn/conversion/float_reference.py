"""The float reference of a certificate: the training tree with what conversion moved.

The integer ANN shares the folded tree with the spiking network, and with it a wrong fold; the
trained network, batch norm and all, shares nothing but the rounding of its weights.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.arch.layers import MaxPool, Site
from jaxsnn.arch.plan import plan, site_named
from jaxsnn.conversion.batch_norm import affine
from jaxsnn.conversion.grid import on_grid
from jaxsnn.conversion.kernels import KernelForm
from jaxsnn.conversion.methods.residual import moves_levels
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.types import Tree, Variables


def whole_kernels(variables: Variables, snn: Spiking) -> dict[str, tuple[np.ndarray, float]]:
    """Kernels that conversion takes as whole numbers: site -> (int64 numbers, value of one).

    A kernel with whole numbers of its own is their multiple; one that conversion moved lies on a
    grid of a power of two.
    """
    sites, whole = {site.name: site for site in plan(snn.arch)}, Tree()
    for record in snn.report:
        if not record.form.is_whole:
            continue
        tree = variables["params"][record.site]
        master = np.asarray(tree["kernel"], np.float32)
        quantiser = snn.weights.at(sites[record.site])
        if record.form is KernelForm.GRID:
            whole[record.site] = on_grid(master, record.exponent), 2.0**-record.exponent
        elif quantiser.codes is not None:
            codes, unit = quantiser.codes(jnp.asarray(master), tree)
            whole[record.site] = np.asarray(codes), float(unit)
    return {name: (codes.astype(np.int64), unit) for name, (codes, unit) in whole.items()}


def snapped(variables: Variables, snn: Spiking) -> Tree:
    """The training tree with what conversion moved as the spiking network has it (float32).

    :attr:`jaxsnn.Spiking.float_ann`, which quantises no more, is the certificate's second
    reference. Moved are kernels, and at the end of a residual block the gain of the shortcut: its
    rounding is ``shortcut_gain``, which the training tree does not have, and which a projection's
    bias makes up for. Max pools that look for the smallest have the spiking network's signs.
    """
    params = snapped_kernels(variables, snn)
    return {**variables, "params": with_gains(params, variables, snn)} | pool_signs(snn)


def pool_signs(snn: Spiking) -> Tree:
    """The collection ``fixed`` of the float ANN: where its max pools look for the smallest."""
    signs = {
        site.name: snn.variables["fixed"][site.name]
        for site in plan(snn.arch)
        if isinstance(site.spec, MaxPool) and site.spec.before_norm
    }
    return {"fixed": signs} if signs else {}


def with_gains(params: Mapping[str, Tree], variables: Variables, snn: Spiking) -> dict[str, Tree]:
    """Trained params with the rounding of the gains at the ends of residual blocks.

    Args:
        params: with the kernels that conversion has moved, in whose dtype the gains will be.
        variables: the training tree.
        snn: what it was converted into.
    """
    moved = {name: dict(tree) for name, tree in params.items()}
    for site in plan(snn.arch):
        gain = snn.variables["params"].get(site.name, {}).get("gain")
        if site.shortcut and gain is not None and jnp.issubdtype(gain.dtype, jnp.integer):
            leaves, rounding = moved[site.name], _rounding(variables, snn, site)
            leaves["shortcut_gain"] = rounding.shortcut.astype(leaves["kernel"].dtype)
            leaves["kernel"] = leaves["kernel"] * (~rounding.dropped).astype(leaves["kernel"].dtype)
            added = site_named(snn.arch, site.shortcut)
            if added.role == "shortcut":
                _keep_offset(moved[added.name], variables, added, rounding.shortcut)
    return moved


def _keep_offset(tree: Tree, variables: Variables, site: Site, gain: np.ndarray) -> None:
    """Divide what a projection adds beside its drive by a gain, which then changes the drive alone.

    The spiking network has this offset in its thresholds, where no gain rounds it.
    """
    more = affine(variables, site)[1] * (1 / gain - 1)
    if site.norm:
        tree["norm"] = {**tree["norm"], "bias": _plus(tree["norm"]["bias"], more)}
    elif site.bias:
        tree["bias"] = _plus(tree["bias"], more)


def _plus(leaf: Array, more: np.ndarray) -> np.ndarray:
    return (np.asarray(leaf, np.float64) + more).astype(leaf.dtype)


def snapped_kernels(variables: Variables, snn: Spiking) -> dict[str, Tree]:
    """The trained params with every kernel that conversion moved as it is then (float32)."""
    params = {name: dict(tree) for name, tree in variables["params"].items()}
    sites = {site.name: site for site in plan(snn.arch)}
    whole = whole_kernels(variables, snn)
    for record in snn.report:
        if record.form in (KernelForm.NONE, KernelForm.TRAINED):
            continue
        tree = params[record.site]
        if record.site in whole:
            codes, unit = whole[record.site]
            tree["kernel"] = jnp.asarray(codes * unit, jnp.float32)
        else:
            quantiser = snn.weights.at(sites[record.site])
            tree["kernel"] = quantiser.quantise(jnp.asarray(tree["kernel"], jnp.float32), tree)
    return params


class Rounding(NamedTuple):
    """What whole gains do to the end of a block.

    Attributes:
        shortcut: what they multiply the shortcut with, beside the branch, float64 ``[C]``: 1 where
            they are exact.
        dropped: channels that have lost a branch that moves nothing, bool ``[C]``.
    """

    shortcut: np.ndarray
    dropped: np.ndarray


def _rounding(variables: Variables, snn: Spiking, site: Site) -> Rounding:
    """What the reference takes over of the gains of a block's end: no more than their rounding.

    A gain that is further off is a wrong one, which the reference is there to show.
    """
    gains = snn.variables["params"][site.name]
    branch, shortcut = (np.asarray(gains[name], np.float64) for name in ("gain", "shortcut_gain"))
    added, record = site_named(snn.arch, site.shortcut), snn.folded(site.name)
    each = np.abs(affine(variables, site)[0]) * snn.unit(site.source) * record.kernel_unit
    value = snn.unit(added.name) * np.ones_like(each)
    if added.role == "shortcut":
        value = np.abs(affine(variables, added)[0]) * snn.unit(added.name)
    both = (branch > 0) & (shortcut > 0)
    rounding = np.where(both, shortcut * each, 1) / np.where(both, branch * value, 1)
    exact = shortcut / rounding  # what was rounded to the shortcut's gain
    is_rounding = np.abs(shortcut - exact) <= 0.5 + 1e-9 * exact
    moves = moves_levels(each, record.bound, snn.unit(site.name))
    return Rounding(np.where(is_rounding, rounding, 1), (branch == 0) & ~moves)
