"""Residual blocks of neurons that follow a level: branch and shortcut are one whole number."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsnn import (
    UserError,
    calibrate,
    certify,
    convert,
    load,
    methods,
    save,
    settle,
    simulate,
)
from jaxsnn.arch.plan import parse, plan, site_named
from jaxsnn.conversion.float_reference import snapped
from jaxsnn.conversion.method import Drive, Shortcut
from jaxsnn.conversion.methods.residual import joined
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.network.net import forward
from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.weight_quantisers import full_precision

PROJECTED = "4C3p1-[6C3s2p1-6C3p1]+norm-[6C3p1-6C3p1]+identity"
PADDED = "4C3p1-[7C3s2p1-7C3p1]+padded-[7C3p1-7C3p1]+identity"  # 3 more channels: 1 and 2
BIASED = "4C3p1-[6C3s2p1-6C3p1x]+bias-[6C3p1-6C3p1b]+identity"  # last convolutions without norm
TEXTS = [PROJECTED, PADDED, BIASED]
WITH_K = [(PROJECTED, 1), (PADDED, 2), (BIASED, 1)]  # what k does, no shortcut changes
UNITS = Encoding("onset", 2.0**-6, 255)
FLOAT = SiteMap(full_precision())


class Residual:
    """A random network, and slow float64 passes over it written from the definition of a block.

    ``gammas``: signs of the norm scales, "positive", "mixed" or "with_zero": then one channel of
    every norm has the scale 0, and one of the last norm of every block.
    """

    def __init__(self, seed, text=PROJECTED, gammas="with_zero", k=1, images=5):
        rng = np.random.default_rng(seed)
        self.k, self.gammas = k, gammas
        self.arch = parse(text, input_shape=(6, 6, 2), classes=4, head_pool=True, head_bias=True)
        self.images = rng.integers(-200, 201, (images, 6, 6, 2)).astype(np.int16)
        self.layers = {}

        def activation(site, z, added):
            layer = self.layers[site.name]
            if site.norm:
                layer |= self._norm(rng, z)
            return self._normed(layer, z) + added

        def drawn(site):
            fan_in = np.prod(site.kernel_shape[:-1])
            kernel = ref._float32(rng.normal(size=site.kernel_shape) / np.sqrt(fan_in))
            self.layers[site.name] = layer = {"name": site.name, "kind": site.kind}
            layer |= {"kernel": kernel, "stride": site.strides[0], "padding": site.padding}
            if site.bias:
                layer["bias"] = ref._float32(rng.normal(size=site.kernel_shape[-1]) * 0.3)

        self.pass_over(self.images * UNITS.scale, activation, self.quantise, drawn)
        self.variables = self._tree()

    def quantise(self, site, activation):
        return ref.median_level(activation, self.k, None) * 2.0**-self.k

    def _norm(self, rng, z):
        flat = z.reshape(-1, z.shape[-1])
        scale, offset = rng.uniform(0.6, 1.6, z.shape[-1]), rng.normal(0.5, 0.3, z.shape[-1])
        if self.gammas != "positive":
            scale[1::2] *= -1
        if self.gammas == "with_zero":
            scale[-1] = 0
        moments = {"mean": flat.mean(0), "var": np.maximum(flat.var(0), 0.05)}
        values = {"scale": scale, "offset": offset, **moments}
        return {name: ref._float32(value) for name, value in values.items()}

    @staticmethod
    def _normed(layer, z):
        return ref.batch_norm(z, *ref.norm_of(layer)) if "scale" in layer else z

    def slope(self, site):
        """What the norm multiplies a drive with, without its sign."""
        layer = self.layers[site.name]
        if "scale" not in layer:
            return np.ones(site.drive_shape[-1])
        return np.abs(layer["scale"]) / np.sqrt(layer["var"] + 1e-5)

    def _tree(self):
        params, statistics = {}, {}
        for name, layer in self.layers.items():
            names = [n for n in ("kernel", "bias") if n in layer]
            params[name] = {n: layer[n].astype(np.float32) for n in names}
            if "scale" in layer:
                norm = {"scale": layer["scale"], "bias": layer["offset"]}
                params[name]["norm"] = {n: v.astype(np.float32) for n, v in norm.items()}
                moments = {n: layer[n].astype(np.float32) for n in ("mean", "var")}
                statistics[name] = {"norm": moments}
        return {"params": params, "batch_stats": statistics}

    def pass_over(self, images, activation, fire, drawn=None, first=True):
        """Values of every site of one pass.

        ``activation(site, z, added)`` adds the shortcut to the branch, ``fire(site, activation)``
        says what the neurons give; biases come with ``first``.
        """
        values = {"input": images}
        for site in plan(self.arch):
            x = values[site.source]
            if site.kind == "avgpool":
                values[site.name] = x.mean((1, 2))
                continue
            if drawn:
                drawn(site)
            layer = self.layers[site.name]
            z = ref.synapse(layer, x) + first * layer.get("bias", 0)
            added = self.added(site, values[site.shortcut], first) if site.shortcut else 0
            values[site.name] = activation(site, z, added)
            if site.role == "activation":
                values[site.name] = fire(site, values[site.name])
        return values

    def added(self, site, values, first):
        """A projection's drive; the identity at every stride-th pixel, between zeros.

        The gain is one of the drive: what a projection's norm and bias add to it stays as it is.
        """
        rows, columns, channels = site.drive_shape
        more, stride = (channels - values.shape[-1]) // 2, values.shape[1] // rows
        added = np.zeros((len(values), rows, columns, channels))
        for row, column in np.ndindex(rows, columns):
            pixel = values[:, row * stride, column * stride]
            added[:, row, column, more : more + values.shape[-1]] = pixel
        offset = 0
        if site_named(self.arch, site.shortcut).role == "shortcut":
            layer = self.layers[site.shortcut]
            offset = first * self._normed(layer, np.zeros(channels) + layer.get("bias", 0))
        return (added - offset) * self.layers[site.name].get("shortcut_gain", 1) + offset

    def levels(self):
        """Levels of the quantised ANN, and the logits."""
        levels = {}

        def activation(site, z, added):
            return self._normed(self.layers[site.name], z) + added

        def fire(site, value):
            levels[site.name] = ref.median_level(value, self.k, None)
            return levels[site.name] * 2.0**-self.k

        images = self.images * UNITS.scale
        return levels, self.pass_over(images, activation, fire)["readout"]

    def spikes(self, steps):
        """Spikes of every step, site -> [T, B, ...]; the input and the biases come in the first.

        Every neuron has the activation of what has come so far; its count goes one up or down
        towards that activation's level.
        """
        drive, net, trains = {}, {}, {}
        current = {}

        def activation(site, z, added):
            total = drive[site.name] = drive.get(site.name, 0) + z
            shown = self._normed(self.layers[site.name], total)
            if site.role == "activation":
                more = drive[site.name, "added"] = drive.get((site.name, "added"), 0) + added
                return shown + more
            change, current[site.name] = shown - current.get(site.name, 0), shown
            return change  # a projection passes on what its drive has changed by

        def fire(site, value):
            count, step = net.get(site.name, 0), 2.0**-self.k
            up = value >= (count + 0.5) * step
            down = (count > 0) & (value < (count - 0.5) * step)
            spike = up.astype(int) - down
            net[site.name] = count + spike
            trains.setdefault(site.name, []).append(spike)
            return spike * step

        for t in range(steps):
            images = self.images * UNITS.scale * (t == 0)
            self.pass_over(images, activation, fire, first=t == 0)
        return {name: np.array(train) for name, train in trains.items()}

    def snn(self, method=None):
        method = method or methods.negative_spikes(k=self.k)
        return convert(self.variables, self.arch, method, weights=FLOAT, encoding=UNITS)

    def as_in(self, snn):
        """The network with the kernels and the shortcuts' gains that conversion has moved."""
        moved = snapped(self.variables, snn)["params"]
        for name, layer in self.layers.items():
            layer["kernel"] = np.asarray(moved[name]["kernel"], np.float64)
            layer["shortcut_gain"] = np.asarray(moved[name].get("shortcut_gain", 1), np.float64)
        return self


