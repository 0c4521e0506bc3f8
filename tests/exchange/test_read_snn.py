"""The documented format of snn.npz: readers of NumPy alone compute what the library does."""

import ast
import dataclasses
import functools
import importlib.util
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from clipped_networks import network as clipped_network
from helpers import converted
from nir_networks import FRAMES, LEAKY, NETWORKS, dyadic, plain_rate_coded, scattered

from jaxsnn import (
    FanInUniform,
    Net,
    convert,
    hidden,
    init_variables,
    load,
    methods,
    neurons,
    parse,
    plan,
    quantised_weights,
    save,
    simulate,
    unpack,
)
from jaxsnn.conversion.spiking import Folded
from jaxsnn.errors import UserError
from jaxsnn.exchange.site_records import SiteRecord
from jaxsnn.inputs import Encoding
from jaxsnn.io.arrays import load_arrays, save_arrays

DOCS = Path(__file__).resolve().parents[2] / "docs"


KEPT = DOCS.parent / "results"


def reader(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


short, every = reader("read_snn"), reader("read_every_snn")


def tracked(**settings):
    *_, snn, images = converted(
        3, images=6, method=methods.negative_spikes, gammas="mixed", settings=settings
    )
    return snn, images, 9


def residual(text, **options):
    """Blocks with a projection, and with strides between channels of zeros."""
    arch = parse(text, input_shape=(6, 6, 2), classes=4, head_bias=True)
    net = Net(arch, hidden(neurons.clipped_relu(2)), quantised_weights(2))
    variables = init_variables(net.clone(initialiser=FanInUniform()), jax.random.key(1))
    images = np.random.default_rng(2).integers(-200, 201, (5, 6, 6, 2)).astype(np.int16)
    method = methods.signed_if(bits=2, **options)
    return convert(variables, arch, method, encoding=Encoding("held", 1 / 64, 200)), images, 3


def max_pooled(method, text="3C3p1-3C3p1-MP3s2p1n-6nb"):
    """A pool that overlaps, is padded and stands before a norm of both signs."""
    arch = parse(text, input_shape=(6, 6, 2), classes=4, head_bias=True)
    net = Net(arch, hidden(neurons.quantised_relu(1, 2)), initialiser=FanInUniform())
    variables = init_variables(net, jax.random.key(1))
    scale = variables["params"]["conv2"]["norm"]["scale"].at[1].set(-1)
    variables["params"]["conv2"]["norm"]["scale"] = scale
    images = np.random.default_rng(2).integers(-200, 201, (5, 6, 6, 2)).astype(np.int16)
    presentation = "onset" if method is methods.negative_spikes else "held"
    encoding = Encoding(presentation, 1 / 64, 200)
    return convert(variables, arch, method(k=1, bound=2), encoding=encoding), images, 9


def directly(reset, readout=None):
    return dyadic(LEAKY, neurons.leaky(0.5, reset=reset), readout, seed=1), FRAMES, 8


def clipped(steps, **options):
    network = clipped_network(6, "4C3p1-10nb", bits=2, gammas="mixed")
    return network.snn(**options), network.images, steps


def kept(path):
    """A trained network, and noise in the range of its pixels."""
    shape = (4, 28, 28, 1)
    noise = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    return load(KEPT / path / "snn.npz"), noise // np.array([1, 2, 4, 8])[:, None, None, None], 4


def rate():
    """Scales that are powers of two: every number is a multiple of one, and exact in floats."""
    return (*plain_rate_coded((2.0, 4.0, 16.0, 32.0), delay=1), 12)


CASES = {
    "pools": lambda: (*scattered(**NETWORKS[3]), 1),
    "average pool": lambda: (*scattered("6C3s2same-AP2-8", pool="avg"), 1),
    "side exit, head with a bias": lambda: (*scattered(**NETWORKS[5]), 1),
    "windows that are no squares": lambda: (*scattered(**NETWORKS[6]), 1),
    "tracking": tracked,
    "tracking, several spikes": lambda: tracked(per_step=3, rising=True),
    "projection": lambda: residual("3C3p1-[3C3p1-4C3s2p1]+norm-6nb"),
    "padded shortcut": lambda: residual("3C3p1-[3C3p1-6C3s2p1]+padded-6nb"),
    "padded shortcut of one channel": lambda: residual("1C3p1-[3C3p1-3C3p1]+padded-6nb"),
    "settling": lambda: clipped(9, settling=True),
    "spikes taken back": lambda: clipped(3),
    "no spike taken back": lambda: clipped(3, signed=False),
    "kept, scatter and gather": lambda: kept("mnist_lenet/k1B2"),
    "kept, negative spikes": lambda: kept("mnist_negative_spikes/lenet_k1"),
    "delayed reset": lambda: directly("delayed"),
    "subtraction, potential read": lambda: directly(
        "subtract", neurons.leaky(0.5, reset="none", emit="potential")
    ),
    "reset to zero": lambda: directly("zero"),
    "rate coded, delayed": rate,
    "largest counts": lambda: max_pooled(methods.negative_spikes),
    "largest counts of a step": lambda: max_pooled(methods.scatter_gather),
    "largest currents": lambda: max_pooled(methods.scatter_gather, "3C3p1-3C3p1-MP3s2p1-6nb"),
}
BEYOND = {  # what the reader of 40 lines refuses
    "pools": "conv1 is for read_every_snn.py",
    "tracking, several spikes": "for read_every_snn.py: .*'per_step': 3",
    "padded shortcut": "same shape",
    "padded shortcut of one channel": "same shape",
    "delayed reset": "broadcast",  # an image for each step
    "subtraction, potential read": "broadcast",
    "reset to zero": "broadcast",
    "rate coded, delayed": "for read_every_snn.py: .*delayed",
    "largest counts": "for read_every_snn.py: .*running_maximum",
    "largest counts of a step": "for read_every_snn.py: .*maximum",
    "largest currents": "conv2 is for read_every_snn.py",
}


@functools.cache
def network(case):
    """A network, what it is shown, and for how many steps."""
    return CASES[case]()


@functools.cache
def expected(case):
    """Spikes of every neuron and sums of every head in every step, by the library."""
    snn, images, steps = network(case)
    names = [site.name for site in plan(snn.arch) if snn.neurons.at(site).spikes]
    trace = simulate(snn, images, steps=steps, record=names)
    spikes = {name: np.asarray(unpack(trace.records[name], snn, name)) for name in names}
    heads = [site.name for site in plan(snn.arch) if site.role in ("exit", "readout")]
    return spikes, dict(zip(heads, map(np.asarray, trace.readouts), strict=True))


def compare(outs, case):
    spikes, sums = expected(case)
    for name, emitted in spikes.items():
        np.testing.assert_array_equal(outs[name], emitted, err_msg=name)
        assert emitted.any(), name
    for name, readout in sums.items():
        np.testing.assert_array_equal(outs[name].cumsum(0), readout, err_msg=name)
        assert len(np.unique(readout)) > 2


@pytest.mark.parametrize("case", CASES)
def test_the_reader_of_every_neuron_gives_every_spike(case, tmp_path):
    snn, images, steps = network(case)
    save(snn, tmp_path / "snn.npz")
    compare(every.simulate(*every.read(tmp_path / "snn.npz"), images, steps), case)


@pytest.mark.parametrize("case", sorted(set(CASES) - set(BEYOND)))
def test_the_reader_of_40_lines_gives_every_spike(case, tmp_path):
    snn, images, steps = network(case)
    save(snn, tmp_path / "snn.npz")
    compare(short.simulate(tmp_path / "snn.npz", images, steps), case)


@pytest.mark.parametrize("case", BEYOND)
def test_the_reader_of_40_lines_refuses_other_networks(case, tmp_path):
    snn, images, steps = network(case)
    save(snn, tmp_path / "snn.npz")
    with pytest.raises(ValueError, match=BEYOND[case]):
        short.simulate(tmp_path / "snn.npz", images, steps)


def test_forty_lines_of_code():
    """Without blank lines and docstrings."""
    text = (DOCS / "read_snn.py").read_text(encoding="utf-8")
    tree = ast.parse(text)
    blocks = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]
    assert all(ast.get_docstring(block) for block in blocks)
    lines = text.splitlines()
    for docstring in (block.body[0] for block in blocks):
        lines[docstring.lineno - 1 : docstring.end_lineno] = [""] * (
            docstring.end_lineno - docstring.lineno + 1
        )
    assert sum(bool(line) for line in lines) == 40


