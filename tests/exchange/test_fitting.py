"""Somebody's arrays in our tree compute what they compute there; misfits are all named."""

import io
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_like as theirs
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from jaxsnn import neurons
from jaxsnn.arch.plan import parse, plan
from jaxsnn.errors import UserError
from jaxsnn.exchange.fitting import Fitting, fit
from jaxsnn.exchange.pytorch import from_torch
from jaxsnn.exchange.weights import Weights
from jaxsnn.io.arrays import flatten
from jaxsnn.network.initialisers import CutNormal
from jaxsnn.network.net import Net, forward, init_variables, template
from jaxsnn.network.per_site import hidden


def logits(arch, variables, images):
    """Of our network, for images [B, C, H, W]."""
    net = Net(arch, hidden(neurons.relu()))
    x = jnp.asarray(images.transpose(0, 2, 3, 1), jnp.float32)
    return np.asarray(forward(net, variables, x).readouts[-1][0])


def close(ours, wanted):
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.fixture
def rng():
    return np.random.default_rng(0)


PLAIN = parse("3C3-MP2-5C2p1-AP2-7-6", norm=False, head_bias=True, input_shape=(10, 8, 2))


def plain_network(rng):
    """State dict of a network with biases, and its function."""
    arrays = {
        "conv1.weight": theirs.drawn(rng, 3, 2, 3, 3),
        "conv1.bias": theirs.drawn(rng, 3),
        "conv2.weight": theirs.drawn(rng, 5, 3, 2, 2),
        "conv2.bias": theirs.drawn(rng, 5),
        "fc1.weight": theirs.drawn(rng, 7, 5 * 2 * 2),
        "fc1.bias": theirs.drawn(rng, 7),
        "fc2.weight": theirs.drawn(rng, 6, 7),
        "fc2.bias": theirs.drawn(rng, 6),
        "fc3.weight": theirs.drawn(rng, 10, 6),
        "fc3.bias": theirs.drawn(rng, 10),
    }

    def run(x):
        get = [(arrays[f"{n}.weight"], arrays[f"{n}.bias"]) for n in ("conv1", "conv2")]
        x = theirs.pool(theirs.relu(theirs.conv(x, *get[0])), 2, np.max)
        x = theirs.pool(theirs.relu(theirs.conv(x, *get[1], padding=1)), 2, np.mean)
        for name in ("fc1", "fc2"):
            x = theirs.relu(theirs.dense(x, arrays[f"{name}.weight"], arrays[f"{name}.bias"]))
        return theirs.dense(x, arrays["fc3.weight"], arrays["fc3.bias"])

    return arrays, run


def test_a_plain_network_computes_the_same(rng):
    """Rectangular images: a flattened map in the wrong order gives other logits."""
    arrays, run = plain_network(rng)
    images = rng.normal(size=(4, 2, 10, 8))
    close(logits(PLAIN, fit(arrays, PLAIN), images), run(images))


NORMED = parse("4C3p1-MP2-5C3s2-8", input_shape=(9, 9, 1), classes=3, head_bias=False)


