"""Neurons whose net spike count follows the level of their potential, as NIR nodes.

The potential is an integrator that nothing resets. Every threshold of the level is a unit; the sum
of the units that it reached is the level, another integrator holds the net count of the steps
before, and their difference decides on the spikes of this step.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.exchange.nir.cells import Neurons
from jaxsnn.exchange.nir.draft import Signal
from jaxsnn.exchange.nir.kernels import channel_sums, window
from jaxsnn.neurons.tracking import even_threshold

NOT_PADDED = ((0, 0), (0, 0))


def tracking(
    cells: Neurons,
    drive: tuple[str, ...],
    leaves: Mapping[str, np.ndarray],
    bound: int,
    per_step: int,
    rising: bool,
) -> Signal:
    """:func:`jaxsnn.neurons.tracking` of integrators and thresholds.

    Args:
        cells: where it goes.
        drive: nodes whose sum drives it.
        leaves: integers ``[C]``, see :mod:`jaxsnn.neurons.tracking`.
        bound: largest possible ``|potential|``.
        per_step: largest spike count of a step.
        rising: no positive spike in a step that lowers the potential.

    Raises:
        UserError: thresholds that are no whole numbers.
    """
    if not cells.whole:
        raise UserError(
            f"{cells.name}: thresholds that are floats decide ties by their rounding; convert with "
            "float_weights=False"
        )
    potential = cells.integrator("potential", *drive)
    level = _level(cells, potential, thresholds(leaves, bound))
    count = cells.integrator("count")
    fewer = cells.scale("less", -1.0, count)
    lower = cells.scale("lower", -1.0, level)
    nodes: list[str] = []
    climbs = cells.above("climbs", -0.5, *drive) if rising else ""
    for number in range(1, per_step + 1):
        end = "" if per_step == 1 else str(number)
        up = cells.above(f"up{end}", number - 0.5, level, fewer)
        nodes.append(cells.both(f"rise{end}", up, climbs) if rising else up)
        down = cells.above(f"back{end}", number - 0.5, lower, count)
        nodes.append(cells.scale(f"down{end}", -1.0, down))
    cells.draft.connect(cells.each_before(*nodes), count)
    return cells.signal(*nodes)


def thresholds(leaves: Mapping[str, np.ndarray], bound: int) -> np.ndarray:
    """int64 ``[levels, C]``; those of a channel that has fewer are beyond its reach."""
    highest = leaves["highest"]
    arrays = {name: jnp.asarray(leaf) for name, leaf in leaves.items()}
    numbers = range(1, int(highest.max(initial=1)) + 1)
    rows = [np.asarray(even_threshold(arrays, jnp.full(len(highest), j))) for j in numbers]
    table = np.clip(np.stack(rows).astype(np.int64), -bound - 1, bound + 1)
    return np.where(np.arange(1, len(table) + 1)[:, None] <= highest, table, bound + 1)


def _level(cells: Neurons, potential: str, table: np.ndarray) -> str:
    """How many thresholds of ``table [levels, C]`` a potential has reached."""
    import nir

    levels, channels = table.shape
    source = cells.signal(potential)
    each = np.tile(np.eye(channels), (levels, 1))[:, :, None, None]
    spread = window(cells.draft, each, (0.5 - table).ravel(), source, (1, 1), NOT_PADDED)
    spread_name = cells.add("distances", spread, potential)
    units = Signal(("",), cells.shape, levels)
    reached = nir.Threshold(cells.draft.full(units.node_shape, 0.0))
    name = cells.add("units", reached, spread_name)
    return cells.add("level", channel_sums(cells.draft, units, (1, 1), (1, 1)), name)
