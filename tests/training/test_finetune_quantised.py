"""Fine-tuning starts from the weights that it is given, and helps the quantised network."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import Net, certify, convert, finetune_quantised, hidden, init_variables, methods, parse
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.clips import with_clips
from jaxsnn.inputs import preprocess
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.inputs.preprocess import PIXELS
from jaxsnn.network import net as net_module
from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.weight_quantisers import full_precision
from jaxsnn.neurons import relu
from jaxsnn.training import FINETUNE, final_statistics

ARCH = parse("4C3-8", input_shape=(6, 6, 1), classes=4)
FLOAT = SiteMap(full_precision())
METHOD = methods.negative_spikes(k=1)


@pytest.fixture(scope="module")
def data():
    """One bright quadrant of four, in noise: 256 images."""
    rng = np.random.default_rng(0)
    labels = np.arange(256, dtype=np.int32) % 4
    images = rng.integers(0, 100, (256, 6, 6, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[3 * row : 3 * row + 3, 3 * column : 3 * column + 3] += 120
    return images, labels, None, None


@pytest.fixture(scope="module")
def variables():
    net = Net(ARCH, hidden(relu()))
    return jax.tree.map(np.asarray, init_variables(net, jax.random.key(0)))


def accuracy(variables, method, data):
    net = Net(ARCH, hidden(method.activation))
    logits = net_module.forward(net, variables, jnp.asarray(data[0]) / np.float32(256)).readouts
    return float(np.mean(np.asarray(logits[-1][0]).argmax(-1) == data[1]))


def test_it_starts_from_the_given_weights(data, variables):
    """A step too small to move a float leaves every parameter as it was."""
    still = dataclasses.replace(FINETUNE, learning_rate=1e-30, final_statistics=0, batch_size=64)
    tuned = finetune_quantised(
        variables, ARCH, data, METHOD, recipe=still, epochs=1, progress=False
    )
    before, after = jax.tree.leaves(variables["params"]), jax.tree.leaves(tuned.variables["params"])
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-20)
    assert [record["epoch"] for record in tuned.history] == [1]


def test_the_quantised_network_learns_and_converts_exactly(data, variables):
    fast = dataclasses.replace(FINETUNE, learning_rate=1e-2, batch_size=64)
    tuned = finetune_quantised(
        variables, ARCH, data, METHOD, recipe=fast, epochs=20, distillation=0.0, progress=False
    )
    losses = [record["train_loss"] for record in tuned.history]
    assert losses[-1] < 0.5 * losses[0]
    assert accuracy(variables, METHOD, data) < 0.6
    assert accuracy(tuned.variables, METHOD, data) > 0.9
    mean = tuned.variables["batch_stats"]["conv1"]["norm"]["mean"]
    assert not np.allclose(mean, variables["batch_stats"]["conv1"]["norm"]["mean"])
    snn = convert(tuned.variables, ARCH, METHOD, weights=FLOAT, encoding=PIXELS)
    proof = certify(snn, tuned.variables, data[0][:20], steps=100, settle=True)
    assert proof.equality == "exact after settling"


def test_the_network_as_given_teaches(data, variables):
    """With labels that say nothing, what it knows is kept by its own answers alone."""
    images, labels, *_ = data
    recipe = dataclasses.replace(FINETUNE, learning_rate=1e-2, batch_size=64)
    options = {"recipe": recipe, "epochs": 20, "progress": False}
    trained = finetune_quantised(
        variables, ARCH, data, METHOD, distillation=0.0, **options
    ).variables
    empty = (images, np.zeros_like(labels), None, None)
    reached = [
        accuracy(
            finetune_quantised(
                trained, ARCH, empty, METHOD, distillation=share, **options
            ).variables,
            METHOD,
            data,
        )
        for share in (0.0, 1.0)
    ]
    assert reached[0] < 0.4
    assert reached[1] > 0.9


def test_clips_are_learned_and_those_of_others_left_behind(data, variables):
    names = [site.name for site in plan(ARCH)]
    clipped = with_clips(variables, ARCH, dict.fromkeys(names, 2.0))
    method = methods.signed_if(bits=4, settling=True)
    recipe = dataclasses.replace(FINETUNE, learning_rate=1e-2, batch_size=64)
    tuned = finetune_quantised(clipped, ARCH, data, method, recipe=recipe, epochs=1, progress=False)
    clips = [float(tuned.variables["params"][name]["clip"]) for name in ("conv1", "dense1")]
    assert all(clip > 0 and clip != 2 for clip in clips)
    without = finetune_quantised(clipped, ARCH, data, METHOD, recipe=recipe, epochs=1)
    assert "clip" not in without.variables["params"]["conv1"]


def test_final_statistics_see_all_classes_of_a_data_set_in_their_order(
    data, variables, monkeypatch
):
    images, labels, *_ = data
    order = np.argsort(labels, kind="stable")
    seen = []

    def looked_at(net, variables, preprocessing, images):
        seen.extend(images)
        return variables

    monkeypatch.setattr(final_statistics, "final_statistics", looked_at)
    recipe = dataclasses.replace(FINETUNE, final_statistics=40, batch_size=128)
    ordered = (images[order], labels[order], None, None)
    options = {"recipe": recipe, "epochs": 1, "distillation": 0.0, "progress": False}
    finetune_quantised(variables, ARCH, ordered, METHOD, **options)
    classes = [label for one in seen for image, label in zip(images, labels, strict=True)
               if np.array_equal(one, image)]  # fmt: skip
    assert len(classes) == 40
    assert set(classes) == {0, 1, 2, 3}


def test_a_run_that_was_broken_off_goes_on_and_refuses_other_settings(data, variables, tmp_path):
    recipe = dataclasses.replace(FINETUNE, learning_rate=1e-2, batch_size=64, schedule="constant")
    options = {"recipe": recipe, "progress": False, "directory": tmp_path}
    whole = finetune_quantised(variables, ARCH, data, METHOD, recipe=recipe, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(final_statistics, "final_statistics", stopped)  # a kill at the end
        with pytest.raises(InterruptedError):
            finetune_quantised(variables, ARCH, data, METHOD, **options)
    with pytest.raises(ValueError, match="begun with epochs 4; it cannot go on with 5"):
        finetune_quantised(variables, ARCH, data, METHOD, epochs=5, resume=True, **options)
    with pytest.raises(ValueError, match="begun with epochs 4"):  # and the record stays as it is
        finetune_quantised(variables, ARCH, data, METHOD, epochs=5, **options)
    coarser = methods.negative_spikes(k=0)
    with pytest.raises(ValueError, match="begun with method"):
        finetune_quantised(variables, ARCH, data, coarser, resume=True, **options)
    others = jax.tree.map(lambda leaf: leaf * 2, variables)
    with pytest.raises(ValueError, match=r"begun with weights with checksum \d+; it cannot go on"):
        finetune_quantised(others, ARCH, data, METHOD, resume=True, **options)
    darker = preprocess.unchanged(Encoding("onset", 1 / 512))
    mirrored = preprocess.normalised((0.0,), (1.0,), 6, flip="random")
    for seen in (darker, mirrored):
        with pytest.raises(ValueError, match="begun with images with checksum"):
            finetune_quantised(
                variables, ARCH, data, METHOD, preprocessing=seen, resume=True, **options
            )
    resumed = finetune_quantised(variables, ARCH, data, METHOD, resume=True, **options)
    chex.assert_trees_all_equal(resumed.variables, whole.variables)


def stopped(*_, **__):
    raise InterruptedError


def test_what_cannot_be_converted_is_refused_before_it_is_trained(data, variables):
    with pytest.raises(ValueError, match="params/conv1/clip"):
        finetune_quantised(variables, ARCH, data, methods.signed_if(bits=4))
    with pytest.raises(ValueError, match="epochs=0"):
        finetune_quantised(variables, ARCH, data, METHOD, epochs=0)
    with pytest.raises(ValueError, match="distillation=2"):
        finetune_quantised(variables, ARCH, data, METHOD, distillation=2)
    for part in ("spike_penalty", "label_smoothing"):
        without = dataclasses.replace(FINETUNE, **{part: 0.1})
        with pytest.raises(ValueError, match=part + r"=0\.1.*below 1"):
            finetune_quantised(variables, ARCH, data, METHOD, recipe=without)
    single = dataclasses.replace(FINETUNE, final_statistics=1)
    with pytest.raises(ValueError, match="batch norm at dense1 has no variance over one image"):
        finetune_quantised(variables, ARCH, data, METHOD, recipe=single)
    with pytest.raises(ValueError, match="nothing to tune"):
        finetune_quantised(variables, ARCH, data, methods.rate(scales={"conv1": 1.0}))
    none = (data[0][:0], data[1][:0], None, None)
    with pytest.raises(ValueError, match="no training images"):
        finetune_quantised(variables, ARCH, none, METHOD)
