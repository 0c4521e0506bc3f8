"""Augmentation of events: turned by hand, moved, lost and delayed as often as drawn."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from event_codes import SENSOR, SIZE, code, random_codes, slow_frames
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxsnn.errors import UserError
from jaxsnn.inputs import augment_events
from jaxsnn.inputs.augment_events import shift, time_jitter, turn
from jaxsnn.inputs.frames import frames
from jaxsnn.inputs.stimulus import event_frames, held

# ---------------------------------------------------------------- turned


@pytest.mark.parametrize("angle", [7.3, -9.9, 33.0, 120.0, -171.0])
def test_turned_frames_equal_the_loop(angle):
    """Angles at which no pixel of the sensor lands midway between two, so that rounding agrees."""
    codes, angles = random_codes(), np.full(7, angle, np.float32)
    angles[3] = 0
    actual = frames(turn(jnp.asarray(codes), SENSOR, jnp.asarray(angles)), SENSOR, 4)
    np.testing.assert_array_equal(actual, slow_frames(codes, SENSOR, 4, angles))


def test_no_angle_and_angle_zero_are_the_same():
    codes = jnp.asarray(random_codes(seed=1))
    plain = frames(codes, SENSOR, 4)
    np.testing.assert_array_equal(frames(turn(codes, SENSOR, jnp.zeros(7)), SENSOR, 4), plain)
    np.testing.assert_array_equal(frames(turn(codes, SENSOR, jnp.full(7, 360.0)), SENSOR, 4), plain)


def test_a_quarter_turn_by_hand():
    """On 4 x 4 pixels: the right end of the top row goes to the left end of the top row."""
    sensor = (4, 4, 1)
    places = [(0, 3), (0, 0), (3, 0), (1, 3)]  # (y, x)
    turned = [(0, 0), (3, 0), (3, 3), (0, 1)]
    for (y, x), (new_y, new_x) in zip(places, turned, strict=True):
        one = jnp.array([[code(0, y, x, 0, sensor)]], jnp.int32)
        actual = np.array(frames(turn(one, sensor, jnp.array([90.0])), sensor, 1))
        assert np.argwhere(actual).tolist() == [[0, 0, new_y, new_x, 0]]


def test_quarter_turns_are_numpys():
    sensor = (34, 34, 2)
    rng = np.random.default_rng(3)
    codes = jnp.asarray(rng.integers(0, 3 * 34 * 34 * 2, (4, 900)), jnp.int32)
    plain = np.array(frames(codes, sensor, 3))
    for turns in (1, 2, 3):
        angle = jnp.full(4, 90.0 * turns)
        np.testing.assert_array_equal(
            frames(turn(codes, sensor, angle), sensor, 3), np.rot90(plain, turns, (2, 3))
        )


def test_what_leaves_the_sensor_is_dropped():
    """6 rows of 4 pixels: a quarter turn makes columns of them, of which the outer two are off."""
    codes = jnp.arange(48, dtype=jnp.int32)[None]
    actual = np.array(frames(turn(codes, (6, 4, 2), jnp.array([90.0])), (6, 4, 2), 1))
    expected = np.zeros((6, 4, 2))
    expected[1:5] = 1
    np.testing.assert_array_equal(actual[0, 0], expected)


codes_drawn = arrays.arrays(np.int32, (3, 12), elements=st.integers(-1, 3 * SIZE - 1))
angles_drawn = arrays.arrays(np.float32, 3, elements=st.floats(-180, 180, width=32))


@jax.jit
def compiled(codes, angle):
    return frames(turn(codes, SENSOR, angle), SENSOR, 2)


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


# ---------------------------------------------------------------- moved


def test_a_shift_is_that_of_the_frames():
    """Beside frames that are moved as pictures, with zeros coming in."""
    codes = jnp.asarray(random_codes())
    pixels = jnp.array([[0, 0], [1, 0], [0, -2], [-3, 1], [5, 0], [0, 4], [6, 5]], jnp.int32)
    moved = frames(shift(codes, SENSOR, pixels), SENSOR, 4)
    plain = np.pad(frames(codes, SENSOR, 4), ((0, 0), (0, 0), (6, 6), (5, 5), (0, 0)))
    for row, (down, right) in enumerate(pixels.tolist()):
        expected = plain[:, row, 6 - down : 12 - down, 5 - right : 10 - right]
        np.testing.assert_array_equal(moved[:, row], expected)


def test_every_shift_is_drawn_as_often():
    centre = jnp.full((9000, 1), code(0, 3, 2, 1), jnp.int32)
    drawn = augment_events.random_shift(centre, jax.random.key(0), SENSOR, 1)
    expected = [code(0, y, x, 1) for y, x in itertools.product((2, 3, 4), (1, 2, 3))]
    values, numbers = np.unique(drawn, return_counts=True)
    assert values.tolist() == sorted(expected)
    assert abs(numbers - 1000).max() < 5 * np.sqrt(1000)


# ---------------------------------------------------------------- dropped


def test_recordings_lose_shares_from_none_to_the_most():
    codes = jnp.arange(2000, dtype=jnp.int32)[None].repeat(400, 0)
    left = np.asarray(augment_events.random_drop(codes, jax.random.key(0), 0.5))
    assert np.isin(left, (-1, *range(2000))).all()
    np.testing.assert_array_equal(left[left >= 0], np.asarray(codes)[left >= 0])
    lost = np.mean(left < 0, axis=1)
    assert lost.min() < 0.02
    assert 0.48 < lost.max() < 0.55
    assert lost.mean() == pytest.approx(0.25, abs=0.03)
    # Within a recording every event is lost by itself.
    first, second = left[:, ::2] < 0, left[:, 1::2] < 0
    assert abs(first.mean(1) - second.mean(1)).max() < 0.07
    # So it is in every recording: whether two of them lose the same is chance.
    half = np.argsort(abs(lost - 0.25))[:2]
    both = np.mean((left[half[0]] < 0) & (left[half[1]] < 0))
    assert both == pytest.approx(0.25**2, abs=0.03)


# ---------------------------------------------------------------- in time


def normal_share(low, high, deviation):
    """Probability that a time uniform in a frame and a normal number lie from low to high."""
    rng = np.random.default_rng(0)
    time = rng.uniform(size=2_000_000) + deviation * rng.normal(size=2_000_000)
    return np.mean((time >= low) & (time < high))


def test_events_are_moved_in_time_as_often_as_the_normal_says():
    """Frame 2 of 4: those that fall before the first frame or behind the last are lost."""
    codes = jnp.full((1, 40_000), code(2, 3, 4, 1), jnp.int32)
    moved = np.asarray(time_jitter(codes, jax.random.key(0), SENSOR, jnp.array([4]), 0.8))
    for frame in range(4):
        share = np.mean(moved == code(frame, 3, 4, 1))
        assert share == pytest.approx(normal_share(frame - 2, frame - 1, 0.8), abs=0.01)
    lost = 1 - normal_share(-2, 2, 0.8)
    assert np.mean(moved == -1) == pytest.approx(lost, abs=0.01)
    assert 0.03 < lost < 0.2


def test_each_recording_ends_with_its_own_last_frame():
    codes = jnp.full((2, 5000), code(2, 3, 4, 1), jnp.int32)
    moved = time_jitter(codes, jax.random.key(0), SENSOR, jnp.array([3, 4]), 0.8)
    later = np.mean(np.asarray(moved) == code(3, 3, 4, 1), axis=1)
    assert later[0] == 0
    assert later[1] == pytest.approx(normal_share(1, 2, 0.8), abs=0.03)


def test_no_deviation_moves_nothing():
    codes = jnp.asarray(random_codes(steps=4))
    same = time_jitter(codes, jax.random.key(0), SENSOR, jnp.full(7, 6), 0.0)
    np.testing.assert_array_equal(same, codes)


# ---------------------------------------------------------------- all together


def shown(key=None, **options):
    codes = jnp.asarray(random_codes(batch=7, events=50, steps=4))
    batch = {"codes": codes, "lengths": jnp.full(7, 6, jnp.int32)}
    return np.asarray(event_frames(SENSOR, **options).show(batch, key, 6).x)


@pytest.mark.parametrize(
    "options",
    [{"rotation": 40.0}, {"shift": 2}, {"dropped_events": 0.6}, {"time_jitter": 1.0}],
    ids=lambda options: next(iter(options)),
)
def test_each_is_done_in_training_alone_and_anew_each_time(options):
    plain = shown()
    np.testing.assert_array_equal(shown(**options), plain)
    first, again, other = (shown(jax.random.key(seed), **options) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != plain).any()
    assert (first != other).any()
    assert first.sum() <= plain.sum()


def test_all_together_are_compiled_once():
    together = {"rotation": 9.0, "shift": 1, "dropped_events": 0.2, "time_jitter": 0.5}
    stimulus = event_frames(SENSOR, **together)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def traced(codes, lengths, key):
        return stimulus.show({"codes": codes, "lengths": lengths}, key, 4).x

    for seed in range(3):
        codes, lengths = jnp.asarray(random_codes(seed=seed)), jnp.full(7, 3 + seed, jnp.int32)
        key = jax.random.key(seed)
        others = jax.random.split(jax.random.fold_in(key, 1), 3)
        expected = augment_events.random_turn(codes, key, SENSOR, 9.0)
        expected = augment_events.random_shift(expected, others[0], SENSOR, 1)
        expected = augment_events.random_drop(expected, others[1], 0.2)
        expected = time_jitter(expected, others[2], SENSOR, lengths, 0.5)
        np.testing.assert_array_equal(traced(codes, lengths, key), frames(expected, SENSOR, 4))


def test_held_images_are_moved_in_training():
    images = jnp.zeros((200, 5, 5, 1), jnp.uint8).at[:, 2, 2].set(255)
    stimulus = held(3, shift=2)
    still = stimulus.show(images, None, None).x
    np.testing.assert_array_equal(still, held(3).show(images, None, None).x)
    moved = np.asarray(stimulus.show(images, jax.random.key(0), None).x)
    assert moved.shape == still.shape
    assert (moved.reshape(200, -1).sum(1) == 1).all()  # the one bright pixel, somewhere else
    assert (moved.sum((0, 1)) > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotation": -1.0}, "rotation=-1.0"),
        ({"shift": -1}, "shift=-1"),
        ({"shift": 1.5}, "shift=1.5"),
        ({"dropped_events": 1.1}, "dropped_events=1.1"),
        ({"time_jitter": float("nan")}, "time_jitter=nan"),
    ],
)
def test_values_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        event_frames(SENSOR, **options)


CODES, KEY = jnp.asarray(random_codes()), jax.random.key(0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: augment_events.random_turn(CODES, KEY, SENSOR, 181.0), "degrees=181"),
        (lambda: augment_events.random_shift(CODES, KEY, SENSOR, 1001), "pixels=1001"),
        (lambda: augment_events.random_drop(CODES, KEY, -0.1), "most=-0.1"),
        (lambda: time_jitter(CODES, KEY, SENSOR, jnp.full(7, 6), -1.0), "deviation=-1"),
        (lambda: held(3, shift=-1), "shift=-1"),
        (lambda: turn(CODES, SENSOR, jnp.zeros(1)), r"degrees of shape \(1,\) for 7 recordings"),
        (lambda: shift(CODES, SENSOR, jnp.zeros(7, jnp.int32)), r"pixels of shape \(7,\)"),
        (lambda: shift(CODES, SENSOR, jnp.zeros((7, 2))), "pixels are float32"),
        (lambda: turn(CODES[0], SENSOR, jnp.zeros(7)), r"int32 codes \[B, E\]"),
        (lambda: shift(CODES * 1.0, SENSOR, jnp.zeros((7, 2), jnp.int32)), "not float32"),
    ],
)
def test_amounts_and_shapes_that_do_not_fit_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_codes_stay_int32_where_jax_computes_in_64_bits():
    batch = {"codes": CODES, "lengths": jnp.full(7, 6, jnp.int32)}
    everything = {"rotation": 9.0, "shift": 1, "dropped_events": 0.2, "time_jitter": 0.5}
    with jax.enable_x64(True):
        shown = event_frames(SENSOR, **everything).show(batch, KEY, 6)
    assert shown.x.dtype == jnp.float32


def test_equal_arguments_give_one_stimulus():
    assert held(3) is held(np.int64(3), shift=0)
    assert event_frames(SENSOR) is event_frames(SENSOR, 0, shift=0)
    assert event_frames(SENSOR) is not event_frames(SENSOR, shift=1)