def test_scaled_input_of_a_trained_network(tmp_path):
    """Whole units are worth the encoding's scale."""
    snn, frames, steps = network("delayed reset")
    snn = dataclasses.replace(snn, encoding=Encoding("frames", 0.5))
    save(snn, tmp_path / "snn.npz")
    whole = frames.astype(np.uint8)
    outs = every.simulate(*every.read(tmp_path / "snn.npz"), whole, steps)
    expected = np.asarray(simulate(snn, whole, steps=steps).readout)
    np.testing.assert_array_equal(outs["readout"].cumsum(0), expected)


# ---------------------------------------------------------------- the document


TEXT = (DOCS / "snn_format.md").read_text(encoding="utf-8")


def listed(name):
    """First column of a table."""
    table = TEXT.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_every_entry_is_described(tmp_path):
    snn, *_ = network("tracking")
    save(snn, tmp_path / "snn.npz")
    _, meta = load_arrays(tmp_path / "snn.npz")
    assert sorted(listed("description")) == sorted(meta)
    assert listed("sites") == list(meta["sites"][0]) == list(SiteRecord.__annotations__)
    assert listed("encoding") == list(meta["encoding"])
    assert sorted(listed("report")) == sorted(meta["report"][0])
    fields = {field.name for field in dataclasses.fields(Folded)} - {"form", "quantiser"}
    assert set(listed("report")) == fields | {"kernel"}


