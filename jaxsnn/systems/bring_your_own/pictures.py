"""Pictures of a converted network: all methods, its layers, one image through all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxsnn.arch.plan import spiking_sites
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError
from jaxsnn.report.comparison import Comparison
from jaxsnn.report.figures import accuracy, layers, rasters
from jaxsnn.report.figures.comparison import compare
from jaxsnn.report.results import Results
from jaxsnn.simulation.engine import unpack
from jaxsnn.simulation.fixed_steps import simulate

FIGURES = "figs"


def draw(
    folder: Path,
    comparison: Comparison,
    results: Results,
    snn: Spiking,
    units: np.ndarray,
    picture: np.ndarray,
    label: int,
) -> dict[str, Path]:
    """Draw everything into ``<folder>/figs``.

    Args:
        folder: where the run's files go.
        comparison: of all methods.
        results: of the network that was taken.
        snn: that network.
        units: one test image as it is shown to it, ``[1, H, W, C]``.
        picture: that image as it is in the data set, ``[H, W, C]``.
        label: its class.

    Returns:
        Picture by name.
    """
    to = folder / FIGURES
    drawn = {
        "compare": compare(comparison, to),
        "accuracy": accuracy.accuracy_over_time([results], to),
        "layers": layers.activity([results], to),
        "raster": rasters.raster(
            spikes_of(snn, units, results.steps or 1),
            to,
            title=f"A test image of class {label} through all layers ({results.setting})",
            image=picture,
        ),
    }
    return {name: paths[0] for name, paths in drawn.items()}


def spikes_of(snn: Spiking, units: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Spikes of every layer for one image, int ``[T, ...]`` by site; negative ones below 0.

    Args:
        snn: the network.
        units: the image in whole input units, ``[1, H, W, C]``.
        steps: to simulate.

    Raises:
        UserError: more than one image.
    """
    if len(units) != 1:
        raise UserError(f"{len(units)} images; the spikes of one can be shown")
    sites = [site.name for site in spiking_sites(snn.arch)]
    if steps == 1:
        counts = simulate(snn, units, steps=1, counts=True).counts
        return {site: np.asarray(counts[site]) for site in sites}
    trace = simulate(snn, units, steps=steps, record=sites)
    busy = sum(np.asarray(trace.counters.spikes[site])[:, 0] for site in sites)
    end = max(int(np.max(np.flatnonzero(busy), initial=0)) + 1, 1)
    return {site: np.asarray(unpack(trace.records[site], snn, site))[:end, 0] for site in sites}
