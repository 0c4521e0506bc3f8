"""The joint loss of an early classifier: its weight, and that training uses it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsnn import neurons, parse
from jaxsnn.arch import zoo
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.inputs.preprocess import Moment, unchanged
from jaxsnn.network import net as net_module
from jaxsnn.network.initialisers import FanInUniform
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import hidden
from jaxsnn.training.early_loss_weight import Ramp, share_of_macs
from jaxsnn.training.one_pass import classification
from jaxsnn.training.options import Options
from jaxsnn.training.schedules import sgd
from jaxsnn.training.train import train

ARCH = parse("4C3p1-E-6C3s2p1", classes=3, input_shape=(6, 6, 1), head_pool=True, head_bias=True)
NET = Net(ARCH, hidden(neurons.relu()), initialiser=FanInUniform())
RECIPE = unchanged(Encoding("held", 1 / 256))


def test_the_weight_of_the_paper():
    """Check 16, of VGG11 on CIFAR-10 for 200 epochs."""
    ramp = Ramp(share_of_macs(zoo.bsf("vgg11", 3)), 200, 7)
    weight = {epoch: float(ramp(7 * epoch)) for epoch in (0, 1, 101, 199)}
    assert weight == pytest.approx({0: 0.01, 1: 0.01, 101: 0.257896, 199: 0.500834}, abs=1e-6)
    assert float(ramp(7 * 300)) == pytest.approx(0.505792, abs=1e-6)  # of a second phase: the goal
    assert float(ramp(13)) == pytest.approx(0.01)  # the last update of epoch 1
    assert float(ramp(14)) == pytest.approx(0.01 + (0.505792 - 0.01) / 200, abs=1e-6)


def test_the_share_counts_shortcuts_and_no_head():
    arch = parse("4C1x-E-[4C1x]+bias", classes=9, input_shape=(2, 2, 3), head_pool=True)
    assert share_of_macs(arch) == 4 * 3 * 4 / (4 * 3 * 4 + 2 * 4 * 4 * 4)
    with pytest.raises(ValueError, match="no side exit"):
        share_of_macs(parse("4C1", input_shape=(2, 2, 3)))


def images(number=24):
    rng = np.random.default_rng(0)
    labels = np.arange(number) % 3
    pictures = rng.integers(0, 90, (number, 6, 6, 1)) + 80 * labels[:, None, None, None]
    return pictures.astype(np.uint8), labels


def test_the_loss_is_the_final_one_and_the_weighted_early_one():
    task = classification(NET, RECIPE, Ramp(0.5, 10, 4))
    pictures, labels = images(6)
    variables = net_module.init_variables(NET, jax.random.key(1))
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    arguments = (variables["params"], rest, jnp.asarray(pictures), jnp.asarray(labels))
    key = jax.random.key(0)
    moment = Moment(jnp.int32(20), jnp.int32(5), jnp.arange(6))
    losses, (logits, _) = task.loss(*arguments, key, True, axis_name=None, moment=moment)

    x = pictures[None] / 256
    state = net_module.initial_state(NET, variables, 6)
    out, _ = net_module.apply_training(NET, variables, jnp.asarray(x, jnp.float32), state)
    early, final = (
        -np.log(np.exp(r[0])[np.arange(6), labels] / np.exp(r[0]).sum(-1))
        for r in map(np.asarray, out.readouts)
    )
    weight = 0.01 + 4 / 10 * 0.49  # in epoch 5
    np.testing.assert_allclose(losses, final + weight * early, rtol=1e-5)
    np.testing.assert_allclose(logits, out.readouts[-1][0], rtol=1e-6)
    judged, _ = task.loss(
        *arguments, key, False, axis_name=None
    )  # evaluation: the final head alone
    alone, _ = classification(NET, RECIPE).loss(*arguments, key, False, axis_name=None)
    assert np.array_equal(judged, alone)


def test_training_passes_the_update_and_moves_the_early_classifier(tmp_path):
    pictures, labels = images()
    phases = [{"epochs": 2, "learning_rate": 0.05, "schedule": "constant"}]
    phases = [{**phase, "steps_per_epoch": 3, "first_step": 0} for phase in phases]
    optimiser, _ = sgd(phases, 0.0, nesterov=True)
    data = (pictures, labels, None, None)
    moved = {}
    for name, ramp in (("without", None), ("with", Ramp(0.5, 2, 3))):
        task = classification(NET, RECIPE, ramp)
        options = Options(epochs=2, batch_size=8, seed=0, directory=tmp_path / name)
        state, _ = train(task, optimiser, data, options, progress=False)
        first = task.init(jax.random.split(jax.random.key(0), 3)[0])["params"]["exit1"]["kernel"]
        moved[name] = float(np.abs(np.asarray(state.params["exit1"]["kernel"]) - first).max())
    assert moved["without"] == 0
    assert moved["with"] > 0


def test_nesterov_is_that_of_the_textbook():
    """velocity = 0.9 velocity + g; the step is along g + 0.9 velocity."""
    phases = [{"epochs": 1, "learning_rate": 0.1, "schedule": "constant"}]
    phases = [{**phase, "steps_per_epoch": 9, "first_step": 0} for phase in phases]
    optimiser, _ = sgd(phases, 0.01, nesterov=True)
    params, velocity, expected = {"kernel": jnp.array([2.0])}, 0.0, 2.0
    state = optimiser.init(params)
    for gradient in (1.0, -0.5, 0.25):
        updates, state = optimiser.update({"kernel": jnp.array([gradient])}, state, params)
        params = optax.apply_updates(params, updates)
        slope = gradient + 0.01 * expected
        velocity = 0.9 * velocity + slope
        expected -= 0.1 * (slope + 0.9 * velocity)
        assert float(params["kernel"][0]) == pytest.approx(expected, rel=1e-6)
