"""The certificate says yes to what is equal, no to what is not, and names what it finds."""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from helpers import HIDDEN_TERNARY, converted, levels_network, pixels, pooled_network, tree

from jaxsnn import (
    Net,
    SiteMap,
    certify,
    convert,
    evaluate,
    hidden,
    init_variables,
    methods,
    neurons,
    parse,
    simulate,
    with_leaf,
    with_unit_dropout,
)
from jaxsnn.equality import references
from jaxsnn.network import weight_quantisers
from jaxsnn.network.initialisers import FanInUniform


@functools.cache
def network(seed=31, **options):
    _, arch, variables, snn, images = converted(seed, dyadic=False, **options)
    return arch, variables, snn, images


def shifted(snn, site, channel, by):
    """All thresholds of one channel moved: still ascending, so both references share them."""
    thresholds = snn.variables["fixed"][site]["thresholds"]
    return with_leaf(snn, site, "thresholds", thresholds.at[:, channel].add(by))


@pytest.mark.parametrize("gammas", ["positive", "mixed", "with_zero"])
def test_random_networks_are_exact(gammas):
    _arch, variables, snn, images = network(gammas=gammas)
    proof = certify(snn, variables, images, batch_size=10)  # 16 images: the second batch is padded
    assert proof.equality == "exact"
    assert proof.mismatches == proof.predictions == 0
    assert proof.origins_are_ties
    assert proof.first_difference is None
    assert (proof.images, proof.steps, proof.settled_step) == (16, 1, 1)
    compared = {"conv1": 16 * 8 * 8 * 6, "conv2": 16 * 4 * 4 * 8, "dense1": 16 * 12}
    compared["readout"] = 16 * 5
    assert {layer.site: layer.compared for layer in proof.layers} == compared


def test_silent_and_saturated_shares_against_numpy():
    _arch, variables, snn, images = network(gammas="mixed")
    proof = certify(snn, variables, images, batch_size=6)
    counts = simulate(snn, images, steps=1, counts=True).counts
    for layer in proof.layers[:-1]:  # the last one is the readout, which has no neurons
        count = np.asarray(counts[layer.site])
        assert layer.silent == pytest.approx((count == 0).all(0).mean())
        assert layer.saturated == pytest.approx((count == 4).mean())
        assert layer.last_spike_step == 1
    assert any(layer.silent > 0 for layer in proof.layers)
    assert any(layer.saturated > 0 for layer in proof.layers)


def test_a_broken_table_is_found_by_the_integer_ann_and_named():
    # Thresholds out of order: their number and the topmost one disagree.
    _arch, variables, snn, images = network(gammas="mixed")
    thresholds = snn.variables["fixed"]["conv2"]["thresholds"]
    broken = with_leaf(snn, "conv2", "thresholds", thresholds.at[:, 3].set(thresholds[::-1, 3]))
    proof = certify(broken, variables, images)
    actual = simulate(broken, images, steps=1, counts=True).counts
    # Counting does not depend on the order, so the counts are still the float ANN's.
    assert proof.float_mismatches == 0
    assert proof.equality == "approximate"
    assert proof.mismatches > 0
    first = proof.first_difference
    assert (first.site, first.position[-1]) == ("conv2", 3)
    assert first.spiking == int(actual["conv2"][(first.image, *first.position)])
    assert first.spiking != first.reference


def test_a_wrong_threshold_passes_the_integer_ann_and_is_named_by_the_float_one():
    _arch, variables, snn, images = network(gammas="mixed")
    broken = shifted(snn, "conv2", 5, 2)
    proof = certify(broken, variables, images, batch_size=5)
    assert proof.equality == "approximate"
    assert proof.mismatches == 0
    assert not proof.origins_are_ties
    right = simulate(snn, images, steps=1, counts=True).counts
    wrong = simulate(broken, images, steps=1, counts=True).counts
    differs = np.asarray(right["conv2"] != wrong["conv2"])
    assert differs[..., 5].any()
    layers = {layer.site: layer for layer in proof.layers}
    assert layers["conv2"].end_to_end == layers["conv2"].origins == differs.sum()
    assert layers["conv2"].ties == 0
    assert layers["conv1"].origins == layers["dense1"].origins == 0  # cascades are no origins
    cascade = int(np.sum(np.asarray(right["dense1"] != wrong["dense1"])))
    assert layers["dense1"].end_to_end == cascade
    assert proof.float_mismatches == differs.sum() + cascade
    first = proof.first_difference
    where = (first.image, *first.position)
    assert (first.site, first.position[-1]) == ("conv2", 5)
    assert where == tuple(np.argwhere(differs)[0])
    assert first.spiking == int(wrong["conv2"][where])
    assert first.reference == int(right["conv2"][where])
    assert layers["conv2"].furthest > 0.01


