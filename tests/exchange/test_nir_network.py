"""Whole NIR graphs: order, cycles, delays, sub-graphs, several inputs, files, one program."""

import h5py
import jax
import nir
import numpy as np
import pytest
from nir_graphs import chain, leak

from jaxsnn.errors import UserError
from jaxsnn.exchange.nir import network as executor
from jaxsnn.exchange.nir.read import from_nir
from jaxsnn.exchange.nir.rules import Reset, Rules
from jaxsnn.exchange.nir.topology import order

ONES = np.ones(5)


def lif(tau=0.02):
    return nir.LIF(tau * ONES, 3 * ONES, 0 * ONES, ONES / 2, v_reset=-ONES / 8)


def recurrent(seed=0, shuffled=None):
    """5 LIF neurons with a recurrent matrix, and a slower way back through a delay of 3 steps."""
    rng = np.random.default_rng(seed)
    nodes = {
        "in": nir.Input(np.array([4])),
        "into": nir.Affine(rng.normal(0, 1, (5, 4)), rng.normal(0, 0.1, 5)),
        "cells": lif(),
        "around": nir.Linear(rng.normal(0, 1, (5, 5))),
        "later": nir.Delay(0.003 * ONES),
        "far": nir.Linear(rng.normal(0, 1, (5, 5))),
        "read": nir.LI(0.05 * ONES, ONES, 0 * ONES),
        "out": nir.Output(np.array([5])),
    }
    edges = [
        ("in", "into"), ("into", "cells"), ("cells", "around"), ("around", "cells"),
        ("cells", "later"), ("later", "far"), ("far", "cells"), ("cells", "read"), ("read", "out"),
    ]  # fmt: skip
    if shuffled is not None:
        edges = [edges[i] for i in np.random.default_rng(shuffled).permutation(len(edges))]
        nodes = dict(sorted(nodes.items()))
    return nir.NIRGraph(nodes, edges, type_check=False)


def by_hand(graph, x, dt):
    """The recurrent graph, one step after the other in float64."""
    n = graph.nodes
    v, read = np.zeros((x.shape[1], 5)), np.zeros((x.shape[1], 5))
    spikes = [np.zeros((x.shape[1], 5))] * 3  # of the last three steps, the newest first
    all_spikes, outs, margin = [], [], np.inf
    for shown in x:
        drive = shown @ n["into"].weight.T + n["into"].bias
        drive = drive + spikes[0] @ n["around"].weight.T + spikes[2] @ n["far"].weight.T
        v = leak(v, drive, dt, n["cells"].tau, n["cells"].r, n["cells"].v_leak)
        margin = min(margin, np.abs(v - n["cells"].v_threshold).min())
        fired = v > n["cells"].v_threshold
        v = np.where(fired, n["cells"].v_reset, v)
        spikes = [fired.astype(float), *spikes[:2]]
        read = leak(read, spikes[0], dt, n["read"].tau, n["read"].r, 0.0)
        all_spikes.append(spikes[0])
        outs.append(read)
    return np.array(all_spikes), np.array(outs), margin


@pytest.mark.parametrize("shuffled", [None, 1, 2, 3])
def test_a_recurrent_graph_beside_a_slow_loop(shuffled):
    """Whatever the order of nodes and edges in the file."""
    graph = recurrent(shuffled=shuffled)
    x = np.random.default_rng(1).normal(0, 1, (80, 3, 4)).astype(np.float32)
    trace = from_nir(graph, dt=0.001).run(x, record=["cells", "out"])
    spikes, outs, margin = by_hand(graph, x, 0.001)
    assert margin > 1e-5
    assert 0.02 < spikes.mean() < 0.5
    np.testing.assert_array_equal(trace.recorded["cells"], spikes)
    np.testing.assert_allclose(trace.recorded["out"], outs, rtol=1e-4, atol=1e-6)


def test_steps_and_runs_in_parts_give_the_same():
    network = from_nir(recurrent(), dt=0.001)
    x = np.random.default_rng(2).normal(0, 1, (20, 3, 4)).astype(np.float32)
    whole = network.run(x, record=["cells"], total=["cells"])
    first = network.run(x[:7], record=["cells"])
    rest = network.run(x[7:], record=["cells"], state=first.state)
    parts = np.concatenate([first.recorded["cells"], rest.recorded["cells"]])
    np.testing.assert_array_equal(parts, whole.recorded["cells"])
    np.testing.assert_array_equal(whole.totals["cells"], whole.recorded["cells"].sum(0))
    state, seen = network.start(3), []
    for shown in x:
        state, out = network.step(state, shown)
        seen.append(out["out"])
    np.testing.assert_array_equal(seen, network.run(x).recorded["out"])
    np.testing.assert_array_equal(state.nodes["cells"][0], whole.state.nodes["cells"][0])


