"""Fast-SNN: progressively quantised networks, signed integrate-and-fire, layer-wise fine-tuning.

Hu, Zheng, Jiang and Pan, Fast-SNN: Fast Spiking Neural Network by Converting Quantized ANN, IEEE
TPAMI 45(12), 2023: AlexNet and VGG11 of 32, 4, 3 and 2 bits. Stages: train, evaluate, snn (convert,
simulate, certify), finetune, plot, and progressive: all of it for every width.
"""

import dataclasses
from pathlib import Path

import numpy as np
from rich.console import Console

from jaxsnn import neurons
from jaxsnn.arch import zoo
from jaxsnn.arch.notation import Arch
from jaxsnn.conversion import methods
from jaxsnn.conversion.convert import convert
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.conversion.weights import quantised_weights
from jaxsnn.data.splits import redrawn
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
from jaxsnn.systems.experiment import Experiment
from jaxsnn.systems.fast_snn import records
from jaxsnn.systems.fast_snn import stages as stages_module
from jaxsnn.systems.fast_snn.published import published
from jaxsnn.systems.result_fields import Fields
from jaxsnn.systems.run_folder import held_out, task_data, weights_at
from jaxsnn.systems.setting import Horizon, Paper
from jaxsnn.systems.settings.fast_snn import FastSnn as Settings
from jaxsnn.training import finetune
from jaxsnn.types import JsonObject, Tree, Variables

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
DRAWING = ("train", "evaluate", "snn", "finetune")  # stages that draw a split, --split as_coded
LONGEST = 40  # a settling network is given so many times 2^b - 1 steps; it needs a fraction


