"""Weights kept small: the same network, from a tenth of the bytes; and the stage that certifies."""

import shutil

import numpy as np
import pytest
from experiment_runs import IMAGES, LIMITS, run

import jaxsnn
from jaxsnn.arrays import load_arrays

SETTINGS = {
    "mnist_lenet": ("k1B2", ("--k", "1", "--B", "2"), "exact: "),
    "mnist_negative_spikes": ("mlp_k1", ("--arch", "mlp", "--k", "1"), "exact after settling: "),
}


def start(stage, script, *flags, out, capsys):
    """What a stage prints on one line; its status must be 0."""
    assert run(stage, *flags, out=out, tiny=LIMITS, script=script) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.fixture(params=SETTINGS, scope="module")
def trained(request, tmp_path_factory):
    """A script, its flags, and the folder that it was trained in."""
    folder = tmp_path_factory.mktemp("runs")
    setting, flags, word = SETTINGS[request.param]
    assert run("train", *flags, out=folder, tiny=LIMITS, script=request.param) == 0
    return request.param, flags, folder / setting, word


def test_kept_weights_give_the_same_network_and_certificate(trained, tmp_path, capsys):
    script, flags, folder, word = trained
    start("keep", script, *flags, out=folder.parent, capsys=capsys)
    kept, whole = folder / "kept.npz", folder / "best.npz"
    assert kept.stat().st_size < whole.stat().st_size / 3

    alone = tmp_path / folder.name  # as below results/: nothing else of the training
    alone.mkdir()
    for name in ("config.json", "kept.npz"):
        shutil.copy(folder / name, alone / name)
    said = start("certify", script, *flags, out=tmp_path, capsys=capsys)
    assert said == start("certify", script, *flags, out=folder.parent, capsys=capsys)
    assert f"certificate: {word}" in said
    assert str(IMAGES) in said
    assert {path.name for path in alone.iterdir()} == {"config.json", "kept.npz"}


def test_kept_kernels_are_whole_numbers_and_are_read_as_what_they_are_worth(trained, capsys):
    script, flags, folder, _ = trained
    start("keep", script, *flags, out=folder.parent, capsys=capsys)
    arrays, meta = load_arrays(folder / "kept.npz")
    masters, _ = load_arrays(folder / "best.npz")
    units = meta["units"]
    assert set(units) == {name for name in arrays if name.endswith("/kernel")}
    inner = [name for name in units if "conv1" not in name and "readout" not in name]
    assert all(arrays[name].dtype == np.int8 for name in inner)
    arch = jaxsnn.zoo.lenet_scatter if script == "mnist_lenet" else jaxsnn.zoo.mlp_negative
    loaded = jaxsnn.load_params(folder / "kept.npz", arch)
    for name, unit in units.items():
        site = name.split("/")[1]
        found = np.asarray(loaded["params"][site]["kernel"])
        np.testing.assert_array_equal(found, np.float32(arrays[name] * np.float64(unit)))
        if script == "mnist_negative_spikes":  # a grid: no weight moves by more than half a unit
            assert np.abs(found - masters[name]).max() <= unit / 2


def test_nothing_to_keep_or_certify_is_said(tmp_path, capsys):
    for stage in ("keep", "certify"):
        assert run(stage, out=tmp_path, tiny=LIMITS) == 2
        assert "holds no trained network" in capsys.readouterr().err
