"""Weights that other people published, read without their framework.

The check sums are of the values that torch 2.13 loads from the same files, one array after the
other as little-endian float32.
"""

import hashlib

import jax
import numpy as np
import pytest

from jaxsnn import data, neurons
from jaxsnn.arch.plan import parse
from jaxsnn.exchange.fitting import Fitting
from jaxsnn.exchange.read import read_weights
from jaxsnn.network.net import Net, forward
from jaxsnn.network.per_site import hidden

pytestmark = pytest.mark.realdata

FILES = {
    "mnist_cnn.pt": (10, "59e2e7968e0ff79eea8e0e42de674593c6b97ce5369b46a7ecc29c86032f278d"),
    "mnist_params.pt": (5, "c69b18e09dd63ba8bd3adfc7273cdd788ca276ed648e8a193a4359320f4176fd"),
    "pretrained_ann_weights.pth": (
        5,
        "826881eec25e1d313c9c1f661cad0806249be6c0596503e8320f978da0d06519",
    ),
    "resnet20-12fca82f.th": (
        97,
        "55fa4ffa8345bfb167b8f5f3a05cba788b5ee87bbed6c716a6342c1616ee109f",
    ),
}


@pytest.fixture
def weights(data_root, request):
    """Read a file of published weights."""

    def weights(name):
        path = data_root / "models" / name
        if not path.exists() and not request.config.getoption("--require-data"):
            pytest.skip(f"{path} is not there")
        return read_weights(path)

    return weights


@pytest.mark.parametrize("name", FILES)
def test_values_are_those_that_torch_loads(weights, name):
    read = weights(name)
    count, expected = FILES[name]
    assert len(read) == count
    content = b"".join(array.astype("<f4").tobytes() for array in read.values())
    assert hashlib.sha256(content).hexdigest() == expected


def test_names_and_shapes_of_a_residual_network(weights):
    """16, 32 and 64 channels, three blocks each; shortcuts have no weights (option A)."""
    read = weights("resnet20-12fca82f.th")
    expected = {"conv1.weight": (16, 3, 3, 3)}
    for stage, channels in enumerate((16, 32, 64), 1):
        for block in range(3):
            incoming = channels // 2 if block == 0 and stage > 1 else channels
            name = f"layer{stage}.{block}"
            expected[f"{name}.conv1.weight"] = (channels, incoming, 3, 3)
            expected[f"{name}.conv2.weight"] = (channels, channels, 3, 3)
    expected["linear.weight"] = (10, 64)
    kernels = {name: array.shape for name, array in read.items() if array.ndim > 1}
    assert kernels == expected
    assert list(kernels) == list(expected)
    assert {array.dtype for array in read.values()} == {np.dtype(np.float32)}
    assert read.skipped == ("best_prec1",)
    assert read.container == "torch, legacy container"


def test_shapes_of_an_event_network(weights):
    read = weights("pretrained_ann_weights.pth")
    assert {name: array.shape for name, array in read.items()} == {
        "0.weight": (16, 2, 5, 5),
        "2.weight": (16, 16, 3, 3),
        "5.weight": (8, 16, 3, 3),
        "9.weight": (256, 128),
        "11.weight": (10, 256),
    }


def test_the_event_network_fits(weights):
    """Its authors': strides instead of the first pool, no biases."""
    arch = parse("16C5s2p1x-16C3p1x-AP2-8C3p1x-AP2-256x", input_shape=(34, 34, 2))
    table = Fitting(weights("pretrained_ann_weights.pth"), arch).table
    assert not table.problems
    assert [row.our_shape for row in table.rows] == [
        *((5, 5, 2, 16), (3, 3, 16, 16), (3, 3, 16, 8)),
        *((128, 256), (256, 10)),
    ]


@pytest.mark.parametrize(
    ("name", "notation", "options", "hits"),
    [
        ("mnist_cnn.pt", "6C3-MP2-16C3-MP2-120-84", {"norm": False, "head_bias": True}, 9859),
        ("mnist_params.pt", "20C5x-AP2-32C5x-AP2-128C3x-AP2-500x", {}, 9788),
    ],
)
def test_accuracies_are_those_in_torch(data_root, weights, name, notation, options, hits):
    """Images are grey values / 255, where our own networks take 1 / 256."""
    arch = parse(notation, **options)
    variables = Fitting(weights(name), arch).variables()
    net = Net(arch, hidden(neurons.relu()))

    @jax.jit
    def predict(images):
        return forward(net, variables, images).readouts[-1][0].argmax(-1)

    mnist = data.load("mnist", data_root)
    images = mnist.test_images.reshape(20, 500, 28, 28, 1).astype(np.float32) / 255
    predictions = np.concatenate([predict(batch) for batch in images])
    assert int((predictions == mnist.test_labels).sum()) == hits