class FastSnn(Experiment[Settings]):
    """One width of a network on one data set."""

    system = "fast_snn"
    network = ("arch", "bit", "dataset", "split")
    figures = Figures(
        apart=WIDTHS,
        joined=WIDTHS,
        recorded={"gaps": layers.gaps, "finetune": layers.finetune},
    )
    conversion = ("negative_threshold",)
    most = 100
    heads = True
    stages = stages_module.STAGES
    every = stages_module.EVERY
    weights_path: Path | None = None  # weights of another run, instead of this one's

    def __init__(self, config: Settings) -> None:
        """Read the data, of which each stage may draw its own split."""
        super().__init__(config)
        self._together = self.data

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
        recipe = self.config.training
        return recipes.fast_snn(self.data.name, recipe.flip, recipe.crop_radius)

    def converted(self, variables: Variables, variant: str = "signed") -> Spiking:
        """Every neuron integrates and fires."""
        method = methods.signed_if(
            bits=self.config.bit,
            signed=variant != "unsigned",
            settling=variant == "settling",
            negative_threshold=self.config.negative_threshold,
            weight_bits=WEIGHT_BITS if self.config.arch == "resnet18" else None,
        )
        return convert(variables, self.arch, method, trained=self.net, encoding=self.encoding)

    @property
    def steps(self) -> int:
        """Time steps that the input is shown for, ``2^b - 1``."""
        return levels.levels(self.config.bit)

    @property
    def certified(self) -> int | None:
        """Number of test images for a certificate; None: all."""
        return self.config.certify

    def text_files(self, spiking: Evaluation) -> None:
        """The original writes none."""

    def paper(self) -> Paper | None:
        """The original's accuracies."""
        return published(self.data.name, self.config)

    # ------------------------------------------------------------ stages

    def redraw(self, stage: str) -> None:
        """Draw a stage's training and test images anew, where every stage does."""
        if self.config.split == "as_coded":
            seed = self.config.seed, self.config.bit, DRAWING.index(stage)
            self.data = redrawn(self._together, seed)
            vars(self).pop("images", None)  # of another stage

    def train(self) -> None:
        """Train, or resume."""
        self.redraw("train")
        super().train()

    def take(self, place: str) -> None:
        """Take the weights of another run, of the same network, width and data set.

        Raises:
            UserError: they are of others, or this setting's folder holds a run of its own.
        """
        path, folder = weights_at(place), self.run.folder
        if path.parent.resolve() == folder.resolve():
            return
        if (folder / "config.json").is_file():
            raise UserError(f"{folder} holds its own run; leave --init out, or give another --out")
        beside = path.parent / "config.json"
        if beside.is_file():
            saved, _ = from_json(type(self.config), read_text(beside), str(beside), self.network)
            differing = differences(saved, self.config, self.network, beside)
            if differing:
                raise UserError("these weights were trained differently: " + "; ".join(differing))
        self.weights_path = path

    def variables(self) -> Tree:
        """Trained variables."""
        expected = net_module.template(self.net)
        return (
            load_params(self.weights_path, expected)
            if self.weights_path
            else self.run.variables(expected)
        )

    def _of(self, variables: Variables) -> JsonObject:
        """What results.json is made from: weights, test images and settings of the simulation."""
        config = self.config
        return {
            "weights": arrays.checksum(variables),
            "test_examples": len(self.data.test_labels),
            **(self.conversion_settings or {}),
            "certify": config.certify,
            **({"split": config.split} if config.split != "stored" else {}),
        }

    @property
    def simulated(self) -> bool:
        """Whether results.json was made from these weights, with every variant asked for."""
        earlier = records.simulated_alike(self.run.folder, self._of(self.variables()))
        return bool(earlier) and set(self.asked) <= set(earlier["variants"])

    @property
    def asked(self) -> tuple[str, ...]:
        """The variants to simulate; a network of 32 bits has its accuracy alone."""
        return () if self.config.bit == 32 else self.config.variants

    def simulate(self, console: Console, asked: tuple[str, ...] | None = None) -> Results:
        """Convert, simulate every variant that is asked for, certify; write results.json."""
        self.redraw("snn")
        asked = self.asked if asked is None else asked
        variables = self.variables()
        results = self._base(self.evaluate(variables))
        fields: Fields = {}
        folder, of = self.run.folder, self._of(variables)
        alike = bool(records.simulated_alike(folder, of))
        earlier = read_results(folder / "results.json") if alike else None
        variants = {one.kind: one for one in (earlier and earlier.variants) or []}
        for name in asked:
            snn, horizon = self.converted(variables, name), self._horizon(name)
            evaluation, seconds = self._simulated(snn, horizon)
            variants[name] = self._variant(snn, evaluation, name)
            proof = self._proof(snn, variables, console, horizon, name)
            records.keep_certificate(folder, name, proof, beside=alike or (name,) != asked[:1])
            if name == "signed":
                saved_module.save(snn, folder / "snn.npz")
                fields = result_fields.spiking_fields(snn, evaluation, proof, self.counting)
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

    def _has_signed(self, variables: Variables) -> bool:
        earlier = records.simulated_alike(self.run.folder, self._of(variables))
        return "signed" in earlier.get("variants", ())

    def _is_tuned(self, tuner: finetune.Tuner, labels: np.ndarray) -> bool:
        alike = records.tuned_alike(self.run.folder, records.identity(tuner, labels))
        return alike and records.reported(self.run.folder)

    def _horizon(self, name: str) -> Horizon:
        """How long a variant's simulation is."""
        if name == "settling":
            return Horizon(LONGEST * self.steps, settle=True)
        return Horizon(self.steps)

    def _variant(self, snn: Spiking, evaluation: Evaluation, name: str) -> Variant:
        settling = name == "settling"
        fields = result_fields.spiking_fields(snn, evaluation, None, self.counting, settling)
        return Variant(
            kind=name,
            accuracy=fields["snn_accuracy"],
            steps=fields["last_spike_step"] if settling else evaluation.steps,
            spikes_per_image=fields["spikes_per_image"],
            sops_per_image=fields["sops_per_image"],
            energy_pj_per_image=fields["energy_pj_per_image"],
        )

    def _explained(self, snn: Spiking, variables: Variables, console: Console) -> None:
        """Say how each layer was folded, and where it departs from the ANN: gaps.json."""
        timing.print_report(snn, console)
        images = self.images[: self.certified]
        split = gaps(snn, variables, images, steps=self.steps, progress="gaps")
        records.write_gaps(self.run.folder, split, console)

    def finetune(self, console: Console) -> None:
        """Fine-tune layer by layer; the tuned network, and its variant in results.json."""
        variables, config = self.variables(), self.config
        if config.bit == 32:
            raise UserError("--bit 32: a network of 32 bits is not converted; fine-tune 4, 3 or 2")
        if not self._has_signed(variables):
            self.simulate(console, ("signed",))  # the accuracy before
        self.redraw("finetune")
        held = held_out(len(self.data.train_images), config.validation)
        images, labels, _, _ = task_data(self.data, held)
        settings = finetune.Settings(
            bits=config.bit,
            epochs=config.num_epochs,
            batch_size=min(config.training.batch_size, len(images)),
            decay_clips=config.training.decay_clips,
            negative_threshold=config.negative_threshold,
            force=config.force,
            seed=config.seed,
        )
        tuner = finetune.Tuner(self.net, variables, self.preprocessing, settings)
        if config.resume and self._is_tuned(tuner, labels):
            show(f"{self.run.folder}: already fine-tuned", console)
            return
        tuned = records.tune(self.run.folder, tuner, images, labels, config.resume)
        snn = self.converted(tuned.variables)
        saved_module.save(snn, self.run.folder / "snn_finetuned.npz")
        evaluation, _ = self._simulated(snn, self._horizon("signed"))
        variant = dataclasses.replace(self._variant(snn, evaluation, "signed"), kind="fine-tuned")
        records.record(self.run.folder, tuner, labels, tuned, variant, console)
