"""Notation, shapes and counts, against the numbers of the papers' specifications."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn.arch import zoo
from jaxsnn.arch.layers import AvgPool, Conv, Dense, MaxPool, explicit_padding, fan_out_windows
from jaxsnn.arch.notation import Arch, Exit, Residual, format
from jaxsnn.arch.plan import parse, plan, pools_behind_neurons, totals
from jaxsnn.systems.settings.bayesian_spike_fusion import BLOCKS
from jaxsnn.training.early_loss_weight import share_of_macs


def site(arch: Arch, name: str):
    return next(site for site in plan(arch) if site.name == name)


# Counts. Source: specification, sections 2.1, 2.6, 3.1, 3.6, 4.1 and acceptance checks 4 and 5.


@pytest.mark.parametrize(
    ("name", "parameters", "neurons", "macs", "encoder"),
    [
        ("lenet_scatter", 159_824, 26_880, 4_852_224, 313_600),
        ("lenet_negative", 444_660, 18_900, 2_395_400, 288_000),
        ("cnn1", 7_869_856, 336_128, 399_190_016, 1_492_992),
        ("cnn2", 18_543_488, 411_648, 769_659_904, 1_990_656),
        ("lenet_negative_fashion", 1_136_160, 29_184, 5_187_584, 24 * 24 * 32 * 25),
        ("mlp_negative", 480_800, 800, 164_000, 784 * 400),
    ],
)
def test_counts_of_the_zoo(name, parameters, neurons, macs, encoder):
    total = totals(zoo.NAMES[name].arch)
    assert total.all_parameters == parameters
    assert total.neurons == neurons
    assert total.macs_without_encoder == macs
    assert total.encoder_macs == encoder
    assert total.macs == macs + encoder


def test_weights_and_norm_values_are_counted_apart():
    total = totals(zoo.lenet_scatter)
    assert (total.parameters, total.norm_parameters) == (158_352, 1_472)


def test_vgg_scatter_neurons():
    assert totals(zoo.vgg_scatter).neurons == 187_136


@pytest.mark.parametrize(("name", "parameters"), [("csnn_static", 29_826), ("csnn_nmnist", 35_886)])
def test_csnn_counts(name, parameters):
    arch = zoo.NAMES[name].arch
    assert totals(arch).all_parameters == parameters
    assert all(site.bias and not site.norm for site in plan(arch))
    assert arch.head_neuron


def test_max_pools_that_overlap_are_padded_or_stand_behind_neurons():
    """Windows of 3 at -1, 1, 3 of 7 rows, of 2 at 0, 2 of what is left; counted by hand."""
    arch = parse("4C3p1-MP3s2p1n-[4C1]+identity-BP2s1", input_shape=(7, 6, 1))
    conv, block, pool, readout = plan(arch)
    assert conv.max_pool == MaxPool(3, 2, 1, before_norm=True)
    assert (conv.drive_shape, conv.out_shape) == ((7, 6, 4), (4, 3, 4))
    assert (pool.name, pool.kind, pool.role) == ("maxpool1", "maxpool", "pool")
    assert pool.source == block.name
    assert (pool.in_shape, pool.drive_shape, pool.out_shape) == ((4, 3, 4), (4, 3, 4), (3, 2, 4))
    assert (pool.neuron_shape, conv.neuron_shape) == ((4, 3, 4), (4, 3, 4))
    assert (pool.neurons, pool.macs, pool.parameters) == (0, 0, 0)
    assert (pool.norm, pool.bias) == (False, False)
    assert fan_out_windows(pool).tolist() == [[1, 2, 1], [2, 4, 2], [2, 4, 2], [1, 2, 1]]
    assert readout.in_shape == (3, 2, 4)


def test_pools_go_behind_the_neurons():
    arch = parse("4C3-MP2-4C3-E-5C3-MP3s2p1-[5C1]+identity-8", input_shape=(24, 24, 1))
    moved = pools_behind_neurons(arch, lambda site: site.name == "conv1")
    assert format(moved) == "4C3-MP2-4C3-E-5C3-BP3s2p1-[5C1]+identity-8"
    assert pools_behind_neurons(arch, lambda site: True) == arch
    shapes = {site.name: site.out_shape for site in plan(arch)}
    assert {site.name: shapes.get(site.name) for site in plan(moved)} == shapes | {"maxpool1": None}


def test_max_pooling_of_odd_maps_drops_the_last_row():
    conv2 = site(zoo.csnn_nmnist, "conv2")
    assert conv2.in_shape == (15, 15, 12)
    assert conv2.drive_shape == (11, 11, 64)
    assert conv2.out_shape == (5, 5, 64)
    assert conv2.neurons == 1_600
    assert conv2.macs == 11 * 11 * 64 * 12 * 25


# Fast-SNN counts: weights, biases, norm scale and offset, one clip per activation and per quantised
# hidden weight tensor (all but the first and the last).
@pytest.mark.parametrize(
    ("name", "shape", "classes", "clips", "parameters", "macs"),
    [
        ("fast_alexnet", (32, 32, 3), 10, 11, 11_738_357, 223_399_936),
        ("fast_alexnet", (32, 32, 1), 10, 11, 11_736_629, 221_630_464),
        ("fast_alexnet", (28, 28, 1), 10, 11, 11_736_629, None),
        ("fast_alexnet", (64, 64, 3), 29, 11, 36_943_112, 893_577_216),
        ("fast_vgg11", (32, 32, 3), 10, 19, 34_454_621, 319_528_960),
        ("fast_vgg11", (32, 32, 1), 10, 19, 34_453_469, 318_349_312),
        ("fast_vgg11", (64, 64, 3), 29, 19, 59_698_288, 1_227_739_136),
    ],
)
def test_fast_snn_counts(name, shape, classes, clips, parameters, macs):
    arch = dataclasses.replace(zoo.NAMES[name].arch, input_shape=shape, classes=classes)
    total = totals(arch)
    assert total.parameters + total.norm_parameters // 2 + clips == parameters
    assert macs is None or total.macs == macs


# BayesianSpikeFusion counts leave out the running statistics; MACs leave out the heads.
@pytest.mark.parametrize(
    ("model", "index", "shape", "classes", "trunk", "both", "macs", "share"),
    [
        ("vgg11", 3, (28, 28, 1), 10, 9_222_080, 9_229_780, 133_751_808, 0.435541),
        ("vgg11", 3, (32, 32, 3), 10, 9_223_232, 9_230_932, 152_764_416, 0.505792),
        ("vgg16", 6, (32, 32, 3), 10, 14_718_912, 14_726_612, 313_196_544, 0.608286),
        ("vgg19", 6, (32, 32, 3), 10, 20_029_888, 20_037_588, 398_131_200, 0.478519),
        ("vgg19", 6, (32, 32, 3), 100, 20_029_888, 20_106_888, 398_131_200, 0.478519),
        ("resnet18", 4, (32, 32, 3), 10, 11_521_216, 11_527_636, 576_389_120, 0.519727),
        ("resnet34", 7, (32, 32, 3), 100, 22_192_384, 22_256_584, 1_213_923_328, 0.443719),
    ],
)
def test_bsf_counts(model, index, shape, classes, trunk, both, macs, share):
    arch = zoo.bsf(model, index, input_shape=shape, classes=classes)
    sites = plan(arch)
    body = [site for site in sites if site.role not in ("exit", "readout")]
    assert sum(site.parameters + site.norm_parameters // 2 for site in body) == trunk
    assert sum(site.parameters + site.norm_parameters // 2 for site in sites) == both
    assert sum(site.macs for site in body) == macs
    before = [site.name for site in sites].index("exit1.pool")
    assert sum(site.macs for site in sites[:before]) / macs == pytest.approx(share, abs=5e-7)
    assert share_of_macs(arch) == pytest.approx(share, abs=5e-7)


def test_an_early_classifier_stands_behind_the_block_of_its_index():
    for model, blocks in BLOCKS.items():
        for index in (0, blocks - 2):
            layers = zoo.bsf(model, index).layers
            assert [number for number, layer in enumerate(layers) if layer == Exit()] == [index + 1]
            assert len(layers) == blocks + 1
        assert Exit() not in zoo.bsf(model).layers
        for index in (-2, blocks - 1, blocks):
            with pytest.raises(ValueError, match=rf"ic_index={index}: {model} has blocks 0 to"):
                zoo.bsf(model, index)
    with pytest.raises(ValueError, match="model 'vgg12' is unknown; choose one of vgg11, vgg16"):
        zoo.bsf("vgg12", 1)


# Plan.


def test_plan_of_lenet():
    rows = [
        (site.name, site.kind, site.source, site.in_shape, site.out_shape, site.kernel_shape)
        for site in plan(zoo.lenet_scatter)
    ]
    assert rows == [
        ("conv1", "conv", "input", (28, 28, 1), (28, 28, 16), (5, 5, 1, 16)),
        ("conv2", "conv", "conv1", (28, 28, 16), (24, 24, 16), (5, 5, 16, 16)),
        ("pool1", "conv", "conv2", (24, 24, 16), (12, 12, 16), (2, 2, 16, 16)),
        ("conv3", "conv", "pool1", (12, 12, 16), (8, 8, 32), (5, 5, 16, 32)),
        ("pool2", "conv", "conv3", (8, 8, 32), (4, 4, 32), (2, 2, 32, 32)),
        ("dense1", "dense", "pool2", (4, 4, 32), (256,), (512, 256)),
        ("readout", "dense", "dense1", (256,), (10,), (256, 10)),
    ]
    assert [site.role for site in plan(zoo.lenet_scatter)] == ["activation"] * 6 + ["readout"]
    assert not plan(zoo.lenet_scatter)[-1].norm


def test_projection_is_a_site_before_the_convolution_it_is_added_to():
    arch = parse("8C3p1-[16C3s2p1-16C3p1]+norm-[16C3p1-16C3p1]+identity-[4C1]+bias")
    sites = {site.name: site for site in plan(arch)}
    assert list(sites) == [
        "conv1", "block1.conv1", "block1.shortcut", "block1.conv2", "block2.conv1", "block2.conv2",
        "block3.shortcut", "block3.conv1", "readout",
    ]  # fmt: skip
    projection = sites["block1.shortcut"]
    assert (projection.role, projection.neurons, projection.norm) == ("shortcut", 0, True)
    assert (projection.source, projection.kernel_shape) == ("conv1", (1, 1, 8, 16))
    assert projection.drive_shape == sites["block1.conv2"].drive_shape == (14, 14, 16)
    assert sites["block1.conv2"].source == "block1.conv1"
    assert sites["block1.conv2"].shortcut == "block1.shortcut"
    assert sites["block2.conv2"].shortcut == "block1.conv2"  # the block's input itself
    assert sites["block2.conv1"].shortcut == ""
    assert sites["block3.shortcut"].parameters == 16 * 4 + 4
    assert sites["block3.conv1"].source == sites["block3.shortcut"].source == "block2.conv2"


def test_exits_leave_the_trunk_alone():
    arch = parse("8C3-E-8C3-AP2-E-GP", classes=7, head_bias=True)
    sites = {site.name: site for site in plan(arch)}
    assert list(sites) == [
        "conv1", "exit1.pool", "exit1", "conv2", "avgpool1", "exit2.pool", "exit2", "avgpool2",
        "readout",
    ]  # fmt: skip
    assert sites["conv2"].source == "conv1"
    assert sites["exit1.pool"].out_shape == (1, 1, 8)
    assert sites["exit1"].parameters == 8 * 7 + 7
    assert (sites["exit1"].role, sites["exit1.pool"].role) == ("exit", "pool")
    assert sites["exit2.pool"].source == sites["avgpool2"].source == "avgpool1"
    assert sites["avgpool1"].out_shape == (12, 12, 8)
    assert totals(arch).neurons == 26 * 26 * 8 + 24 * 24 * 8


def test_head_pool_is_a_site():
    sites = plan(zoo.bsf_vgg11)
    assert [site.name for site in sites[-2:]] == ["readout.pool", "readout"]
    assert sites[-1].parameters == 512 * 10 + 10


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "expected", "outputs"),
    [
        (28, 5, 1, "same", (2, 2), 28),
        (28, 3, 2, "same", (0, 1), 14),  # one row is missing, the rule puts it at the end
        (7, 3, 2, "same", (1, 1), 4),
        (28, 2, 1, "same", (0, 1), 28),
        (5, 1, 2, "same", (0, 0), 3),
        (7, 3, 2, 1, (1, 1), 4),
        (28, 3, 2, 1, (1, 1), 14),
        (10, 4, 3, "valid", (0, 0), 3),
    ],
)
def test_padding(size, kernel, stride, padding, expected, outputs):
    conv = Conv(2, kernel, stride, padding)
    assert explicit_padding(conv, size) == expected
    (first, *_) = plan(Arch((conv,), input_shape=(size, size, 1)))
    assert first.drive_shape == (outputs, outputs, 2)
    assert first.padding == (expected, expected)


# Fan-out.


def slow_windows(rows, columns, kernel, stride, padding):
    """Visit every window of every output position, one input position at a time."""
    (top, bottom), (left, right) = padding
    counts = np.zeros((top + rows + bottom, left + columns + right), int)
    for row in range(0, counts.shape[0] - kernel + 1, stride):
        for column in range(0, counts.shape[1] - kernel + 1, stride):
            for i in range(kernel):
                for j in range(kernel):
                    counts[row + i, column + j] += 1
    return counts[top : top + rows, left : left + columns]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(5, 12), columns=st.integers(5, 12), kernel=st.integers(1, 5),
    stride=st.integers(1, 4), padding=st.sampled_from(["valid", "same", 0, 1, 2, 3]),
)  # fmt: skip
def test_fan_out_equals_a_slow_count(rows, columns, kernel, stride, padding):
    (conv, *_) = plan(Arch((Conv(3, kernel, stride, padding),), input_shape=(rows, columns, 2)))
    windows = fan_out_windows(conv)
    np.testing.assert_array_equal(
        windows, slow_windows(rows, columns, kernel, stride, conv.padding)
    )
    assert conv.max_fan_out == 3 * windows.max()


def test_synaptic_operations_of_one_spike():
    """Acceptance check 13: interior 9 C, corner 4 C, learned pool C, dense 10."""
    arch = parse("6C3same-6C3same-P2", pool="conv")
    conv, pool, readout = plan(arch)[1:]
    windows = fan_out_windows(conv)
    assert windows.shape == (28, 28)
    assert windows.dtype == np.int64
    assert windows[13, 5] * 6 == 9 * 6
    assert windows[0, 0] * 6 == windows[27, 0] * 6 == 4 * 6
    assert windows[0, 13] == 6
    assert (fan_out_windows(pool) == 1).all()
    assert fan_out_windows(readout).shape == (14, 14)
    assert readout.max_fan_out == 10


def test_fan_out_behind_dense_and_global_pool():
    arch = parse("4C3-GP-8", input_shape=(6, 7, 1))
    _, pool, dense, readout = plan(arch)
    assert pool.window == (4, 5)
    assert fan_out_windows(pool).tolist() == [[1] * 5] * 4
    assert fan_out_windows(dense).tolist() == [[1]]
    assert fan_out_windows(readout).shape == ()
    assert pool.max_fan_out == 1


def test_a_stride_skips_positions():
    """A 2x2 window with stride 3 leaves every third row and column out."""
    (conv, *_) = plan(parse("4C2s3", input_shape=(5, 5, 1)))
    assert fan_out_windows(conv)[0].tolist() == [1, 1, 0, 1, 1]
    assert fan_out_windows(conv)[2].tolist() == [0] * 5


# Notation.


@pytest.mark.parametrize(
    "text",
    [
        "16C5same-16C5-P2-32C5-P2-256",
        "8C3s2p1b-P2-[8C3p1-8C3same]+identity-E-[16C3s2p1x]+norm-GP-32x-64nb",
        "8C3-AP2-LP2b-MP2-AP3-[4C1]+bias-5",
        "8C3-MP3s2p1-4C3-MP2n-BP2-[4C1]+identity-BP3s1p1-5",
    ],
)
@pytest.mark.parametrize("pool", ["conv", "avg", "max"])
def test_format_returns_our_own_strings(text, pool):
    if pool == "max":
        text = text.replace("P2-[8C3p1", "P2-AP2-[8C3p1")
    arch = parse(text, pool=pool, input_shape=(48, 48, 2))
    canonical = text
    if pool == "avg":
        canonical = text.replace("AP", "P")
    elif pool == "max":
        canonical = text.replace("MP", "P")
    else:
        canonical = text.replace("LP", "P")
    assert format(arch) == canonical
    assert parse(format(arch), **arch.options) == arch


@pytest.mark.parametrize("name", zoo.NAMES)
def test_zoo_is_written_and_read_back(name):
    entry = zoo.NAMES[name]
    assert parse(format(entry.arch), **entry.arch.options) == entry.arch
    assert getattr(zoo, name) is entry.arch


def test_zoo_names_the_original_string():
    entry = zoo.NAMES["lenet_scatter"]
    assert format(entry.arch) == "16C5same-16C5-P2-32C5-P2-256"
    assert entry.original == "16C5-P2-32C5-P2-256"


@pytest.mark.parametrize(
    ("token", "layer"),
    [
        ("16C5", Conv(16, 5, norm=True, bias=False)),
        ("16C5s2same", Conv(16, 5, 2, "same")),
        ("16C5p2b", Conv(16, 5, 1, 2, norm=False, bias=True)),
        ("16C5n", Conv(16, 5)),
        ("16C5nb", Conv(16, 5, norm=True, bias=True)),
        ("16C5x", Conv(16, 5, norm=False, bias=False)),
        ("64", Dense(64, norm=True, bias=False)),
        ("64b", Dense(64, norm=False, bias=True)),
    ],
)
def test_tokens(token, layer):
    assert parse(token).layers == (layer,)


def test_without_norm_synapses_have_a_bias():
    arch = parse("4C3-[4C1]+identity-8-8n-8x", norm=False)
    assert arch.layers == (
        Conv(4, 3, norm=False, bias=True),
        Residual((Conv(4, 1, norm=False, bias=True),), "identity"),
        Dense(8, norm=False, bias=True),
        Dense(8, norm=True, bias=False),
        Dense(8, norm=False, bias=False),
    )
    assert format(arch) == "4C3-[4C1]+identity-8-8n-8x"


def test_the_meanings_of_p():
    assert parse("4C3-P2", pool="avg").layers == (Conv(4, 3), AvgPool(2))
    assert parse("4C3-P2", pool="max").layers == (Conv(4, 3, max_pool=MaxPool(2)),)
    learned = Conv(4, 2, stride=2, learned_pool=True)
    assert parse("4C3-P2", pool="conv").layers == (Conv(4, 3), learned)
    assert parse("4C3-AP2").layers == (Conv(4, 3), AvgPool(2))
    assert parse("4C3-E-LP2").layers == (Conv(4, 3), Exit(), learned)
    assert parse("4C3-[6C1]+norm-LP2").layers[-1] == dataclasses.replace(learned, channels=6)


def test_specs_are_hashable_and_frozen():
    arch = parse("4C3-[4C1]+identity-E-8")
    assert hash(arch) == hash(parse("4C3-[4C1]+identity-E-8"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        arch.classes = 3
    from_lists = Arch([Dense(4)], input_shape=[2, 2, 1])
    assert hash(from_lists) == hash(Arch((Dense(4),), input_shape=(2, 2, 1)))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("16C5-P2", {}, r"token 2 \('P2'\).*pool=\"avg\""),
        ("P2-16C5", {"pool": "avg"}, r"token 1 \('P2'\).*before it"),
        ("GP-16C5", {}, r"token 1 \('GP'\): the first layer"),
        ("E-16C5", {}, r"token 1 \('E'\): the first layer"),
        ("[4C1]+norm", {}, r"token 1 .*: the first layer"),
        ("", {}, r"token 1 \(''\)"),
        ("16C5--8", {}, r"token 2 \(''\)"),
        ("16C5-32D5", {}, r"token 2 \('32D5'\): '32D5' is not a layer; write 16C5"),
        ("16c5", {}, "token 1 .*not a layer"),
        ("16C5-[4C1-P2]+norm", {"pool": "avg"}, r"token 2 .*'P2' is not a layer"),
        ("16C5-[4C1]", {}, "token 2 .*not a layer"),
        ("0C5", {}, r"token 1 \('0C5'\): the number of channels must be.* got 0"),
        ("16C0", {}, "the kernel size must be.* got 0"),
        ("16C5s0", {}, "the stride must be.* got 0"),
        ("0", {}, "the number of units must be.* got 0"),
        ("16C5-AP0", {}, r"token 2 \('AP0'\).*GP"),
        ("16C5-AP2b", {}, r"token 2 \('AP2b'\).*suffix 'b'"),
        ("16C5-8-MP2", {}, r"token 3 \('MP2'\).*convolution right before"),
        ("16C5-MP2-MP2", {}, r"token 3 \('MP2'\).*convolution right before.*or BP"),
        ("16C5-MP3p2", {}, r"token 2 \('MP3p2'\): a max pool of 3 is padded.*not by 2"),
        ("16C5-MP3s0", {}, "the stride of a max pool must be.* got 0"),
        ("16C5-MP2b", {}, "a max pool has no weights; leave out the suffix 'b'"),
        ("16C5b-MP2n", {}, r"token 2 \('MP2n'\): a max pool before a norm.*has none"),
        ("16C5-[16C1]+identity-BP2n", {}, r"token 3 \('BP2n'\): the suffix n .*there is none"),
        ("16C5-AP3s2", {}, r"token 2 \('AP3s2'\): only max pools.*write AP3"),
        ("16C5-BP25", {}, r"token 2 \('BP25'\): max pooling by 25.*\(24, 24, 16\)"),
        ("16C5-8-BP2", {}, r"token 3 \('BP2'\): needs a map"),
        ("BP2-16C5", {}, r"token 1 \('BP2'\).*before it"),
        ("20C5-20C5-9C25", {}, r"token 3 \('9C25'\): its 25x25 window.*\(20, 20, 20\)"),
        ("20C5-AP2-AP13", {}, r"token 3 \('AP13'\): its 13x13 window.*\(12, 12, 20\)"),
        ("20C5-MP25", {}, r"token 1 \('20C5-MP25'\): max pooling by 25.*\(24, 24, 20\)"),
        ("20C5-MP2-4C13", {}, r"token 3 \('4C13'\).*\(12, 12, 20\)"),
        ("256-4C3", {}, r"token 2 \('4C3'\): needs a map.*\(256,\).*before the dense"),
        ("256-E", {}, r"token 2 \('E'\): needs a map"),
        ("256", {"head_pool": True}, "readout: needs a map"),
        ("4C3-[6C1]+identity", {}, r"token 2 .*block1.*\(26, 26, 6\).*identity.*\(26, 26, 4\)"),
        ("4C3-[4C3]+norm", {}, r"block1.*\(24, 24, 4\).*norm.*\(26, 26, 4\)"),
        ("4C3-[4C1s2]+identity", {}, r"block1.*\(13, 13, 4\).*\(26, 26, 4\)"),
        ("8", {"classes": 0}, "classes must be.* got 0"),
        ("8", {"input_shape": (28, 28)}, r"input_shape must be .* got \(28, 28\)"),
        ("8", {"input_shape": (28, 0, 1)}, "input_shape .* got 0"),
        ("8", {"pool": "mean"}, "pool must be .* got 'mean'"),
    ],
)
def test_mistakes_are_named(text, options, message):
    with pytest.raises(ValueError, match=message):
        parse(text, **options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Conv(16, 5, padding="full"), "padding other than.*got 'full'"),
        (lambda: Conv(16, 5, padding=-1), "padding other than.*got -1"),
        (lambda: Conv(16.0, 5), "channels must be an integer.*got 16.0"),
        (lambda: Conv(16, 2, stride=1, learned_pool=True), "learned pool needs stride = kernel"),
        (lambda: Residual((), "norm"), "one or more convolutions"),
        (lambda: Residual((Conv(4, 3, max_pool=MaxPool(2)),), "norm"), "without pooling"),
        (lambda: Residual((Conv(4, 3),), "conv"), "shortcut must be .*got 'conv'"),
        (lambda: AvgPool(-1), "average pooling size.*got -1"),
        (lambda: plan(Arch(())), "no layers"),
        (
            lambda: plan(Arch((Conv(4, 3), Conv(5, 2, 2, learned_pool=True)))),
            r"token 2 \('LP2'\): .*keeps the 4 channels.*channels=5",
        ),
    ],
)
def test_impossible_specs_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# Property: format and parse are inverse on whatever can be built.

SUFFIX = st.tuples(st.booleans(), st.booleans())
MAX_POOLS = st.builds(MaxPool, st.integers(2, 3), st.integers(0, 3), st.integers(0, 1))
CONVS = st.builds(
    lambda channels, kernel, stride, padding, suffix, pool: Conv(
        channels, kernel, stride, padding, *suffix, max_pool=pool
    ),
    st.integers(1, 12), st.integers(1, 3), st.integers(1, 2),
    st.sampled_from(["same", 1, 2]), SUFFIX, st.one_of(st.none(), MAX_POOLS),
)  # fmt: skip


@st.composite
def layer_behind(draw, channels):
    """One layer that fits behind a map with that many channels, and the channels it leaves."""
    kinds = ["conv", "avg", "max", "learned", "identity", "projection", "exit"]
    kind = draw(st.sampled_from(kinds))
    if kind == "max":
        return draw(MAX_POOLS), channels
    if kind == "conv":
        conv = draw(CONVS)
        return conv, conv.channels
    if kind == "avg":
        return AvgPool(draw(st.sampled_from([0, 1, 2]))), channels
    if kind == "learned":
        size = draw(st.integers(1, 2))
        suffix = draw(SUFFIX)
        return Conv(channels, size, size, "valid", *suffix, learned_pool=True), channels
    if kind == "identity":
        inner = Conv(draw(st.integers(1, 9)), 3, 1, "same", *draw(SUFFIX))
        return Residual((inner, Conv(channels, 3, 1, 1, *draw(SUFFIX))), "identity"), channels
    if kind == "projection":
        conv = Conv(draw(st.integers(1, 9)), 3, draw(st.integers(1, 3)), "same", *draw(SUFFIX))
        return Residual((conv,), draw(st.sampled_from(["norm", "bias"]))), conv.channels
    return Exit(), channels


@st.composite
def archs(draw):
    first = draw(CONVS)
    layers, channels = [first], first.channels
    for _ in range(draw(st.integers(0, 3))):
        layer, channels = draw(layer_behind(channels))
        layers.append(layer)
    dense = draw(
        st.lists(st.builds(lambda n, s: Dense(n, *s), st.integers(1, 99), SUFFIX), max_size=2)
    )
    return Arch(
        tuple(layers + dense), classes=draw(st.integers(1, 20)), input_shape=(64, 48, 3),
        pool=draw(st.sampled_from(["avg", "max", "conv", None])), norm=draw(st.booleans()),
        head_pool=not dense and draw(st.booleans()), head_bias=draw(st.booleans()),
        head_neuron=draw(st.booleans()),
    )  # fmt: skip


def fits(arch):
    try:
        plan(arch)
    except ValueError:  # a pool behind a global average finds no map
        return False
    return True


@settings(max_examples=80, deadline=None)
@given(archs().filter(fits))
def test_format_and_parse_are_inverse(arch):
    text = format(arch)
    assert parse(text, **arch.options) == arch
    assert format(parse(text, **arch.options)) == text


@settings(max_examples=40, deadline=None)
@given(archs().filter(fits))
def test_the_plan_is_connected(arch):
    """Every site takes in what an earlier one puts out, and nothing empty; shortcuts fit."""
    outputs = {"input": arch.input_shape}
    drives = {}
    for entry in plan(arch):
        assert entry.name not in outputs
        assert entry.in_shape == outputs[entry.source]
        assert min(entry.out_shape) >= 1
        if entry.shortcut:
            drive = drives.get(entry.shortcut, outputs.get(entry.shortcut))
            assert drive == entry.drive_shape
        outputs[entry.name] = entry.out_shape
        if entry.role == "shortcut":
            drives[entry.name] = entry.drive_shape
    assert math.prod(outputs["readout"]) == arch.classes
