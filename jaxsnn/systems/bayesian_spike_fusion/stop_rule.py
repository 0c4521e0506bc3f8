"""When an image stops by itself: the choice of the rule, its file, and what it spares."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError
from jaxsnn.io.arrays import load_arrays, save_arrays
from jaxsnn.io.files import write_json
from jaxsnn.io.progress import batches
from jaxsnn.io.terminal import show
from jaxsnn.report import crossbar_energy
from jaxsnn.report.results import Variant
from jaxsnn.simulation import counters as counters_module
from jaxsnn.simulation.fusion import confidence
from jaxsnn.simulation.fusion.accuracy import Judged, judged
from jaxsnn.simulation.fusion.confidence import Calibration
from jaxsnn.simulation.totals import Evaluation
from jaxsnn.simulation.until_sure import Rule, calibrated, early_exit
from jaxsnn.systems.bayesian_spike_fusion import report
from jaxsnn.systems.bayesian_spike_fusion.report import CURVES, Simulation, curve_file
from jaxsnn.systems.bayesian_spike_fusion.spike_trains import (
    MADE_FROM,
    Trains,
    check_same,
    simulated,
)
from jaxsnn.systems.settings.bayesian_spike_fusion import BayesianSpikeFusion as Settings
from jaxsnn.systems.shared_batches import batch_within, own_devices
from jaxsnn.types import Json, JsonObject, PyTree, Tree

LOST = 0.001  # accuracy on the tuning images that stopping early may cost
POINTS = 200  # steps of which the calibration of the stop rule is made
LEVELS = 50  # thresholds that are tried
RULE = "stop rule"
COMPARED_AT = "empirical"  # choice of alpha that a fixed number of steps is compared at


def choose(
    run_folder: Path, config: Settings, trains: Trains, curves: Mapping[str, np.ndarray]
) -> str:
    """Of both choices of alpha, the rule that stops soonest; in a file, and in words."""
    rules = {name: _rule(config, judged(trains.counts(), curve)) for name, curve in curves.items()}
    best = min(rules, key=lambda name: rules[name][1])
    rule, steps = rules[best]
    meta = {MADE_FROM: dict(trains.of), "alpha": best}
    save_arrays(_files(run_folder, config)[RULE], rule, meta)
    return (
        f"an image stops at a probability of {float(rule['threshold']):.4f}, with alpha of "
        f"{best}: after {steps:.1f} steps on average"
    )


def _files(run_folder: Path, config: Settings) -> dict[str, Path]:
    """The curves of alpha by their choice, and the rule."""
    tag = config.tag
    curves = {name: curve_file(run_folder, name, tag) for name in CURVES}
    return {**curves, RULE: run_folder / f"stop_rule{tag}.npz"}


def _rule(config: Settings, outcomes: Judged) -> tuple[Tree, float]:
    """Calibrated on some steps of all images; a threshold that costs next to no accuracy.

    Early steps weigh more, because it is there that images stop. Also the mean steps to a stop.
    """
    earliest = config.depth + 1 if config.pipeline_delay else 1
    steps = np.geomspace(earliest, len(outcomes.scores), POINTS).astype(int)
    steps = np.unique(np.clip(steps, 1, len(outcomes.scores))) - 1
    calibration = confidence.fit(outcomes.scores[steps].ravel(), outcomes.correct[steps].ravel())
    probabilities = np.asarray(calibration.probability(outcomes.scores))
    threshold = config.sure
    if not threshold:
        threshold = _threshold(calibration, probabilities, outcomes.correct, earliest)
    stops = confidence.stopping(probabilities, threshold, earliest)
    rule = {
        **calibration._asdict(),
        "threshold": np.float32(threshold),
        "earliest": np.int32(earliest),
    }
    return rule, float(stops.mean())


def _threshold(
    calibration: Calibration, probabilities: np.ndarray, correct: np.ndarray, earliest: int
) -> float:
    """The threshold of the fewest steps among those that lose next to no accuracy."""
    wanted = float(correct[-1].mean()) - LOST
    levels = np.unique(np.asarray(calibration.probabilities, np.float64))
    levels = levels[np.unique(np.linspace(0, len(levels) - 1, LEVELS).astype(int))]
    threshold = confidence.choose_threshold(
        probabilities, correct, wanted, levels, earliest=earliest
    )
    return 1.0 if threshold is None else threshold


def tuned(run_folder: Path, config: Settings) -> bool:
    """Whether there are curves of alpha and a stop rule for this simulation."""
    return all(path.is_file() for path in _files(run_folder, config).values())


def rule_of(run_folder: Path, config: Settings, network: Mapping[str, Json]) -> Rule:
    """The stop rule that was found on the tuning images.

    Raises:
        UserError: nothing has been tuned, or for another network or number of steps.
    """
    files = _files(run_folder, config)
    if not tuned(run_folder, config):
        raise UserError(f"{run_folder} holds no {files[RULE].name}; run the stage tune first")
    loaded = {name: load_arrays(path) for name, path in files.items()}
    arrays_of_rule, meta_of_rule = loaded[RULE]
    chosen = meta_of_rule.get("alpha", COMPARED_AT)
    arrays, meta = loaded[chosen]
    path, curve = files[chosen], arrays["y"]
    check_same(path, meta.get(MADE_FROM), network, "tune again")
    # A stage that was stopped between two files left some of another tuning.
    for name, (_, other) in loaded.items():
        check_same(files[name], other.get(MADE_FROM), meta.get(MADE_FROM) or network, "tune again")
    if len(curve) != config.steps:
        raise UserError(
            f"{path} is a curve of {len(curve)} steps, the simulation has {config.steps}; tune "
            "again with as many --steps"
        )
    calibration = Calibration(arrays_of_rule["scores"], arrays_of_rule["probabilities"])
    threshold = np.float32(config.sure) if config.sure else arrays_of_rule["threshold"]
    return Rule(curve, threshold, arrays_of_rule["earliest"], calibration)


def stop(
    run_folder: Path,
    config: Settings,
    network: Mapping[str, Json],
    snn: Spiking,
    images: np.ndarray,
    labels: np.ndarray,
    console: Console,
) -> None:
    """Simulate each test image until it is sure; stop.json compares with fixed numbers of steps."""
    rule = rule_of(run_folder, config, network)
    size = batch_within(len(images), config.simulation_batch, config.devices)
    devices = own_devices(config, size)
    took: list[float] = []
    parts: list[list[np.ndarray]] = []
    for rows, real in batches(len(images), size, "simulating until sure"):
        began = time.perf_counter()
        ended = early_exit(snn, images[rows], rule, steps=config.steps, devices=devices)
        took.append(time.perf_counter() - began)
        counters: PyTree = ended.trace.counters
        counted = counters_module.synaptic_operations(counters.events, snn.arch)
        operations = counters_module.total(counted).sum(0)  # those of the heads as well
        per_image = ended.predictions, ended.confidence, ended.stops, ended.spikes, operations
        per_image = *per_image, ended.undecided
        parts.append([np.asarray(one)[:real] for one in per_image])
    joined = map(np.concatenate, zip(*parts, strict=True))
    predicted, sure, stops, spikes, operations, undecided = joined
    correct = predicted == labels
    record: JsonObject = {
        "images": len(images),
        "threshold": np.asarray(rule.threshold).item(),
        "accuracy": float(correct.mean()),
        "mean_steps": float(stops.mean()),
        "median_steps": float(np.median(stops)),
        "expected_calibration_error": confidence.expected_calibration_error(sure, correct),
        "undecided": float(undecided.mean()),
        "spikes_per_image": float(spikes.mean()),
        "sops_per_image": float(operations.mean()),
        "spikesim_pj_per_image": float(stops.mean()) * crossbar_energy.fused_energy(snn.arch),
        "seconds": {"first_batch": took[0], "others": float(np.sum(took[1:]))},
        **_fixed(run_folder / config.simulated, float(correct.mean()), config.steps, len(images)),
    }
    write_json(run_folder / f"stop{config.tag}.json", record)
    show(
        f"stopped when sure: test accuracy {record['accuracy']:.2%} after "
        f"{record['mean_steps']:.1f} steps on average, as fusion at a fixed step after "
        f"{record['fixed_step'] or 'more'}; calibration error "
        f"{record['expected_calibration_error']:.4f}; {record['undecided']:.2%} without a spike to "
        "decide on",
        console,
    )


def _fixed(folder: Path, accuracy: float, steps: int, images: int) -> JsonObject:
    """The first common step at which fusion is as accurate; None where there is none.

    A simulation of other images, steps or weights is not compared with.
    """
    nothing = {"fixed_step": None, "fixed_accuracy": None}
    recorded = (folder / "energy.json").is_file()
    of = simulated(folder).of if recorded else dict[str, Json]()
    if (of.get("images"), of.get("steps")) != (images, steps):
        return nothing
    try:
        curve = report.read(folder).accuracies[COMPARED_AT]
    except UserError as error:
        print(f"warning: {error}", file=sys.stderr)
        return nothing
    step = crossbar_energy.first_step(curve, accuracy)
    return {"fixed_step": step, "fixed_accuracy": None if step is None else float(curve[step - 1])}


def stopped(folder: Path, config: Settings, series: Simulation, evaluation: Evaluation) -> Variant:
    """The stop rule applied to recorded spike trains: what ``stop`` computes, without saving."""
    rule = rule_of(folder.parent, config, {})
    outcomes = judged(simulated(folder).counts(), np.asarray(rule.alpha))
    probabilities = np.asarray(calibrated(rule, jnp.asarray(outcomes.scores)))
    threshold, earliest = np.asarray(rule.threshold).item(), np.asarray(rule.earliest).item()
    stops = confidence.stopping(probabilities, threshold, earliest)
    before = np.arange(1, evaluation.steps + 1)[:, None] <= stops
    operations = evaluation.image_operations + evaluation.image_head_operations
    return Variant(
        kind="stop per image",
        accuracy=confidence.stopped_accuracy(outcomes.correct, stops),
        steps=float(stops.mean()),
        spikes_per_image=float((evaluation.image_spikes * before).sum() / evaluation.images),
        sops_per_image=float((operations * before).sum() / evaluation.images),
        energy_pj_per_image={
            "spikesim": float(stops.mean()) * crossbar_energy.fused_energy(series.arch)
        },
    )
