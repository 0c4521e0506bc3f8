"""BayesianSpikeFusion: an early classifier as prior, the final classifier's spikes as evidence.

Habara, Sato and Awano, Frontiers in Neuroscience 18, 2024: VGG and ResNet of ReLUs with one early
classifier become rate-coded networks. Stages: train, evaluate, ann2snn (percentiles), tune (choose
alpha on training images), simulate (the test set), stop (each image by itself), plot.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from rich.console import Console

from jaxsnn import neurons
from jaxsnn.arch import zoo
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import head_sites
from jaxsnn.conversion import methods, percentiles
from jaxsnn.conversion.convert import convert
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.data.splits import limited_rows
from jaxsnn.errors import UserError
from jaxsnn.exchange import saved as saved_module
from jaxsnn.inputs.preprocess import Preprocessing, units_of
from jaxsnn.io import files, processes
from jaxsnn.io.progress import batches
from jaxsnn.io.terminal import show
from jaxsnn.network import net as net_module
from jaxsnn.network.initialisers import FanInUniform, Initialiser
from jaxsnn.network.jitted import jitted
from jaxsnn.network.net import Net
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.report.figures import accuracy
from jaxsnn.report.figures.draw import Figures
from jaxsnn.report.results import Results, Variant, write_results
from jaxsnn.simulation.totals import Evaluation
from jaxsnn.systems import recipes, result_fields
from jaxsnn.systems.bayesian_spike_fusion import figures, stop_rule
from jaxsnn.systems.bayesian_spike_fusion import report as bayesian_spike_fusion_report
from jaxsnn.systems.bayesian_spike_fusion import stages as bayesian_spike_fusion_stages
from jaxsnn.systems.bayesian_spike_fusion.earlier_run import of_run
from jaxsnn.systems.bayesian_spike_fusion.published import published
from jaxsnn.systems.experiment import Experiment
from jaxsnn.systems.recipe_run import train_recipe
from jaxsnn.systems.run_folder import held_out, task_data
from jaxsnn.systems.setting import Horizon, Paper
from jaxsnn.systems.settings.bayesian_spike_fusion import BayesianSpikeFusion as Settings
from jaxsnn.systems.stages import COMMON, Request, Stage
from jaxsnn.training.early_loss_weight import Ramp, share_of_macs
from jaxsnn.training.one_pass import classification
from jaxsnn.training.train import Data
from jaxsnn.types import Variables

WITH_EXIT = "needs an early classifier; train with --ic_index 0 or more"


def _ann2snn(request: Request) -> None:
    request.one.ann2snn(request.console)


def _tune(request: Request) -> None:
    if request.config.exit_block >= 0 or request.stage == "tune":
        request.one.tune(request.console)


def _evaluate(request: Request) -> None:
    COMMON["evaluate"].work(_of_run(request))


def _simulate(request: Request) -> None:
    COMMON["simulate"].work(_of_run(request))


def _of_run(request: Request) -> Request:
    """The same with the settings of the run that is asked for, which are what is printed."""
    if not request.config.run:
        return request
    return dataclasses.replace(request, config=of_run(request.config))


def _stop(request: Request) -> None:
    if request.config.exit_block >= 0 or request.stage == "stop":
        request.one.stop(request.console)


class BayesianSpikeFusion(Experiment[Settings]):
    """One network on one data set."""

    system = "bayesian_spike_fusion"
    network = ("arch", "ic_index", "dataset")
    training = (*Experiment.training, "ic_weight")
    conversion = bayesian_spike_fusion_stages.CONVERSION
    most = 100
    heads = True
    figures = Figures(apart={"accuracy": accuracy.accuracy_over_time})
    stages: ClassVar[Mapping[str, Stage]] = {
        "train": COMMON["train"],
        "evaluate": Stage(COMMON["evaluate"].what, _evaluate),
        "ann2snn": Stage("normalise by percentiles; snn_<percentile>.npz", _ann2snn),
        "tune": Stage("simulate training images, choose alpha over time", _tune),
        "simulate": Stage("simulate the test images; spike trains, results.json", _simulate),
        "stop": Stage("simulate each test image until it is sure; stop.json", _stop),
        "certify": Stage(
            "compare rates with the normalised ANN; writes nothing",
            Experiment.stages["certify"].work,
        ),
        "plot": Stage("accuracy against energy, from files alone", COMMON["plot"].work),
    }
    every = ("train", "ann2snn", "tune", "simulate", "stop", "plot")

    def __init__(self, config: Settings) -> None:
        """Read the data and refuse what does not fit; nothing is written."""
        super().__init__(of_run(config))
        if config.run:
            self.run = dataclasses.replace(self.run, folder=Path(config.run))

    # ------------------------------------------------------------ what this system is

    def architecture(self) -> Arch:
        """The original's network with its early classifier."""
        return zoo.bsf(self.config.arch, self.config.exit_block)

    def activation(self) -> Neuron:
        """Rectified, in full precision."""
        return neurons.relu()

    def initialiser(self) -> Initialiser:
        """As the original starts."""
        return FanInUniform()

    def recipe(self) -> Preprocessing:
        """The original's standardisation; crops and mirrors of colour images in training."""
        recipe = self.config.training
        return recipes.bayesian_spike_fusion(self.data.name, recipe.flip, recipe.crop_radius)

    def converted(self, variables: Variables) -> Spiking:
        """Rates scaled by percentiles of the activations of training images."""
        config = self.config
        images, _ = self.training_images(config.calibration)
        (scales,) = percentiles.scales(
            self.net,
            variables,
            images,
            [100 * config.percentile],
            encoding=self.encoding,
            progress="percentiles",
        )
        method = methods.rate(
            scales=scales,
            initial=config.init_mem,
            delay=int(config.pipeline_delay),
            weight_bits=config.weight_bits or None,
            float_weights=not config.weight_bits,
            spiking_heads=True,  # the fusion, and the original's figures, count their spikes
            spiking_pools=True,  # as in the original
        )
        return convert(variables, self.arch, method, trained=self.net, encoding=self.encoding)

    def text_files(self, spiking: Evaluation) -> None:
        """Those of the original are written where their numbers are found."""

    def paper(self) -> Paper | None:
        """The paper's saving of energy at equal accuracy."""
        return published(self.data.name, self.config)

    @property
    def horizon(self) -> Horizon:
        """So many steps: rates do not come to rest."""
        return Horizon(self.config.steps)

    def _refuse_floats(self, stage: str) -> None:
        """Rates are made of a network of full precision."""

    # ------------------------------------------------------------ stages

    def train(self) -> None:
        """Train, or resume; ann_acc.csv has the test accuracy of both heads, the final last."""
        config, task = self.config, self.task
        data = self._split()
        if config.exit_block >= 0:
            updates = max(len(data[1]) // config.training.batch_size, 1)
            goal = share_of_macs(self.arch) if config.ic_weight is None else config.ic_weight
            with processes.collective():
                epochs = self.run.phases(updates)[0]["epochs"]
            early = Ramp(goal, epochs, updates)
            task = classification(
                self.net,
                self.preprocessing,
                early,
                label_smoothing=config.training.label_smoothing,
                spike_penalty=config.training.spike_penalty,
            )
        train_recipe(self.run, task, self.net, self.preprocessing, data)
        accuracies = self.head_accuracies(self.net, self.variables())
        indices = [config.exit_block, -1] if config.exit_block >= 0 else [-1]
        rows = [f"{index},{right}\n" for index, right in zip(indices, accuracies, strict=True)]
        files.write_bytes(self.run.folder / "ann_acc.csv", "".join(rows).encode())

    def _split(self) -> Data:
        return task_data(self.data, held_out(len(self.data.train_images), self.config.validation))

    def training_images(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """So many training images in whole units, not augmented, and their labels."""
        images, labels, _, _ = self._split()
        rows = limited_rows(labels, count)
        return units_of(self.preprocessing, images[rows]), labels[rows]

    def head_accuracies(self, net: Net, variables: Variables, decode: bool = True) -> list[float]:
        """Test accuracy of every head of a network, the final one last."""
        hits = np.zeros(len(head_sites(net.arch)), np.int64)
        for rows, real in batches(len(self.images), self.batch):
            units = jnp.asarray(self.images[rows])
            shown = self.encoding.decode(units) if decode else units
            hits += np.asarray(_hits(net, variables, shown, self.data.test_labels[rows], real))
        return (hits / len(self.images)).tolist()

    def ann2snn(self, console: Console) -> None:
        """Convert the best weights; the test accuracy before and after in ann2snn_log.txt."""
        variables = self.variables()
        snn = self.converted(variables)
        saved_module.save(snn, self.run.folder / f"snn_{self.config.percentile}.npz")
        before = self.head_accuracies(self.net, variables)[-1]
        after = self.head_accuracies(percentiles.normalised_ann(snn), snn.variables, decode=False)
        lines = [
            f"test accuracy of the ANN: {before:.4f}",
            f"test accuracy of the normalised ANN: {after[-1]:.4f}",
            *(f"scale of {name}: {unit:.6g}" for name, unit in snn.units if name != "input"),
        ]
        text = "\n".join([*lines, ""])
        files.write_bytes(self.run.folder / "ann2snn_log.txt", text.encode())
        show("\n".join(lines[:2]), console)

    def tune(self, console: Console) -> None:
        """Choose alpha, and the rule that stops an image, on training images."""
        if self.config.exit_block < 0:
            raise UserError(f"ic_index=-1: the stage tune {WITH_EXIT}")
        images, labels = self.training_images(self.config.tune_images)
        variables = self.variables()
        network = bayesian_spike_fusion_stages.converted_from(self.config, variables)
        snn = self.converted(variables)
        bayesian_spike_fusion_stages.tune(
            self.run.folder, self.config, network, snn, images, labels, console
        )

    def simulate(self, console: Console) -> Results:
        """Simulate the test set; write spike trains and results.json."""
        variables = self.variables()
        snn = self.converted(variables)
        network = bayesian_spike_fusion_stages.converted_from(self.config, variables)
        tuned = stop_rule.tuned(self.run.folder, self.config)
        if tuned:  # refuses curves of another network before the work rather than behind it
            stop_rule.rule_of(self.run.folder, self.config, network)
        final_accuracy = self.head_accuracies(self.net, variables)[-1]
        folder = self.run.folder / self.config.simulated
        evaluation, seconds = bayesian_spike_fusion_stages.simulate(
            folder, self.config, network, snn, self.images, self.data.test_labels
        )
        fused = self.config.exit_block >= 0
        share = bayesian_spike_fusion_stages.undecided(folder, evaluation, fused)
        show(result_fields.undecided(share, evaluation.steps), console)
        names = self.config.setting, self.config.simulated
        bayesian_spike_fusion_report.describe(
            folder, names, self.arch, final_accuracy, self.config.target
        )
        fields = result_fields.spiking_fields(snn, evaluation, None, self.counting)
        fields["accuracy_settled_step"] = None  # a held input never comes to rest
        fields["undecided"] = share
        results = self._base(final_accuracy)
        fields["seconds"] = {**(results.seconds or {}), **seconds}
        variants: list[Variant] = []
        if tuned:
            series = bayesian_spike_fusion_report.read(folder)
            show(series.table(), console)
            variants = bayesian_spike_fusion_stages.variants(
                folder, self.config, series, evaluation
            )
        bits = self.config.weight_bits
        precision = f"{bits + 1}-bit weights, float32 potentials" if bits else "float32"
        results = dataclasses.replace(
            results,
            **fields,
            ann_accuracy=final_accuracy,
            conversion=self.conversion_settings,
            equality="approximate",
            variants=variants or None,
            precision=precision,
        )
        write_results(self.run.folder, results)
        return results

    def stop(self, console: Console) -> None:
        """Simulate the test set, each image until it is sure, beside the whole simulation."""
        if self.config.exit_block < 0:
            raise UserError(f"ic_index=-1: the stage stop {WITH_EXIT}")
        variables = self.variables()
        network = bayesian_spike_fusion_stages.converted_from(self.config, variables)
        snn, labels = self.converted(variables), self.data.test_labels
        stop_rule.stop(self.run.folder, self.config, network, snn, self.images, labels, console)

    @classmethod
    def draw(cls, config: Settings) -> dict[str, Path]:
        """Draw all figures from files of earlier runs alone; a picture of each, by name."""
        drawn = super().draw(config) if not config.exps else {}
        return drawn | figures.draw_all(config)


@jitted("net")
def _hits(
    net: Net, variables: Variables, images: Array, labels: ArrayLike, real: ArrayLike
) -> Array:
    """Right predictions of every head among the first ``real`` images, int32 ``[heads]``."""
    readouts = net_module.forward(net, variables, images).readouts
    kept = jnp.arange(len(images)) < real
    return jnp.stack([jnp.sum((jnp.argmax(one[-1], -1) == labels) & kept) for one in readouts])