def normed_network(rng, *, bias):
    """State dict of a network with batch norms, one over a dense layer, and its function."""
    arrays = {}
    for name, shape in {"a": (4, 1, 3, 3), "b": (5, 4, 3, 3), "c": (8, 5)}.items():
        arrays[f"{name}.weight"] = theirs.drawn(rng, *shape)
        if bias:
            arrays[f"{name}.bias"] = theirs.drawn(rng, shape[0])
        arrays |= theirs.drawn_norm(rng, f"{name}n", shape[0])
    arrays["d.weight"] = theirs.drawn(rng, 3, 8)

    def run(x, epsilon=1e-5):
        x = theirs.conv(x, arrays["a.weight"], arrays.get("a.bias"), padding=1)
        x = theirs.pool(theirs.relu(theirs.norm_of(x, arrays, "an", epsilon)), 2, np.max)
        x = theirs.conv(x, arrays["b.weight"], arrays.get("b.bias"), stride=2)
        x = theirs.relu(theirs.norm_of(x, arrays, "bn", epsilon))
        x = theirs.dense(x, arrays["c.weight"], arrays.get("c.bias"))
        x = theirs.relu(theirs.norm_of(x, arrays, "cn", epsilon))
        return theirs.dense(x, arrays["d.weight"])

    return arrays, run


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("epsilon", [1e-5, 1e-3, 0.1, 1e-7])
def test_batch_norms_keep_bias_and_epsilon(rng, bias, epsilon):
    arrays, run = normed_network(rng, bias=bias)
    images = rng.normal(size=(4, 1, 9, 9))
    variables = fit(arrays, NORMED, epsilon=epsilon)
    close(logits(NORMED, variables, images), run(images, epsilon))
    assert "bias" not in variables["params"]["conv1"]


def test_a_bias_beside_a_norm_stays_where_the_notation_has_one(rng):
    arrays, run = normed_network(rng, bias=True)
    arch = parse("4C3p1nb-MP2-5C3s2nb-8nb", input_shape=(9, 9, 1), classes=3)
    variables = fit(arrays, arch)
    np.testing.assert_array_equal(variables["params"]["conv1"]["bias"], arrays["a.bias"])
    close(logits(arch, variables, images := rng.normal(size=(4, 1, 9, 9))), run(images))


def test_the_mean_takes_the_bias_and_the_variance_the_epsilon():
    """By hand: (z + 3 - 5) / sqrt(4 + 0.5) is (z - 2) / sqrt(4.49999 + 0.00001)."""
    arch = parse("1C1", input_shape=(1, 1, 1), classes=1)
    arrays = {
        "conv.weight": np.ones((1, 1, 1, 1)),
        "conv.bias": np.array([3.0]),
        "bn.running_mean": np.array([5.0]),
        "bn.running_var": np.array([4.0]),
        "fc.weight": np.ones((1, 1)),
    }
    tree = fit(arrays, arch, epsilon=0.5)
    stats = tree["batch_stats"]["conv1"]["norm"]
    assert stats["mean"] == 2
    assert stats["var"] == np.float32(4.49999)
    assert tree["params"]["conv1"]["norm"] == {"scale": 1, "bias": 0}  # a norm without weights


def test_the_first_dense_layer_reads_the_map_in_our_order():
    """Weight n belongs to channel n // 6, row n // 3 % 2, column n % 3 of a map 2x3 with 2."""
    arch = parse("2C1x", input_shape=(2, 3, 1), classes=1)
    arrays = {"c.weight": np.ones((2, 1, 1, 1)), "f.weight": np.arange(12.0)[None]}
    kernel = fit(arrays, arch)["params"]["readout"]["kernel"]
    channels_last = [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]
    np.testing.assert_array_equal(kernel[:, 0], channels_last)


def block(rng, name, incoming, channels, projection):
    arrays = {f"{name}.conv1.weight": theirs.drawn(rng, channels, incoming, 3, 3)}
    arrays |= theirs.drawn_norm(rng, f"{name}.bn1", channels)
    arrays[f"{name}.conv2.weight"] = theirs.drawn(rng, channels, channels, 3, 3)
    arrays |= theirs.drawn_norm(rng, f"{name}.bn2", channels)
    if projection:
        arrays[f"{name}.downsample.0.weight"] = theirs.drawn(rng, channels, incoming, 1, 1)
        arrays |= theirs.drawn_norm(rng, f"{name}.downsample.1", channels)
    return arrays


RESIDUAL = parse(
    "4C3p1-[4C3p1-4C3p1]+identity-[6C3s2p1-6C3p1]+norm-[6C3p1-6C3p1]+identity",
    input_shape=(8, 8, 3),
    head_pool=True,
    head_bias=True,
)


