"""The pickled batches in which the author of CIFAR-10 and CIFAR-100 publishes their images.

A batch is a pickled dict: ``data``, uint8 ``[N, 3072]``, an image a row, all its red, then all its
green, then all its blue values; a list of ``N`` class numbers, ``labels`` in CIFAR-10 and
``fine_labels`` in CIFAR-100, whose ``coarse_labels`` (20 groups of classes) are not used; and
``batch_label``, which batch it is. One more file holds the names of the classes, in CIFAR-10 also
how many images a batch has (Krizhevsky, "Learning multiple layers of features from tiny images",
2009).

The files are read by ``jaxsnn.data.pickles``, which runs no code that stands in them.
"""

from __future__ import annotations

import gzip
import math
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxsnn.data.base import Dataset, Images, Labels, check_labels, check_lengths
from jaxsnn.data.pickles import as_array, as_list, damaged, read_pickle
from jaxsnn.errors import UserError

# A batch has 30 MiB, or 150; an archive that announces much more is not the author's.
_LARGEST = 2**28


@dataclass(frozen=True)
class Edition:
    """What the author calls things in one of the two data sets.

    Attributes:
        folder: the folder that the archive holds.
        archive: the archive.
        train: files of the training images, in order.
        test: file of the test images.
        meta: file of the names of the classes.
        names: key of these names.
        labels: key of the class numbers in a batch.
        counted: whether ``meta`` says how many images a batch has and how long a row is.
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    meta: str
    names: str
    labels: str
    counted: bool

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are needed."""
        return (*self.train, self.test, self.meta)

    def called(self, file: str) -> bytes:
        """The ``batch_label`` that stands in a file.

        >>> CIFAR10.called("data_batch_2"), CIFAR100.called("test")
        (b'training batch 2 of 5', b'testing batch 1 of 1')
        """
        if file == self.test:
            return b"testing batch 1 of 1"
        return f"training batch {self.train.index(file) + 1} of {len(self.train)}".encode()


CIFAR10 = Edition(
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    names="label_names",
    labels="labels",
    counted=True,
)
CIFAR100 = Edition(
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    train=("train",),
    test="test",
    meta="meta",
    names="fine_label_names",
    labels="fine_labels",
    counted=False,
)


def load_folder(
    folder: Path, name: str, classes: int, shape: tuple[int, int, int], *, edition: Edition
) -> Dataset | None:
    """Read the batches, or else the author's archive of them, from one folder.

    Args:
        folder: where to look. Batches come before the archive, which is not unpacked to disk.
        name: recorded in the data set.
        classes: number of classes.
        shape: ``(H, W, C)`` of an image.
        edition: ``CIFAR10`` or ``CIFAR100``.

    Returns:
        The data set, training images in the order of the batches, or None if the folder holds
        neither a batch nor the archive.

    Raises:
        UserError: files are missing, one is damaged, asks for anything but an array, is another
            batch than its name says, has a label out of range, or images of another number, shape
            or dtype. The message names the file.
    """
    place, archive = folder, folder / edition.archive
    try:
        contents = {
            file: (folder / file).read_bytes()
            for file in edition.files
            if (folder / file).is_file()
        }
    except OSError as error:
        raise damaged(str(folder), "file", error) from error
    if not contents:
        if not archive.is_file():
            return None
        place, contents = archive, _members(archive, edition)
    missing = [file for file in edition.files if file not in contents]
    if missing:
        msg = f"{place} holds only a part of {name}; missing: {', '.join(missing)}"
        raise UserError(f"{msg}; get {edition.archive} again and unpack it, or leave it there")
    count = _count(contents.pop(edition.meta), place / edition.meta, classes, shape, edition)
    *train, test = (
        _batch(contents.pop(file), place / file, count, classes, shape, edition)
        for file in (*edition.train, edition.test)
    )
    images, labels = (np.concatenate(part) for part in zip(*train, strict=True))
    return Dataset(images, labels, *test, classes, name, str(place))