def test_a_held_input_is_that_input_at_every_step():
    network = from_nir(recurrent(), dt=0.001)
    x = np.random.default_rng(3).normal(0, 1, (3, 4)).astype(np.float32)
    held = network.run(x, steps=9)
    np.testing.assert_array_equal(
        held.recorded["out"], network.run(np.stack([x] * 9)).recorded["out"]
    )


def test_graphs_of_one_structure_share_one_program(monkeypatch):
    traced = []
    step = executor.step
    monkeypatch.setattr(executor, "step", lambda *a: traced.append(1) or step(*a))
    x = np.zeros((6, 3, 4), np.float32)
    for seed in range(3):
        network = from_nir(recurrent(seed), dt=0.001)
        for _ in range(2):
            network.run(x, record=["cells", "around"])
    assert len(traced) == 1


def test_memory_does_not_grow_with_time():
    """An input that is held, sums alone: the program for 1000 times the steps needs no more."""
    network = from_nir(recurrent(), dt=0.001)
    x = {"in": jax.numpy.zeros((3, 4))}
    needed = []
    for steps in (10, 10_000):
        options = {"steps": steps, "record": (), "total": ("out",)}
        lowered = executor._run.lower(network, x, executor.start(network, 3), **options)
        needed.append(lowered.compile().memory_analysis().temp_size_in_bytes)
    assert needed[0] == needed[1]


def test_an_executed_network_can_be_transformed():
    """Pure functions of parameters and samples: the gradient of an integrator is its r."""
    network = from_nir(chain(nir.I(3 * np.ones(2)), shape=[2]), dt=1.0)

    def total(x):
        return executor.step(network, network.start(1), {"in": x})[1]["out"].sum()

    assert jax.grad(total)(np.ones((1, 2), np.float32)).tolist() == [[3, 3]]


def test_sub_graphs_are_flattened():
    """Twice the same layer, once as a graph within a graph within a graph."""
    rng = np.random.default_rng(4)
    weights = [rng.normal(0, 2, (5, 5)) for _ in range(2)]
    flat = chain(nir.Linear(weights[0]), lif(), nir.Linear(weights[1]), lif(), shape=[5])
    inner = chain(nir.Linear(weights[1]), lif(), shape=[5])
    middle = chain(inner, shape=[5], check=False)
    nested = chain(nir.Linear(weights[0]), lif(), middle, shape=[5], check=False)
    x = rng.normal(0, 1, (30, 2, 5)).astype(np.float32)
    network = from_nir(nested, dt=0.001)
    assert network["n2/n0/n1"].kind == "LIF"
    actual = network.run(x).recorded["out"]
    np.testing.assert_array_equal(actual, from_nir(flat, dt=0.001).run(x).recorded["out"])
    assert actual.any()


def test_several_inputs_and_outputs_and_sums():
    nodes = {
        "left": nir.Input(np.array([2])),
        "right": nir.Input(np.array([2])),
        "double": nir.Scale(2 * np.ones(2)),
        "sum": nir.Output(np.array([2])),
        "doubled": nir.Output(np.array([2])),
    }
    edges = [("left", "double"), ("double", "sum"), ("right", "sum"), ("double", "doubled")]
    network = from_nir(nir.NIRGraph(nodes, edges, type_check=False))
    shown = {"left": np.array([[[1.0, 2.0]]]), "right": np.array([[[10.0, 20.0]]])}
    recorded = network.run(shown).recorded
    assert recorded["sum"].tolist() == [[[12, 24]]]
    assert recorded["doubled"].tolist() == [[[2, 4]]]
    with pytest.raises(ValueError, match="give a mapping from their names"):
        network.run(shown["left"])
    with pytest.raises(ValueError, match="as many of each"):
        network.run({**shown, "right": np.zeros((2, 1, 2))})