def residual_network(rng):
    """State dict with torchvision's names, and its function."""
    arrays = {"conv1.weight": theirs.drawn(rng, 4, 3, 3, 3)}
    arrays |= theirs.drawn_norm(rng, "bn1", 4)
    arrays |= block(rng, "layer1.0", 4, 4, projection=False)
    arrays |= block(rng, "layer2.0", 4, 6, projection=True)
    arrays |= block(rng, "layer2.1", 6, 6, projection=False)
    arrays |= {"fc.weight": theirs.drawn(rng, 10, 6), "fc.bias": theirs.drawn(rng, 10)}

    def step(x, name, stride):
        y = theirs.conv(x, arrays[f"{name}.conv1.weight"], stride=stride, padding=1)
        y = theirs.relu(theirs.norm_of(y, arrays, f"{name}.bn1"))
        y = theirs.conv(y, arrays[f"{name}.conv2.weight"], padding=1)
        y = theirs.norm_of(y, arrays, f"{name}.bn2")
        if f"{name}.downsample.0.weight" in arrays:
            x = theirs.conv(x, arrays[f"{name}.downsample.0.weight"], stride=stride)
            x = theirs.norm_of(x, arrays, f"{name}.downsample.1")
        return theirs.relu(y + x)

    def run(x):
        x = theirs.conv(x, arrays["conv1.weight"], padding=1)
        x = theirs.relu(theirs.norm_of(x, arrays, "bn1"))
        for name, stride in {"layer1.0": 1, "layer2.0": 2, "layer2.1": 1}.items():
            x = step(x, name, stride)
        return theirs.dense(x.mean(axis=(2, 3)), arrays["fc.weight"], arrays["fc.bias"])

    return arrays, run


@pytest.mark.parametrize("ordered", [True, False])
def test_a_residual_network_is_matched_without_names(rng, ordered):
    """The shortcut is told by its shape, its norm by its name; sorted names will do as well."""
    arrays, run = residual_network(rng)
    kept = arrays if ordered else {name: arrays[name] for name in sorted(arrays)}
    images = rng.normal(size=(4, 3, 8, 8))
    variables = fit(Weights(kept, ordered=ordered), RESIDUAL)
    close(logits(RESIDUAL, variables, images), run(images))


def renamed(arrays, **stems):
    for old, new in stems.items():
        arrays = {name.replace(old, new): array for name, array in arrays.items()}
    return arrays


def test_a_norm_beside_the_chain_is_not_guessed(rng):
    """Its channels are those of the block's last norm."""
    arrays, run = residual_network(rng)
    arrays = renamed(arrays, **{"downsample.0": "skip", "downsample.1": "last"})
    with pytest.raises(
        UserError, match=r"batch norm of layer2.0.skip, block2.shortcut/norm \(6,\)"
    ):
        fit(arrays, RESIDUAL)
    names = {"layer2.0.last": "block2.shortcut/norm"}
    images = rng.normal(size=(4, 3, 8, 8))
    close(logits(RESIDUAL, fit(arrays, RESIDUAL, names=names), images), run(images))


def test_a_shortcut_of_the_shape_of_a_convolution_is_not_guessed(rng):
    arch = parse("4C1b-[4C1b-4C1b]+bias", input_shape=(2, 2, 1), classes=3)
    arrays = {}
    for number, shape in enumerate([(4, 1, 1, 1), *[(4, 4, 1, 1)] * 3]):
        arrays |= {f"{number}.weight": theirs.drawn(rng, *shape)}
        arrays |= {f"{number}.bias": np.full(4, number, np.float32)}
    arrays["fc.weight"] = theirs.drawn(rng, 3, 16)
    with pytest.raises(
        UserError, match=r"1 \(4, 4, 1, 1\) can be block1.conv1 and block1.shortcut"
    ):
        fit(arrays, arch)
    tree = fit(arrays, arch, names={"2": "block1.shortcut"})["params"]
    biases = {name: leaves["bias"][0] for name, leaves in tree.items() if "bias" in leaves}
    assert biases == {"conv1": 0, "block1.conv1": 1, "block1.shortcut": 2, "block1.conv2": 3}


