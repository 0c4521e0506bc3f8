"""Settings of an experiment: frozen dataclasses = command line = config.json (no jax).

One class per system: its fields are the flags, their docstrings the help, its JSON the record of a
run. How a command line is read stands in :mod:`jaxsnn.command`, how config.json is read in
:mod:`jaxsnn.configfile`; both work on any such class and are offered here as well.
"""

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import ClassVar, Literal

from jaxsnn.command import STAGES, parse_command
from jaxsnn.configfile import differences, from_json, to_json

__all__ = [
    "STAGES",
    "Common",
    "Conversion",
    "LeNetScatter",
    "NegativeSpikes",
    "NegativeSpikesCnn1",
    "NegativeSpikesCnn2",
    "NegativeSpikesMnist",
    "differences",
    "from_json",
    "parse_command",
    "to_json",
]


def _require(holds: bool, name: str, value: object, remedy: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r} in the configuration; give {remedy}")


@dataclass(frozen=True)
class Common:
    """What every experiment can be asked for. A value out of range is a ValueError."""

    dataset: str = "digits"
    """Data set: mnist, fashion_mnist, cifar10, or digits (embedded: no files, minutes)."""
    data_dir: str | None = None
    """Folder of the data files, or the one above it; None: $JAXSNN_DATA, ./data and further."""
    out: str = "runs"
    """Folder for results; each setting gets a folder of its own in it."""
    epochs: int | None = 15
    """Passes over the training images (of this phase, when a resumed run changes settings)."""
    batch_size: int = 128
    """Images per training step."""
    learning_rate: float = 1e-3
    """Adam's step size, the highest of the schedule."""
    seed: int = 0
    """Seed of initialisation, data order and noise."""
    resume: bool = False
    """Continue training from the newest checkpoint; may stand alone."""
    limit_train: int | None = None
    """Use only the first N training images; None: all."""
    limit_test: int | None = None
    """Use only the first N test images; None: all."""
    devices: int | None = None
    """Number of local devices to spread a batch over; None: all."""

    def __post_init__(self) -> None:
        """Refuse values out of range, by name."""
        for name in ("epochs", "batch_size", "limit_train", "limit_test", "devices"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "1 or more")
        rate = self.learning_rate
        _require(math.isfinite(rate) and rate > 0, "learning_rate", rate, "a number above 0")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")
        for name in ("dataset", "out"):
            _require(getattr(self, name) != "", name, "", "a name, or leave the flag away")

    @property
    def implied_stage(self) -> str:
        """The stage to run when the command line names none."""
        return "all"


@dataclass(frozen=True)
class Conversion(Common):
    """What every experiment that converts a trained network can be asked for."""

    home: ClassVar[str] = "mnist"  # the paper's data set
    experiment: ClassVar[str] = ""  # name of the script
    usual_epochs: ClassVar[dict[str, int]] = {}  # by data set; "" for all others

    out: str = ""
    """Folder for results; each setting gets a folder of its own in it. Empty: runs/ and the
    script's name, with _DATASET behind it for another data set than the paper's."""
    k: int = 1
    """Fractional bits of an activation: a step of the quantiser is 2^-k."""
    precision: Literal["quantised", "fp32"] = "quantised"
    """quantised: quantised activations, to be converted; fp32: the full-precision network."""
    epochs: int | None = None
    """Passes over the training images of this phase. None: as in the description above."""
    learning_rate: float = 1e-3
    """Adam's step size, the highest of the schedule."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Course of the learning rate: cosine falls to zero over the epochs (the papers: constant)."""
    mode: Literal["training", "inference", ""] = ""
    """The original's word for a stage, used when none is named: training = train, inference =
    evaluate."""
    validation: int | None = None
    """Training images held out to choose the epoch; 0: train on all and take the last epoch; None:
    10,000 of 60,000 or more, 20 % of fewer."""
    noise_ratio: tuple[float, ...] = ()
    """Noise ratios, each simulated beside the noise-free run; 0: none."""
    noise_seeds: int = 5
    """Independent repetitions of each noise ratio."""

    def __post_init__(self) -> None:
        """Fill in defaults, refuse values out of range, drop noise ratios of 0 (no noise)."""
        name = PurePath(self.dataset).stem
        if not self.out:
            ending = "" if name == self.home else f"_{name}"
            object.__setattr__(self, "out", f"runs/{self.experiment}{ending}")
        if self.epochs is None:
            usual = self.usual_epochs.get(name, self.usual_epochs[""])
            object.__setattr__(self, "epochs", usual)
        super().__post_init__()
        _require(self.k >= 0, "k", self.k, "0 or more")
        ratios = self.noise_ratio
        _require(all(0 <= r <= 1 for r in ratios), "noise_ratio", ratios, "shares from 0 to 1")
        object.__setattr__(self, "noise_ratio", tuple(r for r in ratios if r))
        _require(self.noise_seeds >= 1, "noise_seeds", self.noise_seeds, "1 or more")
        held_out = self.validation
        _require(held_out is None or held_out >= 0, "validation", held_out, "0 or more")

    @property
    def implied_stage(self) -> str:
        """The stage that the original's ``--mode`` stands for."""
        return {"training": "train", "inference": "evaluate", "": "all"}[self.mode]

    @property
    def setting(self) -> str:
        """Name of the run's folder below ``out``."""
        return "fp32" if self.precision == "fp32" else f"k{self.k}"

    @property
    def compared(self) -> tuple[str, ...]:
        """Folders of other experiments whose results join in the figures, if they are there."""
        return ()