@pytest.mark.parametrize(("text", "k"), WITH_K)
def test_every_step_is_that_of_the_definition_and_it_settles_on_the_quantised_ann(text, k):
    net = Residual(0, text, k=k)
    snn, steps = net.snn(), 60
    net.as_in(snn)
    names = tuple(site.name for site in plan(net.arch) if site.role == "activation")
    trace = simulate(snn, net.images, steps=steps, block=steps, counts=True, record=names)
    levels, logits = net.levels()
    for name, train in net.spikes(steps).items():
        assert not train[-1].any()  # it has come to rest
        counters = (np.abs(train).sum(axis=tuple(range(2, train.ndim))), (train < 0).sum())
        np.testing.assert_array_equal(trace.counters.spikes[name], counters[0], err_msg=name)
        assert int(trace.counters.negative[name].sum()) == counters[1]
        np.testing.assert_array_equal(train.sum(0), levels[name], err_msg=name)
        np.testing.assert_array_equal(trace.counts[name], levels[name], err_msg=name)
    unit = snn.unit("readout")
    np.testing.assert_allclose(trace.readout[-1] * unit, logits, atol=unit / 2 + 1e-9)
    assert max(level.max() for level in levels.values()) > 2 * 2**k


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**16), k=st.sampled_from([1, 2]), text=st.sampled_from(TEXTS))
def test_any_network_settles_on_its_quantised_ann(seed, k, text):
    net = Residual(seed, text, "mixed" if seed % 2 else "with_zero", k, images=3)
    snn = net.snn()
    proof = certify(snn, net.variables, net.images, steps=300, settle=True)
    assert proof.equality == "exact after settling"
    counts = settle(snn, net.images, steps=300, counts=True).counts
    for name, level in net.as_in(snn).levels()[0].items():
        np.testing.assert_array_equal(counts[name], level, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "k"), WITH_K)