def test_a_file_without_order_is_matched_by_numbers_only(rng):
    arch = parse("5x-5x-5x", input_shape=(1, 1, 5), classes=5)
    numbered = {f"fc{n}.weight": np.full((5, 5), n, np.float32) for n in (10, 9, 8, 11)}
    in_order = {name: numbered[name] for name in sorted(numbered, key=lambda n: int(n[2:-7]))}
    tree = fit(Weights(in_order, ordered=False), arch)["params"]
    assert [leaves["kernel"][0, 0] for leaves in tree.values()] == [8, 9, 10, 11]
    words = ("a.weight", "b.weight", "c1.weight", "c2.weight")
    named = dict(zip(words, numbered.values(), strict=True))
    with pytest.raises(UserError, match=r"a and b have the same shape \(5, 5\).*names="):
        fit(Weights(named, ordered=False), arch)
    names = {"b": "dense1", "a": "dense2", "c1": "dense3", "c2": "readout"}
    tree = fit(Weights(named, ordered=False), arch, names=names)["params"]
    assert tree["dense1"]["kernel"][0, 0] == 9


def test_side_exits_are_told_by_their_shape(rng):
    arch = parse("4C3x-E-6C3x", norm=False, input_shape=(6, 6, 1), classes=3, head_pool=True)
    arrays = {
        "a.weight": theirs.drawn(rng, 4, 1, 3, 3),
        "b.weight": theirs.drawn(rng, 6, 4, 3, 3),
        "head.weight": theirs.drawn(rng, 3, 6),
        "early.weight": theirs.drawn(rng, 3, 4),
        "early.bias": theirs.drawn(rng, 3),
    }
    tree = fit(arrays, arch)["params"]
    np.testing.assert_array_equal(tree["exit1"]["kernel"], arrays["early.weight"].T)
    np.testing.assert_array_equal(tree["readout"]["kernel"], arrays["head.weight"].T)


def test_keras_arrays_are_not_turned(rng):
    """Kernels [height, width, in, out], images and flattened maps with the channel last."""
    arch = parse("4C3", input_shape=(5, 4, 2), classes=3, head_bias=True)
    arrays = {
        "conv2d/kernel": theirs.drawn(rng, 3, 3, 2, 4),
        "conv2d/bias": theirs.drawn(rng, 4),
        "bn/gamma": theirs.drawn(rng, 4),
        "bn/beta": theirs.drawn(rng, 4),
        "bn/moving_mean": theirs.drawn(rng, 4),
        "bn/moving_variance": rng.uniform(0.1, 2, 4).astype(np.float32),
        "dense/kernel": theirs.drawn(rng, 24, 3),
        "dense/bias": theirs.drawn(rng, 3),
    }
    images = rng.normal(size=(4, 2, 5, 4))
    x = theirs.conv(images, arrays["conv2d/kernel"].transpose(3, 2, 0, 1), arrays["conv2d/bias"])
    parts = [arrays[f"bn/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")]
    x = theirs.relu(theirs.norm(x, *parts, 1e-3)).transpose(0, 2, 3, 1)
    wanted = x.reshape(4, -1) @ arrays["dense/kernel"] + arrays["dense/bias"]
    close(logits(arch, fit(arrays, arch, "keras"), images), wanted)
    stated = Weights(arrays, layout="keras", epsilons={"bn": 0.5})
    carried = fit(stated, arch)["batch_stats"]["conv1"]["norm"]["var"]
    np.testing.assert_allclose(carried, arrays["bn/moving_variance"] + 0.49999, rtol=1e-6)
    with pytest.raises(UserError, match="epsilon=nan: give a finite number of at least 0"):
        fit(Weights(arrays, layout="keras", epsilons={"bn": math.nan}), arch)
    with pytest.raises(UserError, match="epsilon=-1: give a finite number of at least 0"):
        fit(arrays, arch, "keras", epsilon=-1)


