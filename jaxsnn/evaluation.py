"""Evaluation of a data set in batches of one shape: predictions and exact totals, step by step."""

import warnings
from collections.abc import Iterator, Sequence, Sized
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxsnn import metrics, processes
from jaxsnn.arch import Arch
from jaxsnn.engine import Trace
from jaxsnn.metrics import Counters
from jaxsnn.progress import bar
from jaxsnn.settle import restless
from jaxsnn.settle import settle as run_until_silent
from jaxsnn.simulate import simulate
from jaxsnn.spiking import Spiking, comes_to_rest

Integers = NDArray[np.integer[Any]]


class Streams(Protocol):
    """A data set of frames: N examples, each with a time axis of its own."""

    def __len__(self) -> int:
        """N."""
        ...

    def batch(self, rows: NDArray[np.intp], steps: int) -> tuple[Array, Array]:
        """Frames ``[T, B, H, W, C]`` of these examples, padded to ``steps``, and their lengths."""
        ...


class Evaluation(NamedTuple):
    """Exact totals of a data set of N images over T steps; nothing here is cumulative.

    Attributes:
        predictions: int32 ``[T, N]``, after every step.
        correct: int64 ``[T]``, None without labels.
        spikes: site -> int64 ``[T]``, over all images; negative spikes included.
        negative: site -> int64 ``[T]``.
        operations: consumer -> synaptic operations, int64 ``[T]``.
        image_spikes, image_negative: int32 ``[T, N]``, over all spiking sites.
        image_operations: int64 ``[T, N]``, synaptic operations without those of the heads, and
        image_head_operations: int64 ``[T, N]``, those of the heads.
        images: N.
    """

    predictions: Integers
    correct: Integers | None
    spikes: dict[str, Integers]
    negative: dict[str, Integers]
    operations: dict[str, Integers]
    image_spikes: Integers
    image_negative: Integers
    image_operations: Integers
    image_head_operations: Integers
    images: int

    @property
    def steps(self) -> int:
        """T."""
        return len(self.predictions)

    @property
    def accuracy_per_step(self) -> list[float]:
        """Share of right predictions after every step.

        Raises:
            ValueError: evaluated without labels.
        """
        if self.correct is None:
            raise ValueError("there is no accuracy without labels; pass labels to evaluate()")
        return [int(c) / self.images for c in self.correct]

    @property
    def per_image_spikes(self) -> Integers:
        """Spikes of every image over all steps and sites, int64 ``[N]``."""
        return self.image_spikes.sum(0, dtype=np.int64)

    @property
    def per_image_operations(self) -> Integers:
        """Synaptic operations of every image, int64 ``[N]``; the heads' are left out."""
        return self.image_operations.sum(0, dtype=np.int64)

    @property
    def last_spike_step(self) -> Integers:
        """Last step (from 1) in which any neuron spiked, int64 ``[N]``; 0 for a silent image."""
        return metrics.last_step(self.image_spikes)

    @property
    def unsettled(self) -> NDArray[np.bool_]:
        """Images that still spike in the last step, bool ``[N]``."""
        return self.image_spikes[-1] > 0


