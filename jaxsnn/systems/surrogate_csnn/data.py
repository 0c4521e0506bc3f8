"""What the directly trained network is trained and tested on: static images, or events."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxsnn.data.event_sources import load_events
from jaxsnn.data.events import Framing
from jaxsnn.data.recordings import Recordings
from jaxsnn.data.splits import limited
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.inputs.stimulus import EventStream, Stimulus, event_frames, examples, held
from jaxsnn.systems.run_folder import held_out, read_data, task_data
from jaxsnn.systems.settings.surrogate_csnn import NmnistCsnn
from jaxsnn.training.train import Data
from jaxsnn.types import PyTree

GREY = 1 / 255  # value of one grey level


class Material(NamedTuple):
    """A data set as this system takes it.

    Attributes:
        name: of the data set.
        parts: training and validation examples and labels.
        test: test examples as training takes them, and their labels.
        labels: of the test examples.
        stimulus: how examples are shown.
        shown: the test examples as a simulation takes them, given their rows.
        encoding: how a simulation takes them.
        steps: of the longest test example.
        input_shape: ``(H, W, C)``.
        classes: number of classes.
    """

    name: str
    parts: Data
    test: PyTree
    labels: np.ndarray
    stimulus: Stimulus
    shown: Callable[[slice], PyTree]
    encoding: Encoding
    steps: int
    input_shape: tuple[int, int, int]
    classes: int


def read(config: NmnistCsnn) -> Material:
    """The data set that the settings ask for.

    Raises:
        UserError: it is nowhere, damaged, or smaller than what is asked of it.
    """
    return _events(config) if config.spike else _static(config)


def _static(config: NmnistCsnn) -> Material:
    data = read_data(config)
    data = limited(data, -(-len(data.train_images) // config.subset), None)
    parts = task_data(data, held_out(len(data.train_images), config.validation))
    test, steps = data.test_images, config.num_steps
    return Material(
        data.name,
        parts,
        test,
        data.test_labels,
        held(steps, GREY, config.shift),
        functools.partial(_images, test),
        Encoding("held", GREY),
        steps,
        data.input_shape,
        data.classes,
    )


def _images(images: np.ndarray, rows: slice) -> np.ndarray:
    return images[rows]


def _stream(recordings: Recordings, sensor: tuple[int, int, int], rows: slice) -> EventStream:
    return EventStream(recordings.take(np.arange(len(recordings))[rows]), sensor)


def _frames(sensor: tuple[int, int, int], config: NmnistCsnn) -> Stimulus:
    return event_frames(
        sensor,
        config.rotation,
        config.padded_loss,
        shift=config.shift,
        dropped_events=config.dropped_events,
        time_jitter=config.time_jitter,
    )


def _events(config: NmnistCsnn) -> Material:
    numbers = (config.time_window, config.event_count, config.frames, config.filter_time)
    whole = load_events(config.dataset, config.data_dir, framing=Framing(*numbers))
    data = whole.limited(config.limit_train, config.limit_test)
    kept, validation = data.split_validation(held_out(len(data.train), config.validation))
    test, sensor = data.test, data.input_shape
    return Material(
        data.name,
        (examples(kept), kept.labels, examples(validation), validation.labels),
        examples(test),
        test.labels,
        _frames(sensor, config),
        functools.partial(_stream, test, sensor),
        Encoding("frames"),
        int(test.lengths.max()),
        sensor,
        data.classes,
    )