def test_threshold_units_have_the_levels_in_one_step(text, k):
    net = Residual(3, text, k=k)
    snn = net.snn(methods.scatter_gather(k=k, bound=64))
    proof = certify(snn, net.variables, net.images)
    assert (proof.equality, proof.mismatches) == ("exact", 0)
    counts = simulate(snn, net.images, steps=1, counts=True).counts
    for name, level in net.as_in(snn).levels()[0].items():
        np.testing.assert_array_equal(counts[name], level, err_msg=name)


def test_float_weights_have_float_gains():
    net = Residual(4)
    snn = net.snn(methods.negative_spikes(k=1, float_weights=True))
    gains = snn.variables["params"]["block1.conv2"]
    assert {gains[name].dtype for name in ("gain", "shortcut_gain")} == {jnp.dtype(jnp.float32)}
    counts = settle(snn, net.images, steps=200, counts=True).counts
    for name, level in net.levels()[0].items():
        np.testing.assert_array_equal(counts[name], level, err_msg=name)


def gains_of(net, snn):
    """What the definition wants of every block's end: its site, gains, and their exact ratio.

    The ratio is 0 where the branch is silent, or where the shortcut is.
    """
    for site in plan(net.arch):
        if not site.shortcut:
            continue
        tree, added = snn.variables["params"][site.name], site_named(net.arch, site.shortcut)
        gain, shortcut_gain = (np.asarray(tree[n], np.float64) for n in ("gain", "shortcut_gain"))
        each = net.slope(site) * snn.unit(site.source) * snn.folded(site.name).kernel_unit
        value = snn.unit(added.name) * (net.slope(added) if added.role == "shortcut" else 1)
        yield (
            site.name,
            gain,
            shortcut_gain,
            np.where(each > 0, value / np.where(each > 0, each, 1), 0),
        )


@pytest.mark.parametrize("text", TEXTS)
def test_every_gain_is_right_to_one_in_4096_and_as_small_as_that_allows(text):
    net = Residual(5, text)
    snn = net.snn()
    for name, gain, shortcut_gain, ratio in gains_of(net, snn):
        for g, h, exact in zip(gain.astype(int), shortcut_gain.astype(int), ratio, strict=True):
            if not exact:
                assert (g, h) in ((0, 1), (1, 0), (0, 0))
                continue
            assert abs(h / g / exact - 1) <= 2.0**-12
            assert g & (g - 1) == 0
            assert g == 1 or h % 2
            assert g == 1 or h < 2**12  # half of it would do no more
        used = ratio > 0
        error = np.abs(shortcut_gain[used] / gain[used] / ratio[used] - 1)
        assert snn.folded(name).gain_error == pytest.approx(error.max(), rel=1e-6)
        rounding = np.asarray(snapped(net.variables, snn)["params"][name]["shortcut_gain"])
        exact = shortcut_gain[used] / (gain[used] * ratio[used])
        np.testing.assert_allclose(rounding[used], exact, rtol=2.0**-23)
        assert (rounding[~used] == 1).all()


