"""What every system shares that trains a quantised ANN and converts it: one setting's experiment.

A system says which network it is, how it is converted, and what its original wrote; the stages
train, evaluate, simulate (convert, simulate, certify, add noise), certify, keep and plot stand
here.
"""

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from rich.console import Console

from jaxsnn import neurons
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.convert import snapped
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.data.base import Dataset
from jaxsnn.equality.certificate import Certificate
from jaxsnn.equality.certify import certify
from jaxsnn.errors import UserError
from jaxsnn.exchange import saved
from jaxsnn.inputs import preprocess
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.inputs.preprocess import Preprocessing
from jaxsnn.io import processes
from jaxsnn.io.arrays import unflatten, worth
from jaxsnn.io.terminal import show
from jaxsnn.network import net as net_module
from jaxsnn.network import weight_quantisers
from jaxsnn.network.arithmetic import Arithmetic, compute_of, training_arithmetic
from jaxsnn.network.initialisers import CutNormal, Initialiser
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import SiteMap, hidden
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.report.results import Results, Variant, write_results
from jaxsnn.simulation.totals import Evaluation
from jaxsnn.systems import result_fields, timing
from jaxsnn.systems.recipe_run import FIXED_PARTS, initialiser, train_recipe
from jaxsnn.systems.result_fields import Counting
from jaxsnn.systems.run_folder import KEPT, Run, held_out, own_devices, read_data, task_data
from jaxsnn.systems.settings.training import Trained
from jaxsnn.systems.stages import COMMON, Request, Stage, System
from jaxsnn.training.one_pass import classification
from jaxsnn.training.recipe import PAPER
from jaxsnn.training.task import evaluate as evaluate_ann

Paper = dict[str, Any]


def _certify(request: Request) -> None:
    request.one.certify(request.console)


def _keep(request: Request) -> None:
    request.one.keep(request.console)


