"""Energy of a time step on a crossbar accelerator, whatever the spikes: a SpikeSim-like model.

Every synapse is laid out on crossbars of X x X cells and read out once for each output position
and time step, so that a step costs the same whether a spike comes or not, and t steps cost t times
as much. With X = 64 and a kernel of h x w, in pJ (the constants are the fields of ``SpikeSim``)::

    element = h * w * crossbar + X/8 * (converter + multiplexer)
    cycle   = 8 * tree + fetch + 4 * neuron + tile_buffer
              + X/8 * (element + 16 * subtraction + temporary_buffer)
    layer   = ceil(in / X) * ceil(out / X) * out_height * out_width * cycle

A pool is a layer whose kernel is the pooled map, with as many channels out as in. A dense layer
of n inputs is a 4 x 1 kernel over ceil(n / 4) channels at one position. (Habara, Sato and Awano,
Frontiers in Neuroscience 18, 2024, and its code; SpikeSim: Moitra et al., IEEE TCAD, 2023.)

``jaxsnn.report.energy`` counts spikes instead, and is the other view of the same network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jaxsnn.arch.layers import Site, require
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.errors import UserError

Accuracies = Sequence[float] | npt.NDArray[np.floating]


@dataclass(frozen=True)
class SpikeSim:
    """Constants of the accelerator: energies in pJ, as in the code of BayesianSpikeFusion.

    Attributes:
        crossbar_size: rows and columns X of a crossbar.
        crossbar: reading a crossbar, for each element of the kernel.
        tile_buffer: buffer of a tile.
        temporary_buffer: buffer of temporary values.
        subtraction: subtractor.
        converter: analogue-to-digital converter.
        tree: interconnect in the form of an H tree.
        multiplexer: multiplexer before the converter.
        fetch: memory fetch.
        neuron: update of a neuron.

    Raises:
        UserError: a size below 1, or an energy that is negative or not finite.
    """

    crossbar_size: int = 64
    crossbar: float = 1.76423
    tile_buffer: float = 397.0
    temporary_buffer: float = 0.2
    subtraction: float = 1.15e-6
    converter: float = 2.03084
    tree: float = 19.64
    multiplexer: float = 0.094245
    fetch: float = 4.64
    neuron: float = 1.274

    def __post_init__(self) -> None:
        """Refuse constants that no hardware has."""
        require(self.crossbar_size, 1, "crossbar_size")
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"{name} is {value}; give a finite energy of 0 pJ or more")


SPIKESIM = SpikeSim()


class Energies(NamedTuple):
    """Energy of one time step in pJ, of the network with its exits and of the one without."""

    fused: float
    final_only: float


def cycle_energy(height: int, width: int, constants: SpikeSim = SPIKESIM) -> float:
    """Energy in pJ of one cycle of one crossbar under a kernel of ``height`` x ``width``.

    >>> round(cycle_energy(3, 3), 6)
    828.486147

    Raises:
        UserError: a side of the kernel is below 1.
    """
    require(height, 1, "the height of the kernel")
    require(width, 1, "the width of the kernel")
    eighth = constants.crossbar_size / 8
    element = height * width * constants.crossbar
    element += eighth * (constants.converter + constants.multiplexer)
    column = element + 16 * constants.subtraction + constants.temporary_buffer
    shared = 8 * constants.tree + constants.fetch + 4 * constants.neuron + constants.tile_buffer
    return shared + eighth * column


def step_energy(arch: Arch, constants: SpikeSim = SPIKESIM) -> dict[str, float]:
    """Energy in pJ per time step of every site of the plan, by its name, in execution order.

    >>> from jaxsnn.arch import parse
    >>> found = step_energy(parse("64C3p1-E", head_pool=True, input_shape=(8, 8, 3)))
    >>> list(found)
    ['conv1', 'exit1.pool', 'exit1', 'readout.pool', 'readout']
    >>> found["conv1"] == 64 * cycle_energy(3, 3), found["exit1.pool"] == cycle_energy(8, 8)
    (True, True)
    """
    return {site.name: _site_energy(site, constants) for site in plan(arch)}


def fused_energy(arch: Arch, constants: SpikeSim = SPIKESIM) -> float:
    """Energy in pJ per time step of the trunk and of all its heads."""
    return math.fsum(step_energy(arch, constants).values())


def final_only_energy(arch: Arch, constants: SpikeSim = SPIKESIM) -> float:
    """Energy in pJ per time step of the trunk and its last head, without the side exits."""
    exits = {site.name for site in plan(arch) if site.role == "exit"}
    energies = step_energy(arch, constants).items()
    return math.fsum(energy for name, energy in energies if name.removesuffix(".pool") not in exits)


def as_coded(arch: Arch, constants: SpikeSim = SPIKESIM) -> Energies:
    """What the original's code arrives at, for comparison.

    It takes the exit's pool for one of as many channels as the last map has, and leaves the last
    pool out of the baseline instead of the exit, whose dense layer and pool are still charged.

    Raises:
        UserError: the network has not one exit, or no pool before its readout.
    """
    sites = {site.name: site for site in plan(arch)}
    exits = [site.name for site in sites.values() if site.role == "exit"]
    if len(exits) != 1 or "readout.pool" not in sites:
        raise UserError(
            "the original accounts for one exit (E) and a pooled readout, not for "
            f"{len(exits)} exits and head_pool={arch.head_pool}; take fused_energy"
        )
    exit_pool, last_pool = sites[f"{exits[0]}.pool"], sites["readout.pool"]
    energies = step_energy(arch, constants)
    channels = last_pool.in_shape[-1]
    energies[exit_pool.name] = _layer_energy(channels, channels, 1, exit_pool.window, constants)
    fused = math.fsum(energies.values())
    return Energies(fused, fused - energies[last_pool.name])


def first_step(accuracies: Accuracies, target: float) -> int | None:
    """The first time step whose accuracy is at least ``target``; None if it is not reached.

    Args:
        accuracies: ``[T]``, after 1, 2, ... T steps.
        target: on the scale of the accuracies, such as 0.97 times that of the ANN.

    >>> first_step([0.1, 0.6, 0.5, 0.9], 0.55), first_step([0.1, 0.6], 0.7)
    (2, None)

    Raises:
        UserError: there is no step, or a number is not finite.
    """
    curve = _curve(accuracies, "accuracies")
    if not math.isfinite(target):
        raise UserError(f"target is {target}; give a finite accuracy")
    reached = np.flatnonzero(curve >= target)
    return int(reached[0]) + 1 if len(reached) else None


def saving(
    fused_step: int | None, final_step: int | None, arch: Arch, constants: SpikeSim = SPIKESIM
) -> float | None:
    """Energy in per cent of the baseline's that the fused network saves up to its own step.

    Args:
        fused_step: time steps after which fusion is accurate enough (``first_step``).
        final_step: those of the network without exits.
        arch: the network with its exits.
        constants: of the hardware.

    Returns:
        ``100 * (1 - fused energy / final energy)``, below 0 if fusion costs more; None if one of
        the two is not accurate enough at any step.

    Raises:
        UserError: a step is below 1.
    """
    if fused_step is None or final_step is None:
        return None
    require(fused_step, 1, "fused_step")
    require(final_step, 1, "final_step")
    fused = fused_step * fused_energy(arch, constants)
    return 100 * (1 - fused / (final_step * final_only_energy(arch, constants)))


def area_gain(
    fused: Accuracies, final: Accuracies, target: float, arch: Arch, constants: SpikeSim = SPIKESIM
) -> float | None:
    """By how many per cent the area under accuracy over energy is larger with fusion.

    Both areas begin with the network's own first step and end with the energy at which the network
    without exits reaches the target; the steps are joined by straight lines.

    Args:
        fused: ``[T]``, accuracies of the fused network after 1, 2, ... T steps.
        final: ``[T]``, those of the network without exits.
        target: on the scale of the accuracies.
        arch: the network with its exits.
        constants: of the hardware.

    Returns:
        The gain; None if the network without exits does not reach the target, or reaches it at
        once, so that there is no area to compare with.

    Raises:
        UserError: there is no step, a number is not finite, or the fused curve ends too early.
    """
    crossing = first_step(final, target)
    whole, baseline = _curve(fused, "fused"), _curve(final, "final")
    each = Energies(fused_energy(arch, constants), final_only_energy(arch, constants))
    if crossing is None:
        return None
    limit = crossing * each.final_only
    if limit > len(whole) * each.fused:
        raise UserError(
            f"fused has {len(whole)} steps, fewer than the {limit / each.fused:.1f} that cost as "
            f"much as {crossing} steps of the network without exits; simulate longer"
        )
    area = _area(baseline, each.final_only, limit)
    return 100 * (_area(whole, each.fused, limit) / area - 1) if area > 0 else None


def _site_energy(site: Site, constants: SpikeSim) -> float:
    """A max pool behind neurons is no product, and SpikeSim has no part that compares: 0."""
    if site.kind == "maxpool":
        return 0.0
    if site.kind == "dense":
        channels, (units,) = math.ceil(math.prod(site.in_shape) / 4), site.drive_shape
        return _layer_energy(channels, units, 1, (4, 1), constants)
    height, width, channels = site.drive_shape
    return _layer_energy(site.in_shape[-1], channels, height * width, site.window, constants)


def _layer_energy(
    inputs: int, outputs: int, positions: int, kernel: tuple[int, int], constants: SpikeSim
) -> float:
    size = constants.crossbar_size
    cycles = math.ceil(inputs / size) * math.ceil(outputs / size) * positions
    return cycles * cycle_energy(*kernel, constants)


def _curve(accuracies: Accuracies, name: str) -> npt.NDArray[np.float64]:
    curve = np.asarray(accuracies, np.float64)
    if curve.ndim != 1 or not len(curve) or not np.isfinite(curve).all():
        raise UserError(
            f"{name} has shape {curve.shape}; give one finite accuracy for each of T steps, T >= 1"
        )
    return curve


def _area(curve: npt.NDArray[np.float64], energy: float, limit: float) -> float:
    """Area from the first step's energy to ``limit``; 0 if the first step costs more."""
    if limit < energy:
        return 0.0
    energies = energy * np.arange(1, len(curve) + 1)
    inside = energies < limit
    x = np.append(energies[inside], limit)
    y = np.append(curve[inside], np.interp(limit, energies, curve))
    return float(np.trapezoid(y, x))
