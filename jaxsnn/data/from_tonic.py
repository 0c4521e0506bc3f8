"""Any event data set that tonic can read, as recordings."""

from __future__ import annotations

import importlib
import numbers
from collections.abc import Iterator

import numpy as np

from jaxsnn.data.events import Events, Framing, Sensor, microseconds
from jaxsnn.data.recordings import Recordings, collect
from jaxsnn.errors import UserError
from jaxsnn.io.progress import bar
from jaxsnn.types import Untyped

DEFAULT = Framing()


def from_tonic(dataset: Untyped, framing: Framing = DEFAULT, **options: Untyped) -> Recordings:
    """Cut the recordings of one of tonic's data sets into frames.

    The whole order of the data set is kept; shuffle it (``take``) where it is sorted by class.
    Frames are those of tonic's transforms ``Denoise`` and ``ToFrame``. For an ``EventDataset`` take
    two calls, one with ``train=True`` and one with ``train=False``, and ``sensor_of``.

    Args:
        dataset: the name of a class of ``tonic.datasets``, such as ``"DVSGesture"``, or any
            sequence of pairs (structured array with fields x, t, p and mostly y; label) that has
            tonic's attribute ``sensor_size`` ``(width, height, polarities)``. Times in
            microseconds.
        framing: the filter and the rule of the frames.
        **options: of that class, such as ``save_to="data", train=True``.

    Raises:
        UserError: tonic is not installed or has no such data set, or a recording has other fields,
            a label that is no whole number, events outside the sensor, or times that are no whole
            microseconds or run backwards.
    """
    opened = _opened(dataset, options) if isinstance(dataset, str) else dataset
    sensor = sensor_of(opened)
    name = type(opened).__name__
    return collect(_recordings(opened, sensor, name), sensor, framing, name)


def sensor_of(dataset: Untyped) -> Sensor:
    """The sensor of one of tonic's data sets, whose ``sensor_size`` begins with the width.

    Raises:
        UserError: there is no such attribute, or it is not three whole numbers.
    """
    size = getattr(dataset, "sensor_size", None)
    try:
        width, height, polarities = (int(number) for number in size)  # type: ignore[union-attr]
    except (TypeError, ValueError) as error:
        problem = f"{type(dataset).__name__}: sensor_size is {size!r}"
        raise UserError(f"{problem}; (width, height, polarities) is wanted") from error
    return Sensor(height, width, polarities)


def _opened(name: str, options: dict[str, Untyped]) -> Untyped:
    """The data set of tonic that has this name."""
    try:
        datasets: Untyped = importlib.import_module("tonic.datasets")
    except ImportError as error:
        remedy = "pip install 'jaxsnn-conversion[events]'"
        raise UserError(f"tonic, which reads {name}, is not installed: {remedy}") from error
    kind = getattr(datasets, name, None)
    if not isinstance(kind, type):
        raise UserError(f"tonic.datasets has no {name!r}; the names are those of its classes")
    return kind(**options)


def _recordings(dataset: Untyped, sensor: Sensor, name: str) -> Iterator[tuple[Events, int]]:
    total = len(dataset)
    for index in bar(range(total), total, f"reading {name}"):
        array, label = dataset[index]
        fields = getattr(getattr(array, "dtype", None), "names", None) or ()
        if missing := {"x", "t", "p"} - set(fields):
            problem = f"{name}: recording {index} lacks the fields {sorted(missing)}"
            raise UserError(f"{problem}; a structured array of x, y, t and p is wanted")
        if not isinstance(label, numbers.Integral):  # of Python or NumPy
            raise UserError(f"{name}: label {label!r} of recording {index} is no whole number")
        # A microphone's channels are columns of one row; one polarity may be written in two ways.
        y = array["y"] if "y" in fields else np.zeros(len(array), np.int32)
        p = array["p"] if sensor.polarities > 1 else np.zeros(len(array), np.int32)
        time = microseconds(array["t"], f"{name}: recording {index}")
        yield Events(array["x"], y, p, time), int(label)
