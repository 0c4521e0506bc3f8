"""Text files as the original programs wrote them: a line for each batch, or for each step of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.io.files import write_bytes


def write_per_batch(
    folder: str | Path,
    accuracy: Sequence[int] | np.ndarray,
    spike_num: Sequence[int] | np.ndarray,
    sop_num: Sequence[int] | np.ndarray,
) -> tuple[Path, ...]:
    """Write the text files of the original: one integer per line, one line per batch.

    Args:
        folder: the folder of the setting.
        accuracy: [batches], correct images of each batch, for ``accuracy.txt``.
        spike_num: [batches], spikes of each batch, for ``spike_num.txt``.
        sop_num: [batches], synaptic operations of each batch, for ``sop_num.txt``.

    Raises:
        UserError: the arrays differ in length, or a value is no whole number of 0 or more.
    """
    columns = {"accuracy": accuracy, "spike_num": spike_num, "sop_num": sop_num}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise UserError(f"one value per batch is needed in every file, got {lengths}")
    texts = {name: _integer_lines(name, column) for name, column in columns.items()}
    return tuple(
        write_bytes(Path(folder) / f"{name}.txt", text.encode()) for name, text in texts.items()
    )


def _integer_lines(name: str, column: Sequence[int] | np.ndarray) -> str:
    values = np.asarray(column)
    if values.dtype.kind not in "iu" and not np.array_equal(values, np.floor(values)):
        raise UserError(f"{name}: whole numbers are needed, got {values[:5]}")
    if (values < 0).any():
        raise UserError(f"{name}: {values.min()} is negative")
    return "".join(f"{int(value)}\n" for value in values)


def write_per_step(
    folder: str | Path,
    correct: np.ndarray,
    spikes: np.ndarray,
    net: np.ndarray,
    operations: np.ndarray,
    batch: int,
) -> tuple[Path, ...]:
    """Write the four text files of a simulation over time steps, batch after batch.

    Every batch has T consecutive lines, one per step; an incomplete last batch is one of its own.
    ``accuracy.txt`` holds the correct images of the batch at that step; ``spike_num.txt``,
    ``spike_collect.txt`` (net spikes, written as in ``123.0``) and ``sop_num.txt`` hold what has
    come together from step 1 on, summed in 64 bits.

    Args:
        folder: the folder of the setting.
        correct: bool [T, N], whether an image is classified correctly after a step.
        spikes: integers [T, N], positive and negative spikes of each step and image.
        net: integers [T, N], positive less negative spikes.
        operations: integers [T, N], synaptic operations.
        batch: images per batch.

    Returns:
        The paths of accuracy, spike_num, sop_num and spike_collect, in this order.

    Raises:
        UserError: the arrays differ in shape or are no integers, there is no image or no step, the
            batch is below 1, or a net number of spikes is larger than their number. Nothing is
            written then.
    """
    arrays = {"correct": correct, "spikes": spikes, "net": net, "operations": operations}
    counts = _step_counts(arrays, batch)
    starts = np.arange(0, len(counts["correct"][0]), batch)
    for name in ("spikes", "net", "operations"):
        counts[name] = np.cumsum(counts[name], axis=0)
    right, number, collected, sops = (
        np.add.reduceat(count, starts, axis=1).T.ravel() for count in counts.values()
    )
    paths = write_per_batch(folder, right, number, sops)
    text = "".join(f"{value}.0\n" for value in collected.tolist())
    return *paths, write_bytes(Path(folder) / "spike_collect.txt", text.encode())


def _step_counts(arrays: dict[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
    """Counts of ``write_per_step`` as int64 [T, N]."""
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    shape = shapes["correct"]
    if len(set(shapes.values())) != 1 or len(shape) != 2 or 0 in shape:
        raise UserError(f"one value per step and image, [T, N], is needed, got {shapes}")
    if batch < 1:
        raise UserError(f"batch is {batch}; give 1 image or more")
    for name, array in arrays.items():
        wanted = "b" if name == "correct" else "iu"
        if np.asarray(array).dtype.kind not in wanted:
            kind = "bool" if name == "correct" else "integers"
            raise UserError(f"{name} is {np.asarray(array).dtype}; give {kind}")
    counts = {name: np.asarray(array).astype(np.int64) for name, array in arrays.items()}
    for name in ("spikes", "operations"):
        if counts[name].min() < 0:
            raise UserError(f"{name}: {counts[name].min()} is negative")
    if (abs(counts["net"]) > counts["spikes"]).any():
        raise UserError("net: more net spikes than spikes; give the counts of the same steps")
    return counts
