"""Tiny ImageNet: 200 classes of ImageNet in JPEG files of 64x64.

The published folder names the classes in ``wnids.txt`` and has 500 training images for each of them
in ``train/<class>/images``; 50 more lie in ``val/images``, whose classes stand in
``val/val_annotations.txt`` (Le and Yang, "Tiny ImageNet visual recognition challenge", Stanford
CS231N, 2015). Its own test images have no labels and are not read: ``val`` is the test set. A
common script moves the images into a folder for each class, ``train/<class>`` and ``val/<class>``;
that is read as well. The classes are numbered in the order of their names, as by readers of such
folders.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxsnn.data.base import Dataset, Images, Labels
from jaxsnn.data.jpegs import read_jpeg
from jaxsnn.data.splits import spread
from jaxsnn.errors import UserError
from jaxsnn.io.progress import bar

CLASSES = "wnids.txt"
ANNOTATIONS = "val_annotations.txt"
FILES = (
    CLASSES,
    "train/<class>/[images/]*.JPEG",
    "val/val_annotations.txt with val/images/*.JPEG, or val/<class>/[images/]*.JPEG",
)
_ARCHIVE = "tiny-imagenet-200.zip"
_AGAIN = f"unpack {_ARCHIVE} again"

Numbers = dict[str, int]  # of the classes, by name
Examples = list[tuple[Path, int]]  # files, with their class numbers


def load_folder(
    folder: Path, name: str, classes: int, shape: tuple[int, int, int]
) -> Dataset | None:
    """Read the images from one folder; 110,000 files take about a minute.

    Args:
        folder: the folder with ``wnids.txt``.
        name: recorded in the data set.
        classes: number of classes.
        shape: ``(H, W, C)`` of an image; grey images get three equal channels.

    Returns:
        The data set. The order of its images spreads every class evenly. None if the folder holds
        no ``wnids.txt``.

    Raises:
        UserError: a file or folder is missing, unknown, damaged or of another size, classes have
            different numbers of images, or an annotation names no class or no image. The message
            names the file.
    """
    if not (folder / CLASSES).is_file():
        return None
    numbers = _numbers(folder / CLASSES, classes)
    missing = [part for part in ("train", "val") if not (folder / part).is_dir()]
    if missing:
        msg = f"{folder} holds only a part of {name}; missing: {', '.join(missing)}"
        raise UserError(f"{msg}; {_AGAIN}")
    train = _by_folder(folder / "train", numbers)
    test = _validation(folder / "val", numbers)
    for part, examples in (("train", train), ("val", test)):
        _check_counts(folder / part, examples, numbers)
    return Dataset(
        *_decode(train, shape[0], "decoding training images"),
        *_decode(test, shape[0], "decoding test images"),
        classes=classes,
        name=name,
        source=str(folder),
    )


def _numbers(path: Path, classes: int) -> Numbers:
    names = [line.strip() for line in _lines(path) if line.strip()]
    if len(set(names)) != len(names) or len(names) != classes:
        distinct = f"{len(names)} classes, {len(set(names))} of them different"
        raise UserError(f"{path}: names {distinct}; wanted {classes}: {_AGAIN}")
    return {name: number for number, name in enumerate(sorted(names))}


def _by_folder(part: Path, numbers: Numbers) -> Examples:
    """The images of ``part/<class>`` or ``part/<class>/images``, by class."""
    folders = _listed(part, folders=True) - {"images"}
    unknown, missing = sorted(folders - numbers.keys()), sorted(numbers.keys() - folders)
    if unknown or missing:
        word, first = ("unknown", unknown[0]) if unknown else ("missing", missing[0])
        counts = f"{len(missing)} folders of classes are missing and {len(unknown)} unknown"
        raise UserError(f"{part / first}: {word} ({counts}, by {CLASSES}); {_AGAIN}")
    examples: Examples = []
    for name, number in numbers.items():
        inner = part / name / "images"
        place = inner if inner.is_dir() else part / name
        examples += [(place / file, number) for file in sorted(_listed(place))]
    return examples


def _validation(part: Path, numbers: Numbers) -> Examples:
    """The images of ``val``, as published or by class."""
    loose = _listed(part / "images") if (part / "images").is_dir() else set[str]()
    if not _listed(part, folders=True) - {"images"}:
        return _annotated(part, loose, numbers)
    if loose:
        raise UserError(
            f"{part}: {len(loose)} images are still in {part / 'images'}, others in folders of "
            f"classes; finish moving them, or {_AGAIN}"
        )
    return _by_folder(part, numbers)


def _annotated(part: Path, images: set[str], numbers: Numbers) -> Examples:
    """The published form: a line of names, tab, class, and the box of the object."""
    path, labels = part / ANNOTATIONS, dict[str, int]()
    for line_number, line in enumerate(_lines(path), 1):
        image, name = [*line.split(), "", ""][:2]
        if name not in numbers:
            msg = f"{path}: line {line_number} gives {image!r} the class {name[:40]!r}"
            raise UserError(f"{msg}, which is not in {CLASSES}; {_AGAIN}")
        labels[image] = numbers[name]
    if labels.keys() != images:
        first = min(labels.keys() ^ images)
        raise UserError(
            f"{path}: {len(labels)} images have a label, but {len(images)} lie in "
            f"{part / 'images'}; {first!r} is not in both: {_AGAIN}"
        )
    return [(part / "images" / image, label) for image, label in sorted(labels.items())]


def _check_counts(part: Path, examples: Examples, numbers: Numbers) -> None:
    """Every class has as many images, or some of them were lost."""
    counts = Counter(label for _, label in examples)
    usual = max(counts.values(), default=0)
    for name, number in numbers.items():
        if counts[number] != usual or not usual:
            msg = f"{part}: class {name} has {counts[number]} images, others {usual}"
            raise UserError(f"{msg}; {_AGAIN}")


def _decode(examples: Examples, side: int, what: str) -> tuple[Images, Labels]:
    labels = np.array([label for _, label in examples], np.int32)
    order = spread(labels)
    images = np.empty((len(examples), side, side, 3), np.uint8)
    paths = [examples[index][0] for index in map(int, order)]
    for index, path in enumerate(bar(paths, len(paths), what)):
        images[index] = read_jpeg(
            path, side, of="Tiny ImageNet", archive=_ARCHIVE, modes=("RGB", "L")
        )
    return images, labels[order]


def _listed(folder: Path, *, folders: bool = False) -> set[str]:
    """Names of the JPEG files, or of the folders; hidden ones are passed over."""
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not entry.name.startswith(".")]
            if folders:
                return {entry.name for entry in seen if entry.is_dir()}
            return {entry.name for entry in seen if _is_jpeg(entry)}
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error}); make it readable") from error


def _is_jpeg(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith((".jpeg", ".jpg")) and entry.is_file()


def _lines(path: Path) -> Sequence[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = f"{type(error).__name__}: {error!s:.120}"
        raise UserError(f"{path}: cannot be read ({reason}); {_AGAIN}") from error
