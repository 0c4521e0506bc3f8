"""Stages of BayesianSpikeFusion behind the conversion: spike trains, alpha, the stop rule."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from jaxsnn import alpha, confidence, metrics, processes, spikesim
from jaxsnn.arrays import load_arrays, save_arrays
from jaxsnn.confidence import Calibration
from jaxsnn.early_exit import Rule, calibrated, early_exit
from jaxsnn.engine import unpack
from jaxsnn.evaluation import Evaluation, batches, of_trace
from jaxsnn.files import remove, write_json
from jaxsnn.fused_accuracy import Judged, judged
from jaxsnn.pipelines import fusion_report, outcome
from jaxsnn.pipelines.fusion_report import CURVES, Simulation, tag_of
from jaxsnn.pipelines.run import own_devices
from jaxsnn.pipelines.spike_trains import (
    MADE_FROM,
    SIMULATED,
    Names,
    Trains,
    check_same,
    flattened,
    simulated,
    tuning_names,
)
from jaxsnn.pipelines.tuning import checksum
from jaxsnn.report import write_bytes
from jaxsnn.simulate import simulate as simulate_batch
from jaxsnn.spiking import Spiking

LOST = 0.001  # accuracy on the tuning images that stopping early may cost
POINTS = 200  # steps of which the calibration of the stop rule is made
LEVELS = 50  # thresholds that are tried
CHOICE = "empirical"  # alpha that a fixed number of steps is compared at
CONVERSION = ("percentile", "init_mem", "pipeline_delay", "weight_bits", "calibration")


def converted_from(config: Any, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What a rate-coded network was made from: trained weights, settings of the conversion."""
    return {"weights": checksum(variables)} | {name: getattr(config, name) for name in CONVERSION}


