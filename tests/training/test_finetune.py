"""Layer-wise fine-tuning: loss and gradient in NumPy, what is moved, and when it is kept."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from clipped_networks import UNITS, ann_of, cached, floats, with_params

from jaxsnn import convert, methods, simulate
from jaxsnn.arch import zoo
from jaxsnn.inputs.preprocess import unchanged
from jaxsnn.training import finetune, finetune_step
from jaxsnn.training.finetune import Settings, Tuned, Tuner
from jaxsnn.training.finetune_step import loss_of
from jaxsnn.training.schedules import SMALLEST_CLIP

TEXT = "3C3p1-4C3s2p1-6nb"
IMAGES = 20
LEAVES = {  # what a layer's tuning moves
    "conv2": {"kernel", "kernel_clip", "norm/scale", "norm/bias"},
    "dense1": {"kernel", "bias", "kernel_clip", "norm/scale", "norm/bias"},
}


def net_of(seed=2):
    return cached(seed, TEXT, 2, shape=(5, 5, 2), images=IMAGES, gammas="mixed", classes=4)


def tuner_of(net, **options):
    settings = Settings(bits=net.bits, **({"batch_size": 10} | options))
    return Tuner(net.ann(), net.variables, unchanged(UNITS), settings)


@functools.cache
def labels_of(seed=2):
    """What the quantised ANN says, so that the spiking network has something to gain."""
    net = net_of(seed)
    return ref.clipped_ann(net.layers, net.shown, net.bits)[2].argmax(-1).astype(np.int32)


def tune(net, names, labels=None, **options):
    """Tuned over layers in order, with what stood before each."""
    tuner = tuner_of(net, **options)
    labels = labels_of() if labels is None else labels
    states = [finetune.begin(tuner, net.images, labels)]
    for name in names:
        states.append(finetune.finetune_layer(tuner, states[-1], name, net.images, labels))
    return states


def flat(tree):
    """path -> bytes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def moved(net, seed):
    """The training tree with other weights behind the first layer."""
    rng = np.random.default_rng(seed)
    tree = jax.tree.map(np.array, net.variables)
    for name in ("conv2", "dense1"):
        leaves = tree["params"][name]
        for leaf in [leaves["kernel"], leaves["norm"]["scale"], leaves["norm"]["bias"]]:
            leaf += rng.normal(0, 0.1, leaf.shape).astype(np.float32)
        leaves["kernel_clip"] = np.float32(leaves["kernel_clip"] * 1.1)
    return tree


def reference_loss(net, rest, name):
    """Input rates, rates and targets of a layer in float64, from the unfolded network."""
    names = [layer["name"] for layer in net.hidden]
    index = names.index(name)
    run = ref.signed_if(with_params(net.layers, rest, net.bits), net.shown, net.steps)
    rates = [
        layer["clip"] * by_hand.spikes.mean(0)
        for layer, by_hand in zip(net.hidden, run.layers, strict=True)
    ]
    levels = ref.clipped_ann(net.layers, net.shown, net.bits)[0]
    target = net.layers[index]["clip"] * levels[index] / net.steps
    return rates[index - 1], rates[index], target


