"""How to train: the numbers of a training run, checked when they are given."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax

from jaxsnn.errors import UserError, whole_number
from jaxsnn.io import processes


@dataclasses.dataclass(frozen=True)
class Options:
    """How to train.

    Attributes:
        epochs: passes over the training images in all, those before a resume included.
        batch_size: examples of one update, over all devices together.
        seed: of the initial weights, the order of the images and all noise.
        directory: where ``metrics.jsonl``, ``model.npz``, ``best.npz`` and ``checkpoints/`` go;
            None writes nothing.
        resume: continue from the newest checkpoint in ``directory``.
        checkpoint_seconds: a checkpoint at least so often; there is one after every epoch anyway.
        steps_per_call: updates per compiled call; None leaves it to the backend.
        devices: that share each batch, as many of each process (:mod:`jaxsnn.io.processes`).
        micro_batch: examples whose gradient a device computes at once; gradients of the micro-
            batches of a batch are accumulated, which changes the order of sums, what is drawn at
            random, and batch statistics (those of a micro-batch). None: all.
        averaging: share that the average of the weights keeps in an update, which is then what is
            evaluated and kept; 0: no average.
    """

    epochs: int
    batch_size: int
    seed: int = 0
    directory: str | Path | None = None
    resume: bool = False
    checkpoint_seconds: float = 60.0
    steps_per_call: int | None = None
    devices: int = 1
    micro_batch: int | None = None
    averaging: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            UserError: a number below 1, an ``averaging`` that is no share below 1, a batch that the
                devices cannot share equally or that is no whole number of micro-batches, more
                devices than there are, devices that the processes cannot share equally, or
                ``resume`` without a directory.
        """
        for name in ("epochs", "batch_size", "devices", "steps_per_call", "micro_batch"):
            value = getattr(self, name)
            if value is not None:
                whole_number(name, value)
        if not 0 <= self.averaging < 1:
            raise UserError(f"averaging = {self.averaging}: give 0 or more, and less than 1")
        if self.batch_size % self.devices:
            raise UserError(
                f"batch_size {self.batch_size} is no multiple of devices = {self.devices}"
            )
        share = self.batch_size // self.devices
        if self.micro_batch is not None and share % self.micro_batch:
            raise UserError(
                f"micro_batch = {self.micro_batch} does not divide the {share} examples that a "
                "device has of every batch"
            )
        if processes.devices_per_process(self.devices) > jax.local_device_count():
            raise UserError(f"devices = {self.devices}, but only {jax.device_count()} are here")
        if self.resume and self.directory is None:
            raise UserError("resume needs the directory of the run to continue")


def refuse_single_norm(options: Options, site: str | None) -> None:
    """Refuse batches of one example for batch norm that sees one value of each (``site``).

    The mean of one value is the value itself, so that every normalised value would be 0.

    Raises:
        UserError: naming the option, the site and the remedy.
    """
    at_once = (options.micro_batch or options.batch_size // options.devices) * options.devices
    if site is None or at_once > 1:
        return
    name = "batch_size" if options.micro_batch is None else "micro_batch"
    raise UserError(
        f"{name} = 1: batch norm at {site} would normalise a single value, which becomes 0 "
        f"whatever it was; give a {name} of 2 or more, or a network without batch norm"
    )


def steps_per_call(options: Options) -> int:
    """Number of updates in one compiled call, which the backend decides.

    XLA:CPU takes a slow path for the gradient of a convolution inside a loop (ten times slower for
    LeNet), so a CPU runs one step a call. On an accelerator launching a call costs more than a
    small step, so that many share one.
    """
    if options.steps_per_call is not None:
        return options.steps_per_call
    return 1 if jax.default_backend() == "cpu" else 64
