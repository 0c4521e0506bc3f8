"""The recipes of the published systems: their numbers, and what training draws."""

import chex
import jax
import numpy as np
import pytest
from pictures import on_grid, pictures

from jaxsnn import data
from jaxsnn.inputs import preprocess
from jaxsnn.systems import recipes

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("recipe", "name", "highest"),
    [
        (recipes.fast_snn, "mnist", 722),  # white: (1 - 0.1307) / 0.3081 * 256 = 722.3
        (recipes.fast_snn, "fashion_mnist", 518),  # (1 - 0.286) / 0.353 * 256 = 517.8
        (recipes.fast_snn, "cifar10", 546),  # green: (1 - 0.482) / 0.243 * 256 = 545.7; blue 540.3
        (recipes.fast_snn, "lfw", 676),  # blue: (1 - 0.406) / 0.225 * 256 = 675.8
        (recipes.fast_snn, "digits", 547),  # (1 - 0.306) / 0.325 * 256 = 546.7
        (recipes.bayesian_spike_fusion, "mnist", 256),  # -1 to 1
        (recipes.bayesian_spike_fusion, "fashion_mnist", 256),
        (recipes.bayesian_spike_fusion, "digits", 256),
        # blue: (1 - 0.4465) / 0.2010 * 256 = 705.0 (704.96); green: 664.5
        (recipes.bayesian_spike_fusion, "cifar10", 705),
        (recipes.bayesian_spike_fusion, "cifar100", 705),
        (recipes.bayesian_spike_fusion, "tiny_imagenet", 676),  # as of faces
    ],
)
def test_the_highest_unit_is_the_largest_that_a_pixel_gives(recipe, name, highest):
    encoding = recipe(name).encoding
    assert (encoding.presentation, encoding.scale) == ("held", 1 / 256)
    assert encoding.highest == highest


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("mnist", (0.5,), (0.5,)),
        ("cifar10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("cifar100", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("tiny_imagenet", MEAN, STD),
    ],
)
def test_the_numbers_of_bayesian_spike_fusion(name, mean, std):
    images = pictures(3, data.SOURCES[name].input_shape[0], len(mean))
    units = recipes.bayesian_spike_fusion(name).test(images)
    np.testing.assert_array_equal(units, on_grid(images, mean, std, 8))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "digits"])
def test_bayesian_spike_fusion_trains_on_grey_images_as_they_are(name):
    images, recipe = pictures(4, 28, 1), recipes.bayesian_spike_fusion(name)
    trained = recipe.train(images, jax.random.key(7))
    np.testing.assert_array_equal(trained, on_grid(images, (0.5,), (0.5,), 8))


BLACK = -109  # of MNIST: -0.1307 / 0.3081 * 256 = -108.6


def test_small_images_are_tested_in_the_middle_of_black():
    images = pictures(2, side=28, channels=1)
    recipe = recipes.fast_snn("mnist")
    units = np.asarray(recipe.test(images))
    assert recipe.shape((28, 28, 1)) == units.shape[1:] == (32, 32, 1)
    np.testing.assert_array_equal(units[:, 2:30, 2:30], on_grid(images, (0.1307,), (0.3081,), 8))
    frame = np.ones((32, 32), bool)
    frame[2:30, 2:30] = False
    assert (units[:, frame] == BLACK).all()


def drawn(recipe, image, count=400):
    """What training makes of one image, ``count`` times."""
    return np.asarray(jax.jit(recipe.train)(np.repeat(image, count, axis=0), jax.random.key(3)))


@pytest.mark.parametrize(
    ("recipe", "side", "window"),
    [
        (recipes.fast_snn("mnist"), 28, 32),
        (recipes.fast_snn("cifar10"), 32, 32),
        (recipes.bayesian_spike_fusion("cifar100"), 32, 32),
        (recipes.bayesian_spike_fusion("tiny_imagenet"), 64, 64),
    ],
    ids=["fast_snn mnist", "fast_snn cifar10", "cifar100", "tiny_imagenet"],
)
def test_training_draws_windows_of_the_image_in_black(recipe, side, window):
    """28 + 2 * 4 - 32 + 1 = 5 places a side, 32 + 2 * 4 - 32 + 1 = 9, as of 64; 400 draws."""
    channels, mirrors = (1, 1) if side == 28 else (3, 2)
    image = pictures(1, side, channels)
    padded = np.pad(image, ((0, 0), (4, 4), (4, 4), (0, 0)))
    black = np.asarray(recipe.test(padded * 0))[0, 0, 0]
    units = drawn(recipe, image)
    places = side + 8 - window + 1
    whole = np.tile(black, (1, side + 8, side + 8, 1))
    grid = np.asarray(recipe.test(image)).reshape(1, window, window, channels)
    edge = (window - side) // 2
    whole[:, 4 : 4 + side, 4 : 4 + side] = grid[:, edge : edge + side, edge : edge + side]
    result, explained = set(), np.zeros(len(units), bool)
    for row in range(places):
        for column in range(places):
            cut = whole[:, row : row + window, column : column + window]
            for mirrored in range(mirrors):
                same = (units == (cut[:, :, ::-1] if mirrored else cut)).all((1, 2, 3))
                explained |= same
                if same.any():
                    result.add((row, column, mirrored))
    assert explained.all()
    # all 25 places; of 162, about 162 * (1 - exp(-400 / 162)) = 148 with a deviation of 3
    assert len(result) == 25 if side == 28 else len(result) > 130
    assert {mirrored for *_, mirrored in result} == set(range(mirrors))


