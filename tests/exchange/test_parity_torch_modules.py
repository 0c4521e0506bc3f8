"""Modules of torch become our networks by themselves, and give the same at every layer."""

import numpy as np
import pytest

from jaxsnn.arch.notation import format
from jaxsnn.errors import UserError
from jaxsnn.exchange.pytorch import from_torch

pytestmark = pytest.mark.parity

torch = pytest.importorskip("torch", reason="torch is not installed (extra parity)")
nn, F = torch.nn, torch.nn.functional


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def alive(model):
    """Batch norms with statistics and scales of their own, of either sign."""
    for module in model.modules():
        if getattr(module, "running_var", None) is not None:
            nn.init.uniform_(module.running_var, 0.2, 2.0)
            nn.init.normal_(module.running_mean)
            if module.weight is not None:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model


def taken(model, input_shape, notation):
    """Take a module over; its logits are compared inside, and here once more."""
    height, width, channels = input_shape
    images = torch.randn(4, channels, height, width)
    with torch.no_grad():
        logits = alive(model).eval()(images)
    imported = from_torch(
        model, input_shape=input_shape, reference=(images.numpy(), logits.numpy())
    )
    assert format(imported.arch) == notation
    return imported


def test_a_sequence_of_every_layer():
    model = nn.Sequential(
        nn.Identity(),
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4, eps=1e-3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 8),
        nn.BatchNorm1d(8, affine=False),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(8, 5),
        nn.LogSoftmax(dim=1),
    )
    imported = from_torch(alive(model), input_shape=(20, 12, 2))
    assert format(imported.arch) == "4C3p1-MP2-6C3s2x-AP2-8"
    assert imported.arch.head_bias
    assert imported.arch.classes == 5
    assert model.training  # the module itself stays as it is


class Functional(nn.Module):
    """Everything that functions can do."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3, padding="same")
        self.conv3 = nn.Conv2d(6, 6, 2, padding="valid")
        self.fc1, self.fc2, self.unused = nn.Linear(24, 9), nn.Linear(9, 3), nn.Linear(2, 2)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = torch.relu(torch.max_pool2d(self.conv2(x), 2, 2)).relu()
        x = F.avg_pool2d(torch.relu_(self.conv3(x)), kernel_size=(1, 1))
        x = F.dropout(F.adaptive_avg_pool2d(x, 2), training=self.training)
        x = x.view(x.size(0), -1).reshape(x.shape[0], 24).contiguous()
        return F.softmax(self.fc2(F.dropout(self.fc1(x).relu(), 0.3, self.training)), dim=-1)


def test_functions_and_methods():
    model = Functional()
    imported = from_torch(model, input_shape=(22, 22, 1))
    assert format(imported.arch) == "4C3-MP2-6C3same-MP2-6C2-AP2-9"
    assert not imported.arch.norm
    unused = [row.theirs for row in imported.table.rows if row.note == "not used by the network"]
    assert unused == ["unused.weight", "unused.bias"]


class Block(nn.Module):
    """The block of the first residual networks, as torchvision writes it."""

    def __init__(self, incoming, channels, stride=1, *, bias=False):
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or incoming != channels:
            shortcut = nn.Conv2d(incoming, channels, 1, stride, bias=bias)
            norm = [] if bias else [nn.BatchNorm2d(channels)]
            self.downsample = nn.Sequential(shortcut, *norm)

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """Three convolutions; the shortcut has the shape of the last."""

    def __init__(self, incoming, inner, channels):
        super().__init__()
        sizes = ((incoming, inner, 1), (inner, inner, 3), (inner, channels, 1))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, padding=k // 2) for i, o, k in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o, _ in sizes)
        self.skip = nn.Conv2d(incoming, channels, 1)

    def forward(self, x):
        y = x
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            y = torch.relu(y) if number < 2 else y
        return F.relu(torch.add(self.skip(x), y))


class Residual(nn.Module):
    """A small residual network with a global pool."""

    def __init__(self, *blocks, channels):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU()
        )
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, 10)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def test_residual_blocks():
    model = Residual(Block(4, 4), Block(4, 6, 2), Block(6, 6), channels=6)
    notation = "4C3p1-[4C3p1-4C3p1]+identity-[6C3s2p1-6C3p1]+norm-[6C3p1-6C3p1]+identity"
    assert taken(model, (8, 8, 3), notation).arch.head_pool


def test_a_shortcut_with_a_bias():
    taken(Residual(Block(4, 6, 2, bias=True), channels=6), (8, 8, 3), "4C3p1-[6C3s2p1-6C3p1]+bias")


def test_a_bottleneck_is_told_by_the_graph():
    """The last convolution and the shortcut have one shape; biases before a norm are absorbed."""
    taken(Residual(Bottleneck(4, 2, 7), channels=7), (6, 6, 3), "4C3p1-[2C1-2C3p1-7C1]+bias")


@pytest.mark.parametrize("pool", [lambda x: x.mean((2, 3)), lambda x: x.mean([-1, -2], True)])
def test_global_pools(pool):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(pool(self.conv(x).relu()).flatten(1))

    assert taken(Net(), (7, 5, 1), "4C3").arch.head_pool


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_are_taken_off(wrap):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert format(from_torch(wrap(model), input_shape=(2, 2, 1)).arch) == "3"


def test_a_batch_norm_behind_a_max_pool():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()
    ).append(nn.Linear(16, 2))
    nn.init.uniform_(model[2].weight, 0.1, 1.0)
    nn.init.normal_(model[2].running_mean)
    images = torch.randn(4, 1, 6, 6)
    for scale, notation in ((1.0, "4C3-MP2"), (-1.0, "4C3-MP2n")):
        with torch.no_grad():
            model[2].weight[1] = scale
            reference = (images.numpy(), model.eval()(images).numpy())
        imported = from_torch(model, input_shape=(6, 6, 1), reference=reference)
        assert format(imported.arch) == notation


class PooledBlock(nn.Module):
    """A stem as ImageNet's networks have it, and a max pool behind a residual block."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4)
        self.branch, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(16, 5)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 3, 2, 1)
        x = F.relu(self.branch(x) + x)
        return self.fc(F.max_pool2d(x, 3, stride=2, padding=1).flatten(1))