def test_the_first_difference_is_first_in_layer_order_across_batches():
    _arch, variables, snn, images = network(gammas="mixed")
    dark = np.zeros_like(images[:1])
    trial = np.concatenate([dark, images[:3]])
    counts = simulate(snn, trial, steps=1, counts=True).counts
    # A channel of conv1 that a dark image leaves silent and a later one drives, and a channel of
    # conv2 that the dark image drives: the first image differs in conv2 only.
    first = np.asarray(counts["conv1"]).reshape(4, -1, 6).any(1)
    late = int(np.flatnonzero(first[1:].any(0) & ~first[0])[0])
    early = int(np.flatnonzero(np.asarray(counts["conv2"])[0].reshape(-1, 8).any(0))[0])
    broken = shifted(shifted(snn, "conv1", late, 10**7), "conv2", early, 10**6)
    other = simulate(broken, trial, steps=1, counts=True).counts
    np.testing.assert_array_equal(other["conv1"][0], counts["conv1"][0])
    assert (other["conv2"][0] != counts["conv2"][0]).any()
    proof = certify(broken, variables, trial, batch_size=1)
    assert proof.first_difference.site == "conv1"
    assert proof.first_difference.image > 0


def test_a_forgotten_flip_of_the_mean_passes_the_integer_ann_only():
    arch, variables, _snn, images = network(gammas="mixed")
    # Fold as if the mean had the other sign: a consistent, wrong network.
    wrong = jax.tree.map(np.array, variables)
    norm = wrong["batch_stats"]["conv2"]["norm"]
    norm["mean"] = -norm["mean"]
    broken = convert(wrong, arch, methods.scatter_gather(k=1, bound=2), weights=HIDDEN_TERNARY)
    proof = certify(broken, variables, images)
    assert proof.mismatches == proof.predictions == 0
    assert proof.equality == "approximate"
    assert not proof.origins_are_ties
    assert proof.float_mismatches > 100
    assert proof.first_difference.site == "conv2"


def test_ties_are_recognised_and_near_ties_are_not():
    _arch, variables, snn = levels_network()
    images = np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1)
    # Pixels 64 and 192 lie on boundaries of channel 0; the norm's epsilon, cancelled here in
    # float64, is not in float32. Moving a threshold by one pixel makes exactly the neuron at that
    # pixel differ: a tie at the boundary itself...
    clean = certify(snn, variables, images)
    assert clean.equality == "exact"
    unit = int(snn.variables["params"]["dense1"]["kernel"][0, 0])
    thresholds = snn.variables["fixed"]["dense1"]["thresholds"]
    on = with_leaf(snn, "dense1", "thresholds", thresholds.at[0, 0].add(unit))
    proof = certify(on, variables, images)
    layer = proof.layers[0]
    counts = np.asarray(simulate(snn, images, steps=1, counts=True).counts["dense1"])
    assert counts[63:65, 0].tolist() == [0, 1]
    differing = layer.origins
    assert differing in (0, 1)  # float32 puts the pixel on either side
    assert layer.ties == differing
    assert layer.furthest < 1e-6
    assert proof.equality == "exact"
    # ... and one pixel off, 1/128 of a step, is no tie.
    off = with_leaf(snn, "dense1", "thresholds", thresholds.at[0, 0].add(2 * unit))
    proof = certify(off, variables, images)
    assert proof.equality == "approximate"
    assert not proof.origins_are_ties
    assert proof.layers[0].furthest == pytest.approx(1 / 128, rel=1e-3)
    assert proof.first_difference.site == "dense1"
    assert proof.first_difference.image == 65
    assert proof.first_difference.position == (0,)
    assert (proof.first_difference.spiking, proof.first_difference.reference) == (0, 1)


def test_pools_are_certified():
    arch = parse("6C3same-MP2-8C3p1-AP2-12", classes=5, input_shape=(12, 12, 1))
    variables = tree(pooled_network(2))
    snn = convert(variables, arch, methods.scatter_gather(k=1, bound=2), weights=HIDDEN_TERNARY)
    proof = certify(snn, variables, pixels(np.random.default_rng(0), 20, (12, 12, 1)))
    assert proof.equality == "exact"
    assert [layer.site for layer in proof.layers] == ["conv1", "conv2", "dense1", "readout"]


