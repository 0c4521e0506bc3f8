"""Batches of tuning data and arrays made of them: types, and what is refused."""

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.integer[Any]]

Batches: TypeAlias = Iterable[tuple[ArrayLike, ArrayLike, ArrayLike]]
"""Cumulative counts of the early and of the final classifier, integer ``[T, B, C]``, and labels,
integer ``[B]``, of one batch after another."""


def chosen_steps(at: ArrayLike | None, steps: int) -> Integers:
    """Steps to look at, counted from 0."""
    chosen = np.arange(steps) if at is None else np.asarray(at)
    whole = chosen.ndim == 1 and chosen.size and chosen.dtype.kind in "iu"
    if not whole or chosen.min() < 0 or chosen.max() >= steps:
        raise ValueError(f"at={at}: give some of the steps 0 to {steps - 1}, as a list of integers")
    return chosen.astype(np.int64)


def checked_labels(labels: ArrayLike, shape: tuple[int, ...]) -> Integers:
    """Labels as int64 ``[B]``, one for every image and each a class."""
    classes = np.asarray(labels)
    if classes.shape != shape[1:2] or np.any((classes < 0) | (classes >= shape[2])):
        raise ValueError(
            f"labels of shape {classes.shape} from {classes.min(initial=0)} to "
            f"{classes.max(initial=0)}: give each of {shape[1]} images one from 0 to {shape[2] - 1}"
        )
    return classes.astype(np.int64)


def check_lengths(lengths: list[int]) -> None:
    """Refuse no batches, and batches of different length."""
    if not lengths:
        raise ValueError("no batch of tuning data: record some, or look at the folder's name")
    if len(set(lengths)) > 1:
        raise ValueError(f"batches of {lengths} steps: simulate all for the same number of steps")