NOTATIONS = [
    "3C3-MP2-5C2-7",
    "3C3s2same-AP2-4nb-4b-4x",
    "3C3p1-[3C3p1-3C3p1]+identity-[4C3s2p1-4C3p1]+norm-GP",
    "3C3p1-[4C3p1-4C3p1]+bias-E-LP2-5",
]


def as_torch(variables, arch):
    """Our tree under the names and with the axes of torch, turned back here."""
    arrays = {}
    for site in plan(arch):
        tree = variables["params"].get(site.name)
        if tree is None:
            continue
        kernel = np.asarray(tree["kernel"])
        if site.kind == "conv":
            kernel = np.einsum("hwio->oihw", kernel)
        elif len(site.in_shape) == 3:
            kernel = kernel.reshape(*site.in_shape, -1)
            kernel = np.einsum("hwco->ochw", kernel).reshape(site.drive_shape[-1], -1)
        else:
            kernel = kernel.T
        arrays[f"{site.name}.s.0.weight"] = kernel
        if "bias" in tree:
            arrays[f"{site.name}.s.0.bias"] = np.asarray(tree["bias"])
        if "norm" in tree:
            stats = variables["batch_stats"][site.name]["norm"]
            arrays[f"{site.name}.s.1.weight"] = np.asarray(tree["norm"]["scale"])
            arrays[f"{site.name}.s.1.bias"] = np.asarray(tree["norm"]["bias"])
            arrays[f"{site.name}.s.1.running_mean"] = np.asarray(stats["mean"])
            arrays[f"{site.name}.s.1.running_var"] = np.asarray(stats["var"])
    return arrays


@pytest.mark.slow
@settings(max_examples=8)
@given(notation=st.sampled_from(NOTATIONS), seed=st.integers(0, 99), norm=st.booleans())
def test_our_own_networks_come_back_bit_for_bit(notation, seed, norm):
    """From torch's names and axes; the tree is that of a fresh network, leaf by leaf."""
    arch = parse(notation, norm=norm, input_shape=(12, 10, 2), head_bias=norm)
    net = Net(arch, hidden(neurons.relu()), initialiser=CutNormal(hidden=0.5))
    variables = init_variables(net, jax.random.key(seed))
    names = {}
    for site in plan(arch):
        if site.kind != "avgpool":
            names |= {f"{site.name}.s.0": site.name}
    fitted = flatten(fit(as_torch(variables, arch), arch, names=names))
    wanted = flatten(variables)
    assert set(fitted) == set(wanted) == set(flatten(template(net)))
    for name, leaf in wanted.items():
        np.testing.assert_array_equal(fitted[name], leaf, strict=True)


def test_variables_do_not_share_memory_with_what_they_came_from(rng):
    arrays, _ = plain_network(rng)
    tree = fit(arrays, PLAIN)
    arrays["conv1.bias"][:] = 7
    assert (tree["params"]["conv1"]["bias"] != 7).all()


def misfits(arrays, arch=PLAIN, **options):
    with pytest.raises(UserError) as caught:
        fit(arrays, arch, **options)
    return str(caught.value)


def test_every_misfit_is_named_with_both_shapes(rng):
    arrays, _ = plain_network(rng)
    arrays["conv2.weight"] = theirs.drawn(rng, 5, 3, 3, 3)
    arrays["fc1.weight"] = theirs.drawn(rng, 7, 21)
    message = misfits(arrays)
    assert "conv2 (5, 3, 3, 3), (3, 3, 3, 5) in our order, stands for conv2 (2, 2, 3, 5)" in message
    assert "fc1 (7, 21), (21, 7) in our order, stands for dense1 (20, 7)" in message
    assert "fc2" not in message


