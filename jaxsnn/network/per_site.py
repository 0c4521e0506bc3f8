"""What differs from site to site: a map from sites to neurons, quantisers, initialisers."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from jaxsnn import neurons
from jaxsnn.arch.layers import Site
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
