"""The same numbers as snnTorch 1.0: neuron, surrogates, losses, and the whole network.

snnTorch's usual reset by subtraction is our "delayed"; its reset to zero (which clears the
potential in the step after) gives the spikes and potentials of our "zero", which clears it at once
after they were read. Max pooling hands its gradient to the first of equal values, in both.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import neurons
from jaxsnn.arch import zoo
from jaxsnn.inputs import stimulus
from jaxsnn.network.net import apply, initial_state
from jaxsnn.neurons.max_pool import max_pool
from jaxsnn.neurons.surrogate import spike
from jaxsnn.training.losses_over_time import LOSSES
from jaxsnn.training.through_time import spiking_net, through_time

pytestmark = pytest.mark.parity

RESETS = {"delayed": "subtract", "zero": "zero", "none": "none"}  # ours -> snnTorch's
SURROGATES = {
    "fast_sigmoid": ("fast_sigmoid", {"slope": 25}),
    "arctan": ("atan", {"alpha": 2.0}),
    "sigmoid": ("sigmoid", {"slope": 25}),
    "straight_through": ("straight_through_estimator", {}),
}


@pytest.fixture(autouse=True)
def _here(snntorch):
    """Every test needs the packages."""
    import torch

    torch.manual_seed(0)


def tensor(array):
    import torch

    return torch.from_numpy(np.array(array))


def theirs_over_time(snntorch, drives, leak, threshold, reset, slope, of_spikes, of_potentials):
    """Spikes, potentials and gradients of snnTorch's neuron."""
    import torch

    drives = tensor(drives).requires_grad_()
    cell = snntorch.Leaky(
        leak,
        threshold,
        spike_grad=snntorch.surrogate.fast_sigmoid(slope),
        reset_mechanism=reset,
        learn_beta=True,
        learn_threshold=True,
    )
    state, seen = cell.reset_mem(), []
    for drive in drives:
        spikes, state = cell(drive, state)
        seen.append((spikes, state))
    spikes, potentials = (torch.stack([one[place] for one in seen]) for place in (0, 1))
    (tensor(of_spikes) * spikes + tensor(of_potentials) * potentials).sum().backward()
    gradients = (drives.grad, cell.beta.grad, cell.threshold.grad)
    return spikes.detach().numpy(), potentials.detach().numpy(), [g.numpy() for g in gradients]


