"""Augmentations against NumPy, under jit, and as distributions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn.inputs import augment

KEY = jax.random.key(7)


def images(batch=64, height=6, width=5, channels=3):
    """Distinct positive pixels, so that every window and every mirror image is told apart."""
    size = batch * height * width * channels
    return jnp.arange(1, size + 1, dtype=jnp.float32).reshape(batch, height, width, channels)


def windows(image, padding, rows, columns):
    """All windows of one padded image, by corner."""
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    corners = np.ndindex(padded.shape[0] - rows + 1, padded.shape[1] - columns + 1)
    return {(r, c): padded[r : r + rows, c : c + columns] for r, c in corners}


@pytest.mark.parametrize(("padding", "size"), [(2, None), (0, 4), (1, 5)])
def test_random_crop_cuts_windows_of_the_padded_image(padding, size):
    whole = images()
    cut = np.asarray(augment.random_crop(whole, KEY, padding, size))
    rows, columns = (6, 5) if size is None else (size, size)
    assert cut.shape == (64, rows, columns, 3)
    seen = set()
    for image, crop in zip(np.asarray(whole), cut, strict=True):
        actual = windows(image, padding, rows, columns).items()
        corners = [corner for corner, window in actual if np.array_equal(window, crop)]
        assert corners
        seen.update(corners[:1])
    assert len(seen) > 4


def test_random_crop_reaches_every_corner_about_equally():
    """A 2 x 3 choice of corners, 6,000 draws: 1,000 each; 5 standard deviations are 145."""
    one = jnp.arange(12, dtype=jnp.float32).reshape(1, 3, 4, 1)
    cut = augment.random_crop(jnp.tile(one, (6000, 1, 1, 1)), KEY, size=2)
    values, counts = np.unique(np.asarray(cut[:, 0, 0, 0]), return_counts=True)
    np.testing.assert_array_equal(values, [0, 1, 2, 4, 5, 6])
    assert np.abs(counts - 1000).max() < 145


def test_random_crop_without_freedom_is_the_image():
    np.testing.assert_array_equal(augment.random_crop(images(), KEY), images())
    assert augment.random_crop(images().astype(jnp.uint8), KEY, 1).dtype == jnp.uint8


@pytest.mark.parametrize(
    ("padding", "size", "message"),
    [(-1, None, "padding -1"), (0, 6, "6x6 window does not fit"), (0, 0, "size 0")],
)
def test_random_crop_refuses_impossible_windows(padding, size, message):
    with pytest.raises(ValueError, match=message):
        augment.random_crop(images(), KEY, padding, size)


def test_central_crop_is_the_middle():
    whole = np.asarray(images(2, 32, 32, 3))
    np.testing.assert_array_equal(augment.central_crop(whole, 24), whole[:, 4:28, 4:28])
    np.testing.assert_array_equal(augment.central_crop(whole, 31), whole[:, :31, :31])
    for size in (0, 33):
        with pytest.raises(ValueError, match=f"central_crop: size {size}"):
            augment.central_crop(whole, size)


def test_random_flip_mirrors_about_half_of_the_images():
    """2,000 fair draws: 1,000 mirrored; 5 standard deviations are 112."""
    whole = np.asarray(images(2000, 3, 4, 1))
    flipped = np.asarray(augment.random_flip(jnp.asarray(whole), KEY))
    mirrored = (flipped == whole[:, :, ::-1]).all((1, 2, 3))
    kept = (flipped == whole).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert abs(int(mirrored.sum()) - 1000) < 112


def test_brightness_adds_one_uniform_number_per_image():
    """4,000 draws from [-63, 63): mean 0 and standard deviation 63 / sqrt(3), to 5 deviations."""
    zeros = jnp.zeros((4000, 2, 3, 2))
    added = np.asarray(augment.brightness(zeros, KEY))
    np.testing.assert_array_equal(added, np.broadcast_to(added[:, :1, :1, :1], added.shape))
    draws = added[:, 0, 0, 0]
    assert -63 <= draws.min() < -62
    assert 62 < draws.max() < 63
    assert abs(draws.mean()) < 5 * 63 / np.sqrt(3 * 4000)
    np.testing.assert_allclose(draws.std(), 63 / np.sqrt(3), rtol=0.05)
    shifted = augment.brightness(zeros + 100, KEY, 10)
    np.testing.assert_allclose(shifted - 100, added * (10 / 63), atol=1e-4)


def test_contrast_stretches_about_each_channels_mean():
    whole = np.asarray(images(4000, 2, 3, 2)) % 97
    stretched = np.asarray(augment.contrast(jnp.asarray(whole), KEY))
    mean = whole.mean((1, 2), keepdims=True)
    factors = (stretched - mean)[:, 0, 0, 0] / (whole - mean)[:, 0, 0, 0]
    expected = mean + factors[:, None, None, None] * (whole - mean)
    np.testing.assert_allclose(stretched, expected, atol=0.01)
    assert 0.19 < factors.min() < 0.22
    assert 1.78 < factors.max() < 1.81
    # Uniform on [0.2, 1.8): mean 1, standard deviation 1.6 / sqrt(12), over 4,000 draws.
    assert abs(factors.mean() - 1) < 5 * 1.6 / np.sqrt(12 * 4000)


def test_contrast_by_hand():
    """A factor of exactly 1/2 halves the distance to the mean of the channel."""
    whole = jnp.array([[0.0, 10.0], [4.0, 30.0]]).reshape(1, 2, 1, 2)
    halved = augment.contrast(whole, KEY, 0.5, 0.5)
    np.testing.assert_array_equal(halved.ravel(), [1.0, 15.0, 3.0, 25.0])


def test_per_image_standardise_by_hand():
    whole = np.random.default_rng(0).uniform(0, 255, (8, 24, 24, 3)).astype(np.float32)
    standard = np.asarray(augment.per_image_standardise(jnp.asarray(whole)))
    for image, result in zip(whole.astype(np.float64), standard, strict=True):
        np.testing.assert_allclose(result, (image - image.mean()) / image.std(), atol=1e-5)


def test_per_image_standardise_floors_the_deviation():
    """N = 4: deviation 0.25 lies below the floor 1/2, 0.75 above it; one colour gives zeros."""
    rows = [[1.0, 1.5, 1.0, 1.5], [0.0, 1.5, 0.0, 1.5], [7.0, 7.0, 7.0, 7.0]]
    standard = augment.per_image_standardise(jnp.array(rows).reshape(3, 2, 2, 1))
    expected = [[-0.5, 0.5, -0.5, 0.5], [-1.0, 1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    np.testing.assert_allclose(standard.reshape(3, 4), expected, atol=1e-6)


def pipeline(whole, key):
    """System A's recipe for training on CIFAR-10."""
    crop, flip, bright, stretch = jax.random.split(key, 4)
    whole = augment.random_flip(augment.random_crop(whole, crop, size=24), flip)
    whole = augment.contrast(augment.brightness(whole, bright), stretch)
    return augment.per_image_standardise(whole)


