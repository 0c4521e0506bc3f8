"""The certificate of a rate-coded network: gaps beside the theory, faults beyond it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jaxsnn import (
    Encoding,
    Net,
    certify,
    convert,
    evaluate,
    forward,
    hidden,
    init_variables,
    methods,
    neurons,
    parse,
    simulate,
    with_leaf,
    with_unit_dropout,
)
from jaxsnn.arch.plan import plan
from jaxsnn.conversion import percentiles
from jaxsnn.conversion.float_reference import snapped
from jaxsnn.equality.rate_bounds import deviations
from jaxsnn.errors import UserError
from jaxsnn.network.initialisers import FanInUniform

HELD = Encoding("held", 1 / 128, 256)
ARCH = parse(
    "5C3p1-[5C3p1-5C3p1]+bias-AP2-E-6", classes=4, input_shape=(6, 6, 1), head_bias=True
)  # fmt: skip
STEPS = 40
LATE = {"initial": 0.0, "delay": 1, "spiking_pools": True}  # as the slow simulator does by default


@functools.cache
def network(spiking_heads=False, **options):
    net = Net(ARCH, hidden(neurons.relu()), initialiser=FanInUniform())
    variables = jax.tree.map(np.array, init_variables(net, jax.random.key(0)))
    rng = np.random.default_rng(0)
    images = rng.integers(-256, 257, (10, *ARCH.input_shape)).astype(np.int16)
    (scales,) = percentiles.scales(net, variables, images, [99.0], encoding=HELD)
    options = {"spiking_heads": spiking_heads, "weight_bits": None, **LATE, **options}
    method = methods.rate(scales=scales, **options)
    snn = convert(variables, ARCH, method, trained=net, encoding=HELD)
    return net, variables, images, scales, snn


def layer(proof, name):
    return next(one for one in proof.layers if one.site == name)


@pytest.mark.slow
@pytest.mark.parametrize("spiking_heads", [False, True])
def test_rates_lie_where_theory_allows(spiking_heads):
    net, variables, images, _, snn = network(spiking_heads)
    proof = certify(snn, variables, images, steps=STEPS, batch_size=4)
    assert proof.equality == "approximate"
    assert (proof.images, proof.steps) == (10, STEPS)
    assert proof.mismatches == proof.float_mismatches == 0
    assert all(one.gap <= one.allowed for one in proof.layers)
    assert 0 < layer(proof, "conv1").gap < 2.1 / STEPS  # the first layer by itself is within two
    ann = np.asarray(forward(net, variables, HELD.decode(jnp.asarray(images))).readouts[-1][0])
    run = evaluate(snn, images, ann.argmax(-1), steps=STEPS)
    assert proof.given_predictions == proof.float_predictions == 10 - run.correct[-1]
    assert "theory allows" in str(proof)
    assert str(proof).splitlines()[0].endswith(f"{proof.given_predictions} predictions differ")


def test_the_gap_is_that_of_the_slow_simulator():
    """Of the first layer, whose activation is the trained network's: no layer before it ends."""
    net, variables, images, scales, snn = network()
    proof = certify(snn, variables, images, steps=STEPS)
    tree = snapped(variables, snn)
    slow = reference.rate_coded(plan(ARCH)[:1], tree, HELD.decode(images), scales, STEPS)
    rates = np.asarray(slow["conv1"]).mean(0)
    out = forward(net, tree, HELD.decode(jnp.asarray(images))).outs["conv1"][0]
    gap = np.abs(rates - np.clip(np.asarray(out) / scales["conv1"], 0, 1))
    assert layer(proof, "conv1").gap == pytest.approx(gap.max(), abs=1e-5)
    assert layer(proof, "conv1").mean_gap == pytest.approx(gap.mean(), abs=1e-5)
    assert proof.gap == max(one.gap for one in proof.layers if one.site not in ("exit1", "readout"))


def test_the_bound_by_hand():
    """Scales 2, 4: a spike of dense1 moves dense2 by 2/4 of its weight; one step of delay each."""
    arch = parse("2b-1b", input_shape=(1, 1, 1), classes=2, norm=False)
    net = Net(arch, hidden(neurons.relu()))
    variables = jax.tree.map(np.array, init_variables(net, jax.random.key(0)))
    variables["params"]["dense2"]["kernel"] = np.float32([[0.5], [-0.75]])
    variables["params"]["readout"]["kernel"] = np.float32([[1.0, -0.5]])
    scales = {"dense1": 2.0, "dense2": 4.0}
    snn = convert(
        variables, arch, methods.rate(scales=scales, initial=0.25, delay=1), encoding=HELD
    )
    bounds = deviations(snn, 1)
    first = 1 - 0.25 + 1
    second = (0.5 + 0.75) * first * 2 / 4 + 1 - 0.25 + 1
    assert bounds["dense1"] == pytest.approx([first] * 2, abs=1e-6)
    assert bounds["dense2"] == pytest.approx([second], abs=1e-6)
    sums = bounds["readout"] * snn.unit("readout")
    assert sums == pytest.approx([second * 4, second * 2], rel=1e-6)


def test_a_fault_of_the_simulation_lies_beyond_theory():
    _, variables, images, _, snn = network()
    leaf = snn.variables["fixed"]["conv1"]["threshold"]
    broken = with_leaf(snn, "conv1", "threshold", leaf * 1.5)
    proof = certify(broken, variables, images, steps=STEPS)
    assert proof.mismatches > 0
    assert layer(proof, "conv1").integer > 0
    assert "BEYOND" in str(proof)
    assert proof.float_mismatches == 0


def test_pools_that_pass_sums_on_are_within_theory():
    _, variables, images, _, snn = network(spiking_pools=False)
    proofs = [certify(snn, variables, images, steps=steps) for steps in (STEPS, 10 * STEPS)]
    for proof in proofs:
        assert (proof.mismatches, proof.float_mismatches) == (0, 0)
    assert 0 < layer(proofs[1], "dense1").gap < layer(proofs[0], "dense1").gap / 3


def test_a_wrong_fold_differs_from_the_float_ann():
    _, variables, images, scales, _ = network()
    wrong = jax.tree.map(np.array, variables)
    wrong["batch_stats"]["conv1"]["norm"]["mean"] += 0.3
    snn = convert(wrong, ARCH, methods.rate(scales=scales, weight_bits=None, **LATE), encoding=HELD)
    proof = certify(snn, variables, images, steps=STEPS)
    assert proof.mismatches == 0
    assert proof.float_mismatches > 0
    assert not proof.origins_are_ties


def test_what_theory_says_nothing_of_is_refused():
    _, variables, images, _, snn = network()
    with pytest.raises(UserError, match="settle=True: rates do not come to rest"):
        certify(snn, variables, images, steps=STEPS, settle=True)
    noisy = with_unit_dropout(snn, "conv1", 0.1)
    with pytest.raises(UserError, match=r"conv1: .*leave noise out"):
        certify(noisy, variables, images, steps=STEPS)


@pytest.mark.slow
def test_gaps_fall_with_time():
    _, variables, images, _, snn = network()
    short, long = (certify(snn, variables, images, steps=steps) for steps in (STEPS, 10 * STEPS))
    assert long.gap < short.gap / 3
    assert simulate(snn, images, steps=2).readout.shape == (2, 10, 4)