def test_every_leaf_is_described_with_its_dtype(tmp_path):
    table = TEXT.split("<!-- leaves -->")[1].split("<!-- /leaves -->")[0]
    rows = [row.split("|")[1:3] for row in table.strip().splitlines()[2:]]
    dtypes = {name.strip(" `"): set(re.findall(r"\w+\d", dtype)) for name, dtype in rows}
    seen = set()
    for case in CASES:
        save(network(case)[0], tmp_path / "snn.npz")
        for name, array in load_arrays(tmp_path / "snn.npz")[0].items():
            leaf = name.split("/")[-1]
            assert str(array.dtype) in dtypes[leaf], name
            seen.add(leaf)
    assert seen == set(dtypes) - {"drop_ratio"}


def test_the_example_of_the_document_runs(tmp_path, monkeypatch):
    snn, images, _ = network("tracking")
    save(snn, tmp_path / "snn.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(DOCS))
    code, _ = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)  # the other: test_integers.py
    names = {"images": images}
    exec(code, names)  # as a reader runs it
    np.testing.assert_array_equal(names["sums"], simulate(snn, images, steps=4).readout)


def test_a_file_whose_sites_contradict_its_notation_is_refused(tmp_path):
    snn, *_ = network("tracking")
    save(snn, tmp_path / "snn.npz")
    arrays, meta = load_arrays(tmp_path / "snn.npz")
    assert load(tmp_path / "snn.npz").arch == snn.arch
    meta["sites"][0]["strides"] = [7, 7]
    save_arrays(tmp_path / "other.npz", arrays, meta)
    with pytest.raises(UserError, match="sites are not those of its arch and neurons"):
        load(tmp_path / "other.npz")
    del meta["sites"]  # as files were before
    save_arrays(tmp_path / "older.npz", arrays, json.loads(json.dumps(meta)))
    assert load(tmp_path / "older.npz").report == snn.report


def test_float_thresholds_are_for_the_other_reader(tmp_path):
    snn, images, steps = tracked(float_weights=True)
    save(snn, tmp_path / "snn.npz")
    with pytest.raises(ValueError, match=r"is for read_every_snn.py"):
        short.simulate(tmp_path / "snn.npz", images, steps)
