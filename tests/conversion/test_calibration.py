"""Calibration: clips, bounds and scales of a network whose activations are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import (
    Net,
    certify,
    convert,
    float_ends,
    hidden,
    load_params,
    methods,
    neurons,
    parse,
)
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.balance import balanced, factors
from jaxsnn.conversion.calibration import calibrate, sufficient
from jaxsnn.conversion.clips import with_clips
from jaxsnn.errors import UserError
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.network import net as net_module
from jaxsnn.network.weight_quantisers import ternary

ARCH = parse("3C3b-AP2-6", input_shape=(6, 6, 1), classes=4, norm=False, head_bias=True)
ENCODING = Encoding("held", 1 / 255, 255)


@pytest.fixture(scope="module")
def network():
    """Variables, images, and the activations of every site in float64."""
    net = Net(ARCH, hidden(neurons.relu()))
    variables = jax.tree.map(np.array, net_module.init_variables(net, jax.random.key(1)))
    rng = np.random.default_rng(0)
    for name, scale in (("conv1", 40.0), ("dense1", 10.0), ("readout", 5.0)):
        variables["params"][name]["kernel"] *= scale
    images = rng.integers(0, 256, (60, 6, 6, 1), dtype=np.uint8)
    outs = net_module.forward(net, variables, jnp.asarray(images) / np.float32(255)).outs
    return variables, images, {name: np.asarray(out, np.float64)[0] for name, out in outs.items()}


@pytest.fixture(scope="module")
def ready(network):
    variables, images, _ = network
    options = {"encoding": ENCODING, "percentiles": (90, 99), "bits": 4, "balance": False}
    return calibrate(variables, ARCH, images, **options)


def test_scales_are_percentiles_of_the_activations(network, ready):
    assert set(ready.scales) == {90.0, 99.0, 100.0}  # the largest is always measured
    for percentile, actual in ready.scales.items():
        assert set(actual) == {"conv1", "dense1", "readout"}
        for site, value in actual.items():
            assert value == pytest.approx(np.percentile(network[2][site], percentile), rel=1e-5)


def test_bounds_admit_the_largest_activation(network, ready):
    largest = max(network[2]["conv1"].max(), network[2]["dense1"].max())
    assert ready.largest == pytest.approx(largest, rel=1e-6)
    assert ready.bound(1) == np.ceil(largest) == ready.scatter_gather(k=1).bound
    assert ready.highest(6) == np.ceil(1.5 * ready.largest * 64)
    assert ready.highest(40) == 32767  # the most that a neuron counts
    assert ready.bound(11) == 2  # 4,096 levels are the most
    assert ready.negative_spikes(k=6).highest == ready.highest(6)


def quantised(values, step):
    return np.floor(values / step + 0.5) * step


def test_agreement_is_that_of_a_network_quantised_by_hand(network, ready):
    """Dense layers in NumPy, from the first site's activations on."""
    variables, _, outs = network
    params = variables["params"]
    classes = outs["readout"].argmax(-1)
    for k in (0, 2, 5):
        conv = quantised(outs["conv1"], 2.0**-k)
        pooled = conv.reshape(len(conv), 2, 2, 2, 2, 3).mean((2, 4)).reshape(len(conv), -1)
        dense = pooled @ params["dense1"]["kernel"] + params["dense1"]["bias"]
        dense = quantised(np.maximum(dense, 0), 2.0**-k)
        logits = dense @ params["readout"]["kernel"] + params["readout"]["bias"]
        assert ready.agreement[k] == pytest.approx(np.mean(logits.argmax(-1) == classes), abs=0.02)
    assert ready.k == sufficient(ready.agreement, 0.995)
    assert ready.agreement[ready.k] >= 0.995
    assert ready.agreement[-1] == 1.0


