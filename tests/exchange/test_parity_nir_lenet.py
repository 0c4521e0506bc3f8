"""The LeNet kept below results/, trained on MNIST, in four other simulators on real images."""

from pathlib import Path

import nir
import numpy as np
import pytest
from nir_simulators import MARKS, RUN, in_snntorch, need

from jaxsnn import convert, data, load_params, methods, simulate, zoo
from jaxsnn.exchange.nir import to_nir

pytestmark = [*MARKS, pytest.mark.realdata]

KEPT = Path(__file__).resolve().parents[2] / "results" / "mnist_lenet" / "k1B2" / "kept.npz"
EVERY = {**RUN, "snntorch": in_snntorch}


@pytest.fixture(scope="module")
def lenet():
    variables = load_params(KEPT, zoo.lenet_scatter)
    method = methods.scatter_gather(k=1, bound=2, sums_below=2**21)
    return convert(variables, zoo.lenet_scatter, method)


@pytest.mark.parametrize("simulator", sorted(EVERY))
def test_no_logit_of_100_real_images_differs(request, data_root, lenet, simulator, tmp_path):
    need(request, simulator)
    mnist = data.load("mnist", data_root)
    images, labels = mnist.test_images[:100], mnist.test_labels[:100]
    trace = simulate(lenet, images, steps=1)
    assert (np.asarray(trace.predictions)[-1] == labels).mean() > 0.97
    to_nir(lenet, for_=simulator, images=images).write(tmp_path / "lenet.nir")
    graph = nir.read(tmp_path / "lenet.nir", type_check=False)
    out = EVERY[simulator](graph, np.moveaxis(images, -1, 1)[None].astype(np.float32))
    np.testing.assert_array_equal(out.reshape(trace.readout.shape), trace.readout)
