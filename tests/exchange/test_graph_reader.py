"""Graphs become notation, each step in its place; written by hand, without torch."""

import math

import pytest

from jaxsnn.arch.layers import MaxPool
from jaxsnn.arch.notation import format
from jaxsnn.arch.plan import plan
from jaxsnn.errors import UserError
from jaxsnn.exchange.graph import (
    Average,
    BatchNorm,
    Graph,
    MoreChannels,
    Plain,
    Start,
    Step,
    Strided,
    Synapse,
)
from jaxsnn.exchange.graph_reader import read_graph
from jaxsnn.exchange.torch_calls import Call, operation_of


class Sheet:
    """Writes steps down and works out their shapes (channels, height, width)."""

    def __init__(self, *shape):
        self.steps = []
        self.images = self.add(Start(), (), shape)

    def add(self, operation, inputs, shape):
        name = f"s{len(self.steps)}"
        names = tuple(each.name for each in inputs)
        self.steps.append(Step(name, f"place of {name}", operation, names, shape))
        return self.steps[-1]

    def conv(self, x, channels, kernel=1, stride=1, bias=False):
        path = f"layer{len(self.steps)}"
        synapse = Synapse(path, "conv", channels, bias, kernel, stride, kernel // 2 or "valid")
        sizes = [(size - 1) // stride + 1 for size in x.shape[1:]]
        return self.add(synapse, [x], (channels, *sizes))

    def dense(self, x, units, bias=False):
        synapse = Synapse(f"layer{len(self.steps)}", "dense", units, bias)
        return self.add(synapse, [x], (units,))

    def norm(self, x, rising=False):
        return self.add(BatchNorm(f"norm{len(self.steps)}", 1e-5, rising), [x], x.shape)

    def pool(self, x, kind, size):
        sizes = [each // size if size else 1 for each in x.shape[1:]]
        pool = Average(size) if kind == "avg" else MaxPool(size)
        return self.add(pool, [x], (x.shape[0], *sizes))

    def overlapping(self, x, size, stride, padding):
        pool = MaxPool(size, stride, padding)
        return self.add(pool, [x], (x.shape[0], *map(pool.outputs, x.shape[1:])))

    def strided(self, x, stride):
        sizes = [-(-each // stride) for each in x.shape[1:]]
        return self.add(Strided(stride), [x], (x.shape[0], *sizes))

    def more_channels(self, x, before, behind):
        channels = x.shape[0] + before + behind
        return self.add(MoreChannels(before, behind), [x], (channels, *x.shape[1:]))

    def plain(self, kind, *inputs):
        shape = inputs[0].shape
        shape = (math.prod(shape),) if kind == "flatten" else shape
        return self.add(Plain(kind), inputs, shape)

    def relu(self, x):
        return self.plain("relu", x)

    def read(self, end):
        return read_graph(Graph(tuple(self.steps), end.name, {}))

    def head(self, x):
        return self.read(self.dense(self.plain("flatten", x), 3))


def test_a_chain():
    sheet = Sheet(2, 8, 6)
    first = sheet.norm(sheet.conv(sheet.images, 4, 3, bias=True))
    x = sheet.pool(sheet.relu(first), "max", 2)
    second = sheet.conv(sheet.plain("same", x), 5, bias=True)
    x = sheet.relu(sheet.relu(second))  # twice is once
    x = sheet.plain("flatten", sheet.pool(x, "avg", 3))
    hidden = sheet.dense(x, 7)
    head = sheet.dense(sheet.relu(hidden), 3, bias=True)
    reading = sheet.read(sheet.plain("softmax", head))
    assert format(reading.arch) == "4C3p1-MP2-5C1b-AP3-7x"
    assert reading.arch.input_shape == (8, 6, 2)
    assert reading.arch.head_bias
    assert reading.arch.classes == 3
    assert reading.logits == head.name
    assert {site: part.synapse.path for site, part in reading.parts.items()} == {
        "conv1": "layer1",
        "conv2": second.operation.path,
        "dense1": hidden.operation.path,
        "readout": head.operation.path,
    }
    assert reading.parts["conv1"].norm.path == "norm2"
    assert reading.parts["conv2"].norm is None
    shapes = {step.name: step.shape for step in sheet.steps}
    for site in plan(reading.arch):
        if site.name in reading.parts:
            channels, *rest = shapes[reading.parts[site.name].step]
            assert (*rest, channels) == site.out_shape


@pytest.mark.parametrize("pool_first", [True, False])
def test_a_max_pool_may_stand_on_either_side_of_the_activation(pool_first):
    sheet = Sheet(1, 4, 4)
    x = sheet.conv(sheet.images, 2)
    x = sheet.pool(x, "max", 2) if pool_first else sheet.relu(x)
    x = sheet.relu(x) if pool_first else sheet.pool(x, "max", 2)
    reading = sheet.head(x)
    assert format(reading.arch) == "2C1x-MP2"
    assert reading.parts["conv1"].step == x.name


def block(sheet, x, channels, stride, shortcut):
    first = sheet.conv(x, channels, 3, stride)
    inner = sheet.relu(sheet.norm(first))
    second = sheet.conv(inner, channels, 3)
    branch = sheet.norm(second)
    beside = x
    if shortcut:
        beside = sheet.conv(x, channels, 1, stride, bias=shortcut == "bias")
        beside = sheet.norm(beside) if shortcut == "norm" else beside
    total = sheet.plain("add", *((beside, branch) if stride == 1 else (branch, beside)))
    return sheet.relu(total)


def test_residual_blocks_of_every_shortcut():
    sheet = Sheet(3, 8, 8)
    x = sheet.relu(sheet.norm(sheet.conv(sheet.images, 4, 3)))
    x = block(sheet, x, 4, 1, None)
    x = block(sheet, x, 6, 2, "norm")
    x = block(sheet, x, 6, 1, "bias")
    reading = sheet.head(sheet.pool(x, "avg", 0))
    assert format(reading.arch) == (
        "4C3p1-[4C3p1-4C3p1]+identity-[6C3s2p1-6C3p1]+norm-[6C3p1-6C3p1]+bias"
    )
    assert reading.arch.head_pool
    kernels = {site: part.synapse.kernel for site, part in reading.parts.items()}
    assert kernels["block2.shortcut"] == kernels["block3.shortcut"] == 1
    assert kernels["block2.conv1"] == kernels["block2.conv2"] == 3
    shapes = {step.name: step.shape for step in sheet.steps}
    for site in plan(reading.arch):
        if site.name in reading.parts:
            channels, *rest = shapes[reading.parts[site.name].step]
            assert (*rest, channels) == site.out_shape


def refused(make, reason):
    sheet = Sheet(2, 8, 8)
    with pytest.raises(UserError, match=reason):
        make(sheet)


def conv(sheet):
    return sheet.conv(sheet.images, 4, 3)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda s: s.head(s.conv(conv(s), 4)), "place of s2: follows place of s1 without a ReLU"),
        (lambda s: s.read(s.dense(s.relu(conv(s)), 3)), r"a dense layer of the map \(4, 8, 8\)"),
        (lambda s: s.head(s.relu(s.images)), "a ReLU of the images"),
        (lambda s: s.head(s.norm(s.relu(conv(s)))), "a batch norm of place of s2"),
        (lambda s: s.head(s.norm(s.norm(conv(s)))), "a batch norm of place of s1"),
        (lambda s: s.head(s.norm(s.plain("flatten", conv(s)))), "a batch norm of a flattened map"),
        (lambda s: s.head(s.relu(s.pool(conv(s), "avg", 2))), "an average pool of place of s1"),
        (lambda s: s.head(s.pool(s.images, "max", 2)), "a max pool of place of s0"),
        (lambda s: s.read(conv(s)), "ends here, and not with a dense layer"),
        (lambda s: s.read(s.relu(s.dense(s.plain("flatten", s.images), 3))), "ends here"),
        (lambda s: s.read(s.norm(s.dense(s.plain("flatten", s.images), 3))), "behind the logits"),
        (lambda s: s.head(s.plain("softmax", s.relu(conv(s)))), "a softmax of what are no logits"),
        (lambda s: s.head(s.relu(s.plain("softmax", conv(s)))), "behind a softmax"),
    ],
)
def test_steps_without_notation(make, reason):
    refused(make, reason)


def test_a_dense_layer_alone_has_no_neurons():
    def alone(sheet):
        sheet.read(sheet.dense(sheet.plain("flatten", sheet.images), 5))

    refused(alone, "the whole network; a layer and a ReLU must stand before it")


def test_max_pools_behind_anything():
    def twice(sheet):
        return sheet.pool(sheet.relu(conv(sheet)), "max", 2)

    def behind_a_block(sheet):
        return block(sheet, sheet.relu(conv(sheet)), 4, 1, None)

    def behind_an_average(sheet):
        return sheet.pool(sheet.relu(conv(sheet)), "avg", 2)

    for make, text in (
        (twice, "4C3p1x-MP2-BP3s2p1"),
        (behind_a_block, "4C3p1x-[4C3p1-4C3p1]+identity-BP3s2p1"),
        (behind_an_average, "4C3p1x-AP2-BP3s2p1"),
    ):
        sheet = Sheet(2, 8, 8)
        pool = sheet.overlapping(make(sheet), 3, 2, 1)
        reading = sheet.head(pool)
        assert format(reading.arch) == text
        (last,) = [site for site in plan(reading.arch) if site.kind == "maxpool"]
        channels, *rest = pool.shape
        assert last.out_shape == (*rest, channels)
        assert last.name not in reading.parts

    def of_a_sum(sheet):
        x = sheet.relu(conv(sheet))
        sheet.head(sheet.relu(sheet.pool(sheet.plain("add", x, sheet.conv(x, 4)), "max", 2)))

    refused(of_a_sum, "a max pool of place of .*; it must follow a convolution or a ReLU")


@pytest.mark.parametrize(("rising", "text"), [(True, "4C3p1-MP3s2"), (False, "4C3p1-MP3s2n")])
def test_a_norm_of_any_sign_behind_a_max_pool(rising, text):
    sheet = Sheet(2, 8, 8)
    x = sheet.norm(sheet.overlapping(conv(sheet), 3, 2, 0), rising)
    reading = sheet.head(sheet.relu(x))
    assert format(reading.arch) == text
    assert reading.parts["conv1"].norm == x.operation


def test_shortcuts_of_strides_and_zero_channels():
    def of(sheet, channels=7, strides=(2,), before=1, behind=2):
        x = sheet.relu(sheet.norm(conv(sheet)))
        branch = sheet.conv(sheet.relu(sheet.norm(sheet.conv(x, channels, 3, 2))), channels, 3)
        for stride in strides:
            x = sheet.strided(x, stride)
        x = sheet.more_channels(x, before, behind)
        return sheet.head(sheet.relu(sheet.plain("add", x, sheet.norm(branch))))

    assert format(of(Sheet(2, 8, 8)).arch) == "4C3p1-[7C3s2p1-7C3p1]+padded"
    refused(lambda s: of(s, 7, (2,), 2, 1), "2 channels of zeros before and 1 behind")
    refused(lambda s: of(s, 8, (2,), 1, 2), "which are no residual block")

    def slow(sheet):
        x = sheet.relu(conv(sheet))
        branch = sheet.conv(sheet.relu(sheet.conv(x, 4, 3, 4)), 4, 3)
        sheet.head(sheet.relu(sheet.plain("add", sheet.strided(x, 5), branch)))

    refused(slow, "a shortcut of stride 5, where its branch has 4")
    refused(lambda s: s.head(s.relu(s.strided(conv(s), 2))), "only what a shortcut adds")


def test_sums_that_are_no_residual_blocks():
    def of_activations(sheet):
        x = sheet.relu(conv(sheet))
        sheet.head(sheet.relu(sheet.plain("add", x, sheet.relu(sheet.conv(x, 4)))))

    def of_the_images(sheet):
        sheet.head(sheet.relu(sheet.plain("add", sheet.images, sheet.conv(sheet.images, 2))))

    def of_a_stranger(sheet):
        x, other = sheet.relu(conv(sheet)), sheet.relu(conv(sheet))
        sheet.head(sheet.relu(sheet.plain("add", other, sheet.conv(x, 4))))

    def of_three(sheet):
        x = sheet.relu(conv(sheet))
        total = sheet.plain("add", x, sheet.conv(x, 4))
        sheet.head(sheet.relu(sheet.plain("add", x, total)))

    def broadcast(sheet):
        x = sheet.relu(conv(sheet))
        small = sheet.pool(x, "avg", 0)
        sheet.head(sheet.relu(sheet.plain("add", small, sheet.conv(x, 4))))

    def pooled(sheet):
        x = sheet.relu(conv(sheet))
        inner = sheet.pool(sheet.relu(sheet.conv(x, 4)), "max", 1)
        sheet.head(sheet.relu(sheet.plain("add", x, sheet.conv(inner, 4))))

    for make in (of_activations, of_the_images, of_a_stranger, of_three, broadcast, pooled):
        refused(make, "which are no residual block")


def test_projections_that_are_none_of_ours():
    def large(sheet):
        x = sheet.relu(conv(sheet))
        branch = sheet.conv(sheet.relu(sheet.conv(x, 4, 3)), 4, 3)
        sheet.head(sheet.relu(sheet.plain("add", branch, sheet.conv(x, 4, 3, bias=True))))

    def bare(sheet):
        x = sheet.relu(conv(sheet))
        branch = sheet.conv(sheet.relu(sheet.conv(x, 4, 3)), 4, 3)
        sheet.head(sheet.relu(sheet.plain("add", branch, sheet.conv(x, 4))))

    refused(large, "a shortcut that is no 1x1 convolution")
    refused(bare, "a shortcut with neither batch norm nor bias")


def call(kind, inputs, shape, **settings):
    return Call("here", kind, "", None, settings, tuple(inputs), shape)


MAP = (3, 4, 12, 8)
ALL, TWO, ONE = slice(None), slice(None, None, 2), slice(1, None)


@pytest.mark.parametrize(
    ("made", "operation"),
    [
        (call("max_pool2d", [MAP], (3, 4, 6, 4), kernel_size=2), MaxPool(2)),
        (
            call("max_pool2d", [MAP], (3, 4, 6, 4), kernel_size=(3, 3), stride=2, padding=1),
            MaxPool(3, 2, 1),
        ),
        (call("max_pool2d", [MAP], (3, 4, 5, 3), kernel_size=3, stride=2), MaxPool(3, 2)),
        (call("max_pool2d", [(3, 4, 8, 8)], (3, 4, 1, 1), kernel_size=8), MaxPool(8)),
        (call("max_pool2d", [MAP], MAP, kernel_size=1), Plain("same")),
        (call("avg_pool2d", [MAP], (3, 4, 4, 2), kernel_size=(3, 3), stride=3), Average(3)),
        (call("avg_pool2d", [MAP], (3, 4, 1, 1), kernel_size=(12, 8), stride=1), Average(0)),
        (call("avg_pool2d", [MAP], MAP, kernel_size=1), Plain("same")),
        (call("adaptive_avg_pool2d", [MAP], (3, 4, 3, 2), output_size=0), Average(4)),
        (call("adaptive_avg_pool2d", [MAP], (3, 4, 1, 1), output_size=1), Average(0)),
        (call("adaptive_avg_pool2d", [MAP], MAP, output_size=0), Plain("same")),
        (call("mean", [MAP], (3, 4), dim=(2, 3)), Average(0)),
        (call("mean", [MAP], (3, 4, 1, 1), dim=[-1, -2], keepdim=True), Average(0)),
        (call("getitem", [MAP], (3, 4, 6, 4), index=(ALL, ALL, TWO, TWO)), Strided(2)),
        (call("getitem", [MAP], (3, 4, 6, 4), index=(..., TWO, TWO)), Strided(2)),
        (call("getitem", [MAP], MAP, index=ALL), Plain("same")),
        (call("pad", [MAP], (3, 7, 12, 8), pad=(0, 0, 0, 0, 1, 2)), MoreChannels(1, 2)),
        (call("view", [MAP], (3, 384)), Plain("flatten")),
        (call("squeeze", [(3, 4, 1, 1)], (3, 4, 1)), Plain("flatten")),
        (call("getitem", [(3, 4, 1, 1)], (3, 4), index=(ALL, ALL, 0, 0)), Plain("flatten")),
        (call("getitem", [(3, 4, 1, 1)], (3, 4), index=(..., 0, -1)), Plain("flatten")),
        (call("clamp", [MAP], MAP, min=0), Plain("relu")),
        (call("float", [MAP], MAP), Plain("same")),
        (call("clamp_min", [MAP], MAP, min=0.0), Plain("relu")),
        (call("dropout2d", [MAP], MAP, training=False), Plain("same")),
        (call("reshape", [(3, 5)], (3, 5)), Plain("same")),
        (call("dropout", [MAP], MAP, p=0.5, training=False), Plain("same")),
        (call("add", [MAP, MAP], MAP), Plain("add")),
        (call("log_softmax", [(3, 5)], (3, 5), dim=-1), Plain("softmax")),
        (call("relu", [MAP], MAP), Plain("relu")),
    ],
)
def test_calls_of_functions(made, operation):
    assert operation_of(made) == operation


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (call("max_pool2d", [MAP], (3, 4, 6, 4), kernel_size=3, stride=2), "of 3 that rounds up"),
        (call("max_pool2d", [MAP], (3, 4, 6, 4), kernel_size=(2, 1), stride=(2, 1)), "windows"),
        (call("max_pool2d", [MAP], (3, 4, 3, 3), kernel_size=(4, 4), dilation=2), "dilation"),
        (call("max_pool2d", [MAP], (3, 4, 1, 1), kernel_size=(12, 8)), "only squares"),
        (call("avg_pool2d", [MAP], (3, 4, 6, 4), kernel_size=3, stride=2, padding=1), "padding"),
        (call("avg_pool2d", [MAP], (3, 4, 6, 4), kernel_size=2, divisor_override=3), "a divisor"),
        (call("avg_pool2d", [MAP], (3, 4, 3, 2), kernel_size=5), "of 5 that rounds up"),
        (call("adaptive_avg_pool2d", [MAP], (3, 4, 5, 2)), "from 12x8 to 5x2"),
        (call("adaptive_avg_pool2d", [MAP], (3, 4, 6, 2)), "from 12x8 to 6x2"),
        (call("mean", [MAP], (3, 12, 8), dim=1), r"a mean over axes \(1,\)"),
        (call("mean", [MAP], (3,), dim=(1, 2, 3)), "a mean over axes"),
        (call("view", [MAP], (3, 12, 32)), "turns"),
        (call("view", [MAP], (6, 192)), "mixes the images of a batch"),
        (call("mean", [MAP], ()), "mixes the images of a batch"),
        (call("dropout", [MAP], MAP), "active in evaluation"),
        (call("add", [MAP], MAP), "something else than two layers"),
        (call("add", [MAP, MAP], MAP, alpha=2), "alpha=2; fold it into the weights"),
        (call("clamp", [MAP], MAP, min=0, max=6), "clamps to 0 and 6; only min=0"),
        (call("dropout2d", [MAP], MAP), "active in evaluation"),
        (call("squeeze", [(3, 4, 1, 1)], (3, 1, 4)), "turns"),
        (call("view", [(3, 4)], (3, 4, 1)), "turns"),
        (call("getitem", [(3, 4, 1, 1)], (3, 4), index=(ALL, [1, 0, 2, 3], 0, 0)), "only pixels"),
        (call("LeakyReLU", [MAP], MAP), "LeakyReLU: the only activation is a ReLU; put one there"),
        (call("mul", [MAP], MAP), "normalise images before the module"),
        (call("softmax", [MAP], MAP, dim=1), "a softmax over axis 1"),
        (call("Conv1d", [(3, 4, 5)], (3, 4, 3)), "Conv1d: the notation has no such layer"),
        (call("", [MAP], MAP), "code that is not torch's"),
        (call("pad", [MAP], (3, 4, 14, 10), pad=(1, 1, 1, 1)), "only channels of zeros"),
        (call("pad", [MAP], (3, 6, 12, 8), pad=(0, 0, 0, 0, 1, 1), value=1.0), "with 1.0"),
        (
            call("pad", [MAP], (3, 6, 12, 8), pad=(0, 0, 0, 0, 1, 1), mode="circular"),
            "'circular'",
        ),
        (call("getitem", [MAP], (3, 4, 6, 8), index=(ALL, ALL, TWO)), "only pixels at a stride"),
        (call("getitem", [MAP], (3, 4, 11, 7), index=(ALL, ALL, ONE, ONE)), "only pixels"),
        (call("getitem", [MAP], (3, 12, 8), index=(ALL, 0)), "only pixels at a stride"),
    ],
)
def test_calls_without_notation(made, reason):
    with pytest.raises(UserError, match=f"^here: .*{reason}"):
        operation_of(made)