def other_methods(net, weight_bits):
    """The methods that fold residual blocks in other ways, with clips and scales for them."""
    for site in plan(net.arch):
        if site.role == "activation":
            net.variables["params"][site.name]["clip"] = np.float32(2.5)
    scales = {site.name: 2.5 for site in plan(net.arch)}
    return [
        methods.signed_if(bits=3, weight_bits=weight_bits),
        methods.rate(scales=scales, weight_bits=weight_bits),
    ]


@pytest.mark.parametrize("text", TEXTS)
def test_no_other_method_loses_precision_of_a_shortcut(text):
    net = Residual(5, text)
    held = dataclasses.replace(UNITS, presentation="held")
    for method in other_methods(net, 7):
        snn = convert(net.variables, net.arch, method, weights=FLOAT, encoding=held)
        for _, gain, shortcut_gain, ratio in gains_of(net, snn):
            used = (ratio > 0) & (gain > 0)
            exact = gain[used] * ratio[used]
            np.testing.assert_allclose(shortcut_gain[used], exact, rtol=2.0**-12)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("bits", [4, 7])
def test_the_bits_of_a_weight_are_those_of_every_kernel(text, bits):
    """Those of shortcuts and heads, with a bias or without, too."""
    net = Residual(6, text)
    held = dataclasses.replace(UNITS, presentation="held")
    negative = methods.negative_spikes(k=1, weight_bits=bits)
    for method in (negative, *other_methods(net, bits)):
        encoding = UNITS if method is negative else held
        snn = convert(net.variables, net.arch, method, weights=FLOAT, encoding=encoding)
        for name, layer in net.layers.items():
            kernel = snn.variables["params"][name]["kernel"]
            assert kernel.dtype == jnp.int8
            largest = np.abs(np.asarray(kernel, int)).max()
            assert 2 ** (bits - 1) <= largest < 2**bits
            unit = snn.folded(name).kernel_unit
            moved = np.abs(np.abs(np.asarray(kernel) * unit) - np.abs(layer["kernel"]))
            assert moved.max() <= unit / 2
        bias = np.asarray(snn.variables["params"]["readout"]["bias"]) * snn.unit("readout")
        steps = snn.encoding.ends or 1
        np.testing.assert_allclose(bias * steps, net.layers["readout"]["bias"], atol=1e-3)


def test_a_shortcut_is_kept_where_the_branch_is_not():
    """Zero-initialised last norms, as many training scripts have them: the block is its input."""
    net = Residual(6, "4C3p1-[4C3p1-4C3p1]+identity")
    norm = net.variables["params"]["block1.conv2"]["norm"]
    norm["scale"][:], norm["bias"][:] = 0, 0
    snn = net.snn()
    gains = snn.variables["params"]["block1.conv2"]
    assert np.asarray(gains["gain"]).tolist() == [0] * 4
    assert np.asarray(gains["shortcut_gain"]).tolist() == [1] * 4
    counts = settle(snn, net.images, steps=200, counts=True).counts
    np.testing.assert_array_equal(counts["block1.conv2"], counts["conv1"])
    proof = certify(snn, net.variables, net.images, steps=200, settle=True)
    assert proof.equality == "exact after settling"
    norm["bias"][:] = 1.0  # two levels more
    counts = settle(net.snn(), net.images, steps=200, counts=True).counts
    np.testing.assert_array_equal(counts["block1.conv2"], counts["conv1"] + 2)


@pytest.mark.parametrize("scale", [1e-30, 1e-12])
def test_a_branch_that_has_decayed_to_nothing_is_dropped_in_both_references(scale):
    net = Residual(7, PADDED)
    net.variables["params"]["block2.conv2"]["norm"]["scale"][2] = scale
    snn = net.snn()
    assert int(snn.variables["params"]["block2.conv2"]["gain"][2]) == 0
    kernel = np.asarray(snapped(net.variables, snn)["params"]["block2.conv2"]["kernel"])
    assert [bool(kernel[..., channel].any()) for channel in (1, 2)] == [True, False]
    proof = certify(snn, net.variables, net.images, steps=200, settle=True)
    assert proof.equality == "exact after settling"