def test_clips_disturb_the_logits_no_more_than_any_common_percentile(network, ready):
    variables, images, outs = network

    def error_of(clips):
        net = Net(ARCH, hidden(neurons.clipped_relu(4, "up")))
        clipped = with_clips(variables, ARCH, clips)
        logits = net_module.forward(net, clipped, jnp.asarray(images) / np.float32(255)).readouts
        differs = np.asarray(logits[-1][0], np.float64) - outs["readout"]
        return np.sqrt((differs**2).mean() / (outs["readout"] ** 2).mean())

    errors = {percentile: error_of(scales) for percentile, scales in ready.scales.items()}
    assert dict(ready.clip_errors) == pytest.approx(errors, rel=1e-4)
    assert ready.percentile == min(errors, key=errors.__getitem__)
    assert ready.clip_error == pytest.approx(error_of(ready.clips), rel=1e-4)
    assert ready.clip_error <= min(errors.values()) * (1 + 1e-4)
    for site in ("conv1", "dense1"):
        clip = float(ready.variables["params"][site]["clip"])
        assert clip == np.float32(ready.clips[site])
        # the last site that was looked at has no better candidate left
        others = [each[site] for each in ready.scales.values()]
        if site == "dense1":
            best = min(error_of({**ready.clips, site: other}) for other in others)
            assert ready.clip_error <= best * (1 + 1e-4)
    assert "clip" not in ready.variables["params"]["readout"]
    assert "clip" not in variables["params"]["conv1"]  # what was given is left alone


def test_a_tree_with_clips_is_loaded_by_name(ready, tmp_path):
    flat = {}
    for collection, sites in ready.variables.items():
        for site, tree in sites.items():
            flat |= {f"{collection}/{site}/{name}": np.asarray(a) for name, a in tree.items()}
    np.savez(tmp_path / "clips.npz", **flat)
    loaded = load_params(tmp_path / "clips.npz", ARCH)
    assert float(loaded["params"]["conv1"]["clip"]) == flat["params/conv1/clip"]
    del flat["params/dense1/clip"]
    with pytest.raises(ValueError, match="missing params/dense1/clip"):
        load_params(flat, ARCH)
    assert (
        "clip"
        not in load_params(
            {name: a for name, a in flat.items() if not name.endswith("clip")}, ARCH
        )["params"]["conv1"]
    )


@pytest.mark.parametrize("name", ["scatter_gather", "negative_spikes"])
def test_methods_of_a_calibration_convert_exactly(network, ready, name):
    method = getattr(ready, name)()
    snn = ready.convert(method)
    assert snn.encoding.presentation == "onset"
    assert snn.encoding.scale == ENCODING.scale
    run = {"steps": 1} if name == "scatter_gather" else {"steps": 300, "settle": True}
    proof = certify(snn, ready.variables, network[1][:8], **run)
    assert proof.equality.startswith("exact")
    assert proof.origins_are_ties


def test_every_method_is_a_candidate(ready):
    kinds = [type(method) for method in ready.candidates]
    names = ("scatter_gather", "negative_spikes", "signed_if", "signed_if", "rate")
    assert kinds == [getattr(methods, name) for name in names]
    assert ready.rate().scales["conv1"] == ready.scales[100.0]["conv1"]  # the next above 99.9
    assert ready.rate(90).scales["conv1"] == ready.scales[90.0]["conv1"]
    assert ready.signed_if().settling
    assert ready.signed_if().bits == 4
    with pytest.raises(ValueError, match="measured were 90, 99, 100"):
        ready.rate(99.9)


def test_clips_of_sites_that_are_missing_or_no_numbers_are_refused(network):
    with pytest.raises(ValueError, match="clip of dense1=None"):
        with_clips(network[0], ARCH, {"conv1": 1.0})
    with pytest.raises(ValueError, match="clip of conv1=0"):
        with_clips(network[0], ARCH, {"conv1": 0.0, "dense1": 1.0})


@pytest.mark.parametrize("share", [0, 1.5, float("nan")])
def test_a_share_out_of_range_is_refused(network, share):
    with pytest.raises(ValueError, match="agreement="):
        calibrate(network[0], ARCH, network[1], encoding=ENCODING, agreement=share)


# ---------------------------------------------------------------- balance

RESIDUAL = parse(
    "4C3p1-[4C3p1-4C3p1]+identity-[6C3s2p1-6C3p1]+norm-[8C3p1-8C3p1]+padded-AP2-E-5b",
    input_shape=(8, 8, 2), classes=3, head_bias=True,
)  # fmt: skip