@dataclass(frozen=True)
class LeNetScatter(Conversion):
    """Scatter-and-gather LeNet: ternary weights, 2^k*B threshold units a neuron, one time step.

    >>> LeNetScatter(k=0, B=1).setting, LeNetScatter(precision="fp32").setting
    ('k0B1', 'fp32')
    >>> LeNetScatter(noise_ratio=(0.0, 0.2)).noise_ratio
    (0.2,)
    """

    experiment = "mnist_lenet"
    usual_epochs: ClassVar[dict[str, int]] = {"digits": 30, "": 15}

    dataset: str = "mnist"
    """Data set: mnist (the paper's), fashion_mnist, or digits (embedded: no files needed)."""
    B: int = 2
    """Largest activation: the quantiser has 2^k*B + 1 levels."""
    precision: Literal["quantised", "fp32"] = "quantised"
    """quantised: ternary weights and k, B activations; fp32: the full-precision network."""
    epochs: int | None = None
    """Passes over the training images of this phase (the paper: 200). None: 15, digits 30."""
    learning_rate: float = 1e-3
    """Adam's step size, the highest of the schedule (the paper: 1e-4, constant)."""
    noise_ratio: tuple[float, ...] = (0.1, 0.2)
    """Shares of the encoding layer's spikes to delete, each simulated beside the noise-free run;
    0: none."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        _require(self.B >= 1, "B", self.B, "1 or more")

    @property
    def setting(self) -> str:
        """Name of the run's folder below ``out``."""
        return "fp32" if self.precision == "fp32" else f"k{self.k}B{self.B}"


@dataclass(frozen=True)
class NegativeSpikes(Conversion):
    """Lossless conversion with negative spikes: neurons settle on the quantised ANN's activations.

    >>> NegativeSpikesCnn1(k=2).setting, NegativeSpikesMnist(arch="mlp").setting
    ('k2', 'mlp_k1')
    """

    steps: int | None = None
    """Time steps to simulate, every one of them. None: until every image has settled, that is,
    until a whole step is silent."""
    weights: Literal["integer", "float"] = "integer"
    """integer: weights, input and thresholds on one grid, so that the certificate is exact on any
    device; float: the weights as trained, whose neurons may differ at ties (counted)."""
    weight_bits: int = 7
    """Significant bits of the largest integer weight of a layer; 7 and the sign are stored as
    int8, whose products are the fastest on a processor."""
    certify: int | None = None
    """Test images for the certificate, neuron by neuron; None: all."""
    noise_ratio: tuple[float, ...] = ()
    """Noise ratios r: every input value is multiplied by 1 + r*xi, xi uniform in -1/2 to 1/2, drawn
    once an image; each is simulated beside the noise-free run, for twice the steps that that one
    took, because noisy images may settle later. The original's default is 1."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        for name in ("steps", "certify"):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "1 or more")
        _require(1 <= self.weight_bits <= 24, "weight_bits", self.weight_bits, "1 to 24")


@dataclass(frozen=True)
class NegativeSpikesMnist(NegativeSpikes):
    """Lossless conversion with negative spikes of a LeNet or an MLP on MNIST, Fashion-MNIST."""

    experiment = "mnist_negative_spikes"
    usual_epochs: ClassVar[dict[str, int]] = {"digits": 30, "": 20}

    dataset: str = "mnist"
    """Data set: mnist, fashion_mnist, or digits (embedded: no files needed)."""
    arch: Literal["lenet", "mlp"] = "lenet"
    """lenet: 20C5-P2-50C5-P2-500 (Fashion-MNIST: 32C5-P2-64C5-P2-1024); mlp: 400-400."""
    epochs: int | None = None
    """Passes over the training images of this phase (the paper: 150, Fashion-MNIST's LeNet 100).
    None: 20, digits 30."""
    learning_rate: float = 1e-3
    """Adam's step size, the highest of the schedule (the paper: 1e-4, constant)."""

    @property
    def setting(self) -> str:
        """Name of the run's folder below ``out``."""
        return f"{self.arch}_{super().setting}"


@dataclass(frozen=True)
class NegativeSpikesCnn1(NegativeSpikes):
    """Lossless conversion with negative spikes of CNN 1 on CIFAR-10."""

    home = "cifar10"
    experiment = "cifar10_cnn1"
    arch: ClassVar[str] = "cnn1"
    usual_epochs: ClassVar[dict[str, int]] = {"digits": 3, "": 30}

    dataset: str = "cifar10"
    """Data set: cifar10, or digits (embedded: no files needed, minutes)."""
    epochs: int | None = None
    """Passes over the training images of this phase (the paper: 100 at a learning rate of 1e-3,
    then, resumed, 100 at 1e-4, both constant). None: 30, digits 3."""
    certify: int | None = 500
    """Test images for the certificate, neuron by neuron; None: all."""

    @property
    def compared(self) -> tuple[str, ...]:
        """The folder of the other network, where it is called alike.

        >>> NegativeSpikesCnn1(out="runs/cifar10_cnn1").compared
        ('runs/cifar10_cnn2',)
        """
        out, other = PurePath(self.out), {"cnn1": "cnn2", "cnn2": "cnn1"}[self.arch]
        if self.arch not in out.name:
            return ()
        return (str(out.with_name(out.name.replace(self.arch, other))),)


@dataclass(frozen=True)
class NegativeSpikesCnn2(NegativeSpikesCnn1):
    """Lossless conversion with negative spikes of CNN 2 on CIFAR-10."""

    experiment = "cifar10_cnn2"
    arch = "cnn2"
