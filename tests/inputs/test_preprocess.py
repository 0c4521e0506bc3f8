"""Images to whole units: against NumPy in float64, and what training draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pictures import on_grid, pictures

from jaxsnn import hidden, neurons, parse
from jaxsnn.errors import UserError
from jaxsnn.inputs import preprocess
from jaxsnn.inputs.preprocess import Moment
from jaxsnn.inputs.stimulus import held
from jaxsnn.network.net import Net, init_variables
from jaxsnn.training.one_pass import classification


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
    result = set()
    for row in range(9):
        for column in range(9):
            window = image[:1, row : row + 24, column : column + 24]
            for mirrored in (False, True):
                wanted = by_hand(window[:, :, ::-1] if mirrored else window, 24, 4)
                near = np.abs(units - wanted).max((1, 2, 3)) < 0.51
                if near.any():
                    result.add((row, column, mirrored))
    assert len(result) > 100  # of 162, 200 draws: 115 expected, deviation about 4
    assert {mirrored for *_, mirrored in result} == {False, True}
    # every image is one of them
    assert len(np.unique(units.reshape(200, -1), axis=0)) >= len(result)


def test_without_flip_nothing_is_mirrored():
    image = np.repeat(np.tile(np.arange(24, dtype=np.uint8) * 9, (24, 1))[None, :, :, None], 40, 0)
    for flip, directions in (("none", {1.0}), ("random", {1.0, -1.0})):
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


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("bits", [0, 4, 8])
@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.1307,), (0.3081,))])
def test_normalised_images_lie_on_the_grid(mean, std, bits):
    images = pictures(channels=len(mean))
    recipe = preprocess.normalised(mean, std, 24, bits=bits)
    units = np.asarray(recipe.test(images))
    assert units.dtype == np.int32
    np.testing.assert_array_equal(units, on_grid(images[:, 4:28, 4:28], mean, std, bits))
    np.testing.assert_array_equal(units, jax.jit(recipe.test)(images))
    decoded = np.asarray(recipe.encoding.decode(jnp.asarray(units)))
    np.testing.assert_array_equal(decoded, units / 2.0**bits)


@pytest.mark.parametrize(
    ("mean", "std", "bits", "wanted"),
    [
        (0.25, 0.5, 0, [0, 2]),  # -0.5 and 1.5
        (0.75, 0.5, 0, [-1, 1]),  # -1.5 and 0.5
        (0.0, 2.0, 0, [0, 1]),  # 0 and 0.5
        (0.0, 2.0, 1, [0, 1]),  # 0 and 1
        (0.25, 0.5, 1, [-1, 3]),
    ],
)
def test_half_a_unit_goes_up(mean, std, bits, wanted):
    images = np.array([0, 255], np.uint8).reshape(1, 1, 2, 1)
    units = np.asarray(preprocess.normalised((mean,), (std,), 2, bits=bits).test(images))
    assert units.shape == (1, 2, 2, 1)
    assert units[0, 0, :, 0].tolist() == wanted


def test_the_highest_unit_may_be_negative():
    # black: -0.9 / 0.25 * 256 = -921.6, white 102.4
    assert preprocess.normalised((0.9,), (0.25,), 8).encoding.highest == 922


@pytest.mark.parametrize(
    ("mean", "std", "options", "message"),
    [
        ((0.5,), (0.2, 0.2, 0.2), {}, "one number each"),
        ((0.5, 0.5), (0.2, 0.2), {}, "one number each"),
        ((), (), {}, "one number each"),
        ((0.5,), (0.0,), {}, "deviations above 0"),
        ((float("nan"),), (0.2,), {}, "finite numbers"),
        ((0.5,), (0.2,), {"size": 0}, "size=0"),
        ((0.5,), (0.2,), {"padding": -1}, "padding=-1"),
        ((0.5,), (0.2,), {"rotation": -30}, "rotation=-30"),
        ((0.5,), (0.2,), {"rotation": float("nan")}, "rotation=nan"),
        ((0.5,), (0.2,), {"bits": -1}, "bits=-1"),
        ((0.5,), (0.2,), {"bits": 16}, "bits=16"),
        ((0.0,), (0.2,), {"bits": 13}, "bits=13: a unit is as large as 40960"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(mean, std, options, message):
    with pytest.raises(ValueError, match=message):
        preprocess.normalised(mean, std, **{"size": 24, **options})


def test_images_that_do_not_fit_are_refused():
    grey = preprocess.normalised((0.5,), (0.5,), 32, padding=4)
    colours = preprocess.normalised(MEAN, STD, 32, padding=4)
    with pytest.raises(ValueError, match="images of 3 channels, but mean and std are of 1"):
        grey.test(pictures(1))
    with pytest.raises(ValueError, match="images of 1 channels, but mean and std are of 3"):
        colours.train(pictures(1, channels=1), jax.random.key(0))
    with pytest.raises(ValueError, match="images of 1 channels, but mean and std are of 3"):
        colours.shape((32, 32, 1))
    with pytest.raises(ValueError, match="images are float32; give whole grey values"):
        grey.test(np.zeros((1, 28, 28, 1), np.float32))
    with pytest.raises(ValueError, match="a 32x32 window does not fit images of 20x20 with pad"):
        grey.train(pictures(1, 20, 1), jax.random.key(0))


def test_normalised_images_are_mirrored_every_other_epoch_and_cut_near_the_middle():
    recipe = preprocess.normalised((0.0,), (1.0,), 4, padding=3, radius=1, flip="alternating")
    assert recipe.paced
    image = np.zeros((1, 4, 4, 1), np.uint8)
    image[0, 1:3, 1:3, 0] = [[10, 40], [10, 40]]
    images, rows, orders = np.repeat(image, 200, 0), jnp.arange(200), []
    for epoch in (0, 1):
        moment = Moment(jnp.int32(0), jnp.int32(epoch), rows)
        units = np.asarray(recipe.train(images, jax.random.key(epoch), moment))[..., 0]
        # No window is more than a pixel off the middle, so that every pixel is in sight.
        assert ((units > 0).sum((1, 2)) == 4).all()
        columns = units.max(1)
        assert len(set(columns.argmax(1))) == 4  # but they move
        orders.append([row[row > 0].tolist() for row in columns])
    assert all(one == other[::-1] for one, other in zip(*orders, strict=True))
    assert len({tuple(one) for one in orders[0]}) == 2


@pytest.mark.parametrize("bad", [np.float32, np.float64, bool])
def test_images_that_are_scaled_already_are_refused(bad):
    images = (pictures() / 255).astype(bad)
    recipe = preprocess.unchanged()
    for call in (
        lambda: recipe.train(images, jax.random.key(0)),
        lambda: recipe.test(images),
        lambda: preprocess.units_of(recipe, images),
        lambda: held(5).show(images, None, None),
    ):
        with pytest.raises(UserError, match="pass the images before scaling"):
            call()


def test_no_image_and_units_beyond_int16_are_refused():
    recipe = preprocess.unchanged()
    with pytest.raises(UserError, match="there are no images"):
        preprocess.units_of(recipe, pictures()[:0])
    for extreme in (2**15, -(2**15) - 1):
        with pytest.raises(UserError, match="beyond int16"):
            preprocess.units_of(recipe, np.full((1, 2, 2, 1), extreme, np.int32))
    units = preprocess.units_of(recipe, np.full((1, 2, 2, 1), 2**15 - 1, np.int32))
    assert (units.dtype, units.max()) == (np.int16, 2**15 - 1)
