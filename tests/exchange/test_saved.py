"""Networks in and out of files: bit-identical round trips, and refusals by name."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    HIDDEN_TERNARY,
    build,
    converted,
    firing,
    firing_images,
    firing_network,
    pooled_network,
    tree,
)

from jaxsnn import (
    Net,
    certify,
    convert,
    hidden,
    init_variables,
    load,
    load_params,
    methods,
    neurons,
    parse,
    save,
    simulate,
    with_unit_dropout,
)
from jaxsnn.errors import UserError
from jaxsnn.io.arrays import flatten, load_arrays, save_arrays


@functools.cache
def network():
    _, arch, variables, snn, images = converted(41, dyadic=False, gammas="mixed")
    return arch, variables, snn, images


def same(one, other):
    left, right = jax.tree.leaves(one), jax.tree.leaves(other)
    assert len(left) == len(right) > 0
    return all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(left, right, strict=True)
    )


def test_a_round_trip_is_bit_identical(tmp_path):
    _, variables, snn, images = network()
    save(snn, tmp_path / "snn.npz")
    back = load(tmp_path / "snn.npz")
    assert back.arch == snn.arch
    assert back.encoding == snn.encoding
    assert back.units == snn.units
    assert back.report == snn.report
    assert back.neurons == snn.neurons
    assert same(back, snn)
    # The very same static parts: a loaded network runs the compiled program of the saved one.
    assert jax.tree.structure(back) == jax.tree.structure(snn)
    assert same(
        simulate(back, images, steps=1, counts=True), simulate(snn, images, steps=1, counts=True)
    )
    assert certify(back, variables, images) == certify(snn, variables, images)
    save(back, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "snn.npz").read_bytes()


def test_nested_neurons_and_heads_with_a_bias_come_back(tmp_path):
    layers, arch, variables = build(42, bias=True)
    snn = with_unit_dropout(
        convert(variables, arch, methods.scatter_gather(k=1, bound=2), weights=HIDDEN_TERNARY),
        "conv2",
        0.25,
    )
    save(snn, tmp_path / "noisy.npz")
    back = load(tmp_path / "noisy.npz")
    assert jax.tree.structure(back) == jax.tree.structure(snn)
    assert same(back, snn)
    layers, arch, leaves = firing_network(5, signed=True)
    fires = firing(layers, arch, leaves, neurons.delayed(neurons.integrate_and_fire(True), 2))
    save(fires, tmp_path / "fires.npz")
    back, images = load(tmp_path / "fires.npz"), firing_images(6)
    assert same(simulate(back, images, steps=5), simulate(fires, images, steps=5))


def test_pools_come_back(tmp_path):
    arch = parse("6C3same-MP2-8C3p1-AP2-12", classes=5, input_shape=(12, 12, 1))
    variables = tree(pooled_network(0))
    snn = convert(variables, arch, methods.scatter_gather(k=1, bound=2), weights=HIDDEN_TERNARY)
    save(snn, tmp_path / "pools.npz")
    back = load(tmp_path / "pools.npz")
    assert back.arch == arch
    assert same(back, snn)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "snn.npz"
    save(network()[2], path)
    content = path.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"snn\.npz"):
            load(path)
    path.write_bytes(b"no archive at all")
    with pytest.raises(ValueError, match=r"snn\.npz"):
        load(path)
    np.savez(path, conv1=np.zeros(3))
    with pytest.raises(ValueError, match="holds no converted network"):
        load(path)
    with pytest.raises(ValueError, match="no such file"):
        load(tmp_path / "absent.npz")


class Trap:
    """Unpickling this would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_in_a_file_is_executed(tmp_path):
    trap = tmp_path / "trap"
    np.savez(tmp_path / "bad.npz", x=np.array([Trap(trap)], dtype=object))
    with pytest.raises(ValueError, match=r"bad\.npz"):
        load(tmp_path / "bad.npz")
    assert not trap.exists()


