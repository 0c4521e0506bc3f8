"""Weights scaled until every layer fires: against a slow loop, padding, and layers that cannot."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import UserError, neurons
from jaxsnn.arch.plan import parse
from jaxsnn.inputs import stimulus
from jaxsnn.inputs.stimulus import Shown
from jaxsnn.network import net as net_module
from jaxsnn.training.firing_start import firing_start
from jaxsnn.training.losses_over_time import LOSSES
from jaxsnn.training.through_time import spiking_net, through_time

STEPS, EXAMPLES, LEAK, LEVEL = 12, 6, 0.5, 1.5


@functools.cache
def network():
    """Two dense layers without a reset, of which NumPy can say every potential."""
    arch = parse(
        "20-30", input_shape=(2, 2, 3), classes=4, norm=False, head_bias=True, head_neuron=True
    )
    return spiking_net(arch, neurons.leaky(leak=LEAK, threshold=LEVEL, reset="none"))


def drawn():
    return through_time(network(), stimulus.held(STEPS)).init(jax.random.key(1))


def frames(steps=STEPS):
    """Sparse frames of small counts."""
    generator = np.random.default_rng(0)
    return generator.poisson(0.2, (steps, EXAMPLES, 2, 2, 3)).astype(np.float32)


def potentials(params, x):
    """Potentials of every layer ``[T, B, neurons]``, by a loop over time in float64."""
    emitted, layers = x.reshape(*x.shape[:2], -1).astype(np.float64), []
    for layer in params.values():
        potential, seen = 0.0, []
        for frame in emitted:
            kernel, bias = (np.asarray(layer[name], np.float64) for name in ("kernel", "bias"))
            potential = LEAK * potential + frame @ kernel + bias
            seen.append(potential)
        layers.append(np.stack(seen))
        emitted = (layers[-1] > LEVEL).astype(np.float64)
    return layers


@pytest.mark.parametrize("rate", [0.02, 0.08])
def test_every_layer_fires_as_often_as_is_asked(rate):
    x = frames()
    before = potentials(drawn()["params"], x)
    started = firing_start(network(), drawn(), Shown(jnp.asarray(x), STEPS), rate)
    assert np.mean(before[0] > LEVEL) < 0.005  # so that there is something to mend
    assert [np.mean(one > LEVEL) for one in before[1:]] == [0, 0]
    for layer in potentials(started["params"], x):
        assert np.mean(layer > LEVEL) == pytest.approx(rate, abs=2 / layer.size)


def test_kernel_and_bias_of_a_layer_have_one_factor():
    before = drawn()
    started = firing_start(network(), before, Shown(jnp.asarray(frames()), STEPS), 0.1)
    for name, layer in started["params"].items():
        ratios = [layer[leaf] / before["params"][name][leaf] for leaf in ("kernel", "bias")]
        factor = float(ratios[0].ravel()[0])
        assert factor > 1
        for ratio in ratios:
            np.testing.assert_allclose(ratio, factor, rtol=1e-5)


def test_what_stands_in_the_padding_changes_nothing():
    x, padding = frames(), np.full((5, EXAMPLES, 2, 2, 3), 9, np.float32)
    mask = jnp.concatenate([jnp.ones((STEPS, EXAMPLES)), jnp.zeros((5, EXAMPLES))])
    padded = Shown(jnp.asarray(np.concatenate([x, padding])), STEPS + 5, mask)
    alone = firing_start(network(), drawn(), Shown(jnp.asarray(x), STEPS, mask[:STEPS]), 0.1)
    jax.tree.map(
        np.testing.assert_array_equal, firing_start(network(), drawn(), padded, 0.1), alone
    )


def test_a_layer_that_no_factor_wakes_stays_as_it_is():
    variables = drawn()
    first, *_ = variables["params"]
    hopeless = jax.tree.map(lambda leaf: -jnp.abs(leaf), variables["params"][first])
    variables = {**variables, "params": {**variables["params"], first: hopeless}}
    started = firing_start(network(), variables, Shown(jnp.asarray(frames()), STEPS), 0.1)
    jax.tree.map(np.testing.assert_array_equal, started["params"][first], hopeless)


def test_a_gradient_reaches_the_first_layer_where_none_did():
    x = frames()

    def loss(params, variables):
        tree = {**variables, "params": params}
        state = net_module.initial_state(network(), tree, EXAMPLES)
        out = net_module.apply(network(), tree, jnp.asarray(x), state).readouts[-1]
        return jnp.mean(LOSSES["ce_rate"](out, jnp.arange(EXAMPLES) % 4, None))

    silent, awake = drawn(), firing_start(network(), drawn(), Shown(jnp.asarray(x), STEPS), 0.1)
    sizes = []
    for variables in (silent, awake):
        first, *_ = jax.tree.leaves(jax.grad(loss)(variables["params"], variables))
        sizes.append(float(jnp.max(jnp.abs(first))))
    assert sizes[1] > 30 * sizes[0]


@pytest.mark.parametrize("rate", [0.0, 0.6, -0.1, float("nan")])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(UserError, match=r"rate"):
        firing_start(network(), drawn(), Shown(jnp.asarray(frames()), STEPS), rate)


def test_batch_norm_which_undoes_a_factor_is_refused():
    net = spiking_net(parse("20-30", input_shape=(2, 2, 3), classes=4), neurons.leaky())
    with pytest.raises(UserError, match=r"dense1, dense2: batch norm.*norm=False"):
        firing_start(net, {}, Shown(jnp.asarray(frames()), STEPS), 0.1)
