"""Frames of sparse recordings: against loops, turned by hand, and nothing counted twice."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxsnn.inputs.frames import frames, mask

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


def test_frames_count_events():
    codes = random_codes()
    actual = frames(jnp.asarray(codes), SENSOR, 4)
    assert (actual.shape, actual.dtype) == ((4, 7, *SENSOR), jnp.float32)
    np.testing.assert_array_equal(actual, slow_frames(codes, SENSOR, 4))


def test_several_events_at_one_place_add_up():
    codes = np.array([[code(1, 2, 3, 1)] * 300 + [-1]], np.int32)
    actual = np.array(frames(jnp.asarray(codes), SENSOR, 2))
    assert actual[1, 0, 2, 3, 1] == actual.sum() == 300


@pytest.mark.parametrize("angle", [7.3, -9.9, 33.0, 120.0, -171.0])
def test_turned_frames_equal_the_loop(angle):
    """Angles at which no pixel of the sensor lands midway between two, so that rounding agrees."""
    codes, angles = random_codes(), np.full(7, angle, np.float32)
    angles[3] = 0
    actual = frames(jnp.asarray(codes), SENSOR, 4, jnp.asarray(angles))
    np.testing.assert_array_equal(actual, slow_frames(codes, SENSOR, 4, angles))


def test_no_angle_and_angle_zero_are_the_same():
    codes = jnp.asarray(random_codes(seed=1))
    plain = frames(codes, SENSOR, 4)
    np.testing.assert_array_equal(frames(codes, SENSOR, 4, jnp.zeros(7)), plain)
    np.testing.assert_array_equal(frames(codes, SENSOR, 4, jnp.full(7, 360.0)), plain)


def test_a_quarter_turn_by_hand():
    """On 4 x 4 pixels: the right end of the top row goes to the left end of the top row."""
    sensor = (4, 4, 1)
    places = [(0, 3), (0, 0), (3, 0), (1, 3)]  # (y, x)
    turned = [(0, 0), (3, 0), (3, 3), (0, 1)]
    for (y, x), (new_y, new_x) in zip(places, turned, strict=True):
        one = jnp.array([[code(0, y, x, 0, sensor)]], jnp.int32)
        actual = np.array(frames(one, sensor, 1, jnp.array([90.0])))
        assert np.argwhere(actual).tolist() == [[0, 0, new_y, new_x, 0]]


def test_quarter_turns_are_numpys():
    sensor = (34, 34, 2)
    rng = np.random.default_rng(3)
    codes = jnp.asarray(rng.integers(0, 3 * 34 * 34 * 2, (4, 900)), jnp.int32)
    plain = np.array(frames(codes, sensor, 3))
    for turns in (1, 2, 3):
        angle = jnp.full(4, 90.0 * turns)
        np.testing.assert_array_equal(
            frames(codes, sensor, 3, angle), np.rot90(plain, turns, (2, 3))
        )


def test_what_leaves_the_sensor_is_dropped():
    """6 rows of 4 pixels: a quarter turn makes columns of them, of which the outer two are off."""
    codes = jnp.arange(48, dtype=jnp.int32)[None]
    actual = np.array(frames(codes, (6, 4, 2), 1, jnp.array([90.0])))
    expected = np.zeros((6, 4, 2))
    expected[1:5] = 1
    np.testing.assert_array_equal(actual[0, 0], expected)


codes_drawn = arrays.arrays(np.int32, (3, 12), elements=st.integers(-1, 3 * SIZE - 1))
angles_drawn = arrays.arrays(np.float32, 3, elements=st.floats(-180, 180, width=32))


@jax.jit
def compiled(codes, angle):
    return frames(codes, SENSOR, 2, angle)


@given(codes_drawn, angles_drawn)
def test_no_event_is_counted_twice(codes, angles):
    """Every frame holds at most its own events of each polarity, and moves them by rounding."""
    actual = np.array(compiled(codes, angles))
    plain = slow_frames(codes, SENSOR, 2)
    turned, unturned = actual.sum((2, 3)), plain.sum((2, 3))
    assert (turned <= unturned).all()
    # What lies so near the centre that no turn can carry it off the sensor is always kept.
    y, x = np.mgrid[:6, :5]
    near = np.hypot(x - 2, y - 2.5) < 2
    assert (turned >= plain[:, :, near].sum(2)).all()


def test_frames_compile_once_for_all_angles():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def traced(codes, angle):
        return frames(codes, SENSOR, 4, angle)

    for seed in range(3):
        codes = random_codes(seed=seed)
        np.testing.assert_array_equal(traced(codes, jnp.zeros(7)), slow_frames(codes, SENSOR, 4))


@pytest.mark.parametrize(
    ("codes", "sensor", "steps", "message"),
    [
        (jnp.zeros(3, jnp.int32), SENSOR, 2, r"int32 codes \[B, E\], not int32 \(3,\)"),
        (jnp.zeros((3, 3)), SENSOR, 2, "not float32"),
        (jnp.zeros((3, 3), jnp.int32), SENSOR, 0, "steps 0"),
        (jnp.zeros((3, 3), jnp.int32), (6, 0, 2), 1, r"sensor \(6, 0, 2\)"),
        (jnp.zeros((900, 3), jnp.int32), (260, 346, 2), 300, "lower the batch size"),
    ],
)
def test_impossible_frames_are_refused(codes, sensor, steps, message):
    with pytest.raises(ValueError, match=message):
        frames(codes, sensor, steps)


def test_mask_is_one_while_a_recording_runs():
    expected = [[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 1]]
    actual = mask(jnp.array([1, 2, 9]), 4)
    np.testing.assert_array_equal(actual, expected)
    assert actual.dtype == jnp.float32
