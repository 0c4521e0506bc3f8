"""The folder of one run: its config.json, its phases, its trained weights; shared by all systems.

A run is resumed with the same settings (bit-identical continuation) or with another learning rate,
schedule, number of epochs or crop radius (a new phase from the saved parameters and optimiser
state). Anything else that differs is refused, both values named.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import optax

from jaxsnn.data.base import Dataset
from jaxsnn.data.by_name import load
from jaxsnn.data.splits import limited, split_validation
from jaxsnn.errors import UserError
from jaxsnn.io import processes
from jaxsnn.io.arrays import load_params
from jaxsnn.io.checkpoints import Checkpoints
from jaxsnn.io.files import exclusive, plain, read_text, write_bytes
from jaxsnn.systems.config_file import differences, from_json, to_json
from jaxsnn.systems.settings.base import Common, Scripted
from jaxsnn.systems.shared_batches import devices
from jaxsnn.training.options import Options
from jaxsnn.training.recipe import AUGMENTATION
from jaxsnn.training.run_files import left_in
from jaxsnn.training.schedules import PHASE, STEPS, Phase, Schedule, adam
from jaxsnn.training.task import Task
from jaxsnn.training.train import AfterEpoch, Data, Finish
from jaxsnn.training.train import train as train_task
from jaxsnn.training.update import TrainState
from jaxsnn.types import JsonObject, Tree, Variables

KEPT = "kept.npz"  # what remains of a run below results/
WEIGHTS = ("best.npz", "model.npz", KEPT)  # of a run, the first that is there

Optimiser = Callable[[Sequence[Phase]], tuple[optax.GradientTransformation, Schedule]]


Config = TypeVar("Config", bound=Scripted)


@dataclasses.dataclass(frozen=True)
class Run(Generic[Config]):
    """One setting's folder and configuration.

    Attributes:
        folder: ``<out>/<setting>``.
        config: the settings asked for.
        identity: names of the settings that the weights depend on; resuming needs all of them.
        network: those among them that say which network and data it is; later stages need these.
    """

    folder: Path
    config: Config
    identity: tuple[str, ...]
    network: tuple[str, ...]

    @property
    def _config_path(self) -> Path:
        return self.folder / "config.json"

    @property
    def trained(self) -> bool:
        """Whether the folder holds a run."""
        return self._config_path.is_file()

    def saved(self, names: tuple[str, ...]) -> tuple[Config, list[JsonObject]]:
        """Settings and phases of the run that lies in the folder; ``names`` must be as asked.

        Raises:
            UserError: there is no run, or it was trained with other settings.
        """
        if not self.trained:
            raise UserError(
                f"{self.folder} holds no trained network; train it first (stage train), or name "
                "the folder of an earlier run with --out"
            )
        text = read_text(self._config_path)
        saved, phases = from_json(type(self.config), text, str(self._config_path), self.network)
        differing = differences(saved, self.config, names, str(self._config_path))
        if differing:
            raise UserError("this run was trained differently: " + "; ".join(differing))
        return saved, phases

    def record(self, phases: Sequence[Phase]) -> None:
        """Write config.json."""
        write_bytes(self._config_path, to_json(self.config, phases).encode())

    def weights(self) -> Path:
        """The weights to evaluate; see :func:`weights_at`.

        Raises:
            UserError: nothing has been trained here, or with other settings.
        """
        self.saved(self.network)
        path = weights_at(self.folder)
        if not path.is_file():
            raise UserError(f"{path} is missing; train the network first (stage train)")
        return path

    def variables(self, expected: Variables) -> Tree:
        """Trained variables, strictly as ``expected``."""
        return load_params(self.weights(), expected)

    def phases(self, steps_per_epoch: int) -> list[JsonObject]:
        """Phases of training, the one to be run now last, each with the words of its command.

        Raises:
            UserError: resume without a run, or with other settings than it was trained with.
        """
        now = {name: getattr(self.config, name) for name in PHASE}
        if now["schedule"] == "steps":
            now |= {name: plain(getattr(self.config, name)) for name in STEPS}
        now |= {n: getattr(self.config, n) for n in AUGMENTATION if hasattr(self.config, n)}
        asked = {"argv": list(self.config.argv)} if self.config.argv else {}
        if not self.config.resume:
            return [{**now, "first_step": 0, "steps_per_epoch": steps_per_epoch, **asked}]
        saved, phases = self.saved(self.identity)
        _check_phases(phases, self._config_path)
        before = {n: getattr(saved, n) for n in AUGMENTATION if hasattr(saved, n)} | phases[-1]
        if now.items() <= before.items():
            return phases
        done = Checkpoints(self.folder / "checkpoints").newest()
        if done is None:
            raise UserError(f"{self.folder / 'checkpoints'} holds no checkpoint to resume from")
        first = -(-done // steps_per_epoch) * steps_per_epoch
        return [*phases, {**now, "first_step": first, "steps_per_epoch": steps_per_epoch, **asked}]


def _begun(phases: Sequence[Phase]) -> str:
    """What is another in the last phase, which begins now.

    >>> first = {"epochs": 8, "crop_radius": 2, "first_step": 0, "steps_per_epoch": 97}
    >>> _begun([first, first | {"crop_radius": 4, "first_step": 485}])
    'a new phase begins behind epoch 5, of 8 epochs: crop_radius 4, not 2'
    """
    before, now = phases[-2:]
    names = [name for name in (*PHASE[1:], *STEPS, *AUGMENTATION) if name in now]
    changes = [f"{n} {now[n]}, not {before[n]}" for n in names if before.get(n, now[n]) != now[n]]
    behind = now["first_step"] // now["steps_per_epoch"]
    start = f"a new phase begins behind epoch {behind}, of {now['epochs']} epochs"
    return ": ".join([start, *filter(None, [", ".join(changes)])])


def _check_phases(phases: Sequence[Phase], path: Path) -> None:
    """Refuse phases that no training has written.

    Raises:
        UserError: there is none, or a number in one is missing or out of range.
    """
    problems = [] if phases else ["phases is empty"]
    for index, phase in enumerate(phases):
        for name, least in (("epochs", 1), ("first_step", 0), ("steps_per_epoch", 1)):
            value = phase.get(name)
            if type(value) is not int or value < least:
                problems.append(f"phases[{index}].{name} is {value!r}, not a number from {least}")
    firsts = [0 if problems else int(phase["first_step"]) for phase in phases]
    if not problems and (firsts[0] != 0 or firsts != sorted(firsts)):
        problems.append(f"phases begin at steps {firsts}, which do not rise from 0")
    if problems:
        raise UserError(
            f"{path}: {problems[0]}; restore the file, or train anew with another --out"
        )


def read_data(config: Common) -> Dataset:
    """The data set, shortened as ``--limit-train`` and ``--limit-test`` say.

    Raises:
        UserError: no test image, or fewer training images than classes; or as ``load``.
    """
    data = load(config.dataset, config.data_dir)
    if not len(data.test_labels):
        raise UserError(
            f"{data.source}: there is no test image; add test_images and test_labels to the file, "
            "or more images"
        )
    if data.classes > len(data.train_labels):
        raise UserError(
            f"{data.source}: {data.classes:,} classes, but {len(data.train_labels):,} training "
            "images; number the classes from 0 without gaps (np.unique with return_inverse)"
        )
    return limited(data, config.limit_train, config.limit_test)


def held_out(available: int, validation: int | None) -> int:
    """Number of validation images: as asked, else 10,000 of MNIST's 60,000, 20 % of fewer."""
    if validation is not None:
        return validation
    return 10_000 if available >= 60_000 else available // 5


