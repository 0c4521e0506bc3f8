"""Quantisers with a learned clip: values and gradients by hand, in fractions and in NumPy loops."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref

from jaxsnn.network import weight_quantisers
from jaxsnn.neurons import levels

BITS = (2, 3, 4, 5)


def test_check_1_levels_are_time_steps():
    assert [levels.levels(bits) for bits in BITS] == [3, 7, 15, 31]


@pytest.mark.parametrize("bits", [-1, 0, 1, 6, 8, 32])
def test_check_1_other_widths_are_refused(bits):
    for function in (
        levels.levels,
        weight_quantisers.magnitudes,
        weight_quantisers.whole_magnitudes,
        lambda bits: weight_quantisers.clipped_levels(bits=bits),
        lambda bits: levels.clip_level(jnp.zeros(2), jnp.float32(1), bits),
    ):
        with pytest.raises(ValueError, match=f"bits={bits}.* 2, 3, 4, 5 bits"):
            function(bits)


@pytest.mark.parametrize("bits", BITS)
def test_check_2_level_sets(bits):
    expected = [Fraction(text) for text in ref.MAGNITUDES[bits].split()]
    assert list(weight_quantisers.magnitudes(bits)) == expected
    assert len(expected) == {2: 2, 3: 4, 4: 8, 5: 16}[bits]
    # From the construction: sums of one number of each set over the largest sum.
    terms = {
        2: [(0, 1)],
        3: [(0, 8, 4, 2)],
        4: [(0, 8, 4, 1), (0, 2)],
        5: [(0, 32, 8, 2), (0, 16, 4, 1)],
    }[bits]
    sums = {a + b for a in terms[0] for b in (terms[1] if len(terms) > 1 else (0,))}
    assert {Fraction(one, max(sums)) for one in sums} == set(expected)


@pytest.mark.parametrize("bits", BITS)
def test_whole_magnitudes_are_the_same_in_smallest_whole_numbers(bits):
    whole = weight_quantisers.whole_magnitudes(bits)
    assert [Fraction(one, whole[-1]) for one in whole] == list(weight_quantisers.magnitudes(bits))
    assert np.gcd.reduce(whole) == 1
    assert whole[-1] <= 127  # int8


# ---------------------------------------------------------------- activations


def test_check_3_values_and_gradients_by_hand():
    x = jnp.array([-1.0, 0.3, 0.34, 1.0, 1.7, 2.5])
    out, back = jax.vjp(lambda x, clip: levels.clip_quantise(x, clip, 2), x, jnp.float32(2))
    np.testing.assert_allclose(out, [0, 0, 2 / 3, 4 / 3, 2, 2], rtol=1e-6)
    to_x, to_clip = back(jnp.ones(6))
    assert to_x.tolist() == [0, 1, 1, 1, 1, 0]
    # Shares .15 .17 .5 .85, levels 0 1/3 2/3 1 (1.5 goes to the even 2), and 1 above the clip.
    assert float(to_clip) == pytest.approx(
        -0.15 + (1 / 3 - 0.17) + (2 / 3 - 0.5) + 0.15 + 1, rel=1e-5
    )
    assert float(to_clip) == pytest.approx(1.33, rel=1e-5)


def test_the_ends_of_the_range_by_hand():
    # 0 gets no gradient; x = clip gets it, and the clip none; just above it is the other way round.
    above = np.nextafter(np.float32(4), np.float32(5))
    x = jnp.array([0.0, -0.0, 4.0, above])
    out, back = jax.vjp(lambda x, clip: levels.clip_quantise(x, clip, 3), x, jnp.float32(4))
    assert out.tolist() == [0, 0, 4, 4]
    to_x, to_clip = back(jnp.array([1.0, 1.0, 2.0, 8.0]))
    assert to_x.tolist() == [0, 0, 2, 0]
    assert float(to_clip) == 8


@pytest.mark.parametrize("bits", BITS)
def test_check_3_random_gradients_against_the_formula(bits):
    rng = np.random.default_rng(bits)
    x, upstream = (rng.normal(size=(50, 7)).astype(np.float32) * 2 for _ in range(2))
    clip = np.float32(rng.uniform(0.5, 3))
    out, back = jax.vjp(
        lambda x, clip: levels.clip_quantise(x, clip, bits), jnp.asarray(x), jnp.asarray(clip)
    )
    level = ref.clipped_level(x, float(clip), bits)
    np.testing.assert_allclose(out, clip * level / (2**bits - 1), rtol=1e-6)
    share = x.astype(np.float64) / clip
    above, inside = share > 1, (share > 0) & (share <= 1)
    assert above.any()
    to_x, to_clip = back(jnp.asarray(upstream))
    np.testing.assert_array_equal(to_x, upstream * inside)
    slope = np.where(inside, level / (2**bits - 1) - share, above)
    assert float(to_clip) == pytest.approx(float(np.sum(upstream * slope)), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("bits", BITS)
def test_check_6_values_are_few_multiples_of_one_step(bits):
    x = np.random.default_rng(0).normal(1, 2, 20_000).astype(np.float32)
    actual = np.unique(levels.clip_quantise(jnp.asarray(x), jnp.float32(2.5), bits))
    assert len(actual) == 2**bits
    steps = actual / (2.5 / (2**bits - 1))
    np.testing.assert_allclose(steps, np.arange(2**bits), rtol=1e-6)


@pytest.mark.parametrize("ties", ["even", "up"])
@pytest.mark.parametrize("bits", BITS)
def test_ties_go_to_the_even_level_or_up(bits, ties):
    highest = 2**bits - 1
    clip = np.float32(highest)  # a step of 1: halves are ties
    halves = np.arange(highest, dtype=np.float32) + np.float32(0.5)
    # XLA multiplies by 1 / clip, so that float32 misses some of these halves: they are no ties.
    tie = np.asarray(jnp.asarray(halves) / jnp.asarray(clip) * highest) == halves
    assert tie.sum() > highest / 3
    actual = levels.clip_level(jnp.asarray(halves), jnp.asarray(clip), bits, ties)
    below = np.arange(highest)
    even = below + below % 2
    np.testing.assert_array_equal(actual[tie], (even if ties == "even" else below + 1)[tie])


def test_just_below_a_half_never_goes_up():
    # The middle of two levels is no float at 2 bits and a clip of 1; what is below it stays there.
    x = np.linspace(0, 1, 4001).astype(np.float32)
    scaled = x * np.float32(3)
    actual = levels.clip_level(jnp.asarray(x), jnp.float32(1), 2, "up")
    expected = (scaled[:, None] >= np.array([0.5, 1.5, 2.5])).sum(1)
    np.testing.assert_array_equal(actual, expected)


# ---------------------------------------------------------------- weights


def test_check_4_values_and_gradients_by_hand():
    weights = jnp.array([-4.0, -2.0, -0.9, 0.2, 1.0, 3.5])
    out, back = jax.vjp(
        lambda w, clip: weight_quantisers.project(w, clip, 3), weights, jnp.float32(3)
    )
    np.testing.assert_allclose(out, [-3, -1.5, -0.75, 0, 0.75, 3], rtol=1e-6)
    to_weights, to_clip = back(jnp.ones(6))
    assert to_weights.tolist() == [1] * 6  # those beyond the clip, too
    # -1 and 1 of the clipped ones, then q - v: 1/6, 1/20, -1/15, -1/12.
    assert float(to_clip) == pytest.approx(1 / 6 + 1 / 20 - 1 / 15 - 1 / 12, abs=1e-6)
    assert float(to_clip) == pytest.approx(0.066667, abs=1e-6)


@pytest.mark.parametrize(
    ("bits", "ties"), [(2, [1 / 2]), (3, [1 / 8, 3 / 8, 3 / 4]), (5, [11 / 32 + 1 / 96 / 2])]
)
def test_a_weight_in_the_middle_takes_the_smaller_magnitude(bits, ties):
    table = [float(Fraction(text)) for text in ref.MAGNITUDES[bits].split()]
    for tie in ties:
        smaller = max(one for one in table if one < tie)
        larger = min(one for one in table if one > tie)
        if bits != 5:
            assert smaller + larger == 2 * tie
            shares = np.float32([tie, -tie])
            assert weight_quantisers.project(
                jnp.asarray(shares), jnp.float32(1), bits
            ).tolist() == [
                smaller,
                -smaller,
            ]
        above = np.float32((smaller + larger) / 2 + 1e-6)
        actual = weight_quantisers.project(jnp.array([above, -above]), jnp.float32(1), bits)
        np.testing.assert_allclose(actual, [larger, -larger], rtol=1e-6)
        below = np.float32((smaller + larger) / 2 - 1e-6)
        actual = weight_quantisers.project(jnp.array([below, -below]), jnp.float32(1), bits)
        np.testing.assert_allclose(actual, [smaller, -smaller], rtol=1e-6)


@pytest.mark.parametrize("bits", BITS)
def test_every_weight_takes_the_nearest_level(bits):
    rng = np.random.default_rng(bits)
    weights, clip = rng.normal(size=3000).astype(np.float32) * 2, np.float32(2.25)
    actual = weight_quantisers.project(jnp.asarray(weights), jnp.asarray(clip), bits)
    expected = float(clip) * ref.weight_shares(weights / np.float64(clip), bits)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)
    upstream = rng.normal(size=3000).astype(np.float32)
    slope = jax.grad(
        lambda clip: jnp.sum(upstream * weight_quantisers.project(jnp.asarray(weights), clip, bits))
    )(jnp.asarray(clip))
    shares = weights / np.float64(clip)
    gradient = np.where(np.abs(shares) > 1, np.sign(shares), expected / clip - shares)
    assert float(slope) == pytest.approx(float(np.sum(upstream * gradient)), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("bits", BITS)
def test_check_5_a_layer_has_few_values(bits):
    kernel = np.random.default_rng(1).normal(0.3, 2, (3, 3, 20, 30)).astype(np.float32)
    quantiser = weight_quantisers.clipped_levels(bits=bits)
    used = np.asarray(quantiser.quantise(jnp.asarray(kernel), {"kernel_clip": jnp.float32(3)}))
    actual = np.unique(used)
    assert len(actual) <= {2: 3, 3: 7, 4: 15, 5: 31}[bits]
    assert actual.min() == -3
    assert actual.max() == 3
    if bits == 2:
        assert actual.tolist() == [-3, 0, 3]
    np.testing.assert_allclose(used, ref.clipped_kernel(kernel, 3.0, bits), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bits", BITS)
def test_codes_times_their_unit_are_the_kernel(bits):
    kernel = jnp.asarray(np.random.default_rng(2).normal(size=(40, 30)), jnp.float32)
    leaves = {"kernel_clip": jnp.float32(1.7)}
    quantiser = weight_quantisers.clipped_levels(bits=bits)
    codes, unit = quantiser.codes(kernel, leaves)
    codes = np.asarray(codes)
    assert set(np.abs(codes).ravel().tolist()) <= set(weight_quantisers.whole_magnitudes(bits))
    np.testing.assert_allclose(codes * unit, quantiser.quantise(kernel, leaves), rtol=1e-6)


def test_mean_and_deviation_are_constants_for_the_gradient():
    rng = np.random.default_rng(3)
    kernel, upstream = (rng.normal(0.2, 0.7, (5, 6)).astype(np.float32) for _ in range(2))
    deviation = np.asarray(kernel, np.float64).std(ddof=1)
    np.testing.assert_allclose(
        weight_quantisers.standardised(jnp.asarray(kernel)),
        ref.standardised(kernel),
        rtol=1e-5,
        atol=1e-6,
    )
    quantiser = weight_quantisers.clipped_levels(bits=3)
    used, back = jax.vjp(quantiser.quantise, jnp.asarray(kernel), {"kernel_clip": jnp.float32(1)})
    to_kernel, to_leaves = back(jnp.asarray(upstream))
    np.testing.assert_allclose(to_kernel, upstream / deviation, rtol=1e-5)
    shares = ref.standardised(kernel)
    slope = np.where(np.abs(shares) > 1, np.sign(shares), ref.weight_shares(shares, 3) - shares)
    assert float(to_leaves["kernel_clip"]) == pytest.approx(
        float(np.sum(upstream * slope)), rel=1e-4
    )
    assert np.abs(used).max() == 1


def test_a_kernel_without_spread_is_zero_and_finite():
    for kernel in (jnp.zeros((3, 4)), jnp.full((3, 4), 0.5)):
        used, back = jax.vjp(
            lambda k: weight_quantisers.clipped_levels(bits=3).quantise(
                k, {"kernel_clip": jnp.float32(3)}
            ),
            kernel,
        )
        assert not used.any()
        assert np.isfinite(back(jnp.ones((3, 4)))[0]).all()


def test_the_weights_clip_is_learned_and_starts_at_three():
    assert float(weight_quantisers.clipped_levels(bits=3).learned()["kernel_clip"]) == 3
    assert float(weight_quantisers.clipped_levels(bits=3, clip=2.0).learned()["kernel_clip"]) == 2
    assert weight_quantisers.clipped_levels(bits=3) is weight_quantisers.clipped_levels(bits=3)
    assert weight_quantisers.clipped_levels(bits=3) is not weight_quantisers.clipped_levels(bits=4)


@pytest.mark.parametrize(
    "quantiser",
    [weight_quantisers.clipped_levels(bits=4, clip=2.0), weight_quantisers.symmetric(bits=6)],
)
def test_name_and_options_rebuild_a_weight_quantiser(quantiser):
    assert weight_quantisers.WEIGHTS[quantiser.name](**dict(quantiser.options)) is quantiser


@pytest.mark.parametrize("flip", [1, -1])
def test_symmetric_scales_by_the_largest_magnitude(flip):
    kernel = np.random.default_rng(4).normal(size=(9, 11)).astype(np.float32)
    kernel[2, 3] = 5.0
    kernel *= flip  # the largest magnitude is a negative weight, too
    quantiser = weight_quantisers.symmetric(bits=8)
    used, back = jax.vjp(lambda k: quantiser.quantise(k, {}), jnp.asarray(kernel))
    np.testing.assert_allclose(used, ref.symmetric_kernel(kernel), rtol=1e-5, atol=1e-7)
    upstream = jnp.asarray(np.random.default_rng(5).normal(size=kernel.shape), jnp.float32)
    np.testing.assert_array_equal(back(upstream)[0], upstream)
    codes, unit = quantiser.codes(jnp.asarray(kernel), {})
    assert np.abs(codes).max() == 127
    assert int(codes[2, 3]) == 127 * flip
    assert unit == pytest.approx(5 / 127)
    assert quantiser.learned() == {}


def test_symmetric_of_zeros_and_of_few_bits():
    quantiser = weight_quantisers.symmetric(bits=8)
    assert not quantiser.quantise(jnp.zeros((2, 3)), {}).any()
    assert not quantiser.codes(jnp.zeros((2, 3)), {})[0].any()
    actual = weight_quantisers.symmetric(bits=3).quantise(jnp.array([3.0, -1.4, 0.4, 1.6]), {})
    np.testing.assert_allclose(actual, [3, -1, 0, 2], rtol=1e-6)
    for bits in (1, 17):
        with pytest.raises(ValueError, match=f"bits={bits}"):
            weight_quantisers.symmetric(bits=bits)