def test_max_pools_that_overlap_and_are_padded_and_behind_a_block():
    taken(PooledBlock(), (16, 16, 2), "4C3s2p1-MP3s2p1-[4C3p1b]+identity-BP3s2p1")


class Padded(nn.Module):
    """Option A: every second pixel, and zero channels on both sides."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 8, 3, 2, 1)
        self.fc = nn.Linear(8 * 16, 10)

    def forward(self, x):
        x = F.relu(self.stem(x))
        skipped = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.fc(F.relu(self.conv(x) + skipped).flatten(1))


def test_a_padded_shortcut():
    taken(Padded(), (8, 8, 3), "4C3p1-[8C3s2p1]+padded")


CONV = nn.Conv2d(2, 4, 3)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (
            [CONV, nn.Tanh()],
            r"1 \(Tanh\): Tanh: the only activation is a ReLU; put one",
        ),
        ([CONV, nn.Conv2d(4, 4, 3)], r"1 \(Conv2d\): follows 0 \(Conv2d\) without a ReLU"),
        ([nn.Conv2d(2, 4, 3, dilation=2)], r"0 \(Conv2d\): dilation \(2, 2\)"),
        ([nn.Conv2d(2, 4, 3, groups=2)], "groups 2; only groups=1"),
        ([nn.Conv2d(2, 4, (3, 1))], r"no square: \(3, 1\)"),
        ([nn.Conv2d(2, 4, 3, padding=(1, 0))], r"not the same on all sides: \(1, 0\)"),
        ([nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular")], "padding 'circular'"),
        (
            [CONV, nn.ReLU(), nn.MaxPool2d((3, 2))],
            r"2 \(MaxPool2d\): a max pool of windows \(3, 2\) with stride",
        ),
        ([CONV, nn.ReLU(), nn.AvgPool2d(2, padding=1)], "an average pool with padding"),
        (
            [CONV, nn.ReLU(), nn.MaxPool2d(3, ceil_mode=True)],
            r"of 3 that rounds up on a map of \(10, 10\)",
        ),
        ([CONV, nn.AvgPool2d(2), nn.ReLU()], r"an average pool of 0 \(Conv2d\); it must follow"),
        ([CONV, nn.ReLU(), nn.AdaptiveAvgPool2d(7)], "a pool from 10x10 to 7x7"),
        ([CONV, nn.ReLU(), nn.BatchNorm2d(4)], r"2 \(BatchNorm2d\): a batch norm of 1 \(ReLU\)"),
        ([CONV, nn.BatchNorm2d(4, track_running_stats=False)], "without running statistics"),
        ([CONV, nn.ReLU(), nn.Softmax(1)], r"a softmax over axis 1 of \(3, 4, 10, 10\)"),
        ([nn.BatchNorm2d(2)], "a batch norm of the images"),
        ([nn.ReLU()], "a ReLU of the images"),
        ([nn.AvgPool2d(2)], "an average pool of the images"),
    ],
)
def test_what_the_notation_cannot_express_is_named_with_its_place(layers, reason):
    model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(4))
    model(torch.randn(2, 2, 12, 12))
    with pytest.raises(UserError, match=reason) as caught:
        from_torch(model, input_shape=(12, 12, 2))
    assert "\n" not in str(caught.value)


class Body(nn.Module):
    """Two convolutions and a head, put together by a function."""

    def __init__(self, together):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.c, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(64, 2)
        self.weight = nn.Parameter(torch.ones(4, 4, 4))
        self.together = together

    def forward(self, x):
        return self.together(self, x)


def flat(net, x):
    return net.fc(x.flatten(1))


def first(net, x):
    return net.a(x).relu()


def in_place(net, x):
    y = net.a(x)
    F.relu_(y)
    return flat(net, y)


def two_activations(net, x):
    y = first(net, x)
    return flat(net, y + net.b(y).relu())


def no_activation_behind_the_sum(net, x):
    y = first(net, x)
    return flat(net, y + net.c(net.b(y).relu()))


def depends_on_values(net, x):
    return flat(net, x) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("together", "reason"),
    [
        (two_activations, r"adds relu, line \d+ of .* and relu_1, line \d+ of .*no residual block"),
        (no_activation_behind_the_sum, r"fc \(Linear\): follows add, line .* without a ReLU"),
        (in_place, r"relu_, line \d+ of test_parity_torch_modules.py: changes a tensor in place"),
        (
            depends_on_values,
            r"Body: .*, line \d+ of test_parity_torch.*; give its state",
        ),
        (lambda net, x: flat(net, net.b(net.b(first(net, x)).relu()).relu()), "b is used twice"),
        (lambda net, x: flat(net, first(net, x) * 2), "mul: the notation has no such layer"),
        (lambda net, x: flat(net, first(net, x) + 1), "an addition of something else"),
        (lambda net, x: flat(net, first(net, x) + net.weight), "get_attr: a tensor that is used"),
        (lambda net, x: flat(net, F.dropout(first(net, x))), "a dropout that is active"),
        (lambda net, x: flat(net, F.relu6(net.a(x))), "relu6: the only activation is a ReLU"),
        (lambda net, x: flat(net, net.a(x).clamp(0, 1)), "clamps to 0 and 1; only min=0 alone"),
        (lambda net, x: flat(net, torch.add(net.b(first(net, x)), x, alpha=2)), "with alpha=2"),
        (lambda net, x: flat(net, first(net, x)).relu(), "ends here, and not with a dense layer"),
        (lambda net, x: first(net, x).flatten(1), "ends here, and not with a dense layer"),
        (lambda net, x: flat(net, first(net, x).transpose(2, 3)), "transpose: the notation has"),
        (lambda net, x: net.fc(first(net, x).view(-1, 64).repeat(2, 1)), "repeat: the notation"),
        (lambda net, x: net.fc(first(net, x).view(-1, 32).view(-1, 64)), "mixes the images"),
        (lambda net, x: (flat(net, first(net, x)), x), "several outputs"),
        (lambda net, x: net.fc(net.a(x)), r"fails on images \(3, 1, 4, 4\): mat1 and mat2"),
    ],
)
def test_functions_that_the_notation_cannot_express(together, reason):
    with pytest.raises(UserError, match=reason) as caught:
        from_torch(Body(together), input_shape=(4, 4, 1))
    assert "\n" not in str(caught.value)


def test_a_reference_that_is_not_the_modules():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    images = torch.randn(4, 1, 2, 2)
    logits = model(images).detach().numpy()
    from_torch(model, input_shape=(2, 2, 1), reference=(images.numpy(), logits))
    with pytest.raises(UserError, match="the module itself gives other logits"):
        from_torch(model, input_shape=(2, 2, 1), reference=(images.numpy(), logits + 1))
    with pytest.raises(UserError, match=r"reference images .*: wanted \[B, 1, 2, 2\]"):
        from_torch(model, input_shape=(2, 2, 1), reference=(np.zeros((4, 2, 2, 1)), logits))


def test_a_reference_may_be_tensors_and_the_modules_own_answer():
    """With gradients, and behind the softmax that the module ends with."""
    layers = (nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.LogSoftmax(1))
    model, images = nn.Sequential(*layers), torch.randn(4, 1, 2, 2)
    from_torch(model, input_shape=(2, 2, 1), reference=(images, model(images)))
    with pytest.raises(UserError, match=r"reference logits \(1, 2\): wanted \(4, 2\)"):
        from_torch(model, input_shape=(2, 2, 1), reference=(images, model(images[:1])))
    with pytest.raises(UserError, match=r"takes two arrays, \(images, logits\), got Tensor"):
        from_torch(model, input_shape=(2, 2, 1), reference=images)


def test_a_layer_that_differs_is_named_where_the_logits_hide_it():
    """A hook doubles what the first layer gives, which these logits hardly depend on."""
    first, last = nn.Conv2d(1, 3, 3), nn.Linear(48, 2)
    nn.init.constant_(last.weight, 1e-5)
    first.register_forward_hook(lambda module, images, drive: 2 * drive)
    model = nn.Sequential(first, nn.ReLU(), nn.Flatten(), last)
    with pytest.raises(UserError, match=r"first layer to differ is conv1 \(0 \(Conv2d\)\), by 0.5"):
        from_torch(model, input_shape=(6, 6, 1))


def pruned(model):
    pytest.importorskip("torch.nn.utils.prune").l1_unstructured(model[1], "weight", 0.5)


def normalised(model):
    nn.utils.parametrizations.weight_norm(model[1])


def without_values(model):
    model[1] = nn.LazyLinear(3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (pruned, r"1 \(Linear\): its weight is computed from others \(weight_orig\)"),
        (normalised, r"1 \(ParametrizedLinear\): its weight is computed from others"),
        (without_values, "1.weight: has no values yet; load its weights"),
        (lambda model: model.to("meta"), "1.weight: has no values yet"),
        (lambda model: setattr(model, "rows", (row for row in ())), "cannot be copied"),
    ],
)
def test_modules_whose_weights_cannot_be_read_are_refused_in_one_line(change, reason):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    change(model)
    with pytest.raises(UserError, match=reason) as caught:
        from_torch(model, input_shape=(2, 2, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_compiled_module_is_refused():
    model = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    with pytest.raises(UserError, match="give the module that it was made of"):
        from_torch(model, input_shape=(2, 2, 1))


class Optional(nn.Module):
    """A network whose forward has more arguments than images, each with a default."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

    def forward(self, x, target=None, *, features=False):
        x = F.adaptive_avg_pool2d(F.dropout2d(self.conv(x).clamp(min=0), 0.5, self.training), 1)
        if features:
            return x
        logits = self.fc(x.squeeze(-1).squeeze(-1) if target is None else x[:, :, 0, 0])
        return logits if target is None else F.cross_entropy(logits, target)


def test_arguments_beside_the_images_keep_their_defaults():
    model = Optional()
    assert taken(model, (7, 5, 1), "4C3").arch.head_pool
    assert type(model) is Optional


def test_the_first_layer_that_differs_is_named(monkeypatch):
    """Here the values of the second layer are said to be others."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2)
    )
    from jaxsnn.exchange import torch_module

    original = torch_module.trace

    def wrong(module, images):
        graph = original(module, images)
        later = [name for name in graph.values if name not in ("images", "_0", "_1")]
        return graph._replace(values={**graph.values, **{n: 2 * graph.values[n] for n in later}})

    monkeypatch.setattr(torch_module, "trace", wrong)
    with pytest.raises(UserError, match=r"the first layer to differ is conv2 \(2 \(Conv2d\)\)"):
        from_torch(model, input_shape=(6, 6, 1))


def test_what_a_module_says_itself_is_not_given_again():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    for options in ({}, {"input_shape": (2, 2, 1), "epsilon": 1e-3}):
        with pytest.raises(UserError, match="needs input_shape= of a module"):
            from_torch(model, **options)