def trains_of(
    folder: Path, names: Names, config: Any, network: Mapping[str, Any], images: NDArray[Any]
) -> Trains:
    """The spike trains of a network on some images, whether they are there yet or not."""
    size = min(config.simulation_batch, len(images))
    of = {
        **network,
        "steps": config.steps,
        "images": len(images),
        "pixels": checksum({"images": images}),
        "batch": size,
    }
    return Trains(folder, names, of, -(-len(images) // size))


def run(
    trains: Trains, config: Any, snn: Spiking, images: Any, labels: Any, what: str
) -> dict[str, float | None]:
    """Simulate what is not there yet, batch by batch; seconds of it, None where all was there."""
    heads = [site.name for site in metrics.head_sites(snn.arch)]
    _drop_others(trains)
    took: list[float] = []
    size = min(config.simulation_batch, len(images))
    options: dict[str, Any] = {"steps": config.steps, "devices": own_devices(config, size)}
    for number, (rows, real) in enumerate(batches(len(images), size, what)):
        if trains.have(number):
            continue
        began = time.perf_counter()
        trace = simulate_batch(snn, images[rows], record=heads, **options)
        found = of_trace(snn.arch, trace, labels[rows], real)
        spikes = [
            np.asarray(unpack(trace.records[name], snn, name))[:, :real].astype(np.uint8)
            for name in heads
        ]
        took.append(time.perf_counter() - began)
        early = spikes[0] if len(spikes) > 1 else None
        trains.write(number, labels[rows][:real], spikes[-1], early, flattened(found))
    processes.meet()  # what the first wrote, all read
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
    folder: Path, config: Any, network: Mapping[str, Any], snn: Spiking, images: Any, labels: Any
) -> tuple[Evaluation, dict[str, float | None]]:
    """Simulate the test images; simulate.txt says how the final classifier did."""
    trains = trains_of(folder, SIMULATED, config, network, images)
    seconds = run(trains, config, snn, images, labels, "simulating")
    found = trains.evaluation()
    lines = [f"step {t}: {a:.4f}\n" for t, a in enumerate(found.accuracy_per_step, 1)]
    write_bytes(folder / "simulate.txt", "".join(lines).encode())
    return found, seconds


def tune(
    run_folder: Path,
    config: Any,
    network: Mapping[str, Any],
    snn: Spiking,
    images: Any,
    labels: Any,
    console: Console,
) -> None:
    """Choose alpha in two ways, and the stop rule; every file in the run's folder."""
    tag = tag_of(config.suffix)
    names = tuning_names(config.ic_index)
    trains = trains_of(run_folder / f"train{tag}", names, config, network, images)
    run(trains, config, snn, images, labels, "tuning images")
    # Between the knots of the smoothed curve nothing is used: at T = 3000 that is 39 of 40 steps.
    at = np.arange(config.steps) if config.every_step else alpha.knots(config.steps)
    raw = {
        "grid": alpha.grid_search(trains.counts(), at=at),
        "empirical": alpha.empirical_bayes(trains.counts(), at=at),
    }
    smooth = {
        name: alpha.smoothed(curve, None if config.every_step else config.steps)
        for name, curve in raw.items()
    }
    lines = [f"{len(images)} training images, {config.steps} steps\n"]
    for name, curve in raw.items():
        coded, meta = CURVES[name], {MADE_FROM: dict(trains.of)}
        arrays = {"alpha": curve, "step": at + 1}
        save_arrays(run_folder / f"alpha_output_{coded}{tag}.npz", arrays, meta)
        path = run_folder / f"division_linear_alpha_{coded}{tag}.npz"
        save_arrays(path, {"y": smooth[name]}, meta)
        lines.append(
            f"alpha, {name}: mean {smooth[name].mean():.3f}, at the last step {curve[-1]:.3f}\n"
        )
    found = {
        name: _stop_rule(config, judged(trains.counts(), curve)) for name, curve in smooth.items()
    }
    best = min(found, key=lambda name: found[name][1])
    rule, steps = found[best]
    meta = {MADE_FROM: dict(trains.of), "alpha": best}
    save_arrays(run_folder / f"stop_rule{tag}.npz", rule, meta)
    lines.append(
        f"an image stops at a probability of {float(rule['threshold']):.4f}, with alpha of "
        f"{best}: after {steps:.1f} steps on average\n"
    )
    write_bytes(run_folder / "tune_log.txt", "".join(lines).encode())
    console.print("".join(lines).rstrip(), highlight=False)


def _stop_rule(config: Any, found: Judged) -> tuple[dict[str, Any], float]:
    """Calibrated on some steps of all images; a threshold that costs next to no accuracy.

    Early steps weigh more, because it is there that images stop. Also the mean steps to a stop.
    """
    earliest = config.depth + 1 if config.pipeline_delay else 1
    steps = np.geomspace(earliest, len(found.scores), POINTS).astype(int)
    steps = np.unique(np.clip(steps, 1, len(found.scores))) - 1
    calibration = confidence.fit(found.scores[steps].ravel(), found.correct[steps].ravel())
    probabilities = np.asarray(calibration.probability(found.scores))
    threshold = config.sure
    if not threshold:
        wanted = float(found.correct[-1].mean()) - LOST
        levels = np.unique(np.asarray(calibration.probabilities, np.float64))
        levels = levels[np.unique(np.linspace(0, len(levels) - 1, LEVELS).astype(int))]
        own = probabilities, found.correct, wanted, levels
        threshold = confidence.choose_threshold(*own, earliest=earliest)
        threshold = 1.0 if threshold is None else threshold
    stops = confidence.stopping(probabilities, threshold, earliest)
    rule = {
        **calibration._asdict(),
        "threshold": np.float32(threshold),
        "earliest": np.int32(earliest),
    }
    return rule, float(stops.mean())


def tuned(run_folder: Path, config: Any) -> bool:
    """Whether alpha has been chosen for this simulation."""
    tag = tag_of(config.suffix)
    files = [f"division_linear_alpha_{coded}{tag}.npz" for coded in CURVES.values()]
    return all((run_folder / file).is_file() for file in (*files, f"stop_rule{tag}.npz"))


def rule_of(run_folder: Path, config: Any, network: Mapping[str, Any]) -> Rule:
    """The stop rule that was found on the tuning images.

    Raises:
        ValueError: nothing has been tuned, or for another network or number of steps.
    """
    tag = tag_of(config.suffix)
    if not tuned(run_folder, config):
        raise ValueError(f"{run_folder} holds no stop_rule{tag}.npz; run the stage tune first")
    place = run_folder / f"stop_rule{tag}.npz"
    own, known = load_arrays(place)
    path = run_folder / f"division_linear_alpha_{CURVES[known.get('alpha', CHOICE)]}{tag}.npz"
    arrays, meta = load_arrays(path)
    check_same(path, meta.get(MADE_FROM), network, "tune again")
    # A stage that was stopped between the two left a rule of another tuning.
    check_same(place, known.get(MADE_FROM), meta.get(MADE_FROM) or network, "tune again")
    curve = arrays["y"]
    if len(curve) != config.steps:
        raise ValueError(
            f"{path} is a curve of {len(curve)} steps, the simulation has {config.steps}; tune "
            "again with as many --steps"
        )
    calibration = Calibration(own["scores"], own["probabilities"])
    threshold = np.float32(config.sure) if config.sure else own["threshold"]
    return Rule(curve, threshold, own["earliest"], calibration)


def variants(
    folder: Path, config: Any, series: Simulation, found: Evaluation
) -> dict[str, dict[str, Any]]:
    """Entries of results.json: every series at the end and at each target, and the stop rule."""
    entries: dict[str, dict[str, Any]] = {}
    for name, curve in series.accuracies.items():
        energy = float(series.energies(name)[-1]) * 1e12
        entries[name] = _variant(curve[-1], len(curve), energy)
    for share, name, step, energy, _ in series.crossings():
        curve = series.accuracies[name]
        reached = None if step is None else float(curve[step - 1])
        pj = None if energy is None else energy * 1e12
        entries[f"{name}, {share:.0%} of the ANN"] = _variant(reached, step, pj)
    entries["stop per image"] = _stopped(folder, config, series, found)
    return entries


def _variant(accuracy: Any, steps: Any, energy: Any) -> dict[str, Any]:
    return outcome.variant(
        accuracy=None if accuracy is None else float(accuracy),
        steps=steps,
        energy_pj_per_image=None if energy is None else {"spikesim": energy},
    )


def _stopped(folder: Path, config: Any, series: Simulation, found: Evaluation) -> dict[str, Any]:
    """The stop rule applied to recorded spike trains: what `stop` computes, without the saving."""
    rule = rule_of(folder.parent, config, {})
    outcomes = judged(simulated(folder).counts(), np.asarray(rule.alpha))
    probabilities = np.asarray(calibrated(rule, jnp.asarray(outcomes.scores)))
    threshold, earliest = np.asarray(rule.threshold).item(), np.asarray(rule.earliest).item()
    stops = confidence.stopping(probabilities, threshold, earliest)
    before = np.arange(1, found.steps + 1)[:, None] <= stops
    operations = found.image_operations + found.image_head_operations
    return outcome.variant(
        accuracy=confidence.stopped_accuracy(outcomes.correct, stops),
        steps=float(stops.mean()),
        spikes_per_image=float((found.image_spikes * before).sum() / found.images),
        sops_per_image=float((operations * before).sum() / found.images),
        energy_pj_per_image={"spikesim": float(stops.mean()) * spikesim.fused_energy(series.arch)},
    )


def stop(
    run_folder: Path,
    config: Any,
    network: Mapping[str, Any],
    snn: Spiking,
    images: Any,
    labels: Any,
    console: Console,
) -> None:
    """Simulate each test image until it is sure; stop.json compares with fixed numbers of steps."""
    rule, size = rule_of(run_folder, config, network), min(config.simulation_batch, len(images))
    options: dict[str, Any] = {"steps": config.steps, "devices": own_devices(config, size)}
    took, parts = [], []
    for rows, real in batches(len(images), size, "simulating until sure"):
        began = time.perf_counter()
        found = early_exit(snn, images[rows], rule, **options)
        took.append(time.perf_counter() - began)
        counters: Any = found.trace.counters
        counted = metrics.synaptic_operations(counters.events, snn.arch)
        operations = metrics.total(counted).sum(0)  # those of the heads as well
        own = found.predictions, found.confidence, found.stops, found.spikes, operations
        parts.append([np.asarray(one)[:real] for one in own])
    predicted, sure, stops, spikes, operations = map(np.concatenate, zip(*parts, strict=True))
    correct = predicted == labels
    record: Mapping[str, Any] = {
        "images": len(images),
        "threshold": np.asarray(rule.threshold).item(),
        "accuracy": float(correct.mean()),
        "mean_steps": float(stops.mean()),
        "median_steps": float(np.median(stops)),
        "expected_calibration_error": confidence.expected_calibration_error(sure, correct),
        "spikes_per_image": float(spikes.mean()),
        "sops_per_image": float(operations.mean()),
        "spikesim_pj_per_image": float(stops.mean()) * spikesim.fused_energy(snn.arch),
        "seconds": {"first_batch": took[0], "others": float(np.sum(took[1:]))},
        **_fixed(run_folder / config.simulated, float(correct.mean()), config.steps, len(images)),
    }
    write_json(run_folder / f"stop{tag_of(config.suffix)}.json", record)
    console.print(
        f"stopped when sure: test accuracy {record['accuracy']:.2%} after "
        f"{record['mean_steps']:.1f} steps on average, as fusion at a fixed step after "
        f"{record['fixed_step'] or 'more'}; calibration error "
        f"{record['expected_calibration_error']:.4f}",
        highlight=False,
    )


def _fixed(folder: Path, accuracy: float, steps: int, images: int) -> dict[str, Any]:
    """The first common step at which fusion is as accurate; None where there is none.

    A simulation of other images, steps or weights is not compared with.
    """
    nothing = {"fixed_step": None, "fixed_accuracy": None}
    of = simulated(folder).of if (folder / "energy.json").is_file() else {}
    if (of.get("images"), of.get("steps")) != (images, steps):
        return nothing
    try:
        curve = fusion_report.read(folder).accuracies[CHOICE]
    except ValueError as error:
        print(f"warning: {error}", file=sys.stderr)
        return nothing
    step = spikesim.first_step(curve, accuracy)
    return {"fixed_step": step, "fixed_accuracy": None if step is None else float(curve[step - 1])}
