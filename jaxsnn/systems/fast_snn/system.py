"""Fast-SNN: progressively quantised networks, signed integrate-and-fire, layer-wise fine-tuning.

Hu, Zheng, Jiang and Pan, Fast-SNN: Fast Spiking Neural Network by Converting Quantized ANN, IEEE
TPAMI 45(12), 2023: AlexNet and VGG11 of 32, 4, 3 and 2 bits. Stages: train, evaluate, snn (convert,
simulate, certify), finetune, plot, and progressive: all of it for every width.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jaxsnn import neurons
from jaxsnn.arch import zoo
from jaxsnn.arch.notation import Arch
from jaxsnn.conversion import methods
from jaxsnn.conversion.convert import convert
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.conversion.weights import quantised_weights
from jaxsnn.equality.certify import certify
from jaxsnn.equality.gaps import gaps
from jaxsnn.errors import UserError
from jaxsnn.exchange import saved as saved_module
from jaxsnn.inputs.preprocess import Preprocessing
from jaxsnn.io import arrays
from jaxsnn.io.arrays import load_params
from jaxsnn.io.files import read_text
from jaxsnn.io.terminal import show
from jaxsnn.network import net as net_module
from jaxsnn.network import weight_quantisers
from jaxsnn.network.initialisers import FanInUniform, FanOutNormal, Initialiser
from jaxsnn.network.per_site import SiteMap
from jaxsnn.neurons import levels
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.report.figures import bars_by_width, layers
from jaxsnn.report.figures.draw import Draw, Figures
from jaxsnn.report.results import Results, Variant, read_results, write_results
from jaxsnn.simulation.totals import Evaluation
from jaxsnn.systems import recipes, result_fields, timing
from jaxsnn.systems.config_file import differences, from_json
from jaxsnn.systems.experiment import Experiment, Paper
from jaxsnn.systems.fast_snn import records
from jaxsnn.systems.fast_snn import stages as stages_module
from jaxsnn.systems.run_folder import (
    held_out,
    own_devices,
    start_from,
    task_data,
    train_run,
    weights_at,
)
from jaxsnn.training import finetune, schedules

ARCHITECTURES = {
    "alex": zoo.fast_alexnet,
    "vgg11": zoo.fast_vgg11,
    "resnet18": zoo.fast_resnet18,
}
RESNET_CLIP = 6.0  # where the clips of a ResNet start
WEIGHT_BITS = 7  # of its weights, which int8 holds
WIDTHS: dict[str, Draw] = {
    "accuracy": bars_by_width.accuracy,
    "sparsity": bars_by_width.sparsity,
    "sops": bars_by_width.sops,
}
LONGEST = 40  # a settling network is given so many times 2^b - 1 steps; it needs a fraction
# Accuracy on MNIST and LFW of the quantised ANN, and of unsigned, signed and fine-tuned SNN.
QUANTISED: dict[tuple[str, str, int], tuple[float, float, float, float]] = {
    ("mnist", "alex", 3): (0.9898, 0.7892, 0.9890, 0.9889),
    ("mnist", "alex", 2): (0.9893, 0.1462, 0.6272, 0.8178),
    ("mnist", "vgg11", 3): (0.9775, 0.9698, 0.9746, 0.9754),
    ("mnist", "vgg11", 2): (0.9818, 0.9710, 0.9811, 0.9818),
    ("lfw", "alex", 4): (0.9623, 0.5409, 0.9732, 0.9772),
    ("lfw", "alex", 3): (0.9905, 0.6827, 0.9841, 0.9881),
    ("lfw", "vgg11", 4): (0.9436, 0.1151, 0.9277, 0.9453),
    ("lfw", "vgg11", 3): (0.9711, 0.2622, 0.9700, 0.9884),
}


def published(dataset: str, config: Any) -> Paper | None:
    """What the original reports of a setting on a data set; None where it reports nothing."""
    where = dataset, config.arch, config.bit
    if where not in QUANTISED:
        return None
    names = ("ann_accuracy", "unsigned_accuracy", "snn_accuracy", "finetuned_accuracy")
    return dict(zip(names, QUANTISED[where], strict=True))


class FastSnn(Experiment):
    """One width of a network on one data set."""

    system = "fast_snn"
    network = ("arch", "bit", "dataset")
    figures = Figures(
        apart=WIDTHS,
        joined=WIDTHS,
        recorded={"gaps": layers.gaps, "finetune": layers.finetune},
    )
    training = (*Experiment.training, "weight_decay", "decay_clips", "init")
    conversion = ("negative_threshold",)
    most = 100
    heads = True
    stages = stages_module.STAGES
    every = stages_module.EVERY
    given: Path | None = None  # weights of another run, instead of this one's

    # ------------------------------------------------------------ what this system is

    def architecture(self) -> Arch:
        """The original's network."""
        return ARCHITECTURES[self.config.arch]

    def activation(self) -> Neuron:
        """Quantised to ``2^b`` levels below a learned clip."""
        if self.config.arch == "resnet18":
            return neurons.clipped_relu(self.config.bit, clip=RESNET_CLIP)
        return neurons.clipped_relu(self.config.bit)

    def weights(self) -> SiteMap[weight_quantisers.WeightQuantiser]:
        """Additive powers of two or ternary, 8 bits in the first and the last layer; or floats."""
        if self.config.arch == "resnet18":
            return SiteMap(weight_quantisers.full_precision())
        return quantised_weights(self.config.bit)

    def initialiser(self) -> Initialiser:
        """As the original starts each network."""
        return FanInUniform() if self.config.arch == "alex" else FanOutNormal()

    def recipe(self) -> Preprocessing:
        """Standardised with the data set's numbers; cropped, mirrored, turned in training."""
        return recipes.fast_snn(self.data.name)

    def converted(self, variables: Mapping[str, Any], variant: str = "signed") -> Spiking:
        """Every neuron integrates and fires."""
        method = methods.signed_if(
            bits=self.config.bit,
            signed=variant != "unsigned",
            settling=variant == "settling",
            negative_threshold=self.config.negative_threshold,
            weight_bits=WEIGHT_BITS if self.config.arch == "resnet18" else None,
        )
        return convert(variables, self.arch, method, given=self.net, encoding=self.encoding)

    @property
    def steps(self) -> int:
        """Time steps that the input is shown for, ``2^b - 1``."""
        return levels.levels(self.config.bit)

    def text_files(self, spiking: Evaluation) -> None:
        """The original writes none."""

    def paper(self) -> Paper | None:
        """The original's accuracies."""
        return published(self.data.name, self.config)

    # ------------------------------------------------------------ stages

    def train(self) -> None:
        """Train, or resume."""
        config, task = self.config, self.task
        if config.init and not config.resume:
            template = net_module.template(self.net)
            task = start_from(task, config.init, template, newly=("clip", "kernel_clip"))
        validation = held_out(len(self.data.train_images), config.validation)
        optimiser = functools.partial(
            schedules.sgd, weight_decay=config.weight_decay, decay_clips=config.decay_clips
        )
        train_run(self.run, task, task_data(self.data, validation), optimiser=optimiser)

    def take(self, place: str) -> None:
        """Take the weights of another run, of the same network, width and data set.

        Raises:
            UserError: they are of others, or this setting's folder holds a run of its own.
        """
        path, own = weights_at(place), self.run.folder
        if path.parent.resolve() == own.resolve():
            return
        if (own / "config.json").is_file():
            raise UserError(f"{own} holds its own run; leave --init out, or give another --out")
        beside = path.parent / "config.json"
        if beside.is_file():
            saved, _ = from_json(type(self.config), read_text(beside), str(beside), self.network)
            found = differences(saved, self.config, self.network, beside)
            if found:
                raise UserError("these weights were trained differently: " + "; ".join(found))
        self.given = path

    def variables(self) -> dict[str, Any]:
        """Trained variables."""
        expected = net_module.template(self.net)
        return load_params(self.given, expected) if self.given else self.run.variables(expected)

    def _of(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """What results.json is made from: weights, test images and settings of the simulation."""
        config = self.config
        return {
            "weights": arrays.checksum(variables),
            "test_examples": len(self.data.test_labels),
            **(self.conversion_settings or {}),
            "certify": config.certify,
        }

    @property
    def simulated(self) -> bool:
        """Whether results.json was made from these weights, with every variant asked for."""
        known = records.simulated_alike(self.run.folder, self._of(self.variables()))
        return bool(known) and set(self.asked) <= set(known["variants"])

    @property
    def asked(self) -> tuple[str, ...]:
        """The variants to simulate; a network of 32 bits has its accuracy alone."""
        return () if self.config.bit == 32 else self.config.variants

    def simulate(self, console: Console, asked: tuple[str, ...] | None = None) -> Results:
        """Convert, simulate every variant that is asked for, certify; write results.json."""
        asked = self.asked if asked is None else asked
        variables = self.variables()
        results = self._base(self.evaluate(variables))
        fields: dict[str, Any] = {}
        folder, of = self.run.folder, self._of(variables)
        alike = bool(records.simulated_alike(folder, of))
        earlier = read_results(folder / "results.json") if alike else None
        variants = {one.kind: one for one in (earlier and earlier.variants) or []}
        for name in asked:
            snn, horizon = self.converted(variables, name), self._horizon(name)
            found, seconds = self._simulated(snn, horizon)
            variants[name] = self._variant(snn, found, name)
            proof = self._certified(snn, variables, name, console)
            records.keep_certificate(folder, name, proof, beside=alike or (name,) != asked[:1])
            if name == "signed":
                saved_module.save(snn, folder / "snn.npz")
                fields = result_fields.spiking_fields(snn, found, proof, self.counting)
                fields["seconds"] = {**(results.seconds or {}), **seconds}
                self._explained(snn, variables, console)
        if not fields and earlier is not None:
            results = earlier
        results = dataclasses.replace(results, **fields, variants=list(variants.values()) or None)
        if set(variants) - {"unsigned"}:  # unsigned neurons have no negative threshold
            results = dataclasses.replace(results, conversion=self.conversion_settings)
        write_results(folder, results)
        records.note_simulated(folder, of, asked)
        return results

    def _has_signed(self, variables: Mapping[str, Any]) -> bool:
        known = records.simulated_alike(self.run.folder, self._of(variables))
        return "signed" in known.get("variants", ())

    def _is_tuned(self, tuner: finetune.Tuner, labels: np.ndarray) -> bool:
        alike = records.tuned_alike(self.run.folder, records.identity(tuner, labels))
        return alike and records.reported(self.run.folder)

    def _horizon(self, name: str) -> dict[str, Any]:
        """Arguments ``steps`` and ``settle`` of a variant's simulation."""
        if name == "settling":
            return {"steps": LONGEST * self.steps, "settle": True}
        return {"steps": self.steps}

    def _simulated(
        self, snn: Spiking, horizon: Mapping[str, Any]
    ) -> tuple[Evaluation, dict[str, float]]:
        """Simulate the test set; what came out, and the seconds it took."""
        share = own_devices(self.config, self.batch)
        options = {"batch_size": self.batch, "devices": share, **horizon}
        tested = lambda rows: self.images[rows], self.data.test_labels
        return timing.timed(snn, *tested, **options)

    def _variant(self, snn: Spiking, found: Evaluation, name: str) -> Variant:
        settling = name == "settling"
        fields = result_fields.spiking_fields(snn, found, None, self.counting, settling)
        return Variant(
            kind=name,
            accuracy=fields["snn_accuracy"],
            steps=fields["last_spike_step"] if settling else found.steps,
            spikes_per_image=fields["spikes_per_image"],
            sops_per_image=fields["sops_per_image"],
            energy_pj_per_image=fields["energy_pj_per_image"],
        )

    def _certified(self, snn: Spiking, variables: Any, name: str, console: Console) -> Any:
        """Compare with the quantised ANN, neuron by neuron."""
        images = self.images[: self.config.certify]
        size = min(self.batch, len(images))
        horizon = self._horizon(name)
        proof = certify(snn, variables, images, batch_size=size, progress="certifying", **horizon)
        show(f"{name}, certificate: {proof}", console)
        return proof

    def _explained(self, snn: Spiking, variables: Any, console: Console) -> None:
        """Say how each layer was folded, and where it departs from the ANN: gaps.json."""
        timing.print_report(snn, console)
        images = self.images[: self.config.certify]
        split = gaps(snn, variables, images, steps=self.steps, progress="gaps")
        records.write_gaps(self.run.folder, split, console)

    def finetune(self, console: Console) -> None:
        """Fine-tune layer by layer; the tuned network, and its variant in results.json."""
        variables, config = self.variables(), self.config
        if config.bit == 32:
            raise UserError("--bit 32: a network of 32 bits is not converted; fine-tune 4, 3 or 2")
        held = held_out(len(self.data.train_images), config.validation)
        images, labels, _, _ = task_data(self.data, held)
        settings = finetune.Settings(
            bits=config.bit,
            epochs=config.num_epochs,
            batch_size=min(config.batch_size, len(images)),
            decay_clips=config.decay_clips,
            negative_threshold=config.negative_threshold,
            force=config.force,
            seed=config.seed,
        )
        tuner = finetune.Tuner(self.net, variables, self.preprocessing, settings)
        if not self._has_signed(variables):
            self.simulate(console, ("signed",))  # the accuracy before
        elif config.resume and self._is_tuned(tuner, labels):
            show(f"{self.run.folder}: already fine-tuned", console)
            return
        tuned = records.tune(self.run.folder, tuner, images, labels, config.resume)
        snn = self.converted(tuned.variables)
        saved_module.save(snn, self.run.folder / "snn_finetuned.npz")
        found, _ = self._simulated(snn, self._horizon("signed"))
        variant = dataclasses.replace(self._variant(snn, found, "signed"), kind="fine-tuned")
        records.record(self.run.folder, tuner, labels, tuned, variant, console)
