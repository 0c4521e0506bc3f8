"""What BayesianSpikeFusion reports: when each series is accurate enough, at what energy."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from jaxsnn.arch import notation as arch_module
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.errors import UserError
from jaxsnn.exchange.saved import arch_of
from jaxsnn.io import processes, typed
from jaxsnn.io.arrays import load_arrays, save_arrays
from jaxsnn.io.files import read_object, write_json
from jaxsnn.report import crossbar_energy
from jaxsnn.simulation.fusion.accuracy import accuracies
from jaxsnn.systems.bayesian_spike_fusion.spike_trains import MADE_FROM, check_same, simulated
from jaxsnn.types import Json

CURVES = {"grid": "grid", "empirical": "emp"}  # our name of a choice of alpha, and the original's
ENERGY, SERIES = "energy.json", "ene_acc.npz"
OF_IMAGES = ("images", "pixels", "batch", "steps")  # what two simulations of a network differ in
USUAL = {"init_mem": 0.0, "percentile": 0.999}  # settings that curves and rules have names for
JOULE = 1e-12  # of a picojoule
Floats = NDArray[np.floating]


class Simulation(NamedTuple):
    """One simulation of a test set.

    Attributes:
        name: the run and the simulation, as they are called on disk.
        arch: the network, which the energy of a step follows from.
        ann_accuracy: of the final head of the ANN.
        target: shares of it that shall be reached.
        accuracies: series -> accuracy after every step, float64 ``[T]``.
        run: the run alone.
        tag: what the names of its alpha curves end with.
    """

    name: str
    arch: Arch
    ann_accuracy: float
    target: tuple[float, ...]
    accuracies: Mapping[str, Floats]
    run: str = ""
    tag: str = ""

    @property
    def fused(self) -> tuple[str, ...]:
        """The series that fuse both heads."""
        return tuple(name for name in CURVES if name in self.accuracies)

    def energies(self, series: str) -> Floats:
        """Energy of an image after every step, J ``[T]``; all but "final" pay for both heads."""
        final = series == "final"
        step = (
            crossbar_energy.final_only_energy(self.arch)
            if final
            else crossbar_energy.fused_energy(self.arch)
        )
        return np.arange(1, len(self.accuracies[series]) + 1) * step * JOULE

    def crossings(self) -> Iterator[tuple[float, str, int | None, float | None, float | None]]:
        """Share of the ANN's accuracy, series, first step that reaches it, energy (J), saving (%).

        The saving is that beside the final classifier alone, None where one is not reached.
        """
        for share in self.target:
            level = share * self.ann_accuracy
            steps = {
                name: crossbar_energy.first_step(c, level) for name, c in self.accuracies.items()
            }
            for name, step in steps.items():
                energy = None if step is None else float(self.energies(name)[step - 1])
                saved = None
                if name != "final":
                    saved = crossbar_energy.saving(step, steps["final"], self.arch)
                yield share, name, step, energy, saved

    def gains(self) -> Iterator[tuple[float, str, float]]:
        """Share of the ANN's accuracy, fused series, how much larger its area under accuracy is.

        In per cent, up to the energy at which the final classifier alone reaches the share; see
        :func:`jaxsnn.report.crossbar_energy.area_gain`. Shares that it does not reach are left out.
        """
        final = self.accuracies["final"]
        for share in self.target:
            for name in self.fused:
                level = share * self.ann_accuracy
                gain = crossbar_energy.area_gain(self.accuracies[name], final, level, self.arch)
                if gain is not None:
                    yield share, name, gain

    def table(self) -> Table:
        """The crossings as a table, with the gains in area below."""
        title = f"{self.name}: ANN {self.ann_accuracy:.2%}"
        gains = [f"{name} {gain:+.1f} % up to {share:.0%}" for share, name, gain in self.gains()]
        below = f"area under accuracy over energy: {'; '.join(gains)}" if gains else None
        table = Table(title=Text(title), caption=below, box=SIMPLE_HEAD, pad_edge=False)
        for column in ("target", "series", "step", "energy (mJ)", "saving (%)", "at the end (%)"):
            table.add_column(column, justify="left" if column == "series" else "right")
        for share, name, step, energy, saved in self.crossings():
            reached = ("not reached", "")
            if step is not None and energy is not None:
                reached = f"{step:,}", f"{energy * 1e3:.3g}"
            saving = "" if saved is None else f"{saved:.1f}"
            last = f"{100 * self.accuracies[name][-1]:.2f}"
            table.add_row(f"{share:.0%}", name, *reached, saving, last)
        return table

    def save(self, folder: Path) -> None:
        """Write the series under the original's names."""
        named = {
            "grid": "grid_acc",
            "empirical": "emp_acc",
            "final": "final_acc",
            "early": "mid_acc",
        }
        arrays = {named[name]: curve for name, curve in self.accuracies.items()}
        arrays["fp_energies"] = self.energies("final")
        if "early" in self.accuracies:
            arrays["bsf_energies"] = self.energies("early")
        save_arrays(folder / SERIES, arrays)


