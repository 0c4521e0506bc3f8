"""Scatter-and-gather LeNet: ternary weights, ``2^k * B`` threshold units a neuron, one time step.

Zou et al., A Scatter-and-Gather Spiking CNN on a Reconfigurable Neuromorphic Hardware, Frontiers in
Neuroscience 15:694170, 2021. Stages: train, evaluate, simulate (convert, simulate, certify), plot.
"""

from functools import partial

import numpy as np

from jaxsnn import neurons
from jaxsnn.arch import zoo
from jaxsnn.arch.notation import Arch
from jaxsnn.conversion import methods
from jaxsnn.conversion.convert import convert
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.conversion.weights import float_ends
from jaxsnn.network import weight_quantisers
from jaxsnn.network.per_site import SiteMap
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.report.figures import accuracy, bars
from jaxsnn.report.figures.draw import Figures
from jaxsnn.simulation.totals import Evaluation
from jaxsnn.systems import original_files
from jaxsnn.systems.experiment import Experiment
from jaxsnn.systems.result_fields import Counting
from jaxsnn.systems.setting import Paper
from jaxsnn.systems.settings.conversion import LeNetScatter
from jaxsnn.types import Variables

LINE = 200  # images per line of the original's text files
SYNAPSES_ON_CHIP = 2  # a ternary synapse is mapped on two of the chip's binary ones
# Accuracy on MNIST after 200 epochs, from the original's README: full precision, and by (k, B).
FULL: Paper = {"float_ann_accuracy": 0.9952}
QUANTISED = {
    (0, 1): 0.9927,
    (0, 2): 0.9932,
    (0, 4): 0.9943,
    (1, 1): 0.9930,
    (1, 2): 0.9937,
    (1, 4): 0.9950,
}


def published(dataset: str, config: LeNetScatter) -> Paper | None:
    """What the original reports of a setting on a data set; None where it reports nothing."""
    if dataset != "mnist":
        return None
    if config.precision == "fp32":
        return FULL
    claimed = QUANTISED.get((config.k, config.B))
    return None if claimed is None else {"ann_accuracy": claimed, "snn_accuracy": claimed}


class ScatterGather(Experiment[LeNetScatter]):
    """One setting of the scatter-and-gather LeNet."""

    system = "scatter_gather"
    network = ("k", "B", "precision", "dataset")
    figures = Figures(
        apart={
            "accuracy": bars.accuracy,
            "sparsity": bars.sparsity,
            "sops": bars.sops,
            "noise": partial(
                accuracy.noise,
                axis="deleted spikes (%)",
                title="Deleted spikes of the encoding layer",
            ),
        }
    )

    def architecture(self) -> Arch:
        """The paper's LeNet."""
        return zoo.lenet_scatter

    def activation(self) -> Neuron:
        """Quantised to ``2^k * B + 1`` levels."""
        return neurons.quantised_relu(self.config.k, self.config.B)

    def weights(self) -> SiteMap[weight_quantisers.WeightQuantiser]:
        """Ternary but for the encoder and the readout."""
        return float_ends(weight_quantisers.ternary())

    def converted(self, variables: Variables) -> Spiking:
        """Every neuron as ``2^k * B`` threshold units."""
        method = methods.scatter_gather(k=self.config.k, bound=self.config.B)
        return convert(variables, self.arch, method, trained=self.net, encoding=self.encoding)

    @property
    def units(self) -> int:
        """Threshold units per neuron, ``2^k * B``."""
        return 2**self.config.k * self.config.B

    @property
    def counting(self) -> Counting:
        """Every threshold unit may spike, and compares once."""
        return Counting(units=self.units, adds_per_update=self.units)

    def paper(self) -> Paper | None:
        """The paper's accuracy on MNIST."""
        return published(self.data.name, self.config)

    def text_files(self, spiking: Evaluation) -> None:
        """The original's three files: correct images, spikes, operations on the chip, per batch."""
        starts = np.arange(0, spiking.images, LINE)
        right = (spiking.predictions[-1] == self.data.test_labels).astype(np.int64)
        factor = SYNAPSES_ON_CHIP * self.units
        original_files.write_per_batch(
            self.run.folder,
            np.add.reduceat(right, starts),
            np.add.reduceat(spiking.per_image_spikes, starts),
            np.add.reduceat(spiking.per_image_operations * factor, starts),
        )
