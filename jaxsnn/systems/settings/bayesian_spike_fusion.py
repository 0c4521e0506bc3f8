"""Settings of BayesianSpikeFusion: rate-coded networks with an early classifier."""

import functools
import itertools
import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import ClassVar, Literal

from jaxsnn.report.results import RunSettings
from jaxsnn.systems.settings.base import require
from jaxsnn.systems.settings.training import Trained
from jaxsnn.training.recipe import PARTS, Name, Recipe

BLOCKS = {"vgg11": 8, "vgg16": 13, "vgg19": 16, "resnet18": 9, "resnet34": 17}
MIDDLE = {"vgg11": 3, "vgg16": 6, "vgg19": 6, "resnet18": 4, "resnet34": 7}


@dataclass(frozen=True)
class BayesianSpikeFusion(Trained):
    """BayesianSpikeFusion: an early classifier's rate is the prior, the final's spikes decide.

    >>> BayesianSpikeFusion().setting, BayesianSpikeFusion().simulated
    ('mnist_vgg11_ic3', 'snn_0.0_0.999')
    >>> BayesianSpikeFusion(arch="resnet18", dataset="cifar10").ic_index
    4
    """

    experiment = "bayesian_spike_fusion"
    usual_epochs: ClassVar[dict[str, int]] = {"digits": 10, "mnist": 5, "fashion_mnist": 5, "": 200}
    parts_of_training = (
        *PARTS,
        *("lr_step", "lr_factor", "ic_weight", "init"),
    )
    positionals: ClassVar[dict[str, tuple[str, ...]]] = {
        **dict.fromkeys(("all", "train"), ("dataset", "arch")),
        **dict.fromkeys(("evaluate", "ann2snn", "tune", "simulate", "stop", "certify"), ("run",)),
        "plot": ("exps",),
    }
    aliases: ClassVar[dict[str, str]] = {
        "opt_wd": "weight_decay",
        "gamma": "lr_factor",
        "lr_steps": "lr_step",
        "timestep": "steps",
        "data": "data_dir",
    }

    dataset: str = "mnist"
    """Data set: mnist, fashion_mnist, cifar10, cifar100, tiny_imagenet, or digits (embedded: no
    files, minutes). In the stages train and all it may stand first, without the flag."""
    arch: Literal["vgg11", "vgg16", "vgg19", "resnet18", "resnet34"] = "vgg11"
    """The network; in the stages train and all it may stand second, without the flag."""
    out: str = ""
    """Folder for results; each setting gets a folder of its own in it. Empty:
    runs/bayesian_spike_fusion, for every data set."""
    epochs: int | None = None
    """Passes over the training images of this phase (the paper: 200). None: mnist and fashion_mnist
    5, digits 10, others 200; 16 of the recipe fast."""
    ic_index: int | None = None
    """Block behind which the early (internal) classifier stands, from 0; -1: there is none. None:
    3 of vgg11, 6 of vgg16 and vgg19, 4 of resnet18, 7 of resnet34."""
    run: str = ""
    """Folder of a trained run, which says data set and network; in the stages behind train it may
    stand first, without the flag. Empty: the one that these settings name."""
    exps: tuple[str, ...] = ()
    """Folders of simulations to draw, RUN/snn_<init_mem>_<percentile>; in the stage plot they may
    stand first, without the flag. None given: all below out."""
    schedule: Literal["steps", "cosine", "linear", "constant"] | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Course of the learning rate: steps (see --lr_step; the recipe paper), cosine or linear (to
    zero), or constant."""
    lr_step: tuple[int, ...] = ()
    """Epochs before which the learning rate is multiplied by --lr_factor; none given: 30, 60 and
    80 % of the epochs, as the paper's 60, 120, 160 of 200."""
    lr_factor: float = 0.2
    """What the learning rate is multiplied by at each of --lr_step."""
    ic_weight: float | None = None
    """What the weight of the early classifier's loss tends to over the epochs, from 0.01 on. None:
    the share of the network's work that is done where it stands, as in the paper; a training of few
    epochs needs more."""
    steps: int = 3000
    """Time steps T of every simulation."""
    percentile: float = 0.999
    """Share of a layer's activations that shall not exceed one spike a step, above 0 to 1."""
    init_mem: float = 0.0
    """Membrane potential to start from, as a share of the threshold."""
    pipeline_delay: bool = True
    """A spike takes one step to the next layer, as in the original; false: none."""
    weight_bits: int = 7
    """Significant bits of the largest weight of a layer; 7 and the sign are stored as int8, whose
    products are the fastest on a processor. 0: weights as trained, in float32."""
    calibration: int = 500
    """Training images, without augmentation, whose activations the percentiles are of."""
    tune_images: int = 10_000
    """Training images, without augmentation, that alpha is chosen on."""
    every_step: bool = False
    """Choose alpha at every step, as the original does. False: where the smoothed curve bends, with
    the same curve as the result, in a fraction of the time."""
    simulation_batch: int = 100
    """Images that are simulated at once; each output file holds so many."""
    target: tuple[float, ...] = (0.97, 0.99)
    """Shares of the ANN's accuracy whose energy is reported."""
    sure: float = 0.0
    """Probability of being right at which an image stops. 0: chosen in the stage tune on its
    images, so that they lose at most one in a thousand of those that are right after all steps."""

    def __post_init__(self) -> None:
        """Fill in what follows from the network; refuse values out of range."""
        put = functools.partial(object.__setattr__, self)
        if not self.out:
            put("out", f"runs/{self.experiment}")
        if self.ic_index is None:
            put("ic_index", MIDDLE[self.arch])
        super().__post_init__()
        if not self.lr_step:
            put("lr_step", _milestones(self.epochs or 0))
        self._refuse_network()
        self._refuse_numbers()

    def _refuse_network(self) -> None:
        last = BLOCKS[self.arch] - 1
        fits = self.ic_index is not None and -1 <= self.ic_index < last
        remedy = f"0 to {last - 1} for {self.arch}, whose last block is {last}, or -1 for none"
        require(fits, "ic_index", self.ic_index, remedy)
        between = 0 < self.percentile <= 1
        require(between, "percentile", self.percentile, "a share above 0, at most 1 (0.999)")
        require(-math.inf < self.init_mem < 1, "init_mem", self.init_mem, "a share below 1")
        require(0 <= self.weight_bits <= 24, "weight_bits", self.weight_bits, "0 to 24")
        shortest = self.depth + 1 if self.pipeline_delay else 1
        remedy = f"{shortest} or more: before that no spike of the final classifier can be"
        require(self.steps >= shortest, "steps", self.steps, remedy)

    def _refuse_numbers(self) -> None:
        for name in ("calibration", "tune_images", "simulation_batch"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        factor = self.lr_factor
        require(math.isfinite(factor) and factor > 0, "lr_factor", factor, "a number above 0")
        rising = all(a < b for a, b in itertools.pairwise((0, *self.lr_step)))
        require(rising, "lr_step", self.lr_step, "ascending epochs of at least 1")
        weight = self.ic_weight
        fits = weight is None or (math.isfinite(weight) and weight >= 0)
        require(fits, "ic_weight", weight, "0 or more")
        for share in self.target:
            require(0 < share <= 1, "target", self.target, "shares above 0, at most 1")
        require(0 <= self.sure <= 1, "sure", self.sure, "a probability, or 0")

    def usual_training(self, name: Name) -> Recipe:
        """The paper: one rate and one decay for all parameters."""
        if name != "paper":
            return super().usual_training(name)
        return Recipe(
            optimiser="sgd",
            learning_rate=0.1,
            bias_learning_rate=None,
            readout_learning_rate=None,
            weight_decay=5e-4,
            decay_all=True,
            schedule="steps",
        )

    @property
    def depth(self) -> int:
        """Stages of neurons from the image to the final classifier, along the shortest way."""
        return BLOCKS[self.arch] + 2

    @property
    def exit_block(self) -> int:
        """The block behind which the early classifier stands; -1: there is none."""
        return -1 if self.ic_index is None else self.ic_index

    @property
    def full_precision(self) -> bool:
        """Whether the ANN's activations and weights are floats, not quantised."""
        return True

    @property
    def precision(self) -> Literal["fp32"]:
        """The ANN has float activations and weights."""
        return "fp32"

    @property
    def setting(self) -> str:
        """What the run is called, and its folder below ``out``."""
        return f"{PurePath(self.dataset).stem}_{self.arch}_ic{self.ic_index}"

    @property
    def described(self) -> RunSettings:
        """What tells the run from others of its system, for results.json and figures."""
        return RunSettings(network=self.arch, precision="fp32")

    @property
    def tag(self) -> str:
        """What the names of files of this simulation end with: nothing for the usual one."""
        usual = (self.init_mem, self.percentile) == (0.0, 0.999)
        return "" if usual else f"_{self.init_mem}_{self.percentile}"

    @property
    def simulated(self) -> str:
        """Name of a simulation's folder below the run's."""
        return f"snn_{self.init_mem}_{self.percentile}"


def _milestones(epochs: int) -> tuple[int, ...]:
    """30, 60 and 80 % of the epochs, where there are such.

    >>> [_milestones(epochs) for epochs in (200, 5, 1)]
    [(60, 120, 160), (1, 3, 4), ()]
    """
    milestones = (3 * epochs // 10, 6 * epochs // 10, 8 * epochs // 10)
    return tuple(sorted({one for one in milestones if one >= 1}))