def test_dyadic_gains_are_exact_and_ties_go_up_in_both():
    """A drive unit of 1/4 and a slope of 1/2: a spike of the shortcut is worth four of them."""
    drive = Drive(
        "one",
        0.5,
        np.array([0.5, 2.0]),
        np.array([3.0, -1.0]),
        np.array([0.25, 0.0]),
        0.25,
        np.array([100, 100]),
        Shortcut(np.array([0.5, 0.125]), np.zeros(2), np.array([9, 9])),
    )
    one, params, error = joined(drive)
    assert params["gain"].tolist() == [1, 4]
    assert params["shortcut_gain"].tolist() == [4, 1]
    assert one.bound.tolist() == [136, 409]
    assert error == 0
    # 1/2 (u / 4 - 3) + 1/4 + s / 2 reaches 1/4 where u + 4 s reaches 12.
    assert one.reaching(0.25).tolist()[0] == 12
    # 2 (u / 4 + 1) + s / 8 reaches 1 where 4 u + s reaches -8.
    assert one.reaching(1.0).tolist()[1] == -8


def test_units_that_cannot_be_shared_are_refused_with_the_channel():
    """One of it is 2 drive units, or 1/25 of one, which sums below 2^14 have no room for."""
    drive = Drive(
        "block1.conv2",
        0.5,
        np.ones(2),
        np.zeros(2),
        np.zeros(2),
        0.25,
        np.array([2**7, 2**13]),
        Shortcut(np.array([0.5, 0.01]), np.zeros(2), np.array([9, 9])),
    )
    message = r"block1.conv2: a shortcut's drive does not share .* channel 1 .* below 16,384"
    with pytest.raises(UserError, match=message):
        joined(drive, below=2**14)


@pytest.mark.parametrize("projection", ["norm", "bias"])
def test_the_rounding_of_a_gain_does_not_reach_what_a_projection_adds_beside_its_drive(projection):
    """A hundred more in the shortcut and a hundred less in the branch is no difference."""
    net = Residual(3, PROJECTED.replace("norm", projection), "positive")
    trees = (net.variables["params"][f"block1.{name}"] for name in ("shortcut", "conv2"))
    for tree, more in zip(trees, (100, -100), strict=True):
        tree.get("norm", tree)["bias"] += np.float32(more)
    snn = net.snn(methods.negative_spikes(k=1, weight_bits=None))
    assert snn.folded("block1.conv2").gain_error > 0
    proof = certify(snn, net.variables, net.images, steps=300, settle=True)
    assert proof.equality == "exact after settling"


def test_a_weak_channel_of_a_projection_has_the_precision_of_the_sum():
    """A 64th of the others in their units: its gain is of few bits, and little in the sum."""
    net, name = Residual(3, PROJECTED, "positive"), "block1.conv2"
    net.variables["params"]["block1.shortcut"]["norm"]["scale"][2] /= 64
    snn = net.snn(methods.negative_spikes(k=1, weight_bits=None))
    assert 0 < int(snn.variables["params"][name]["shortcut_gain"][2]) < 64
    proof = certify(snn, net.variables, net.images, steps=300, settle=True)
    assert proof.equality == "exact after settling"


@pytest.mark.parametrize(("whole", "gains"), [(True, [0, 1]), (False, [1, 1])])
def test_a_branch_of_a_200th_of_a_level_is_dropped_beside_whole_gains_alone(whole, gains):
    """Floats hold it, and their reference is the network as trained."""
    slope, bound = np.array([0.5 / 200 / 100, 0.5]), np.array([100, 100])
    counts = Shortcut(np.array([0.5, 0.5]), np.zeros(2), np.array([9, 9]))
    drive = Drive("one", 0.5, slope, np.zeros(2), np.zeros(2), 1.0, bound, counts)
    params = joined(drive, whole=whole).params
    assert params["gain"].tolist() == gains
    assert params["shortcut_gain"][0] == pytest.approx(1 if whole else 20_000)