def _count(
    content: bytes, path: Path, classes: int, shape: tuple[int, int, int], edition: Edition
) -> int | None:
    """How many images every batch must have; None if the author does not say."""
    meta = read_pickle(content, str(path))
    names = as_list(meta.get(edition.names.encode()))
    fits, also, count = names is not None and len(names) == classes, "", None
    if edition.counted:
        count, width = meta.get(b"num_cases_per_batch"), meta.get(b"num_vis")
        fits = fits and type(width) is int and width == math.prod(shape)
        fits = fits and type(count) is int and count >= 1
        also = f", num_cases_per_batch of 1 or more, and num_vis {math.prod(shape)}"
    if not fits:
        msg = f"{path}: wanted {classes} {edition.names}{also}; get the file again"
        raise UserError(msg)
    return count


def _batch(
    content: bytes,
    path: Path,
    count: int | None,
    classes: int,
    shape: tuple[int, int, int],
    edition: Edition,
) -> tuple[Images, Labels]:
    batch = read_pickle(content, str(path))
    label, wanted = batch.get(b"batch_label"), edition.called(path.name)
    if not isinstance(label, bytes) or label != wanted:
        calls = repr(label[:40]) if isinstance(label, bytes) else "nothing"
        msg = f"{path}: its batch_label is {calls}, wanted {wanted!r}; files were mixed up"
        raise UserError(f"{msg}, get them again")
    images = _images(batch.get(b"data"), f"{path}: data", shape)
    labels = _labels(batch.get(edition.labels.encode()), f"{path}: {edition.labels}", classes)
    check_lengths(images, labels, f"{path}: data", edition.labels)
    if not len(images):
        raise UserError(f"{path}: holds no image; get the file again")
    if count is not None and len(images) != count:
        says = f"holds {len(images)} images, but {edition.meta} says {count}"
        raise UserError(f"{path}: {says}; get the file again")
    return images, labels


def _images(data: object, place: str, shape: tuple[int, int, int]) -> Images:
    height, width, channels = shape
    array = as_array(data)
    if array is None or array.shape[1:] != (math.prod(shape),):
        actual = type(data).__name__ if array is None else array.shape
        msg = f"{place} is {actual}, wanted an array [N, {math.prod(shape)}]; this is another file"
        raise UserError(msg)
    planes = array.reshape(len(array), channels, height, width)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1), np.uint8)


def _labels(labels: object, place: str, classes: int) -> Labels:
    listed = as_list(labels)
    numbers = [label for label in listed or () if type(label) is int]
    if listed is None or len(numbers) < len(listed):
        msg = f"{place} is not a list of whole numbers; this is another file"
        raise UserError(msg)
    # What is out of range stays so, and fits an int32.
    inside = np.array([min(max(number, -1), 2**31 - 1) for number in numbers], np.int32)
    check_labels(inside, classes, place)
    return inside


def _members(archive: Path, edition: Edition) -> dict[str, bytes]:
    """Contents of the wanted files; others in the archive, links included, are passed over."""
    wanted = {f"{edition.folder}/{file}": file for file in edition.files}
    contents: dict[str, bytes] = {}
    try:
        with gzip.open(archive) as raw:
            with tarfile.open(fileobj=raw, mode="r|") as members:
                for member in members:
                    if member.name not in wanted or not member.isreg():
                        continue
                    if wanted[member.name] in contents or member.size > _LARGEST:
                        raise UserError(f"{member.name} twice, or of {member.size} bytes")
                    stream = members.extractfile(member)
                    contents[wanted[member.name]] = stream.read() if stream else b""
            while raw.read(2**20):  # only at its end does gzip compare the checksum
                pass
    except Exception as error:  # gzip, zlib and tarfile have many types; the remedy is the same
        raise damaged(str(archive), "archive", error) from error
    return contents
