"""The pictures of BayesianSpikeFusion: accuracy against energy, and alpha over time."""

import sys
from pathlib import Path

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.io.arrays import load_arrays
from jaxsnn.io.terminal import show
from jaxsnn.report.figures import fusion
from jaxsnn.systems.bayesian_spike_fusion import report
from jaxsnn.systems.bayesian_spike_fusion.report import CURVES, Simulation
from jaxsnn.systems.bayesian_spike_fusion.spike_trains import in_order
from jaxsnn.systems.settings.bayesian_spike_fusion import BayesianSpikeFusion as Settings


def draw_all(config: Settings) -> dict[str, Path]:
    """Draw every simulation that the settings name; prints its table; a picture of each, by name.

    Raises:
        UserError: a folder without a simulation, or files that do not belong to each other.
    """
    folders = in_order(config.exps, Path(config.out))
    simulations: dict[Path, Simulation] = {}
    for folder in folders:
        try:
            simulations[folder] = report.read(folder)
        except UserError as error:
            if config.exps:
                raise
            print(f"warning: left out: {error}", file=sys.stderr)  # unfinished, or not tuned
            continue
        simulations[folder].save(folder)
        show(simulations[folder].table())
    if not simulations:
        raise UserError(f"no simulation below {config.out} is complete; run the stage simulate")
    to = (folders[0].resolve().parent.parent if config.exps else Path(config.out)) / "Plot"
    drawn = {
        "ene_acc": fusion.energy_against_accuracy(list(simulations.values()), to, "ene_acc")[0]
    }
    for folder in simulations:
        if simulations[folder].fused:
            tag = simulations[folder].tag
            drawn[f"{simulations[folder].run}/alpha{tag}"] = _alpha(folder, tag)
    return drawn


def _alpha(folder: Path, tag: str) -> Path:
    curves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for name, coded in CURVES.items():
        chosen = load_arrays(folder.parent / f"alpha_output_{coded}{tag}.npz")[0]
        smooth = load_arrays(report.curve_file(folder.parent, name, tag))[0]["y"]
        steps = chosen.get("step", 1 + np.arange(len(chosen["alpha"])))
        curves[name] = steps, chosen["alpha"], smooth
    return fusion.alpha_over_time(curves, folder.parent / "figs", f"time_alpha{tag}")[0]
