"""Examples of different length in batches of few lengths, so that few programs are compiled.

On the host, in NumPy: lengths are known before training begins.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jaxsnn.errors import UserError

Integers = NDArray[np.integer]
Plan: TypeAlias = tuple[int, tuple[int, ...]]

MOST = 4  # different lengths, that is, compiled programs


class Batches(NamedTuple):
    """The batches of one epoch.

    Attributes:
        order: rows of the data set, batch after batch, intp ``[batches * size]``.
        steps: length of every batch, that of its bucket.
    """

    order: NDArray[np.intp]
    steps: tuple[int, ...]


def bucket_lengths(lengths: Integers, most: int = MOST) -> tuple[int, ...]:
    """At most ``most`` lengths to which examples are padded, so that the least is padded in all.

    Args:
        lengths: int ``[N]``, steps of every example, at least 1.
        most: number of buckets.

    Returns:
        Ascending; the last is the longest example's.

    Raises:
        UserError: no example, or one without a step.

    >>> bucket_lengths(np.array([3, 3, 4, 9, 10]), most=2)
    (4, 10)
    """
    if len(lengths) == 0 or int(np.min(lengths)) < 1:
        raise UserError(f"lengths {lengths}: there must be examples, each of at least 1 step")
    values, numbers = np.unique(lengths, return_counts=True)
    return _least_padded(tuple(values.tolist()), tuple(numbers.tolist()), most)


@functools.lru_cache(maxsize=16)  # the same in every epoch and evaluation of a data set
def _least_padded(values: tuple[int, ...], numbers: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The buckets for ascending lengths, each of so many examples."""
    below, ends = [0, *itertools.accumulate(numbers)], range(1, len(values) + 1)
    # For the first i of the different lengths: the steps of all their examples, and the buckets.
    plans: list[Plan] = [(0, ()), *((below[i] * values[i - 1], (values[i - 1],)) for i in ends)]
    for _ in range(most - 1):  # one more bucket, for lengths number j to i - 1
        plans = [plans[0], *(min(_ended(plans, values, below, i)) for i in ends)]
    return plans[-1][1]


def _ended(
    plans: list[Plan], values: tuple[int, ...], below: list[int], end: int
) -> Iterator[Plan]:
    """The plans for the first ``end`` lengths, by where the last bucket begins."""
    for begin in range(end):
        steps, lengths = plans[begin]
        added = (below[end] - below[begin]) * values[end - 1]
        yield steps + added, (*lengths, values[end - 1])


def in_batches(
    order: NDArray[np.intp], lengths: Integers, buckets: tuple[int, ...], size: int, seed: int
) -> Batches:
    """Full batches of examples of about one length, in random order.

    The last examples, that fill no batch, are dropped first; those of a bucket that fill none go to
    the next longer one: as many batches as without buckets, and every example as often.

    Args:
        order: rows in random order ``[N]``.
        lengths: steps of every row ``[N]``.
        buckets: from :func:`bucket_lengths`.
        size: examples of a batch.
        seed: of the order of the batches.

    >>> found = in_batches(np.arange(5), np.array([9, 2, 2, 2, 8]), (2, 9), 2, seed=0)
    >>> sorted(zip(found.steps, found.order.reshape(2, 2).tolist()))
    [(2, [1, 2]), (9, [3, 0])]
    """
    order = order[: len(order) // size * size]  # who is left out is left to chance, not to length
    bucket = np.searchsorted(buckets, lengths[order])
    rest, batches, steps = order[:0], [order[:0].reshape(0, size)], list[int]()
    for number, length in enumerate(buckets):
        rows = np.concatenate([rest, order[bucket == number]])
        full = len(rows) // size
        batches.append(rows[: full * size].reshape(full, size))
        steps += [length] * full
        rest = rows[full * size :]
    shuffled = np.random.default_rng(seed).permutation(len(steps))
    joined = np.concatenate(batches)[shuffled]
    return Batches(joined.reshape(-1), tuple(steps[number] for number in shuffled))
