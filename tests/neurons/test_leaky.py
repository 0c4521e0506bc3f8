"""Leaky integrate and fire: trajectories by hand, gradients against a recursion in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsnn import neurons
from jaxsnn.arch.plan import parse
from jaxsnn.inputs import stimulus
from jaxsnn.network.net import init_variables
from jaxsnn.training.options import Options
from jaxsnn.training.through_time import spiking_net, through_time
from jaxsnn.training.train import train

RESETS = ("delayed", "subtract", "zero", "none")
LEAKY = neurons.leaky


def run(cell, drives, **leaves):
    """Outputs [T, ...] over drives [T, B, C], with leaves other than the cell's own if given."""
    drives = jnp.asarray(drives, jnp.float32)
    channels = drives.shape[-1]
    tree = cell.learned(channels) | cell.fixed(channels) | leaves
    state = cell.init(tree, drives.shape[1:], None)
    return jax.lax.scan(lambda state, drive: cell.step(tree, state, drive), state, drives)[1]


def trajectory(values, **options):
    """Potentials that are compared, and spikes, of one neuron."""
    drives = np.asarray(values, np.float32).reshape(-1, 1, 1)
    seen = [run(LEAKY(emit=emit, **options), drives).ravel() for emit in ("potential", "spike")]
    return seen[0].tolist(), seen[1].tolist()


def spikes_at(*steps, of):
    return [float(step in steps) for step in range(1, of + 1)]


def test_trajectories_of_the_specification():
    # I = 0.75: 0.375 + 0.75 = 1.125 fires; 0.5625 + 0.75 - 1; 0.15625 + 0.75; ...
    potentials, spikes = trajectory([0.75] * 6)
    assert potentials == [0.75, 1.125, 0.3125, 0.90625, 1.203125, 0.3515625]
    assert spikes == spikes_at(2, 5, of=6)
    # I = 0.5 comes to 1 from below and never exceeds it.
    potentials, spikes = trajectory([0.5] * 60)
    assert potentials[:3] == [0.5, 0.75, 0.875]
    assert max(potentials) == 1.0
    assert not any(spikes)
    # I = 1.5: 1 + 2^-t, a spike at each step until float32 rounds that to 1.
    potentials, spikes = trajectory([1.5] * 30)
    assert potentials[:20] == [1 + 2.0**-t for t in range(1, 21)]
    assert all(spikes[:20])
    rounded = potentials.index(1.0)
    assert spikes[rounded] == 0
    assert potentials[rounded + 1] == 2.0  # no reset after a step without a spike


@pytest.mark.parametrize(
    ("reset", "potentials", "spikes"),
    [
        # Drive 1.5, 1.5, 0, 0, 0 at leak 1/2, threshold 1:
        ("delayed", [1.5, 1.25, -0.375, -0.1875, -0.09375], (1, 2)),  # 0.75+1.5-1; 0.625-1
        ("subtract", [1.5, 1.75, 0.375, 0.1875, 0.09375], (1, 2)),  # 0.5/2+1.5; 0.75/2
        ("zero", [1.5, 1.5, 0.0, 0.0, 0.0], (1, 2)),
        ("none", [1.5, 2.25, 1.125, 0.5625, 0.28125], (1, 2, 3)),
    ],
)
def test_resets_by_hand(reset, potentials, spikes):
    actual = trajectory([1.5, 1.5, 0, 0, 0], reset=reset)
    assert actual == (potentials, spikes_at(*spikes, of=5))


def test_other_leaks_and_thresholds_by_hand():
    # Leak 1 (integrate and fire), threshold 2, drive 1.5: 1.5, 3 fires, 4.5-2 fires, 4-2, 3.5 fires
    actual = trajectory([1.5] * 5, leak=1.0, threshold=2.0)
    assert actual == ([1.5, 3.0, 2.5, 2.0, 3.5], spikes_at(2, 3, 5, of=5))
    # Leak 0: the potential is the drive, less the threshold after a spike.
    actual = trajectory([1.5, 1.5, 0.5, 1.25], leak=0.0)
    assert actual == ([1.5, 0.5, 0.5, 1.25], spikes_at(1, 4, of=4))


def test_exactly_the_threshold_is_no_spike():
    just = float(np.nextafter(np.float32(1), np.float32(2)))
    assert trajectory([1.0], reset="none")[1] == [0]
    assert trajectory([just], reset="none")[1] == [1]


