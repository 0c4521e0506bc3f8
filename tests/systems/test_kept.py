"""Weights kept small: the same network, from a third of the bytes; and the stage that certifies."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from experiment_runs import IMAGES, LIMITS, run

import jaxsnn
from jaxsnn.exchange import saved
from jaxsnn.io.arrays import load_arrays, save_arrays, worth

SETTINGS = {
    "mnist_lenet": ("k1B2", ("--k", "1", "--B", "2"), "exact: "),
    "mnist_negative_spikes": ("mlp_k1", ("--arch", "mlp", "--k", "1"), "exact after settling: "),
}


def start(stage, script, *flags, out, capsys):
    """What a stage prints on one line; its status must be 0."""
    assert run(stage, *flags, out=out, tiny=LIMITS, script=script) == 0
    return " ".join(capsys.readouterr().out.split())


def without_given(said):
    assert re.search(r"as given: \d+ predictions? differ", said)
    return re.sub(r"as given: \d+ predictions? differs?", "", said)


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
    # The network as given has the weights of the file, here whole numbers, there as trained.
    whole_run = start("certify", script, *flags, out=folder.parent, capsys=capsys)
    assert without_given(said) == without_given(whole_run)
    assert f"certificate: {word}" in said
    assert str(IMAGES) in said
    assert {path.name for path in alone.iterdir()} == {"config.json", "kept.npz"}


def test_kept_kernels_are_whole_numbers_near_the_trained_ones(trained, capsys):
    script, flags, folder, _ = trained
    start("keep", script, *flags, out=folder.parent, capsys=capsys)
    with np.load(folder / "kept.npz") as file:
        stored = {name: file[name] for name in file.files}
    masters, worth = (load_arrays(folder / f"{name}.npz")[0] for name in ("best", "kept"))
    kernels = [name for name in masters if name.endswith("/kernel")]
    assert all(stored[name].dtype.kind == "i" for name in kernels)
    inner = [name for name in kernels if "conv1" not in name and "readout" not in name]
    assert all(stored[name].dtype == np.int8 for name in inner)
    assert set(worth) == set(masters)
    for name in set(masters) - set(inner):  # a grid of 7 bits moves a weight by half a unit
        reach = np.abs(masters[name]).max() / 2**7
        assert np.abs(worth[name] - masters[name]).max() <= reach
    if script == "mnist_lenet":
        assert all(set(np.unique(worth[name])) <= {-1, 0, 1} for name in inner)


def test_training_starts_from_kept_weights(trained, tmp_path):
    """Without a learning rate to speak of, nothing but the statistics moves; resuming goes on."""
    script, flags, folder, _ = trained
    assert run("keep", *flags, out=folder.parent, tiny=LIMITS, script=script) == 0
    place = tmp_path / "kept" / folder.name
    place.mkdir(parents=True)
    shutil.copy(folder / "kept.npz", place)
    still = (*flags, "--lr", "1e-30", "--init", str(place), "--epochs", "1")
    out = tmp_path / "more"
    assert run("train", *still, out=out, tiny=LIMITS, script=script) == 0
    ends = place / "kept.npz", out / folder.name / "model.npz"
    before, after = (load_arrays(end)[0] for end in ends)
    assert set(before) == set(after)
    for name in before:
        if name.startswith("params"):
            np.testing.assert_allclose(after[name], before[name], 0, 1e-25, err_msg=name)
    (place / "kept.npz").unlink()  # the checkpoint is what is resumed
    assert run("train", *still, "--resume", out=out, tiny=LIMITS, script=script) == 0
    assert run("train", *flags, "--resume", out=out, tiny=LIMITS, script=script) == 2


def test_weights_that_have_seen_the_held_out_images_are_no_start(trained, tmp_path, capsys):
    script, flags, folder, _ = trained
    start = (*flags, "--init", str(folder), "--validation", "30", "--epochs", "1")
    assert run("train", *start, out=tmp_path, tiny=LIMITS, script=script) == 2
    said = capsys.readouterr().err
    assert "has seen some of the 30 training images that are held out" in said
    assert "--validation 0" in said
    assert not (tmp_path / folder.name).exists()
    start = (*start[:-4], "--validation", "0", "--epochs", "1")
    assert run("train", *start, out=tmp_path, tiny=LIMITS, script=script) == 0


def test_weights_of_another_network_are_no_start(trained, tmp_path, capsys):
    script, flags, folder, _ = trained
    arrays, _ = load_arrays(folder / "best.npz")
    name = next(name for name in arrays if name.endswith("readout/kernel"))
    save_arrays(tmp_path / "wide.npz", arrays | {name: arrays[name][:, :7]})
    start = (*flags, "--init", str(tmp_path / "wide.npz"))
    assert run("train", *start, out=tmp_path, tiny=LIMITS, script=script) == 2
    said = capsys.readouterr().err
    assert name in said
    assert "wide.npz" in said
    assert not (tmp_path / folder.name).exists()


def test_what_would_be_another_network_is_not_kept(trained, tmp_path, capsys, monkeypatch):
    script, flags, folder, _ = trained
    shutil.copytree(folder, tmp_path / folder.name)
    (tmp_path / folder.name / "kept.npz").unlink(missing_ok=True)
    original = saved.whole_weights

    def moved(variables, snn):
        arrays, units = original(variables, snn)
        name = next(name for name in arrays if name.endswith("readout/kernel"))
        return {**arrays, name: arrays[name] + 1}, units

    monkeypatch.setattr(saved, "whole_weights", moved)
    assert run("keep", *flags, out=tmp_path, tiny=LIMITS, script=script) == 2
    assert "would convert into another network; keep the file" in capsys.readouterr().err
    assert not (tmp_path / folder.name / "kept.npz").exists()


@pytest.mark.parametrize("unit", [float("nan"), float("inf"), 0.0, -1.0, None, [1, 2], "x", 1])
def test_units_that_make_no_sense_are_refused(unit, tmp_path):
    path, name = tmp_path / "weights.npz", "params/conv1/kernel"
    with pytest.raises(ValueError, match=r"kernel_units of params/conv1/kernel is"):
        worth({name: np.ones(2, np.int8)}, {name: unit})
    if isinstance(unit, str | int | list):  # what JSON can hold
        save_arrays(path, {name: np.ones(2, np.int8)}, {"kernel_units": {name: unit}})
        with pytest.raises(ValueError, match=rf"{path}.*kernel_units of {name} is"):
            load_arrays(path)


def test_units_of_something_else_are_refused(tmp_path):
    for units in ({"a": 0.5}, {"b": 0.5}, ["a"]):
        save_arrays(tmp_path / "weights.npz", {"a": np.ones(2)}, {"kernel_units": units})
        with pytest.raises(ValueError, match=r"weights.npz.*kernel_units"):
            load_arrays(tmp_path / "weights.npz")
    # A converted network has a description of its own, which is no kernel's.
    path = Path(__file__).parents[2] / "results/mnist_lenet/k1B2/snn.npz"
    with pytest.raises(ValueError, match="unexpected"):
        jaxsnn.load_params(path, jaxsnn.arch.zoo.lenet_scatter)


def test_nothing_to_keep_or_certify_is_said(tmp_path, capsys):
    for stage in ("keep", "certify"):
        assert run(stage, out=tmp_path, tiny=LIMITS) == 2
        assert "holds no trained network" in capsys.readouterr().err
        assert run(stage, "--precision", "fp32", out=tmp_path, tiny=LIMITS) == 2
        assert "--precision fp32: a network of full precision" in capsys.readouterr().err