def test_subtraction_as_delayed_feedback_is_the_reset_by_subtraction():
    """An integrator, a threshold and a step of delay: the spikes of IF with a soft reset."""
    three = np.ones(3)
    nodes = {
        "in": nir.Input(np.array([3])),
        "membrane": nir.I(three),
        "spikes": nir.Threshold(2 * three),
        "back": nir.Scale(-2 * three),
        "next": nir.Delay(three),
        "out": nir.Output(np.array([3])),
    }
    edges = [
        ("in", "membrane"), ("membrane", "spikes"), ("spikes", "back"), ("back", "next"),
        ("next", "membrane"), ("spikes", "out"),
    ]  # fmt: skip
    drive = np.random.default_rng(5).integers(-2, 4, (50, 6, 3))
    built = from_nir(nir.NIRGraph(nodes, edges, type_check=False), dt=1.0)
    assert not any(node.back_sources for node in built.nodes)  # the Delay is the delay
    neuron = from_nir(
        chain(nir.IF(three, 2 * three), shape=[3]), dt=1.0, rules=Rules(Reset.SUBTRACT)
    )
    expected = neuron.run(drive).recorded["out"]
    assert 0.05 < expected.mean() < 0.6
    np.testing.assert_array_equal(built.run(drive).recorded["out"], expected)


def test_where_a_cycle_is_delayed():
    around = [("in", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("b", "b")]
    actual = order(["c", "b", "a", "in"], around[::-1], ["in"], ())
    assert actual.names == ("in", "a", "b", "c")
    assert actual.back == {("c", "a"), ("b", "b")}
    assert order(["in", "a", "b", "c"], around[:4], ["in"], ["c"]).back == frozenset()


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([("in", "a"), ("in", "b"), ("a", "b"), ("b", "a")], "entered at several places"),
        ([("in", "a"), ("b", "a")], "'b' gets nothing from an Input"),
    ],
)
def test_cycles_and_nodes_that_say_too_little(edges, message):
    with pytest.raises(ValueError, match=message):
        order(["in", "a", "b"], edges, ["in"], ())