def test_a_balanced_network_has_the_same_logits_bit_for_bit():
    """Norms with biases, projections, zeros between channels, pools and exits, of uneven sizes."""
    rng = np.random.default_rng(0)
    net = Net(RESIDUAL, hidden(neurons.relu()))
    variables = jax.tree.map(np.array, net_module.init_variables(net, jax.random.key(0)))
    for tree in variables["params"].values():
        for leaf in tree.get("norm", {}):
            shape = tree["norm"][leaf].shape
            tree["norm"][leaf] = rng.normal(0, 4, shape).astype(np.float32)
    shown = jnp.asarray(rng.normal(size=(5, 8, 8, 2)), jnp.float32)
    before = net_module.forward(net, variables, shown)
    hidden_sites = [site.name for site in plan(RESIDUAL) if site.role == "activation"]
    scales = {name: float(np.abs(before.outs[name]).max()) + 1e-3 for name in hidden_sites}
    by = factors(RESIDUAL, scales)
    after = net_module.forward(net, balanced(variables, RESIDUAL, by), shown)
    for one, other in zip(before.readouts, after.readouts, strict=True):
        assert np.array_equal(one, other)
    for name in hidden_sites:
        assert np.array_equal(np.asarray(before.outs[name]) / by[name], after.outs[name])
        assert np.abs(after.outs[name]).max() <= 1
    assert len(set(by.values())) > 2
    assert by["conv1"] == by["block1.conv2"]  # an identity adds one to the other
    assert by["block2.conv2"] == by["block3.conv2"]
    assert by["exit1"] == by["readout"] == 1


def test_calibration_balances_and_the_scales_follow(network, ready):
    variables, images, outs = network
    other = calibrate(variables, ARCH, images, encoding=ENCODING, percentiles=(90, 99), bits=4)
    tops = {site: outs[site].max() for site in ("conv1", "dense1")}
    by = {site: 2.0 ** np.ceil(np.log2(top)) for site, top in tops.items()} | {"readout": 1.0}
    assert len(set(by.values())) > 1
    for percentile, scales in ready.scales.items():
        assert other.scales[percentile] == {site: scales[site] / by[site] for site in scales}
    assert other.clip_errors == ready.clip_errors  # clips move with what they cut
    assert dict(other.clips) == pytest.approx({s: c / by[s] for s, c in ready.clips.items()})
    assert other.largest <= 1


def test_quantised_weights_are_not_balanced(network):
    """A power of two in front of a ternary kernel is lost."""
    variables, images, _ = network
    weights = float_ends(ternary())
    with pytest.raises(ValueError, match=r"give balance=False with weights="):
        calibrate(variables, ARCH, images, encoding=ENCODING, weights=weights)


@pytest.mark.parametrize("name", ["rate", "scatter_gather"])
def test_images_that_end_are_for_methods_that_hold_them_so_long(network, ready, name):
    method = getattr(ready, name)()
    ending = Encoding("held", 1 / 255, 255, duration=100)
    with pytest.raises(ValueError, match=rf"Encoding\(duration=100\): {name} takes an image"):
        convert(ready.variables, ARCH, method, encoding=ending)


def test_a_certificate_wants_the_variables_that_were_converted(network, ready):
    variables, images, _ = network
    snn = ready.convert(ready.signed_if())
    with pytest.raises(
        ValueError, match=r"cannot have been converted from these variables"
    ) as refused:
        certify(snn, variables, images[:2], steps=60)  # the tree before calibration: without clips
    assert "conv1: params/conv1/clip is missing" in str(refused.value)
    narrow = jax.tree.map(np.array, ready.variables)
    narrow["params"]["dense1"]["kernel"] = narrow["params"]["dense1"]["kernel"][:, :3]
    with pytest.raises(ValueError, match=r"dense1: params/dense1/kernel has shape"):
        certify(snn, narrow, images[:2], steps=60)


def test_a_tree_of_another_architecture_is_named(network):
    variables, images, _ = network
    narrow = jax.tree.map(np.array, variables)
    narrow["params"]["dense1"]["kernel"] = narrow["params"]["dense1"]["kernel"][:, :3]
    del narrow["params"]["conv1"]["kernel"]
    with pytest.raises(UserError, match=r"the variables do not fit the network") as refused:
        calibrate(narrow, ARCH, images, encoding=ENCODING)
    assert "conv1: params/conv1/kernel is missing" in str(refused.value)
    assert "dense1: params/dense1/kernel has shape" in str(refused.value)
