"""Parts of a data set in which every class keeps its share, drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from jaxsnn.data.base import Dataset, Images, Labels
from jaxsnn.errors import UserError

Indices = npt.NDArray[np.intp]


def split_validation(
    dataset: Dataset, count: int, seed: int = 0
) -> tuple[Images, Labels, Images, Labels]:
    """Hold out ``count`` training images (10,000 of MNIST's 60,000), of every class its share.

    The test set is not touched, and both parts keep the order of the data set. A class of one
    image stays in training.

    Args:
        dataset: any data set.
        count: images to hold out; 0 leaves the validation arrays empty.
        seed: of the draw.

    Returns:
        ``(train_images, train_labels, validation_images, validation_labels)``.

    Raises:
        UserError: ``count`` is negative or leaves no image to train on.

    Example:
        >>> from jaxsnn.data import load, split_validation
        >>> [len(part) for part in split_validation(load("digits"), 437)]
        [1000, 1000, 437, 437]
    """
    images, labels = dataset.train_images, dataset.train_labels
    kept, held = held_out_rows(labels, count, dataset.name, seed)
    if not len(held):
        return images, labels, images[:0], labels[:0]
    return images[kept], labels[kept], images[held], labels[held]


def held_out_rows(labels: Labels, count: int, name: str, seed: int = 0) -> tuple[Indices, Indices]:
    """Rows to train on and rows that are held out, both in the order of the data set.

    Args:
        labels: int32 ``[N]``, of the training examples.
        count: examples to hold out, 0..N-1.
        name: of the data set, for the message.
        seed: of the draw.

    Raises:
        UserError: ``count`` is negative or leaves nothing to train on.
    """
    available = len(labels)
    if not 0 <= count < available:
        raise UserError(
            f"validation count {count} does not fit {name}: it must lie between 0 and "
            f"{available - 1}, since {available} training examples are there and one must remain"
        )
    kept, held = stratified_split(labels, count, seed)
    return np.sort(kept), np.sort(held)


def limited_rows(labels: Labels, limit: int | None, seed: int = 0) -> Indices:
    """Rows of ``limit`` examples (None, or more than there are: all), of every class its share.

    A class loses its last example only where the limit is below the number of classes.

    Args:
        labels: int32 ``[N]``.
        limit: how many examples stay, at least 1.
        seed: of the draw.

    Returns:
        Indices in the order of the data set.

    Example:
        >>> limited_rows(np.array([0, 0, 0, 0, 1, 1, 2], np.int32), 4).size
        4
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    return np.sort(stratified_split(labels, len(labels) - limit, seed)[0])


def limited(dataset: Dataset, train: int | None, test: int | None) -> Dataset:
    """A data set of fewer images, of every class its share; see ``limited_rows``.

    Args:
        dataset: any data set.
        train: training images that stay; None: all.
        test: test images that stay; None: all.
    """
    if train is not None and train < len(dataset.train_labels):
        rows = limited_rows(dataset.train_labels, train)
        images, labels = dataset.train_images[rows], dataset.train_labels[rows]
        dataset = replace(dataset, train_images=images, train_labels=labels)
    if test is not None and test < len(dataset.test_labels):
        rows = limited_rows(dataset.test_labels, test)
        images, labels = dataset.test_images[rows], dataset.test_labels[rows]
        dataset = replace(dataset, test_images=images, test_labels=labels)
    return dataset


def redrawn(dataset: Dataset, seed: Sequence[int]) -> Dataset:
    """Draw training and test images anew from both together, as many of each, classes unheeded.

    A network that was trained on the split of one seed has seen most test images of another: this
    is what the code of Fast-SNN does with faces (Hu et al., IEEE TPAMI, 2023).

    Args:
        dataset: any data set without validation images.
        seed: whole numbers from 0 to 2^32 - 1, at least one.

    Example:
        >>> from jaxsnn.data import load, redrawn
        >>> digits = load("digits")
        >>> len(redrawn(digits, (0, 1)).train_labels) == len(digits.train_labels)
        True
    """
    images = np.concatenate([dataset.train_images, dataset.test_images])
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    order = np.random.RandomState(np.array(seed)).permutation(len(labels))
    count = len(dataset.train_labels)
    together = replace(dataset, train_images=images, train_labels=labels)
    source = f"{dataset.source}, drawn anew from seed {tuple(seed)}"
    return parted(together, order[:count], order[count:], source)


def parted(dataset: Dataset, train: Indices, test: Indices, source: str) -> Dataset:
    """The data set whose training and test images are rows of its training images.

    Args:
        dataset: whose training images are parted; its test images are left out.
        train: rows to train on, ``[N]``.
        test: rows to test on, ``[M]``.
        source: what is said of where they come from.
    """
    images, labels = dataset.train_images, dataset.train_labels
    return replace(
        dataset,
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        source=source,
    )


def stratified_split(labels: Labels, test_count: int, seed: int = 0) -> tuple[Indices, Indices]:
    """Choose a test set in which every class has its share, the same on every machine.

    A class of ``n`` of the ``N`` images gives ``n * test_count / N`` of them, rounded by the method
    of largest remainders so that the total is exact. No class gives its last image as long as
    another one has two left.

    Args:
        labels: int32 ``[N]``.
        test_count: size of the test set, 0..N.
        seed: of the shuffle.

    Returns:
        Shuffled indices of the training and of the test images.

    Raises:
        UserError: ``test_count`` is negative or larger than N.
    """
    if not 0 <= test_count <= len(labels):
        msg = f"test count {test_count} must lie between 0 and the {len(labels)} labels"
        raise UserError(msg)
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # RandomState's stream is frozen for good, unlike that of a Generator: the split may never move.
    order = np.random.RandomState(seed).permutation(len(labels))
    drawn = classes[order]
    by_class = np.argsort(drawn, kind="stable")
    place = np.empty(len(labels), np.intp)  # of every image among those of its class
    place[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    in_test = place < _quotas(counts, test_count)[drawn]
    return order[~in_test], order[in_test]


def _quotas(counts: npt.NDArray[np.intp], total: int) -> npt.NDArray[np.intp]:
    """How many of ``total`` each class gives, by largest remainders; the last image goes last."""
    quotas, remainders = np.divmod(counts * total, max(int(counts.sum()), 1))
    largest = np.argsort(-remainders, kind="stable")
    while missing := total - int(quotas.sum()):
        spare = largest[quotas[largest] < counts[largest] - 1]
        giving = spare if len(spare) else largest[quotas[largest] < counts[largest]]
        quotas[giving[:missing]] += 1
    return quotas


def spread(labels: Labels, seed: int = 0) -> Indices:
    """A shuffled order in which every stretch has every label's share.

    The i-th of n images of a class (in shuffled order) comes after (i + 1/2) / n of all images.

    Args:
        labels: int32 ``[N]``.
        seed: of the shuffle.

    Returns:
        Indices ``[N]``, the same on every machine.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 1, 1], np.int32)
        >>> labels[spread(labels)].tolist()
        [0, 1, 0, 0, 1, 0]
    """
    order = np.random.RandomState(seed).permutation(len(labels))
    shuffled = labels[order]
    position = np.zeros(len(labels))
    for label in np.unique(labels):
        members = shuffled == label
        position[members] = (np.arange(members.sum()) + 0.5) / members.sum()
    return order[np.argsort(position, kind="stable")]