def test_what_is_left_over_and_what_is_missing(rng):
    arrays, _ = plain_network(rng)
    arrays["extra.weight"] = np.zeros((2, 2, 1), np.float32)
    arrays["prelu.weight"] = np.zeros(1, np.float32)
    arrays |= theirs.drawn_norm(rng, "bn", 3)
    del arrays["fc3.weight"], arrays["fc3.bias"]
    message = misfits(arrays)
    for line in (
        "readout (6, 10) is missing",
        "extra.weight (2, 2, 1) is left over",
        "prelu.weight (1,) is left over",
        "bn.running_var (3,) is left over",
    ):
        assert line in message
    assert "num_batches_tracked" not in message


@pytest.mark.parametrize(
    ("notation", "options", "remedy"),
    [
        ("3C3x-MP2-5C2p1-AP2-7-6", {}, "conv1 has a bias, conv1 has none; .* suffix b"),
        ("3C3-MP2-5C2p1-AP2-7-6", {"head_bias": False}, "fc3 has a bias.* head_bias=True"),
    ],
)
def test_a_bias_without_a_place_names_the_notation(rng, notation, options, remedy):
    arrays, _ = plain_network(rng)
    options = {"norm": False, "head_bias": True, "input_shape": (10, 8, 2), **options}
    with pytest.raises(UserError, match=remedy):
        fit(arrays, parse(notation, **options))


def test_a_missing_bias_names_the_notation(rng):
    arrays, _ = plain_network(rng)
    del arrays["conv1.bias"], arrays["fc3.bias"]
    message = misfits(arrays)
    assert "conv1 has no bias, conv1 has one; write its token with the suffix x" in message
    assert "fc3 has no bias, readout has one; write head_bias=False" in message


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("a.weight", np.nan, "a.weight holds 1 values that are not finite"),
        ("an.running_mean", np.inf, "an.running_mean holds 1 values that are not finite"),
        ("an.running_var", -1, "an.running_var holds negative variances"),
    ],
)
def test_values_that_make_no_sense(rng, name, value, reason):
    arrays, _ = normed_network(rng, bias=False)
    arrays[name].flat[0] = value
    assert f": {reason}; give weights" in misfits(arrays, NORMED)
    assert "\n" not in misfits(arrays, NORMED)  # no notation mends it
    arrays["more.weight"] = np.zeros((2, 2), np.float32)
    assert f"\n  {reason}" in misfits(arrays, NORMED)


def test_whole_numbers_are_no_weights(rng):
    arrays, _ = plain_network(rng)
    arrays["fc2.weight"] = np.ones((6, 7), np.int8)
    assert "fc2.weight has dtype int8; floats are wanted" in misfits(arrays)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"conv9": "conv1"}, "no layer 'conv9'; there are conv1, conv2, fc1"),
        ({"conv1": "conv9"}, "no 'conv9' in the architecture; there are conv1, conv2, dense1"),
        ({"conv1": "conv1", "conv2": "conv1"}, "two layers for one place"),
        ({"fc1": "conv1"}, r"fc1 \(7, 20\), \(20, 7\) in our order, stands for conv1"),
    ],
)
def test_names_that_do_not_help(rng, names, reason):
    arrays, _ = plain_network(rng)
    with pytest.raises(UserError, match=reason):
        fit(arrays, PLAIN, names=names)