def test_leaves_are_per_channel():
    leaves = {"threshold": jnp.array([0.5, 1.0, 2.0]), "leak": jnp.array([0.0, 0.5, 1.0])}
    actual = run(LEAKY(reset="zero"), np.full((4, 2, 3), 0.75), **leaves)
    # 0.75 > 0.5 always; 0.75, 1.125 fires, again; 0.75, 1.5, 2.25 fires, 0.75.
    assert actual[:, 0].T.tolist() == [[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0]]
    assert (actual[:, 0] == actual[:, 1]).all()


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize(("learned", "used"), [(1.5, 1.0), (-0.25, 0.0)])
def test_a_learned_leak_is_used_between_0_and_1(learned, used, reset):
    drives = np.random.default_rng(0).normal(0.3, 1, (12, 2, 3))
    cell = LEAKY(reset=reset, learn=("leak",), emit="potential")

    def total(leak):
        return run(cell, drives, leak=jnp.full(3, leak)).sum(-1).sum(-1)

    np.testing.assert_array_equal(total(learned), total(used))
    assert jax.grad(lambda leak: total(leak)[-1])(learned) == 0  # and has no gradient out there


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("leak", [0.0, 1.0])
def test_a_leak_that_starts_at_a_bound_has_its_whole_gradient(leak, reset):
    """U(3) = leak U(2) + 0.2, U(2) = leak 0.5 + 0.25, below the threshold throughout."""
    cell = LEAKY(leak, reset=reset, learn=("leak",), emit="potential")
    drives = np.array([0.5, 0.25, 0.2]).reshape(3, 1, 1)
    actual = jax.grad(lambda leak: run(cell, drives, leak=leak)[-1].sum())(jnp.full(1, leak))
    assert float(actual[0]) == 0.25 + 2 * leak * 0.5


@pytest.mark.parametrize(("threshold", "gradient"), [(2**-9, -1.0), (1e-3, -1.0), (0.0, 0.0)])
def test_a_threshold_at_its_bound_has_its_whole_gradient(threshold, gradient):
    """The second potential is what is left less the threshold; below 1e-3 that is a constant."""
    cell = LEAKY(learn=("threshold",), emit="potential")
    drives = np.array([1.5, 0.0]).reshape(2, 1, 1)

    def last(threshold):
        return run(cell, drives, threshold=threshold)[-1].sum()

    assert float(jax.grad(last)(jnp.full(1, threshold, jnp.float32))[0]) == gradient


def reference(drives, leak, threshold, reset, slope, of_spikes, of_potentials):
    """Spikes, potentials and the gradients of sum(of_spikes S + of_potentials U), in float64.

    Arrays are [T, B, C]; backwards through time, by hand: U(t) = leak V(t-1) + I(t) less the
    delayed reset, where V is what a reset at once leaves of U.
    """
    drives = np.asarray(drives, np.float64)
    before, seen = np.zeros(drives.shape[1:]), []
    for drive in drives:
        kept, delayed = before, 0
        if seen and reset == "delayed":
            delayed = threshold * seen[-1][1]
        potential = leak * kept + drive - delayed
        spike = (potential > threshold).astype(np.float64)
        before = potential
        before = potential - threshold * spike if reset == "subtract" else before
        before = potential * (1 - spike) if reset == "zero" else before
        seen.append((potential, spike, kept))
    to_drive, to_leak, to_threshold = np.zeros_like(drives), 0, 0
    later = np.zeros_like(before)  # gradient of U(t + 1)
    for t in reversed(range(len(drives))):
        potential, spike, kept = seen[t]
        smooth = of_spikes[t] / (1 + slope * np.abs(potential - threshold)) ** 2
        through = leak * later * ((1 - spike) if reset == "zero" else 1)
        taken = {"delayed": 1, "subtract": leak}.get(reset, 0) * later * spike
        later = smooth + of_potentials[t] + through
        to_drive[t], to_leak = later, to_leak + (later * kept).sum(0)
        to_threshold = to_threshold - (smooth + taken).sum(0)
    potentials, spikes = (np.array([one[place] for one in seen]) for place in (0, 1))
    return spikes, potentials, (to_drive, to_leak.sum(0), to_threshold.sum(0))


