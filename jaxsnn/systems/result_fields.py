"""From a simulation and its certificate to the fields of results.json; shared by all systems."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan, spiking_sites, totals
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.equality.certificate import Certificate
from jaxsnn.io import environment, files, metrics
from jaxsnn.report import energy
from jaxsnn.report.energy import EnergyLedger
from jaxsnn.report.results import Layer, TrainedBy
from jaxsnn.simulation.totals import Evaluation
from jaxsnn.systems.run_folder import Run, seconds_of
from jaxsnn.systems.settings.training import Trained

Fields: TypeAlias = dict[str, Any]  # of Results, by name


class Counting(NamedTuple):
    """How a system counts.

    Attributes:
        units: largest spike count of a neuron in one step; a layer's rate is per unit.
        adds_per_update: additions that one update of a neuron costs.
        heads: whether synaptic operations and MACs include those of the readout.
    """

    units: int = 1
    adds_per_update: int = 2
    heads: bool = False


def spiking_fields(
    snn: Spiking,
    spiking: Evaluation,
    proof: Certificate | None,
    counting: Counting,
    settle: bool = False,
) -> Fields:
    """Fields that a spiking network has.

    Args:
        snn: the network.
        spiking: its simulation.
        proof: the certificate of a converted network.
        counting: how spikes and operations are counted.
        settle: an image's run ends when it is silent.
    """
    images = spiking.images
    total = sum(int(part.sum()) for part in spiking.spikes.values())
    negative = sum(int(part.sum()) for part in spiking.negative.values())
    return {
        "snn_accuracy": spiking.accuracy_per_step[-1],
        "accuracy_per_step": spiking.accuracy_per_step,
        "steps": len(spiking.predictions),
        "accuracy_settled_step": _settled_step(spiking),
        "last_spike_step": int(spiking.last_spike_step.max()),
        "undecided": spiking.undecided_share,
        **_proved(proof),
        "spikes_per_image": total / images,
        "positive_spikes_per_image": (total - negative) / images,
        "negative_spikes_per_image": negative / images,
        "spikes_per_neuron": total / images / totals(snn.arch).neurons,
        "sops_per_image": _operations(spiking, counting),
        "energy_pj_per_image": ledger(snn, spiking, counting, settle).to_json(),
        "layers": layers(snn, spiking, proof, counting.units),
    }


def _proved(proof: Certificate | None) -> Fields:
    """What the certificate says; nothing of a network that was not converted."""
    if proof is None:
        return {}
    mismatches = {"neurons": proof.mismatches, "predictions": proof.predictions}
    return {
        "equality": proof.equality,
        "mismatches": mismatches | {"compared": proof.images},
        "given_predictions": proof.given_predictions,
    }


def _settled_step(spiking: Evaluation) -> int | None:
    """First step from which the accuracy stays; None where images still spike in the last one."""
    if spiking.steps > 1 and spiking.unsettled.any():
        return None
    return settled_step(spiking.accuracy_per_step)


def undecided(share: float, steps: int) -> str:
    """In words: for how many images there is nothing to decide on."""
    return f"{share:.2%} of the images have no spike to decide on after {steps} steps"


def _operations(spiking: Evaluation, counting: Counting) -> float:
    counted = spiking.image_operations.sum(dtype=np.int64)
    if counting.heads:
        counted += spiking.image_head_operations.sum(dtype=np.int64)
    return float(counted) / spiking.images


def run_fields(run: Run[Any], system: str, dataset: str, test_examples: int) -> Fields:
    """Fields that every setting has, whatever its network: whose they are, training, environment.

    Args:
        run: the setting's folder and settings.
        system: name of the published system.
        dataset: name of the data set.
        test_examples: number of test images or recordings.
    """
    trained = run.folder / "metrics.jsonl"  # not there where the weights came from elsewhere
    records = metrics.read_metrics(trained) if trained.is_file() else []
    where = environment.environment()
    return {
        "experiment": run.config.experiment,
        "system": system,
        "dataset": dataset,
        "setting": run.config.setting,
        "settings": run.config.described,
        "argv": list(run.config.argv) or None,
        "training": trained_by(run),
        "epochs_run": records[-1]["epoch"] if records else 0,
        "test_examples": test_examples,
        "seconds": {"compile": None, "train": seconds_of(records), "simulate": None},
        "seed": run.config.seed,
        **{name: where[name] for name in ("device", "versions", "commit")},
    }


def trained_by(run: Run[Any]) -> TrainedBy | None:
    """How the run in a folder was trained, whatever is asked for now; None where none was.

    Raises:
        UserError: its config.json cannot be read.
    """
    if not run.trained:
        return None
    saved, phases = run.saved(())
    epochs = saved.epochs or 0
    if phases:
        epochs = phases[-1]["first_step"] // phases[-1]["steps_per_epoch"] + phases[-1]["epochs"]
    named = {"recipe": saved.recipe, "compute": saved.compute} if isinstance(saved, Trained) else {}
    parts = {name: files.plain(getattr(saved, name)) for name in saved.parts_of_training}
    each = [{name: p[name] for name in p if name != "argv"} for p in phases]
    return TrainedBy(**named, epochs=epochs, parts=parts, phases=tuple(each if each[1:] else ()))


def ledger(
    snn: Spiking, spiking: Evaluation, counting: Counting, settle: bool = False
) -> EnergyLedger:
    """The energy of an image, as a system counts."""
    return energy.ledger(snn, spiking, settle=settle, adds_per_update=counting.adds_per_update)


def _mean(part: np.ndarray | None, images: int) -> float:
    return 0.0 if part is None else float(np.sum(part)) / images


def layers(snn: Spiking, spiking: Evaluation, proof: Certificate | None, units: int) -> list[Layer]:
    """One entry per spiking layer; the operations are those of its incoming spikes."""
    proofs = {layer.site: layer for layer in proof.layers} if proof else {}
    entries: list[Layer] = []
    for site in spiking_sites(snn.arch):
        spikes = _mean(spiking.spikes[site.name], spiking.images)
        operations, proved = spiking.operations.get(site.name), proofs.get(site.name)
        entry: Layer = {
            "name": site.name,
            "neurons": site.neurons,
            "spikes_per_image": spikes,
            "rate": spikes / (site.neurons * units),
            "silent": proved.silent if proved else None,
            "saturated": proved.saturated if proved else None,
            "sops_per_image": None if operations is None else _mean(operations, spiking.images),
            "mismatches": proved.integer if proved else None,
        }
        entries.append(entry)
    return entries


def macs_driven_by_spikes(arch: Arch, heads: bool = False) -> float:
    """Multiply-accumulates of the synapses that a system counts: no encoder, ``heads`` or not."""
    total = totals(arch).macs_without_encoder
    return float(total if heads else total - plan(arch)[-1].macs)


def settled_step(accuracies: list[float]) -> int:
    """First step (from 1) from which the accuracy equals its final value for ever.

    >>> settled_step([0.1, 0.8, 0.9, 0.9])
    3
    """
    step = len(accuracies)
    while step > 1 and accuracies[step - 2] == accuracies[-1]:
        step -= 1
    return step
