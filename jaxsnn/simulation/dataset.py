"""Evaluation of a data set in batches of one shape."""

import warnings
from collections.abc import Sized
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxsnn.conversion.spiking import Spiking, comes_to_rest
from jaxsnn.errors import UserError, whole_number
from jaxsnn.inputs import class_numbers
from jaxsnn.io import processes
from jaxsnn.io.progress import batches
from jaxsnn.simulation.fixed_steps import simulate
from jaxsnn.simulation.horizon import MOST_STEPS
from jaxsnn.simulation.totals import Batch, Evaluation, counted, of_batches
from jaxsnn.simulation.until_silent import restless
from jaxsnn.simulation.until_silent import settle as run_until_silent
from jaxsnn.types import PyTree


class Streams(Protocol):
    """A data set of frames: N examples, each with a time axis of its own."""

    def __len__(self) -> int:
        """N."""
        ...

    def batch(self, rows: NDArray[np.intp], steps: int) -> tuple[Array, Array]:
        """Frames ``[T, B, H, W, C]`` of these examples, padded to ``steps``, and their lengths."""
        ...


def evaluate(
    snn: Spiking,
    images: Array | np.ndarray | Streams,
    labels: Array | np.ndarray | None = None,
    *,
    steps: int = 1,
    settle: bool = False,
    block: int = 1,
    batch_size: int = 200,
    key: Array | None = None,
    devices: int = 1,
    progress: str = "",
) -> Evaluation:
    """Simulate a whole data set in padded batches of one shape: one compile, exact totals.

    Warns with the share of images that still spike in the last step, where more steps would settle
    them. Several processes share the batches, and all of them return the same.

    Args:
        snn: converted network.
        images: ``[N, H, W, C]`` integers; for a network that is shown frames a data set of them
            (:class:`Streams`), whose examples count up to their own lengths.
        labels: ``[N]`` or None.
        steps: time steps; with ``settle`` the most.
        settle: end every batch with its first silent step (:func:`jaxsnn.settle`). T is then the
            longest batch's number of steps, and the result that of a run of so many.
        block: steps computed layer by layer at once; without effect with ``settle``.
        batch_size: images per compiled call.
        key: for random neurons (``settle`` refuses those); image ``n`` draws the same numbers at
            any batch size.
        devices: local devices that share each of this process's batches.
        progress: name of the progress bar, empty for none.

    Raises:
        UserError: no images, images and labels of different length, or a network that silence
            does not stop, with ``settle``.
    """
    examples = images if hasattr(images, "batch") else np.asarray(images)
    check_presentation(snn, examples)
    labels = checked_labels(examples, labels, snn.arch.classes)
    steps = whole_number("steps", steps, 1, MOST_STEPS)
    batch_size = batch_for(len(examples), batch_size, devices)
    parts: list[Batch] = []
    for rows, real in processes.shard(batches(len(examples), batch_size, progress)):
        batch, lengths = _shown(examples, rows, steps)
        if settle:
            trace = run_until_silent(snn, batch, steps=steps, devices=devices)
        else:
            trace = simulate(
                snn,
                batch,
                steps=steps,
                block=block,
                key=key,
                first_image=int(rows[0]),
                devices=devices,
                lengths=lengths,
            )
        parts.append(counted(trace, real))
    evaluation = of_batches(snn.arch, processes.unsharded(parts), labels)
    if comes_to_rest(snn) and not restless(snn):
        warn_unsettled(evaluation.unsettled, evaluation.steps)
    return evaluation


def _shown(examples: PyTree, rows: NDArray[np.intp], steps: int) -> tuple[PyTree, Array | None]:
    """The images of a batch, or its frames and lengths."""
    if isinstance(examples, np.ndarray):
        return examples[rows], None
    frames, lengths = examples.batch(rows, steps)
    return frames, jnp.minimum(lengths, steps)


def warn_unsettled(unsettled: np.ndarray, steps: int) -> None:
    """Warn if any of the images (bool ``[N]``) still spikes after ``steps`` steps."""
    number = int(np.sum(unsettled))
    if number:
        warnings.warn(
            f"{number / len(unsettled):.2%} of the images ({number:,}) still spike in step "
            f"{steps}, the last: they may not have settled; raise steps (--steps)",
            UserWarning,
            stacklevel=3,
        )


def check_presentation(snn: Spiking, examples: PyTree) -> None:
    """Refuse images for a network that is shown frames, and frames for one that is not.

    Raises:
        UserError: naming what is wanted.
    """
    if isinstance(examples, np.ndarray):
        check_stills(snn)
    elif snn.encoding.presentation != "frames":
        raise UserError(f"the network is shown {snn.encoding.presentation!r} images, not frames")


def check_stills(snn: Spiking) -> None:
    """Refuse networks whose input has its time axis in front of the images' axis.

    Raises:
        UserError: the encoding streams frames.
    """
    if snn.encoding.presentation == "frames":
        raise UserError(
            "this network is shown frames, whose time axis comes first; give evaluate() a data set "
            "with batch() (jaxsnn.simulation.Streams), or stream one batch by simulate()"
        )


def batch_for(examples: int, batch_size: int, devices: int = 1) -> int:
    """Examples per compiled call: no more than there are, filled up to share between devices.

    Raises:
        UserError: no whole numbers of at least 1.

    >>> batch_for(1000, 200), batch_for(1, 200), batch_for(5, 200, devices=2)
    (200, 1, 6)
    """
    devices = whole_number("devices", devices)
    return min(whole_number("batch_size", batch_size), -(-examples // devices) * devices)


def checked_labels(
    images: Sized, labels: Array | np.ndarray | None, classes: int
) -> NDArray[np.int32] | None:
    """Labels as class numbers; an empty data set, and labels that do not belong to it, are refused.

    Raises:
        UserError: naming both lengths, or the first label that is no class number.
    """
    if len(images) == 0:
        raise UserError("there are no images to evaluate")
    if labels is None:
        return None
    if len(labels) != len(images):
        raise UserError(f"{len(images)} images but {len(labels)} labels; pass one label per image")
    return class_numbers(labels, classes, "labels")