@pytest.mark.parametrize(("name", "factor"), [("shortcut_gain", 2), ("gain", 2), ("gain", 0)])
def test_a_wrong_gain_is_noticed(name, factor):
    """Against the float ANN, which takes over the rounding of the gains alone."""
    net = Residual(9)
    snn = net.snn()
    snn.variables["params"]["block2.conv2"][name] *= factor
    proof = certify(snn, net.variables, net.images, steps=300, settle=True)
    assert proof.mismatches == 0  # the integer ANN has the same wrong gain
    assert not proof.origins_are_ties
    assert proof.equality == "approximate"


@pytest.mark.slow
def test_the_highest_count_of_a_calibration_cuts_nothing():
    net = Residual(12, k=2)
    ready = calibrate(net.variables, net.arch, net.images, encoding=UNITS)
    free, cut = methods.negative_spikes(k=2, highest=1000), methods.negative_spikes(k=2, highest=2)
    proofs, counts = [], []
    for method in (free, ready.negative_spikes(2), cut):
        snn = convert(ready.variables, net.arch, method, encoding=UNITS)
        proofs.append(certify(snn, ready.variables, net.images, steps=200, settle=True))
        settled = settle(snn, net.images, steps=200, counts=True).counts
        counts.append(max(np.abs(of_site).max() for of_site in settled.values()))
    assert counts[0] <= ready.highest(2)
    assert [proof.equality for proof in proofs[:2]] == ["exact after settling"] * 2
    assert [proof.cut > 0 for proof in proofs] == [False, False, True]


def test_a_network_with_shortcuts_is_saved_and_read(tmp_path):
    net = Residual(10, PADDED)
    snn = net.snn()
    save(snn, tmp_path / "net.npz")
    back = load(tmp_path / "net.npz")
    assert dataclasses.astuple(back.report[4]) == dataclasses.astuple(snn.report[4])
    assert back.report[4].added == ("gain", "shortcut_gain")
    counts = [settle(one, net.images, steps=200, counts=True).counts for one in (snn, back)]
    np.testing.assert_array_equal(counts[0]["block2.conv2"], counts[1]["block2.conv2"])


@pytest.mark.parametrize("text", TEXTS)
def test_the_ann_is_the_one_of_the_definition(text):
    net = Residual(11, text)
    snn = net.snn()
    out = forward(snn.float_ann, snapped(net.variables, snn), net.images * UNITS.scale)
    _, logits = net.as_in(snn).levels()
    np.testing.assert_allclose(out.readouts[-1][0], logits, atol=1e-4)


def test_weights_beside_net_counts_are_fine_and_those_beside_a_projection_have_room():
    """Sums over all steps stay below 2^21, or below 2^17, by no more than two bits."""
    net = Residual(9, gammas="positive")
    method = methods.negative_spikes(k=1, highest=32, weight_bits=None)
    snn = convert(net.variables, net.arch, method, weights=FLOAT, encoding=UNITS)
    for name, below in (("block1.conv2", 2**17), ("block2.conv2", 2**21)):
        kernel = np.abs(np.asarray(snn.variables["params"][name]["kernel"]).astype(np.int64))
        sums = 32 * kernel.sum((0, 1, 2)).max()
        assert below / 4 <= sums < below


def test_a_weak_branch_makes_the_grid_coarser_where_counts_are_worth_too_many_of_its_units():
    """It reaches 0.03 levels, counts 32: the sum is 32 / 0.03 times as large, and ends at 2^30."""
    net, name = Residual(9, gammas="positive"), "block2.conv2"
    method = methods.negative_spikes(k=1, highest=32, weight_bits=None)
    snn = convert(net.variables, net.arch, method, weights=FLOAT, encoding=UNITS)
    reach = snn.unit("block2.conv1") * snn.folded(name).kernel_unit * snn.folded(name).bound
    deviation = np.sqrt(net.layers[name]["var"][2] + 1e-5)
    net.variables["params"][name]["norm"]["scale"][2] = 0.03 * 0.5 / reach * deviation
    weak = convert(net.variables, net.arch, method, weights=FLOAT, encoding=UNITS)
    assert int(weak.variables["params"][name]["gain"][2]) > 0
    end = 2**30 * 0.03 / 32
    assert end / 4 < weak.folded(name).bound < end < snn.folded(name).bound
    proof = certify(weak, net.variables, net.images, steps=300, settle=True)
    assert proof.equality == "exact after settling"