@pytest.mark.parametrize("threshold", [1.0, 0.6])
@pytest.mark.parametrize("leak", [0.5, 0.9])
@pytest.mark.parametrize("reset", RESETS)
def test_values_and_gradients_over_time(reset, leak, threshold):
    rng = np.random.default_rng(5)
    drives = rng.normal(0.4, 0.6, (25, 2, 3))
    of_spikes, of_potentials = rng.normal(size=(2, 25, 2, 3))
    make = functools.partial(LEAKY, reset=reset, learn=("leak", "threshold"), slope=4.0)

    def both(drives, leak, threshold):
        leaves = {"leak": leak, "threshold": threshold}
        return tuple(run(make(emit=emit), drives, **leaves) for emit in ("spike", "potential"))

    def total(*inputs):
        spikes, potentials = both(*inputs)
        return jnp.sum(of_spikes * spikes + of_potentials * potentials)

    inputs = (jnp.asarray(drives, jnp.float32), jnp.full(3, leak), jnp.full(3, threshold))
    expected = reference(drives, leak, threshold, reset, 4.0, of_spikes, of_potentials)
    spikes, potentials = both(*inputs)
    assert 0.1 < expected[0].mean() < 0.9
    np.testing.assert_array_equal(spikes, expected[0])
    np.testing.assert_allclose(potentials, expected[1], atol=1e-5)
    gradients = jax.grad(total, argnums=(0, 1, 2))(*inputs)
    per_channel = reference_per_channel(drives, leak, threshold, reset, of_spikes, of_potentials)
    np.testing.assert_allclose(gradients[0], expected[2][0], atol=2e-5)
    np.testing.assert_allclose(gradients[1], per_channel[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradients[2], per_channel[1], rtol=1e-4, atol=1e-4)


def reference_per_channel(drives, leak, threshold, reset, of_spikes, of_potentials):
    """Gradients of leak and threshold [C], channel by channel."""
    parts = [
        reference(
            drives[..., c : c + 1],
            leak,
            threshold,
            reset,
            4.0,
            of_spikes[..., c : c + 1],
            of_potentials[..., c : c + 1],
        )[2]
        for c in range(drives.shape[-1])
    ]
    return [np.array([part[place] for part in parts]) for place in (1, 2)]


@pytest.mark.parametrize(
    ("reset", "to_drive", "to_threshold"),
    # U(1) = 1.5 has fired. U(2) = 0.5 U(1) + 0.2 - theta, 0.5 (U(1) - theta) + 0.2, 0.2, or
    # 0.5 U(1) + 0.2: no way leads through the spike itself, although the surrogate is 1/169 there.
    [("delayed", 0.5, -1.0), ("subtract", 0.5, -0.5), ("zero", 0.0, 0.0), ("none", 0.5, 0.0)],
)
def test_no_gradient_through_the_decision_to_reset(reset, to_drive, to_threshold):
    cell = LEAKY(reset=reset, learn=("threshold",), emit="potential")

    def last(first, threshold):
        drives = jnp.stack([first, jnp.float32(0.2)]).reshape(2, 1, 1)
        return run(cell, drives, threshold=threshold[None])[-1, 0, 0]

    actual = jax.grad(last, argnums=(0, 1))(jnp.float32(1.5), jnp.float32(1.0))
    assert [float(value) for value in actual] == [to_drive, to_threshold]


def network(**options):
    shape = {"input_shape": (1, 1, 2), "classes": 2}
    arch = parse("3", **shape, norm=False, head_bias=True, head_neuron=True)
    return spiking_net(arch, LEAKY(**options))


def test_learned_leaves_are_parameters_and_the_others_are_not():
    fixed, learned = (
        init_variables(network(learn=learn), jax.random.key(0))
        for learn in ((), ("leak", "threshold"))
    )
    for site, channels in (("dense1", 3), ("readout", 2)):
        assert set(fixed["fixed"][site]) == {"leak", "threshold"}
        assert set(fixed["params"][site]) == {"kernel", "bias"}
        assert set(learned["params"][site]) == {"kernel", "bias", "leak", "threshold"}
        np.testing.assert_array_equal(learned["params"][site]["leak"], np.full(channels, 0.5))
        np.testing.assert_array_equal(learned["params"][site]["threshold"], np.ones(channels))
    assert "fixed" not in learned


@pytest.mark.parametrize("learn", [("leak",), ("threshold",), ("leak", "threshold"), ()])
def test_the_optimiser_moves_what_is_learned(learn):
    images = np.random.default_rng(0).integers(0, 256, (8, 1, 1, 2)).astype(np.uint8)
    task = through_time(network(learn=learn, leak=0.9), stimulus.held(5))
    data = (images, np.arange(8) % 2, None, None)
    state, _ = train(task, optax.sgd(0.1), data, Options(3, 4), False)
    for leaf, start in (("leak", 0.9), ("threshold", 1.0)):
        tree = state.params if leaf in learn else state.rest["fixed"]
        moved = np.abs(np.asarray(tree["dense1"][leaf]) - start).max()
        assert (moved > 1e-6) == (leaf in learn)


def test_a_network_of_several_steps_begins_at_rest_every_time():
    cell = LEAKY()
    (state,) = cell.init(cell.fixed(3), (2, 4, 3), None)
    assert state.shape == (2, 4, 3)
    assert state.dtype == jnp.float32
    assert not state.any()
    assert cell.spikes == (0, 1)
    assert LEAKY(emit="potential").spikes is None
    assert LEAKY(0.5) is LEAKY(0.5)
    assert not cell.stateless


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leak": 1.1}, r"leak=1.1: .* 0 to 1"),
        ({"leak": -0.1}, r"leak=-0.1: .* 0 to 1"),
        ({"leak": float("nan")}, r"leak=nan: .* 0 to 1"),
        ({"threshold": 0.0}, "threshold=0.0: give a number above 0"),
        ({"threshold": float("nan")}, "threshold=nan: give a number above 0"),
        ({"reset": "hard"}, r"reset='hard' is unknown; choose one of delayed, subtract, zero"),
        ({"surrogate": "step"}, r"surrogate 'step' is unknown; choose one of fast_sigmoid"),
        ({"slope": -25}, r"slope=-25\.0: .* above 0"),
        ({"learn": ("beta",)}, r"learn='beta' is no leaf; choose among leak, threshold"),
        ({"emit": "count"}, r"emit='count' is unknown; choose spike or potential"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LEAKY(**options)
