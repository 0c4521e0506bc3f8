"""Images to whole units: against NumPy in float64, and what training draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import hidden, neurons, parse, preprocess
from jaxsnn.classify import classification
from jaxsnn.net import Net, init_variables


def pictures(count=6, side=32, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def by_hand(images, size, bits):
    """Central window, standardised, in float64; before rounding."""
    edge = (images.shape[1] - size) // 2
    x = images[:, edge : edge + size, edge : edge + size].astype(np.float64)
    mean, deviation = x.mean((1, 2, 3), keepdims=True), x.std((1, 2, 3), keepdims=True)
    return (x - mean) / np.maximum(deviation, x[0].size ** -0.5) * 2**bits


@pytest.mark.parametrize("bits", [0, 4, 8])
def test_test_images_are_standardised_on_the_grid(bits):
    images = pictures()
    units = np.asarray(preprocess.standardised(24, bits=bits).test(images))
    assert units.dtype == np.int32
    assert units.shape == (6, 24, 24, 3)
    # half a unit, and what float32 may lose
    np.testing.assert_allclose(units, by_hand(images, 24, bits), rtol=0, atol=0.5 + 1e-3)
    recipe = preprocess.standardised(24, bits=bits)
    decoded = np.asarray(recipe.encoding.decode(jnp.asarray(units)))
    np.testing.assert_array_equal(decoded, units / 2.0**bits)


def test_units_beyond_the_encoding_are_cut():
    # one bright pixel of 24*24*3: sqrt(1727) = 41.6 standard deviations
    images = np.zeros((1, 24, 24, 3), np.uint8)
    images[0, 3, 4, 1] = 255
    recipe = preprocess.standardised(24)
    units = np.asarray(recipe.test(images))
    assert recipe.encoding.highest == 16 * 256 - 1
    assert units[0, 3, 4, 1] == units.max() == 4095


def test_an_image_of_one_colour_is_zero():
    assert not np.asarray(
        preprocess.standardised(24).test(np.full((1, 32, 32, 3), 9, np.uint8))
    ).any()


def test_training_draws_windows_mirrors_brightness_and_contrast():
    """Standardisation undoes brightness and a contrast about the same mean: what is left is a
    window of the image, mirrored or not, with the contrast about every channel's mean."""
    image = np.repeat(pictures(1, channels=1), 200, axis=0)  # one channel: contrast is undone, too
    units = np.asarray(preprocess.standardised(24, bits=4).train(image, jax.random.key(3)))
    found = set()
    for row in range(9):
        for column in range(9):
            window = image[:1, row : row + 24, column : column + 24]
            for mirrored in (False, True):
                wanted = by_hand(window[:, :, ::-1] if mirrored else window, 24, 4)
                near = np.abs(units - wanted).max((1, 2, 3)) < 0.51
                if near.any():
                    found.add((row, column, mirrored))
    assert len(found) > 100  # of 162, 200 draws: 115 expected, deviation about 4
    assert {mirrored for *_, mirrored in found} == {False, True}
    # every image is one of them
    assert len(np.unique(units.reshape(200, -1), axis=0)) >= len(found)


def test_without_flip_nothing_is_mirrored():
    image = np.repeat(np.tile(np.arange(24, dtype=np.uint8) * 9, (24, 1))[None, :, :, None], 40, 0)
    for flip, directions in ((False, {1.0}), (True, {1.0, -1.0})):
        recipe = preprocess.standardised(24, flip=flip)
        units = np.asarray(recipe.train(image, jax.random.key(0)), np.float64)
        assert set(np.sign(units[:, 0, -1, 0] - units[:, 0, 0, 0])) == directions


def test_training_is_pure_and_new_for_another_key():
    train = jax.jit(preprocess.standardised(24).train)
    first, again, other = (train(pictures(), jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()


def test_units_of_a_whole_set_do_not_depend_on_the_batch():
    images = pictures(7)
    recipe = preprocess.standardised(24)
    whole = preprocess.units_of(recipe, images)
    assert whole.dtype == np.int16
    np.testing.assert_array_equal(whole, preprocess.units_of(recipe, images, batch_size=3))
    same = preprocess.units_of(preprocess.unchanged(), images)
    np.testing.assert_array_equal(same, images)
    assert same.dtype == np.uint8


@pytest.mark.parametrize("bits", [-1, 12])
def test_a_grid_that_int16_cannot_hold_is_refused(bits):
    with pytest.raises(ValueError, match=f"bits={bits}: .*0 to 11"):
        preprocess.standardised(24, bits=bits)


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(ValueError, match="size 24 must lie between 1 and 20"):
        preprocess.standardised(24).test(pictures(1, side=20))


def test_a_task_augments_in_training_alone():
    """The loss in evaluation is that of the test units; in training that of what the key draws."""
    arch = parse("4C3", input_shape=(24, 24, 3))
    net = Net(arch, hidden(neurons.quantised_relu(1, None)))
    recipe = preprocess.standardised(24)
    variables = init_variables(net, jax.random.key(0))
    params, rest = variables["params"], {"batch_stats": variables["batch_stats"]}
    images, labels = pictures(4), np.zeros(4, np.int32)
    augmented = classification(net, recipe)
    plain = classification(net, preprocess.unchanged(recipe.encoding))
    assert augmented is classification(net, recipe)
    key = jax.random.key(5)
    for train, units in ((True, recipe.train(images, key)), (False, recipe.test(images))):
        ours, _ = augmented.loss(params, rest, images, labels, key, train, axis_name=None)
        same, _ = plain.loss(params, rest, units, labels, key, train, axis_name=None)
        np.testing.assert_array_equal(ours, same)
