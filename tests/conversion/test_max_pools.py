"""Max pools behind neurons: every method beside a slow network of NumPy, written from the neurons.

The slow network computes in the units of the activations, in float64, with batch norm unfolded, one
position of one window after the other. The slow ANN pools currents, where the original does.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference as ref
from helpers import shapes_in

from jaxsnn import (
    Encoding,
    Net,
    certify,
    convert,
    exchange,
    hidden,
    init_variables,
    load,
    methods,
    neurons,
    parse,
    quantised_weights,
    save,
    settle,
    simulate,
    start,
    step,
    unpack,
)
from jaxsnn.arch import format, plan
from jaxsnn.conversion import percentiles
from jaxsnn.conversion.float_reference import snapped
from jaxsnn.network import net as net_module
from jaxsnn.network.initialisers import FanInUniform
from jaxsnn.simulation.engine import run

IMAGES, STEPS = 4, 48
BEHIND = "4C3p1-4C3p1-MP3s2p1-5C3p1-MP2-6"
BEFORE_NORM = "4C3p1-MP3s2p1n-5C3p1-MP2n-6"
BLOCKS = "4C3p1-[4C3p1]+identity-BP3s2p1-[4C3p1]+identity-AP2-BP2-6"
UNITS = Encoding("held", 2.0**-6, 255)


def pooled(x, pool, signs=None):
    """The largest of every window of [B, H, W, C], one window after the other; -1: the smallest."""
    rows, columns = pool.outputs(x.shape[1]), pool.outputs(x.shape[2])
    signs = np.ones(x.shape[3], np.int64) if signs is None else signs
    out = np.zeros((len(x), rows, columns, x.shape[3]), x.dtype)
    for i in range(rows):
        for j in range(columns):
            top, left = i * pool.stride - pool.padding, j * pool.stride - pool.padding
            down = slice(max(top, 0), top + pool.size)
            across = slice(max(left, 0), left + pool.size)
            window = x[:, down, across]
            out[:, i, j] = np.where(signs > 0, window.max((1, 2)), window.min((1, 2)))
    return out


def affine(variables, site):
    """Slope and offset that norm and bias make of a current, float64 [C]."""
    params = variables["params"][site.name]
    bias = np.asarray(params.get("bias", 0.0), np.float64)
    if not site.norm:
        return np.ones(site.drive_shape[-1]), bias + np.zeros(site.drive_shape[-1])
    norm = {name: np.asarray(value, np.float64) for name, value in params["norm"].items()}
    stats = variables["batch_stats"][site.name]["norm"]
    slope = norm["scale"] / np.sqrt(np.asarray(stats["var"], np.float64) + 1e-5)
    return slope, norm["bias"] + slope * (bias - np.asarray(stats["mean"], np.float64))


def current(variables, site, x):
    kernel = np.asarray(variables["params"][site.name]["kernel"], np.float64)
    if site.kind == "dense":
        return x.reshape(len(x), -1) @ kernel
    return ref.conv2d(x, kernel, site.strides[0], site.padding)


def slow_ann(arch, variables, x, level):
    """What every site of the ANN gives; ``level(site, drive)`` is the value of its activation."""
    values = {"input": np.asarray(x, np.float64)}
    for site in plan(arch):
        x = values[site.source]
        if site.kind in ("avgpool", "maxpool"):
            pool = site.spec
            mean = site.kind == "avgpool"
            values[site.name] = ref.mean_pool(x, pool.size) if mean else pooled(x, pool)
            continue
        z, pool = current(variables, site, x), site.max_pool
        z = pooled(z, pool) if pool and pool.before_norm else z
        slope, offset = affine(variables, site)
        z = slope * z + offset + (values[site.shortcut] if site.shortcut else 0)
        z = pooled(z, pool) if pool and not pool.before_norm else z
        values[site.name] = level(site, z) if site.role == "activation" else z
    return values


def slow_snn(arch, variables, x, worth, fire, gates):
    """Spikes of every site, int64 [T, B, ...], and the summed readout.

    ``fire(site, state, drive) -> (state, spikes)`` is a neuron in the units of the activation,
    ``worth`` what one spike of a site stands for, ``gates`` what share of input and biases comes in
    each step.
    """
    state, total = {}, 0
    spikes = {site.name: [] for site in plan(arch) if site.kind != "avgpool"}
    for gate in gates:
        values = {"input": gate * np.asarray(x, np.float64)}
        for site in plan(arch):
            x_in = values[site.source]
            if site.kind == "avgpool":
                values[site.name] = ref.mean_pool(x_in, site.spec.size)
                continue
            if site.kind == "maxpool":
                signs = np.ones(x_in.shape[-1])
                if site.spec.before_norm:
                    source = next(one for one in plan(arch) if one.name == site.source)
                    signs = np.where(affine(variables, source)[0] < 0, -1, 1)
                before = state.get(site.name, np.zeros_like(x_in))
                state[site.name] = before + x_in
                after = pooled(state[site.name], site.spec, signs)
                values[site.name] = after - pooled(before, site.spec, signs)
                spikes[site.name].append(values[site.name] / worth[site.name])
                continue
            slope, offset = affine(variables, site)
            drive = slope * current(variables, site, x_in) + gate * offset
            drive = drive + (values[site.shortcut] if site.shortcut else 0)
            drive = pooled(drive, site.max_pool) if site.max_pool else drive
            if site.name == "readout":
                total = total + drive
                continue
            state[site.name], out = fire(site, state.get(site.name), drive)
            spikes[site.name].append(out)
            values[site.name] = out * worth[site.name]
    actual = {name: np.round(np.array(each)).astype(np.int64) for name, each in spikes.items()}
    return {name: each for name, each in actual.items() if len(each)}, total


# ---------------------------------------------------------------- the neurons, from the papers


def tracking(k, cap):
    """+1 where the next threshold is reached, -1 where the last one is no longer."""

    def fire(site, state, drive):
        del site
        potential, net = (0.0, np.zeros(drive.shape, np.int64)) if state is None else state
        potential, unit = potential + drive, 2.0**-k
        up = (potential >= (net + 0.5) * unit) & (net < cap)
        down = (potential < (net - 0.5) * unit) & (net > 0)
        return (potential, net + up - down), up.astype(np.int64) - down

    return fire


def signed(variables, levels, settling):
    """Soft reset from half a threshold on; a potential below 0 takes a spike back."""

    def fire(site, state, drive):
        threshold = float(variables["params"][site.name]["clip"]) / levels
        v, net = (threshold / 2, np.zeros(drive.shape, np.int64)) if state is None else state
        v = v + drive
        up = (v >= threshold) & ((net < levels) | (not settling))
        v, net = v - threshold * up, net + up
        low = v < 0 if settling else v <= -1e-3 / levels
        down = ~up & low & (net > 0)
        return (v + threshold * down, net - down), up.astype(np.int64) - down

    return fire


def rates(scales):
    def fire(site, v, drive):
        v = (0.0 if v is None else v) + drive / scales[site.name]
        out = (v >= 1).astype(np.int64)
        return v - out, out

    return fire


# ---------------------------------------------------------------- the networks


def trained(text, activation, seed=0, **options):
    """A random network with the statistics of its images; every second norm scale is negative."""
    arch = parse(text, input_shape=(9, 9, 2), classes=4, head_bias=True)
    net = Net(arch, hidden(activation), initialiser=FanInUniform(), **options)
    variables = jax.tree.map(np.array, init_variables(net, jax.random.key(seed)))
    rng = np.random.default_rng(seed)
    for tree in variables["params"].values():
        if "norm" in tree:
            channels = tree["norm"]["scale"].shape
            tree["norm"]["scale"] = rng.uniform(0.6, 1.4, channels).astype(np.float32)
            tree["norm"]["scale"][1::2] *= -1
            tree["norm"]["bias"] = rng.normal(0.4, 0.3, channels).astype(np.float32)
    images = rng.integers(-200, 201, (IMAGES, *arch.input_shape)).astype(np.int16)
    x = jnp.asarray(images * UNITS.scale, jnp.float32)[None]
    counting = net.clone(norm_momentum=0.0)
    state = net_module.initial_state(counting, variables, IMAGES)
    _, moved = net_module.apply_training(counting, variables, x, state)
    return arch, net, {**variables, **jax.tree.map(np.array, moved)}, images


def negative(text):
    arch, _, variables, images = trained(text, neurons.quantised_relu(1, 4))
    onset = Encoding("onset", UNITS.scale, 255)
    snn = convert(variables, arch, methods.negative_spikes(k=1, bound=4), encoding=onset)
    worth = {site.name: 0.5 for site in plan(snn.arch) if site.name != "readout"}
    fire = tracking(1, 8)
    return arch, variables, images, snn, worth, fire, [1.0] + [0.0] * (STEPS - 1)


def clipped(text, settling=True):
    options = {"ties": "up"} if settling else {}
    net = trained(text, neurons.clipped_relu(3, clip=2.0, **options), weights=quantised_weights(3))
    arch, _, variables, images = net
    method = methods.signed_if(bits=3, settling=settling)
    snn = convert(variables, arch, method, encoding=UNITS)
    worth, value = {}, 1.0
    for site in plan(snn.arch):
        if site.role == "activation":
            value = float(variables["params"][site.name]["clip"]) / 7
        worth[site.name] = value
    del worth["readout"]
    fire = signed(variables, 7, settling)
    steps = STEPS if settling else 7
    return arch, variables, images, snn, worth, fire, ([1 / 7] * 7 + [0.0] * STEPS)[:steps]


def unsettled(text):
    return clipped(text, settling=False)


def rate(text):
    arch, net, variables, images = trained(text, neurons.relu())
    (scales,) = percentiles.scales(net, variables, images, [99.0], encoding=UNITS)
    method = methods.rate(scales=scales, initial=0.0, delay=0, weight_bits=None)
    snn = convert(variables, arch, method, encoding=UNITS)
    worth, value = {}, 1.0
    for site in plan(snn.arch):
        value = scales.get(site.name, value)
        worth[site.name] = value
    del worth["readout"]
    return arch, variables, images, snn, worth, rates(scales), [1.0] * 20


def scatter(text):
    arch, _, variables, images = trained(text, neurons.quantised_relu(1, 4))
    snn = convert(variables, arch, methods.scatter_gather(k=1, bound=4), encoding=UNITS)
    return arch, variables, images, snn, None, None, [1.0]


@functools.cache
def case(build, text):
    """The network, what it was made from, and every spike of a run of it."""
    arch, variables, images, snn, worth, fire, gates = build(text)
    names = [site.name for site in plan(snn.arch) if snn.neurons.at(site).spikes]
    trace = simulate(snn, images, steps=len(gates), record=names, counts=True)
    spikes = {name: np.asarray(unpack(trace.records[name], snn, name), np.int64) for name in names}
    return arch, variables, images, snn, worth, fire, gates, spikes, trace


SLOW = pytest.mark.slow  # the same for another place of the pools


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (negative, BEHIND),
        (clipped, BEFORE_NORM),
        (unsettled, BEFORE_NORM),
        (rate, BEFORE_NORM),
        pytest.param(negative, BEFORE_NORM, marks=SLOW),
        pytest.param(clipped, BEHIND, marks=SLOW),
        pytest.param(unsettled, BEHIND, marks=SLOW),
        pytest.param(rate, BEHIND, marks=SLOW),
    ],
)
def test_every_spike_is_that_of_the_slow_network(build, text):
    _, variables, images, snn, worth, fire, gates, spikes, trace = case(build, text)
    floats = snapped(variables, snn)
    x = images * UNITS.scale
    expected, total = slow_snn(snn.arch, floats, x, worth, fire, gates)
    pools = [site.name for site in plan(snn.arch) if site.kind == "maxpool"]
    assert pools
    for name, actual in spikes.items():
        np.testing.assert_array_equal(actual, expected[name], err_msg=name)
    assert all((spikes[name] > 0).any() for name in pools)
    assert any((spikes[name] < 0).any() for name in pools) == (build is not rate)
    readout = np.asarray(trace.readout[-1]) * snn.unit("readout")
    assert np.abs(readout - total).max() < 2e-3 * np.abs(total).max()


def median(site, z):
    del site
    return np.clip(np.floor(z * 2 + 0.5), 0, 8) / 2


def at_clip(variables):
    def level(site, z):
        clip = float(variables["params"][site.name]["clip"])
        return ref.clipped_level(z, clip, 3, up=True) * clip / 7

    return level


SETTLING = [
    (scatter, BEFORE_NORM, "exact"),
    (negative, BEHIND, "exact after settling"),
    (clipped, BEFORE_NORM, "exact after settling"),
    pytest.param(scatter, BEHIND, "exact", marks=SLOW),
    pytest.param(negative, BEFORE_NORM, "exact after settling", marks=SLOW),
    pytest.param(clipped, BEHIND, "exact after settling", marks=SLOW),
]


@pytest.mark.parametrize(("build", "text", "verdict"), SETTLING)
def test_counts_at_rest_are_the_levels_of_the_ann_that_pools_currents(build, text, verdict):
    arch, variables, images, snn, *_, gates, _, trace = case(build, text)
    level = at_clip(variables) if build is clipped else median
    values = slow_ann(arch, snapped(variables, snn), images * UNITS.scale, level)
    logits = np.asarray(trace.readout[-1]) * snn.unit("readout")
    np.testing.assert_allclose(logits, values["readout"], rtol=1e-5, atol=1e-3)
    proof = certify(snn, variables, images, steps=len(gates))
    assert (proof.equality, proof.mismatches, proof.origins_are_ties) == (verdict, 0, True)
    compared = {layer.site: layer.compared for layer in proof.layers}
    for site in plan(snn.arch):
        if site.role == "activation":
            assert compared[site.name] == IMAGES * int(np.prod(site.out_shape))
            assert not (build is clipped and site.max_pool)


def test_where_the_pools_stand():
    assert format(case(negative, BEHIND)[3].arch) == BEHIND.replace("MP", "BP")
    assert format(case(clipped, BEFORE_NORM)[3].arch) == BEFORE_NORM.replace("MP", "BP")
    # The whole drive comes in one step: in every layer, and in the first of input given once.
    arch, _, variables, _ = trained("4C3p1-MP2-5C3p1-MP2", neurons.quantised_relu(1, 4))
    snn = convert(variables, arch, methods.scatter_gather(k=1, bound=4), encoding=UNITS)
    assert snn.arch == arch
    onset = Encoding("onset", UNITS.scale, 255)
    snn = convert(variables, arch, methods.negative_spikes(k=1, bound=4), encoding=onset)
    assert format(snn.arch) == "4C3p1-MP2-5C3p1-BP2"
    for build, text in ((negative, BEHIND), (clipped, BEFORE_NORM), (rate, BEFORE_NORM)):
        snn = case(build, text)[3]
        (neuron, *_) = [snn.neurons.at(s) for s in plan(snn.arch) if s.kind == "maxpool"]
        assert neuron.name == "running_maximum"
        assert neuron.spikes == ((0, 1) if build is rate else (-1, 1))


def test_a_pool_that_takes_the_largest_where_the_smallest_is_right_is_found():
    _, variables, images, snn, *_, gates, _, _ = case(clipped, BEFORE_NORM)
    sign = snn.variables["fixed"]["maxpool1"]["sign"]
    assert sign.tolist() == [1, -1, 1, -1]
    fixed = {**snn.variables["fixed"], "maxpool1": {"sign": jnp.abs(sign)}}
    wrong = snn.replace(variables={**snn.variables, "fixed": fixed})
    level = at_clip(variables)
    values = slow_ann(wrong_arch(snn), snapped(variables, snn), images * UNITS.scale, level)
    logits = simulate(wrong, images, steps=len(gates)).readout[-1] * snn.unit("readout")
    assert np.abs(logits - values["readout"]).max() > 0.1


def wrong_arch(snn):
    """The network as it was trained, whose pools stand before the norm."""
    return parse(format(snn.arch).replace("BP", "MP"), **snn.arch.options)


@pytest.mark.parametrize(
    ("build", "text"),
    [(clipped, BEFORE_NORM), *(pytest.param(b, BEFORE_NORM, marks=SLOW) for b in (negative, rate))],
)
def test_steps_blocks_parts_and_files_change_nothing(build, text, tmp_path):
    _, _, images, snn, *_, gates, spikes, whole = case(build, text)
    steps = len(gates)
    names = ("maxpool1", "maxpool2")
    in_blocks = simulate(snn, images, steps=steps, block=8, record=names)
    for name in names:
        actual = np.asarray(unpack(in_blocks.records[name], snn, name), np.int64)
        np.testing.assert_array_equal(actual, spikes[name])
    first = simulate(snn, images, steps=8, state=start(snn, IMAGES))
    state, one = step(snn, first.state, images, record=names)
    rest = simulate(snn, images, steps=steps - 9, state=state)
    np.testing.assert_array_equal(one.spikes["maxpool2"], spikes["maxpool2"][8])
    np.testing.assert_array_equal(rest.readout[-1], whole.readout[-1])
    save(snn, tmp_path / "snn.npz")
    loaded = load(tmp_path / "snn.npz")
    assert (loaded.arch, loaded.neurons, loaded.report) == (snn.arch, snn.neurons, snn.report)
    np.testing.assert_array_equal(simulate(loaded, images, steps=steps).readout, whole.readout)


def test_the_network_as_given_keeps_its_pools_in_a_file(tmp_path):
    arch, net, variables, images = trained(BEFORE_NORM, neurons.quantised_relu(1, 4))
    method = methods.scatter_gather(k=1, bound=4)
    snn = convert(variables, arch, method, trained=net, encoding=UNITS)
    save(snn, tmp_path / "snn.npz")
    loaded = load(tmp_path / "snn.npz")
    assert (loaded.trained, loaded.trained.arch) == (snn.trained, arch)
    proof = certify(loaded, variables, images)
    assert (proof.equality, proof.given_predictions) == ("exact", 0)


@pytest.mark.parametrize(("build", "text"), [(negative, BEHIND), (clipped, BEFORE_NORM)])
def test_a_silent_step_ends_networks_with_max_pools(build, text):
    _, _, images, snn, *_, gates, spikes, whole = case(build, text)
    trace = settle(snn, images, steps=len(gates))
    last = max(int(np.flatnonzero(s.reshape(len(s), -1).any(1))[-1]) for s in spikes.values())
    assert last + 2 <= len(trace.readout) < len(gates)
    np.testing.assert_array_equal(trace.readout[-1], whole.readout[-1])


@pytest.mark.slow
def test_a_pool_behind_a_residual_block_and_a_block_behind_a_pool():
    arch, variables, images, snn, *_, gates = clipped(BLOCKS)
    proof = certify(snn, variables, images, steps=len(gates) + 40)
    assert (proof.equality, proof.mismatches) == ("exact after settling", 0)
    values = slow_ann(arch, snapped(variables, snn), images * UNITS.scale, at_clip(variables))
    trace = simulate(snn, images, steps=len(gates) + 40)
    logits = trace.readout[-1] * snn.unit("readout")
    np.testing.assert_allclose(logits, values["readout"], rtol=1e-2, atol=2e-2)


def test_rates_behind_a_pool_are_the_largest_rate_whatever_the_time():
    # Two neurons at 1/3 and 1/2 of a spike a step: the pool's is 1/2. The largest of every step, as
    # others pool, is there whenever one of them fires.
    arch = parse("1C1x-MP2s1-2x", input_shape=(2, 2, 1), classes=2)
    variables = {
        "params": {
            "conv1": {"kernel": np.ones((1, 1, 1, 1), np.float32)},
            "dense1": {"kernel": np.ones((1, 2), np.float32)},
            "readout": {"kernel": np.ones((2, 2), np.float32)},
        },
        "batch_stats": {},
    }
    scales = {"conv1": 1.0, "dense1": 1.0, "readout": 1.0}
    method = methods.rate(scales=scales, initial=0.0, delay=0, weight_bits=None)
    snn = convert(variables, arch, method, encoding=Encoding("held", 2.0**-8, 256))
    image = np.array([[86, 128], [0, 40]], np.int16).reshape(1, 2, 2, 1)
    trace = simulate(snn, image, steps=240, record=("conv1", "maxpool1"), counts=True)
    each = np.asarray(unpack(trace.records["conv1"], snn, "conv1"), np.int64)[:, 0, :, :, 0]
    emitted = np.asarray(unpack(trace.records["maxpool1"], snn, "maxpool1"), np.int64).ravel()
    count, largest = each.cumsum(0), 0
    for number in range(240):
        largest += emitted[number]
        assert largest == count[number].max()
        assert emitted[number] in (0, 1)
    assert largest == 120
    assert each.max((1, 2)).sum() > 165  # the largest of every step, which others pass on


def test_rates_are_as_near_to_the_ann_as_theory_says():
    _, variables, images, snn, *_ = case(rate, BEFORE_NORM)
    proof = certify(snn, variables, images, steps=20)
    assert (proof.mismatches, proof.float_mismatches) == (0, 0)
    assert 0 < proof.gap < max(layer.allowed for layer in proof.layers)


def test_nothing_grows_with_the_number_of_steps():
    snn, images = case(negative, BEHIND)[3], case(negative, BEHIND)[2]
    program = jax.make_jaxpr(lambda x: run(snn, x, None, steps=1000, block=1).readout)
    shapes = shapes_in(program(jnp.asarray(images)).jaxpr)
    long = [shape for shape in shapes if 1000 in shape and int(np.prod(shape)) > 1000 * IMAGES * 4]
    assert not long
    assert (IMAGES, 5, 5, 4) in shapes  # the counts' largest


def test_what_nir_cannot_express():
    snn = case(negative, BEHIND)[3]
    with pytest.raises(ValueError, match="maxpool1: NIR has no node that keeps counts"):
        exchange.to_nir(snn, steps=1)
    arch, _, variables, _ = trained(BEHIND, neurons.quantised_relu(1, 4))
    method = methods.scatter_gather(k=1, bound=4, sums_below=2**21)
    with pytest.raises(ValueError, match="conv2: the windows of its max pool overlap"):
        exchange.to_nir(convert(variables, arch, method, encoding=UNITS))
