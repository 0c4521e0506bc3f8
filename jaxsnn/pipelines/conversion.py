"""What every system shares that trains a quantised ANN and converts it: one setting's experiment.

A system says which network it is, how it is converted, and what its original wrote; the stages
train, evaluate, simulate (convert, simulate, certify, add noise) and plot stand here.
"""

import dataclasses
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from rich.console import Console

from jaxsnn import figures, neurons, preprocess, quant, report, store
from jaxsnn import net as net_module
from jaxsnn.arch import Arch, plan
from jaxsnn.certify import certify
from jaxsnn.classify import classification
from jaxsnn.config import Conversion
from jaxsnn.convert import snapped
from jaxsnn.data import Dataset
from jaxsnn.encode import Encoding
from jaxsnn.evaluation import Evaluation
from jaxsnn.evaluation import evaluate as evaluate_snn
from jaxsnn.net import Net
from jaxsnn.neurons import Neuron
from jaxsnn.pipelines import outcome
from jaxsnn.pipelines.outcome import Counting
from jaxsnn.pipelines.run import (
    Run,
    devices,
    held_out,
    read_data,
    seconds_of,
    task_data,
    train_run,
)
from jaxsnn.preprocess import Preprocessing
from jaxsnn.sitemap import SiteMap, hidden
from jaxsnn.spiking import Spiking
from jaxsnn.sweep import sweep
from jaxsnn.train import evaluate as evaluate_ann

Paper = dict[str, Any]


