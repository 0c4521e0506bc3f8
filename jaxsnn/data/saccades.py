"""Images as events by N-MNIST's recipe: a camera that looks at a still image in three saccades."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from jaxsnn.data.base import Images, check_images
from jaxsnn.data.events import NMNIST, Events
from jaxsnn.errors import UserError

SACCADE_TIME = 100_000  # microseconds
SAMPLES = 100  # of one saccade
CORNERS = ((0.0, 0.0), (6.0, 3.0), (0.0, 6.0), (0.0, 0.0))  # (down, across) of the image, pixels
THRESHOLD = 0.2  # change of log intensity that makes an event
DARKNESS = 0.5  # what a black pixel of a screen in a lit room sends; a white one sends 1 more
RECIPE = (1, SACCADE_TIME, SAMPLES, CORNERS, THRESHOLD, DARKNESS)  # 1: version of the rest
CHUNK = 64  # images at a time, which stay in a core's cache
Floats = npt.NDArray[np.float32]


def saccade_events(images: Images) -> Iterator[Events]:
    """Turn images into recordings of an event camera.

    N-MNIST was recorded by a camera that a pan-tilt unit moves along a triangle, three saccades of
    100 ms in front of a screen (Orchard et al., Front. Neurosci. 9:437, 2015). Here the 28 x 28
    image moves likewise across 34 x 34 pixels, by fractions of a pixel, starting and ending every
    saccade at rest. A pixel sends an event whenever its log intensity has moved by ``THRESHOLD``
    since its last one. Nothing is random, and there is no noise.

    Args:
        images: uint8 ``[N, 28, 28, 1]``, bright on black.

    Yields:
        One recording per image, times 1..300,000 microseconds, in order of time.

    Raises:
        UserError: the images have another dtype or shape.
    """
    check_images(images, "saccade_events: images")
    if images.shape[1:] != (28, 28, 1):
        raise UserError(f"saccade_events takes images [N, 28, 28, 1], not {images.shape}")
    for start in range(0, len(images), CHUNK):
        yield from _chunk(images[start : start + CHUNK, :, :, 0])


def positions() -> npt.NDArray[np.float64]:
    """Where the image's upper left corner lies at every sample, ``[3 * SAMPLES + 1, 2]``, pixels.

    Returns:
        Rows of (down, across): the corners of the triangle, and between them the share
        ``(1 - cos(pi * s)) / 2`` of the way at the share ``s`` of the saccade's time.
    """
    share = (1 - np.cos(np.pi * np.arange(SAMPLES) / SAMPLES))[:, None] / 2
    corners = np.array(CORNERS)
    legs = [here + share * (there - here) for here, there in itertools.pairwise(corners)]
    return np.concatenate([*legs, corners[-1:]])


def _chunk(images: npt.NDArray[np.uint8]) -> Iterator[Events]:
    """The recordings of a few images ``[n, 28, 28]``."""
    # The view moves by at most 6 pixels, and interpolates one further.
    padded = np.pad(images.astype(np.float32) / np.float32(255), ((0, 0), (7, 6), (7, 6)))
    path = positions()
    before = _log_intensity(padded, path[0])
    # The levels at which pixels send lie on a grid: were it each pixel's own first intensity, then
    # at the end, back in the first place, rounding would decide on an event.
    level = (np.round(before / THRESHOLD) * THRESHOLD).astype(np.float32)
    events = [(np.zeros(0, np.int64),) * 4]  # a black image has no event
    for sample, place in enumerate(path[1:]):
        now = _log_intensity(padded, place)
        events += _crossings(before, now, level, sample)
        before = now
    image, pixel, polarity, time = (np.concatenate(column) for column in zip(*events, strict=True))
    pixels = NMNIST.height * NMNIST.width
    order = np.argsort((image * (3 * SACCADE_TIME + 1) + time) * pixels + pixel)
    edges = np.cumsum(np.bincount(image, minlength=len(images)))[:-1]
    y, x = np.divmod(pixel, NMNIST.width)
    whole = Events(x.astype(np.uint8), y.astype(np.uint8), polarity.astype(np.uint8), time)
    for rows in np.split(order, edges):
        yield whole[rows]


def _crossings(
    before: Floats, now: Floats, level: Floats, sample: int
) -> list[tuple[npt.NDArray[np.int64], ...]]:
    """Events between two samples; moves ``level`` of the pixels that had one."""
    crossings: list[tuple[npt.NDArray[np.int64], ...]] = []
    interval = SACCADE_TIME // SAMPLES
    active = np.flatnonzero(np.abs(now - level) >= THRESHOLD)
    flat_before, flat_now, flat_level = before.ravel(), now.ravel(), level.ravel()
    while len(active):
        rising = flat_now[active] > flat_level[active]
        flat_level[active] += np.where(rising, THRESHOLD, -THRESHOLD).astype(np.float32)
        change = flat_now[active] - flat_before[active]
        # The moment at which the level was reached, if intensity moves evenly in between.
        share = np.clip((flat_level[active] - flat_before[active]) / change, 0, 1)
        time = sample * interval + np.maximum(np.ceil(share * interval), 1).astype(np.int64)
        image, pixel = np.divmod(active, NMNIST.height * NMNIST.width)
        crossings.append((image, pixel, rising.astype(np.int64), time))
        active = active[np.abs(flat_now[active] - flat_level[active]) >= THRESHOLD]
    return crossings


def _log_intensity(padded: Floats, place: npt.NDArray[np.float64]) -> Floats:
    """What the camera sees, ``[n, 34, 34]``, of images padded by 7 and 6, moved by ``place``."""
    whole = np.floor(place).astype(int)
    down, across = (place - whole).astype(np.float32)
    top, left = 7 - whole
    height, width = NMNIST.height, NMNIST.width
    rows = padded[:, top - 1 : top + height]
    rows = (1 - down) * rows[:, 1:] + down * rows[:, :-1]
    part = rows[:, :, left - 1 : left + width]
    view = (1 - across) * part[:, :, 1:] + across * part[:, :, :-1]
    return np.log(view + np.float32(DARKNESS))