def batches(count: int, size: int, what: str = "") -> Iterator[tuple[NDArray[np.intp], int]]:
    """Rows of every batch, the last one padded by repeating its last row, with the real number.

    ``what`` names the progress bar; empty for none.
    """
    if size < 1:
        raise ValueError(f"batch_size={size}: a batch holds at least 1 image")
    for start in bar(range(0, count, size), -(-count // size), what):
        rows = np.arange(start, start + size)
        yield np.minimum(rows, count - 1), int(min(size, count - start))


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
        ValueError: no images, images and labels of different length, or a network that silence
            does not stop, with ``settle``.
    """
    examples = images if hasattr(images, "batch") else np.asarray(images)
    check_presentation(snn, examples)
    check_labels(examples, labels)
    found: list[tuple[Integers, Counters]] = []
    for rows, real in processes.dealt(batches(len(examples), batch_size, progress)):
        batch, lengths = _shown(examples, rows, steps)
        if settle:
            trace = run_until_silent(snn, batch, steps=steps, devices=devices)
        else:
            options: dict[str, Any] = {"steps": steps, "block": block, "devices": devices}
            options |= {"key": key, "first_image": int(rows[0]), "lengths": lengths}
            trace = simulate(snn, batch, **options)
        found.append(_kept(trace, real))
    predictions, counters = _joined(processes.in_order(found))
    evaluation = _totals(snn.arch, predictions, counters, labels)
    if comes_to_rest(snn) and not restless(snn):
        warn_unsettled(evaluation.unsettled, evaluation.steps)
    return evaluation


def of_trace(
    arch: Arch, trace: Trace, labels: Array | np.ndarray | None, real: int | None = None
) -> Evaluation:
    """Totals of one simulated batch, of its first ``real`` images (None: all)."""
    real = trace.readout.shape[1] if real is None else real
    own = None if labels is None else np.asarray(labels)[:real]
    return _totals(arch, *_kept(trace, real), own)


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """One data set from parts of it that were simulated for as many steps.

    Raises:
        ValueError: there is no part, or parts of different numbers of steps.
    """
    lengths = sorted({part.steps for part in parts})
    if len(lengths) != 1:
        raise ValueError(f"parts of {lengths} steps: simulate all of them for the same number")

    def together(name: str) -> Any:
        own = [getattr(part, name) for part in parts]
        if isinstance(own[0], dict):
            return {key: np.sum([one[key] for one in own], axis=0) for key in own[0]}
        if name in ("correct", "images"):
            return None if own[0] is None else sum(own[1:], own[0])
        return np.concatenate(own, axis=1)

    return Evaluation(*map(together, Evaluation._fields))


def _shown(examples: Any, rows: NDArray[np.intp], steps: int) -> tuple[Any, Array | None]:
    """The images of a batch, or its frames and lengths."""
    if isinstance(examples, np.ndarray):
        return examples[rows], None
    frames, lengths = examples.batch(rows, steps)
    return frames, jnp.minimum(lengths, steps)


def _kept(trace: Trace, real: int) -> tuple[Integers, Counters]:
    """Predictions and counters of the first ``real`` images, on the host."""

    def cut(parts: dict[str, Any]) -> dict[str, Any]:
        return {name: np.asarray(part)[:, :real] for name, part in parts.items()}

    return np.asarray(trace.predictions)[:, :real], Counters(*map(cut, trace.counters))


def _joined(parts: list[tuple[Integers, Any]]) -> tuple[Integers, Counters]:
    """One data set from batches that ran for different numbers of steps.

    After its silent step a batch keeps its predictions and counts nothing.
    """
    steps = max(len(predictions) for predictions, _ in parts)

    def joined(kind: int) -> dict[str, Any]:
        names = parts[0][1][kind]
        return {
            name: np.concatenate(
                [_longer(one[kind][name], steps, "constant") for _, one in parts], axis=1
            )
            for name in names
        }

    predictions = np.concatenate([_longer(one, steps, "edge") for one, _ in parts], axis=1)
    return predictions, Counters(*map(joined, range(len(Counters._fields))))


def _longer(part: np.ndarray, steps: int, mode: Any) -> np.ndarray:
    return np.pad(part, ((0, steps - len(part)), (0, 0)), mode)


def _totals(
    arch: Arch, predictions: Integers, counters: Counters, labels: Array | np.ndarray | None
) -> Evaluation:
    spikes, negative, events = _on_host(counters)
    operations = metrics.synaptic_operations(events, arch)
    heads = tuple(site.name for site in metrics.head_sites(arch))
    others = tuple(name for name in operations if name not in heads)
    correct: Integers | None = None
    if labels is not None:
        correct = np.asarray((predictions == np.asarray(labels)).sum(axis=1), np.int64)
    return Evaluation(
        predictions=predictions,
        correct=correct,
        spikes=_per_step(spikes),
        negative=_per_step(negative),
        operations=_per_step(operations),
        image_spikes=metrics.total(spikes).astype(np.int32),
        image_negative=metrics.total(negative).astype(np.int32),
        image_operations=metrics.total(operations, without=heads),
        image_head_operations=metrics.total(operations, without=others),
        images=predictions.shape[1],
    )


def _on_host(counters: Counters) -> tuple[dict[str, np.ndarray], ...]:
    return tuple({name: np.asarray(a) for name, a in part.items()} for part in counters)


def _per_step(parts: dict[str, Any]) -> dict[str, Integers]:
    return {name: np.asarray(part.sum(1, dtype=np.int64)) for name, part in parts.items()}


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


def check_presentation(snn: Spiking, examples: Any) -> None:
    """Refuse images for a network that is shown frames, and frames for one that is not.

    Raises:
        ValueError: naming what is wanted.
    """
    if isinstance(examples, np.ndarray):
        check_stills(snn)
    elif snn.encoding.presentation != "frames":
        raise ValueError(f"the network is shown {snn.encoding.presentation!r} images, not frames")


def check_stills(snn: Spiking) -> None:
    """Refuse networks whose input has its time axis in front of the images' axis.

    Raises:
        ValueError: the encoding streams frames.
    """
    if snn.encoding.presentation == "frames":
        raise ValueError(
            "this network is shown frames, whose time axis comes first; give evaluate() a data set "
            "with batch() (jaxsnn.evaluation.Streams), or stream one batch by simulate()"
        )


def check_labels(images: Sized, labels: Array | np.ndarray | None) -> None:
    """Refuse an empty data set, and labels that do not belong to it.

    Raises:
        ValueError: naming both lengths.
    """
    if len(images) == 0:
        raise ValueError("there are no images to evaluate")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(images)} images but {len(labels)} labels; pass one label per image")
    if labels is not None and np.ndim(labels) != 1:
        raise ValueError(f"labels have shape {np.shape(labels)}; pass one class number per image")
