"""Every node of a NIR graph beside a trajectory by hand or a slow NumPy loop."""

import nir
import numpy as np
import pytest
from nir_graphs import chain, convolve, trajectory

from jaxsnn.exchange.nir import windows
from jaxsnn.exchange.nir.read import from_nir
from jaxsnn.exchange.nir.rules import Comparison, Reset, Rules

ONE = np.ones(1)


def outputs(node, x, shape, dt=1.0, **rules):
    """What a node gives for ``x [T, B, ...]``, alone in a graph."""
    network = from_nir(chain(node, shape=shape), dt=dt, rules=Rules(**rules))
    return np.asarray(network.run(np.asarray(x, np.float32)).recorded["out"])


def potentials(node, drive, **rules):
    """Spikes and potentials of one neuron, after every step."""
    network = from_nir(chain(node, shape=[1]), dt=0.5, rules=Rules(**rules))
    state, spikes, after = network.start(1), [], []
    for value in drive:
        state, out = network.step(state, np.full((1, 1), value))
        spikes.append(float(out["out"][0, 0]))
        after.append(float(state.nodes["n0"][0][0, 0]))
    return spikes, after


SUBTRACT, AT = Reset.SUBTRACT, Comparison.AT_OR_ABOVE
# dt = 1/2 and r = 2, so that the drive is what a step adds; v_threshold 1, v_reset 1/4.
BY_HAND = {
    "NIR's": ({}, [0, 1, 0, 0, 1], [0.75, 0.25, -2.75, -2.25, 0.25]),
    "zero": ({"reset": Reset.ZERO}, [0, 1, 0, 0, 1], [0.75, 0, -3, -2.5, 0]),
    "subtract": ({"reset": SUBTRACT}, [0, 1, 0, 0, 1], [0.75, 0.25, -2.75, -2.25, 2.75]),
    "several": (
        {"reset": SUBTRACT, "several_spikes": True},
        [0, 1, 0, 0, 3],
        [0.75, 0.25, -2.75, -2.25, 0.75],
    ),
    "sinabs": (
        {"reset": SUBTRACT, "comparison": AT, "several_spikes": True, "floor": 1.0},
        [0, 1, 0, 0, 5],
        [0.75, 0.25, -1, -0.5, 0.5],
    ),
}


@pytest.mark.parametrize("rule", BY_HAND)
def test_if_by_hand(rule):
    rules, spikes, after = BY_HAND[rule]
    node = nir.IF(2 * ONE, v_threshold=ONE, v_reset=ONE / 4)
    assert potentials(node, [0.75, 0.5, -3, 0.5, 6], **rules) == (spikes, after)


@pytest.mark.parametrize(
    ("rules", "spikes"),
    [
        ({}, [0, 1, 0]),
        ({"comparison": AT}, [1, 1, 0]),
        ({"reset": SUBTRACT, "several_spikes": True}, [0, 2, 0]),
        ({"reset": SUBTRACT, "several_spikes": True, "comparison": AT}, [1, 2, 0]),
    ],
)
def test_a_potential_at_the_threshold(rules, spikes):
    """Drives of 1, 2 and 0 at a threshold of 1: whole potentials are ties."""
    node = nir.IF(2 * ONE, v_threshold=ONE)
    assert potentials(node, [1, 2, 0], **rules)[0] == spikes


def test_a_threshold_that_a_quotient_rounds_to():
    """A potential one bit above the threshold fires, though their quotient rounds to 1."""
    threshold = np.float32(3.0)
    drive = np.nextafter(threshold, np.float32(4))
    node = nir.IF(2 * ONE, v_threshold=threshold * ONE)
    assert potentials(node, [drive], reset=SUBTRACT, several_spikes=True)[0] == [1]


def test_lif_by_hand():
    """tau = 2 steps: half of the potential stays, half of ``v_leak + r x = 1/2 + x`` comes."""
    node = nir.LIF(ONE, ONE, v_leak=ONE / 2, v_threshold=ONE, v_reset=-ONE)
    spikes, after = potentials(node, [1.0, 1.0, 1.0, 0.0, 3.5])
    assert spikes == [0, 1, 0, 0, 1]
    assert after == [0.75, -1, 0.25, 0.375, -1]


