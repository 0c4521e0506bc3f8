"""The files of a training run: ``metrics.jsonl``, ``model.npz``, ``best.npz``, ``checkpoints/``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from jaxsnn.errors import UserError
from jaxsnn.io import processes
from jaxsnn.io.arrays import flatten, load_arrays, save_arrays
from jaxsnn.io.checkpoints import Checkpoints
from jaxsnn.io.files import append_jsonl
from jaxsnn.training.update import TrainState

Record: TypeAlias = dict[str, float | int | None]


class TrainFiles:
    """What training writes into its folder, in an order that no kill can spoil.

    Of several processes the first writes; all look into the folder, before anything changes in it.

    Attributes:
        directory: the folder of the run.
        step: of the last checkpoint that this run read or wrote; -1 before.
        time: of that moment, in seconds of the monotonic clock.
        best: the validation accuracy of ``best.npz``; -1 without one.
    """

    def __init__(self, directory: str | Path, run: Mapping[str, Any]) -> None:
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
            UserError: the folder holds checkpoints.
        """
        with processes.together():
            if steps := self.checkpoints.steps():
                raise UserError(
                    f"{self.checkpoints.directory} holds an earlier run up to step {steps[-1]}; "
                    "continue it with resume, or choose another directory"
                )

    def resume(self, template: TrainState) -> TrainState:
        """The newest checkpoint, in the tree of the template.

        Raises:
            UserError: there is none, it belongs to another run, or processes see different ones.
        """
        with processes.together():
            state: TrainState | None = self.checkpoints.restore_latest(template)
            if state is None:
                raise UserError(f"{self.checkpoints.directory} holds no checkpoint to resume from")
        processes.same("the newest checkpoints", int(state.step))
        best = self.directory / "best.npz"
        if best.exists():
            self.best = load_arrays(best)[1]["validation_accuracy"]
        self.step, self.time = int(state.step), time.monotonic()
        return state

    def save(self, state: TrainState) -> None:
        """Write a checkpoint and ``model.npz`` from a state on the host."""
        step = int(state.step)
        self.checkpoints.save(step, state)
        save_arrays(self.directory / "model.npz", flatten(state.variables), {"step": step})
        self.step, self.time = step, time.monotonic()

    def end_epoch(self, state: TrainState, record: Record) -> None:
        """Write everything: the line of the epoch, the weights if they are the best, `save`."""
        # The line before the checkpoint: a kill in between repeats the line and never loses it.
        append_jsonl(self.directory / "metrics.jsonl", record)
        accuracy = record["validation_accuracy"]
        if accuracy is not None and accuracy > self.best:
            self.best = accuracy
            save_arrays(self.directory / "best.npz", flatten(state.variables), record)
        self.save(state)
