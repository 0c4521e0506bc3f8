"""Which people of Labelled Faces in the Wild are kept, and which of their images are for testing.

The split follows from the names of the files and a seed. It has to be the same in every stage of an
experiment, or faces that a network is tested on are those that it was trained on in another
process. What is stored is used from then on, and files that do not fit it are refused: without it,
a folder to which a file was added would be split anew unnoticed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from jaxsnn.data.base import Labels
from jaxsnn.data.splits import spread, stratified_split
from jaxsnn.errors import UserError
from jaxsnn.io import files
from jaxsnn.types import Json, JsonObject

FEWEST, MOST = 30, 100
SPLIT = "lfw_split.json"

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class People:
    """The people of a folder.

    Attributes:
        folder: the folder with a folder for each person.
        kept: JPEG files of each person who is kept, both in the order of their names.
        left_out: how many JPEG files the others have.
        unread: how many files with another ending than .jpg lie in each person's folder, where
            there are any; they are no part of the data set.
    """

    folder: Path
    kept: dict[str, tuple[str, ...]]
    left_out: dict[str, int]
    unread: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def images(self) -> list[str]:
        """All images that are kept, such as ``Name/Name_0001.jpg``, in order."""
        return [f"{person}/{file}" for person, jpegs in self.kept.items() for file in jpegs]

    @property
    def labels(self) -> Labels:
        """A person's place in the order of names, for every image: int32 ``[N]``."""
        counts = [len(jpegs) for jpegs in self.kept.values()]
        return np.repeat(np.arange(len(counts), dtype=np.int32), counts)


@dataclass(frozen=True)
class Split:
    """Which images are for training and which for testing.

    Attributes:
        seed: of the draw, and of the order of the images.
        train: indices into ``People.images``, in the order in which they are given to the reader.
        test: the others, likewise.
    """

    seed: int
    train: Indices
    test: Indices


def find_people(folder: Path) -> People:
    """List the people of a folder; hidden files and folders are passed over, others counted.

    Raises:
        UserError: a folder cannot be read.
    """
    try:
        persons = sorted(_visible(folder, lambda entry: entry.is_dir())) if folder.is_dir() else []
        listed = {person: tuple(sorted(_visible(folder / person, _is_jpeg))) for person in persons}
        others = {person: len(_visible(folder / person, _is_other)) for person in persons}
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error}); make it readable") from error
    kept = {person: jpegs for person, jpegs in listed.items() if FEWEST <= len(jpegs) <= MOST}
    left_out = {person: len(jpegs) for person, jpegs in listed.items() if person not in kept}
    return People(folder, kept, left_out, {p: count for p, count in others.items() if count})


def about_unread(people: People) -> str:
    """What is said of files with another ending, in one line; there must be some."""
    first, count = next(iter(people.unread.items()))
    return (
        f"{people.folder}: {sum(people.unread.values())} files of {len(people.unread)} people are "
        f"left out, since they do not end in .jpg ({count} in {first}); rename or convert them"
    )


def check_kept(people: People) -> None:
    """Refuse a folder in which nobody is kept.

    Raises:
        UserError: naming the folder, and how many images its people have at most.
    """
    if not people.kept:
        raise UserError(
            f"{people.folder}: nobody has {FEWEST} to {MOST} images, of {len(people.left_out)} "
            f"people with at most {max(people.left_out.values(), default=0)}; unpack the whole of "
            "lfw-deepfunneled.tgz"
        )