def test_a_wrong_readout_is_named_although_every_neuron_agrees():
    _arch, variables, snn, images = network(gammas="mixed")
    params = snn.variables["params"]
    rolled = {"kernel": np.roll(np.asarray(params["readout"]["kernel"]), 1, axis=1)}
    params = {**params, "readout": rolled}
    broken = dataclasses.replace(snn, variables={**snn.variables, "params": params})
    proof = certify(broken, variables, images)
    assert (proof.mismatches, proof.float_mismatches) == (0, 0)
    assert proof.equality == "approximate"
    assert proof.first_difference.site == "readout"
    assert proof.float_predictions > 0


def test_a_layer_that_was_rounded_to_zero_is_said_beside_the_verdict():
    arch, variables, whole = levels_network()
    images = pixels(np.random.default_rng(0), 20, (1, 1, 1))
    assert certify(whole, variables, images).rounded_to_zero == ()
    variables["params"]["readout"]["kernel"] = np.full((2, 3), 1e-12, np.float32)
    snn = convert(variables, arch, methods.scatter_gather(k=1, bound=2))
    proof = certify(snn, variables, images)
    assert proof.rounded_to_zero == ("readout",)
    verdict, *_ = str(proof).partition("\nROUNDED TO ZERO: all weights of readout;")
    assert verdict.startswith(proof.equality)
    assert evaluate(snn, images).undecided.tolist() == [20]
    # Zeros that were trained are no rounding.
    variables["params"]["readout"]["kernel"][:] = 0
    trained = convert(variables, arch, methods.scatter_gather(k=1, bound=2))
    assert certify(trained, variables, images).rounded_to_zero == ()


def settling(seed=33, **options):
    """A network with negative spikes, its variables and images."""
    _, _, variables, snn, images = converted(
        seed,
        method=methods.negative_spikes,
        **{"dyadic": False, "bound": None, "gammas": "mixed"} | options,
    )
    return variables, snn, images


@pytest.mark.parametrize(("bound", "dyadic"), [(None, False), (2, False), (2, True)])
def test_negative_spikes_are_exact_after_settling(bound, dyadic):
    variables, snn, images = settling(bound=bound, dyadic=dyadic, gammas="with_zero")
    proof = certify(snn, variables, images, steps=60, batch_size=6)
    assert proof.equality == "exact after settling"
    assert proof.mismatches == proof.predictions == proof.unsettled_images == 0
    assert proof.unsettled == 0
    assert proof.origins_are_ties
    spikes = simulate(snn, images, steps=60).counters.spikes
    active = np.any([np.asarray(one) > 0 for one in spikes.values()], axis=0)
    last = 60 - active[::-1].argmax(0)  # of every image
    assert proof.settled_steps == tuple(last)
    assert proof.settled_step == max(last) < 60
    at_last = certify(snn, variables, images, steps=int(max(last)))
    assert at_last.equality == "exact after settling"  # at rest, though no silent step is seen


def test_too_few_steps_are_approximate_and_the_share_is_told():
    variables, snn, images = settling()
    whole = certify(snn, variables, images, steps=60)
    steps = whole.settled_step - 1
    with pytest.warns(UserWarning, match=r"on \d+\.\d\d% of the images, have not settled after"):
        proof = certify(snn, variables, images, steps=steps, batch_size=7)
    assert proof.equality == "approximate"
    early = simulate(snn, images, steps=steps, counts=True).counts
    late = simulate(snn, images, steps=60, counts=True).counts
    differs = [np.asarray(early[name] != late[name]).reshape(16, -1) for name in late]
    assert proof.mismatches == sum(one.sum() for one in differs) > 0
    assert proof.unsettled == pytest.approx(proof.mismatches / sum(one.size for one in differs))
    assert proof.unsettled_images == np.any([one.any(1) for one in differs], axis=0).sum()
    assert f"on {proof.unsettled_images} images" in str(proof)


def test_the_settle_stop_gives_the_same_certificate():
    variables, snn, images = settling()
    fixed = certify(snn, variables, images, steps=60, batch_size=6)
    certificate = certify(snn, variables, images, steps=60, settle=True, batch_size=6)
    assert certificate.steps == fixed.settled_step + 1 < fixed.steps
    assert dataclasses.replace(certificate, steps=60) == fixed
    assert certificate.settled_step == max(certificate.settled_steps)
    at_last = certify(snn, variables, images, steps=fixed.settled_step, settle=True)
    assert at_last.equality == "exact after settling"
    with pytest.warns(UserWarning, match="raise steps"):
        early = certify(snn, variables, images, steps=2, settle=True)
    assert (early.equality, early.steps) == ("approximate", 2)
    assert early.unsettled_images > 0


