"""Methods are typed objects; a bound on sums is kept, whatever grid that takes."""

import dataclasses
import re

import numpy as np
import pytest
from helpers import FLOAT, build, pixels

from jaxsnn import Encoding, UserError, certify, convert, load, methods, save, simulate
from jaxsnn.conversion.kernels import KernelForm
from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.weight_quantisers import ternary

SCALES = {"conv1": 2.0, "conv2": 2.0, "dense1": 2.0, "readout": 2.0}
METHODS = [
    methods.scatter_gather(k=1, bound=2),
    methods.negative_spikes(k=1),
    methods.signed_if(bits=3),
    methods.rate(scales=SCALES),
]
named = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


@named
def test_a_method_is_frozen_hashable_and_describes_each_of_its_options(method):
    fields = dataclasses.fields(method)
    again = type(method)(**{field.name: getattr(method, field.name) for field in fields})
    assert again == method
    assert hash(again) == hash(method)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.k = 2
    doc = type(method).__doc__
    assert all(re.search(rf"^ +{field.name}: ", doc, re.MULTILINE) for field in fields)
    assert "Source: " in doc
    assert getattr(methods, method.name) is type(method)


def test_options_are_names_and_no_others():
    for wrong in ({"k": 1, "bound": 2, "bits": 4}, {"k": 1}):
        with pytest.raises(TypeError):
            methods.scatter_gather(**wrong)
    with pytest.raises(TypeError):
        methods.scatter_gather(1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bound": None}, "bound=None: give a whole number$"),
        ({"bound": 1.5}, "bound=1.5: give a whole number$"),
        ({"bound": 0}, "bound=0: the largest activation"),
        ({"k": -1}, "k=-1: an activation has 0 to 12 fractional bits"),
        ({"k": 12}, r"k=12, bound=2: more levels, 2\^k \* bound, than the 4096"),
        ({"k": 99}, "k=99: an activation has 0 to 12 fractional bits"),
        ({"bound": 10**9}, "bound=1000000000: more levels"),
        ({"k": [1]}, r"k=\[1\]: give a whole number"),
        ({"sums_below": 1}, "sums_below=1: give a whole number of 2"),
        ({"sums_below": 2**31 + 1}, "sums_below=2147483649"),
    ],
)
def test_impossible_options_are_refused_before_any_conversion(options, message):
    with pytest.raises(UserError, match=message):
        methods.scatter_gather(**{"k": 1, "bound": 2} | options)


def test_scales_are_frozen_and_plain():
    scales = {"conv1": np.float32(2), "readout": 3}
    method = methods.rate(scales=scales)
    scales["conv1"] = 5.0
    assert dict(method.scales) == {"conv1": 2.0, "readout": 3.0}
    assert {type(value) for value in method.scales.values()} == {float}
    assert hash(method) == hash(methods.rate(scales={"readout": 3, "conv1": 2}))
    with pytest.raises(UserError, match="scales is a float; give a number for every site"):
        methods.rate(scales=2.0)
    with pytest.raises(UserError, match=r"scales\['conv1'\]='2': give a number"):
        methods.rate(scales={"conv1": "2"})


NUMPY = [
    (methods.scatter_gather, {"k": np.int64(2), "bound": np.int32(3)}, "onset"),
    (methods.scatter_gather, {"k": 2.0, "bound": np.float32(3)}, "onset"),
    (methods.negative_spikes, {"k": np.arange(2)[1], "weight_bits": np.uint8(6)}, "onset"),
    (methods.rate, {"scales": {s: np.float32(v) for s, v in SCALES.items()}}, "held"),
]


@pytest.mark.parametrize(("method", "options", "presentation"), NUMPY)
def test_networks_of_numpy_scalars_are_saved_and_so_are_plain_ones_after_them(
    method, options, presentation, tmp_path
):
    _, arch, variables = build(5, ternary=False, dyadic=False)
    encoding = Encoding(presentation, np.float32(1 / 256))
    plain = {name: getattr(method(**options), name) for name in options}
    for number, one in enumerate((options, plain)):
        snn = convert(variables, arch, method(**one), encoding=encoding)
        save(snn, tmp_path / f"{number}.npz")
        back = load(tmp_path / f"{number}.npz")
        assert (back.neurons, back.ann, back.report) == (snn.neurons, snn.ann, snn.report)
    assert method(**options) == method(**plain)