def draw_split(people: People, seed: int = 0) -> Split:
    """Choose a fifth of the images for testing, every person in proportion.

    It follows from names, counts and seed alone, and is the same on every machine.

    Raises:
        UserError: a seed outside 0 to 2^32 - 1.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed {seed}: the split is drawn from a seed of 0 to {2**32 - 1}")
    labels = people.labels
    _, test = stratified_split(labels, len(labels) // 5, seed)
    return _in_order(test, labels, seed)


def split_places(folder: Path) -> tuple[Path, Path]:
    """Where a split of the folder may be stored: in it, or beside it. The first one counts.

    Example:
        >>> [path.as_posix() for path in split_places(Path("data/lfw"))]
        ['data/lfw/lfw_split.json', 'data/lfw_lfw_split.json']
    """
    folder = folder.resolve() if folder.name in ("", "..") else folder
    return folder / SPLIT, folder.with_name(f"{folder.name}_{SPLIT}")


def write_split(path: Path, people: People, split: Split) -> Path:
    """Write a split as a JSON file, atomically.

    Raises:
        UserError: the file cannot be written, or is there with another split in it: networks were
            perhaps trained with that one, and the new one would test them on images they know.
    """
    content = document(people, split)
    try:
        if not path.exists() or files.read_json(path) == content:
            return files.write_json(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error}); give another --out") from error
    raise UserError(
        f"{path} holds another split; networks trained with it have seen test images of the new "
        "one. Delete it to draw anew, or give another --out"
    )


def read_split(path: Path, people: People) -> Split:
    """Read a stored split, which must be one of exactly these images.

    Raises:
        UserError: the file is damaged, or of other images than the folder's. The message names
            both, the first name that differs, and what to do.
    """
    content: Json = files.read_json(path)
    record = cast("JsonObject", content) if isinstance(content, dict) else JsonObject()
    damaged = f"{path}: no split of faces; delete it and write it again from the same files"
    if type(record.get("seed")) is not int:
        raise UserError(damaged)
    train, test = (_names(record.get(part), damaged) for part in ("train", "test"))
    _check_names({*train, *test}, set(people.images), path, people.folder)
    place = {image: index for index, image in enumerate(people.images)}
    chosen = np.array([place[image] for image in test], np.intp)
    if not (0 <= record["seed"] < 2**32 and 0 < len(chosen) < len(place)):
        raise UserError(damaged)
    split = _in_order(chosen, people.labels, record["seed"])
    if record != document(people, split):  # an image twice, or counts of another split
        raise UserError(damaged)
    return split


def document(people: People, split: Split) -> JsonObject:
    """What the file holds: names in order, so that two splits can be compared by eye."""
    images, labels = people.images, people.labels
    counts = (np.bincount(labels[part], minlength=len(people.kept)) for part in _parts(split))
    persons = zip(people.kept, *(part.tolist() for part in counts), strict=True)
    train, test = ([images[index] for index in sorted(map(int, part))] for part in _parts(split))
    return {
        "dataset": "lfw",
        "seed": split.seed,
        "train_images": len(train),
        "test_images": len(test),
        "people": {person: {"train": a, "test": b} for person, a, b in persons},
        "train": train,
        "test": test,
    }


def _visible(folder: Path, wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    with os.scandir(folder) as entries:
        return [e.name for e in entries if not e.name.startswith(".") and wanted(e)]


def _is_jpeg(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(".jpg") and entry.is_file()


def _is_other(entry: os.DirEntry[str]) -> bool:
    return entry.is_file() and not _is_jpeg(entry)


def _in_order(test: Indices, labels: Labels, seed: int) -> Split:
    is_test = np.zeros(len(labels), bool)
    is_test[test] = True
    train, test = (np.flatnonzero(part) for part in (~is_test, is_test))
    return Split(seed, train[spread(labels[train], seed)], test[spread(labels[test], seed)])


def _parts(split: Split) -> tuple[Indices, Indices]:
    return split.train, split.test


def _names(part: object, damaged: str) -> list[str]:
    names = cast("list[object]", part) if isinstance(part, list) else [None]
    if not all(isinstance(name, str) for name in names):
        raise UserError(damaged)
    return [str(name) for name in names]


def _check_names(stored: set[str], present: set[str], path: Path, folder: Path) -> None:
    absent, added = sorted(stored - present), sorted(present - stored)
    if absent or added:
        first = (absent or added)[0]
        raise UserError(
            f"{path} is a split of other files than those of {folder}: {len(absent)} of its images "
            f"are not there and {len(added)} are not in it, the first {first!r}. Restore the "
            "files; or delete it to draw a new one, and train again what was trained with it"
        )
