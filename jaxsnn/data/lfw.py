"""Labelled Faces in the Wild: the images of people who have 30 to 100 of them.

The published folder has one folder for each person with JPEG files of 250x250 (Huang et al.,
University of Massachusetts Amherst, technical report 07-49, 2007). The code of Fast-SNN (Hu et al.,
IEEE TPAMI, 2023) tells apart 29 people, those with 30 to 100 images, for whom no split is
published. Hence

    python -m jaxsnn.data.lfw FOLDER [--out FILE] [--seed N]

lists the people and stores which images are for training and which for testing; see
``jaxsnn.data.lfw_split``.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from jaxsnn.data.base import Dataset, Images
from jaxsnn.data.jpegs import read_jpeg
from jaxsnn.data.lfw_split import (
    FEWEST,
    MOST,
    SPLIT,
    People,
    Split,
    about_unread,
    check_kept,
    document,
    draw_split,
    find_people,
    read_split,
    split_places,
    write_split,
)
from jaxsnn.errors import UserError
from jaxsnn.io.progress import bar
from jaxsnn.io.terminal import console, nobody_reads, show

SIDE = 250
_PIPE_WIDTH = 100  # columns where the output is no terminal


def load_folder(
    folder: Path, name: str, classes: int, shape: tuple[int, int, int]
) -> Dataset | None:
    """Read the faces from one folder of people.

    Args:
        folder: the folder with a folder of JPEG files for each person. A split that
            ``python -m jaxsnn.data.lfw`` has written into it, or beside it, is used; otherwise the
            same one is drawn, from seed 0.
        name: recorded in the data set.
        classes: of no use here: there are as many as people with 30 to 100 images.
        shape: ``(H, W, C)``: the central window that is kept of every image. A window of 64 that
            was turned by 30 degrees comes from 64 (cos 30 + sin 30) = 87.4 pixels: with 96 no
            corner of it is black.

    Returns:
        A class for each person, numbered in the order of their names; four fifths of everybody's
        images for training. The order of the images spreads every person evenly. None if the
        folder holds no folder with a JPEG file.

    Warns of files of a person that have another ending; they are left out.

    Raises:
        UserError: nobody has 30 to 100 images, an image cannot be read or is none of 250x250 in
            colour, or the stored split is damaged or of other files. The message names the file.
    """
    del classes
    people = find_people(folder)
    if not people.kept and not any(people.left_out.values()):
        return None
    check_kept(people)
    if people.unread:
        warnings.warn(about_unread(people), UserWarning, stacklevel=2)
    stored = next((path for path in split_places(folder) if path.is_file()), None)
    split = draw_split(people) if stored is None else read_split(stored, people)
    images, labels = _decode(people, shape[:2]), people.labels
    drawn = f"drawn from seed {split.seed}" if stored is None else f"of {stored}"
    return Dataset(
        train_images=images[split.train],
        train_labels=labels[split.train],
        test_images=images[split.test],
        test_labels=labels[split.test],
        classes=len(people.kept),
        name=name,
        source=f"{folder}, split {drawn}",
    )


def _decode(people: People, window: tuple[int, int]) -> Images:
    names = people.images
    images = np.empty((len(names), *window, 3), np.uint8)
    for index, name in enumerate(bar(names, len(names), "decoding faces")):
        images[index] = _face(people.folder / name, window)
    return images


def _face(path: Path, window: tuple[int, int]) -> Images:
    """The central window of one file."""
    pixels = read_jpeg(path, SIDE, of="Labelled Faces in the Wild", archive="lfw-deepfunneled.tgz")
    top, left = (SIDE - window[0]) // 2, (SIDE - window[1]) // 2
    return pixels[top : top + window[0], left : left + window[1]]


def main(arguments: Sequence[str] | None = None) -> int:
    """List the people of a folder and write the split; 2 for a folder that makes no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxsnn.data.lfw",
        description="List the people of Labelled Faces in the Wild that are kept, and store which "
        "images are for training and which for testing.",
    )
    parser.add_argument("folder", type=Path, help="the folder with a folder for each person")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"file to write (default: {SPLIT} in the folder, or beside it where it is read-only; "
        "only there is it found when the data set is loaded)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    chosen = parser.parse_args(arguments)
    try:
        _run(chosen.folder.expanduser(), chosen.out, chosen.seed)
        sys.stdout.flush()
    except BrokenPipeError:
        return nobody_reads()
    except UserError as error:
        parser.error(str(error))
    return 0


def _run(folder: Path, out: Path | None, seed: int) -> None:
    to = console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; unpack lfw-deepfunneled.tgz and name it")
    people = find_people(folder)
    check_kept(people)
    split = draw_split(people, seed)
    show(_table(people, split), to)
    show(_about_left_out(people), to)
    if people.unread:
        show(about_unread(people), to)
    path = write_split(_default_place(folder) if out is None else out, people, split)
    show(f"split written to {path}", to)
    if path.absolute() not in [place.absolute() for place in split_places(folder)]:
        show(f"It is used once it lies in {folder} as {SPLIT}.", to)


def _default_place(folder: Path) -> Path:
    inside, beside = split_places(folder)
    return inside if inside.exists() or os.access(folder, os.W_OK) else beside


def _table(people: People, split: Split) -> Table:
    table = Table("person", title=Text(f"people with {FEWEST} to {MOST} images"))
    for column in ("class", "images", "training", "test"):
        table.add_column(column, justify="right")
    content = document(people, split)
    for label, (person, counts) in enumerate(content["people"].items()):
        numbers = (label, sum(counts.values()), *counts.values())
        table.add_row(person, *map(str, numbers))
    totals = (len(people.images), content["train_images"], content["test_images"])
    table.add_section()
    table.add_row(f"{len(people.kept)} people", "", *(f"{number:,}" for number in totals))
    return table


def _about_left_out(people: People) -> str:
    counts = people.left_out.values()
    few, many = sum(count < FEWEST for count in counts), sum(count > MOST for count in counts)
    return (
        f"{len(counts)} folders left out: {few} with fewer than {FEWEST} images, "
        f"{many} with more than {MOST}"
    )


if __name__ == "__main__":
    sys.exit(main())
