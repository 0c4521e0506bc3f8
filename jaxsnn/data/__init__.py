"""Data sets as NumPy arrays: by name, from the reader's folders, or from an npz file.

From their authors' files to uint8 images or to events, with every damaged file named. Nothing here
imports jax; what is made of images before a network sees them is the room ``jaxsnn.inputs``.
"""

from jaxsnn.data.arrays import load_npz
from jaxsnn.data.base import Dataset
from jaxsnn.data.by_name import NAMES, load, locations
from jaxsnn.data.event_sources import EVENT_SOURCES, load_events
from jaxsnn.data.events import Events, Framing, Sensor
from jaxsnn.data.recordings import EventDataset, Recordings
from jaxsnn.data.search import SOURCES, Source, folders_of
from jaxsnn.data.splits import limited, redrawn, split_validation

__all__ = [
    "EVENT_SOURCES",
    "NAMES",
    "SOURCES",
    "Dataset",
    "EventDataset",
    "Events",
    "Framing",
    "Recordings",
    "Sensor",
    "Source",
    "folders_of",
    "limited",
    "load",
    "load_events",
    "load_npz",
    "locations",
    "redrawn",
    "split_validation",
]
