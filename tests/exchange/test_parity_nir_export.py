"""Exported files, read back and run by norse, sinabs, spikingjelly and snntorch.

Spikes and logits are those of the network: none differs.
"""

import nir
import numpy as np
import pytest
from nir_networks import FRAMES, LEAKY, NETWORKS, dyadic, plain_rate_coded, scattered
from nir_simulators import MARKS, RUN, in_snntorch, need

from jaxsnn import (
    neurons,
    simulate,
    with_leaf,
)
from jaxsnn.exchange.nir import from_nir, to_nir

pytestmark = MARKS


EVERY = {**RUN, "snntorch": in_snntorch}
SINGLE = [options for options in NETWORKS if "-E-" not in options["text"]]


@pytest.fixture(params=sorted(EVERY))
def simulator(request):
    need(request, request.param)
    return request.param


def outputs(simulator, export, folder, x):
    """What a simulator makes of the file, ``[T, B, outputs]``."""
    export.write(folder / "network.nir")
    out = EVERY[simulator](nir.read(folder / "network.nir", type_check=False), x)
    return out.reshape(*x.shape[:2], -1)


@pytest.mark.parametrize("options", SINGLE, ids=lambda options: options["text"])
def test_scatter_and_gather(simulator, options, tmp_path):
    snn, images = scattered(**options)
    x = np.moveaxis(images, -1, 1)[None].astype(np.float32)
    expected = np.asarray(simulate(snn, images, steps=1).readout)
    assert len(np.unique(expected)) > 12
    actual = outputs(simulator, to_nir(snn, for_=simulator, images=images), tmp_path, x)
    np.testing.assert_array_equal(actual, expected)


def test_every_unit(simulator, tmp_path):
    """Layer by layer: the graph ends behind the units of a layer, and they are its output."""
    snn, images = scattered(**NETWORKS[1])
    export = to_nir(snn, for_=simulator, images=images)
    x = np.moveaxis(images, -1, 1)[None].astype(np.float32)
    for name, data in export.sample.nodes.items():
        if not name.endswith("_units"):
            continue
        expected = data.observables["spikes"].data.swapaxes(0, 1)
        graph = cut_behind(export.graph, name)
        actual = EVERY[simulator](graph, x).reshape(expected.shape)
        np.testing.assert_array_equal(actual, expected, err_msg=name)
        assert 0 < expected.mean() < 1


def cut_behind(graph, last):
    """The graph up to a node."""
    names = list(graph.nodes)
    kept = {name: graph.nodes[name] for name in names[: names.index(last) + 1]}
    kept["output"] = nir.Output(np.array(kept[last].output_type["output"]))
    edges = [edge for edge in graph.edges if edge[0] in kept and edge[1] in kept]
    edges = [edge for edge in edges if edge[1] != "output"] + [(last, "output")]
    return nir.NIRGraph(kept, edges, type_check=False)


def test_a_wrong_threshold_is_found(simulator, tmp_path):
    snn, images = scattered(**NETWORKS[0])
    thresholds = np.array(snn.variables["fixed"]["dense1"]["thresholds"])
    wrong = to_nir(with_leaf(snn, "dense1", "thresholds", thresholds + 1), for_=simulator)
    x = np.moveaxis(images, -1, 1)[None].astype(np.float32)
    actual = outputs(simulator, wrong, tmp_path, x)
    assert (actual != np.asarray(simulate(snn, images, steps=1).readout)).any()


def test_leaky_networks_that_a_spike_resets_to_zero(simulator, tmp_path):
    """Eight steps; sums are exact, and what is left of a potential, half of it, too."""
    snn = dyadic(LEAKY, neurons.leaky(0.5, reset="zero"), None, seed=1)
    if simulator == "sinabs":
        with pytest.raises(ValueError, match="is a LIF, which it does not import"):
            to_nir(snn, for_=simulator, steps=8, images=FRAMES)
        return
    export = to_nir(snn, for_=simulator, steps=8, images=FRAMES)
    actual = outputs(simulator, export, tmp_path, np.moveaxis(FRAMES, -1, 2))
    expected = np.asarray(simulate(snn, FRAMES, steps=8).readout)
    np.testing.assert_array_equal(actual.cumsum(0), expected)


def test_a_rate_coded_network_in_sinabs(request, tmp_path):
    need(request, "sinabs")
    snn, images = plain_rate_coded((2.0, 6.0, 18.0, 34.0))
    export = to_nir(snn, for_="sinabs", steps=12, images=images)
    x = np.repeat(np.moveaxis(images, -1, 1)[None], 12, 0).astype(np.float32)
    actual = outputs("sinabs", export, tmp_path, x)
    expected = np.asarray(simulate(snn, images, steps=12).readout)
    np.testing.assert_array_equal(actual.cumsum(0), expected)
    assert expected.max() > 1


def test_the_same_file_without_a_simulator_in_mind(simulator, tmp_path):
    """What is written for anybody runs in norse, sinabs and spikingjelly, too; snntorch leaks."""
    snn, images = scattered(**NETWORKS[0])
    x = np.moveaxis(images, -1, 1)[None].astype(np.float32)
    export = to_nir(snn, images=images)
    expected = np.asarray(simulate(snn, images, steps=1).readout)
    if simulator != "snntorch":
        np.testing.assert_array_equal(outputs(simulator, export, tmp_path, x), expected)
    ours = from_nir(tmp_path / "network.nir" if simulator != "snntorch" else export.graph)
    np.testing.assert_array_equal(ours.run(x).recorded["output"].reshape(expected.shape), expected)