def test_li_by_hand():
    node = nir.LI(ONE, 2 * ONE, v_leak=-ONE)
    network = from_nir(chain(node, shape=[1]), dt=0.5)
    drive = np.array([1.0, 0.0, 4.0]).reshape(3, 1, 1)
    assert network.run(drive).recorded["out"].ravel().tolist() == [0.5, -0.25, 3.375]


def test_cuba_lif_by_hand():
    """The current of a step enters the potential of that step."""
    node = nir.CubaLIF(
        ONE, 2 * ONE, r=4 * ONE, v_leak=0 * ONE, v_threshold=ONE, v_reset=0 * ONE, w_in=2 * ONE
    )
    spikes, after = potentials(node, [0.5, 0.0, 0.0])  # i: 1/2, 1/4, 1/8; v gains i in a step
    assert after == [0.5, 0.625, 0.59375]
    assert spikes == [0, 0, 0]
    assert potentials(node, [0.5, 0.5, 0.0])[0] == [0, 1, 0]


def random_cells():
    """Each kind of cell, with parameters of its own for each of 7 neurons."""
    rng = np.random.default_rng(0)

    def between(low, high):
        return rng.uniform(low, high, 7)

    tau = {"tau_syn": between(0.01, 0.1), "tau_mem": between(0.01, 0.1)}
    membrane = {"r": between(0.5, 3), "v_leak": between(-0.2, 0.2)}
    spiking = {"v_threshold": between(0.2, 0.6), "v_reset": between(-0.3, 0.1)}
    return [
        nir.I(between(50, 200)),
        nir.IF(between(50, 200), **spiking),
        nir.LI(between(0.01, 0.1), **membrane),
        nir.LIF(between(0.01, 0.1), **membrane, **spiking),
        nir.CubaLI(**tau, **membrane, w_in=between(0.5, 3)),
        nir.CubaLIF(**tau, **membrane, **spiking, w_in=between(0.5, 3)),
    ]


@pytest.mark.parametrize("reset", ["v_reset", "zero", "subtract"])
@pytest.mark.parametrize("node", random_cells(), ids=lambda node: type(node).__name__)
def test_cells_follow_their_equations(node, reset):
    drive = np.random.default_rng(1).normal(0.5, 1, (40, 4, 7)).astype(np.float32)
    rules = Rules(reset=Reset(reset))
    network = from_nir(chain(node, shape=[7]), dt=0.005, rules=rules)
    expected, outs = trajectory(node, drive, 0.005, reset)
    actual = np.asarray(network.run(drive).recorded["out"])
    if type(node).__name__.endswith("F"):
        margin = np.abs(expected - node.v_threshold).min()
        assert margin > 1e-5  # no tie that float32 could decide otherwise
        assert 0.01 < outs.mean() < 0.9
        np.testing.assert_array_equal(actual, outs)
    else:
        np.testing.assert_allclose(actual, outs, rtol=1e-4, atol=1e-5)


def test_threshold():
    x = np.array([[[0.5, 1.0, 1.5]]])
    node = nir.Threshold(np.array([0.5, 1.0, 1.0]))
    assert outputs(node, x, [3]).tolist() == [[[0, 0, 1]]]
    assert outputs(node, x, [3], comparison=AT).tolist() == [[[1, 1, 1]]]


@pytest.mark.parametrize("delay", [[0.0, 0.002, 0.003], [0.002, 0.002, 0.002], [0.0, 0.0, 0.0]])
def test_delay(delay):
    x = np.arange(1.0, 16.0).reshape(5, 1, 3)
    actual = outputs(nir.Delay(np.array(delay)), x, [3], dt=0.001)
    for column, steps in enumerate(round(1000 * one) for one in delay):
        expected = np.concatenate([np.zeros(steps), x[: 5 - steps, 0, column]])
        assert actual[:, 0, column].tolist() == expected.tolist()


def test_linear_affine_and_scale():
    rng = np.random.default_rng(2)
    x, weight = rng.integers(-8, 8, (2, 3, 5)), rng.integers(-8, 8, (4, 5)).astype(float)
    product = np.einsum("tbi,oi->tbo", x, weight)
    assert (outputs(nir.Linear(weight), x, [5]) == product).all()
    bias = np.arange(4.0)
    assert (outputs(nir.Affine(weight, bias), x, [5]) == product + bias).all()
    scale = np.array([1, -2, 0.5, 4, 0])
    assert (outputs(nir.Scale(scale), x, [5]) == x * scale).all()


