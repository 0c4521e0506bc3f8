"""The reference simulators against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref

VALID = ((0, 0), (0, 0))
SAME3 = ((1, 1), (1, 1))


def conv(kernel, stride=1, padding=VALID, **norm):
    return {"kind": "conv", "kernel": kernel, "stride": stride, "padding": padding, **norm}


def dense(kernel, **rest):
    return {"kind": "dense", "kernel": np.asarray(kernel), **rest}


def unit_norm(channels, offset=0.0, scale=1.0):
    return {
        "scale": np.full(channels, scale),
        "offset": np.full(channels, offset),
        "mean": np.zeros(channels),
        "var": np.ones(channels),
    }


# ---------------------------------------------------------------- building blocks


def test_conv2d_against_a_sum_written_out():
    # 3x3 input 1..9, kernel [[1, 2], [3, 4]], no flip: top left 1*1 + 2*2 + 3*4 + 4*5 = 37;
    # one column to the right adds 1+2+3+4 = 10, one row down 30.
    x = np.arange(1, 10).reshape(1, 3, 3, 1)
    w = np.array([[1, 2], [3, 4]]).reshape(2, 2, 1, 1)
    out = ref.conv2d(x, w)
    assert out.dtype == np.int64
    assert out[0, :, :, 0].tolist() == [[37, 47], [67, 77]]
    # Stride 2 with one row and column of zeros at the end: windows (1 2 4 5), (3 0 6 0),
    # (7 8 0 0) and (9 0 0 0).
    assert ref.conv2d(x, w, 2, ((0, 1), (0, 1)))[0, :, :, 0].tolist() == [[37, 21], [23, 9]]


def test_conv2d_sums_over_input_channels_and_keeps_output_channels_apart():
    x = np.array([2.0, 3.0]).reshape(1, 1, 1, 2)
    w = np.array([[1.0, 10.0], [0.5, -1.0]]).reshape(1, 1, 2, 2)
    assert ref.conv2d(x, w).ravel().tolist() == [3.5, 17.0]
    with pytest.raises(ValueError, match="3 channels"):
        ref.conv2d(np.zeros((1, 2, 2, 3)), w)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (28, 5, 1, (2, 2)),
        (28, 2, 1, (0, 1)),
        (24, 2, 2, (0, 0)),
        (7, 3, 2, (1, 1)),
        (8, 3, 2, (0, 1)),
        (5, 1, 3, (0, 0)),
    ],
)
def test_same_padding_follows_tensorflow(size, kernel, stride, expected):
    assert ref.same_padding(size, kernel, stride) == expected


def test_check_1_quantiser():
    x = np.array([-1, 0.24, 0.25, 0.74, 0.75, 1.75, 1.9, 5])
    assert (ref.median_level(x, 1, 2) * 0.5).tolist() == [0, 0, 0.5, 0.5, 1, 2, 2, 2]
    assert ref.median_level(np.array([0.5, 1.5, 2.5, 7.2]), 0, None).tolist() == [1, 2, 3, 7]
    # The float just below a boundary stays below it; floor(x + 0.5) would round it up.
    assert ref.median_level(np.nextafter(np.array([0.5, 1.5]), 0), 0, None).tolist() == [0, 1]
    with pytest.raises(ValueError, match="finite"):
        ref.median_level(np.array([np.inf]), 0, None)


def test_check_3_ternary():
    # Mean |w| = 2.4 / 4 = 0.6, limit 0.42.
    assert ref.ternary(np.array([1, -1, 0.2, -0.2])).tolist() == [1, -1, 0, 0]
    # Mean 1, limit 0.7; one half stays 0, 1.5 does not.
    assert ref.ternary(np.array([1.5, -0.5, 0.5, -1.5])).tolist() == [1, 0, 0, -1]


def test_batch_norm_by_hand():
    # 3 (5 - 1) / sqrt(3.75 + 0.25) - 2 = 4.
    assert ref.batch_norm(np.array([5.0]), 3.0, -2.0, 1.0, 3.75, 0.25).tolist() == [4.0]


# ---------------------------------------------------------------- folding, scatter-gather


def test_fold_by_hand():
    # k = 1, bound 1, var = 4, eps = 0. Channels: scale 2, -2, 0; mean 3; offset 0.5.
    # Channel 0: s = 1, theta_j = (j - 1/2) + 2 (3 - 0.5) = 5.5, 6.5.
    # Channel 1, flipped (scale 2, mean -3): (j - 1/2) + 2 (-3 - 0.5) = -6.5, -5.5.
    # Channel 2: constant, 0.5 >= 0.25 and 0.5 < 0.75, so level 1.
    layer = dense(
        [[1.0, 1.0, 1.0]],
        scale=np.array([2.0, -2.0, 0.0]),
        offset=np.full(3, 0.5),
        mean=np.full(3, 3.0),
        var=np.full(3, 4.0),
    )
    folded = ref.fold(layer, 1, 1, eps=0.0)
    assert folded["thresholds"].tolist() == [[5.5, -6.5, -np.inf], [6.5, -5.5, np.inf]]
    assert folded["kernel"].tolist() == [[1.0, -1.0, 1.0]]


NETWORKS = [
    ({}, 1, 2),
    ({"dyadic": False}, 1, 2),
    ({"dyadic": False, "ternary": False}, 2, 1),
    ({"dyadic": False, "gammas": "mixed"}, 0, 2),
    ({"dyadic": False, "gammas": "with_zero", "ternary": False}, 1, 4),
    ({"gammas": "mixed"}, 2, 2),
    ({"gammas": "with_zero"}, 1, 1),
    ({"convs": ((4, 5, 1, "same"), (5, 3, 2, "same"), (6, 4, 1, "valid")), "dense": ()}, 1, 2),
]


@pytest.mark.parametrize(("options", "k", "bound"), NETWORKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_check_6_one_step_of_units_equals_the_quantised_ann(options, k, bound, seed):
    rng = np.random.default_rng(seed)
    layers = ref.random_network(rng, k=k, bound=bound, **options)
    images = ref.random_images(rng, 16, (8, 8, 2))
    # Dyadic values and eps 0: exact, ties included. Otherwise ties have probability zero.
    eps = 0.0 if options.get("dyadic", True) else 1e-5
    levels, logits = ref.quantised_ann(layers, images, k, bound, eps)
    result = ref.scatter_gather(layers, images, k, bound, eps=eps)
    for level, count in zip(levels, result.counts, strict=True):
        assert len(np.unique(level)) > 1  # the layer is neither silent nor saturated
        np.testing.assert_array_equal(count, level)
    np.testing.assert_allclose(result.logits, 2**k * logits, rtol=1e-12, atol=1e-12)
    assert (result.logits.argmax(1) == logits.argmax(1)).all()
    assert result.spikes.tolist() == [[int(one.sum()) for one in level] for level in levels]


def test_biases_are_folded_and_scaled():
    rng = np.random.default_rng(2)
    layers = ref.random_network(rng, gammas="mixed", k=2)
    for layer in layers:
        layer["bias"] = rng.integers(-16, 17, layer["kernel"].shape[-1]) / 32
    images = ref.random_images(rng, 16, (8, 8, 2))
    levels, logits = ref.quantised_ann(layers, images, 2, 2, 0.0)
    result = ref.scatter_gather(layers, images, 2, 2, eps=0.0)
    assert all((a == b).all() for a, b in zip(levels, result.counts, strict=True))
    np.testing.assert_array_equal(result.logits, 4 * logits)


def test_dyadic_networks_do_meet_ties():
    rng = np.random.default_rng(0)
    layers = ref.random_network(rng)
    result = ref.scatter_gather(layers, ref.random_images(rng, 16, (8, 8, 2)), 1, 2, eps=0.0)
    ties = 0
    for layer, potential in zip(layers[:-1], result.potentials, strict=True):
        thresholds = ref.fold(layer, 1, 2, eps=0.0)["thresholds"]
        ties += sum(int((potential == theta).sum()) for theta in thresholds)
    assert ties > 10


def test_check_12_negative_scale_needs_the_flip():
    rng = np.random.default_rng(3)
    layers = ref.random_network(rng, gammas="mixed", dyadic=False)
    images = ref.random_images(rng, 16, (8, 8, 2))
    levels, _ = ref.quantised_ann(layers, images, 1, 2)
    flipped = ref.scatter_gather(layers, images, 1, 2)
    plain = ref.scatter_gather(layers, images, 1, 2, flip=False)
    assert all((a == b).all() for a, b in zip(levels, flipped.counts, strict=True))
    wrong = plain.counts[0] != levels[0]
    assert wrong[..., 1::2].any()  # the negative channels
    assert not wrong[..., 0::2].any()  # the others need no flip


def test_zero_scale_is_a_constant_level():
    rng = np.random.default_rng(4)
    layers = ref.random_network(rng, gammas="with_zero")
    result = ref.scatter_gather(layers, ref.random_images(rng, 4, (8, 8, 2)), 1, 2)
    # Offset 0.75 = (2 - 1/2) / 2 lies on the boundary of level 2, which it reaches.
    assert all((count[..., 0] == 2).all() for count in result.counts)


def test_scatter_gather_totals_by_hand():
    # One pixel of value 1, k = 1, bound 2: four units with thresholds 0.5, 1.5, 2.5, 3.5 (norm is
    # the identity), input 2. Channel 0 has weight 1: u = 2, two units fire. Channel 1 has weight
    # 2: u = 4, four fire. Next layer: weights (1, -1) and (1, 1): u = -2 and 6, so 0 and 4 fire.
    # Readout (5, 0.25): 1.0. Operations: 6 spikes meet 2 weights each = 12; on the chip * 2 * 4.
    layers = [
        conv(np.array([1.0, 2.0]).reshape(1, 1, 1, 2), **unit_norm(2)),
        dense(np.array([[1, 1], [-1, 1]]), **unit_norm(2)),
        dense([[5.0], [0.25]]),
    ]
    result = ref.scatter_gather(layers, np.ones((1, 1, 1, 1)), 1, 2, eps=0.0)
    assert [count.ravel().tolist() for count in result.counts] == [[2, 4], [0, 4]]
    assert result.spikes.tolist() == [[6], [4]]
    assert result.logits.tolist() == [[1.0]]
    assert result.sops.tolist() == [12]
    assert result.chip_sops.tolist() == [96]
    # Delete units 0 and 1 of channel 1: 2 + 2 spikes, u = 0 and 4, counts (0, 4).
    drop = np.zeros((1, 1, 1, 2, 4), bool)
    drop[..., 1, :2] = True
    noisy = ref.scatter_gather(layers, np.ones((1, 1, 1, 1)), 1, 2, drop, eps=0.0)
    assert [count.ravel().tolist() for count in noisy.counts] == [[2, 2], [0, 4]]
    assert noisy.chip_sops.tolist() == [64]


def test_totals_of_lenet_when_every_unit_fires():
    # 26,880 neurons with 4 units each; in an all-VALID stack every multiply-accumulate of the
    # spec's 4,852,224 less the readout's 2,560 happens once per unit.
    shapes = [
        (5, 1, 16, 1),
        (5, 16, 16, 1),
        (2, 16, 16, 2),
        (5, 16, 32, 1),
        (2, 32, 32, 2),
        (4, 32, 256, 1),
    ]
    rng = np.random.default_rng(0)
    layers = []
    for index, (size, inputs, outputs, stride) in enumerate(shapes):
        kernel = ref.ternary(rng.normal(size=(size, size, inputs, outputs)))
        padding = ((2, 2), (2, 2)) if index == 0 else VALID
        layers.append(conv(kernel, stride, padding, **unit_norm(outputs, offset=1e6)))
    layers.append(dense(rng.normal(size=(256, 10))))
    result = ref.scatter_gather(layers, ref.random_images(rng, 1, (28, 28, 1)), 1, 2)
    assert result.spikes.sum() == 4 * 26_880
    assert result.sops.tolist() == [4 * (4_852_224 - 2_560)]
    assert result.chip_sops.tolist() == [32 * (4_852_224 - 2_560)]


def test_check_13_synaptic_operations():
    def cost(layer, shape, position):
        spikes = np.zeros((1, *shape), np.int64)
        spikes[(0, *position)] = -1  # a negative spike costs the same
        return ref.sops(spikes, layer).tolist()

    same = conv(np.zeros((3, 3, 2, 7)), padding=SAME3)
    assert cost(same, (6, 6, 2), (2, 3, 1)) == [9 * 7]
    assert cost(same, (6, 6, 2), (0, 5, 0)) == [4 * 7]
    assert cost(same, (6, 6, 2), (0, 3, 0)) == [6 * 7]
    pool = conv(np.zeros((2, 2, 3, 3)), stride=2)
    assert cost(pool, (4, 4, 3), (3, 2, 1)) == [3]
    assert cost(pool, (5, 5, 3), (4, 4, 0)) == [0]  # no window reaches the last row
    assert cost(dense(np.zeros((12, 10))), (2, 2, 3), (1, 1, 2)) == [10]


@pytest.mark.parametrize("ratio", [0.1, 0.2, 1.0])
def test_check_14_noise_deletes_encoder_spikes(ratio):
    rng = np.random.default_rng(5)
    layers = ref.random_network(rng, (16, 16, 1), ((16, 3, 1, "same"),), ())
    images = ref.random_images(rng, 32, (16, 16, 1))
    drop = rng.random((32, 16, 16, 16, 4)) < ratio
    clean = ref.scatter_gather(layers, images, 1, 2).spikes[0].sum()
    noisy = ref.scatter_gather(layers, images, 1, 2, drop).spikes[0].sum()
    assert clean > 50_000
    if ratio == 1.0:
        assert noisy == 0
    else:
        assert noisy / clean == pytest.approx(1 - ratio, rel=0.01)


# ---------------------------------------------------------------- integrate and fire

ONE = np.ones((1, 1, 1, 1))
IDENTITY = dense([[1.0]])


def flat(values):
    return np.asarray(values).ravel().tolist()


def test_unsigned_trajectory():
    # Drive 3/8, threshold 1, V(0) = 1/2: 0.875; 1.25 fires -> 0.25; 0.625; 1.0 fires (>=) -> 0;
    # 0.375. Two spikes = floor(1/2 + 5 * 3/8).
    trace = ref.integrate_and_fire([dense([[0.375]]), IDENTITY], ONE, 5, initial=0.5)
    assert flat(trace.spikes[0]) == [0, 1, 0, 1, 0]
    assert flat(trace.potentials[0]) == [0.875, 0.25, 0.625, 0.0, 0.375]
    assert flat(trace.readout) == [0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("options", "spikes", "last"),
    [
        # V: 1.25 fires -> .25; .75; -.5 with count 1 retracts -> .5; -.5 with count 0 does not;
        # 1.0 fires -> 0; then V = 0 is above -1e-3.
        ({"signed": True}, [1, 0, -1, 0, 1, 0, 0], 0.0),
        # A lower threshold of 0, inclusive: V = 0 with count 1 retracts -> 1, which fires -> 0.
        ({"signed": True, "negative_threshold": 0.0}, [1, 0, -1, 0, 1, -1, 1], 0.0),
        # Strict: V = 0 is not below 0.
        (
            {"signed": True, "negative_threshold": 0.0, "negative_compare": np.less},
            [1, 0, -1, 0, 1, 0, 0],
            0.0,
        ),
        # Unsigned: .25, .75, -.5, -1.5, 0, 0, 0.
        ({}, [1, 0, 0, 0, 0, 0, 0], 0.0),
    ],
)
def test_signed_trajectory(options, spikes, last):
    layer = dense([[0.0]], bias=np.ones(1))
    drive = [0.75, 0.5, -1.25, -1.0, 1.5, 0.0, 0.0]
    trace = ref.integrate_and_fire(
        [layer, IDENTITY], ONE, 7, initial=0.5, bias_gate=drive, **options
    )
    assert flat(trace.spikes[0]) == spikes
    assert flat(trace.potentials[0])[-1] == last


def test_delay_of_one_step_per_layer():
    # The first layer fires in every step; the second gets 1/2 per spike and fires on every second
    # one; the readout gets 3 per spike. A delay hides the first step of each from its consumer.
    layers = [dense([[1.0]]), dense([[0.5]]), dense([[3.0]])]
    prompt = ref.integrate_and_fire(layers, ONE, 4)
    assert [flat(s) for s in prompt.spikes] == [[1, 1, 1, 1], [0, 1, 0, 1]]
    assert flat(prompt.readout) == [0, 3, 0, 3]
    late = ref.integrate_and_fire(layers, ONE, 4, delay=1)
    assert [flat(s) for s in late.spikes] == [[1, 1, 1, 1], [0, 0, 1, 0]]
    assert flat(late.readout) == [0, 0, 0, 3]


def test_onset_input_is_paid_out_and_then_silent():
    # 1.25 once, threshold 0.5: 1.25 -> .75, .75 -> .25, then nothing. Each spike is worth 0.5.
    trace = ref.integrate_and_fire(
        [dense([[1.25]]), IDENTITY], ONE, 4, onset=True, threshold=0.5, amplitude=0.5
    )
    assert flat(trace.spikes[0]) == [1, 1, 0, 0]
    assert flat(trace.potentials[0]) == [0.75, 0.25, 0.25, 0.25]
    assert flat(trace.readout) == [0.5, 0.5, 0, 0]


def test_norm_acts_in_every_step_and_its_offset_obeys_the_gate():
    # Norm 2 (z - 1) / 2 + 1.5 = z + 0.5 with z = 0.25; the constant 0.5 is off in step 2.
    layer = dense(
        [[0.25]],
        scale=np.full(1, 2.0),
        offset=np.full(1, 1.5),
        mean=np.ones(1),
        var=np.full(1, 4.0),
    )
    trace = ref.integrate_and_fire(
        [layer, IDENTITY], ONE, 3, threshold=10.0, eps=0.0, bias_gate=[1, 0, 1]
    )
    assert flat(trace.potentials[0]) == [0.75, 1.0, 1.75]


def test_thresholds_per_layer_and_their_check():
    layers = [dense([[1.0]]), dense([[1.0]]), IDENTITY]
    trace = ref.integrate_and_fire(layers, ONE, 4, threshold=[1.0, 2.0], initial=[0.0, 1.0])
    assert [flat(s) for s in trace.spikes] == [[1, 1, 1, 1], [1, 0, 1, 0]]
    with pytest.raises(ValueError, match="below threshold"):
        ref.integrate_and_fire(layers, ONE, 1, negative_threshold=2.0)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("k", "bound"), [(0, 1), (0, 4), (1, 2), (2, 2)])
def test_constant_input_for_as_many_steps_as_levels_equals_the_quantiser(signed, k, bound):
    # n = clip(floor(1/2 + T z / theta), 0, T); with theta = bound, T = 2^k bound this is the level.
    # Dyadic drives on the grid 1/32 from -1 to bound + 1 meet every boundary exactly.
    z = np.arange(-32, 32 * (bound + 1) + 1) / 32
    steps = bound * 2**k
    layers = [conv(np.ones((1, 1, 1, 1))), dense(np.ones((z.size, 1)))]
    trace = ref.integrate_and_fire(
        layers,
        z.reshape(1, -1, 1, 1),
        steps,
        signed=signed,
        threshold=float(bound),
        initial=bound / 2,
    )
    counts = trace.spikes[0].sum(0).ravel()
    assert set(counts) == set(range(steps + 1))
    np.testing.assert_array_equal(counts, ref.median_level(z, k, bound))


# ---------------------------------------------------------------- random networks


def test_random_network_is_what_it_says():
    layers = ref.random_network(np.random.default_rng(0), gammas="mixed")
    assert [layer["name"] for layer in layers] == ["conv1", "conv2", "dense1", "readout"]
    assert [layer["kernel"].shape for layer in layers] == [
        (3, 3, 2, 6),
        (2, 2, 6, 8),
        (128, 12),
        (12, 5),
    ]
    for layer in layers[1:-1]:
        assert set(np.unique(layer["kernel"])) == {-1, 0, 1}
        np.testing.assert_array_equal(layer["kernel"], ref.ternary(layer["master"]))
        assert (layer["scale"] < 0).any()
        assert (layer["scale"] > 0).any()
    for layer in (layers[0], layers[-1]):
        assert (layer["kernel"] * 64 == np.round(layer["kernel"] * 64)).all()
    assert "scale" not in layers[-1]
    with pytest.raises(ValueError, match="negativ"):
        ref.random_network(np.random.default_rng(0), gammas="negativ")
