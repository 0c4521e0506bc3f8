"""Stages of BayesianSpikeFusion behind the conversion.

Spike trains, the choice of alpha, and what results.json says of every series.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console

from jaxsnn.arch.plan import head_sites
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.io import processes
from jaxsnn.io.arrays import checksum, save_arrays
from jaxsnn.io.files import remove, write_bytes
from jaxsnn.io.progress import batches
from jaxsnn.io.terminal import show
from jaxsnn.report.results import Variant
from jaxsnn.simulation import fusion
from jaxsnn.simulation.engine import unpack
from jaxsnn.simulation.fixed_steps import simulate as simulate_batch
from jaxsnn.simulation.totals import Evaluation, of_trace
from jaxsnn.systems.bayesian_spike_fusion import stop_rule
from jaxsnn.systems.bayesian_spike_fusion.report import CURVES, Simulation, curve_file
from jaxsnn.systems.bayesian_spike_fusion.spike_trains import (
    MADE_FROM,
    SIMULATED,
    Names,
    Trains,
    flattened,
    simulated,
    tuning_names,
)
from jaxsnn.systems.settings.bayesian_spike_fusion import BayesianSpikeFusion as Settings
from jaxsnn.systems.shared_batches import batch_within, own_devices
from jaxsnn.types import Json, JsonObject, Variables

CONVERSION = ("percentile", "init_mem", "pipeline_delay", "weight_bits", "calibration")
CHOOSERS = {"grid": fusion.grid_search, "empirical": fusion.empirical_bayes}  # keys of CURVES


def converted_from(config: Settings, variables: Variables) -> JsonObject:
    """What a rate-coded network was made from: trained weights, settings of the conversion."""
    return {"weights": checksum(variables)} | {name: getattr(config, name) for name in CONVERSION}


def trains_of(
    folder: Path, names: Names, config: Settings, network: Mapping[str, Json], images: np.ndarray
) -> Trains:
    """The spike trains of a network on some images, whether they are there yet or not."""
    size = batch_within(len(images), config.simulation_batch, config.devices)
    of = {
        **network,
        "steps": config.steps,
        "images": len(images),
        "pixels": checksum({"images": images}),
        "batch": size,
    }
    return Trains(folder, names, of, -(-len(images) // size))


def run(
    trains: Trains,
    config: Settings,
    snn: Spiking,
    images: np.ndarray,
    labels: np.ndarray,
    what: str,
) -> dict[str, float | None]:
    """Simulate what is not there yet, batch by batch; seconds of it, None where all was there."""
    heads = [site.name for site in head_sites(snn.arch)]
    _drop_others(trains)
    took: list[float] = []
    size = batch_within(len(images), config.simulation_batch, config.devices)
    devices = own_devices(config, size)
    for number, (rows, real) in enumerate(batches(len(images), size, what)):
        if trains.have(number):
            continue
        began = time.perf_counter()
        trace = simulate_batch(snn, images[rows], record=heads, steps=config.steps, devices=devices)
        evaluation = of_trace(snn.arch, trace, labels[rows], real)
        spikes = [
            np.asarray(unpack(trace.records[name], snn, name))[:, :real].astype(np.uint8)
            for name in heads
        ]
        took.append(time.perf_counter() - began)
        early = spikes[0] if len(spikes) > 1 else None
        trains.write(number, labels[rows][:real], spikes[-1], early, flattened(evaluation))
    processes.barrier()  # what the first wrote, all read
    # The first batch also compiled; the others say what a batch costs.
    each = float(np.mean(took[1:])) if took[1:] else None
    return {
        "compile": max(took[0] - each, 0.0) if each is not None else None,
        "simulate": float(np.sum(took)) if len(took) == trains.count else None,
    }


def _drop_others(trains: Trains) -> None:
    """Remove files behind the last batch, which an earlier simulation of more images left."""
    for file in trains.names.files:
        for path in trains.folder.glob(f"{file}_*.npz"):
            number = path.stem.rpartition("_")[2]
            if number.isdigit() and int(number) >= trains.count:
                remove(path)


def simulate(
    folder: Path,
    config: Settings,
    network: Mapping[str, Json],
    snn: Spiking,
    images: np.ndarray,
    labels: np.ndarray,
) -> tuple[Evaluation, dict[str, float | None]]:
    """Simulate the test images; simulate.txt says how the final classifier did."""
    trains = trains_of(folder, SIMULATED, config, network, images)
    seconds = run(trains, config, snn, images, labels, "simulating")
    evaluation = trains.evaluation()
    lines = [f"step {t}: {a:.4f}\n" for t, a in enumerate(evaluation.accuracy_per_step, 1)]
    write_bytes(folder / "simulate.txt", "".join(lines).encode())
    return evaluation, seconds


def undecided(folder: Path, evaluation: Evaluation, fused: bool) -> float:
    """The share of the test images of which no head has fired by the last step."""
    if fused:
        return float(fusion.undecided(simulated(folder).counts())[-1])
    return evaluation.undecided_share or 0.0


def tune(
    run_folder: Path,
    config: Settings,
    network: Mapping[str, Json],
    snn: Spiking,
    images: np.ndarray,
    labels: np.ndarray,
    console: Console,
) -> None:
    """Choose alpha in two ways, and the stop rule; every file in the run's folder."""
    names = tuning_names(config.exit_block)
    place = run_folder / f"train{config.tag}"
    trains = trains_of(place, names, config, network, images)
    run(trains, config, snn, images, labels, "tuning images")
    smooth, lines = _choose_alpha(run_folder, config, trains)
    lines.append(stop_rule.choose(run_folder, config, trains, smooth))
    text = "\n".join([f"{len(images)} training images, {config.steps} steps", *lines])
    write_bytes(run_folder / "tune_log.txt", f"{text}\n".encode())
    show(text, console)


