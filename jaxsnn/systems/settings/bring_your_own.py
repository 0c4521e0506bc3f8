"""Settings of ``python -m jaxsnn convert``: somebody's network and what is asked of it (no jax)."""

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, ClassVar, Literal

import tyro

from jaxsnn.arch import zoo
from jaxsnn.report.results import RunSettings
from jaxsnn.systems.settings.base import of_this_start, require

OF_FINETUNING = ("learning_rate", "distillation", "finetune_batch_size", "flip", "resume")
MethodName = Literal["auto", "scatter_gather", "negative_spikes", "signed_if", "rate"]


@dataclass(frozen=True)
class BringYourOwn:
    """Turn a network that somebody trained into a certified spiking one, by every method.

    Attributes are the flags; what each is for stands below it.
    """

    experiment: ClassVar[str] = "bring_your_own"
    positionals: ClassVar[dict[str, tuple[str, ...]]] = {"": ("weights",)}
    aliases: ClassVar[dict[str, str]] = {"data": "dataset"}

    weights: str
    """File of its weights: PyTorch (.pt, .pth, .th), safetensors, Keras (.keras, .h5) or npz. It is
    read without its framework, and nothing in it is run."""
    arch: str = ""
    """Its architecture in the notation (help(jaxsnn.parse) explains it), or the name of a network
    that python -m jaxsnn describe --help lists."""
    module: str = ""
    """FILE:NAME of its PyTorch module, instead of --arch: the Python file is run (extra torch)."""
    dataset: str = "digits"
    """Data set (also --data): mnist, fashion_mnist, cifar10, cifar100, tiny_imagenet, lfw, digits
    (embedded), or the path of an npz file."""
    data_dir: str | None = None
    """Folder of the data files, or the one above it; None: $JAXSNN_DATA, ./data and further."""
    mean: tuple[float, ...] = ()
    """Mean of each channel that its images were normalised by, of grey values in 0 to 1."""
    std: tuple[float, ...] = ()
    """Deviation of each channel, with --mean; neither: grey values over --white."""
    white: float = 255.0
    """Grey value that the network was shown as 1, without --mean."""
    size: int | None = None
    """Height and width of its images; smaller ones lie in black, of larger ones the middle is
    taken. None: those of the data set."""
    pool: Literal["avg", "max", "conv"] | None = None
    """What the token P means: average, maximum or learned pool."""
    norm: bool | None = None
    """Whether layers without a suffix have a batch norm (else a bias). None: as the arrays say."""
    head_pool: bool = False
    """Global average pool before the readout."""
    head_bias: bool | None = None
    """Whether the readout has a bias. None: as the arrays say."""
    entry: str | None = None
    """Entry of the checkpoint that holds the arrays, if it has several."""
    epsilon: float | None = None
    """What its batch norms add to a variance. None: as the file says, else 1e-5 (Keras 1e-3)."""
    method: MethodName = "auto"
    """auto: try every method and take the best (exact ones first, then the most accurate, then the
    fewest operations); or the one to try."""
    k: int | None = None
    """Fractional bits of an activation. None: as few as see the calibration images alike."""
    bits: int = 5
    """Bits of an activation of signed_if, 2 to 5."""
    balance: bool = True
    """Divide activations by powers of two, so that those of all layers reach about 1: --k counts
    steps of that 1. false: steps of the network's own units."""
    calibration: int = 500
    """Training images that clips, bounds and scales are read from."""
    rate_steps: int = 100
    """Time steps of rate coding."""
    settling_steps: int = 1024
    """Most time steps of a network that comes to rest."""
    certify: int = 200
    """Test images that are compared neuron by neuron."""
    finetune_epochs: int = 0
    """Passes over the training images with quantised activations, before the method that was taken
    is tried again; 0: nothing is trained."""
    learning_rate: float = 3e-4
    """Step size at the beginning of the fine-tuning; take about a tenth of what the network was
    trained with."""
    distillation: float = 1.0
    """Share of the fine-tuning's loss that is the distance to the network's own answers in full
    precision, 0 to 1; the rest is the distance to the labels."""
    finetune_batch_size: int = 128
    """Images of an update of the fine-tuning."""
    flip: Literal["random", "none"] = "random"
    """Mirror colour images in fine-tuning: at random, or none where left and right matter."""
    resume: bool = False
    """Go on with a fine-tuning that was stopped, from its newest checkpoint below --out."""
    limit_train: int | None = None
    """Use only N training images, of every class its share; None: all."""
    limit_test: int | None = None
    """Use only N test images, of every class its share; None: all."""
    batch_size: int = 100
    """Images per compiled call of a simulation."""
    seed: int = 0
    """Seed of the order of the images in fine-tuning."""
    out: str = "runs/bring_your_own"
    """Folder for the table, pictures, network, certificate and results.json."""
    argv: Annotated[tuple[str, ...], tyro.conf.Suppress] = of_this_start(())
    """The words of this command; no flag."""

    def __post_init__(self) -> None:
        """Refuse values out of range, by name."""
        if bool(self.arch) == bool(self.module):
            require(False, "arch", self.arch, "--arch NOTATION or --module FILE:NAME, one of them")
        file, _, name = self.module.rpartition(":")
        require(not self.module or bool(file and name), "module", self.module, "FILE:NAME")
        self._refuse_unread()
        require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")
        counts = ("calibration", "rate_steps", "settling_steps", "batch_size")
        for count in (*counts, "finetune_batch_size"):
            require(getattr(self, count) >= 1, count, getattr(self, count), "1 or more")
        for count in ("limit_train", "limit_test", "size"):
            value = getattr(self, count)
            require(value is None or value >= 1, count, value, "1 or more")
        for count in ("certify", "finetune_epochs"):
            require(getattr(self, count) >= 0, count, getattr(self, count), "0 or more")
        require(self.k is None or 0 <= self.k <= 12, "k", self.k, "0 to 12")
        require(2 <= self.bits <= 5, "bits", self.bits, "2 to 5")
        codes_as_it_is = self.method == "rate" and self.finetune_epochs > 0
        remedy = "another, or no --finetune-epochs: rate codes the network as it is"
        require(not codes_as_it_is, "method", self.method, remedy)
        same = len(self.mean) == len(self.std)
        require(same, "std", self.std, "as many numbers as --mean")
        read = not self.mean or self.white == type(self).white
        require(read, "white", self.white, "it without --mean, or --mean and --std without it")
        share = self.distillation
        require(0 <= share <= 1, "distillation", share, "0 to 1")
        for number in ("white", "learning_rate"):
            value = getattr(self, number)
            require(math.isfinite(value) and value > 0, number, value, "a number above 0")
        require(bool(self.out), "out", "", "the name of a folder")

    def _refuse_unread(self) -> None:
        """Refuse flags that a module, a network's name, or no fine-tuning leave no room for."""
        described = ("pool", "norm", "head_pool", "head_bias")
        unread = (*described, "epsilon") if self.module else described
        for name in unread if self.module or self.arch in zoo.NAMES else ():
            usual = getattr(self, name) is getattr(type(self), name)
            remedy = f"it with a notation; {self.module or self.arch} says it itself"
            require(usual, name, getattr(self, name), remedy)
        for name in () if self.finetune_epochs else OF_FINETUNING:
            usual = getattr(self, name) == getattr(type(self), name)
            remedy = "it with --finetune-epochs, without which nothing is trained"
            require(usual, name, getattr(self, name), remedy)

    @property
    def network(self) -> str:
        """What the network is called: its file, without folder and ending.

        >>> BringYourOwn("models/resnet20-12fca82f.th", arch="resnet18").network
        'resnet20-12fca82f'
        """
        return PurePath(self.weights).stem

    def described(self, k: int | None, bound: int | None, bits: int | None) -> RunSettings:
        """What tells the network from others, for results.json."""
        return RunSettings(network=self.network, k=k, bound=bound, bits=bits)
