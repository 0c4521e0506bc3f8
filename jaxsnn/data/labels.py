"""Labels as class numbers: what training and evaluation take, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from jaxsnn.errors import UserError, shown

MOST_CLASSES = int(np.iinfo(np.int32).max)


def class_numbers(labels: Any, classes: int | None, place: str) -> npt.NDArray[np.int32]:
    """Labels as int32 ``[N]``, after a check that each is a class number.

    Args:
        labels: any array or sequence.
        classes: number of classes; None: unknown, so that only numbers below 0 are refused.
        place: whose labels they are, for messages.

    Raises:
        UserError: another shape (one-hot, say), floats, text or truth values, or a label outside
            0..classes-1. The message names the place, the value, its index and the remedy.

    Example:
        >>> class_numbers([2, 0, 1], 3, "training labels")
        array([2, 0, 1], dtype=int32)
        >>> class_numbers([3, 1, 2], 3, "training labels")
        Traceback (most recent call last):
        ...
        jaxsnn.errors.UserError: training labels: label 3 at index 0 is outside 0..2; all lie in \
1..3: they count from 1; subtract 1
    """
    array = np.asarray(labels)
    if array.ndim != 1:
        one_hot = array.ndim == 2 and (classes is None or array.shape[1] == classes)
        remedy = "; of one-hot labels give labels.argmax(axis=1)" if one_hot else ""
        raise UserError(
            f"{place} have shape {array.shape}; there must be one class number for each "
            f"image{remedy}"
        )
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise UserError(
            f"{place} have dtype {array.dtype}, the first is {shown(array[0].item())}; class "
            f"numbers are integers from 0: {_remedy(array)}"
        )
    check_range(array, MOST_CLASSES if classes is None else classes, place)
    return array.astype(np.int32)


def check_range(labels: npt.NDArray[np.integer], classes: int, place: str) -> None:
    """Refuse integers ``[N]`` outside 0..classes-1.

    Raises:
        UserError: naming ``place``, the first label out of range with its index, and what to do
            where all labels count from 1.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if not len(wrong):
        return
    index = int(wrong[0])
    advice = ""
    if labels.min() >= 1 and labels.max() == classes:
        advice = f"; all lie in {labels.min()}..{classes}: they count from 1; subtract 1"
    raise UserError(
        f"{place}: label {labels[index]} at index {index} is outside 0..{classes - 1}{advice}"
    )


def _remedy(labels: np.ndarray) -> str:
    """What makes class numbers of labels of another type."""
    if labels.dtype.kind == "b":
        return "give labels.astype(int)"
    if labels.dtype.kind == "f" and np.array_equal(labels, np.rint(labels)):
        return "give labels.astype(int)"
    if labels.dtype.kind in "US":
        return "give np.unique(labels, return_inverse=True)[1], or numbers of your own"
    return "give integers"
