"""Settings of an experiment: frozen dataclasses = command line = config.json (no jax).

One class per system: its fields are the flags, their docstrings the help, its JSON the record of a
run. How a command line is read stands in :mod:`jaxsnn.command`, how config.json is read in
:mod:`jaxsnn.configfile`; both work on any such class and are offered here as well.
"""

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from jaxsnn.command import STAGES, parse_command
from jaxsnn.configfile import differences, from_json, to_json

__all__ = [
    "STAGES",
    "Common",
    "LeNetScatter",
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
    """Data set: mnist, fashion_mnist, or digits (embedded: no files, no network, minutes)."""
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
class LeNetScatter(Common):
    """Scatter-and-gather LeNet: ternary weights, 2^k*B threshold units a neuron, one time step.

    >>> LeNetScatter(k=0, B=1).setting, LeNetScatter(precision="fp32").setting
    ('k0B1', 'fp32')
    >>> LeNetScatter(noise_ratio=(0.0, 0.2)).noise_ratio
    (0.2,)
    """

    dataset: str = "mnist"
    """Data set: mnist (the paper's), fashion_mnist, or digits (embedded: no files needed)."""
    out: str = ""
    """Folder for results; each setting gets a folder of its own in it (k1B2, fp32). Empty:
    runs/mnist_lenet, or runs/mnist_lenet_DATASET for another data set than MNIST."""
    k: int = 1
    """Fractional bits of an activation: a step of the quantiser is 2^-k."""
    B: int = 2
    """Largest activation: the quantiser has 2^k*B + 1 levels."""
    precision: Literal["quantised", "fp32"] = "quantised"
    """quantised: ternary weights and k, B activations; fp32: the full-precision network."""
    epochs: int | None = None
    """Passes over the training images of this phase (the paper: 200). None: 15, digits 30."""
    learning_rate: float = 1e-3
    """Adam's step size, the highest of the schedule (the paper: 1e-4, constant)."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Course of the learning rate: cosine falls to zero over the epochs (the paper: constant)."""
    mode: Literal["training", "inference", ""] = ""
    """The original's word for a stage, used when none is named: training = train, inference =
    evaluate."""
    validation: int | None = None
    """Training images held out to choose the epoch; 0: train on all and take the last epoch; None:
    10,000 for MNIST, 20 % otherwise."""
    noise_ratio: tuple[float, ...] = (0.1, 0.2)
    """Shares of the encoding layer's spikes to delete, each simulated beside the noise-free run;
    0: none."""
    noise_seeds: int = 5
    """Independent repetitions of each noise ratio."""

    def __post_init__(self) -> None:
        """Fill in defaults, refuse values out of range, drop noise ratios of 0 (no noise)."""
        name = PurePath(self.dataset).stem
        if not self.out:
            folder = "runs/mnist_lenet" + ("" if name == "mnist" else f"_{name}")
            object.__setattr__(self, "out", folder)
        if self.epochs is None:
            object.__setattr__(self, "epochs", 30 if name == "digits" else 15)
        super().__post_init__()
        _require(self.k >= 0, "k", self.k, "0 or more")
        _require(self.B >= 1, "B", self.B, "1 or more")
        _require(
            all(0 <= ratio <= 1 for ratio in self.noise_ratio),
            "noise_ratio",
            self.noise_ratio,
            "shares from 0 to 1",
        )
        object.__setattr__(self, "noise_ratio", tuple(r for r in self.noise_ratio if r))
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
        return "fp32" if self.precision == "fp32" else f"k{self.k}B{self.B}"
