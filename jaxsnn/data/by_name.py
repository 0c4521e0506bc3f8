"""Data sets by name, and where each is looked for."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path

from jaxsnn.data.arrays import load_npz
from jaxsnn.data.base import Dataset
from jaxsnn.data.search import SOURCES, Source, folders_of
from jaxsnn.data.splits import split_validation
from jaxsnn.errors import UserError

NAMES = tuple(SOURCES)


def load(
    name: str | Path, data_dir: str | Path | None = None, *, validation: int | None = None
) -> Dataset:
    """Load a data set.

    ``digits`` needs nothing. The others are looked for in ``data_dir`` (the folder with the files,
    or one above it), ``$JAXSNN_DATA``, ``./data``, ``~/.cache/jaxsnn/data``, tensorflow-datasets'
    prepared folders, and last in its download, which needs the extra ``tfds``; see ``locations``.

    Args:
        name: one of ``NAMES``, or the path of an npz file (ending in ``.npz``) with arrays
            ``images`` and ``labels``, and optionally ``test_images``, ``test_labels`` and
            ``classes``.
        data_dir: where to look first; of no use to ``digits`` and npz files.
        validation: move so many training images to ``validation_images``, of every class its share
            (``split_validation``).

    Returns:
        uint8 images ``[N, H, W, C]`` and int32 labels ``[N]`` for training and test.

    Raises:
        UserError: an unknown name, a data set that is nowhere, a damaged file, or a validation
            count that leaves nothing to train on. The message says which, where, and the remedy.

    Example:
        >>> load("digits", validation=437).train_images.shape
        (1000, 28, 28, 1)
        >>> load("mnits")
        Traceback (most recent call last):
        ...
        jaxsnn.errors.UserError: unknown data set 'mnits'; nearest: 'mnist'; known: digits, mnist, \
fashion_mnist, cifar10, cifar100, tiny_imagenet, lfw, or the path of an .npz file
    """
    name = os.fspath(name)
    if name.endswith(".npz"):
        dataset = load_npz(Path(name).expanduser())
    else:
        source = _source(name)
        dataset = source.loader(source, None if data_dir is None else Path(data_dir))
    if validation is None:
        return dataset
    images, labels, validation_images, validation_labels = split_validation(dataset, validation)
    return replace(
        dataset,
        train_images=images,
        train_labels=labels,
        validation_images=validation_images,
        validation_labels=validation_labels,
    )


def locations(name: str | Path, data_dir: str | Path | None = None) -> list[Path]:
    """The folders where ``load`` looks, in order; for an npz file, the file.

    Raises:
        UserError: an unknown name.

    Example:
        >>> locations("digits")
        []
        >>> locations("mnist", "here")[:2] == [Path("here"), Path("here/mnist")]
        True
    """
    name = os.fspath(name)
    if name.endswith(".npz"):
        return [Path(name).expanduser()]
    return folders_of(_source(name), None if data_dir is None else Path(data_dir))


def _source(name: str) -> Source:
    source = SOURCES.get(name.replace("-", "_"))
    if source is None:
        nearest = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.0)[0]
        choices = f"known: {', '.join(NAMES)}, or the path of an .npz file"
        msg = f"unknown data set {name!r}; nearest: {nearest!r}; {choices}"
        raise UserError(msg)
    return source