def test_the_recipe_runs_under_jit_and_depends_on_the_key_alone():
    whole = images(8, 32, 32, 3) % 256
    compiled = jax.jit(pipeline)
    first = np.asarray(compiled(whole, KEY))
    assert first.shape == (8, 24, 24, 3)
    np.testing.assert_allclose(first, pipeline(whole, KEY), atol=1e-5)
    np.testing.assert_array_equal(first, compiled(whole, KEY))
    assert np.abs(first - compiled(whole, jax.random.key(8))).max() > 0.1
    np.testing.assert_allclose(first.mean((1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(first.std((1, 2, 3)), 1, atol=1e-3)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: augment.random_crop(x, KEY, 1),
        lambda x: augment.random_flip(x, KEY),
        lambda x: augment.central_crop(x, 2),
        augment.per_image_standardise,
    ],
)
def test_a_single_image_is_refused(function):
    with pytest.raises(ValueError, match=r"takes images \[B, H, W, C\], not shape \(4, 4, 1\)"):
        function(jnp.zeros((4, 4, 1)))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: augment.brightness(x, KEY),
        lambda x: augment.contrast(x, KEY),
        augment.per_image_standardise,
    ],
)
def test_integers_are_refused_where_they_would_wrap_around(function):
    with pytest.raises(ValueError, match="float images, not uint8"):
        function(jnp.zeros((1, 4, 4, 1), jnp.uint8))


def test_senseless_ranges_are_refused():
    with pytest.raises(ValueError, match="delta -1"):
        augment.brightness(images(), KEY, -1)
    for lower, upper in ((1.8, 0.2), (-0.1, 1.0)):
        with pytest.raises(ValueError, match=f"factors {lower}"):
            augment.contrast(images(), KEY, lower, upper)


def test_pad_to_puts_the_image_in_the_middle_of_zeros():
    whole = np.asarray(images(2, 28, 27, 3))
    padded = np.asarray(augment.pad_to(whole, 32))
    np.testing.assert_array_equal(padded[:, 2:30, 2:29], whole)
    assert padded.shape == (2, 32, 32, 3)
    assert padded.sum() == whole.sum()
    # a side that is long enough stays
    assert augment.pad_to(whole, 27).shape == (2, 28, 27, 3)
    assert augment.pad_to(whole.astype(np.uint8), 32).dtype == jnp.uint8


turn = jax.jit(augment.rotate)


def angles(*degrees):
    return jnp.array(degrees, jnp.float32)


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 5), (1, 4)])
def test_no_turn_is_the_image_itself(height, width):
    whole = images(2, height, width)
    np.testing.assert_array_equal(turn(whole, angles(0, 0)), whole)