def test_the_table_shows_every_array_before_anything_runs(rng):
    arrays, _ = normed_network(rng, bias=True)
    arrays["a.weight"] = theirs.drawn(rng, 4, 1, 5, 5)
    del arrays["d.weight"]
    text = str(Fitting(arrays, NORMED, epsilon=1e-3).table)
    rows = [row.split() for row in text.splitlines()]
    assert rows[0] == ["theirs", "shape", "ours", "shape", "what", "is", "done"]
    assert ["b.weight", "5x4x3x3", "params/conv2/kernel", "3x3x4x5", "axes", "turned"] in rows
    assert ["c.weight", "8x5", "params/dense1/kernel", "5x8"] in [row[:4] for row in rows]
    mean = "c.bias 8 batch_stats/dense1/norm/mean 8 subtracted from the mean"
    assert mean.split() in rows
    variance = "an.running_var 4 batch_stats/conv1/norm/var 4 +0.00099: its epsilon is 0.001"
    assert variance.split() in rows
    assert ["-", "readout", "8x3", "missing"] in rows
    assert ["an.num_batches_tracked", "one", "number", "-", "not", "needed"] in rows
    assert "does not fit: a (4, 1, 5, 5), (5, 5, 1, 4) in our order" in text
    named = {row[0] for row in rows} - {"does", "theirs", "-"}
    assert named == set(arrays)


def test_rich_draws_the_table(rng):
    arrays, _ = plain_network(rng)
    arrays["left.weight"] = np.zeros((3, 3), np.float32)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(Fitting(Weights(arrays, "net.pt"), PLAIN).table)
    text = console.export_text()
    assert "net.pt" in text
    assert "params/conv1/kernel" in text
    assert "left.weight (3, 3) is left over" in text


def test_from_torch_checks_the_original_logits(rng):
    arrays, run = plain_network(rng)
    images = rng.normal(size=(4, 2, 10, 8)).astype(np.float32)
    imported = from_torch(arrays, PLAIN, reference=(images, run(images)))
    assert imported.arch == PLAIN
    close(logits(PLAIN, imported.variables, images), run(images))
    assert not imported.table.problems
    with pytest.raises(UserError, match=r"logits by 0\.\d+ of the largest; look at the images"):
        from_torch(arrays, PLAIN, reference=(2 * images, run(images)))


@pytest.mark.parametrize(
    ("images", "answers", "reason"),
    [
        (
            np.zeros((4, 10, 8, 2)),
            np.zeros((4, 10)),
            r"images \(4, 10, 8, 2\): wanted \[B, 2, 10, 8\]",
        ),
        (np.zeros((4, 2, 10, 8)), np.zeros((3, 10)), r"logits \(3, 10\): wanted \(4, 10\)"),
        (np.zeros((4, 2, 10, 8)), np.full((4, 10), np.nan), "by inf of the largest"),
    ],
)
def test_references_of_other_shapes(rng, images, answers, reason):
    arrays, _ = plain_network(rng)
    with pytest.raises(UserError, match=reason):
        from_torch(arrays, PLAIN, reference=(images, answers))


def test_norms_whose_names_and_order_disagree_are_not_guessed_between(rng):
    """bn2 was made before bn1, and nothing but their names tells them apart."""
    arch = parse("2C1-2C1", input_shape=(2, 2, 2), classes=3)
    arrays = {f"conv{each}.weight": theirs.drawn(rng, 2, 2, 1, 1) for each in (1, 2)}
    arrays |= theirs.drawn_norm(rng, "bn2", 2) | theirs.drawn_norm(rng, "bn1", 2)
    arrays["fc1.weight"] = theirs.drawn(rng, 3, 8)
    message = misfits(arrays, arch)
    assert (
        "bn2 stands in the file where conv1 has its batch norm, which by its name is bn1" in message
    )
    assert "write names={'...': 'conv1/norm'}" in message
    tree = fit(arrays, arch, names={"bn1": "conv1/norm"})
    for site, norm in (("conv1", "bn1"), ("conv2", "bn2")):
        scale = tree["params"][site]["norm"]["scale"]
        np.testing.assert_array_equal(scale, arrays[f"{norm}.weight"])


