"""The code of docs/neurons.md beside the neurons: the same spikes from random drives, ties too."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import neurons

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "neurons.md"
CODE = "\n".join(re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL))
WRITTEN: dict = {}
exec(compile(CODE, DOCUMENT.name, "exec"), WRITTEN)

# Activations of an ANN, and the neuron over the training tree: neither is ever saved or built.
FLOATS = {"relu", "quantised_relu", "clipped_relu", "clipped_spikes"}
STEPS, CHANNELS = 12, 40


def test_every_neuron_is_written_down():
    assert set(neurons.FACTORIES) - FLOATS == set(WRITTEN) - {"__builtins__", "even_threshold"}
    headings = set(re.findall(r"^def (\w+)", CODE, re.MULTILINE))
    assert headings == set(WRITTEN) - {"__builtins__"}


def whole(rng, lowest, highest, *shape):
    return rng.integers(lowest, highest + 1, shape or (CHANNELS,)).astype(np.int32)


def drives(rng, reach=12):
    """Whole drives ``[T, C]``; every third step is silent."""
    actual = whole(rng, -reach, reach, STEPS, CHANNELS)
    actual[2::3] = 0
    return actual


def ours(neuron, leaves, shown):
    """Outputs ``[T, C]`` of the library, one image."""
    leaves = {name: jnp.asarray(value) for name, value in leaves.items()}
    state = neuron.init(leaves, (1, CHANNELS), None)
    _, out = jax.lax.scan(
        lambda state, drive: neuron.step(leaves, state, drive), state, jnp.asarray(shown)[:, None]
    )
    return np.asarray(out)[:, 0]


def theirs(step, start, leaves, shown):
    """Outputs of the document's code, neuron by neuron, in Python's numbers."""
    out = np.zeros(shown.shape, np.float64)
    for channel in range(CHANNELS):
        of_channel = {name: value[..., channel].tolist() for name, value in leaves.items()}
        state = start(of_channel)
        for number, drive in enumerate(shown[:, channel].tolist()):
            state, out[number, channel] = step(of_channel, state, drive)
    return out


def compare(neuron, step, start, leaves, shown):
    expected = theirs(step, start, leaves, shown)
    np.testing.assert_array_equal(ours(neuron, leaves, shown), expected)
    assert len(np.unique(expected)) > 1
    return expected


def nothing(leaves):
    return ()


def zeros(leaves):
    return 0, 0


def begun(leaves):
    return leaves["initial"], 0


def even(rng, highest):
    """Steps of 0 as well: channels that are constant."""
    return {
        "first": whole(rng, -4, 6),
        "step": whole(rng, 0, 3),
        "first_fraction": whole(rng, 0, 2**16 - 1),
        "step_fraction": whole(rng, 0, 2**16 - 1) * whole(rng, 0, 1),
        "highest": whole(rng, 1, highest),
    }


def firing(rng):
    threshold = whole(rng, 1, 9)
    return {
        "threshold": threshold,
        "initial": threshold // 2,
        "negative_threshold": whole(rng, -3, -1),
    }


@pytest.mark.parametrize("name", ["threshold_count", "integer_level"])
def test_thresholds(name):
    rng = np.random.default_rng(0)
    leaves = {"thresholds": np.sort(whole(rng, -9, 12, 3, CHANNELS), axis=0)}
    compare(getattr(neurons, name)(3), WRITTEN[name], nothing, leaves, drives(rng))


def test_heads():
    rng = np.random.default_rng(1)
    compare(neurons.identity(), WRITTEN["identity"], nothing, {}, drives(rng))


@pytest.mark.parametrize("options", [{}, {"per_step": 3}, {"rising": True, "per_step": 2}])
def test_tracking(options):
    rng = np.random.default_rng(2)
    neuron = neurons.tracking(5, **options)

    def step(leaves, state, drive):
        return WRITTEN["tracking"](leaves, state, drive, **options)

    expected = compare(neuron, step, zeros, even(rng, 5), drives(rng))
    assert expected.min() == -options.get("per_step", 1)


def test_level_of_even_thresholds():
    rng = np.random.default_rng(3)
    compare(neurons.even_level(5), WRITTEN["even_level"], nothing, even(rng, 5), drives(rng, 20))


@pytest.mark.parametrize(
    "options",
    [{}, {"signed": True}, {"levels": 2, "bounded": True},
     {"signed": True, "levels": 2, "bounded": True}],
    ids=str,
)  # fmt: skip
def test_integrate_and_fire(options):
    rng = np.random.default_rng(4)
    leaves = firing(rng)
    if not options.get("signed"):
        leaves.pop("negative_threshold")

    def step(leaves, state, drive):
        return WRITTEN["integrate_and_fire"](leaves, state, drive, **options)

    expected = compare(neurons.integrate_and_fire(**options), step, begun, leaves, drives(rng, 9))
    assert (expected.min() < 0) == options.get("signed", False)


def test_level_of_what_fired():
    rng = np.random.default_rng(5)

    def step(leaves, state, drive):
        return WRITTEN["fired_level"](leaves, state, drive, 3)

    compare(neurons.fired_level(3), step, nothing, firing(rng), drives(rng, 30))


@pytest.mark.parametrize("name", ["maximum", "running_maximum"])
@pytest.mark.parametrize("minima", [False, True])
def test_max_pools(name, minima):
    rng = np.random.default_rng(9)
    inputs = whole(rng, -3, 3, STEPS, 1, 2, 2, CHANNELS)
    leaves = {"sign": rng.choice([-1, 1], CHANNELS).astype(np.int32)} if minima else {}
    neuron = getattr(neurons, name)(2, 2, minima=minima)
    arrays = {leaf: jnp.asarray(value) for leaf, value in leaves.items()}
    state = neuron.init(arrays, inputs.shape[1:], None)
    _, out = jax.lax.scan(lambda s, x: neuron.step(arrays, s, x), state, jnp.asarray(inputs))
    expected = np.zeros((STEPS, CHANNELS))
    for channel in range(CHANNELS):
        window = {leaf: int(value[channel]) for leaf, value in leaves.items()}
        state = () if name == "maximum" else ([0] * 4, 0)
        for number in range(STEPS):
            spikes = inputs[number, 0, :, :, channel].ravel().tolist()
            state, expected[number, channel] = WRITTEN[name](window, state, spikes)
    np.testing.assert_array_equal(np.asarray(out)[:, 0, 0, 0], expected)
    assert len(np.unique(expected)) > 2


def test_delay():
    rng = np.random.default_rng(6)
    inner = WRITTEN["tracking"]

    def step(leaves, state, drive):
        return WRITTEN["delayed"](inner, leaves, state, drive, 2)

    def start(leaves):
        return zeros(leaves), [0, 0]

    expected = compare(
        neurons.delayed(neurons.tracking(5), 2), step, start, even(rng, 5), drives(rng)
    )
    assert not expected[:2].any()


def test_lost_spikes():
    """The uniform numbers of the library decide which units are kept."""
    rng = np.random.default_rng(7)
    leaves = {"thresholds": np.sort(whole(rng, -9, 12, 3, CHANNELS), axis=0)}
    neuron = neurons.unit_dropout(neurons.threshold_count(3))
    shown, keys = drives(rng)[0], jax.random.split(jax.random.key(1), 1)
    arrays = {"thresholds": jnp.asarray(leaves["thresholds"]), "drop_ratio": jnp.float32(0.5)}
    state = neuron.init(arrays, (1, CHANNELS), keys)
    _, out = neuron.step(arrays, state, jnp.asarray(shown)[None])
    uniform = jax.random.uniform(jax.random.fold_in(keys[0], 0), (3, CHANNELS))
    kept = np.asarray(uniform >= 0.5)
    expected = [
        WRITTEN["unit_dropout"](
            WRITTEN["threshold_count"],
            {"thresholds": leaves["thresholds"][:, channel].tolist()},
            (),
            int(shown[channel]),
            kept[:, channel].tolist(),
        )[1]
        for channel in range(CHANNELS)
    ]
    assert np.asarray(out)[0].tolist() == expected
    full = (shown >= leaves["thresholds"]).sum(0)
    assert 0 < sum(expected) < full.sum()


@pytest.mark.parametrize("emit", ["spike", "potential"])
@pytest.mark.parametrize("reset", ["delayed", "subtract", "zero", "none"])
def test_leaky(reset, emit):
    """Leaks and drives that are exact in floats; some potentials lie at their threshold."""
    rng = np.random.default_rng(8)
    leaves = {
        "leak": rng.choice([0, 0.5, 1, 1.5, -0.5], CHANNELS).astype(np.float32),
        "threshold": rng.choice([0.5, 1, 0.25], CHANNELS).astype(np.float32),
    }
    shown = (whole(rng, -2, 6, 6, CHANNELS) / 4).astype(np.float32)

    def step(leaves, state, drive):
        return WRITTEN["leaky"](leaves, state, drive, reset, emit)

    compare(neurons.leaky(0.5, reset=reset, emit=emit), step, lambda _: 0, leaves, shown)