@pytest.mark.parametrize("side", [5, 6])
def test_quarter_turns_are_those_of_numpy(side):
    """Counter-clockwise, about the centre; each image by its own angle."""
    whole = images(4, side, side, 3) / 100
    turned = np.asarray(turn(whole, angles(90, 180, 270, -90)))
    for image, result, quarters in zip(np.asarray(whole), turned, (1, 2, 3, -1), strict=True):
        np.testing.assert_allclose(result, np.rot90(image, quarters), rtol=0, atol=1e-4)


def test_a_half_turn_of_an_oblong_image():
    whole = images(1, 3, 6, 2)
    turned = turn(whole, angles(180))
    np.testing.assert_allclose(turned, whole[:, ::-1, ::-1], rtol=0, atol=1e-3)


def test_half_a_right_angle_by_hand():
    """Three by three: a corner comes from sqrt(2) beside or above the centre, where the outermost
    pixel and the zero beyond it weigh 2 - sqrt(2) and sqrt(2) - 1; the middle of a side comes from
    sqrt(1/2) both ways, between four pixels.
    """
    image = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    turned = np.asarray(turn(jnp.asarray(image)[None, :, :, None], angles(45)))[0, ..., 0]
    assert turned[1, 1] == 5
    edge, near = 2 - np.sqrt(2), np.sqrt(0.5)
    # the upper right corner goes to the top, so the upper left one shows what was at the top
    corners = [turned[0, 0], turned[0, 2], turned[2, 2], turned[2, 0]]
    np.testing.assert_allclose(corners, edge * np.array([2.0, 6.0, 8.0, 4.0]), rtol=1e-5)
    far = 1 - near
    top = near * near * 3 + near * far * (2 + 6) + far * far * 5
    np.testing.assert_allclose(turned[0, 1], top, rtol=1e-5)


def test_a_plane_stays_a_plane():
    """Bilinear interpolation is exact on a plane: a row r that grows by 1 becomes, at an angle t,
    cos t times the row plus sin t times the column, where nothing comes from outside."""
    rows = np.arange(21.0) - 10
    whole = jnp.asarray(np.tile(rows[:, None], (1, 21)) + 50, jnp.float32)[None, :, :, None]
    turned = np.asarray(turn(whole, angles(30)))[0, 5:16, 5:16, 0]
    middle = rows[5:16]
    wanted = 50 + np.cos(np.pi / 6) * middle[:, None] + np.sin(np.pi / 6) * middle[None, :]
    np.testing.assert_allclose(turned, wanted, rtol=0, atol=1e-4)


def test_no_pixel_leaves_the_range():
    whole = jnp.asarray(np.random.default_rng(0).choice([0.0, 255.0], (20, 16, 16, 3)), jnp.float32)
    turned = np.asarray(turn(whole, jnp.linspace(0, 350, 20)))
    assert turned.min() >= 0
    assert turned.max() <= 255.001


def test_random_rotation_draws_angles_up_to_its_own():
    """A bright pixel 20 to the right of the centre shows the angle; 1,000 draws from [0, 30):
    mean 15 and standard deviation 30 / sqrt(12), to 5 deviations."""
    dot = jnp.zeros((1, 41, 41, 1)).at[0, 20, 40, 0].set(1)
    turned = jax.jit(augment.random_rotation, static_argnums=2)(
        jnp.tile(dot, (1000, 1, 1, 1)), KEY, 30
    )
    turned = np.asarray(turned)[..., 0]
    up, right = 20 - np.arange(41)[:, None], np.arange(41)[None, :] - 20
    total = turned.sum((1, 2))
    up, right = ((turned * part).sum((1, 2)) / total for part in (up, right))
    drawn = np.rad2deg(np.arctan2(up, right))  # counter-clockwise: upwards
    assert -1 < drawn.min() < 1
    assert 29 < drawn.max() < 31
    assert abs(drawn.mean() - 15) < 5 * 30 / np.sqrt(12 * 1000)
    assert drawn.std() == pytest.approx(30 / np.sqrt(12), rel=0.07)


def test_random_rotation_depends_on_the_key_alone_and_compiles_once():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def drawn(whole, key):
        return augment.random_rotation(whole, key, 30)

    first, again, other = (drawn(images(), jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(first - other)).max() > 1
    np.testing.assert_allclose(
        first, augment.random_rotation(images(), jax.random.key(1), 30), 1e-3
    )


def test_turns_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="degrees -30 must not be negative"):
        augment.random_rotation(images(), KEY, -30)
    with pytest.raises(ValueError, match=r"angles of shape \(1,\) for 64 images"):
        turn(images(), angles(30))
    for function in (lambda x: augment.random_rotation(x, KEY, 30), lambda x: augment.pad_to(x, 9)):
        with pytest.raises(ValueError, match=r"not shape \(4, 4, 1\)"):
            function(jnp.zeros((4, 4, 1)))
    with pytest.raises(ValueError, match="float images, not uint8"):
        augment.random_rotation(jnp.zeros((1, 4, 4, 1), jnp.uint8), KEY, 30)
