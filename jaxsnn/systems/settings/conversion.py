"""Settings of the systems that train a quantised network and convert it."""

from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import ClassVar, Literal

from jaxsnn.conversion.methods.median import MOST_BITS, MOST_LEVELS
from jaxsnn.report.results import RunSettings
from jaxsnn.systems.settings.base import require
from jaxsnn.systems.settings.training import Trained
from jaxsnn.training.recipe import Name
from jaxsnn.types import JsonObject

# What the help says of CIFAR-10: measured for CNN 1; CNN 2 has 1.9 times its operations.
MACHINE = "two cores of an AMD EPYC with AVX-512 BF16, jax 0.12"
HOURS = {"cnn1": "about 2 hours", "cnn2": "about 4 hours"}
REACHED = {
    "cnn1": "; 16 epochs reached 91.9 % on the test images, 22 more from there (--init) 93.3 %",
    "cnn2": "; 14 epochs reached 92.5 % on the test images, 16 more from there (--init) 93.5 %",
}


def _expect(arch: str) -> str:
    """How long training takes by default, and how accurate it gets."""
    return (
        f"16 epochs of the recipe fast take {HOURS[arch]} on {MACHINE}{REACHED[arch]}. Ctrl-C "
        "stops, --resume goes on."
    )


@dataclass(frozen=True)
class Conversion(Trained):
    """What every experiment that converts a trained network can be asked for."""

    k: int = 1
    """Fractional bits of an activation, 0 to 12: a step of the quantiser is 2^-k."""
    precision: Literal["quantised", "fp32"] = "quantised"
    """quantised: quantised activations, to be converted; fp32: the full-precision network."""
    mode: Literal["training", "inference", ""] = ""
    """The original's word for a stage, used when none is named: training = train, inference =
    evaluate."""
    noise_ratio: tuple[float, ...] = ()
    """Noise ratios, each simulated beside the noise-free run; 0: none."""
    noise_seeds: int = 5
    """Independent repetitions of each noise ratio."""

    def __post_init__(self) -> None:
        """Refuse values out of range, drop noise ratios of 0 (no noise)."""
        super().__post_init__()
        require(0 <= self.k <= MOST_BITS, "k", self.k, f"0 to {MOST_BITS}")
        ratios = self.noise_ratio
        require(all(0 <= r <= 1 for r in ratios), "noise_ratio", ratios, "shares from 0 to 1")
        object.__setattr__(self, "noise_ratio", tuple(r for r in ratios if r))
        require(self.noise_seeds >= 1, "noise_seeds", self.noise_seeds, "1 or more")

    @property
    def full_precision(self) -> bool:
        """Whether the ANN's activations and weights are floats, not quantised."""
        return self.precision == "fp32"

    @property
    def implied_stage(self) -> str:
        """The stage that the original's ``--mode`` stands for."""
        return {"training": "train", "inference": "evaluate", "": "all"}[self.mode]

    @property
    def setting(self) -> str:
        """What the run is called, and its folder below ``out``."""
        return "fp32" if self.precision == "fp32" else f"k{self.k}"

    @property
    def network(self) -> str:
        """Name of the network."""
        raise NotImplementedError

    @property
    def described(self) -> RunSettings:
        """What tells the run from others of its system, for results.json and figures."""
        k = None if self.precision == "fp32" else self.k
        return RunSettings(network=self.network, precision=self.precision, k=k)


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
    """Largest activation: the quantiser has 2^k*B + 1 levels, at most 4097."""
    precision: Literal["quantised", "fp32"] = "quantised"
    """quantised: ternary weights and k, B activations; fp32: the full-precision network."""
    epochs: int | None = None
    """Passes over the training images of this phase (the paper: 200). None: 15, digits 30."""
    noise_ratio: tuple[float, ...] = (0.1, 0.2)
    """Shares of the encoding layer's spikes to delete, each simulated beside the noise-free run;
    0: none."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        most = MOST_LEVELS >> self.k
        require(1 <= self.B <= most, "B", self.B, f"1 to {most} with k = {self.k}")

    @property
    def setting(self) -> str:
        """What the run is called, and its folder below ``out``."""
        return "fp32" if self.precision == "fp32" else f"k{self.k}B{self.B}"

    @property
    def network(self) -> str:
        """Name of the network."""
        return "lenet"

    @property
    def described(self) -> RunSettings:
        """What tells the run from others of its system, for results.json and figures."""
        bound = None if self.precision == "fp32" else self.B
        return replace(super().described, bound=bound)


@dataclass(frozen=True)
class NegativeSpikes(Conversion):
    """Lossless conversion with negative spikes: neurons settle on the quantised ANN's activations.

    >>> NegativeSpikesCnn1(k=2).setting, NegativeSpikesMnist(arch="mlp").setting
    ('k2', 'mlp_k1')
    """

    width: ClassVar[float] = 1.0

    steps: int | None = None
    """Time steps to simulate, every one of them. None: until every image has settled, that is,
    until a whole step is silent."""
    weights: Literal["integer", "float"] = "integer"
    """integer: weights, input and thresholds on one grid, so that spikes are the same on any device
    and the network is exact after settling; float: the weights as trained, whose neurons may differ
    at ties (counted)."""
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
            require(value is None or value >= 1, name, value, "1 or more")
        require(1 <= self.weight_bits <= 24, "weight_bits", self.weight_bits, "1 to 24")


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

    @property
    def setting(self) -> str:
        """What the run is called, and its folder below ``out``."""
        return f"{self.arch}_{super().setting}"

    @property
    def network(self) -> str:
        """Name of the network."""
        return self.arch


@dataclass(frozen=True)
class NegativeSpikesCnn1(NegativeSpikes):
    """Lossless conversion with negative spikes of CNN 1 on CIFAR-10."""

    home = "cifar10"
    experiment = "cifar10_cnn1"
    arch: ClassVar[str] = "cnn1"
    expect: ClassVar[str] = _expect("cnn1")
    usual_epochs: ClassVar[dict[str, int]] = {"digits": 3, "": 30}
    usual_recipe: ClassVar[dict[str, Name]] = {"digits": "paper", "": "fast"}
    before: ClassVar[JsonObject] = {**NegativeSpikes.before, "width": 1.0}

    dataset: str = "cifar10"
    """Data set: cifar10, or digits (embedded: no files needed, minutes)."""
    epochs: int | None = None
    """Passes over the training images of this phase (the paper: 100 at a learning rate of 1e-3,
    then, resumed, 100 at 1e-4, both constant). None: 16 of the recipe fast, 30 of the recipe paper,
    digits 3."""
    width: float = 1.0  # pyright: ignore[reportIncompatibleVariableOverride] # here it is a flag
    """Channels and units of every hidden layer, times those of the paper, in whole eighths; 0.25
    trains in a tenth of the time, to try things out."""
    certify: int | None = 1000
    """Test images for the certificate, neuron by neuron; None: all."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        require(0 < self.width <= 4, "width", self.width, "a number above 0, and at most 4")

    @property
    def setting(self) -> str:
        """What the run is called, and its folder below ``out``."""
        return super().setting + ("" if self.width == 1 else f"_width{self.width:g}")

    @property
    def network(self) -> str:
        """Name of the network."""
        return self.arch

    @property
    def described(self) -> RunSettings:
        """What tells the run from others of its system, for results.json and figures."""
        return replace(super().described, width=self.width)

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
    expect = _expect("cnn2")