@pytest.mark.parametrize("threshold", [1.0, 0.75])
@pytest.mark.parametrize("leak", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("reset", RESETS)
def test_neuron_over_fifty_steps(snntorch, reset, leak, threshold):
    rng = np.random.default_rng(0)
    mean = 0.4 if leak < 1 else 0.25  # what does not leak rises from step to step
    drives = rng.normal(mean, 0.7, (50, 4, 6)).astype(np.float32)
    of_spikes, of_potentials = rng.normal(size=(2, *drives.shape)).astype(np.float32) / 50
    want = theirs_over_time(
        snntorch, drives, leak, threshold, RESETS[reset], 25, of_spikes, of_potentials
    )
    make = functools.partial(neurons.leaky, reset=reset, slope=25.0, learn=("leak", "threshold"))

    def over_time(emit, drives, leaves):
        cell = make(emit=emit)
        state = cell.init(leaves, drives.shape[1:], None)
        return jax.lax.scan(lambda state, drive: cell.step(leaves, state, drive), state, drives)[1]

    def total(drives, leak, threshold):
        leaves = {"leak": jnp.full(6, leak), "threshold": jnp.full(6, threshold)}
        spikes, potentials = (over_time(emit, drives, leaves) for emit in ("spike", "potential"))
        return jnp.sum(of_spikes * spikes + of_potentials * potentials), (spikes, potentials)

    inputs = (jnp.asarray(drives), jnp.float32(leak), jnp.float32(threshold))
    gradients, (spikes, potentials) = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(*inputs)
    assert 0.1 < spikes.mean() < 0.95
    np.testing.assert_array_equal(spikes, want[0])
    np.testing.assert_allclose(potentials, want[1], rtol=0, atol=1e-6 * np.abs(want[1]).max())
    for mine, its in zip(gradients, want[2], strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SURROGATES)
def test_surrogates(snntorch, name):
    its_name, options = SURROGATES[name]
    x = np.concatenate([np.linspace(-3, 3, 121), [0.0, -0.0, 1e-7, -1e-7]]).astype(np.float32)
    leaf = tensor(x).requires_grad_()
    spikes = getattr(snntorch.surrogate, its_name)(**options)(leaf)
    spikes.sum().backward()
    np.testing.assert_array_equal(spike(jnp.asarray(x), name), spikes.detach().numpy())
    mine = jax.grad(lambda x: jnp.sum(spike(x, name)))(jnp.asarray(x))
    np.testing.assert_allclose(mine, leaf.grad.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("levels", [2, 3, 1000])
def test_max_pooling_gives_ties_to_the_same_entry(levels, size):
    import torch

    rng = np.random.default_rng(levels)
    x = rng.integers(0, levels, (3, 7, 8, 4)).astype(np.float32)
    leaf = tensor(x.transpose(0, 3, 1, 2)).requires_grad_()
    pooled = torch.nn.functional.max_pool2d(leaf, size)
    gradient = rng.normal(size=tuple(pooled.shape)).astype(np.float32)
    pooled.backward(tensor(gradient))
    mine, pull = jax.vjp(lambda x: max_pool(x, size, size), jnp.asarray(x))
    np.testing.assert_array_equal(mine, pooled.detach().numpy().transpose(0, 2, 3, 1))
    got = pull(jnp.asarray(gradient.transpose(0, 2, 3, 1)))[0]
    np.testing.assert_array_equal(got, leaf.grad.numpy().transpose(0, 2, 3, 1))


def test_losses_and_accuracy(snntorch):
    from snntorch import functional

    rng = np.random.default_rng(0)
    spikes = rng.integers(0, 2, (20, 8, 10)).astype(np.float32)  # 20: shares of T are whole
    labels = rng.integers(0, 10, 8)
    losses = {
        "ce_rate": functional.ce_rate_loss(),
        "mse_count": functional.mse_count_loss(correct_rate=0.8, incorrect_rate=0.2),
    }
    for name, loss in losses.items():
        leaf = tensor(spikes).requires_grad_()
        value = loss(leaf, tensor(labels))
        value.backward()
        mine, gradient = jax.value_and_grad(
            lambda x, name=name: jnp.mean(LOSSES[name](x, jnp.asarray(labels), None))
        )(jnp.asarray(spikes))
        np.testing.assert_allclose(mine, value.item(), rtol=1e-6)
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-5, atol=1e-8)
    counts = jnp.sum(jnp.asarray(spikes), axis=0)
    accuracy = float(jnp.mean(jnp.argmax(counts, axis=-1) == labels))
    assert accuracy == functional.accuracy_rate(tensor(spikes), tensor(labels))


def random_images(count):
    """Noise inside a border of zeros, where conv1's current is its bias and pools have ties."""
    x = np.zeros((count, 28, 28, 1), np.uint8)
    inside = np.random.default_rng(1).integers(0, 256, (count, 12, 14, 1))
    x[:, 8:20, 7:21] = inside * (inside > 100)
    return x


def digits(count):
    from jaxsnn import data

    return data.load("digits").train_images[:count]


class TheirNetwork:
    """The network in torch, with our weights; ``gradients`` come back in our layout."""

    def __init__(self, snntorch, params):
        import torch

        self.cells = [
            snntorch.Leaky(0.5, spike_grad=snntorch.surrogate.fast_sigmoid(25)) for _ in range(3)
        ]
        self.weights = {}
        for name, tree in params.items():
            kernel = np.asarray(tree["kernel"])
            if kernel.ndim == 4:
                kernel = kernel.transpose(3, 2, 0, 1)
            else:  # our inputs count height, width, channel; torch's channel, height, width
                kernel = kernel.reshape(4, 4, 64, 10).transpose(3, 2, 0, 1).reshape(10, 1024)
            leaves = (tensor(kernel.copy()), tensor(tree["bias"]))
            self.weights[name] = [torch.nn.Parameter(leaf) for leaf in leaves]

    def __call__(self, images, steps):
        """Spikes of the three layers, ``[T, B, ...]`` channels first."""
        import torch

        functional, weights = torch.nn.functional, self.weights
        x = tensor(images.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(1 / 255))
        states, seen = [cell.reset_mem() for cell in self.cells], []
        for _ in range(steps):
            drive = functional.max_pool2d(functional.conv2d(x, *weights["conv1"]), 2)
            one, states[0] = self.cells[0](drive, states[0])
            drive = functional.max_pool2d(functional.conv2d(one, *weights["conv2"]), 2)
            two, states[1] = self.cells[1](drive, states[1])
            drive = functional.linear(two.flatten(1), *weights["readout"])
            three, states[2] = self.cells[2](drive, states[2])
            seen.append((one, two, three))
        return [torch.stack(layer) for layer in zip(*seen, strict=True)]

    def gradients(self):
        """Of every weight, in our layout."""
        result = {}
        for name, (kernel, bias) in self.weights.items():
            slope = kernel.grad.numpy()
            if slope.ndim == 4:
                slope = slope.transpose(2, 3, 1, 0)
            else:
                slope = slope.reshape(10, 64, 4, 4).transpose(2, 3, 1, 0).reshape(1024, 10)
            result[name] = {"kernel": slope, "bias": bias.grad.numpy()}
        return result


@pytest.mark.parametrize("steps", [10, 25, 50])
@pytest.mark.parametrize("shown", [random_images, digits])
def test_the_whole_network(snntorch, shown, steps):
    from snntorch import functional

    net = spiking_net(zoo.csnn_static, neurons.leaky(0.5, slope=25.0))
    task = through_time(net, stimulus.held(steps))
    variables = task.init(jax.random.key(0))
    params = {  # so that spikes reach the readout
        name: {"kernel": 3 * tree["kernel"], "bias": tree["bias"]}
        for name, tree in variables["params"].items()
    }
    rest = {"fixed": variables["fixed"]}
    images, labels = shown(8), np.arange(8) % 10
    their = TheirNetwork(snntorch, params)
    spikes = their(images, steps)
    loss = functional.ce_rate_loss()(spikes[2], tensor(labels))
    loss.backward()

    @jax.jit
    def of(params, images):
        losses, (counts, _) = task.loss(
            params, rest, images, jnp.asarray(labels), jax.random.key(0), True, axis_name=None
        )
        return jnp.mean(losses), counts

    (mine, counts), gradients = jax.value_and_grad(of, has_aux=True)(params, jnp.asarray(images))
    x = jnp.asarray(images)[None].astype(jnp.float32) * (1 / 255)
    tree = {"params": params, **rest}
    outs = apply(net, tree, x, initial_state(net, tree, 8), steps=steps).outs
    outs = [np.asarray(outs[name]) for name in ("conv1", "conv2", "readout")]
    for layer, its in zip(outs, spikes, strict=True):
        its = its.detach().numpy()
        assert layer.any()
        np.testing.assert_array_equal(layer, np.moveaxis(its, 2, -1) if its.ndim == 5 else its)
    np.testing.assert_array_equal(counts, outs[2].sum(0))
    np.testing.assert_allclose(mine, loss.item(), rtol=1e-6)
    wanted = their.gradients()
    for name, tree in gradients.items():
        for leaf, gradient in tree.items():
            largest = np.abs(wanted[name][leaf]).max()
            assert largest > 0
            tolerance = min(1e-5, 1e-3 * largest)
            np.testing.assert_allclose(gradient, wanted[name][leaf], rtol=0, atol=tolerance)
