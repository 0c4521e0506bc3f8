"""Soft resets and negative spikes in PyTorch, by nirtorch and the map of docs/how_to/nir_out.md."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest
from clipped_networks import network as clipped_network
from helpers import converted
from nir_networks import FRAMES, LEAKY, dyadic, plain_rate_coded
from nir_simulators import MARKS, need

from jaxsnn import methods, neurons, simulate
from jaxsnn.exchange.nir import to_nir

pytestmark = MARKS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how_to" / "nir_out.md"


@pytest.fixture(scope="module")
def node_map(request):
    for name in ("torch", "nirtorch"):
        need(request, name)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "node_map = {" in block]
    names = {}
    exec("import nir\n" + doctest.script_from_examples(block), names)
    return names["node_map"]


def in_nirtorch(graph, node_map, x, dtype):
    """Outputs ``[T, B, ...]`` summed over the steps."""
    import nirtorch
    import torch

    kind = getattr(torch, dtype)
    model, state, outs = nirtorch.nir_to_torch(graph, node_map, dtype=kind), None, []
    with torch.no_grad():
        for shown in torch.tensor(x, dtype=kind):
            out, state = model(shown, state)
            outs.append(out.numpy())
    return np.cumsum(outs, axis=0)


def tracked(**settings):
    *_, snn, images = converted(
        3, images=6, method=methods.negative_spikes, gammas="mixed", settings=settings
    )
    x = np.zeros((9, *images.shape))
    x[0] = images
    return snn, images, x, "float32"


def signed(signed):
    net = clipped_network(5, "4C3p1-4C3s2p1-10nb", bits=3, shape=(6, 6, 2), gammas="mixed")
    return net.snn(signed=signed), net.images, np.repeat(net.images[None], 7, 0), "float64"


def leaky(reset):
    return dyadic(LEAKY, neurons.leaky(0.5, reset=reset), None, seed=1), FRAMES, FRAMES, "float32"


def rate():
    snn, images = plain_rate_coded((2.0, 4.0, 16.0, 32.0))
    return snn, images, np.repeat(images[None], 12, 0), "float32"


CASES = {
    "negative spikes": tracked,
    "several in a step": lambda: tracked(per_step=3, rising=True),
    "taken back": lambda: signed(True),
    "subtraction": lambda: signed(False),
    "leaky, delayed": lambda: leaky("delayed"),
    "leaky, subtraction": lambda: leaky("subtract"),
    "rate coded": rate,
}


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_those_of_the_network(case, node_map):
    snn, images, x, dtype = CASES[case]()
    graph = to_nir(snn, steps=len(x), images=images).graph
    actual = in_nirtorch(graph, node_map, np.moveaxis(x, -1, 2), dtype)
    expected = np.asarray(simulate(snn, images, steps=len(x)).readout)
    np.testing.assert_array_equal(actual.reshape(expected.shape), expected)
    assert len(np.unique(expected)) > 2
