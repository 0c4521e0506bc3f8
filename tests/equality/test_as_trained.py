"""The network as it was given to conversion: its weights are the default, its predictions decide.

A certificate against the quantised ANN alone says "exact" of a network that conversion has ruined.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HIDDEN_TERNARY, pixels

from jaxsnn import (
    CutNormal,
    Net,
    certify,
    convert,
    forward,
    hidden,
    init_variables,
    methods,
    neurons,
    parse,
    simulate,
    spiking_net,
)
from jaxsnn.conversion.kernels import KernelForm
from jaxsnn.errors import UserError
from jaxsnn.exchange import fit, from_torch, load, save

ARCH = parse("6C3-12", input_shape=(6, 6, 1), classes=5)
METHOD = methods.scatter_gather(k=1, bound=2)


@functools.cache
def trained():
    """A network in full precision, its variables, and images."""
    net = Net(ARCH, hidden(neurons.relu()), initialiser=CutNormal(hidden=0.5))
    variables = jax.tree.map(np.array, init_variables(net, jax.random.key(1)))
    return net, variables, pixels(np.random.default_rng(0), 60, ARCH.input_shape)


def predicted(net, variables, images):
    """Of the network as given, in the floats that it was trained with."""
    shown = jnp.asarray(images, jnp.float32) / 256
    return np.asarray(forward(net, variables, shown).readouts[-1][0]).argmax(-1)


def forms(snn):
    return {record.site: record.form for record in snn.report}


def test_a_certificate_says_how_many_predictions_conversion_has_changed():
    net, variables, images = trained()
    snn = convert(variables, ARCH, METHOD, trained=net, weights=HIDDEN_TERNARY)
    proof = certify(snn, variables, images, batch_size=25)
    wanted = predicted(net, variables, images)
    changed = int((np.asarray(simulate(snn, images, steps=1).predictions[-1]) != wanted).sum())
    assert (proof.equality, proof.predictions, proof.float_predictions) == ("exact", 0, 0)
    assert proof.given_predictions == changed > 10
    verdict, *_ = str(proof).splitlines()
    assert verdict.startswith("exact: 60 images, 1 steps")
    assert verdict.endswith(f"network as given: {changed} predictions differ")


def test_a_certificate_says_that_the_network_was_not_given():
    _, variables, images = trained()
    proof = certify(convert(variables, ARCH, METHOD), variables, images[:4])
    assert proof.given_predictions is None
    assert str(proof).splitlines()[0].endswith("network as given: not given")


def test_the_weights_are_those_of_the_network_as_given_and_ternary_ones_are_asked_for():
    net, variables, _ = trained()
    grid = dict.fromkeys(("conv1", "dense1", "readout"), KernelForm.GRID)
    ternary = grid | {"dense1": KernelForm.CODES}
    assert forms(convert(variables, ARCH, METHOD)) == grid
    assert forms(convert(variables, ARCH, METHOD, trained=net)) == grid
    assert forms(convert(variables, ARCH, METHOD, weights=HIDDEN_TERNARY)) == ternary
    quantised = net.clone(weights=HIDDEN_TERNARY)
    assert forms(convert(variables, ARCH, METHOD, trained=quantised)) == ternary


def test_a_finer_grid_of_the_encoder_alone():
    net, variables, images = trained()
    fine = methods.scatter_gather(k=1, bound=2, encoder_sums_below=2**31)
    usual, finer = (convert(variables, ARCH, one, trained=net) for one in (METHOD, fine))
    first, last = (
        [one.weight_error for one in snn.report if one.site in ("conv1", "readout")]
        for snn in (usual, finer)
    )
    assert last[0] < first[0] / 100
    assert last[1] == first[1]
    assert [record.accumulator for record in finer.report] == ["int32", "float32", "float32"]
    assert finer.report[0].bound >= 2**30
    proof = certify(finer, variables, images)
    assert (proof.equality, proof.mismatches, proof.predictions) == ("exact", 0, 0)
    with pytest.raises(UserError, match="encoder_sums_below=1: give a whole number of 2 to 2"):
        methods.scatter_gather(k=1, bound=2, encoder_sums_below=1)


def test_what_cannot_have_been_given_is_refused():
    _, variables, _ = trained()
    for original, message in (
        (Net(parse("6C3-13", input_shape=(6, 6, 1), classes=5), hidden(neurons.relu())), "another"),
        (spiking_net(ARCH, neurons.leaky(0.9), neurons.leaky(0.9)), "conv1: trained has spiking"),
        (Net(ARCH, hidden(neurons.clipped_relu(3))), r"conv1: params/conv1/clip is missing"),
    ):
        with pytest.raises(UserError, match=message):
            convert(variables, ARCH, METHOD, trained=original)


def test_a_saved_network_remembers_what_was_given(tmp_path):
    net, variables, images = trained()
    quantised = net.clone(weights=HIDDEN_TERNARY)
    for original in (None, quantised):
        snn = convert(variables, ARCH, METHOD, trained=original)
        save(snn, tmp_path / "snn.npz")
        back = load(tmp_path / "snn.npz")
        assert back.trained == snn.trained
        assert jax.tree.structure(back) == jax.tree.structure(snn)
    assert certify(back, variables, images[:9]) == certify(snn, variables, images[:9])


def test_foreign_weights_name_their_network():
    rng = np.random.default_rng(2)
    state = {
        "conv.weight": rng.normal(size=(6, 1, 3, 3)),
        "norm.weight": np.ones(6), "norm.bias": np.zeros(6),
        "norm.running_mean": np.zeros(6), "norm.running_var": np.ones(6),
        "hidden.weight": rng.normal(size=(12, 96)),
        "norm2.weight": np.ones(12), "norm2.bias": np.zeros(12),
        "norm2.running_mean": np.zeros(12), "norm2.running_var": np.ones(12),
        "head.weight": rng.normal(size=(5, 12)),
    }  # fmt: skip
    state = {name: array.astype(np.float32) for name, array in state.items()}
    taken = from_torch(state, ARCH)
    assert taken.net == Net(ARCH, hidden(neurons.relu()))
    images = pixels(np.random.default_rng(0), 20, ARCH.input_shape)
    snn = convert(taken.variables, taken.arch, METHOD, trained=taken.net)
    changed = np.asarray(simulate(snn, images, steps=1).predictions[-1])
    changed = changed != predicted(taken.net, fit(state, ARCH), images)
    proof = certify(snn, taken.variables, images)
    assert proof.given_predictions == int(changed.sum()) > 0
