"""Residual blocks of signed neurons: the shortcut's charge is inside the block's second neuron."""

import jax
import numpy as np
import pytest
import reference as ref
from clipped_networks import UNITS, _norm, _synapse, ann_of, tree

from jaxsnn import certify, convert, init_variables, methods, settle, simulate
from jaxsnn.arch import zoo
from jaxsnn.arch.plan import parse, plan
from jaxsnn.inputs.preprocess import unchanged
from jaxsnn.network.net import Net, forward, template
from jaxsnn.network.per_site import SiteMap, hidden
from jaxsnn.network.weight_quantisers import full_precision
from jaxsnn.neurons.activations import clipped_relu
from jaxsnn.training import finetune, finetune_step

TEXT = "4C3p1-[6C3s2p1-6C3p1]+norm-[6C3p1-6C3p1]+identity"
PADDED = "4C3p1-[7C3s2p1-7C3p1]+padded-[7C3p1-7C3p1]+identity"  # 3 more channels: 1 and 2
BITS, STEPS = 3, 7


def padded(values, site):
    """What option A adds to a drive, pixel by pixel."""
    rows, columns, channels = site.drive_shape
    more = (channels - values.shape[-1]) // 2
    added = np.zeros((len(values), rows, columns, channels))
    stride = values.shape[1] // rows
    for row, column in np.ndindex(rows, columns):
        pixel = values[:, row * stride, column * stride]
        added[:, row, column, more : more + values.shape[-1]] = pixel
    return added