def test_memory_of_a_certificate_does_not_grow_with_the_number_of_steps(monkeypatch):
    variables, snn, images = settling()
    module = sys.modules["jaxsnn.equality.certify"]
    largest = []

    def seen(snn, trace):
        actual = module_simulated(snn, trace)
        largest.append(max(leaf.size for leaf in jax.tree.leaves(trace)))
        assert all(np.shape(leaf)[0] == 16 for leaf in jax.tree.leaves(actual))
        return actual

    module_simulated = module._simulated
    monkeypatch.setattr(module, "_simulated", seen)
    for steps in (20, 40):
        certify(snn, variables, images, steps=steps, batch_size=16)
    assert largest[0] == largest[1] == 16 * 8 * 8 * 6  # the widest layer's counts, no time axis


def test_a_saturated_count_is_the_cap_and_not_a_single_spike():
    variables, snn, images = settling(bound=2, gammas="positive")
    proof = certify(snn, variables, images, steps=20)
    counts = simulate(snn, images, steps=20, counts=True).counts
    for layer in proof.layers[:-1]:
        count = np.asarray(counts[layer.site])
        assert layer.saturated == pytest.approx((count == 4).mean())
    assert any(layer.saturated > 0 for layer in proof.layers)


def test_a_broken_first_threshold_is_named_by_the_float_ann():
    variables, snn, images = settling(gammas="positive")
    leaves = snn.variables["fixed"]["conv2"]
    broken = with_leaf(snn, "conv2", "first", leaves["first"].at[5].add(leaves["step"][5]))
    proof = certify(broken, variables, images, steps=60)
    assert proof.equality == "approximate"
    assert proof.mismatches == 0
    assert not proof.origins_are_ties
    assert proof.first_difference.site == "conv2"
    assert proof.first_difference.position[-1] == 5


def test_a_threshold_moved_by_its_grid_makes_a_tie_and_one_moved_further_does_not():
    # Where one drive unit is one step, a boundary 2^-18 above the drive 1 becomes 1 on the grid of
    # 2^-16: the neuron fires, the float ANN's does not. 2^-18 is four times what float32 explains.
    arch, variables, _ = levels_network()
    norm = variables["batch_stats"]["dense2"]["norm"]
    moved = {**norm, "mean": np.float32([0, 0.25 + 2.0**-19])}
    variables["batch_stats"]["dense2"] = {"norm": moved}
    snn = convert(variables, arch, methods.negative_spikes(k=1, bound=2))
    images = np.array([0, 96], np.uint8).reshape(-1, 1, 1, 1)  # drives 0 and 1
    assert simulate(snn, images, steps=9, counts=True).counts["dense2"][:, 1].tolist() == [0, 1]
    proof = certify(snn, variables, images, steps=9)
    layer = proof.layers[1]
    assert (layer.origins, layer.ties, layer.end_to_end) == (1, 1, 1)
    assert layer.furthest == pytest.approx(2.0**-18)
    assert proof.equality == "exact after settling"
    first = snn.variables["fixed"]["dense2"]["first"]
    off = with_leaf(snn, "dense2", "first", first.at[1].add(-1))  # now the drive 0 fires as well
    wrong = certify(off, variables, images, steps=9)
    assert wrong.equality == "approximate"
    assert wrong.layers[1].ties < wrong.layers[1].origins


def test_levels_beyond_the_cap_are_counted_and_no_ties():
    options = {"method": methods.negative_spikes, "k": 2, "bound": None, "gammas": "mixed"}
    layers, _, variables, snn, images = converted(
        33, dyadic=False, settings={"highest": 3}, **options
    )
    proof = certify(snn, variables, images, steps=40)
    assert proof.equality == "approximate"
    assert proof.mismatches == 0
    assert not proof.origins_are_ties
    levels, _ = ref.quantised_ann(layers, images / 256.0, 2, None)
    cut = [int((level > 3).sum()) for level in levels]
    assert [layer.cut for layer in proof.layers] == [*cut, 0]
    assert f"\n{sum(cut):,} levels of the float ANN lie above the highest count" in str(proof)
    assert min(cut) > 0