def task_data(data: Dataset, validation: int) -> Data:
    """Training and validation images and labels of a data set of images."""
    return split_validation(data, validation)


def weights_at(place: str | Path) -> Path:
    """The file of weights that a path names: itself, or that of a run's folder.

    Of a run it is the best epoch where images were held out, else the last, else what was kept.
    """
    path = Path(place)
    if not path.is_dir():
        return path
    there = (path / name for name in WEIGHTS if (path / name).is_file())
    return next(there, path / WEIGHTS[1])


def train_run(
    run: Run[Any],
    task: Task,
    data: Data,
    micro_batch: int | None = None,
    after_epoch: AfterEpoch | None = None,
    optimiser: Optimiser = adam,
    averaging: float = 0.0,
    finish: Finish | None = None,
) -> TrainState:
    """Train (or resume) the network of a run folder; writes all its files but results.json.

    Args:
        run: the folder and its settings.
        task: what is trained.
        data: training images and labels, validation images and labels.
        micro_batch: see :class:`jaxsnn.train.Options`.
        after_epoch: see :func:`jaxsnn.train.train`.
        optimiser: phases -> optimiser and learning rate (:mod:`jaxsnn.training.schedules`).
        averaging: see :class:`jaxsnn.train.Options`.
        finish: see :func:`jaxsnn.train.train`.
    """
    config = run.config
    steps_per_epoch = len(data[1]) // config.batch_size
    if not steps_per_epoch:
        raise UserError(
            f"--batch-size {config.batch_size}: {len(data[1])} training images do not fill one "
            "batch; choose a smaller one"
        )
    with processes.collective():  # all look into the folder before one writes there
        phases = run.phases(steps_per_epoch)
        checkpoints = Checkpoints(run.folder / "checkpoints").steps()
        if not config.resume and (checkpoints or left_in(run.folder)):
            way = "continue it with --resume" if checkpoints else "start from its weights (--init)"
            raise UserError(
                f"{run.folder} holds an earlier run; {way}, use it (a later stage), or give "
                "another --out"
            )
    moved_by, rate = optimiser(phases)
    last = phases[-1]
    options = Options(
        epochs=last["first_step"] // steps_per_epoch + last["epochs"],
        batch_size=config.batch_size,
        seed=config.seed,
        directory=run.folder,
        resume=config.resume,
        devices=devices(config, config.batch_size),
        micro_batch=micro_batch,
        averaging=averaging,
    )
    with exclusive(run.folder):
        if config.resume and len(run.saved(())[1]) < len(phases) and processes.is_primary():
            print(_begun(phases))
        run.record(phases)
        state, history = train_task(
            task,
            moved_by,
            data,
            options,
            schedule=rate,
            after_epoch=after_epoch,
            finish=finish,
        )
    if not history:
        print(f"{run.folder}: already trained for {options.epochs} epochs")
    return state


def seconds_of(streams: Sequence[JsonObject]) -> float:
    """Training time in seconds, from the records of metrics.jsonl."""
    return float(np.sum([record["seconds"] for record in streams]))
