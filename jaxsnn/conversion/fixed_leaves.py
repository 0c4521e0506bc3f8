"""A converted network with another fixed leaf: a threshold, or a share of deleted spikes."""

from dataclasses import replace

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxsnn import neurons
from jaxsnn.arch.plan import spiking_sites
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError
from jaxsnn.inputs.checks import is_traced
from jaxsnn.network.per_site import SiteMap


def with_leaf(snn: Spiking, site: str, leaf: str, value: ArrayLike) -> Spiking:
    """The network with one fixed leaf (a threshold, a noise ratio) replaced.

    Raises:
        UserError: no such leaf, naming those there are, another shape or dtype, or NaN.
    """
    fixed = snn.variables["fixed"]
    if leaf not in fixed.get(site, {}):
        leaves = [f"{name}/{one}" for name, tree in fixed.items() for one in tree]
        raise UserError(f"{site}/{leaf} is no fixed leaf; known: {', '.join(leaves)}")
    new, old = jnp.asarray(value), fixed[site][leaf]
    if new.shape != old.shape or new.dtype != old.dtype:
        raise UserError(
            f"{site}/{leaf} is {old.dtype}{list(old.shape)}, given {new.dtype}{list(new.shape)}"
        )
    check_leaf(f"{site}/{leaf}", new)
    tree = {**fixed, site: {**fixed[site], leaf: new}}
    return replace(snn, variables={**snn.variables, "fixed": tree})


def check_leaf(path: str, value: Array) -> None:
    """Refuse what no leaf may hold; a threshold may be infinite, for no drive or for every one.

    Raises:
        UserError: NaN, or a noise ratio outside 0 to 1.
    """
    if is_traced(value) or not jnp.issubdtype(value.dtype, jnp.floating):
        return
    if bool(jnp.isnan(value).any()):
        raise UserError(f"{path} would hold NaN, which no drive reaches; give numbers")
    if path.endswith("drop_ratio") and not bool(((value >= 0) & (value <= 1)).all()):
        raise UserError(f"{path} is a probability; give numbers from 0 to 1")


def with_unit_dropout(snn: Spiking, site: str, ratio: float = 0.0) -> Spiking:
    """The network whose units at ``site`` lose each spike with probability ``ratio``.

    Raises:
        UserError: ``ratio`` outside [0, 1], or no such spiking site.
    """
    if not 0 <= ratio <= 1:
        raise UserError(f"noise ratio {ratio} is no probability; choose one in [0, 1]")
    sites = {one.name: one for one in spiking_sites(snn.arch)}
    if site not in sites:
        raise UserError(f"{site!r} is no spiking site; known: {', '.join(sites)}")
    clean = snn.neurons.at(sites[site])
    noisy = clean if clean.drops_spikes else neurons.unit_dropout(clean)
    mapped = SiteMap(
        snn.neurons.default,
        snn.neurons.by_role,
        (*((name, n) for name, n in snn.neurons.by_name if name != site), (site, noisy)),
        snn.neurons.first,
    )
    fixed = snn.variables["fixed"]
    leaves = {**fixed.get(site, {}), "drop_ratio": jnp.float32(ratio)}
    variables = {**snn.variables, "fixed": {**fixed, site: leaves}}
    return replace(snn, neurons=mapped, variables=variables)