def _choose_alpha(
    run_folder: Path, config: Settings, trains: Trains
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Both choices of alpha, as they are used at every step; in two files each, and in words."""
    tag, meta = config.tag, {MADE_FROM: dict(trains.of)}
    # Between the knots of the smoothed curve nothing is used: at T = 3000 that is 39 of 40 steps.
    at = np.arange(config.steps) if config.every_step else fusion.knots(config.steps)
    # All is found before anything is written: one curve must not be newer than the other.
    raw = {name: choose(trains.counts(), at=at) for name, choose in CHOOSERS.items()}
    steps = None if config.every_step else config.steps
    smooth = {name: fusion.smoothed(curve, steps) for name, curve in raw.items()}
    lines = list[str]()
    for name, curve in raw.items():
        coded = CURVES[name]
        arrays = {"alpha": curve, "step": at + 1}
        save_arrays(run_folder / f"alpha_output_{coded}{tag}.npz", arrays, meta)
        save_arrays(curve_file(run_folder, name, tag), {"y": smooth[name]}, meta)
        mean = smooth[name].mean()
        lines.append(f"alpha, {name}: mean {mean:.3f}, at the last step {curve[-1]:.3f}")
    return smooth, lines


def variants(
    folder: Path, config: Settings, series: Simulation, evaluation: Evaluation
) -> list[Variant]:
    """Entries of results.json: every series at the end and at each target, and the stop rule."""
    entries: list[Variant] = []
    for name, curve in series.accuracies.items():
        energy = float(series.energies(name)[-1]) * 1e12
        entries.append(_variant(name, None, float(curve[-1]), len(curve), energy))
    for share, name, step, energy, _ in series.crossings():
        curve = series.accuracies[name]
        reached = None if step is None else float(curve[step - 1])
        pj = None if energy is None else energy * 1e12
        entries.append(_variant(name, share, reached, step, pj))
    return [*entries, stop_rule.stopped(folder, config, series, evaluation)]


def _variant(
    kind: str,
    share: float | None,
    accuracy: float | None,
    steps: float | None,
    energy: float | None,
) -> Variant:
    return Variant(
        kind=kind,
        share=share,
        accuracy=accuracy,
        steps=steps,
        energy_pj_per_image=None if energy is None else {"spikesim": energy},
    )
