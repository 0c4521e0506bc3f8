"""Running sums hold for so many steps as are said, and not for one more."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import levels_network

from jaxsnn import (
    CutNormal,
    Encoding,
    Net,
    convert,
    evaluate,
    hidden,
    init_variables,
    methods,
    neurons,
    parse,
    settle,
    simulate,
    sweep,
    with_unit_dropout,
)
from jaxsnn.arch.layers import Dense
from jaxsnn.arch.notation import Arch
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.weight_quantisers import full_precision
from jaxsnn.simulation import image_by_image
from jaxsnn.simulation.horizon import MOST_STEPS, check_horizon

LARGEST = 2**31 - 1
WHITE = np.full((1, 1, 1, 1), 255, np.uint8)


def held(weight, bias=5):
    """A held pixel, one unit of one level that fires at every step, and an integer readout."""
    fires = SiteMap(neurons.threshold_count(1), by_name=(("readout", neurons.identity()),))
    return Spiking(
        variables={
            "params": {
                "dense1": {"kernel": jnp.ones((1, 1), jnp.int8)},
                "readout": {
                    "kernel": jnp.array([[0, -weight]], jnp.int32),
                    "bias": jnp.array([0, -bias], jnp.int32),
                },
            },
            "fixed": {"dense1": {"thresholds": jnp.array([[200]], jnp.int32)}},
        },
        arch=Arch((Dense(1, norm=False),), 2, (1, 1, 1), norm=False, head_bias=True),
        neurons=fires,
        ann=hidden(neurons.relu()),
        weights=SiteMap(full_precision()),
        encoding=Encoding("held", 1 / 256),
        accumulators=SiteMap("int32"),
        units=(),
    )


def test_a_readout_holds_up_to_the_horizon_and_is_refused_beyond():
    weight = 10_000_019
    most = LARGEST // (weight + 5)  # of one step, with the bias
    assert (most, (most + 1) * (weight + 5) > LARGEST) == (214, True)
    snn = held(weight)
    sums = np.asarray(simulate(snn, WHITE, steps=most).readout, np.int64)
    assert sums[:, 0, 1].tolist() == [-step * (weight + 5) for step in range(1, most + 1)]
    refused = r"steps=215: the sum of readout may grow by 10,000,024 .* simulate at most 214"
    for call in (
        lambda: simulate(snn, WHITE, steps=most + 1),
        lambda: evaluate(snn, WHITE, steps=most + 1),
        lambda: sweep(snn, WHITE, steps=[1, most + 1]),
        lambda: sweep(held(weight, 0), WHITE, steps=[1, most + 1], networks=[snn]),
    ):
        with pytest.raises(ValueError, match=refused):
            call()


def test_logits_that_are_added_up_in_every_step_change_no_prediction():
    arch = parse("8C3-16", input_shape=(8, 8, 1), classes=3)
    net = Net(
        arch,
        hidden(neurons.quantised_relu(k=1, bound=2)),
        initialiser=CutNormal(hidden=0.5),
    )
    variables = init_variables(net, jax.random.key(0))
    snn = convert(
        variables, arch, methods.scatter_gather(k=1, bound=2), encoding=Encoding("held", 1 / 256)
    )
    most = LARGEST // snn.report[-1].step_bound
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    predictions = np.asarray(simulate(snn, images, steps=most, block=most).predictions)
    assert (predictions == predictions[0]).all()
    with pytest.raises(ValueError, match=f"steps=2000: .*simulate at most {most},"):
        simulate(snn, images, steps=2000)


def test_what_comes_to_rest_has_no_horizon_unless_spikes_are_lost():
    arch, variables, _ = levels_network()
    kernel = np.array([[1.0, -1.0], [-1.0, 1.0]], np.float32) * (1 + 2**-20)
    variables["params"]["dense2"]["kernel"] = kernel
    snn = convert(variables, arch, methods.negative_spikes(k=1, bound=2, weight_bits=None))
    images = np.repeat(WHITE, 2, 0)
    assert len(settle(snn, images, steps=100_000).readout) < 100
    noisy = with_unit_dropout(snn, "dense1", 0.5)
    record = {one.site: one for one in snn.report}["dense2"]
    most = LARGEST // record.step_bound
    assert most < 100_000
    with pytest.raises(ValueError, match=f"membrane potential of dense2 .* at most {most:,},"):
        simulate(noisy, images, steps=100_000, key=jax.random.key(0))
    assert simulate(noisy, images, steps=9, key=jax.random.key(0)).readout.shape == (9, 2, 3)


def test_an_integer_potential_under_a_held_current_has_a_horizon():
    snn = dataclasses.replace(held(1), neurons=hidden(neurons.integrate_and_fire()))
    leaves = {"threshold": jnp.array([2**30]), "initial": jnp.array([0])}
    tree = {**snn.variables, "fixed": {"dense1": leaves}}
    tree["params"] = {
        **tree["params"],
        "dense1": {"kernel": jnp.full((1, 1), 90_000, jnp.int32)},
    }
    snn = dataclasses.replace(snn, variables=tree)
    most = LARGEST // (255 * 90_000)
    simulate(snn, WHITE, steps=most)
    with pytest.raises(ValueError, match=f"membrane potential of dense1 .* at most {most},"):
        simulate(snn, WHITE, steps=most + 1)


def test_net_counts_have_a_horizon_where_they_are_asked_for():
    arch, variables, _ = levels_network()
    # 4096 spikes a step; a readout of zeros, whose sum never grows
    variables["params"]["readout"]["kernel"] = np.zeros((2, 3), np.float32)
    method = methods.scatter_gather(k=10, bound=4)
    snn = convert(variables, arch, method, encoding=Encoding("held", 1 / 256))
    most = LARGEST // 4096
    with pytest.raises(ValueError, match=f"net spike count of dense1 .* at most {most:,},"):
        simulate(snn, WHITE, steps=most + 1, counts=True)


def test_more_steps_than_a_float_counts_are_refused_everywhere():
    snn = held(0)
    for call in (
        lambda: simulate(snn, WHITE, steps=2**40),
        lambda: sweep(snn, WHITE, steps=[2**40]),
        lambda: evaluate(snn, WHITE, steps=MOST_STEPS + 1),
    ):
        with pytest.raises(ValueError, match="give a whole number from 1 to 16,777,216"):
            call()


def test_more_spikes_in_a_step_than_a_counter_holds_are_refused():
    arch = parse("512C3p1", input_shape=(64, 64, 1), classes=1, norm=False)
    snn = dataclasses.replace(held(1), arch=arch, neurons=hidden(neurons.threshold_count(4096)))
    spikes = 512 * 64 * 64 * 4096
    with pytest.raises(ValueError, match=f"{spikes:,} spikes at conv1 in one step"):
        check_horizon(snn, 1)


def test_what_ends_image_by_image_has_the_same_horizon():
    with pytest.raises(ValueError, match="simulate at most 214"):
        image_by_image.run(held(10_000_019), WHITE, lambda *_: None, steps=215, every=2)