def test_files(tmp_path):
    """Written by nir, and what stands in the metadata counts where nothing else is said."""
    graph = recurrent()
    graph.metadata = {"dt": 0.001}
    nir.write(tmp_path / "one.nir", graph)
    network = from_nir(tmp_path / "one.nir")
    assert network.dt == 0.001
    x = np.random.default_rng(6).normal(0, 1, (30, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(
        network.run(x).recorded["out"], from_nir(graph, dt=0.001).run(x).recorded["out"]
    )


class Foreign(nir.NIRNode):
    """A node of somebody else's."""

    def __init__(self):
        self.input_type = self.output_type = {"input": np.array([2])}
        self.metadata = {}

    def to_dict(self):
        return {"type": "Foreign"}


def test_an_unknown_node_is_refused_by_name_and_place(tmp_path):
    inner = nir.NIRGraph(
        {"i": nir.Input(np.array([2])), "odd": Foreign(), "o": nir.Output(np.array([2]))},
        [("i", "odd"), ("odd", "o")],
        type_check=False,
    )
    outer = nir.NIRGraph(
        {"in": nir.Input(np.array([2])), "sub": inner, "out": nir.Output(np.array([2]))},
        [("in", "sub"), ("sub", "out")],
        type_check=False,
    )
    with pytest.raises(ValueError, match=r"node 'sub/odd' \(Foreign\) is a Foreign, which is none"):
        from_nir(outer)
    nir.write(tmp_path / "odd.nir", outer)
    with pytest.raises(ValueError, match=r"odd.nir: node 'sub/odd' is a Foreign, which is none of"):
        from_nir(tmp_path / "odd.nir")


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.nir").write_text("no graph")
    with pytest.raises(ValueError, match=r"text\.nir holds no NIR graph"):
        from_nir(tmp_path / "text.nir")
    with pytest.raises(ValueError, match=r"gone\.nir is no file"):
        from_nir(tmp_path / "gone.nir")
    with h5py.File(tmp_path / "number.nir", "w") as file:
        file["node/type"] = 5
    with pytest.raises(UserError, match=r"number\.nir holds no NIR graph"):
        from_nir(tmp_path / "number.nir")
    with h5py.File(tmp_path / "itself.nir", "w") as file:
        file["node/type"] = "NIRGraph"
        file["node/nodes/again"] = file["node"]
    with pytest.raises(UserError, match=r"itself\.nir: groups inside themselves"):
        from_nir(tmp_path / "itself.nir")
    with h5py.File(tmp_path / "half.nir", "w") as file:
        file["node/type"] = "NIRGraph"
        file["node/nodes/linear/type"] = "Linear"  # and no weight
    with pytest.raises(UserError, match=r"half\.nir holds no NIR graph"):
        from_nir(tmp_path / "half.nir")


def test_files_that_lead_to_other_files_are_refused(tmp_path):
    nir.write(tmp_path / "weights.nir", recurrent())
    for link, refused in (
        (h5py.ExternalLink("weights.nir", "/node"), r"linked\.nir, .*elsewhere': leads elsewhere"),
        (h5py.SoftLink("/node/nodes/into"), r"linked\.nir, .*elsewhere': leads elsewhere"),
    ):
        (tmp_path / "linked.nir").write_bytes((tmp_path / "weights.nir").read_bytes())
        with h5py.File(tmp_path / "linked.nir", "a") as file:
            file["node/nodes/elsewhere"] = link
        with pytest.raises(UserError, match=refused):
            from_nir(tmp_path / "linked.nir")
    with h5py.File(tmp_path / "linked.nir", "a") as file:
        del file["node/nodes/elsewhere"], file["node/nodes/into/weight"]
        raw = [(str(tmp_path / "raw"), 0, 160)]
        file.create_dataset("node/nodes/into/weight", (5, 4), np.float64, external=raw)
    with pytest.raises(UserError, match=r"into/weight': its numbers are in another file"):
        from_nir(tmp_path / "linked.nir")


def test_a_sub_graph_with_two_inputs_is_refused():
    inner = nir.NIRGraph(
        {
            "a": nir.Input(np.array([2])),
            "b": nir.Input(np.array([2])),
            "o": nir.Output(np.array([2])),
        },
        [("a", "o"), ("b", "o")],
        type_check=False,
    )
    outer = nir.NIRGraph(
        {"in": nir.Input(np.array([2])), "sub": inner, "out": nir.Output(np.array([2]))},
        [("in", "sub"), ("sub", "out")],
        type_check=False,
    )
    with pytest.raises(ValueError, match="sub-graph 'sub' has 2 inputs"):
        from_nir(outer)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            lambda n: n.run(np.zeros((3, 2, 5))),
            r"shape \(3, 2, 5\); the graph takes \[steps, batch, 4",
        ),
        (lambda n: n.run(np.zeros((2, 5)), steps=3), r"the graph takes \[batch, 4\]"),
        (lambda n: n.run(np.full((3, 2, 4), np.inf)), "not finite"),
        (lambda n: n.run(np.zeros((0, 2, 4))), "give as many"),
        (lambda n: n.run(np.zeros((2, 4)), steps=0), "steps=0"),
        (lambda n: n.run(np.zeros((3, 2, 4)), record=["nobody"]), "no node 'nobody'; known: later"),
        (lambda n: n.start(0), "batch=0"),
    ],
)
def test_runs_that_are_refused(run, message):
    with pytest.raises(ValueError, match=message):
        run(from_nir(recurrent(), dt=0.001))


def test_a_state_of_other_samples_another_graph_or_type_is_refused():
    network, x = from_nir(recurrent(), dt=0.001), np.ones((5, 3, 4), np.float32)
    other = from_nir(chain(nir.I(np.ones(1)), shape=[1]), dt=0.001)
    double = from_nir(recurrent(), dt=0.001, dtype=np.float64)
    message = r"graph with 3 samples in float32; begin with start\(3\)"
    for state in (network.start(1), network.start(2), other.start(3), double.start(3)):
        with pytest.raises(UserError, match=message):
            network.step(state, x[0])
        with pytest.raises(UserError, match=message):
            network.run(x, state=state)
    with pytest.raises(UserError, match="3 samples in float64"):
        double.run(x, state=network.start(3))


def test_whole_numbers_beyond_float32():
    """2^24 + 1 has 25 bits: float64 adds it up exactly, whatever JAX's setting is."""
    odd = 2.0**24 + 1
    graph = chain(nir.I(np.ones(1)), nir.Threshold(np.array([2 * odd - 0.5])), shape=[1])
    x = np.array([[[odd]], [[odd]]])
    for dtype, spikes in ((np.float32, [0, 0]), (np.float64, [0, 1])):
        network = from_nir(graph, dt=1.0, dtype=dtype)
        trace = network.run(x, record=["n0", "out"])
        assert trace.recorded["out"].ravel().tolist() == spikes
        assert trace.recorded["n0"].dtype == dtype
        state, _ = network.step(network.start(1), x[0])
        assert state.nodes["n0"][0].dtype == dtype
    assert jax.numpy.ones(1).dtype == np.float32