def test_a_matrix_for_each_row():
    rng = np.random.default_rng(3)
    x, weight = rng.integers(-8, 8, (2, 3, 6, 5)), rng.integers(-8, 8, (6, 4, 5)).astype(float)
    actual = outputs(nir.Affine(weight, np.arange(24.0).reshape(6, 4)), x, [6, 5])
    for row in range(6):
        expected = x[:, :, row] @ weight[row].T + np.arange(4.0) + 4 * row
        assert (actual[:, :, row] == expected).all()


@pytest.mark.parametrize(
    ("start", "end", "shape"), [(0, -1, (24,)), (1, -1, (2, 12)), (0, 1, (6, 4)), (-2, 2, (2, 12))]
)
def test_flatten(start, end, shape):
    x = np.arange(48.0).reshape(1, 2, 2, 3, 4)
    node = nir.Flatten({"input": np.array([2, 3, 4])}, start, end)
    network = from_nir(
        nir.NIRGraph(
            {"in": nir.Input(np.array([2, 3, 4])), "f": node, "out": nir.Output(np.array(shape))},
            [("in", "f"), ("f", "out")],
            type_check=False,
        )
    )
    assert (network.run(x).recorded["out"] == x.reshape(1, 2, *shape)).all()


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups", "zeros"),
    [
        (1, 0, 1, 1, ((0, 0), (0, 0))),
        ((2, 1), (1, 2), (1, 2), 1, ((1, 1), (2, 2))),
        (1, "same", 1, 1, ((1, 1), (0, 1))),
        (2, "valid", 1, 2, ((0, 0), (0, 0))),
    ],
)
def test_conv2d(stride, padding, dilation, groups, zeros):
    """Whole numbers, so that the sums are exact in any order."""
    rng = np.random.default_rng(4)
    x = rng.integers(-8, 8, (1, 2, 4, 7, 8))
    weight = rng.integers(-8, 8, (6, 4 // groups, 3, 2)).astype(float)
    bias = np.arange(6.0)
    node = nir.Conv2d((7, 8), weight, stride, padding, dilation, groups, bias)
    pair = [np.resize(value, 2) for value in (stride, dilation)]
    expected = convolve(x[0], weight, bias, pair[0], zeros, pair[1], groups)
    graph = nir.NIRGraph(
        {
            "in": nir.Input(np.array([4, 7, 8])),
            "conv": node,
            "out": nir.Output(np.array(expected.shape[1:])),
        },
        [("in", "conv"), ("conv", "out")],
        type_check=False,  # nir takes a group's channels for all of them
    )
    assert (np.asarray(from_nir(graph).run(x).recorded["out"])[0] == expected).all()


def test_conv2d_as_an_accelerator_computes_it(monkeypatch):
    """A matrix product of the windows: the same whole numbers."""
    monkeypatch.setattr(windows, "_on_cpu", lambda: False)
    rng = np.random.default_rng(8)
    x = rng.integers(-8, 8, (1, 2, 3, 7, 6))
    weight, bias = rng.integers(-8, 8, (5, 3, 3, 3)).astype(float), np.arange(5.0)
    node = nir.Conv2d((7, 6), weight, (2, 1), (1, 0), 1, 1, bias)
    expected = convolve(x[0], weight, bias, (2, 1), ((1, 1), (0, 0)), (1, 1), 1)
    assert (outputs(node, x, [3, 7, 6])[0] == expected).all()


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 3, 2)])
def test_conv1d(stride, padding, dilation):
    rng = np.random.default_rng(5)
    x, weight = rng.integers(-8, 8, (1, 2, 3, 11)), rng.integers(-8, 8, (5, 3, 4)).astype(float)
    bias = np.arange(5.0)
    actual = outputs(nir.Conv1d(11, weight, stride, padding, dilation, 1, bias), x, [3, 11])
    flat = ((0, 0), (padding, padding))
    expected = convolve(
        x[0][:, :, None], weight[:, :, None], bias, (1, stride), flat, (1, dilation), 1
    )
    assert (actual[0] == expected[:, :, 0]).all()