def edited(path, change, meta_change=None):
    """A saved network with its arrays or its description changed."""
    save(network()[2], path)
    arrays, meta = load_arrays(path)
    change(arrays)
    if meta_change:
        meta_change(meta)
    save_arrays(path, arrays, meta)
    return path


def test_missing_extra_and_misshaped_arrays_are_named(tmp_path):
    def change(arrays):
        del arrays["params/conv2/kernel"]
        arrays["params/conv9/kernel"] = np.zeros(3, np.int8)
        arrays["fixed/dense1/thresholds"] = arrays["fixed/dense1/thresholds"][:, :-1]

    path = edited(tmp_path / "snn.npz", change)
    with pytest.raises(ValueError, match="missing params/conv2/kernel") as error:
        load(path)
    assert "unexpected params/conv9/kernel" in str(error.value)
    assert "fixed/dense1/thresholds has shape (4, 11), expected (4, 12)" in str(error.value)


def test_arrays_of_another_kind_are_refused(tmp_path):
    def change(arrays):
        arrays["params/conv2/kernel"] = arrays["params/conv2/kernel"].astype(str)

    with pytest.raises(ValueError, match=r"snn\.npz"):
        load(edited(tmp_path / "snn.npz", change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda meta: meta["neurons"]["default"].update(name="os.system"),
            "unknown neuron 'os.sys",
        ),
        (lambda meta: meta["neurons"]["default"].update(options={"depth": 3}), "levels"),
        (lambda meta: meta.update(format=99), "format 99"),
        (lambda meta: meta.pop("units"), "units"),
        (lambda meta: meta["arch"].update(notation="8C3?"), r"8C3\?"),
        (lambda meta: meta["arch"].update(depth=3), "depth"),
        (lambda meta: meta.update(units=[1, 2]), "holds no converted network"),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(tmp_path, change, message):
    path = edited(tmp_path / "snn.npz", lambda arrays: None, change)
    with pytest.raises(ValueError, match=message):
        load(path)
    assert json.loads(json.dumps(load_arrays(path)[1]))


# ---------------------------------------------------------------- trained weights


def test_weights_from_nested_and_flat_mappings_and_from_a_file(tmp_path):
    arch, variables, snn, images = network()
    flat = {name: np.asarray(leaf, np.float32) for name, leaf in flatten(variables).items()}
    np.savez(tmp_path / "weights.npz", **flat)
    for source in (variables, flat, tmp_path / "weights.npz", str(tmp_path / "weights.npz")):
        loaded = load_params(source, arch)
        assert set(loaded) == {"params", "batch_stats"}
        leaves = flatten(loaded)
        assert set(leaves) == set(flat)
        for name, leaf in leaves.items():
            assert isinstance(leaf, jax.Array)
            assert leaf.dtype == jnp.float32
            np.testing.assert_array_equal(leaf, flat[name])
        trace = simulate(
            convert(loaded, arch, methods.scatter_gather(k=1, bound=2), weights=HIDDEN_TERNARY),
            images,
            steps=1,
        )
        assert same(trace, simulate(snn, images, steps=1))


def test_weights_are_strict_about_names_and_shapes():
    arch, variables, _, _ = network()
    flat = dict(flatten(variables))
    del flat["params/conv1/norm/scale"]
    flat["params/conv1/bias"] = np.zeros(6)
    flat["params/readout/kernel"] = np.zeros((5, 12))
    with pytest.raises(ValueError, match="missing params/conv1/norm/scale") as error:
        load_params(flat, arch)
    assert "unexpected params/conv1/bias" in str(error.value)
    assert "params/readout/kernel has shape (5, 12) instead of (12, 5)" in str(error.value)


def test_weights_of_any_architecture():
    text = "4C3p1-[4C3p1-4C3p1]+norm-E-AP2-7nb"
    arch = parse(text, classes=3, input_shape=(4, 4, 1), head_bias=True)
    variables = init_variables(Net(arch, hidden(neurons.relu())), jax.random.key(0))
    assert same(load_params(variables, arch), {k: variables[k] for k in ("batch_stats", "params")})
    bare = parse("5", classes=2, input_shape=(2, 2, 1), norm=False)
    weights = {
        "params": {
            "dense1": {"kernel": np.ones((4, 5)), "bias": np.ones(5)},
            "readout": {"kernel": np.ones((5, 2))},
        }
    }
    assert load_params(weights, bare)["batch_stats"] == {}


def places(value, path=()):
    """The path of every entry of a description."""
    if path:
        yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in items:
            yield from places(one, (*path, key))


def replaced(meta, path, value):
    """A copy of a description with another value at one place."""
    changed = json.loads(json.dumps(meta))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def test_neurons_inside_neurons_end(tmp_path):
    path = tmp_path / "snn.npz"
    save(network()[2], path)
    arrays, meta = load_arrays(path)
    nested = meta["neurons"]["default"]
    for _ in range(330):
        nested = {"name": "delayed", "options": {"inner": nested, "steps": 1}}
    save_arrays(path, arrays, {**meta, "neurons": {**meta["neurons"], "default": nested}})
    with pytest.raises(UserError, match=r"snn\.npz"):
        load(path)


@pytest.mark.slow
def test_every_entry_of_another_type_is_refused_by_name_or_read(tmp_path):
    """Whatever stands anywhere in the description: a UserError of one line, or a network."""
    path = tmp_path / "snn.npz"
    save(network()[2], path)
    arrays, meta = load_arrays(path)
    messages = []
    every = [*places({**meta, "sites": 0})]  # sites are compared as a whole
    for place in every:
        for value in (None, True, -1, 2.5, "word", [], [[1]], {}, {"name": 1}):
            save_arrays(path, arrays, replaced(meta, place, value))
            try:
                load(path)
            except UserError as error:
                messages.append(str(error))
    assert all("snn.npz" in message for message in messages)
    assert len(messages) > 5 * len(every)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta["units"].update(conv1="1"), "meta.json: units.conv1 is '1'"),
        (lambda meta: meta["encoding"].update(scale="x"), "encoding.scale is 'x', expected float"),
        (lambda meta: meta["arch"].update(classes=2.0), "arch.classes is 2.0, expected int"),
        (lambda meta: meta["report"].append(3), r"report\[\d+\] is 3"),
        (lambda meta: meta["report"][0].update(bound=None), r"report\[0\].bound is NoneType"),
        (lambda meta: meta["neurons"].update(by_role=[["pool"]]), r"neurons.by_role\[0\] is tuple"),
        (
            lambda meta: meta["accumulators"].update(default="int7"),
            "default is 'int7'",
        ),
        (
            lambda meta: meta["weights"].update(default="binary"),
            "unknown weight quantiser",
        ),
    ],
)
def test_the_entry_of_another_type_is_named(tmp_path, change, message):
    path = edited(tmp_path / "snn.npz", lambda arrays: None, change)
    with pytest.raises(UserError, match=message):
        load(path)


@pytest.mark.parametrize("dtype", [np.int64, np.float64, "U3"])
def test_arrays_wider_than_32_bits_are_refused(tmp_path, dtype):
    def change(arrays):
        arrays["params/conv2/kernel"] = arrays["params/conv2/kernel"].astype(dtype)

    with pytest.raises(UserError, match=r"params/conv2/kernel is .*at most 32 bits"):
        load(edited(tmp_path / "snn.npz", change))


def test_a_neuron_that_no_file_can_name_is_refused_before_anything_is_written(tmp_path):
    arch = parse("4C3", input_shape=(6, 6, 1), classes=2)
    net = Net(arch, hidden(neurons.activation(jax.nn.relu6)))
    variables = init_variables(net, jax.random.key(0))
    snn = convert(variables, arch, methods.negative_spikes(k=1), trained=net)
    with pytest.raises(UserError, match="made by hand, which no file can say"):
        save(snn, tmp_path / "snn.npz")
    assert not list(tmp_path.iterdir())
    save(dataclasses.replace(snn, trained=None), tmp_path / "snn.npz")
    assert load(tmp_path / "snn.npz").trained is None
