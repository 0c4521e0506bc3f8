"""Scatter-and-gather LeNet: ternary weights, ``2^k * B`` threshold units a neuron, one time step.

Zou et al., A Scatter-and-Gather Spiking CNN on a Reconfigurable Neuromorphic Hardware, Frontiers in
Neuroscience 15:694170, 2021. Stages: train, evaluate, simulate (convert, simulate, certify), plot.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxsnn import figures, neurons, quant, report, store, zoo
from jaxsnn import net as net_module
from jaxsnn.arch import Arch, plan
from jaxsnn.certify import certify
from jaxsnn.classify import classification
from jaxsnn.config import LeNetScatter
from jaxsnn.convert import PIXELS, convert, float_ends, snapped
from jaxsnn.data import Dataset
from jaxsnn.net import Net
from jaxsnn.pipelines import outcome
from jaxsnn.pipelines.run import Run, devices, held_out, read_data, seconds_of, train_run
from jaxsnn.sitemap import hidden
from jaxsnn.spiking import Spiking
from jaxsnn.sweep import Evaluation, sweep
from jaxsnn.sweep import evaluate as evaluate_snn
from jaxsnn.train import evaluate as evaluate_ann

BATCH = 200  # images per line of the original's text files
NETWORK = ("k", "B", "precision", "dataset")
IDENTITY = (*NETWORK, "seed", "batch_size", "limit_train", "validation")
SYNAPSES_ON_CHIP = 2  # a ternary synapse is mapped on two of the chip's binary ones
PAPER: dict[str, dict[str, float]] = {  # MNIST, 200 epochs; the original's README
    "fp32": {"float_ann_accuracy": 0.9952},
    "k0B1": {"ann_accuracy": 0.9927, "snn_accuracy": 0.9927},
    "k0B2": {"ann_accuracy": 0.9932, "snn_accuracy": 0.9932},
    "k0B4": {"ann_accuracy": 0.9943, "snn_accuracy": 0.9943},
    "k1B1": {"ann_accuracy": 0.9930, "snn_accuracy": 0.9930},
    "k1B2": {"ann_accuracy": 0.9937, "snn_accuracy": 0.9937},
    "k1B4": {"ann_accuracy": 0.9950, "snn_accuracy": 0.9950},
}


def run(stage: str, config: LeNetScatter) -> None:
    """Run one stage, or all of them, of one setting.

    Raises:
        ValueError: bad data, a missing or mismatched checkpoint; said before work starts.
    """
    console = Console()
    if stage == "plot":
        _plot(config, console)
        return
    experiment = Experiment(config)
    if stage in ("all", "train"):
        experiment.train()
    if stage in ("all", "evaluate"):
        accuracy = experiment.evaluate()
        console.print(f"{config.setting}: ANN test accuracy {accuracy:.2%}", highlight=False)
    if stage in ("all", "simulate"):
        experiment.simulate(console)
        report.print_table(report.scan_results(config.out), f"{config.dataset}: all settings")
    if stage == "all":
        _plot(config, console)


def _plot(config: LeNetScatter, console: Console) -> None:
    for name, paths in figures.draw_all(config.out).items():
        console.print(f"{name}: {paths[0]}", highlight=False)


def network(config: LeNetScatter, arch: Arch) -> Net:
    """The training network of a setting."""
    if config.precision == "fp32":
        return Net(arch, hidden(neurons.relu()))
    activation = neurons.quantised_relu(config.k, config.B)
    return Net(arch, hidden(activation), float_ends(quant.ternary()))


class Experiment:
    """One setting on one data set: its data, network and folder."""

    def __init__(self, config: LeNetScatter) -> None:
        """Read the data and refuse what does not fit; nothing is written."""
        self.config = config
        self.data: Dataset = read_data(config)
        self.arch = dataclasses.replace(
            zoo.lenet_scatter, input_shape=self.data.input_shape, classes=self.data.classes
        )
        plan(self.arch)  # refuses images that the network cannot take
        self.net = network(config, self.arch)
        self.task = classification(self.net, PIXELS)
        self.run = Run(Path(config.out) / config.setting, config, IDENTITY, NETWORK)

    @property
    def units(self) -> int:
        """Threshold units per neuron, ``2^k * B``."""
        return 2**self.config.k * self.config.B

    def train(self) -> None:
        """Train, or resume."""
        validation = held_out(self.data, self.config.validation)
        train_run(self.run, self.task, self.data, validation)

    def variables(self) -> dict[str, Any]:
        """Trained variables."""
        return self.run.variables(net_module.template(self.net))

    def evaluate(self, variables: dict[str, Any] | None = None) -> float:
        """Test accuracy of the ANN in float32; by default with the weights as trained."""
        variables = self.variables() if variables is None else variables
        images, labels = self.data.test_images, self.data.test_labels
        return evaluate_ann(self.task, variables, images, labels, BATCH)["accuracy"]

    def simulate(self, console: Console) -> report.Results:
        """Convert, simulate, certify, add noise; write model, text files and results.json."""
        variables = self.variables()
        results = self._base(self.evaluate(variables))
        if self.config.precision != "fp32":
            snn = self._converted(variables, console)
            spiking, seconds = self._spiking(snn)
            proof = certify(snn, variables, self.data.test_images, progress="certifying")
            console.print(f"certificate: {proof}", highlight=False)
            self._text_files(spiking)
            found = outcome.spiking_fields(snn, spiking, proof, self.units)
            found["ann_accuracy"] = self.evaluate(snapped(variables, snn))
            as_trained = outcome.variant(accuracy=results.ann_accuracy)
            found["variants"] = {"ANN, weights as trained": as_trained}
            cost = (results.ann_accuracy or 0) - found["ann_accuracy"]
            console.print(f"the grid of the weights costs {100 * cost:.2f} points of accuracy")
            found["seconds"] = {**(results.seconds or {}), **seconds}
            found["noise"] = self._noise(snn)
            results = dataclasses.replace(results, **found)
        report.write_results(self.run.folder, results)
        return results

    def _converted(self, variables: dict[str, Any], console: Console) -> Spiking:
        snn = convert(variables, self.arch, k=self.config.k, bound=self.config.B, encoding=PIXELS)
        store.save(snn, self.run.folder / "snn.npz")
        for one in snn.report:
            console.print(
                f"{one.site}: kernel {one.kernel}; {one.norm}; {one.flipped} channels flipped, "
                f"{one.constant} constant; |sum| <= {one.bound:,} in {one.accumulator}",
                highlight=False,
            )
        return snn

    def _spiking(self, snn: Spiking) -> tuple[Evaluation, dict[str, float]]:
        images, labels = self.data.test_images, self.data.test_labels
        began = time.perf_counter()
        options: dict[str, Any] = {"batch_size": BATCH, "devices": devices(self.config, BATCH)}
        evaluate_snn(snn, images[:BATCH], **options)
        first = time.perf_counter() - began
        began = time.perf_counter()
        evaluate_snn(snn, images[:BATCH], **options)
        again = time.perf_counter() - began
        began = time.perf_counter()
        found = evaluate_snn(snn, images, labels, progress="simulating", **options)
        simulated = time.perf_counter() - began
        return found, {"compile": max(first - again, 0.0), "simulate": simulated}

    def _base(self, accuracy: float) -> report.Results:
        """What every setting reports, spiking or not."""
        mnist = self.data.name == "mnist" and self.config.limit_test is None
        full = self.config.precision == "fp32"
        records = report.read_jsonl(self.run.folder / "metrics.jsonl", "epoch")
        return report.Results(
            experiment="mnist_lenet",
            system="scatter_gather",
            dataset=self.data.name,
            setting=self.config.setting,
            epochs_run=records[-1]["epoch"] if records else 0,
            float_ann_accuracy=accuracy if full else None,
            ann_accuracy=None if full else accuracy,
            ann_macs_per_image=outcome.macs_driven_by_spikes(self.arch),
            seconds={"compile": None, "train": seconds_of(records), "simulate": None},
            precision="float32" if full else "integer spikes and weights, exact sums",
            paper=PAPER.get(self.config.setting) if mnist else None,
            seed=self.config.seed,
            **outcome.environment_fields(),
        )

    def _text_files(self, spiking: Evaluation) -> None:
        """The original's three files: correct images, spikes, operations on the chip, per batch."""
        starts = np.arange(0, spiking.images, BATCH)
        right = (spiking.predictions[-1] == self.data.test_labels).astype(np.int64)
        factor = SYNAPSES_ON_CHIP * self.units
        report.write_per_batch(
            self.run.folder,
            np.add.reduceat(right, starts),
            np.add.reduceat(spiking.per_image_spikes, starts),
            np.add.reduceat(spiking.per_image_operations * factor, starts),
        )

    def _noise(self, snn: Spiking) -> list[dict[str, Any]]:
        """Accuracy with the encoder's spikes deleted, for every ratio and seed, in one program."""
        if not self.config.noise_ratio:
            return []
        keys = jax.random.split(jax.random.key(self.config.seed), self.config.noise_seeds)
        found = sweep(
            snn,
            self.data.test_images,
            self.data.test_labels,
            noise=self.config.noise_ratio,
            keys=keys,
            site=plan(self.arch)[0].name,
            progress="noise",
        )
        accuracies = np.asarray(found.accuracy)[..., 0].tolist()
        ratios = zip(self.config.noise_ratio, accuracies, strict=True)
        return [{"ratio": ratio, "accuracy": row} for ratio, row in ratios]
