"""Max pools of a converted network: behind the neurons, where the largest net count decides.

The largest current of every step does not add up to the largest sum, so that a pool of currents is
right only where a neuron's drive comes in one step. Behind the neurons it always is: a net count
never falls while the drive rises, and so commutes with the maximum (negative scales have turned the
kernel's sign first). A pool that keeps counts (:func:`jaxsnn.neurons.running_maximum`) then emits
what lets the largest of them arrive.
"""

from dataclasses import replace

from jaxsnn import neurons
from jaxsnn.arch.layers import MaxPool, Site
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan, pools_behind_neurons, site_named
from jaxsnn.conversion.method import Method
from jaxsnn.network.per_site import SiteMap, spikes_at
from jaxsnn.neurons.neuron import Neuron


def spiking_arch(arch: Arch, method: Method) -> Arch:
    """The network with every max pool where the method's neurons want it.

    A pool before a norm always goes behind the neurons: it is the smallest current where the norm's
    scale is negative.
    """

    def stays(site: Site) -> bool:
        pool = site.max_pool
        return pool is not None and not pool.before_norm and method.pools_currents(site)

    return pools_behind_neurons(arch, stays)


def with_max_pools(sites: SiteMap[Neuron], arch: Arch) -> SiteMap[Neuron]:
    """The map with a neuron for every max pool behind neurons.

    Behind neurons without memory, which give a level at every step, it is the maximum of the step.
    """
    for site in plan(arch):
        if isinstance(site.spec, MaxPool):
            pair = (site.name, _pool(sites, arch, site, site.spec))
            sites = replace(sites, by_name=(*sites.by_name, pair))
    return sites


def _pool(sites: SiteMap[Neuron], arch: Arch, site: Site, pool: MaxPool) -> Neuron:
    source = emitting = site_named(arch, site.source)
    while emitting.role == "pool" and sites.at(emitting).stateless:
        emitting = site_named(arch, emitting.source)
    if sites.at(emitting).stateless:
        return neurons.identity()
    lowest, highest = spikes_at(arch, sites, source) or (0, 1)
    windows = (pool.size, pool.stride, pool.padding)
    return neurons.running_maximum(*windows, lowest, highest, minima=pool.before_norm)
