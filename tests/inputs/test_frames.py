"""Frames of sparse recordings, against loops."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from event_codes import SENSOR, code, random_codes, slow_frames

from jaxsnn.inputs.frames import frames, mask


def test_frames_count_events():
    codes = random_codes()
    actual = frames(jnp.asarray(codes), SENSOR, 4)
    assert (actual.shape, actual.dtype) == ((4, 7, *SENSOR), jnp.float32)
    np.testing.assert_array_equal(actual, slow_frames(codes, SENSOR, 4))


def test_several_events_at_one_place_add_up():
    codes = np.array([[code(1, 2, 3, 1)] * 300 + [-1]], np.int32)
    actual = np.array(frames(jnp.asarray(codes), SENSOR, 2))
    assert actual[1, 0, 2, 3, 1] == actual.sum() == 300


def test_frames_compile_once():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def traced(codes):
        return frames(codes, SENSOR, 4)

    for seed in range(3):
        codes = random_codes(seed=seed)
        np.testing.assert_array_equal(traced(codes), slow_frames(codes, SENSOR, 4))


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
