"""Exact totals of a data set, step by step: predictions, spikes, synaptic operations."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import head_sites
from jaxsnn.errors import UserError
from jaxsnn.inputs import class_numbers
from jaxsnn.simulation import counters as counters_module
from jaxsnn.simulation.engine import Trace
from jaxsnn.types import PyTree, Tree

Integers = NDArray[np.integer]
Sites = dict[str, Integers]
Batch = tuple[Integers, tuple[Sites, Sites, Sites], NDArray[np.bool_]]
"""Predictions; spikes, negative spikes and events by site; which images are undecided; each
``[T, B]``, on the host."""


class Evaluation(NamedTuple):
    """Exact totals of a data set of N images over T steps; nothing here is cumulative.

    Attributes:
        predictions: int32 ``[T, N]``, after every step.
        correct: int64 ``[T]``, None without labels.
        spikes: site -> int64 ``[T]``, over all images; negative spikes included.
        negative: site -> int64 ``[T]``.
        operations: consumer -> synaptic operations, int64 ``[T]``.
        image_spikes, image_negative: int64 ``[T, N]``, over all spiking sites.
        image_operations: int64 ``[T, N]``, synaptic operations without those of the heads, and
        image_head_operations: int64 ``[T, N]``, those of the heads.
        images: N.
        undecided: int64 ``[T]``, images of which the readout says nothing so far: all classes have
            the same sum (no spike, where the readout fires), and the prediction is class 0. None
            in evaluations that were stored without it, or joined from such.
    """

    predictions: Integers
    correct: Integers | None
    spikes: Sites
    negative: Sites
    operations: Sites
    image_spikes: Integers
    image_negative: Integers
    image_operations: Integers
    image_head_operations: Integers
    images: int
    undecided: Integers | None = None

    @property
    def steps(self) -> int:
        """T."""
        return len(self.predictions)

    @property
    def accuracy_per_step(self) -> list[float]:
        """Share of right predictions after every step.

        Raises:
            UserError: evaluated without labels.
        """
        if self.correct is None:
            raise UserError("there is no accuracy without labels; pass labels to evaluate()")
        return [int(c) / self.images for c in self.correct]

    @property
    def undecided_share(self) -> float | None:
        """Share of images that are undecided after the last step."""
        return None if self.undecided is None else int(self.undecided[-1]) / self.images

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
        return counters_module.last_step(self.image_spikes)

    @property
    def unsettled(self) -> NDArray[np.bool_]:
        """Images that still spike in the last step, bool ``[N]``."""
        return self.image_spikes[-1] > 0


def of_trace(
    arch: Arch, trace: Trace, labels: Array | np.ndarray | None, real: int | None = None
) -> Evaluation:
    """Totals of one simulated batch, of its first ``real`` images (None: all), labels ``[B]``."""
    real = trace.readout.shape[1] if real is None else real
    classes = None if labels is None else class_numbers(labels, arch.classes, "labels")[:real]
    return of_batches(arch, [counted(trace, real)], classes)


def of_batches(
    arch: Arch, batches: Sequence[Batch], labels: Array | np.ndarray | None
) -> Evaluation:
    """Totals of batches in their order, which may have run for different numbers of steps.

    After its silent step a batch keeps its predictions and counts nothing. T is the longest
    batch's, N the number of images of all; labels are ``[N]``.
    """
    return _totals(arch, *_in_one(batches), labels)


def counted(trace: Trace, real: int) -> Batch:
    """Predictions and counters of the first ``real`` images of a simulated batch."""

    def cut(parts: Tree) -> Tree:
        return {name: np.asarray(part)[:, :real] for name, part in parts.items()}

    spikes, negative, events = map(cut, trace.counters)
    return (
        np.asarray(trace.predictions)[:, :real],
        (spikes, negative, events),
        np.asarray(trace.undecided)[:, :real],
    )


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """One data set from parts of it that were simulated for as many steps T.

    Predictions ``[T, N]`` and what is told by image are put side by side in the order of the
    parts, totals over images ``[T]`` are added.

    Raises:
        UserError: there is no part, parts of different numbers of steps, or labels for some only.
    """
    if not parts:
        raise UserError("there is no part to join; simulate one first")
    if len({part.correct is None for part in parts}) > 1:
        raise UserError("some parts have labels and some have none; evaluate all with labels")
    lengths = sorted({part.steps for part in parts})
    if len(lengths) != 1:
        raise UserError(f"parts of {lengths} steps: simulate all of them for the same number")
    return Evaluation(*(_together(parts, name) for name in Evaluation._fields))


def _together(parts: Sequence[Evaluation], name: str) -> PyTree:
    """One field of all parts: totals are added, what is told by image is put side by side."""
    values = [getattr(part, name) for part in parts]
    if isinstance(values[0], dict):
        return {key: np.sum([one[key] for one in values], axis=0) for key in values[0]}
    if name in ("correct", "images", "undecided"):
        return None if any(one is None for one in values) else sum(values[1:], values[0])
    return np.concatenate(values, axis=1)


def _in_one(parts: Sequence[Batch]) -> Batch:
    steps = max(len(predictions) for predictions, *_ in parts)

    def of_kind(kind: int) -> Sites:
        names = parts[0][1][kind]
        return {
            name: np.concatenate(
                [_longer(one[kind][name], steps, "constant") for _, one, _ in parts], axis=1
            )
            for name in names
        }

    predictions = np.concatenate([_longer(one, steps, "edge") for one, *_ in parts], axis=1)
    nothing = np.concatenate([_longer(one, steps, "edge") for *_, one in parts], axis=1)
    return predictions, (of_kind(0), of_kind(1), of_kind(2)), nothing


def _longer(part: np.ndarray, steps: int, mode: Any) -> np.ndarray:
    return np.pad(part, ((0, steps - len(part)), (0, 0)), mode)


def _totals(
    arch: Arch,
    predictions: Integers,
    counters: tuple[Sites, Sites, Sites],
    nothing: NDArray[np.bool_],
    labels: Array | np.ndarray | None,
) -> Evaluation:
    spikes, negative, events = counters
    operations = counters_module.synaptic_operations(events, arch)
    heads = tuple(site.name for site in head_sites(arch))
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
        image_spikes=counters_module.total(spikes),
        image_negative=counters_module.total(negative),
        image_operations=counters_module.total(operations, without=heads),
        image_head_operations=counters_module.total(operations, without=others),
        images=predictions.shape[1],
        undecided=np.asarray(nothing.sum(1, dtype=np.int64)),
    )


def _per_step(parts: Tree) -> Sites:
    return {name: np.asarray(part.sum(1, dtype=np.int64)) for name, part in parts.items()}