class Residual:
    """A random network, and slow float64 passes over it written from the definition of a block."""

    def __init__(self, seed, gammas="with_zero", text=TEXT):
        rng = np.random.default_rng(seed)
        self.arch = parse(text, input_shape=(6, 6, 2), classes=4, head_pool=True, head_bias=True)
        self.images = rng.integers(-200, 201, (6, 6, 6, 2)).astype(np.int16)
        self.layers = {}

        def drawn(site, x):
            layer = self.layers[site.name] = _synapse(rng, site, BITS)
            return layer | (_norm(rng, ref.synapse(layer, x), gammas) if site.norm else {})

        def fire(site, layer, z):
            layer["clip"] = float(np.float32(rng.uniform(1, 3)))
            return layer["clip"] * ref.clipped_level(z, layer["clip"], BITS) / STEPS

        self.one_pass(fire, drawn)
        self.variables = tree(list(self.layers.values()))

    def one_pass(self, fire, layer_of=None):
        """Values of every site; ``fire`` says what the neurons of a site emit for their charge."""
        values = {"input": self.images * UNITS.scale}
        for site in plan(self.arch):
            x = values[site.source]
            if site.kind == "avgpool":
                values[site.name] = x.mean((1, 2))
                continue
            layer = self.layers[site.name] = (
                layer_of(site, x) if layer_of else self.layers[site.name]
            )
            z = ref.charge(layer, x)
            if site.shortcut:
                z = z + padded(values[site.shortcut], site)
            values[site.name] = fire(site, layer, z) if site.role == "activation" else z
        return values

    def snn(self, **options):
        method = methods.signed_if(bits=BITS, **options)
        return convert(self.variables, self.arch, method, encoding=UNITS)

    def levels(self):
        """Levels of the float64 ANN, halves up, and the logits."""
        levels = {}

        def fire(site, layer, z):
            levels[site.name] = ref.clipped_level(z, layer["clip"], BITS, up=True)
            return layer["clip"] * levels[site.name] / STEPS

        return levels, self.one_pass(fire)["readout"]

    def spikes(self):
        """Net counts of the unfolded network after T steps, float64, and the mean logits."""
        state, counts = {}, {}

        def fire(site, layer, z):
            theta = layer["clip"]
            v, net = state.get(site.name, theta / 2) + z, counts.get(site.name, 0)
            up = v >= theta
            v, net = v - theta * up, net + up
            down = (v <= -1e-3) & (net > 0)
            state[site.name], counts[site.name] = v + theta * down, net - down
            return theta * (up.astype(int) - down)

        return counts, np.mean([self.one_pass(fire)["readout"] for _ in range(STEPS)], axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("gammas", ["positive", "mixed", "with_zero"])
@pytest.mark.parametrize("text", [TEXT, PADDED])
def test_a_residual_network_settles_on_its_quantised_ann(gammas, text):
    net = Residual(0, gammas, text)
    proof = certify(net.snn(settling=True), net.variables, net.images, steps=200, settle=True)
    assert proof.equality == "exact after settling"
    assert proof.mismatches == 0
    levels, _ = net.levels()
    trace = settle(net.snn(settling=True), net.images, steps=200, counts=True)
    for name, level in levels.items():
        np.testing.assert_array_equal(trace.counts[name], level, err_msg=name)


@pytest.mark.parametrize(("seed", "text"), [(1, TEXT), (2, PADDED)])
def test_every_step_is_that_of_the_unfolded_network(seed, text):
    net = Residual(seed, text=text)
    trace = simulate(net.snn(), net.images, steps=STEPS, block=STEPS, counts=True)
    counts, logits = net.spikes()
    for name, count in counts.items():
        np.testing.assert_array_equal(trace.counts[name], count, err_msg=name)
    unit = net.snn().unit("readout")
    rounding = STEPS * unit / 2  # of the head's bias on its grid
    np.testing.assert_allclose(np.asarray(trace.readout[-1]) * unit, logits, atol=rounding + 1e-6)


@pytest.mark.parametrize("text", [TEXT, PADDED])
def test_the_ann_is_the_one_of_the_definition(text):
    net = Residual(3, text=text)
    out = forward(ann_of(net.arch, BITS, "up"), net.variables, net.images * UNITS.scale)
    _, logits = net.levels()
    np.testing.assert_allclose(out.readouts[-1][0], logits, atol=1e-4)


def test_a_wrong_gain_of_the_shortcut_is_noticed():
    """Against the float ANN, which shares nothing of the fold."""
    net = Residual(4)
    snn = net.snn(settling=True)
    snn.variables["params"]["block2.conv2"]["shortcut_gain"] *= 2
    proof = certify(snn, net.variables, net.images, steps=200, settle=True)
    assert proof.mismatches == 0  # the integer ANN has the same wrong gain
    assert not proof.origins_are_ties
    assert proof.equality == "approximate"


def test_float_weights_go_to_a_grid():
    """As in the ResNet of the paper, whose activations alone are quantised."""
    arch = parse(TEXT, input_shape=(6, 6, 2), classes=4, head_pool=True, head_bias=True)
    weights = SiteMap(full_precision())
    variables = init_variables(Net(arch, hidden(clipped_relu(BITS)), weights), jax.random.key(0))
    method = methods.signed_if(bits=BITS, settling=True, weight_bits=7)
    snn = convert(variables, arch, method, weights=weights, encoding=UNITS)
    assert snn.variables["params"]["block1.conv1"]["kernel"].dtype == np.int8
    images = np.random.default_rng(0).integers(-200, 201, (4, 6, 6, 2)).astype(np.int16)
    proof = certify(snn, variables, images, steps=200, settle=True)
    assert proof.equality == "exact after settling"


def test_the_resnet_of_the_paper_has_its_weights():
    net = Net(zoo.fast_resnet18, hidden(clipped_relu(BITS)), SiteMap(full_precision()))
    params = template(net)["params"]
    kernels = sum(
        int(np.prod(tree["kernel"].shape)) for tree in params.values() if "kernel" in tree
    )
    biases = sum(int(np.prod(tree["bias"].shape)) for tree in params.values() if "bias" in tree)
    clips = sum("clip" in tree for tree in params.values())
    assert (kernels + biases, clips) == (12_491_466, 17)


def test_fine_tuning_a_block_moves_its_projection_with_it():
    net = Residual(5)
    settings = finetune.Settings(bits=BITS, batch_size=3, force=True, learning_rate=0.1)
    tuner = finetune.Tuner(ann_of(net.arch, BITS), net.variables, unchanged(UNITS), settings)
    names = ["block1.conv1", "block1.conv2", "block2.conv1", "block2.conv2"]
    assert finetune_step.tuned_sites(tuner.ann) == names
    labels = np.zeros(6, np.int32)
    start = finetune.begin(tuner, net.images, labels)
    tuned = finetune.finetune_layer(tuner, start, "block1.conv2", net.images, labels).variables
    moved = {
        site
        for site, leaves in tuned["params"].items()
        for before, after in zip(
            jax.tree.leaves(net.variables["params"][site]), jax.tree.leaves(leaves), strict=True
        )
        if not np.array_equal(before, after)
    }
    assert moved == {"block1.conv2", "block1.shortcut"}
