"""Plain integers: raw files that say what they are, and vectors that find a wrong number."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from clipped_networks import network as clipped_network
from helpers import converted
from nir_networks import FRAMES, LEAKY, NETWORKS, dyadic, plain_rate_coded, scattered
from test_read_snn import max_pooled

from jaxsnn import methods, neurons, simulate, unpack, with_unit_dropout
from jaxsnn.errors import UserError
from jaxsnn.exchange import to_integers

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "snn_format.md").read_text(encoding="utf-8")


def tracked():
    *_, snn, images = converted(3, images=6, method=methods.negative_spikes, gammas="mixed")
    return snn, images, 9


def signed():
    net = clipped_network(6, "4C3p1-10nb", bits=2, gammas="mixed")
    return net.snn(settling=True), net.images, 5


def framed():
    """Threshold units that are shown an image for each step."""
    snn, images = scattered(**NETWORKS[3])
    frames = dataclasses.replace(snn.encoding, presentation="frames")
    return dataclasses.replace(snn, encoding=frames), np.stack([images, images[::-1]]), 2


CASES = {
    "scatter": lambda: (*scattered(**NETWORKS[5]), 1),
    "tracking": tracked,
    "signed": signed,
    "frames": framed,
    "largest counts": lambda: max_pooled(methods.negative_spikes),
}


def read(folder, record):
    path = folder / record["file"]
    assert path.stat().st_size == np.prod(record["shape"]) * np.dtype(record["dtype"]).itemsize
    assert len(record["axes"]) == len(record["shape"])
    little = np.dtype(record["dtype"]).newbyteorder("<")
    return np.fromfile(path, little).reshape(record["shape"])


@pytest.mark.parametrize("case", CASES)
def test_files_hold_the_network_and_its_vectors(case, tmp_path):
    snn, images, steps = CASES[case]()
    path = to_integers(snn, images, steps, tmp_path / "new")
    assert path == tmp_path / "new" / "network.json"
    description = json.loads(path.read_text())
    for site, leaves in description["arrays"].items():
        for leaf, record in leaves.items():
            collection = "fixed" if leaf in snn.variables["fixed"].get(site, {}) else "params"
            expected = snn.variables[collection][site][leaf]
            np.testing.assert_array_equal(read(path.parent, record), expected)
            assert record["dtype"] in ("int8", "int16", "int32")
    vectors = description["vectors"]
    shown = read(path.parent, vectors["input"]["input"])
    np.testing.assert_array_equal(shown, images)
    names = list(vectors["spikes"])
    trace = simulate(snn, images, steps=steps, record=names)
    for name in names:
        expected = np.asarray(unpack(trace.records[name], snn, name))
        np.testing.assert_array_equal(read(path.parent, vectors["spikes"][name]), expected)
        assert expected.any()
    for record, readout in zip(vectors["sums"].values(), trace.readouts, strict=True):
        np.testing.assert_array_equal(read(path.parent, record), readout)


def followed(folder, monkeypatch):
    """The document's example, beside whose ``folder`` it is run."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(DOCS))
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "json.loads" in c]
    names = {}
    exec(code, names)  # as a reader runs it
    return names["wrong"]


def test_the_documents_reader_finds_no_difference_but_a_wrong_threshold(tmp_path, monkeypatch):
    snn, images, steps = tracked()
    path = to_integers(snn, images, steps, tmp_path / "folder")
    wrong = followed(tmp_path, monkeypatch)
    assert set(wrong) == {"conv1", "conv2", "dense1"}
    assert not any(wrong.values())
    record = json.loads(path.read_text())["arrays"]["dense1"]["first"]
    moved = read(path.parent, record) + 1
    moved.astype(record["dtype"]).tofile(path.parent / record["file"])
    wrong = followed(tmp_path, monkeypatch)
    assert wrong["dense1"] > 0
    assert not wrong["conv2"]


def test_every_entry_is_described(tmp_path):
    snn, images, steps = tracked()
    description = json.loads(to_integers(snn, images, steps, tmp_path).read_text())
    table = TEXT.split("<!-- integers -->")[1].split("<!-- /integers -->")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted([*listed, "sites", "encoding", "units", "report"]) == sorted(description)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: (*plain_rate_coded((2.0, 6.0, 18.0, 34.0)), 3), "is float32.*scatter_gather"),
        (
            lambda: (dyadic(LEAKY, neurons.leaky(0.5), None, seed=1), FRAMES, 8),
            "conv1/.* is float32",
        ),
        (
            lambda: (
                with_unit_dropout(scattered(**NETWORKS[0])[0], "conv1", 0.5),
                np.zeros((1, 9, 9, 2), np.uint8), 1,
            ),
            "conv1 loses spikes at random",
        ),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_refused(build, message, tmp_path):
    with pytest.raises(UserError, match=message):
        to_integers(*build(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_something_is_refused(tmp_path):
    snn, images = scattered(**NETWORKS[0])
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="is not empty"):
        to_integers(snn, images, 1, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
