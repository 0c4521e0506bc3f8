"""From images or events to the drive of every step, in whole units.

Augmentation, the grid that pixels and standardised images lie on, the encoding over time, frames of
recordings, and what a network is shown while it is trained through time.
"""

from jaxsnn.data.labels import class_numbers
from jaxsnn.inputs import augment, augment_events
from jaxsnn.inputs.encoding import Encoding, jitter
from jaxsnn.inputs.preprocess import (
    PIXELS,
    Preprocessing,
    normalised,
    standardised,
    unchanged,
    units_of,
)
from jaxsnn.inputs.stimulus import EventStream, Shown, Stimulus, event_frames, held

__all__ = [
    "PIXELS",
    "Encoding",
    "EventStream",
    "Preprocessing",
    "Shown",
    "Stimulus",
    "augment",
    "augment_events",
    "class_numbers",
    "event_frames",
    "held",
    "jitter",
    "normalised",
    "standardised",
    "unchanged",
    "units_of",
]