def kernel_slope(layer, x, slope):
    """Gradient of a loss with respect to the kernel of a synapse, one kernel cell at a time."""
    if layer["kind"] == "dense":
        return x.reshape(len(x), -1).T @ slope
    padded = np.pad(x, ((0, 0), *layer["padding"], (0, 0)))
    result = np.zeros(layer["kernel"].shape)
    rows, columns, stride = *slope.shape[1:3], layer["stride"]
    for i in range(result.shape[0]):
        for j in range(result.shape[1]):
            part = padded[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
            result[i, j] = np.einsum("bhwc,bhwd->cd", part[:, :rows, :columns], slope)
    return result


def proxy_slopes(layer, x, upstream):
    """Chain rule through kernel quantiser, synapse, norm and clipped quantiser, by hand."""
    z = ref.synapse(layer, x) + layer.get("bias", 0)
    deviation = np.sqrt(layer["var"] + 1e-5)
    centred = (z - layer["mean"]) / deviation
    drive = layer["scale"] * centred + layer["offset"]
    through = upstream * ((drive > 0) & (drive <= layer["clip"]))
    every = tuple(range(z.ndim - 1))
    to_z = through * layer["scale"] / deviation
    to_used = kernel_slope(layer, x, to_z)
    shares = ref.standardised(layer["master"]) / layer["kernel_clip"]
    rounding = layer["kernel"] / layer["kernel_clip"] - shares
    slope = np.where(np.abs(shares) > 1, np.sign(shares), rounding)
    return {
        "kernel": to_used / layer["master"].std(ddof=1),
        "kernel_clip": np.sum(to_used * slope),
        "norm/scale": np.sum(through * centred, axis=every),
        "norm/bias": np.sum(through, axis=every),
    } | ({"bias": to_z.sum(every)} if "bias" in layer else {})


def tuned_leaves(tree):
    """path -> array of one layer's leaves, without the frozen one."""
    leaves = jax.tree_util.tree_leaves_with_path({k: v for k, v in tree.items() if k != "clip"})
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def layer_named(layers, name):
    return next(layer for layer in layers if layer["name"] == name)


@pytest.mark.parametrize("name", ["conv2", "dense1"])
@pytest.mark.parametrize("seed", [0, 1])
def test_check_17_value_of_the_rates_and_gradient_of_the_proxy(name, seed):
    net = net_of()
    rest = moved(net, seed)
    x, r_out, target = reference_loss(net, rest, name)
    params = {name: {k: v for k, v in rest["params"][name].items() if k != "clip"}}
    loss = jax.jit(
        jax.value_and_grad(
            lambda params: loss_of(
                net.ann(), name, net.bits, params, rest, net.variables, floats(net)
            )
        )
    )
    value, slopes = loss(params)
    assert float(value) == pytest.approx(np.mean((r_out - target) ** 2), rel=1e-5)
    layer = layer_named(with_params(net.layers, rest, net.bits), name)
    # The proxy's own value is another one: the loss is that of the spiking layer.
    proxy = ref.clipped_level(ref.charge(layer, x), layer["clip"], net.bits) * layer["clip"]
    assert np.mean((proxy / net.steps - target) ** 2) != pytest.approx(float(value), rel=1e-4)
    expected = proxy_slopes(layer, x, 2 * (r_out - target) / r_out.size)
    actual = tuned_leaves(slopes[name])
    assert set(actual) == set(expected) == LEAVES[name]
    for leaf, slope in expected.items():
        assert np.abs(slope).max() > 0
        np.testing.assert_allclose(
            actual[leaf], slope, rtol=1e-3, atol=1e-5 * np.abs(slope).max(), err_msg=leaf
        )


@pytest.mark.parametrize("name", ["conv2", "dense1"])
def test_one_update_is_decay_and_descent(name):
    net = net_of()
    before = net.variables["params"][name]
    after = tune(net, [name], force=True, batch_size=IMAGES, learning_rate=0.25, weight_decay=0.01)[
        -1
    ]
    x, r_out, target = reference_loss(net, net.variables, name)
    layer = layer_named(net.layers, name)
    slopes = proxy_slopes(layer, x, 2 * (r_out - target) / r_out.size)
    actual = tuned_leaves(after.variables["params"][name])
    for leaf, start in tuned_leaves(before).items():
        expected = start - 0.25 * (slopes[leaf] + 0.01 * start)
        np.testing.assert_allclose(actual[leaf], expected, rtol=1e-4, atol=1e-6, err_msg=leaf)
    assert after.layers[0].losses[0] == pytest.approx(np.mean((r_out - target) ** 2), rel=1e-5)


@pytest.mark.parametrize("name", ["conv2", "dense1"])
def test_check_16_one_layer_moves_and_its_clip_does_not(name):
    net = net_of()
    before = flat(net.variables)
    held = {path: np.array(leaf) for path, leaf in tuned_leaves(net.variables["params"]).items()}
    first, after = tune(net, [name], force=True)
    actual = flat(after.variables)
    assert set(actual) == set(before)
    assert {p for p in actual if actual[p] != before[p]} == {
        f"params/{name}/{leaf}" for leaf in LEAVES[name]
    }
    assert actual[f"params/{name}/clip"] == before[f"params/{name}/clip"]
    # What was given is as it was: nothing was changed in place.
    assert flat(net.variables) == before == flat(first.variables)
    for path, leaf in tuned_leaves(net.variables["params"]).items():
        np.testing.assert_array_equal(leaf, held[path])


def test_layers_before_are_taken_as_tuned_and_targets_as_trained():
    net = net_of()
    *_, middle, end = tune(
        net, ["conv2", "dense1"], force=True, batch_size=IMAGES, learning_rate=0.3
    )
    x, r_out, target = reference_loss(net, middle.variables, "dense1")
    _, unmoved, _ = reference_loss(net, net.variables, "dense1")
    assert np.abs(unmoved - r_out).max() > 0  # conv2's tuning changed what dense1 is given
    assert end.layers[1].losses[0] == pytest.approx(np.mean((r_out - target) ** 2), rel=1e-5)
    assert [record.site for record in end.layers] == ["conv2", "dense1"]
    assert x.any()


def test_a_seed_gives_the_same_bits_and_another_one_others():
    net = net_of()
    one, again = (tune(net, ["conv2"], force=True, epochs=2)[-1] for _ in range(2))
    assert flat(one.variables) == flat(again.variables)
    assert one.layers == again.layers
    other = tune(net, ["conv2"], force=True, epochs=2, seed=1)[-1]
    assert flat(other.variables) != flat(one.variables)


def test_tuning_brings_rates_back_to_the_activations():
    # From offsets that are wrong by half a clip: the targets are those of the ANN as trained.
    net = net_of()
    tree = jax.tree.map(np.array, net.variables)
    tree["params"]["conv2"]["norm"]["bias"] += np.float32(0.5 * tree["params"]["conv2"]["clip"])
    tuner = tuner_of(net, force=True, epochs=20, learning_rate=0.05, weight_decay=0.0)
    state = finetune.finetune_layer(tuner, Tuned(tree), "conv2", net.images, labels_of())
    losses = state.layers[0].losses
    assert len(losses) == 20
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


# ---------------------------------------------------------------- which epoch is kept


def accuracy(net, variables, labels, signed=True):
    layers = with_params(net.layers, variables, net.bits)
    logits = ref.signed_if(layers, net.shown, net.steps, signed).logits
    return float(np.mean(logits.argmax(-1) == labels))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("batch_size", [50, 7])
def test_the_gates_accuracy_is_that_of_the_unfolded_network(signed, batch_size):
    net, labels = net_of(), labels_of()
    tuner = tuner_of(net)
    actual = finetune.accuracy_of(tuner, net.variables, net.images, labels, signed, batch_size)
    assert actual == accuracy(net, net.variables, labels, signed)
    assert 0 < actual < 1
    # The converted network predicts the same.
    snn = convert(net.variables, net.arch, methods.signed_if(bits=2, signed=signed), encoding=UNITS)
    predictions = simulate(snn, net.images, steps=3).predictions[-1]
    assert np.mean(predictions == labels) == pytest.approx(actual, abs=1 / IMAGES)


@pytest.mark.parametrize("rate", [0.05, 1.0])
def test_check_18_without_force_the_accuracy_never_falls(rate):
    net, labels = net_of(), labels_of()
    states = tune(net, finetune_step.tuned_sites(net.ann()), epochs=4, learning_rate=rate)
    gates = [state.accuracy for state in states]
    assert gates == sorted(gates)
    for before, after in itertools.pairwise(states):
        record = after.layers[-1]
        assert len(record.accuracies) == len(record.losses) == 4
        assert record.kept == (max(record.accuracies) > before.accuracy)
        assert after.accuracy == max(before.accuracy, *record.accuracies)
        assert after.accuracy == accuracy(net, after.variables, labels)
        if not record.kept:
            assert flat(after.variables) == flat(before.variables)
    assert states[0].accuracy == accuracy(net, net.variables, labels)


def test_the_best_epoch_is_kept_not_the_last():
    # The tuner goes on from a rejected epoch, so that epoch n of a run with force is epoch n here.
    net, labels = net_of(), labels_of()
    before, after = tune(net, ["conv2"], epochs=4, learning_rate=0.003)
    record = after.layers[0]
    assert record.kept
    best = int(np.argmax(record.accuracies))
    assert best < 3
    assert min(record.accuracies[best:]) < record.accuracies[best]
    forced = tune(net, ["conv2"], epochs=best + 1, learning_rate=0.003, force=True)[-1]
    assert flat(forced.variables) == flat(after.variables)
    assert forced.layers[0].losses == record.losses[: best + 1]
    assert after.accuracy > before.accuracy
    assert accuracy(net, after.variables, labels) == after.accuracy


def test_an_equal_accuracy_is_not_better():
    net = net_of()
    before, after = tune(net, ["conv2"], epochs=2, learning_rate=0.0)
    assert after.layers[0].accuracies == (before.accuracy,) * 2
    assert not after.layers[0].kept
    assert flat(after.variables) == flat(before.variables)


def test_force_keeps_the_newest_without_a_look():
    net = net_of()
    before, after = tune(net, ["conv2"], force=True, learning_rate=3.0)
    assert before.accuracy is after.accuracy is None
    assert after.layers[0].kept
    assert after.layers[0].accuracies == ()
    assert flat(after.variables) != flat(before.variables)


def test_labels_are_used_for_the_accuracy_alone():
    net = net_of()
    one = tune(net, ["conv2"], force=True)[-1]
    other = tune(net, ["conv2"], np.zeros(IMAGES, np.int32), force=True)[-1]
    assert flat(one.variables) == flat(other.variables)


def test_a_tuned_network_converts():
    net, labels = net_of(), labels_of()
    state = tune(net, ["conv2", "dense1"], force=True, learning_rate=0.1)[-1]
    snn = convert(state.variables, net.arch, methods.signed_if(bits=2), encoding=UNITS)
    layers = with_params(net.layers, state.variables, 2)
    whole = ref.signed_if(layers, net.shown, 3)
    counts = simulate(snn, net.images, steps=3, counts=True).counts
    for layer, by_hand in zip(layers, whole.layers, strict=False):
        np.testing.assert_array_equal(counts[layer["name"]], by_hand.spikes.sum(0))
    assert labels.shape == (IMAGES,)


def test_a_weights_clip_does_not_wear_away():
    net = net_of()
    state = tune(net, ["conv2"], force=True, learning_rate=1.0, weight_decay=3.0)[-1]
    assert float(state.variables["params"]["conv2"]["kernel_clip"]) >= SMALLEST_CLIP * (1 - 1e-3)


# ---------------------------------------------------------------- which layers, and refusals


def test_the_first_and_the_last_layer_are_not_tuned():
    alexnet, vgg = ann_of(zoo.fast_alexnet, 3), ann_of(zoo.fast_vgg11, 3)
    convs = [f"conv{number}" for number in range(2, 9)]
    assert finetune_step.tuned_sites(alexnet) == [*convs[:4], "dense1"]
    assert finetune_step.tuned_sites(vgg) == [*convs, "dense1", "dense2"]


def test_defaults_are_those_of_the_paper():
    settings = Settings(bits=3)
    assert (settings.epochs, settings.learning_rate, settings.weight_decay) == (1, 1e-3, 5e-4)
    assert not settings.force


@pytest.mark.parametrize("name", ["conv1", "readout", "conv9"])
def test_other_layers_are_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' is not tuned; known: conv2, dense1"):
        tune(net_of(), [name], force=True)


def test_fewer_images_than_a_batch_and_losses_that_are_not_finite_are_refused():
    net = net_of()
    with pytest.raises(ValueError, match="20 images do not fill one batch of 21"):
        tune(net, ["conv2"], force=True, batch_size=21)
    tree = jax.tree.map(np.array, net.variables)
    tree["params"]["dense1"]["norm"]["bias"][:] = np.nan
    tuner = tuner_of(net, force=True)
    with pytest.raises(ValueError, match=r"the loss of dense1 is nan: lower the learning rate"):
        finetune.finetune_layer(tuner, Tuned(tree), "dense1", net.images, labels_of())
    assert jnp.isfinite(net.variables["params"]["dense1"]["norm"]["bias"]).all()


def test_images_that_alternate_are_mirrored_as_their_epoch_says():
    net = net_of()
    shown = []

    def train(images, key, moment=None):
        jax.debug.callback(lambda *where: shown.append(where), *moment, ordered=True)
        return images

    preprocessing = unchanged(UNITS)._replace(train=train)
    settings = Settings(bits=net.bits, batch_size=10, epochs=2, learning_rate=0.0)
    tuner = Tuner(net.ann(), net.variables, preprocessing, settings)
    start = finetune.begin(tuner, net.images, labels_of())
    finetune.finetune_layer(tuner, start, "conv2", net.images, labels_of())
    jax.effects_barrier()
    assert [(int(update), int(epoch)) for update, epoch, _ in shown] == [
        (0, 0),
        (1, 0),
        (2, 1),
        (3, 1),
    ]
    for first in (0, 2):  # every image once an epoch
        rows = np.concatenate([rows for *_, rows in shown[first : first + 2]])
        assert sorted(rows.tolist()) == list(range(IMAGES))


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("epochs", 0), ("bits", 2.5), ("learning_rate", float("nan"))],
)
def test_impossible_settings_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        Settings(**({"bits": 3} | {name: value}))
