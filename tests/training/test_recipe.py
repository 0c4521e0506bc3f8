"""What each part of a recipe does to the weights, the images or the loss."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsnn import neurons
from jaxsnn.arch.plan import parse, plan
from jaxsnn.inputs import augment, preprocess
from jaxsnn.inputs.preprocess import Moment
from jaxsnn.network.arithmetic import Arithmetic
from jaxsnn.network.initialisers import Dirac, FanInUniform, FixedScale
from jaxsnn.network.net import Net, forward, init_variables
from jaxsnn.network.per_site import hidden
from jaxsnn.systems.config_file import from_json, to_json
from jaxsnn.systems.settings.bayesian_spike_fusion import BayesianSpikeFusion
from jaxsnn.systems.settings.conversion import NegativeSpikesCnn1, NegativeSpikesMnist
from jaxsnn.systems.settings.fast_snn import FastSnn
from jaxsnn.training import optimisers, schedules
from jaxsnn.training.final_statistics import final_statistics
from jaxsnn.training.one_pass import classification
from jaxsnn.training.recipe import FAST, PAPER, Recipe
from jaxsnn.training.whitening import whitened

PHASES = [
    {
        "epochs": 2,
        "learning_rate": 0.05,
        "schedule": "linear",
        "first_step": 0,
        "steps_per_epoch": 5,
    }
]
ARCH = parse("8C3same-P2-8C3same-16", input_shape=(8, 8, 3), pool="conv")


def params(key=0):
    net = Net(ARCH, hidden(neurons.relu()))
    return init_variables(net, jax.random.key(key))["params"]


def normals(tree, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), tree)


def test_muon_makes_updates_orthogonal_and_kernels_of_one_length():
    optimiser, rate = optimisers.from_recipe(FAST, PHASES)
    before = params()
    updates, _ = optimiser.update(normals(before, 1), optimiser.init(before), before)
    kernel = np.asarray(before["conv2"]["kernel"], np.float64)
    unit = kernel * np.sqrt(8) / np.linalg.norm(kernel)
    step = (np.asarray(updates["conv2"]["kernel"]) + kernel - unit).reshape(-1, 8)
    # Newton and Schulz's iteration brings all singular values near 1 (0.7 to 1.2 here).
    singular = np.linalg.svd(step / float(rate(0)), compute_uv=False)
    assert singular.min() > 0.3
    assert singular.max() < 1.3
    assert np.linalg.norm(kernel + np.asarray(updates["conv2"]["kernel"]) - unit) < 0.05 * 4


def test_every_group_has_its_own_rate_and_fixed_scales_do_not_move():
    recipe = dataclasses.replace(
        FAST, optimiser="sgd", momentum=0.0, bias_learning_rate=0.01, readout_learning_rate=0.5
    )
    optimiser, rate = optimisers.from_recipe(recipe, PHASES)
    before, slopes = params(), normals(params(), 1)
    updates, _ = optimiser.update(slopes, optimiser.init(before), before)
    assert float(rate(0)) == pytest.approx(0.05)
    for path, expected in [
        (("conv1", "kernel"), 0.05),
        (("dense1", "kernel"), 0.05),
        (("readout", "kernel"), 0.5),
    ]:
        moved, slope = updates[path[0]][path[1]], slopes[path[0]][path[1]]
        np.testing.assert_allclose(moved, -expected * slope, rtol=1e-5)
    np.testing.assert_allclose(
        updates["conv1"]["norm"]["bias"], -0.01 * slopes["conv1"]["norm"]["bias"], rtol=1e-5
    )
    assert not updates["conv1"]["norm"]["scale"].any()
    trained, _ = optimisers.from_recipe(dataclasses.replace(recipe, norm_scale=0.0), PHASES)
    updates, _ = trained.update(slopes, trained.init(before), before)
    np.testing.assert_allclose(
        updates["conv1"]["norm"]["scale"], -0.01 * slopes["conv1"]["norm"]["scale"], rtol=1e-5
    )


def test_adam_is_the_optimiser_of_before_unless_scales_are_fixed():
    optimiser, _ = optimisers.from_recipe(PAPER, PHASES)
    before, slopes = params(), normals(params(), 1)
    updates, _ = optimiser.update(slopes, optimiser.init(before), before)
    plain = optax.adam(0.05)
    expected, _ = plain.update(slopes, plain.init(before), before)
    chex.assert_trees_all_equal(updates, expected)
    fixed, _ = optimisers.from_recipe(dataclasses.replace(PAPER, norm_scale=1.0), PHASES)
    updates, _ = fixed.update(slopes, fixed.init(before), before)
    assert not updates["conv2"]["norm"]["scale"].any()
    np.testing.assert_array_equal(updates["conv2"]["kernel"], expected["conv2"]["kernel"])


def clipped_params():
    net = Net(ARCH, hidden(neurons.clipped_relu(3)))
    return init_variables(net, jax.random.key(0))["params"]


@pytest.mark.parametrize("decay_clips", [True, False])
@pytest.mark.parametrize("nesterov", [True, False])
def test_one_rate_and_one_decay_are_the_gradient_descent_of_the_papers(nesterov, decay_clips):
    recipe = Recipe(
        optimiser="sgd",
        learning_rate=0.05,
        bias_learning_rate=None,
        readout_learning_rate=None,
        nesterov=nesterov,
        weight_decay=0.1,
        decay_all=True,
        decay_clips=decay_clips,
    )
    optimiser, _ = optimisers.from_recipe(recipe, PHASES)
    params = clipped_params()
    state, velocity = optimiser.init(params), jax.tree.map(np.zeros_like, params)
    moved = params
    for step in range(3):
        slopes = normals(params, step)
        updates, state = optimiser.update(slopes, state, moved)
        rate = 0.05 * (1 - step / 10)
        expected = {}
        for (path, weight), slope in zip(
            jax.tree_util.tree_leaves_with_path(moved), jax.tree.leaves(slopes), strict=True
        ):
            name = jax.tree_util.keystr(path)
            decay = 0.0 if "clip" in name and not decay_clips else 0.1
            slope = np.asarray(slope, np.float64) + decay * np.asarray(weight, np.float64)
            speed = 0.9 * expected_speed(velocity, path) + slope
            set_speed(velocity, path, speed)
            expected[name] = -rate * (slope + 0.9 * speed if nesterov else speed)
        for path, update in jax.tree_util.tree_leaves_with_path(updates):
            name = jax.tree_util.keystr(path)
            np.testing.assert_allclose(update, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
        moved = optax.apply_updates(moved, updates)


def expected_speed(tree, path):
    for part in path:
        tree = tree[part.key]
    return tree


def set_speed(tree, path, speed):
    for part in path[:-1]:
        tree = tree[part.key]
    tree[path[-1].key] = speed


def test_muon_leaves_kernels_without_a_norm_their_length():
    arch = parse("8C3same-16", input_shape=(8, 8, 3), norm=False)
    net = Net(arch, hidden(neurons.relu()))
    before = init_variables(net, jax.random.key(0))["params"]
    assert "norm" not in before["dense1"]
    recipe = dataclasses.replace(FAST, momentum=0.0, readout_learning_rate=0.5)
    optimiser, _ = optimisers.from_recipe(recipe, PHASES)
    slopes = normals(before, 1)
    updates, _ = optimiser.update(slopes, optimiser.init(before), before)
    np.testing.assert_allclose(
        updates["dense1"]["kernel"], -0.5 * slopes["dense1"]["kernel"], rtol=1e-5
    )


def test_the_linear_schedule_ends_at_zero():
    _, rate = optimisers.from_recipe(FAST, PHASES)
    assert [round(float(rate(step)), 4) for step in (0, 5, 10)] == [0.05, 0.025, 0.0]


def test_label_smoothing_is_cross_entropy_with_spread_targets():
    net = Net(ARCH, hidden(neurons.relu()))
    variables = init_variables(net, jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    labels, key = np.array([0, 3, 9, 9]), jax.random.key(1)
    rest = {"batch_stats": variables["batch_stats"]}
    operands = (variables["params"], rest, images, labels, key)
    smooth = classification(net, label_smoothing=0.2).loss
    losses, (logits, _) = smooth(*operands, True, axis_name=None)
    targets = np.eye(10)[labels] * 0.8 + 0.02
    by_hand = -(targets * np.asarray(jax.nn.log_softmax(logits))).sum(-1)
    np.testing.assert_allclose(losses, by_hand, rtol=1e-5)
    tested, (logits, _) = smooth(*operands, False, axis_name=None)  # not in evaluation
    plain = -np.asarray(jax.nn.log_softmax(logits))[np.arange(4), labels]
    np.testing.assert_allclose(tested, plain, rtol=1e-5)


def test_the_spike_penalty_is_the_mean_activation():
    net = Net(ARCH, hidden(neurons.relu()))
    variables = init_variables(net, jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    rest = {"batch_stats": variables["batch_stats"]}
    operands = (variables["params"], rest, images, np.zeros(3, int), jax.random.key(1), True)
    plain, _ = classification(net).loss(*operands, axis_name=None)
    costly, _ = classification(net, spike_penalty=0.5).loss(*operands, axis_name=None)
    outs = net.apply(
        variables, images[None] / 256.0, {s.name: () for s in plan(ARCH)}, train=True,
        mutable=["batch_stats"],
    )[0].outs  # fmt: skip
    sites = [site for site in plan(ARCH) if site.role == "activation"]
    total = sum(np.asarray(outs[site.name][0]).reshape(3, -1).sum(-1) for site in sites)
    np.testing.assert_allclose(
        costly - plain, 0.5 * total / sum(site.neurons for site in sites), rtol=1e-4
    )


def test_crops_stay_within_the_radius_and_reach_it():
    picture = np.arange(32 * 32, dtype=np.float32).reshape(1, 32, 32, 1)
    images = jnp.asarray(np.repeat(picture, 400, 0))
    windows = augment.random_crop(images, jax.random.key(0), size=24, radius=2)
    corners = np.asarray(windows[:, 0, 0, 0]).astype(int)
    rows, columns = corners // 32, corners % 32
    assert set(rows) == set(columns) == {2, 3, 4, 5, 6}


def test_alternating_flips_show_every_image_both_ways_in_two_epochs():
    images = jnp.asarray(np.arange(200, dtype=np.float32).reshape(100, 1, 2, 1))
    rows = jnp.arange(100)
    first, second, third = (augment.alternating_flip(images, rows, e) for e in range(3))
    mirrored = np.asarray(first[:, 0, 0, 0] != images[:, 0, 0, 0])
    assert 30 < mirrored.sum() < 70
    np.testing.assert_array_equal(second, first[:, :, ::-1])
    np.testing.assert_array_equal(third, first)
    some = augment.alternating_flip(images[40:60], rows[40:60], 0)
    np.testing.assert_array_equal(some, first[40:60])  # whatever batch an image is in
    recipe = preprocess.standardised(2, flip="alternating", colours=False)
    assert recipe.paced
    with pytest.raises(ValueError, match="needs the moment"):
        recipe.train(np.zeros((1, 4, 4, 3), np.uint8), jax.random.key(0))
    pictures = np.random.default_rng(0).integers(0, 256, (3, 2, 2, 3), dtype=np.uint8)
    moment = [Moment(jnp.int32(e), jnp.int32(e), jnp.arange(3)) for e in range(2)]
    one, other = (recipe.train(pictures, jax.random.key(5), m) for m in moment)
    np.testing.assert_array_equal(one, other[:, :, ::-1])


def test_the_dirac_start_passes_the_input_on():
    arch = parse("4C3same-4C3same-P2", input_shape=(6, 6, 4), pool="conv", norm=False)
    sites = {site.name: site for site in plan(arch)}
    start = Dirac(0.5)
    kernel = start.kernel(sites["conv2"])(jax.random.key(0), (3, 3, 4, 400))
    same = np.asarray(kernel)[:, :, range(4), range(4)]
    expected = np.zeros((3, 3, 4))
    expected[1, 1] = 1  # of their own channel
    np.testing.assert_array_equal(same, expected)
    assert np.asarray(kernel)[..., 4:].std() == pytest.approx(np.sqrt(2 / 36), rel=0.2)
    pool = start.kernel(sites["pool1"])(jax.random.key(0), (2, 2, 64, 64))
    noise = np.asarray(pool) - 0.25 * np.eye(64)
    assert noise.std() == pytest.approx(0.3 * np.sqrt(2 / 16), rel=0.05)
    assert start.scale()(jax.random.key(0), (2,)).tolist() == [0.5, 0.5]
    usual = FixedScale(FanInUniform(), 2.0)
    assert usual.scale()(jax.random.key(0), (1,)).tolist() == [2.0]


def test_whitening_filters_whiten_patches_in_both_signs():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 3))
    images = np.asarray(rng.normal(size=(300, 12, 12, 3)) @ mixing, np.float32)
    site = plan(parse("60C3same", input_shape=(12, 12, 3)))[0]
    kernel = np.asarray(whitened(jnp.zeros(site.kernel_shape), site, images))
    np.testing.assert_array_equal(kernel[..., :27], -kernel[..., 27:54])
    assert not kernel[..., 54:].any()
    patches = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (1, 2))
    patches = patches[:, ::3, ::3].transpose(0, 1, 2, 4, 5, 3).reshape(-1, 27)
    seen = patches @ kernel[..., :27].reshape(27, 27)
    np.testing.assert_allclose(seen.T @ seen / len(seen), np.eye(27), atol=0.1)


def test_final_statistics_are_those_of_all_images():
    arch = parse("4C3same", input_shape=(6, 6, 1))
    net = Net(arch, hidden(neurons.relu()), arithmetic=Arithmetic.FAST_FLOAT32)
    variables = init_variables(net, jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (1000, 6, 6, 1), dtype=np.uint8)
    actual = final_statistics(net, variables, preprocess.unchanged(), images)
    x = jnp.asarray(images, jnp.float32) / 256
    kernel = variables["params"]["conv1"]["kernel"]
    drive = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    drive = np.asarray(drive, np.float64)
    norm = actual["batch_stats"]["conv1"]["norm"]
    np.testing.assert_allclose(norm["mean"], drive.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(norm["var"], drive.var((0, 1, 2)), rtol=1e-4)
    out = forward(net, actual, x[:10]).outs["conv1"]
    assert out.shape == (1, 10, 6, 6, 4)


def test_final_statistics_are_those_of_augmented_images():
    """White images in a black frame: windows that reach over the edge are darker on average."""
    arch = parse("1C1", input_shape=(4, 4, 1))
    net = Net(arch, hidden(neurons.relu()))
    start = init_variables(net, jax.random.key(0))
    start["params"]["conv1"]["kernel"] = jnp.ones((1, 1, 1, 1))
    images = np.full((2000, 4, 4, 1), 255, np.uint8)
    framed = preprocess.normalised((0.0,), (1.0,), 4, padding=2)
    means = [
        final_statistics(net, start, seen, images)["batch_stats"]["conv1"]["norm"]["mean"]
        for seen in (framed, preprocess.normalised((0.0,), (1.0,), 4))
    ]
    # of offsets 0 to 4, 4 - |offset - 2| rows of 4 lie inside: (2 + 3 + 4 + 3 + 2) / 20, squared
    np.testing.assert_allclose(np.concatenate(means), [0.49, 1.0], atol=0.01)


def test_a_network_without_batch_norm_has_no_final_statistics():
    net = Net(parse("4C3same", input_shape=(6, 6, 1), norm=False), hidden(neurons.relu()))
    variables = {"params": {"conv1": {"kernel": np.ones((3, 3, 1, 4))}}}
    images = np.zeros((2, 6, 6, 1), np.uint8)
    assert final_statistics(net, variables, preprocess.unchanged(), images) == variables


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("learning_rate", 0.0, "learning_rate is 0.0 in the recipe; give a number above 0"),
        ("learning_rate", None, "learning_rate is None in the recipe; give a number above 0"),
        ("momentum", 1.0, "momentum is 1.0 in the recipe; give 0 or more, and less than 1"),
        ("micro_batch", 100, "micro_batch is 100 in the recipe; give a divisor of the batch size"),
        ("norm_scale", -1.0, "norm_scale is -1.0"),
        ("label_smoothing", float("nan"), "label_smoothing is nan"),
    ],
)
def test_parts_out_of_range_are_named(part, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(FAST, **{part: value})


def test_the_command_line_chooses_the_recipe():
    cifar = NegativeSpikesCnn1()
    assert (cifar.recipe, cifar.training, cifar.epochs) == ("fast", FAST, 16)
    assert NegativeSpikesMnist().training == PAPER
    slower = NegativeSpikesCnn1(learning_rate=1e-4)
    assert (slower.recipe, slower.paper_implied, slower.epochs) == ("paper", True, 30)
    assert slower.training == dataclasses.replace(PAPER, learning_rate=1e-4)
    asked = NegativeSpikesCnn1(recipe="fast", learning_rate=0.02, label_smoothing=0.1)
    assert not asked.paper_implied
    assert asked.training == dataclasses.replace(FAST, learning_rate=0.02, label_smoothing=0.1)
    saved, _ = from_json(NegativeSpikesCnn1, to_json(asked))
    assert saved == asked


def test_a_run_from_before_there_were_recipes_is_one_of_the_paper():
    text = to_json(NegativeSpikesCnn1(recipe="paper", batch_size=32))
    import json

    record = json.loads(text)
    for field in dataclasses.fields(Recipe):
        if field.name not in ("learning_rate", "schedule", "batch_size"):
            del record[field.name]
    del record["recipe"], record["compute"], record["width"]
    old, _ = from_json(NegativeSpikesCnn1, json.dumps(record))
    assert (old.recipe, old.compute) == ("paper", "float32")
    assert old.training == dataclasses.replace(PAPER, batch_size=32)


def test_systems_of_gradient_descent_have_both_recipes():
    paper, fast = FastSnn(bit=3), FastSnn(bit=3, recipe="fast", weight_decay=1e-3)
    assert (paper.recipe, paper.optimiser, paper.schedule) == ("paper", "sgd", "steps")
    assert (paper.learning_rate, paper.weight_decay, paper.nesterov) == (0.04, 1e-4, False)
    assert (fast.optimiser, fast.schedule, fast.weight_decay) == ("muon", "linear", 1e-3)
    assert fast.training.norm_scale == 1.0
    assert [one.learning_rate for one in fast.widths()] == [0.05] * 3
    assert [one.learning_rate for one in FastSnn(bit=4, learning_rate=0.2).widths()] == [0.2] * 2
    fusion = BayesianSpikeFusion()
    assert (fusion.learning_rate, fusion.nesterov, fusion.decay_all) == (0.1, True, True)
    assert BayesianSpikeFusion(recipe="fast").batch_size == FAST.batch_size


def test_a_config_from_before_recipes_is_the_papers():
    parts = {field.name for field in dataclasses.fields(Recipe)}
    written = {"weight_decay", "decay_clips", "schedule", "learning_rate", "batch_size"}
    record = json.loads(to_json(FastSnn(bit=2, learning_rate=0.3)))
    for name in (parts - written) | {"recipe", "compute"}:
        del record[name]
    config, _ = from_json(FastSnn, json.dumps(record))
    assert config == FastSnn(bit=2, learning_rate=0.3, compute="float32")


def test_no_optimiser_moves_a_learned_clip_below_the_smallest():
    clipped, rate = clipped_params(), PHASES[0]["learning_rate"]
    clips = [schedules.is_clip(path) for path, _ in jax.tree_util.tree_leaves_with_path(clipped)]
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: 0.02 * np.ones_like(x) if schedules.is_clip(path) else x, clipped
    )
    slopes = jax.tree.map(np.ones_like, params)
    for name in ("adam", "sgd", "muon"):  # each would take 0.05 off
        recipe = Recipe(optimiser=name, bias_learning_rate=None, learning_rate=rate)
        moving, _ = optimisers.from_recipe(recipe, PHASES)
        updates, _ = moving.update(slopes, moving.init(params), params)
        after = jax.tree.leaves(optax.apply_updates(params, updates))
        moved = [float(x) for is_clip, x in zip(clips, after, strict=True) if is_clip]
        assert moved == pytest.approx([schedules.SMALLEST_CLIP] * sum(clips), rel=1e-4), name