@pytest.mark.parametrize(
    ("window", "stride", "padding"), [((2, 2), (2, 2), (0, 0)), ((3, 2), (1, 2), (1, 0))]
)
def test_pools(window, stride, padding):
    rng = np.random.default_rng(6)
    x = rng.integers(0, 9, (1, 2, 3, 6, 8)).astype(float)
    sizes = [np.array(value) for value in (window, stride, padding)]
    one = np.eye(3)[:, :, None, None] * np.ones(window)
    zeros = tuple((pad, pad) for pad in padding)
    total = convolve(x[0], one, np.zeros(3), stride, zeros, (1, 1), 1)
    assert (outputs(nir.SumPool2d(*sizes), x, [3, 6, 8])[0] == total).all()
    mean = outputs(nir.AvgPool2d(*sizes), x, [3, 6, 8])[0]
    np.testing.assert_allclose(mean, total / np.prod(window), rtol=1e-6)


def bad(node, shape=(2,), **options):
    return lambda: from_nir(chain(node, shape=shape), **{"dt": 1.0, **options})


TWO = np.ones(2)
IMAGE = nir.Conv2d(None, np.ones((3, 2, 3, 3)), 1, 0, 1, 1, np.ones(3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (bad(nir.IF(TWO, TWO * np.nan)), r"'n0' \(IF\) has a v_threshold that is not finite"),
        (bad(nir.LIF(0 * TWO, TWO, TWO, TWO)), r"'n0' \(LIF\) has a tau of 0; it must be above 0"),
        (bad(nir.LI(TWO, TWO, TWO), dt=2.0), "tau of 1, shorter than a step of dt=2"),
        (bad(nir.Delay(TWO * 1.5)), "delays by 1.5 steps of dt=1"),
        (bad(nir.Delay(-TWO)), "delays by -1 steps"),
        (
            bad(nir.IF(TWO, -TWO), rules=Rules(Reset.SUBTRACT)),
            "v_threshold of -1; it must be above",
        ),
        (bad(nir.IF(TWO, TWO), dt=None), r"'n0' \(IF\) moves in time"),
        (bad(nir.IF(TWO, TWO), dt=0.0), "dt=0.0: the length of a step is above 0"),
    ],
)
def test_what_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def unchecked(node, shape):
    nodes = {"in": nir.Input(np.array(shape)), "one": node, "out": nir.Output(np.array(shape))}
    return nir.NIRGraph(nodes, [("in", "one"), ("one", "out")], type_check=False)


@pytest.mark.parametrize(
    ("node", "shape", "message"),
    [
        (nir.IF(np.ones(3), np.ones(3)), [2], r"'one' \(IF\) has v_threshold of shape \(3,\), but"),
        (nir.Affine(np.ones((3, 4)), np.ones(3)), [5], r"weight for inputs of shape \(4,\)"),
        (nir.Affine(np.ones((3, 4)), np.ones(4)), [4], "bias of shape"),
        (nir.Conv2d(None, np.ones((3, 2, 3, 3)), 1, 0, 1, 1, np.ones(3)), [4, 8, 8], "2 channels"),
        (nir.Conv2d(None, np.ones((3, 2, 9, 3)), 1, 0, 1, 1, np.ones(3)), [2, 8, 8], "not fit"),
        (nir.Conv2d(None, np.ones((3, 2, 3, 3)), 1, 0, 1, 2, np.ones(3)), [4, 8, 8], "2 groups"),
        (nir.Conv2d(None, np.ones((3, 2, 3, 3)), 2, "same", 1, 1, np.ones(3)), [2, 8, 8], "same"),
        (nir.Conv2d(None, np.ones((3, 2, 3, 3)), 1.5, 0, 1, 1, np.ones(3)), [2, 8, 8], "1.5"),
        (nir.Conv2d(None, np.ones((3, 2, 3, 3)), 0, 0, 1, 1, np.ones(3)), [2, 8, 8], "stride of 0"),
        (nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])), [8], "pools maps"),
        (
            nir.SumPool2d(np.array([2, 0]), np.array([2, 2]), np.array([0, 0])),
            [2, 8, 8],
            "kernel_size of 0; it must be at least 1",
        ),
        (nir.Flatten({"input": None}, 0, 3), [2, 8], "flattens axes 0 to 3"),
    ],
)
def test_shapes_that_do_not_fit(node, shape, message):
    with pytest.raises(ValueError, match=message):
        from_nir(unchecked(node, shape), dt=1.0)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"several_spikes": True}, "take reset=Reset.SUBTRACT"),
        ({"floor": -1.0}, "floor=-1.0"),
        ({"floor": float("nan")}, "floor=nan"),
    ],
)
def test_rules_that_cannot_be(rules, message):
    with pytest.raises(ValueError, match=message):
        Rules(**rules)