class Experiment(ABC):
    """One setting on one data set: its data, network and folder.

    Attributes:
        system: name of the published system.
        network: settings that say which network and data it is; later stages need them as trained.
        most: images per compiled call, at most.
        heads: whether synaptic operations and MACs count those of the readout.
    """

    system: ClassVar[str]
    network: ClassVar[tuple[str, ...]] = ("k", "precision", "dataset")
    most: ClassVar[int] = 200
    heads: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        """Read the data and refuse what does not fit; nothing is written."""
        self.config: Any = config
        self.data: Dataset = read_data(config)
        self.preprocessing = self.recipe()
        self.arch = dataclasses.replace(
            self.architecture(),
            input_shape=self.preprocessing.shape(self.data.input_shape),
            classes=self.data.classes,
        )
        plan(self.arch)  # refuses images that the network cannot take
        full = config.precision == "fp32"
        activation = neurons.relu() if full else self.activation()
        weights = SiteMap(quant.full_precision()) if full else self.weights()
        self.net = Net(self.arch, hidden(activation), weights)
        self.task = classification(self.net, self.preprocessing)
        identity = (*self.network, "seed", "batch_size", "limit_train", "validation")
        self.run = Run(Path(config.out) / config.setting, config, identity, self.network)

    # ------------------------------------------------------------ what a system says

    @abstractmethod
    def architecture(self) -> Arch:
        """The network, for any input shape and number of classes."""

    @abstractmethod
    def activation(self) -> Neuron:
        """The quantised ANN's activation."""

    @abstractmethod
    def converted(self, variables: Mapping[str, Any]) -> Spiking:
        """The spiking network."""

    @abstractmethod
    def text_files(self, spiking: Evaluation) -> None:
        """Write the original's text files."""

    @abstractmethod
    def paper(self) -> Paper | None:
        """The paper's figures of this setting on this data set."""

    def weights(self) -> SiteMap[quant.WeightQuantiser]:
        """The quantised ANN's weight quantisers: none."""
        return SiteMap(quant.full_precision())

    def recipe(self) -> Preprocessing:
        """From images to input units: grey values as they are."""
        return preprocess.unchanged()

    @property
    def counting(self) -> Counting:
        """How spikes and operations are counted."""
        return Counting(heads=self.heads)

    @property
    def precision(self) -> str:
        """What the spiking network computes with."""
        return "integer spikes and weights, exact sums"

    @property
    def horizon(self) -> dict[str, Any]:
        """Arguments ``steps`` and ``settle`` of a simulation: one step."""
        return {"steps": 1}

    @property
    def settles(self) -> bool:
        """Whether a simulation ends when all is silent."""
        return bool(self.horizon.get("settle"))

    @property
    def certified(self) -> int | None:
        """Number of test images for the certificate; None: all."""
        return None

    @property
    def noise_site(self) -> str:
        """Where noise enters: the encoder's spikes."""
        return plan(self.arch)[0].name

    # ------------------------------------------------------------ stages

    def train(self) -> None:
        """Train, or resume."""
        validation = held_out(len(self.data.train_images), self.config.validation)
        train_run(self.run, self.task, task_data(self.data, validation))

    def variables(self) -> dict[str, Any]:
        """Trained variables."""
        return self.run.variables(net_module.template(self.net))

    def evaluate(self, variables: Mapping[str, Any] | None = None) -> float:
        """Test accuracy of the ANN in float32; by default with the weights as trained."""
        variables = self.variables() if variables is None else variables
        task = classification(self.net, preprocess.unchanged(self.encoding))
        found = evaluate_ann(task, variables, self.images, self.data.test_labels, self.batch)
        return found["accuracy"]

    @property
    def batch(self) -> int:
        """Images per compiled call, in evaluation and simulation; a multiple of ``--devices``."""
        share = self.config.devices or 1
        return min(self.most, -(-len(self.data.test_images) // share) * share)

    @property
    def encoding(self) -> Encoding:
        """What one unit of the input is worth."""
        return self.preprocessing.encoding

    @functools.cached_property
    def images(self) -> np.ndarray:
        """The test images as the network sees them, in whole units."""
        return preprocess.units_of(self.preprocessing, self.data.test_images)

    def simulate(self, console: Console) -> report.Results:
        """Convert, simulate, certify, add noise; write model, text files and results.json."""
        variables = self.variables()
        results = self._base(self.evaluate(variables))
        if self.config.precision != "fp32":
            snn = self.converted(variables)
            store.save(snn, self.run.folder / "snn.npz")
            _print_report(snn, console)
            found, seconds = self._spiking(snn)
            fields = self._compared(snn, variables, found, results, console)
            fields["seconds"] = {**(results.seconds or {}), **seconds}
            # Noisy images may settle later.
            fields["noise"] = self._noise(snn, found.steps * (2 if self.settles else 1))
            results = dataclasses.replace(results, **fields)
        report.write_results(self.run.folder, results)
        return results

    def _spiking(self, snn: Spiking) -> tuple[Evaluation, dict[str, float]]:
        """Simulate the test set, write the text files; what came out, and the seconds it took."""
        images, labels = self.images, self.data.test_labels
        share = devices(self.config, self.batch)
        options: dict[str, Any] = {"batch_size": self.batch, "devices": share, **self.horizon}
        times: list[float] = []
        for _ in range(2):
            began = time.perf_counter()
            evaluate_snn(snn, images[: self.batch], **options)
            times.append(time.perf_counter() - began)
        began = time.perf_counter()
        found = evaluate_snn(snn, images, labels, progress="simulating", **options)
        simulated = time.perf_counter() - began
        self.text_files(found)
        return found, {"compile": max(times[0] - times[1], 0.0), "simulate": simulated}

    def _compared(
        self,
        snn: Spiking,
        variables: dict[str, Any],
        spiking: Evaluation,
        results: report.Results,
        console: Console,
    ) -> dict[str, Any]:
        """Fields of results.json from simulation and certificate."""
        images = self.images[: self.certified]
        proof = certify(
            snn, variables, images, batch_size=self.batch, progress="certifying", **self.horizon
        )
        console.print(f"certificate: {proof}", highlight=False)
        fields = outcome.spiking_fields(snn, spiking, proof, self.counting, self.settles)
        fields["ann_accuracy"] = self.evaluate(snapped(variables, snn))
        as_trained = outcome.variant(accuracy=results.ann_accuracy)
        fields["variants"] = {"ANN, weights as trained": as_trained}
        cost = (results.ann_accuracy or 0) - fields["ann_accuracy"]
        console.print(f"the grid of the weights costs {100 * cost:.2f} points of accuracy")
        return fields

    def _base(self, accuracy: float) -> report.Results:
        """What every setting reports, spiking or not."""
        full = self.config.precision == "fp32"
        records = report.read_jsonl(self.run.folder / "metrics.jsonl", "epoch")
        return report.Results(
            experiment=self.config.experiment,
            system=self.system,
            dataset=self.data.name,
            setting=self.config.setting,
            epochs_run=records[-1]["epoch"] if records else 0,
            float_ann_accuracy=accuracy if full else None,
            ann_accuracy=None if full else accuracy,
            ann_macs_per_image=outcome.macs_driven_by_spikes(self.arch, self.heads),
            seconds={"compile": None, "train": seconds_of(records), "simulate": None},
            precision="float32" if full else self.precision,
            paper=self.paper() if self.config.limit_test is None else None,
            seed=self.config.seed,
            **outcome.environment_fields(),
        )

    def _noise(self, snn: Spiking, steps: int) -> list[dict[str, Any]]:
        """Accuracy under noise after ``steps``, for every ratio and seed, in one program."""
        if not self.config.noise_ratio:
            return []
        found = sweep(
            snn,
            self.images,
            self.data.test_labels,
            noise=self.config.noise_ratio,
            keys=jax.random.split(jax.random.key(self.config.seed), self.config.noise_seeds),
            site=self.noise_site,
            steps=steps,
            progress="noise",
        )
        accuracies = np.asarray(found.accuracy)[..., 0].tolist()
        ratios = zip(self.config.noise_ratio, accuracies, strict=True)
        return [{"ratio": ratio, "accuracy": row} for ratio, row in ratios]


def run(experiment: Callable[[Any], Experiment], stage: str, config: Conversion) -> None:
    """Run one stage, or all of them, of one setting.

    Raises:
        ValueError: bad data, a missing or mismatched checkpoint; said before work starts.
    """
    console = Console()
    if stage == "plot":
        _plot(config, console)
        return
    one = experiment(config)
    if stage in ("all", "train"):
        one.train()
    if stage in ("all", "evaluate"):
        accuracy = one.evaluate()
        console.print(f"{config.setting}: ANN test accuracy {accuracy:.2%}", highlight=False)
    if stage in ("all", "simulate"):
        one.simulate(console)
        report.print_table(report.scan_results(config.out), f"{config.dataset}: all settings")
    if stage == "all":
        _plot(config, console)


def _plot(config: Conversion, console: Console) -> None:
    for name, paths in figures.draw_all(config.out, config.compared).items():
        console.print(f"{name}: {paths[0]}", highlight=False)


def _print_report(snn: Spiking, console: Console) -> None:
    for one in snn.report:
        console.print(
            f"{one.site}: kernel {one.kernel}; {one.norm}; {one.flipped} channels flipped, "
            f"{one.constant} constant; |sum| <= {one.bound:,} in {one.accumulator}",
            highlight=False,
        )
