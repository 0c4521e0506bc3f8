"""What differs from site to site: a map from sites to neurons, quantisers, initialisers."""

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

from jaxsnn import neurons
from jaxsnn.arch.layers import Site
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import site_named
from jaxsnn.neurons.neuron import Neuron

T = TypeVar("T")


@dataclass(frozen=True)
class SiteMap(Generic[T]):
    """One value per site: by name, else ``first`` for the first synapse, by role, else default.

    ``by_role`` and ``by_name`` are tuples of pairs, so that a map is hashable.
    """

    default: T
    by_role: tuple[tuple[str, T], ...] = ()
    by_name: tuple[tuple[str, T], ...] = ()
    first: T | None = None

    def at(self, site: Site) -> T:
        """The value for ``site``."""
        named = dict(self.by_name)
        if site.name in named:
            return named[site.name]
        if self.first is not None and site.source == "input":
            return self.first
        return dict(self.by_role).get(site.role, self.default)


SILENT_ROLES = ("pool", "shortcut", "exit", "readout")


def hidden(neuron: Neuron) -> SiteMap[Neuron]:
    """``neuron`` behind every hidden synapse, none (identity) on pools, shortcuts and heads."""
    return SiteMap(neuron, tuple((role, neurons.identity()) for role in SILENT_ROLES))


def spikes_at(arch: Arch, sites: SiteMap[Neuron], site: Site) -> tuple[int, int] | None:
    """Lowest and highest spike count that a site gives in one step; None if it gives no spikes.

    A pool without neurons gives what comes in: an average pool the sum of a window's spikes, a max
    pool the largest.
    """
    spikes = sites.at(site).spikes
    if spikes is not None or site.role != "pool":
        return spikes
    spikes = spikes_at(arch, sites, site_named(arch, site.source))
    area = math.prod(site.window) if site.kind == "avgpool" else 1
    return None if spikes is None else (spikes[0] * area, spikes[1] * area)
