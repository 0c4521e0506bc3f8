"""Clips of quantised activations: where each layer's largest level lies.

One percentile for all layers is the field's usual choice, and a poor one: early layers, few of
whose channels reach far, want to be cut elsewhere than late ones. From the best common percentile
on, each layer in turn therefore takes the candidate with which the logits of the whole quantised
network are nearest to those of the network itself, the others held fixed (coordinate descent).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from jaxsnn.arch.notation import Arch
from jaxsnn.conversion.quantised_trials import activations
from jaxsnn.errors import finite_number
from jaxsnn.io.progress import bar
from jaxsnn.types import Tree, Variables

NEARBY = (0.85, 1.18)  # times a clip: candidates between and beyond the percentiles

OfSites = Mapping[str, float]


class Clips(NamedTuple):
    """What was chosen.

    Attributes:
        clips: site -> clip.
        error: of the quantised network with these clips.
        errors: percentile -> error where every site is clipped at this percentile of its own.
    """

    clips: dict[str, float]
    error: float
    errors: dict[float, float]


def choose(
    error_of: Callable[[OfSites], float],
    scales: Mapping[float, OfSites],
    sites: Sequence[str],
    *,
    progress: str = "",
) -> Clips:
    """The clips with a small error: one pass over the sites, after the best common percentile.

    Args:
        error_of: error of the network that is quantised with some clips; called once for each
            percentile, and for each site at most once for each other percentile and twice more.
        scales: percentile -> site -> that percentile of its activations.
        sites: those that are clipped, in the order of the network.
        progress: name of the progress bar, empty for none.

    >>> wanted = {"a": 1.0, "b": 3.0}
    >>> distance = lambda clips: sum(abs(clips[site] - wanted[site]) for site in wanted)
    >>> chosen = choose(distance, {99: {"a": 1.0, "b": 2.0}, 100: {"a": 4.0, "b": 3.0}}, "ab")
    >>> chosen.clips, chosen.error, chosen.errors
    ({'a': 1.0, 'b': 3.0}, 0.0, {99: 1.0, 100: 3.0})
    """
    common = {p: {site: of[site] for site in sites} for p, of in scales.items()}
    errors = {percentile: error_of(clips) for percentile, clips in common.items()}
    best = min(errors, key=errors.__getitem__)
    clips, least = common[best].copy(), errors[best]
    for site in bar(sites, len(sites), progress):
        start = clips[site]
        near = {share * start for share in NEARBY} | {one[site] for one in common.values()}
        for candidate in sorted(near - {start}):
            error = error_of({**clips, site: candidate})
            if error < least:
                clips[site], least = candidate, error
    return Clips(clips, least, errors)


def with_clips(variables: Variables, arch: Arch, clips: Mapping[str, float]) -> Tree:
    """The tree with a learned clip for every hidden activation, float32 scalars.

    Args:
        variables: the training tree.
        arch: the architecture.
        clips: site -> clip, above 0; entries of other sites are not looked at.

    Raises:
        UserError: a site without a clip, or with one that is no positive number.
    """
    params = {name: dict(tree) for name, tree in variables["params"].items()}
    for name in activations(arch):
        clip = finite_number(f"the clip of {name}", clips.get(name), 0, above=True)
        params[name]["clip"] = jnp.float32(clip)
    return {**variables, "params": params}
