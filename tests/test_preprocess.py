"""Images to whole units: against NumPy in float64, and what training draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import data, hidden, neurons, parse, preprocess
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


def on_grid(pixels, mean, std, bits):
    """`(pixel / 255 - mean) / std`, half up onto the grid, in float64."""
    exact = (pixels / 255 - np.array(mean)) / np.array(std)
    return np.floor(exact * 2**bits + 0.5).astype(int)


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


@pytest.mark.parametrize(
    ("name", "highest"),
    [
        ("mnist", 722),  # white: (1 - 0.1307) / 0.3081 * 256 = 722.3
        ("fashion_mnist", 518),  # (1 - 0.286) / 0.353 * 256 = 517.8
        ("cifar10", 546),  # green: (1 - 0.482) / 0.243 * 256 = 545.7; blue 540.3
        ("lfw", 676),  # blue: (1 - 0.406) / 0.225 * 256 = 675.8
        ("digits", 547),  # (1 - 0.306) / 0.325 * 256 = 546.7
    ],
)
def test_the_highest_unit_is_the_largest_that_a_pixel_gives(name, highest):
    encoding = preprocess.paper_recipe(name).encoding
    assert (encoding.presentation, encoding.scale) == ("held", 1 / 256)
    assert encoding.highest == highest


def test_the_highest_unit_may_be_negative():
    # black: -0.9 / 0.25 * 256 = -921.6, white 102.4
    assert preprocess.normalised((0.9,), (0.25,), 8).encoding.highest == 922


BLACK = -109  # of MNIST: -0.1307 / 0.3081 * 256 = -108.6


def test_small_images_are_tested_in_the_middle_of_black():
    images = pictures(2, side=28, channels=1)
    recipe = preprocess.paper_recipe("mnist")
    units = np.asarray(recipe.test(images))
    assert recipe.shape((28, 28, 1)) == units.shape[1:] == (32, 32, 1)
    np.testing.assert_array_equal(units[:, 2:30, 2:30], on_grid(images, (0.1307,), (0.3081,), 8))
    frame = np.ones((32, 32), bool)
    frame[2:30, 2:30] = False
    assert (units[:, frame] == BLACK).all()


def drawn(recipe, image, count=400):
    """What training makes of one image, `count` times."""
    return np.asarray(jax.jit(recipe.train)(np.repeat(image, count, axis=0), jax.random.key(3)))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_training_draws_windows_of_the_image_in_black(name):
    """28 + 2 * 4 - 32 + 1 = 5 places a side, 32 + 2 * 4 - 32 + 1 = 9; 400 draws."""
    side, channels, mirrors = (28, 1, 1) if name == "mnist" else (32, 3, 2)
    recipe = preprocess.paper_recipe(name)
    image = pictures(1, side, channels)
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4), (0, 0)))
    black = np.asarray(recipe.test(padded * 0))[0, 0, 0]
    units = drawn(recipe, image)
    places = side + 8 - 32 + 1
    whole = np.tile(black, (1, side + 8, side + 8, 1))
    grid = np.asarray(recipe.test(image)).reshape(1, 32, 32, channels)
    edge = (32 - side) // 2
    whole[:, 4 : 4 + side, 4 : 4 + side] = grid[:, edge : edge + side, edge : edge + side]
    found, explained = set(), np.zeros(len(units), bool)
    for row in range(places):
        for column in range(places):
            window = whole[:, row : row + 32, column : column + 32]
            for mirrored in range(mirrors):
                same = (units == (window[:, :, ::-1] if mirrored else window)).all((1, 2, 3))
                explained |= same
                if same.any():
                    found.add((row, column, mirrored))
    assert explained.all()
    # all 25 places; of 162, about 162 * (1 - exp(-400 / 162)) = 148 with a deviation of 3
    assert len(found) == 25 if name == "mnist" else len(found) > 130
    assert {mirrored for *_, mirrored in found} == set(range(mirrors))


def test_faces_are_turned_and_stay_without_black_corners():
    """A white image of 96 is white in every window of 64; one of 64 is not."""
    recipe = preprocess.paper_recipe("lfw")
    assert recipe.shape((96, 96, 3)) == (64, 64, 3)
    white = on_grid(np.full(3, 255), MEAN, STD, 8)
    units = drawn(recipe, np.full((1, 96, 96, 3), 255, np.uint8), 10)
    np.testing.assert_array_equal(units, np.broadcast_to(white, units.shape))
    small = drawn(recipe, np.full((1, 64, 64, 3), 255, np.uint8), 10)
    assert (small[:, 0, 0] < white).any()


def test_a_turned_face_has_whole_grey_values():
    """Turned counter-clockwise: a ramp that grows downwards then grows to the right, or to the
    left if mirrored; and every unit is that of one of 256 pixels."""
    ramp = np.tile(np.arange(96, dtype=np.uint8)[None, :, None, None] * 2, (1, 1, 96, 3))
    units = drawn(preprocess.paper_recipe("lfw"), ramp, 100)
    for channel in range(3):
        known = on_grid(np.arange(256), MEAN[channel], STD[channel], 8)
        assert np.isin(units[..., channel], known).all()
    middle = units[:, 32, :, 0].astype(float)
    slopes = (middle[:, -1] - middle[:, 0]) / 63
    # two grey values a pixel, sin 30 = 1/2: at most 1 grey value, 256 / 255 / 0.229 units
    steepest = 256 / 255 / 0.229
    assert steepest * 0.9 < slopes.max() < steepest * 1.02
    assert -steepest * 1.02 < slopes.min() < -steepest * 0.9


def test_faces_are_tested_as_they_are():
    images = pictures(2, side=96)
    units = preprocess.paper_recipe("lfw").test(images)
    np.testing.assert_array_equal(units, on_grid(images[:, 16:80, 16:80], MEAN, STD, 8))


def test_normalised_training_is_pure_and_compiles_once():
    recipe, traces = preprocess.paper_recipe("lfw"), []

    @jax.jit
    def train(images, key):
        traces.append(images.shape)
        return recipe.train(images, key)

    images = pictures(4, side=96)
    first, again, other = (np.asarray(train(images, jax.random.key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert np.abs(first).max() <= recipe.encoding.highest
    assert len(traces) == 1


def test_equal_recipes_are_the_same_object():
    same = preprocess.normalised([0.1307], np.array([0.3081]), 32, padding=4, rotation=0)
    assert same is preprocess.paper_recipe("mnist")
    assert same is not preprocess.paper_recipe("digits")
    assert preprocess.paper_recipe("fashion-mnist") is preprocess.paper_recipe("fashion_mnist")


def test_mean_and_deviation_of_the_digits_are_those_of_their_training_images():
    pixels = data.load("digits").train_images / 255
    mean, std = round(pixels.mean(), 4), round(pixels.std(), 4)
    assert preprocess.paper_recipe("digits") is preprocess.normalised(
        (mean,), (std,), 32, padding=4
    )


def test_every_image_data_set_has_a_recipe_for_its_shape():
    for name, source in data.SOURCES.items():
        recipe = preprocess.paper_recipe(name)
        images = np.zeros((2, *source.input_shape), np.uint8)
        units = preprocess.units_of(recipe, images)
        assert units.shape == (2, *recipe.shape(source.input_shape))
        trained = jax.eval_shape(recipe.train, images, jax.random.key(0))
        assert trained.shape == units.shape


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "'mnits'; known: mnist, fashion_mnist, cifar10, lfw, digits"),
        ("mine.npz", "'mine.npz'; call preprocess.normalised with the mean"),
    ],
)
def test_a_data_set_without_a_recipe_is_refused(name, message):
    with pytest.raises(ValueError, match=f"no published recipe for the data set {message}"):
        preprocess.paper_recipe(name)


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
    grey, colours = preprocess.paper_recipe("mnist"), preprocess.paper_recipe("cifar10")
    with pytest.raises(ValueError, match="images of 3 channels, but mean and std are of 1"):
        grey.test(pictures(1))
    with pytest.raises(ValueError, match="images of 1 channels, but mean and std are of 3"):
        colours.train(pictures(1, channels=1), jax.random.key(0))
    with pytest.raises(ValueError, match="images of 1 channels, but mean and std are of 3"):
        colours.shape((32, 32, 1))
    with pytest.raises(ValueError, match="images are float32; whole grey values"):
        grey.test(np.zeros((1, 28, 28, 1), np.float32))
    with pytest.raises(ValueError, match="a 32x32 window does not fit images of 20x20 with pad"):
        grey.train(pictures(1, 20, 1), jax.random.key(0))