def describe(
    folder: Path, names: tuple[str, str], arch: Arch, ann_accuracy: float, target: tuple[float, ...]
) -> None:
    """Write energy.json, from which the simulation in a folder can be drawn.

    Args:
        folder: of the simulation.
        names: what run and simulation are called in figures and tables.
        arch: the network.
        ann_accuracy: of the final head of the ANN.
        target: shares of it that shall be reached.
    """
    coded = crossbar_energy.as_coded(arch)._asdict() if _has_exit(arch) else None
    write_json(
        folder / ENERGY,
        {
            "names": list(names),
            "arch": {"notation": arch_module.format(arch), **arch.options},
            "ann_accuracy": ann_accuracy,
            "target": list(target),
            "pj_per_step": crossbar_energy.step_energy(arch),
            "fused_pj_per_step": crossbar_energy.fused_energy(arch),
            "final_only_pj_per_step": crossbar_energy.final_only_energy(arch),
            "as_coded_pj_per_step": coded,
        },
    )
    processes.barrier()  # what the first wrote, all read


def _has_exit(arch: Arch) -> bool:
    return any(site.role == "exit" for site in plan(arch))


def read(folder: Path) -> Simulation:
    """The simulation in a folder, and the alpha curves of the run that it lies in.

    Raises:
        UserError: files that are missing, damaged, or do not belong to each other.
    """
    if not (folder / ENERGY).is_file():
        raise UserError(f"{folder / ENERGY} is missing; run the stage simulate to the end")
    description = read_object(folder / ENERGY)
    place = str(folder / ENERGY)
    arch = arch_of(description.get("arch"), f"{place}.arch")
    accuracy = typed.entry(description, "ann_accuracy", float, place)
    target = typed.entry(description, "target", list[float], place)
    trains = simulated(folder)
    if _has_exit(arch):
        series = accuracies(trains.counts(), curves_of(folder, trains.of))
    else:
        steps = trains.evaluation().accuracy_per_step
        series = {"final": np.asarray(steps)}
    usual = [folder.parent.name, folder.name]
    names = typed.checked(description.get("names", usual), list[str], f"{place}.names") or usual
    name, tag = "/".join(names), tag_of(trains.of)
    return Simulation(name, arch, accuracy, tuple(target), series, run=names[0], tag=tag)


def curves_of(folder: Path, of: Mapping[str, Json]) -> dict[str, Floats]:
    """The smoothed alpha curves, by our names, that were tuned for the simulation in a folder.

    Args:
        folder: of the simulation.
        of: what it was made from.

    Raises:
        UserError: one is missing or damaged, or of another number of steps; both are named.
    """
    tag, curves = tag_of(of), dict[str, Floats]()
    for name in CURVES:
        path = curve_file(folder.parent, name, tag)
        arrays, meta = load_arrays(path)
        network = {key: value for key, value in of.items() if key not in OF_IMAGES}
        check_same(path, meta.get(MADE_FROM), network, "run the stage tune again")
        curves[name] = arrays["y"]
        steps = of.get("steps", len(curves[name]))
        if len(curves[name]) != steps:
            raise UserError(
                f"{path} is a curve of {len(curves[name])} steps, {folder} a simulation of "
                f"{steps}; run the stages tune and simulate with the same --steps"
            )
    return curves


def curve_file(run_folder: Path, choice: str, tag: str) -> Path:
    """Where the smoothed alpha of every step is, of a choice of ``CURVES``."""
    return run_folder / f"division_linear_alpha_{CURVES[choice]}{tag}.npz"


def tag_of(of: Mapping[str, Json]) -> str:
    """What the names of a run's alpha curves end with: nothing for the usual simulation.

    Args:
        of: what a simulation was made from; the usual settings stand for what it does not say.

    >>> tag_of({"init_mem": 0.0, "percentile": 0.999}), tag_of({"init_mem": 0.5, "percentile": 0.9})
    ('', '_0.5_0.9')
    """
    chosen = {name: of.get(name, value) for name, value in USUAL.items()}
    return "" if chosen == USUAL else "".join(f"_{value}" for value in chosen.values())