# ---------------------------------------------------------------- sums below a bound


def network(seed=3):
    return build(seed, ternary=False, dyadic=False, gammas="mixed", bias=True)


def reach(kernel, bias, highest):
    """Largest |sum| of whole weights and a whole bias, input counts up to ``highest``."""
    flat = np.abs(np.asarray(kernel, np.int64)).reshape(-1, kernel.shape[-1])
    return int((flat.sum(0) * highest).max() + np.abs(np.asarray(bias, np.int64)).max(initial=0))


@pytest.mark.parametrize("bound", [2**12, 2**21, 3_000_000, 2**24, 2**30])
def test_every_layer_is_on_the_finest_grid_whose_sums_stay_below_the_bound(bound):
    _, arch, variables = network()
    method = methods.scatter_gather(k=1, bound=2, sums_below=bound)
    snn = convert(variables, arch, method, weights=FLOAT)
    sources = {"conv1": "input", "conv2": "conv1", "dense1": "conv2", "readout": "dense1"}
    for record in snn.report:
        tree, master = (v["params"][record.site] for v in (snn.variables, variables))
        highest = 255 if record.site == "conv1" else 4
        head = record.site == "readout"
        bias = tree["bias"] if head else np.zeros(1)  # elsewhere it is in the thresholds
        assert record.form is KernelForm.GRID
        assert reach(tree["kernel"], bias, highest) < bound
        finer, unit = 2.0 ** (record.exponent + 1), snn.unit(sources[record.site])
        kernel = np.round(np.asarray(master["kernel"], np.float64) * finer)
        bias = np.round(np.asarray(master["bias"], np.float64) * finer / unit) if head else bias
        assert reach(kernel, bias, highest) >= bound or not np.any(kernel % 2)
    images = pixels(np.random.default_rng(1), 40, arch.input_shape)
    proof = certify(snn, variables, images)
    assert (proof.equality, proof.mismatches, proof.predictions) == ("exact", 0, 0)
    assert proof.origins_are_ties


def test_a_coarser_grid_is_another_network_and_a_finer_one_nearer_to_the_weights():
    _, arch, variables = network(4)
    images = pixels(np.random.default_rng(2), 60, arch.input_shape)
    errors, counts = [], []
    for bound in (2**9, 2**24, 2**30):
        method = methods.scatter_gather(k=2, bound=2, sums_below=bound)
        snn = convert(variables, arch, method, weights=FLOAT)
        errors.append(max(record.weight_error for record in snn.report))
        counts.append(np.asarray(simulate(snn, images, steps=1, counts=True).counts["dense1"]))
    assert errors[0] > 1000 * errors[1] > 10_000 * errors[2]
    assert (counts[0] != counts[1]).any()


def test_a_heads_bias_counts_in_its_sums():
    _, arch, variables = network()
    variables["params"]["readout"]["bias"][:] = 1000.0
    method = methods.scatter_gather(k=1, bound=2, sums_below=2**21)
    snn = convert(variables, arch, method, weights=FLOAT)
    tree = snn.variables["params"]["readout"]
    assert 2**20 - 2**16 < reach(tree["kernel"], tree["bias"], 4) < 2**21
    assert int(tree["bias"][0]) * snn.unit("readout") == pytest.approx(1000, rel=1e-6)
    variables["params"]["readout"]["bias"][:] = 1e12
    with pytest.raises(UserError, match=r"readout: on a grid whose sums .* every weight is 0"):
        convert(variables, arch, method, weights=FLOAT)


def test_whole_weights_beyond_the_bound_are_refused_by_name():
    _, arch, variables = build(6, dyadic=False)
    method = methods.scatter_gather(k=3, bound=2, sums_below=2**6)
    with pytest.raises(UserError, match=r"conv1: the sums of its whole weights can reach \d+"):
        convert(variables, arch, method, weights=SiteMap(ternary()))
    with pytest.raises(UserError, match=r"conv1: on a grid whose sums stay below sums_below=64"):
        convert(variables, arch, method, weights=FLOAT)
