"""Lossless conversion with negative spikes: neurons settle on the quantised ANN's activations.

Zou et al., Towards a Lossless Conversion for Spiking Neural Networks with Negative-Spike Dynamics,
Advanced Intelligent Systems, 2023: CNN 1 and CNN 2 on CIFAR-10, LeNet and an MLP on MNIST and
Fashion-MNIST. Stages: train, evaluate, simulate (convert, simulate, certify), plot.
"""

from functools import partial
from typing import TypeAlias

from jaxsnn import neurons
from jaxsnn.arch import zoo
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import scaled
from jaxsnn.conversion import methods
from jaxsnn.conversion.convert import convert
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.inputs import preprocess
from jaxsnn.inputs.preprocess import Preprocessing
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.report.figures import accuracy, bars
from jaxsnn.report.figures.draw import Draw, Figures
from jaxsnn.simulation.totals import Evaluation
from jaxsnn.systems import original_files
from jaxsnn.systems.experiment import Experiment
from jaxsnn.systems.setting import Horizon, Paper
from jaxsnn.systems.settings.conversion import NegativeSpikesCnn1, NegativeSpikesMnist
from jaxsnn.types import JsonObject, Variables

AnyNegative: TypeAlias = NegativeSpikesMnist | NegativeSpikesCnn1  # CNN 2's is a kind of CNN 1's
STEP_LIMIT = 1000  # where nothing else limits a simulation; trained networks settle far below
ARCHITECTURES = {
    "lenet": zoo.lenet_negative,
    "mlp": zoo.mlp_negative,
    "cnn1": zoo.cnn1,
    "cnn2": zoo.cnn2,
}
FULL: dict[tuple[str, str], float] = {  # accuracy of the full-precision ANN
    ("mnist", "lenet"): 0.9928,
    ("fashion_mnist", "lenet"): 0.9001,
    ("fashion_mnist", "mlp"): 0.8983,
    ("cifar10", "cnn1"): 0.9266,
    ("cifar10", "cnn2"): 0.9320,
}
# Accuracy, first step from which it stays, spikes and synaptic operations an image; from the
# original's result files (None: it had not settled when its simulation ended).
QUANTISED: dict[tuple[str, str, int], tuple[float, int | None, float, float]] = {
    ("mnist", "lenet", 0): (0.9929, 7, 8_361.0, 1_510_511),
    ("mnist", "lenet", 1): (0.9932, 14, 18_581.9, 3_256_197),
    ("mnist", "lenet", 2): (0.9928, 18, 36_848.0, 6_505_219),
    ("fashion_mnist", "lenet", 0): (0.9026, 11, 16_394, 3_939_159),
    ("fashion_mnist", "lenet", 1): (0.8999, 17, 34_071, 7_530_471),
    ("fashion_mnist", "lenet", 2): (0.9025, 18, 65_611, 14_773_365),
    ("fashion_mnist", "mlp", 0): (0.8890, 5, 417.1, 68_266),
    ("fashion_mnist", "mlp", 1): (0.8879, 11, 895.5, 127_655),
    ("fashion_mnist", "mlp", 2): (0.9011, 20, 1_852.8, 243_897),
    ("cifar10", "cnn1", 0): (0.9264, 29, 201_457.8, 270_161_535),
    ("cifar10", "cnn1", 1): (0.9277, 57, 362_614.1, 414_151_035),
    ("cifar10", "cnn1", 2): (0.9310, 94, 675_267.5, 730_882_834),
    ("cifar10", "cnn2", 0): (0.9273, 44, 216_884.5, 425_885_843),
    ("cifar10", "cnn2", 1): (0.9335, 40, 425_411.6, 649_162_632),
    ("cifar10", "cnn2", 2): (0.9309, None, 841_328.1, 1_175_173_687),
}


