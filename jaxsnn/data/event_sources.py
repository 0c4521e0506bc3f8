"""The registry of event data sets, and their loading through the cache."""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxsnn.data import nmnist, saccades
from jaxsnn.data.base import Images, Labels
from jaxsnn.data.cache import cache_folder, cached
from jaxsnn.data.digits import load_digits
from jaxsnn.data.events import NMNIST, Events, Framing, Sensor
from jaxsnn.data.recordings import EventDataset, collect
from jaxsnn.errors import UserError
from jaxsnn.io.progress import bar
from jaxsnn.types import JsonObject

PARTS = ("train", "test")
DEFAULT = Framing()
Reader = Callable[[], Iterable[tuple[Events, int]]]


@dataclass(frozen=True)
class EventFiles:
    """An event data set that was found and is not yet read.

    Attributes:
        source: where it is, for records and messages.
        identity: what tells these files from others, as JSON values; part of the cache's key.
        readers: functions that yield the recordings of ``"train"`` and ``"test"`` with their
            labels, in an order in which every part holds all classes.
    """

    source: str
    identity: JsonObject
    readers: dict[str, Reader]


@dataclass(frozen=True)
class EventSource:
    """One named event data set. A new one is a new entry of ``EVENT_SOURCES``.

    Attributes:
        name: as on the command line.
        classes: number of classes.
        sensor: size of the camera's image.
        find: takes the reader's data folder and finds the data.
        folders: usual names of the folder that holds the files; none if they are embedded.
    """

    name: str
    classes: int
    sensor: Sensor
    find: Callable[[Path | None], EventFiles]
    folders: tuple[str, ...] = ()


def load_events(
    name: str, data_dir: str | Path | None = None, *, framing: Framing = DEFAULT
) -> EventDataset:
    """Load an event data set, cut into frames.

    ``digits`` are made from the embedded images (``saccades``) and need nothing. ``nmnist`` is
    looked for in ``data_dir`` (the folder with the files, or one above it), ``$JAXSNN_DATA``,
    ``./data`` and ``~/.cache/jaxsnn/data``. What was read is kept in ``$JAXSNN_CACHE``, by default
    ``~/.cache/jaxsnn/events``, for the next time.

    Args:
        name: one of ``EVENT_SOURCES``.
        data_dir: where to look first; of no use to ``digits``.
        framing: the noise filter, and how events become frames.

    Returns:
        Training and test recordings, both in shuffled order.

    Raises:
        UserError: an unknown name, a data set that is nowhere, or a damaged file. The message says
            which, where, and the remedy.

    Example:
        >>> load_events("nmist")
        Traceback (most recent call last):
        ...
        jaxsnn.errors.UserError: unknown event data set 'nmist'; nearest: 'nmnist'; \
known: digits, nmnist
    """
    source = EVENT_SOURCES.get(name.replace("-", "_"))
    if source is None:
        nearest = difflib.get_close_matches(name, EVENT_SOURCES, n=1, cutoff=0.0)[0]
        choices = f"known: {', '.join(EVENT_SOURCES)}"
        raise UserError(f"unknown event data set {name!r}; nearest: {nearest!r}; {choices}")
    files = source.find(None if data_dir is None else Path(data_dir))
    key = {"name": source.name, "source": files.source, "framing": asdict(framing)}
    parts = cached(
        cache_folder(),
        {**key, **files.identity},
        lambda: {
            part: collect(files.readers[part](), source.sensor, framing, f"{source.name} {part}")
            for part in PARTS
        },
    )
    numbers = (source.sensor, source.classes, source.name, files.source, framing)
    return EventDataset(parts["train"], parts["test"], *numbers)


def _nmnist(data_dir: Path | None) -> EventFiles:
    parts = nmnist.find(data_dir)
    identity = {name: [len(part.names), part.digest] for name, part in parts.items()}
    source = str(parts["train"].place.resolve().parent)
    return EventFiles(
        source, {"files": identity}, {name: part.read for name, part in parts.items()}
    )


def _digits(data_dir: Path | None) -> EventFiles:
    del data_dir  # digits come with scikit-learn
    digits = load_digits()
    identity = {
        "images": [
            zlib.crc32(part.tobytes()) for part in (digits.train_images, digits.test_images)
        ],
        "recipe": saccades.RECIPE,
    }
    pairs = {
        "train": (digits.train_images, digits.train_labels),
        "test": (digits.test_images, digits.test_labels),
    }
    readers = {name: _saccades(*pair) for name, pair in pairs.items()}
    return EventFiles(f"{digits.source}, as events of three saccades", identity, readers)


def _saccades(images: Images, labels: Labels) -> Reader:
    def read() -> Iterable[tuple[Events, int]]:
        events = bar(saccades.saccade_events(images), len(images), "making events of the digits")
        return zip(events, labels.tolist(), strict=True)

    return read


EVENT_SOURCES = {
    source.name: source
    for source in (
        EventSource("digits", 10, NMNIST, _digits),
        EventSource("nmnist", 10, NMNIST, _nmnist, nmnist.FOLDERS),
    )
}
