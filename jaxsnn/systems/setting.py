"""One setting of a system that trains a quantised ANN and converts it, before anything is done.

A system says which network it is, how it is quantised and converted, and what its original wrote.
From that and the settings follow the data, the network, the task of its training and the folder.
"""

import dataclasses
import functools
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np

from jaxsnn import neurons
from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.data.base import Dataset
from jaxsnn.inputs import preprocess
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.inputs.preprocess import Preprocessing
from jaxsnn.network import weight_quantisers
from jaxsnn.network.arithmetic import compute_of, training_arithmetic
from jaxsnn.network.initialisers import CutNormal, Initialiser
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import SiteMap, hidden
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.simulation.totals import Evaluation
from jaxsnn.systems.recipe_run import FIXED_PARTS, TrainedConfig, initialiser
from jaxsnn.systems.result_fields import Counting
from jaxsnn.systems.run_folder import Run, read_data
from jaxsnn.systems.shared_batches import batch_within
from jaxsnn.systems.stages import System
from jaxsnn.training.one_pass import classification
from jaxsnn.types import JsonObject, Variables

Paper: TypeAlias = JsonObject  # figures of a paper, by the names of results.json


class Horizon(NamedTuple):
    """How long a simulation is.

    Attributes:
        steps: time steps, at most.
        settle: it ends when all is silent.
    """

    steps: int
    settle: bool = False


class Setting(System[TrainedConfig]):
    """One setting on one data set: its data, network and folder.

    Attributes:
        network: settings that say which network and data it is; later stages need them as trained.
        most: images per compiled call, at most.
        heads: whether synaptic operations and MACs count those of the readout.
        training: further settings that the weights depend on; resuming needs them as they were.
        conversion: settings that the spiking network is made with, for results.json.
    """

    network: ClassVar[tuple[str, ...]] = ("k", "precision", "dataset")
    most: ClassVar[int] = 200
    heads: ClassVar[bool] = False
    training: ClassVar[tuple[str, ...]] = ("seed", "limit_train", "validation", "init")
    conversion: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: TrainedConfig) -> None:
        """Read the data and refuse what does not fit; nothing is written."""
        arithmetic, recipe = training_arithmetic(config.compute), config.training
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
        full = config.full_precision
        activation = neurons.relu() if full else self.activation()
        weights = SiteMap(weight_quantisers.full_precision()) if full else self.weights()
        self.net = Net(
            self.arch,
            hidden(activation),
            weights,
            arithmetic=arithmetic,
            initialiser=initialiser(recipe, self.initialiser()),
            norm_momentum=recipe.norm_momentum,
        )
        self.task = classification(
            self.net,
            self.preprocessing,
            label_smoothing=recipe.label_smoothing,
            spike_penalty=recipe.spike_penalty,
        )
        identity = (*self.network, *self.training, "compute", "recipe", *FIXED_PARTS)
        self.run = Run(Path(config.out) / config.setting, self.config, identity, self.network)

    # ------------------------------------------------------------ what a system says

    @abstractmethod
    def architecture(self) -> Arch:
        """The network, for any input shape and number of classes."""

    @abstractmethod
    def activation(self) -> Neuron:
        """The quantised ANN's activation."""

    @abstractmethod
    def converted(self, variables: Variables) -> Spiking:
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
    def horizon(self) -> Horizon:
        """How long a simulation is: one step."""
        return Horizon(1)

    @property
    def certified(self) -> int | None:
        """Number of test images for the certificate; None: all."""
        return None

    @property
    def conversion_settings(self) -> JsonObject | None:
        """The settings of ``conversion`` by name, None where there are none."""
        return {name: getattr(self.config, name) for name in self.conversion} or None

    @property
    def noise_site(self) -> str:
        """Where noise enters: the encoder's spikes."""
        return plan(self.arch)[0].name

    # ------------------------------------------------------------ what follows from that

    @property
    def batch(self) -> int:
        """Images per compiled call, in evaluation and simulation; a multiple of ``--devices``."""
        return batch_within(len(self.data.test_images), self.most, self.config.devices)

    @property
    def encoding(self) -> Encoding:
        """What one unit of the input is worth."""
        return self.preprocessing.encoding

    @functools.cached_property
    def images(self) -> np.ndarray:
        """The test images as the network sees them, in whole units."""
        return preprocess.units_of(self.preprocessing, self.data.test_images)
