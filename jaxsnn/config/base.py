"""What every experiment and every system's script can be asked for."""

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import ClassVar


def require(holds: bool, name: str, value: object, remedy: str) -> None:
    """Refuse a value: say its name, what it is, and the remedy.

    Raises:
        ValueError: it does not hold.
    """
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
            require(value is None or value >= 1, name, value, "1 or more")
        rate = self.learning_rate
        require(math.isfinite(rate) and rate > 0, "learning_rate", rate, "a number above 0")
        require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")
        for name in ("dataset", "out"):
            require(getattr(self, name) != "", name, "", "a name, or leave the flag away")

    @property
    def implied_stage(self) -> str:
        """The stage to run when the command line names none."""
        return "all"


@dataclass(frozen=True)
class Scripted(Common):
    """What every system's script can be asked for."""

    home: ClassVar[str] = "mnist"  # the paper's data set
    experiment: ClassVar[str] = ""  # name of the script
    usual_epochs: ClassVar[dict[str, int]] = {}  # by data set; "" for all others

    out: str = ""
    """Folder for results; each setting gets a folder of its own in it. Empty: runs/ and the
    script's name, with _DATASET behind it for another data set than the paper's."""
    epochs: int | None = None
    """Passes over the training images of this phase. None: as in the description above."""
    validation: int | None = None
    """Training images held out to choose the epoch; 0: train on all and take the last epoch; None:
    10,000 of 60,000 or more, 20 % of fewer."""

    def __post_init__(self) -> None:
        """Fill in defaults that depend on the data set; refuse values out of range."""
        name = PurePath(self.dataset).stem
        if not self.out:
            ending = "" if name == self.home else f"_{name}"
            object.__setattr__(self, "out", f"runs/{self.experiment}{ending}")
        if self.epochs is None:
            usual = self.usual_epochs.get(name, self.usual_epochs[""])
            object.__setattr__(self, "epochs", usual)
        super().__post_init__()
        held_out = self.validation
        require(held_out is None or held_out >= 0, "validation", held_out, "0 or more")

    @property
    def compared(self) -> tuple[str, ...]:
        """Folders of other experiments whose results join in the figures, if they are there."""
        return ()