JOINED: dict[str, Draw] = {
    "accuracy": accuracy.accuracy_over_time,
    "sparsity": bars.signed_sparsity,
    "sops": bars.sops_beside_macs,
}
NOISE = partial(
    accuracy.noise,
    axis="noise ratio r (%)",
    title="Noise of the input",
    meaning="Noise: every input value times 1 + r u, u uniform between -1/2 and 1/2.",
)


def published(dataset: str, config: AnyNegative) -> Paper | None:
    """What the original reports of a setting on a data set; None where it reports nothing."""
    where = dataset, config.arch
    if config.precision == "fp32":
        return {"float_ann_accuracy": FULL[where]} if where in FULL else None
    if (*where, config.k) not in QUANTISED:
        return None
    claimed, step, spikes, operations = QUANTISED[*where, config.k]
    return {
        "ann_accuracy": claimed,
        "snn_accuracy": claimed,
        "accuracy_settled_step": step,
        "spikes_per_image": spikes,
        "sops_per_image": operations,
    }


class NegativeSpikes(Experiment[AnyNegative]):
    """One setting of a network whose neurons settle by negative spikes."""

    system = "negative_spikes"
    network = ("arch", "k", "precision", "dataset", "width")
    figures = Figures(apart={**JOINED, "noise": NOISE}, joined=JOINED)
    conversion = ("weights", "weight_bits")
    heads = True
    most = 128

    def architecture(self) -> Arch:
        """The paper's network; for Fashion-MNIST a wider LeNet."""
        wide = self.config.arch == "lenet" and self.data.name == "fashion_mnist"
        network = zoo.lenet_negative_fashion if wide else ARCHITECTURES[self.config.arch]
        return scaled(network, self.config.width)

    def recipe(self) -> Preprocessing:
        """CNN 1 and CNN 2 see cropped, standardised images, the others grey values."""
        if self.config.arch not in ("cnn1", "cnn2"):
            return preprocess.unchanged()
        training, colourful = self.config.training, self.data.input_shape[2] == 3
        return preprocess.standardised(
            flip=training.flip if colourful else "none",
            radius=training.crop_radius,
            colours=training.colours,
        )

    def activation(self) -> Neuron:
        """Quantised in steps of ``2^-k``, without an upper bound."""
        return neurons.quantised_relu(self.config.k, None)

    def converted(self, variables: Variables) -> Spiking:
        """Every neuron tracks its level with spikes +1 and -1."""
        method = methods.negative_spikes(
            k=self.config.k,
            weight_bits=self.config.weight_bits,
            float_weights=self.config.weights == "float",
        )
        return convert(variables, self.arch, method, trained=self.net, encoding=self.encoding)

    @property
    def conversion_settings(self) -> JsonObject | None:
        """Float weights have no number of bits."""
        settings = super().conversion_settings
        return settings if self.config.weights == "integer" else {"weights": "float"}

    @property
    def precision(self) -> str:
        """What the spiking network computes with."""
        return super().precision if self.config.weights == "integer" else "float32 weights"

    @property
    def horizon(self) -> Horizon:
        """So many steps as asked, else until every image has settled."""
        if self.config.steps is not None:
            return Horizon(self.config.steps)
        return Horizon(STEP_LIMIT, settle=True)

    @property
    def certified(self) -> int | None:
        """Number of test images for the certificate; None: all."""
        return self.config.certify

    @property
    def noise_site(self) -> str:
        """Noise is added to the input."""
        return "input"

    @property
    def line(self) -> int:
        """Images per batch of the original's text files."""
        return 200 if self.data.name == "mnist" and self.config.arch == "lenet" else 50

    def paper(self) -> Paper | None:
        """The paper's accuracy, settling step, spikes and operations."""
        return published(self.data.name, self.config)

    def text_files(self, spiking: Evaluation) -> None:
        """The original's four files, one line per batch and time step."""
        original_files.write_per_step(
            self.run.folder,
            spiking.predictions == self.data.test_labels,
            spiking.image_spikes,
            spiking.image_spikes - 2 * spiking.image_negative,
            spiking.image_operations + spiking.image_head_operations,
            self.line,
        )