def test_faces_are_turned_and_stay_without_black_corners():
    """A white image of 96 is white in every window of 64; one of 64 is not."""
    recipe = recipes.fast_snn("lfw")
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
    units = drawn(recipes.fast_snn("lfw"), ramp, 100)
    for channel in range(3):
        levels = on_grid(np.arange(256), MEAN[channel], STD[channel], 8)
        assert np.isin(units[..., channel], levels).all()
    middle = units[:, 32, :, 0].astype(float)
    slopes = (middle[:, -1] - middle[:, 0]) / 63
    # two grey values a pixel, sin 30 = 1/2: at most 1 grey value, 256 / 255 / 0.229 units
    steepest = 256 / 255 / 0.229
    assert steepest * 0.9 < slopes.max() < steepest * 1.02
    assert -steepest * 1.02 < slopes.min() < -steepest * 0.9


def test_faces_are_tested_as_they_are():
    images = pictures(2, side=96)
    units = recipes.fast_snn("lfw").test(images)
    np.testing.assert_array_equal(units, on_grid(images[:, 16:80, 16:80], MEAN, STD, 8))


def test_normalised_training_is_pure_and_compiles_once():
    recipe = recipes.fast_snn("lfw")

    @jax.jit
    @chex.assert_max_traces(n=1)
    def train(images, key):
        return recipe.train(images, key)

    images = pictures(4, side=96)
    first, again, other = (np.asarray(train(images, jax.random.key(seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert np.abs(first).max() <= recipe.encoding.highest


def test_equal_recipes_are_the_same_object():
    same = preprocess.normalised([0.1307], np.array([0.3081]), 32, padding=4, rotation=0)
    assert same is recipes.fast_snn("mnist")
    assert same is not recipes.fast_snn("digits")
    assert recipes.fast_snn("fashion-mnist") is recipes.fast_snn("fashion_mnist")


def test_mean_and_deviation_of_the_digits_are_those_of_their_training_images():
    pixels = data.load("digits").train_images / 255
    mean, std = round(pixels.mean(), 4), round(pixels.std(), 4)
    assert recipes.fast_snn("digits") is preprocess.normalised((mean,), (std,), 32, padding=4)


RECIPES = [
    *((recipes.fast_snn, name) for name in ("mnist", "fashion_mnist", "cifar10", "lfw", "digits")),
    *(
        (recipes.bayesian_spike_fusion, name)
        for name in ("mnist", "fashion_mnist", "cifar10", "cifar100", "tiny_imagenet", "digits")
    ),
]


@pytest.mark.parametrize(("system", "name"), RECIPES)
def test_recipes_take_images_of_the_data_sets_shape(system, name):
    recipe, input_shape = system(name), data.SOURCES[name].input_shape
    images = np.zeros((2, *input_shape), np.uint8)
    units = preprocess.units_of(recipe, images)
    assert units.shape == (2, *recipe.shape(input_shape))
    trained = jax.eval_shape(recipe.train, images, jax.random.key(0))
    assert trained.shape == units.shape
    if system is recipes.bayesian_spike_fusion:
        assert recipe.shape(input_shape) == input_shape


def test_every_image_data_set_has_a_recipe():
    assert {name for _, name in RECIPES} == set(data.SOURCES)


@pytest.mark.parametrize(
    ("system", "name", "message"),
    [
        (
            recipes.fast_snn,
            "mnits",
            "Fast-SNN has no published recipe for the data set 'mnits'; "
            "known: mnist, fashion_mnist, cifar10, lfw, digits$",
        ),
        (recipes.fast_snn, "cifar100", "'cifar100'; known: mnist"),
        (recipes.fast_snn, "mine.npz", "'mine.npz'; call preprocess.normalised with the mean"),
        (
            recipes.bayesian_spike_fusion,
            "lfw",
            "BayesianSpikeFusion has no published recipe for the data set 'lfw'; "
            "known: mnist, fashion_mnist, cifar10, cifar100, tiny_imagenet, digits$",
        ),
        (recipes.bayesian_spike_fusion, "mine.npz", "call preprocess.normalised"),
    ],
)
def test_a_data_set_without_a_recipe_is_refused(system, name, message):
    with pytest.raises(ValueError, match=message):
        system(name)
