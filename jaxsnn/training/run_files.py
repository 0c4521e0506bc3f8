"""The files of a training run: ``metrics.jsonl``, ``model.npz``, ``best.npz``, ``checkpoints/``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from jaxsnn.errors import UserError
from jaxsnn.io import processes
from jaxsnn.io.arrays import flatten, load_arrays, save_arrays
from jaxsnn.io.checkpoints import Checkpoints
from jaxsnn.io.files import append_jsonl, remove
from jaxsnn.io.metrics import read_metrics
from jaxsnn.training.update import TrainState
from jaxsnn.types import Json, JsonObject

Record: TypeAlias = dict[str, float | int | None]


def left_in(directory: Path) -> str:
    """A file that an earlier run has left and a new one would go on with; "" where none is."""
    files = ("metrics.jsonl", "best.npz")
    return next((name for name in files if (directory / name).is_file()), "")


class TrainFiles:
    """What training writes into its folder, in an order that no kill can spoil.

    Of several processes the first writes; all look into the folder, before anything changes in it.

    Attributes:
        directory: the folder of the run.
        step: of the last checkpoint that this run read or wrote; -1 before.
        time: of that moment, in seconds of the monotonic clock.
        best: the validation accuracy of ``best.npz``; -1 without one.
    """

    def __init__(self, directory: str | Path, run: Mapping[str, Json]) -> None:
        """Name the folder; nothing is written yet.

        Args:
            directory: the folder of the run.
            run: what a checkpoint must agree in to be continued (seed, batch size, ...).
        """
        self.directory = Path(directory)
        self.checkpoints = Checkpoints(self.directory / "checkpoints", run)
        self.step, self.time = -1, time.monotonic()
        self.best = -1.0

    def begin(self) -> None:
        """Make sure that there is no earlier run.

        Raises:
            UserError: the folder holds checkpoints, or what a run has left besides.
        """
        with processes.collective():
            if steps := self.checkpoints.steps():
                raise UserError(
                    f"{self.checkpoints.directory} holds an earlier run up to step {steps[-1]}; "
                    "continue it with resume, or choose another directory"
                )
            if left := left_in(self.directory):
                raise UserError(
                    f"{self.directory} holds {left} of an earlier run, whose checkpoints are gone; "
                    "choose another directory, or remove the file"
                )

    def resume(self, template: TrainState) -> TrainState:
        """The newest checkpoint, in the tree of the template; the other files agree with it then.

        A kill may have come between a checkpoint and what is written after it: ``model.npz`` is
        made anew of the checkpoint, and ``best.npz``, too, where it cannot be read.

        Raises:
            UserError: there is none, it belongs to another run, or processes see different ones.
        """
        with processes.collective():
            state: TrainState | None = self.checkpoints.restore_latest(template)
            if state is None:
                raise UserError(f"{self.checkpoints.directory} holds no checkpoint to resume from")
        processes.same("the newest checkpoints", int(state.step))
        self._save_weights(state)
        with processes.collective():
            self.best = self._best_again(state)
        self.step, self.time = int(state.step), time.monotonic()
        return state

    def _best_again(self, state: TrainState) -> float:
        """The validation accuracy of ``best.npz``, made anew of the checkpoint if it must be."""
        path = self.directory / "best.npz"
        records = [one for one in self._records() if one["step"] <= int(state.step)]
        if not path.exists() and not records:
            return -1.0
        try:
            return _accuracy_of(path)
        except UserError as error:
            reason = str(error)
        best = max(records, key=lambda record: record["validation_accuracy"], default=None)
        if best is not None and best["step"] == int(state.step):
            save_arrays(path, flatten(state.variables), best)
            print(f"{reason}; written again from the checkpoint")
            return best["validation_accuracy"]
        lost = "" if best is None else f" of epoch {best['epoch']}"
        print(f"{reason}; the weights{lost} are lost, and the best epoch from here on is kept")
        remove(path)
        return -1.0

    def _records(self) -> list[JsonObject]:
        """The lines of ``metrics.jsonl`` that have a validation accuracy."""
        path = self.directory / "metrics.jsonl"
        records = read_metrics(path) if path.exists() else []
        return [
            one for one in records if "step" in one and _is_share(one.get("validation_accuracy"))
        ]

    def save(self, state: TrainState) -> None:
        """Write a checkpoint and ``model.npz`` from a state on the host."""
        step = int(state.step)
        self.checkpoints.save(step, state)
        self._save_weights(state)
        self.step, self.time = step, time.monotonic()

    def _save_weights(self, state: TrainState) -> None:
        meta = {"step": int(state.step)}
        save_arrays(self.directory / "model.npz", flatten(state.variables), meta)

    def end_epoch(self, state: TrainState, record: Record) -> None:
        """Write everything: the line of the epoch, the weights if they are the best, ``save``."""
        # The line before the checkpoint: a kill in between repeats the line and never loses it.
        append_jsonl(self.directory / "metrics.jsonl", record)
        accuracy = record["validation_accuracy"]
        if accuracy is not None and accuracy > self.best:
            self.best = accuracy
            save_arrays(self.directory / "best.npz", flatten(state.variables), record)
        self.save(state)


def _accuracy_of(path: Path) -> float:
    """The validation accuracy that a file of the best weights tells of itself.

    Raises:
        UserError: no such file, a damaged one, or one that lacks it.
    """
    accuracy = load_arrays(path)[1].get("validation_accuracy")
    if not _is_share(accuracy):
        raise UserError(f"{path} does not say its validation_accuracy")
    return float(accuracy or 0)


def _is_share(value: object) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value <= 1
