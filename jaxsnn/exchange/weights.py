"""Named arrays of somebody's network, and how much memory reading them may take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from jaxsnn.errors import UserError

Layout = Literal["torch", "keras"]
LIMIT = 2**32  # bytes


@dataclass(frozen=True)
class Weights(Mapping[str, np.ndarray]):
    """Arrays by their name in the file, with what else the file says of them.

    Attributes:
        arrays: name -> array; bfloat16 and 8-bit floats as float32, everything else as stored.
        place: the file, for messages.
        container: what kind of file it is, in words.
        layout: order of the axes: torch has kernels (out, in, height, width) and dense layers
            (out, in), Keras (height, width, in, out) and (in, out).
        ordered: whether the arrays stand in the order in which the network's layers were made;
            otherwise they are sorted by name, numbers as numbers.
        epsilons: layer -> epsilon of its batch norm, where the file has it.
        skipped: entries beside the arrays that were left out (an epoch, say).
    """

    arrays: Mapping[str, np.ndarray]
    place: str = "the arrays"
    container: str = "mapping"
    layout: Layout = "torch"
    ordered: bool = True
    epsilons: Mapping[str, float] = field(default_factory=dict[str, float])
    skipped: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __repr__(self) -> str:
        size = sum(array.size for array in self.arrays.values())
        return f"<{self.container} {self.place}: {len(self)} arrays, {size:,} numbers>"


class Budget:
    """Bytes that reading one file may still take; spent before they are allocated."""

    def __init__(self, place: str, limit: int = LIMIT) -> None:
        self.place, self.limit, self.left = place, limit, limit

    def spend(self, size: int, what: str) -> None:
        """Take ``size`` bytes for ``what``.

        Raises:
            UserError: there are not so many left.
        """
        if size > self.left:
            raise UserError(
                f"{self.place}, {what}: needs {size:,} bytes, more than is left of the "
                f"{self.limit:,} that a file may take; pass limit= if it is meant to be so large"
            )
        self.left -= size


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that takes numbers in names as numbers, of however many digits.

    >>> sorted(["layer10.weight", "layer2.weight", "fc.weight"], key=natural)
    ['fc.weight', 'layer2.weight', 'layer10.weight']
    """
    parts: list[tuple[int, int, str]] = []
    for digits, text in _runs(name):
        number = digits.lstrip("0")
        parts.append((0, len(number), number) if digits else (1, 0, text))
    return tuple(parts)


def _runs(name: str) -> Iterator[tuple[str, str]]:
    """Runs of digits and of other characters, as (digits, "") and ("", text)."""
    start = 0
    for stop in range(1, len(name) + 1):
        if stop == len(name) or _is_digit(name[stop]) != _is_digit(name[start]):
            run = name[start:stop]
            yield (run, "") if _is_digit(run[0]) else ("", run)
            start = stop


def _is_digit(character: str) -> bool:
    return "0" <= character <= "9"


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array in one piece, in the machine's byte order, of a type that NumPy itself has."""
    if array.dtype.kind == "V" or array.dtype.name.startswith(("bfloat", "float8")):
        return np.asarray(array, np.float32)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