def test_float_weights_as_trained_differ_at_ties_only():
    variables, snn, images = settling(settings={"float_weights": True}, dyadic=True, bound=2)
    proof = certify(snn, variables, images, steps=40)
    assert proof.origins_are_ties
    assert sum(layer.origins for layer in proof.layers) <= proof.float_mismatches
    assert proof.equality in ("exact after settling", "approximate")
    assert (proof.equality == "approximate") == (proof.mismatches > 0)


def test_refusals():
    _arch, variables, snn, images = network()
    with pytest.raises(ValueError, match="no images"):
        certify(snn, variables, images[:0])
    with pytest.raises(ValueError, match="conv1: theory gives no final count for 'unit_dropout'"):
        certify(with_unit_dropout(snn, "conv1"), variables, images)
    delayed = dataclasses.replace(snn, neurons=hidden(neurons.delayed(snn.neurons.default)))
    with pytest.raises(ValueError, match="theory gives no final count for 'delayed'"):
        certify(delayed, variables, images)
    with pytest.raises(ValueError, match="images are float"):
        certify(snn, variables, jnp.asarray(images) / 256)


@pytest.mark.parametrize(
    ("offset", "shift", "tie"),
    [
        # The sum lies 2^-26 below the boundary 1/2, half a unit in the last place: float32 rounds
        # it up to the boundary, exact arithmetic leaves it below.
        (np.nextafter(np.float32(0.5 - 64 * 4097 / 2**20), np.float32(0)), 0, True),
        # 2^-19 above the boundary float32 is in no doubt: a threshold four grid units too high is
        # wrong, four times the rounding error away.
        (np.float32(0.5 - 64 * 4097 / 2**20 + 2**-19), 4, False),
    ],
)
def test_a_tie_is_what_float32_cannot_place_and_no_more(offset, shift, tie):
    arch = parse("1", classes=2, input_shape=(1, 1, 1))
    norm = {"scale": np.ones(1, np.float32), "bias": np.full(1, offset, np.float32)}
    params = {"dense1": {"kernel": np.full((1, 1), 1 + 2**-12, np.float32), "norm": norm}}
    params["readout"] = {"kernel": np.ones((1, 2), np.float32)}
    statistics = {"mean": np.zeros(1, np.float32), "var": np.full(1, 1 - 1e-5, np.float32)}
    variables = {"params": params, "batch_stats": {"dense1": {"norm": statistics}}}
    snn = convert(
        variables,
        arch,
        methods.scatter_gather(k=0, bound=1),
        weights=SiteMap(weight_quantisers.full_precision()),
    )
    thresholds = snn.variables["fixed"]["dense1"]["thresholds"]
    snn = with_leaf(snn, "dense1", "thresholds", thresholds + shift)
    proof = certify(snn, variables, np.full((1, 1, 1, 1), 64, np.uint8))
    layer = proof.layers[0]
    assert (layer.origins, layer.ties) == (1, int(tie))
    assert proof.origins_are_ties is tie
    assert proof.equality == ("exact" if tie else "approximate")


def test_sums_that_float32_would_round_are_compared_in_float64(monkeypatch):
    """A clip is no power of two: sums in float32 are off by more than the readout's grid."""
    arch = parse("24-24", input_shape=(4, 4, 1), classes=4, norm=False, head_bias=True)
    net = Net(arch, hidden(neurons.clipped_relu(3, "up")), initialiser=FanInUniform())
    variables = jax.tree.map(np.array, init_variables(net, jax.random.key(1)))
    for name, clip in (("dense1", 0.61), ("dense2", 0.87)):
        variables["params"][name]["clip"] = np.float32(clip)
    snn = convert(variables, arch, methods.signed_if(bits=3, settling=True), trained=net)
    images = pixels(np.random.default_rng(1), 60, (4, 4, 1))
    assert references.needs_double(snn)
    proof = certify(snn, variables, images, steps=200, settle=True)
    assert proof.equality == "exact after settling", str(proof)
    assert (proof.mismatches, proof.float_mismatches, proof.given_predictions) == (0, 0, 0)
    assert all(layer.origins == 0 for layer in proof.layers)
    # In float32 they cannot be: the right network would be called approximate.
    monkeypatch.setattr(references, "needs_double", lambda snn: False)
    assert certify(snn, variables, images, steps=200, settle=True).equality == "approximate"


def test_whole_numbers_times_powers_of_two_need_no_float64():
    _, _, snn, _ = network()
    assert not references.needs_double(snn)
    thirds = dataclasses.replace(snn, encoding=dataclasses.replace(snn.encoding, scale=1 / 255))
    assert references.needs_double(thirds)
