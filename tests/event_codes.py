"""Sparse recordings, and frames of them event by event."""

import numpy as np

SENSOR = (6, 5, 2)
SIZE = 6 * 5 * 2


def code(frame, y, x, polarity, sensor=SENSOR):
    height, width, polarities = sensor
    return ((frame * height + y) * width + x) * polarities + polarity


def slow_frames(codes, sensor, steps, angle=None):
    """Event by event, in double precision."""
    height, width, polarities = sensor
    counts = np.zeros((steps, len(codes), *sensor))
    for row, events in enumerate(codes.tolist()):
        turn = np.deg2rad(0.0 if angle is None else float(angle[row]))
        for event in events:
            if event < 0:
                continue
            rest, polarity = divmod(event, polarities)
            rest, x = divmod(rest, width)
            frame, y = divmod(rest, height)
            # The usual axes, with y upwards: (u, v) turned counter-clockwise.
            u, v = x - (width - 1) / 2, (height - 1) / 2 - y
            new_u = u * np.cos(turn) - v * np.sin(turn)
            new_v = u * np.sin(turn) + v * np.cos(turn)
            column = int(np.floor(new_u + (width - 1) / 2 + 0.5))
            line = int(np.floor((height - 1) / 2 - new_v + 0.5))
            if frame < steps and 0 <= column < width and 0 <= line < height:
                counts[frame, row, line, column, polarity] += 1
    return counts


def random_codes(batch=7, events=50, steps=4, seed=0):
    """Some rows shorter than others, and events in frames that are not asked for."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, (steps + 2) * SIZE, (batch, events)).astype(np.int32)
    codes[np.arange(events) >= rng.integers(0, events + 1, batch)[:, None]] = -1
    return codes
