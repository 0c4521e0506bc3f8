"""The same NIR graph in norse, sinabs and spikingjelly: the same spikes under each one's rules.

Weights are whole multiples of 1/16 and inputs whole numbers, so that no sum depends on its order.
"""

import itertools

import nir
import numpy as np
import pytest
from nir_simulators import MARKS, RUN, need

from jaxsnn.exchange.nir.read import from_nir
from jaxsnn.exchange.nir.rules import Comparison, Reset, Rules

pytestmark = MARKS

AT, ABOVE = Comparison.AT_OR_ABOVE, Comparison.ABOVE
RULES = {
    "norse": Rules(Reset.ZERO, ABOVE),
    "sinabs": Rules(Reset.SUBTRACT, AT, several_spikes=True, floor=1.0),
    "spikingjelly": Rules(Reset.TO_V_RESET, AT),
}


@pytest.fixture(params=sorted(RULES))
def simulator(request):
    need(request, request.param)
    return request.param


def grid(rng, *shape, mean=0.0, scale=4):
    """Whole multiples of 1/16."""
    return (np.round(rng.normal(mean, scale, shape)) / 16).astype(np.float32)


def row(*nodes):
    names = [str(number) for number in range(len(nodes))]
    return nir.NIRGraph(dict(zip(names, nodes, strict=True)), list(itertools.pairwise(names)))


def convolutional(cell):
    """Two convolutions and a full-map one, ``cell(shape)`` behind each."""
    rng = np.random.default_rng(0)
    kernels = [grid(rng, *shape, mean=0.7) for shape in ((6, 2, 3, 3), (4, 6, 3, 3), (5, 4, 4, 4))]
    maps = [(9, 9), (9, 9), (4, 4)]
    strides, paddings = [1, 2, 1], [1, 0, 0]
    nodes, shape = [nir.Input(np.array([2, 9, 9]))], None
    for kernel, size, stride, padding in zip(kernels, maps, strides, paddings, strict=True):
        bias = grid(rng, len(kernel), scale=1)
        conv = nir.Conv2d(size, kernel, (stride,) * 2, (padding,) * 2, (1, 1), 1, bias)
        shape = tuple(int(n) for n in conv.output_type["output"])
        nodes += [conv, cell(shape)]
    return row(*nodes, nir.Output(np.array(shape)))


def integrate_and_fire(shape):
    ones = np.ones(shape, np.float32)
    return nir.IF(ones, ones, v_reset=0 * ones)


def leaky(shape):
    """Half of the potential stays; the drive enters by half, or whole."""
    ones = np.ones(shape, np.float32)
    return nir.LIF(2 * ones, ones, 0 * ones, ones / 2, v_reset=0 * ones)


def current_based(shape):
    ones = np.ones(shape, np.float32)
    return nir.CubaLIF(2 * ones, 2 * ones, 2 * ones, 0 * ones, ones, 0 * ones, 2 * ones)


def compare(simulator, graph, x):
    rules = RULES[simulator]
    actual = np.asarray(from_nir(graph, dt=1.0, rules=rules).run(x).recorded[graph_output(graph)])
    theirs = RUN[simulator](graph, x)
    assert 0.02 < (actual > 0).mean() < 0.9
    np.testing.assert_array_equal(actual, theirs.reshape(actual.shape))
    return actual


def graph_output(graph):
    return next(name for name, node in graph.nodes.items() if isinstance(node, nir.Output))


def events(shape, steps=16, batch=8):
    return np.random.default_rng(1).integers(0, 3, (steps, batch, *shape)).astype(np.float32)


def test_integrate_and_fire(simulator):
    actual = compare(simulator, convolutional(integrate_and_fire), events((2, 9, 9)))
    assert (actual.max() > 1) == (simulator == "sinabs")


def test_leaky_integrate_and_fire(simulator):
    """sinabs lets a potential decay by exp(-1 / tau) and does not scale the drive."""
    if simulator == "sinabs":
        pytest.skip("another neuron: exponential decay")
    compare(simulator, convolutional(leaky), events((2, 9, 9)))


def test_current_based(simulator):
    """norse and spikingjelly, with the factors that NIR has for a drive that enters whole."""
    if simulator == "sinabs":
        pytest.skip("imports no CubaLIF")
    compare(simulator, convolutional(current_based), events((2, 9, 9)))


def test_recurrent(simulator):
    """A step of delay on the edge back; norse's and sinabs' importers do not close cycles."""
    if simulator != "spikingjelly":
        pytest.skip("no recurrent graphs")
    rng = np.random.default_rng(2)
    nodes = {
        "input": nir.Input(np.array([6])),
        "into": nir.Affine(grid(rng, 8, 6), grid(rng, 8, scale=1)),
        "cells": integrate_and_fire((8,)),
        "around": nir.Linear(grid(rng, 8, 8)),
        "output": nir.Output(np.array([8])),
    }
    edges = [
        ("input", "into"), ("into", "cells"), ("cells", "around"), ("around", "cells"),
        ("cells", "output"),
    ]  # fmt: skip
    compare(simulator, nir.NIRGraph(nodes, edges), events((6,)))


def test_a_wrong_rule_is_seen(simulator):
    """With the rules of another simulator there are other spikes."""
    graph, x = convolutional(integrate_and_fire), events((2, 9, 9))
    theirs = RUN[simulator](graph, x)
    for other in set(RULES) - {simulator}:
        actual = from_nir(graph, dt=1.0, rules=RULES[other]).run(x).recorded[graph_output(graph)]
        assert (np.asarray(actual).reshape(theirs.shape) != theirs).any()
