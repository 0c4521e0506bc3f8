"""Settings of Fast-SNN: quantised networks that become signed integrate-and-fire networks."""

import functools
import itertools
import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from jaxsnn.report.results import RunSettings
from jaxsnn.systems.settings.base import require
from jaxsnn.systems.settings.training import Trained
from jaxsnn.training.recipe import PARTS, Name, Recipe

WIDTHS = (32, 4, 3, 2)  # in the order in which each starts from the last
VARIANTS = ("signed", "unsigned", "settling")


@dataclass(frozen=True)
class FastSnn(Trained):
    """Fast-SNN: networks of 32, 4, 3, 2 bits; signed neurons, 2^b-1 steps; layer-wise fine-tuning.

    >>> FastSnn(bit=3).setting, FastSnn(bit=3).learning_rate, FastSnn(bit=2).weight_decay
    ('alex_3bit', 0.04, 3e-05)
    >>> [one.setting for one in FastSnn(arch="vgg11", bit=2).widths()]
    ['vgg11_32bit', 'vgg11_4bit', 'vgg11_3bit', 'vgg11_2bit']
    >>> FastSnn(unsigned=True).variants
    ('unsigned',)
    """

    experiment = "fast_snn"
    usual_epochs: ClassVar[dict[str, int]] = {"digits": 5, "mnist": 3, "lfw": 30, "": 30}
    usual_rates: ClassVar[dict[int, float]] = {32: 0.1, 4: 0.04, 3: 0.04, 2: 0.04}
    usual_decays: ClassVar[dict[int, float]] = {32: 5e-4, 4: 1e-4, 3: 1e-4, 2: 3e-5}
    parts_of_training = (
        *PARTS,
        *("lr_step", "lr_factor", "init"),
    )
    aliases: ClassVar[dict[str, str]] = {
        "wd": "weight_decay",
        "data": "data_dir",
        "n": "num_epochs",
        "b": "batch_size",
    }

    dataset: str = "mnist"
    """Data set: mnist, fashion_mnist, cifar10, lfw (a folder of people), or digits (embedded: no
    files, minutes)."""
    arch: Literal["alex", "vgg11", "resnet18"] = "alex"
    """alex: 96C3-256C3s2-384C3s2-384C3-256C3s2-2048; vgg11: eight convolutions, 4096-4096;
    resnet18: eight residual blocks of 128, 256, 512 channels, activations alone quantised."""
    split: Literal["stored", "as_coded"] = "stored"
    """Training and test images: those of the data set, the same in every stage; or as_coded: drawn
    anew in every stage of every width, as the original's scripts do with lfw. Test images are then
    among those that the network was trained on, and its accuracy says little of others."""
    bit: Literal[32, 4, 3, 2] = 4
    """Bits of activations and weights; the first and the last layer's weights have 8. 32: full
    precision, which cannot be converted."""
    init: str = ""
    """Start from these weights: the folder of a run (its best epoch), or an npz file of one. Clips
    that the file lacks start at their defaults."""
    epochs: int | None = None
    """Passes over the training images (the paper: 300). None: mnist 3, digits 5, others 30; 16 of
    the recipe fast."""
    batch_size: int | None = None
    """Images per training step; the recipe paper: 128 (the original: 512 on MNIST)."""
    learning_rate: float | None = None
    """Step size at the beginning; the recipe paper: 0.1 for 32 bits, else 0.04. In the stage
    progressive one that is not the usual one of --bit holds for all widths."""
    weight_decay: float | None = None
    """Weight decay; the recipe paper: 5e-4 for 32 bits, 1e-4 for 4 and 3, 3e-5 for 2."""
    schedule: Literal["steps", "cosine", "linear", "constant"] | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Course of the learning rate: steps (see --lr_step; the recipe paper), cosine or linear (to
    zero), or constant."""
    lr_step: tuple[int, ...] = ()
    """Epochs before which the learning rate is multiplied by --lr_factor; none given: half and
    three quarters of the epochs, as in the paper."""
    lr_factor: float = 0.1
    """What the learning rate is multiplied by at each of --lr_step."""
    evaluate: bool = False
    """The original's switch for the stage evaluate, where no stage is named."""
    unsigned: bool = False
    """Simulate the usual integrate-and-fire neuron alone: short for --variants unsigned."""
    variants: tuple[str, ...] = VARIANTS
    """What is simulated: signed (2^b-1 steps: the paper's), unsigned (2^b-1 steps), settling
    (signed, and on until every neuron is at rest: exact after settling)."""
    negative_threshold: float = -1e-3
    """At or below it a signed neuron takes a spike back, in the units of an activation."""
    num_epochs: int = 1
    """Epochs of fine-tuning for each layer."""
    force: bool = False
    """Fine-tuning keeps the newest weights, without a look at the accuracy on training images."""
    certify: int | None = 500
    """Test images for the certificate, neuron by neuron; None: all."""

    def __post_init__(self) -> None:
        """Fill in what follows from the width; refuse values out of range."""
        put = functools.partial(object.__setattr__, self)
        if self.unsigned:
            put("variants", ("unsigned",))
        super().__post_init__()
        if not self.lr_step:
            put("lr_step", _milestones(self.epochs or 0))
        self._refuse_numbers()
        for one in self.variants:
            require(one in VARIANTS, "variants", self.variants, ", ".join(VARIANTS))

    def _refuse_numbers(self) -> None:
        factor = self.lr_factor
        require(math.isfinite(factor) and factor > 0, "lr_factor", factor, "a number above 0")
        rising = all(a < b for a, b in itertools.pairwise((0, *self.lr_step)))
        require(rising, "lr_step", self.lr_step, "ascending epochs of at least 1")
        below = self.negative_threshold
        require(-math.inf < below < 0, "negative_threshold", below, "a number below 0")
        require(self.num_epochs >= 1, "num_epochs", self.num_epochs, "1 or more")
        require(self.certify is None or self.certify >= 1, "certify", self.certify, "1 or more")

    def usual_training(self, name: Name) -> Recipe:
        """The paper: one rate and one decay for all parameters, by the width."""
        if name != "paper":
            return super().usual_training(name)
        return Recipe(
            optimiser="sgd",
            learning_rate=self.usual_rates[self.bit],
            bias_learning_rate=None,
            readout_learning_rate=None,
            nesterov=False,
            weight_decay=self.usual_decays[self.bit],
            decay_all=True,
            schedule="steps",
        )

    @property
    def precision(self) -> Literal["quantised", "fp32"]:
        """Whether the network is quantised."""
        return "fp32" if self.bit == 32 else "quantised"

    @property
    def full_precision(self) -> bool:
        """Whether the ANN's activations and weights are floats, not quantised."""
        return self.bit == 32

    @property
    def implied_stage(self) -> str:
        """The stage that the original's ``-e`` stands for."""
        return "evaluate" if self.evaluate else "all"

    @property
    def setting(self) -> str:
        """What the run is called, and its folder below ``out``."""
        return f"{self.arch}_{self.bit}bit" + ("" if self.split == "stored" else f"_{self.split}")

    @property
    def described(self) -> RunSettings:
        """What tells the run from others of its system, for results.json and figures."""
        variant = None if self.split == "stored" else self.split
        return RunSettings(
            network=self.arch, precision=self.precision, bits=self.bit, variant=variant
        )

    def widths(self) -> list["FastSnn"]:
        """Settings of every width down to this one, the widest first, each with its own rates.

        A learning rate or weight decay that is not this width's usual one holds for all.
        """
        usual = self.usual_training(self.recipe or "paper")
        rate = None if self.learning_rate == usual.learning_rate else self.learning_rate
        decay = None if self.weight_decay == usual.weight_decay else self.weight_decay
        return [
            replace(
                self,
                bit=bit,
                init=self.init if bit == 32 else "",
                learning_rate=rate,
                weight_decay=decay,
            )
            for bit in WIDTHS[: WIDTHS.index(self.bit) + 1]
        ]


def _milestones(epochs: int) -> tuple[int, ...]:
    """Half and three quarters of the epochs, where there are such.

    >>> [_milestones(epochs) for epochs in (300, 3, 1)]
    [(150, 225), (1, 2), ()]
    """
    milestones = (epochs // 2, 3 * epochs // 4)
    return tuple(sorted({one for one in milestones if one >= 1}))
