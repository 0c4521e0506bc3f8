"""For how many steps a simulation's running sums hold: nothing may wrap without a word.

What is summed over time in int32 are readouts, integer membrane potentials and net spike counts.
Conversion has bounded the sum of each layer's drive for input that ends and neurons whose net count
stays in a range; every other sum grows with the number of steps T, by the largest drive of one
step. Counters of one step do not grow with T, but with the size of a network.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.arch.plan import plan, site_named, spiking_sites
from jaxsnn.conversion.grid import largest_sum
from jaxsnn.conversion.spiking import Spiking, comes_to_rest
from jaxsnn.errors import UserError, whole_number
from jaxsnn.network.per_site import spikes_at
from jaxsnn.simulation.counters import reaches
from jaxsnn.types import PyTree

LARGEST = 2**31 - 1  # of int32
MOST_STEPS = 2**24  # up to which float32 counts the spikes of a head one by one


class Sum(NamedTuple):
    """A running sum in int32.

    Attributes:
        name: what it is, in words.
        step: the largest ``|value|`` that one step adds.
    """

    name: str
    step: int

    @property
    def horizon(self) -> int:
        """Most steps after which it cannot have left int32."""
        return min(LARGEST // self.step, MOST_STEPS) if self.step else MOST_STEPS


def check_horizon(snn: Spiking, steps: int, counts: bool = False) -> None:
    """Refuse a simulation in which an int32 could wrap.

    Args:
        snn: the network, with its report.
        steps: T, with those before a state that a run goes on from.
        counts: net spike counts are asked for.

    Raises:
        UserError: more steps than the sums hold, naming the sum and the largest safe number, more
            than the input has, for which alone conversion has bounded them, or more spikes in one
            step than a counter holds.
    """
    whole_number("steps", steps, 1, MOST_STEPS)
    ends = snn.encoding.duration
    if ends is not None and steps > ends and not comes_to_rest(snn):
        raise UserError(
            f"steps={steps}: the bounds of this network's sums hold for the {ends} steps of its "
            "input; simulate so many, or convert with settling=True"
        )
    _check_counters(snn)
    sums = [*_growing(snn), *(_net_counts(snn) if counts else ())]
    shortest = min(sums, key=lambda one: one.horizon, default=None)
    if shortest is not None and steps > shortest.horizon:
        raise UserError(
            f"steps={steps}: {shortest.name} may grow by {shortest.step:,} in a step and leave "
            f"int32 after {shortest.horizon:,} steps; simulate at most {shortest.horizon:,}, or "
            "convert with a coarser weight grid, fewer levels or a smaller Encoding.highest"
        )


def _growing(snn: Spiking) -> Iterator[Sum]:
    """Readouts and potentials whose bound grows with the number of steps."""
    if snn.report and (comes_to_rest(snn) or snn.encoding.duration):
        return  # conversion has bounded every sum: for all steps, or for those of the input
    for site in plan(snn.arch):
        neuron, fixed = snn.neurons.at(site), snn.variables.get("fixed", {}).get(site.name, {})
        head = site.role in ("exit", "readout")
        if head and neuron.spikes is not None:
            yield Sum(f"the spikes of {site.name}", max(map(abs, neuron.spikes)))
        elif head:
            yield Sum(f"the sum of {site.name}", _largest_drive(snn, site))
        if site.kind == "maxpool" and not neuron.stateless:
            yield Sum(f"the counts of {site.name}", _peak(snn, site))
        elif not neuron.stateless and any(_is_whole(leaf) for leaf in fixed.values()):
            yield Sum(f"the membrane potential of {site.name}", _largest_drive(snn, site))


def _net_counts(snn: Spiking) -> Iterator[Sum]:
    for site in spiking_sites(snn.arch):
        neuron = snn.neurons.at(site)
        if not neuron.rests:
            yield Sum(f"the net spike count of {site.name}", _peak(snn, site))


def _largest_drive(snn: Spiking, site: Site) -> int:
    """Largest ``|drive|`` of one step, as an integer; 0 of a site whose drive is a float."""
    params = snn.variables["params"].get(site.name, {})
    leaves = [params.get(name) for name in ("kernel", "gain", "bias", "shortcut_gain")]
    if not all(leaf is None or _is_whole(leaf) for leaf in leaves):
        return 0
    kernel, gain, bias, shortcut_gain = leaves
    drive = 0 if kernel is None else _largest_current(snn, site, kernel) * _largest(gain, 1)
    if site.shortcut:
        added = site_named(snn.arch, site.shortcut)
        value = _peak(snn, added) if added.role != "shortcut" else _largest_drive(snn, added)
        drive += value * _largest(shortcut_gain, 1)
    return drive + _largest(bias, 0)


def _largest_current(snn: Spiking, site: Site, kernel: PyTree) -> int:
    """Largest ``|sum|`` over an integer kernel in one step: conversion's, or from the kernel."""
    record = next((one for one in snn.report if one.site == site.name), None)
    levels = all(snn.neurons.at(one).stateless for one in spiking_sites(snn.arch))
    if record is not None and record.step_bound:
        return max(record.step_bound, record.bound if levels else 0)
    source = snn.encoding.highest
    if site.source != "input":
        source = _peak(snn, site_named(snn.arch, site.source))
    return largest_sum(np.asarray(kernel, np.int64), source)


def _peak(snn: Spiking, site: Site) -> int:
    """Largest ``|out|`` of a site in one step."""
    return max(map(abs, spikes_at(snn.arch, snn.neurons, site) or (0, 1)))


def _check_counters(snn: Spiking) -> None:
    """Refuse a network of which one image could spike more often in a step than int32 counts."""
    counted = {
        f"spikes at {site.name}": math.prod(site.out_shape) * _peak(snn, site)
        for site in spiking_sites(snn.arch)
    }
    for name, (source, windows) in reaches(snn.arch, snn.neurons).items():
        events = int(windows.sum()) * source.out_shape[-1]
        counted[f"synaptic events at {name}"] = events * _peak(snn, source)
    for what, most in counted.items():
        if most > LARGEST:
            raise UserError(
                f"an image may cause {most:,} {what} in one step, more than the counter (int32) "
                "holds; give fewer levels or a smaller image"
            )


def _largest(leaf: PyTree, otherwise: int) -> int:
    return otherwise if leaf is None else int(np.abs(np.asarray(leaf, np.int64)).max(initial=0))


def _is_whole(leaf: PyTree) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jnp.integer))