def test_norms_counted_from_zero_follow_the_order(rng):
    arch = parse("2C1-2C1", input_shape=(2, 2, 2), classes=3)
    arrays = {f"conv{each}.weight": theirs.drawn(rng, 2, 2, 1, 1) for each in (1, 2)}
    arrays |= theirs.drawn_norm(rng, "bn0", 2) | theirs.drawn_norm(rng, "bn1", 2)
    arrays["fc1.weight"] = theirs.drawn(rng, 3, 8)
    scale = fit(arrays, arch)["params"]["conv1"]["norm"]["scale"]
    np.testing.assert_array_equal(scale, arrays["bn0.weight"])


def test_a_norm_of_the_same_number_as_two_layers_follows_the_order(rng):
    """fc1 is followed by bn2 here; bn1 has its number, but belongs to conv1."""
    arch = parse("2C1-2", input_shape=(2, 2, 2), classes=3)
    arrays = {"conv1.weight": theirs.drawn(rng, 2, 2, 1, 1), **theirs.drawn_norm(rng, "bn1", 2)}
    arrays |= {"fc1.weight": theirs.drawn(rng, 2, 8), **theirs.drawn_norm(rng, "bn2", 2)}
    arrays["fc2.weight"] = theirs.drawn(rng, 3, 2)
    tree = fit(arrays, arch)
    scale = tree["params"]["dense1"]["norm"]["scale"]
    np.testing.assert_array_equal(scale, arrays["bn2.weight"])


@pytest.mark.parametrize("behind", [jax.nn.log_softmax, jax.nn.softmax])
def test_probabilities_in_place_of_logits_are_named(rng, behind):
    arrays, run = plain_network(rng)
    images = rng.normal(size=(4, 2, 10, 8)).astype(np.float32)
    with pytest.raises(UserError, match=f"behind a {behind.__name__}; give the logits before"):
        from_torch(arrays, PLAIN, reference=(images, behind(run(images))))


def test_a_state_dict_may_lie_in_a_checkpoint(rng):
    arrays, _ = plain_network(rng)
    wrapped = {f"module.{name}": array for name, array in arrays.items()}
    checkpoint = {"epoch": 3, "optimizer": {"state": {}}, "model": wrapped}
    plain = from_torch(arrays, PLAIN)
    for whole in (checkpoint, wrapped | {"epoch": 3}, {"epoch": 3, **arrays}):
        imported = from_torch(whole, PLAIN)
        jax.tree.map(np.testing.assert_array_equal, imported.variables, plain.variables)
    with pytest.raises(UserError, match=r"the checkpoint: 2 state dicts; .*'model', 'net'"):
        from_torch({"model": wrapped, "net": wrapped}, PLAIN)


@pytest.mark.parametrize("arch", [None, "3C3-MP2"])
def test_from_torch_wants_the_architecture_of_weights(arch):
    with pytest.raises(UserError, match=r"arch=, the architecture that jaxsnn.parse makes"):
        from_torch({}, arch)


@pytest.mark.parametrize("shape", [(10, 8), 10, "10x8"])
def test_input_shapes_are_checked(rng, shape):
    arrays, _ = plain_network(rng)
    with pytest.raises(UserError, match=r"input_shape must be \(height, width, channels\), got"):
        from_torch(arrays, PLAIN, shape)


def test_from_torch_takes_another_input_shape(rng):
    arrays, _ = plain_network(rng)
    square = parse("3C3-MP2-5C2p1-AP2-7-6", norm=False, head_bias=True, input_shape=(28, 28, 2))
    assert from_torch(arrays, square, (10, 8, 2)).arch == PLAIN


def test_from_torch_takes_files_and_nothing_else(rng, tmp_path):
    arrays, _ = plain_network(rng)
    np.savez(tmp_path / "net.npz", **arrays)
    from_torch(tmp_path / "net.npz", PLAIN)
    from_torch(str(tmp_path / "net.npz"), PLAIN)
    with pytest.raises(UserError, match="not a int"):
        from_torch(5, PLAIN)
