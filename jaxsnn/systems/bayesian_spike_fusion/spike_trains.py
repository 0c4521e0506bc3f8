"""Spike trains of both classifiers in files, one npz a batch of images, under the original's names.

Every file says what it was made from, so that one of another network, another data set or another
number of steps is refused, and a stopped simulation goes on where it was.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.io.arrays import load_arrays, save_arrays
from jaxsnn.simulation.totals import Evaluation, joined
from jaxsnn.types import Json, Tree

PER_SITE = ("spikes", "negative", "operations")  # fields of an Evaluation that are dicts of sites
MADE_FROM = "of"


class Names(NamedTuple):
    """How the files of a batch are called: file and key of the labels and of both trains."""

    labels: tuple[str, str]
    final: tuple[str, str]
    early: tuple[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of a batch, once."""
        return tuple(dict.fromkeys(name for name, _ in self))


SIMULATED = Names(("output", "labels"), ("output", "final"), ("output", "mid"))


def tuning_names(ic_index: int) -> Names:
    """Names of the files of the tuning images: a file of its own for each head."""
    return Names(("labels", "l"), ("-1_output", "o"), (f"{ic_index}_output", "o"))


@dataclass(frozen=True)
class Trains:
    """A folder of spike trains.

    Attributes:
        folder: where they are.
        names: how files and arrays are called.
        of: what they were made from, as JSON can hold it; empty: anything.
        count: number of batches.
    """

    folder: Path
    names: Names
    of: Mapping[str, Json]
    count: int

    def path(self, file: str, number: int) -> Path:
        """The file of a batch."""
        return self.folder / f"{file}_{number}.npz"

    def have(self, number: int) -> bool:
        """Whether all files of a batch are there, made from the same.

        A file that was made from something else, or is damaged, is as good as none here: it is
        written anew.
        """
        try:
            return all(
                load_arrays(self.path(file, number))[1].get(MADE_FROM) == dict(self.of)
                for file in self.names.files
            )
        except UserError:
            return False

    def write(
        self,
        number: int,
        labels: np.ndarray,
        final: np.ndarray,
        early: np.ndarray | None,
        more: Mapping[str, np.ndarray],
    ) -> None:
        """Write a batch: spikes uint8 ``[T, B, C]``, and further arrays beside the labels."""
        content: dict[str, dict[str, np.ndarray]] = {file: {} for file in self.names.files}
        for (file, key), value in zip(self.names, (labels, final, early), strict=True):
            if value is not None:
                content[file][key] = value
        content[self.names.labels[0]].update(more)
        for file, arrays in content.items():
            meta = {MADE_FROM: dict(self.of)}
            save_arrays(self.path(file, number), arrays, meta, compressed=True)

    def read(self, number: int) -> dict[str, dict[str, np.ndarray]]:
        """All arrays of a batch by file.

        Raises:
            UserError: a file is missing, damaged, or of another run; both are named.
        """
        by_file: dict[str, dict[str, np.ndarray]] = {}
        for file in self.names.files:
            arrays, meta = load_arrays(self.path(file, number))
            check_same(self.path(file, number), meta.get(MADE_FROM, {}), self.of, "simulate again")
            by_file[file] = arrays
        return by_file

    def counts(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Cumulative spike counts int32 ``[T, B, C]`` of early and final, and labels, by batch.

        Raises:
            UserError: as ``read``; there is no early classifier.
        """
        for number in range(self.count):
            files = self.read(number)
            labels, final, early = (files[file].get(key) for file, key in self.names)
            if early is None or final is None or labels is None:
                raise UserError(
                    f"{self.path(self.names.early[0], number)} has no spikes of an early "
                    "classifier; train the network with --ic_index 0 or more"
                )
            yield early.cumsum(0, dtype=np.int32), final.cumsum(0, dtype=np.int32), labels

    def evaluation(self) -> Evaluation:
        """What was counted beside the spike trains."""
        file = self.names.labels[0]
        return joined([restored(self.read(number)[file]) for number in range(self.count)])


def simulated(folder: Path) -> Trains:
    """The finished simulation in a folder: as many batches as its first file was one of.

    Raises:
        UserError: the first file is missing or damaged.
    """
    _, meta = load_arrays(folder / f"{SIMULATED.labels[0]}_0.npz")
    of = meta.get(MADE_FROM, {})
    if of:
        count = -(-of["images"] // of["batch"])
    else:  # not written here
        count = len(list(folder.glob(f"{SIMULATED.labels[0]}_*.npz")))
    return Trains(folder, SIMULATED, of, count)


def check_same(
    path: Path, made_from: Mapping[str, Json] | None, of: Mapping[str, Json], remedy: str
) -> None:
    """Refuse a file that was not made from ``of``; one that says nothing is taken as it is.

    Raises:
        UserError: naming the file, and what it was made from beside what it should have been.
    """
    if made_from is None:
        return
    differ = [
        f"{name} {made_from.get(name)!r} instead of {value!r}"
        for name, value in of.items()
        if made_from.get(name) != value
    ]
    if differ:
        raise UserError(f"{path} is of another run: {', '.join(differ)}; {remedy}")


def flattened(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """An evaluation as arrays by name."""
    arrays: dict[str, np.ndarray] = {}
    for name, value in evaluation._asdict().items():
        if name in PER_SITE:
            arrays |= {f"{name}/{site}": one for site, one in value.items()}
        elif value is not None:
            arrays[name] = np.asarray(value)
    return arrays


def restored(arrays: Mapping[str, np.ndarray]) -> Evaluation:
    """The evaluation that ``flattened`` took apart, among other arrays."""
    fields: Tree = {"correct": None} | {name: {} for name in PER_SITE}
    for path, value in arrays.items():
        name, _, site = path.partition("/")
        if name in PER_SITE:
            fields[name][site] = value
        elif name in Evaluation._fields:
            fields[name] = int(value) if name == "images" else value
    return Evaluation(**fields)


def in_order(exps: Sequence[str], out: Path) -> list[Path]:
    """Folders of simulations: those named, or all below ``out``.

    Raises:
        UserError: a folder holds none, or there is none at all.
    """
    named = [Path(one) for one in exps] or sorted(
        p.parent for p in out.glob("*/snn_*/output_0.npz")
    )
    for folder in named:
        if not (folder / "output_0.npz").is_file():
            raise UserError(
                f"{folder} holds no simulation; run the stage simulate, or name another"
            )
    if not named:
        raise UserError(f"{out} holds no simulation; run the stages tune and simulate first")
    return named