class Experiment(System):
    """One setting on one data set: its data, network and folder.

    Attributes:
        network: settings that say which network and data it is; later stages need them as trained.
        most: images per compiled call, at most.
        heads: whether synaptic operations and MACs count those of the readout.
        training: further settings that the weights depend on; resuming needs them as they were.
        conversion: settings that the spiking network is made with, for results.json.
    """

    measured = "ANN test accuracy"
    stages: ClassVar[Mapping[str, Stage]] = {
        **COMMON,
        "certify": Stage("compare SNN and ANN neuron by neuron; writes nothing", _certify),
        "keep": Stage(f"write the weights as whole numbers, compressed: {KEPT}", _keep),
    }
    network: ClassVar[tuple[str, ...]] = ("k", "precision", "dataset")
    most: ClassVar[int] = 200
    heads: ClassVar[bool] = False
    training: ClassVar[tuple[str, ...]] = ("seed", "limit_train", "validation")
    conversion: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any) -> None:
        """Read the data and refuse what does not fit; nothing is written."""
        arithmetic, how, by_recipe = Arithmetic.PLAIN, PAPER, ()
        self.config: Any = config
        self.paper_implied = False
        if isinstance(config, Trained):  # other systems have one way to train, of their own
            arithmetic, how = training_arithmetic(config.compute), config.training
            by_recipe = ("compute", "recipe", *FIXED_PARTS)
            self.config = dataclasses.replace(config, compute=compute_of(arithmetic))
            self.paper_implied = config.paper_implied
        self.data: Dataset = read_data(config)
        self.preprocessing = self.recipe()
        self.arch = dataclasses.replace(
            self.architecture(),
            input_shape=self.preprocessing.shape(self.data.input_shape),
            classes=self.data.classes,
        )
        plan(self.arch)  # refuses images that the network cannot take
        full = self.config.precision == "fp32"
        activation = neurons.relu() if full else self.activation()
        weights = SiteMap(weight_quantisers.full_precision()) if full else self.weights()
        self.net = Net(
            self.arch,
            hidden(activation),
            weights,
            arithmetic=arithmetic,
            initialiser=initialiser(how, self.initialiser()),
            norm_momentum=how.norm_momentum,
        )
        self.task = classification(
            self.net,
            self.preprocessing,
            label_smoothing=how.label_smoothing,
            spike_penalty=how.spike_penalty,
        )
        identity = (*self.network, *self.training, *by_recipe)
        self.run = Run(Path(config.out) / config.setting, self.config, identity, self.network)

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

    def weights(self) -> SiteMap[weight_quantisers.WeightQuantiser]:
        """The quantised ANN's weight quantisers: none."""
        return SiteMap(weight_quantisers.full_precision())

    def initialiser(self) -> Initialiser:
        """Where training starts."""
        return CutNormal()

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
    def conversion_settings(self) -> dict[str, Any] | None:
        """The settings of `conversion` by name, None where there are none."""
        return {name: getattr(self.config, name) for name in self.conversion} or None

    @property
    def noise_site(self) -> str:
        """Where noise enters: the encoder's spikes."""
        return plan(self.arch)[0].name

    # ------------------------------------------------------------ stages

    def train(self) -> None:
        """Train, or resume."""
        if self.paper_implied and processes.first():
            print("--learning-rate or --schedule without --recipe: trained by the recipe paper")
        validation = held_out(len(self.data.train_images), self.config.validation)
        data = task_data(self.data, validation)
        train_recipe(self.run, self.task, self.net, self.preprocessing, data)

    def variables(self) -> dict[str, Any]:
        """Trained variables."""
        return self.run.variables(net_module.template(self.net))

    def evaluate(self, variables: Mapping[str, Any] | None = None, net: Net | None = None) -> float:
        """Test accuracy of the ANN in float32; by default as it was trained."""
        variables = self.variables() if variables is None else variables
        task = classification(net or self.net, preprocess.unchanged(self.encoding))
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

    def simulate(self, console: Console) -> Results:
        """Convert, simulate, certify, add noise; write model, text files and results.json."""
        variables = self.variables()
        results = self._base(self.evaluate(variables))
        if self.config.precision != "fp32":
            snn = self.converted(variables)
            saved.save(snn, self.run.folder / "snn.npz")
            timing.print_report(snn, console)
            found, seconds = self._spiking(snn)
            if share := found.undecided_share:
                show(result_fields.undecided(share, found.steps), console)
            fields = self._compared(snn, variables, found, results, console)
            fields["seconds"] = {**(results.seconds or {}), **seconds}
            steps = found.steps * (2 if self.settles else 1)  # noisy images may settle later
            fields["noise"] = timing.noisy(
                snn, self.images, self.data.test_labels, self.config, self.noise_site, steps
            )
            results = dataclasses.replace(results, **fields)
        write_results(self.run.folder, results)
        return results

    def _spiking(self, snn: Spiking) -> tuple[Evaluation, dict[str, float]]:
        """Simulate the test set, write the text files; what came out, and the seconds it took."""
        share = own_devices(self.config, self.batch)
        options: dict[str, Any] = {"batch_size": self.batch, "devices": share, **self.horizon}
        tested = lambda rows: self.images[rows], self.data.test_labels
        found, seconds = timing.timed(snn, *tested, **options)
        self.text_files(found)
        return found, seconds

    def _compared(
        self,
        snn: Spiking,
        variables: dict[str, Any],
        spiking: Evaluation,
        results: Results,
        console: Console,
    ) -> dict[str, Any]:
        """Fields of results.json from simulation and certificate."""
        proof = self._proof(snn, variables, console)
        fields = result_fields.spiking_fields(snn, spiking, proof, self.counting, self.settles)
        fields["conversion"] = self.conversion_settings
        fields["ann_accuracy"] = self.evaluate(snapped(variables, snn), snn.float_ann)
        fields["variants"] = [
            Variant(kind="ANN, weights as trained", accuracy=results.ann_accuracy)
        ]
        cost = (results.ann_accuracy or 0) - fields["ann_accuracy"]
        show(f"the grid of the weights costs {100 * cost:.2f} points of accuracy", console)
        return fields

    def _proof(self, snn: Spiking, variables: dict[str, Any], console: Console) -> Certificate:
        """The certificate of the first test images."""
        options: dict[str, Any] = {"batch_size": self.batch, "progress": "certifying"}
        images = self.images[: self.certified]
        proof = certify(snn, variables, images, **options, **self.horizon)
        show(f"certificate: {proof}", console)
        return proof

    def certify(self, console: Console) -> Certificate:
        """Convert and certify, and say the accuracy; nothing is written.

        Raises:
            UserError: a network of full precision.
        """
        self._refuse_floats("certify")
        variables = self.variables()
        snn = self.converted(variables)
        accuracy = self.evaluate(snapped(variables, snn), snn.float_ann)
        show(f"{self.config.setting}: {self.measured} {accuracy:.2%}", console)
        return self._proof(snn, variables, console)

    def keep(self, console: Console) -> Path:
        """Write kept.npz, which converts into the same network.

        Raises:
            UserError: it would not, or a network of full precision; nothing is written.
        """
        self._refuse_floats("keep")
        variables = self.variables()
        snn, path = self.converted(variables), self.run.folder / KEPT
        arrays, units = saved.whole_weights(variables, snn)
        again = self.converted(unflatten(arrays | worth(arrays, units)))
        if not _same(again, snn):
            raise UserError(
                f"{self.run.weights()} as whole numbers would convert into another network; keep "
                "the file as it is"
            )
        saved.save_weights(arrays, units, path)
        show(f"{path}: weights as whole numbers", console)
        return path

    def _refuse_floats(self, stage: str) -> None:
        if self.config.precision == "fp32":
            raise UserError(
                f"--precision fp32: a network of full precision is not converted, which leaves "
                f"nothing for the stage {stage}; leave the flag away"
            )

    def _base(self, accuracy: float) -> Results:
        """What every setting reports, spiking or not."""
        full = self.config.precision == "fp32"
        known = result_fields.run_fields(
            self.run, self.system, self.data.name, len(self.data.test_labels)
        )
        return Results(
            **known,
            float_ann_accuracy=accuracy if full else None,
            ann_accuracy=None if full else accuracy,
            ann_macs_per_image=result_fields.macs_driven_by_spikes(self.arch, self.heads),
            precision="float32" if full else self.precision,
            paper=self.paper() if self.config.limit_test is None else None,
        )


def _same(one: Spiking, other: Spiking) -> bool:
    """Whether two converted networks compute the same."""
    settings = [(snn.accumulators, snn.units, snn.encoding) for snn in (one, other)]
    alike = jax.tree.map(
        lambda a, b: a.dtype == b.dtype and np.array_equal(a, b), one.variables, other.variables
    )
    return settings[0] == settings[1] and jax.tree.all(alike)
