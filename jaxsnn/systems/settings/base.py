"""What every experiment and every system's script can be asked for."""

import math
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, ClassVar, TypeVar

import tyro

from jaxsnn.errors import UserError
from jaxsnn.report.results import RunSettings


def require(holds: bool, name: str, value: object, remedy: str) -> None:
    """Refuse a value: say its name, what it is, and the remedy.

    Raises:
        UserError: it does not hold.
    """
    if not holds:
        raise UserError(f"{name} is {value!r} in the configuration; give {remedy}")


T = TypeVar("T")


def of_this_start(default: T) -> T:
    """A field that says how a program is started: no part of a run, and not in config.json."""
    return field(default=default, repr=False, compare=False)


@dataclass(frozen=True)
class Common:
    """What every experiment can be asked for. A value out of range is a UserError."""

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
    """Step size of the optimiser, the highest of the schedule."""
    seed: int = 0
    """Seed of initialisation, data order and noise."""
    resume: bool = False
    """Continue training from the newest checkpoint; may stand alone."""
    limit_train: int | None = None
    """Use only N training images, of every class its share; None: all."""
    limit_test: int | None = None
    """Use only N test images, of every class its share; None: all."""
    devices: int | None = None
    """Number of devices to spread a batch over, those of all processes; None: all."""
    coordinator: str | None = of_this_start(None)
    """Start as one of several processes: HOST:PORT of the first of them, on a machine that all
    reach, or auto where the cluster tells (SLURM, Open MPI, TPU slices). None: one process."""
    processes: int | None = of_this_start(None)
    """How many processes there are, with a coordinator of HOST:PORT."""
    process_id: int | None = of_this_start(None)
    """Which of them this one is, from 0; process 0 writes all files."""
    heartbeat_timeout: int = of_this_start(100)
    """Seconds after which the other processes give up one that is gone, and end."""
    argv: Annotated[tuple[str, ...], tyro.conf.Suppress] = of_this_start(())
    """The words of this command behind the program's name; no flag."""

    def __post_init__(self) -> None:
        """Refuse values out of range, by name."""
        for name in ("epochs", "batch_size", "limit_train", "limit_test", "devices"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")
        rate = self.learning_rate
        require(math.isfinite(rate) and rate > 0, "learning_rate", rate, "a number above 0")
        require(0 <= self.seed < 2**32, "seed", self.seed, "0 to 4294967295")
        self._check_processes()
        for name in ("dataset", "out"):
            require(getattr(self, name) != "", name, "", "a name, or leave the flag out")

    def _check_processes(self) -> None:
        """Refuse processes of which something is unknown."""
        wait, where = self.heartbeat_timeout, self.coordinator
        require(wait >= 1, "heartbeat_timeout", wait, "1 second or more")
        number, process_id = self.processes, self.process_id
        if where is None or where == "auto":
            remedy = "--coordinator HOST:PORT with it, or leave it out"
            require(number is None, "processes", number, remedy)
            require(process_id is None, "process_id", process_id, remedy)
            return
        host, _, port = where.rpartition(":")
        require(bool(host) and port.isdigit(), "coordinator", where, "HOST:PORT, or auto")
        require(number is not None and number >= 1, "processes", number, "their number with it")
        in_range = process_id is not None and number is not None and 0 <= process_id < number
        require(in_range, "process_id", process_id, f"0 to {(number or 1) - 1} with it")

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
    parts_of_training: ClassVar[tuple[str, ...]] = ("batch_size", "learning_rate", "schedule")
    expect: ClassVar[str] = ""  # how long it takes and how accurate it gets, for the help

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
    def setting(self) -> str:
        """What the run is called, and its folder below ``out``."""
        raise NotImplementedError

    @property
    def described(self) -> RunSettings:
        """What tells the run from others of its system, for results.json and figures."""
        raise NotImplementedError

    @property
    def full_precision(self) -> bool:
        """Whether the ANN's activations and weights are floats, not quantised."""
        return False

    @property
    def compared(self) -> tuple[str, ...]:
        """Folders of other experiments whose results join in the figures, if they are there."""
        return ()
