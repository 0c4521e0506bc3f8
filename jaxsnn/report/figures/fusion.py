"""Figures of the fusion of two classifiers: accuracy against energy, and alpha over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from jaxsnn.report.figures.parts import caption, head, label, marks, new_figure, save
from jaxsnn.report.figures.style import COLUMN, Style, line_style
from jaxsnn.report.rows import NothingToDrawError

STYLES = {"final": 0, "early": 1, "grid": 2, "empirical": 3}
LONGER = {
    "final": "final alone",
    "early": "early alone",
    "grid": "fused, grid search",
    "empirical": "fused, empirical Bayes",
}


class Curves(Protocol):
    """A simulation: accuracy and energy (J) of every series after every step."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def ann_accuracy(self) -> float:
        """Of the ANN."""
        ...

    @property
    def target(self) -> tuple[float, ...]:
        """Shares of it."""
        ...

    @property
    def accuracies(self) -> Mapping[str, NDArray[np.floating]]:
        """Series -> ``[T]``."""
        ...

    def energies(self, series: str) -> NDArray[np.floating]:
        """``[T]``, J."""
        ...


def energy_against_accuracy(
    simulations: Sequence[Curves], folder: str | Path, name: str = "ene_acc"
) -> tuple[Path, Path]:
    """Draw test accuracy against energy per image on a logarithmic axis, a panel a simulation.

    Horizontal lines are the ANN's accuracy and the shares of it that shall be reached.

    Raises:
        NothingToDrawError: there is no simulation.
    """
    if not simulations:
        raise NothingToDrawError("no simulation")
    columns = len(simulations)
    figure, axes = new_figure(1, columns, (COLUMN * columns, 2.9))
    for ax, one in zip(axes, simulations, strict=True):
        _panel(ax, one)
        title = one.name if columns > 1 else ""
        label(ax, "energy per image (mJ, log scale)", "test accuracy (%)", title)
    about = f": {simulations[0].name}" if columns == 1 else ""
    head(figure, axes[0], f"Accuracy against energy{about}")
    shares = " and ".join(f"{share:.0%}" for share in simulations[0].target)
    caption(
        figure,
        "Energy: steps times the energy of a step on a processing-in-memory chip (SpikeSim).",
        "It includes the early classifier where that is used.",
        f"Dashed: the ANN's accuracy; dotted: {shares} of it.",
    )
    return save(figure, folder, name)


def _panel(ax: Axes, one: Curves) -> None:
    for series, curve in one.accuracies.items():
        energy = one.energies(series) * 1e3
        where = [index for index in marks(len(curve), logarithmic=True) if index < len(curve)]
        ax.plot(
            energy,
            100 * curve,
            label=LONGER.get(series, series),
            markevery=where,
            **line_style(STYLES.get(series, 4)),
        )
    for share in (1.0, *one.target):
        style = "--" if share == 1 else ":"
        ax.axhline(100 * share * one.ann_accuracy, color="0.5", linestyle=style, zorder=1)
    ax.set_xscale("log")
    ax.set_ylim(0, 104)


def alpha_over_time(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    folder: str | Path,
    name: str = "time_alpha",
) -> tuple[Path, Path]:
    """Draw alpha over time: as chosen (points) and smoothed (line).

    Args:
        curves: way of choosing -> steps at which it was chosen, counted from 1, ``[K]``, alpha
            there, ``[K]``, and smoothed, ``[T]``.
        folder: where to.
        name: of the files.
    """
    figure, axes = new_figure(1, 1)
    ax = axes[0]
    for number, (way, (chosen, raw, smooth)) in enumerate(curves.items()):
        style: Style = line_style(STYLES.get(way, number))
        steps = np.arange(1, len(np.asarray(smooth)) + 1)
        ax.plot(chosen, raw, ".", color=style["color"], markersize=2, alpha=0.4)
        ax.plot(steps, smooth, color=style["color"], label=LONGER.get(way, way), linewidth=1.2)
    label(ax, "time step", "alpha")
    head(figure, ax, "Weight of the early classifier as a prior")
    caption(figure, "Chosen on training images; points: as chosen, lines: smoothed.")
    return save(figure, folder, name)
