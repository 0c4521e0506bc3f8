"""The Fast-SNN experiment as its user meets it: widths, files, resumption, refusals.

A small network stands in for AlexNet, whose 220 million multiplications an image are for the check
on real data.
"""

import itertools
import json
import shutil

import numpy as np
import pytest
from experiment_runs import run as run_script

from jaxsnn.arch.plan import parse
from jaxsnn.neurons.integrate_and_fire import NEGATIVE_THRESHOLD
from jaxsnn.report.results import read_results
from jaxsnn.systems.config_file import from_json
from jaxsnn.systems.fast_snn import records, system
from jaxsnn.systems.settings.fast_snn import FastSnn as Settings
from jaxsnn.training import finetune

pytestmark = pytest.mark.slow

SMALL = parse("4C3s2p1-8C3s2p1-32nb", input_shape=(32, 32, 1), head_bias=True)
LIMITS = (
    *("--dataset", "digits", "--epochs", "3", "--limit-train", "160", "--limit-test", "40"),
    *("--batch-size", "16", "--certify", "10", "--lr-step", "2"),
)
WIDTHS = ("alex_32bit", "alex_4bit", "alex_3bit")


@pytest.fixture(scope="module", autouse=True)
def small_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(system.ARCHITECTURES, "alex", SMALL)
        yield


def run(*arguments, out):
    return run_script(*arguments, out=out, tiny=LIMITS, script="fast_snn")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder in which all widths down to 3 bits have run; those of 2 do on real digits."""
    folder = tmp_path_factory.mktemp("runs")
    assert run("progressive", "--bit", "3", out=folder) == 0
    return folder


@pytest.fixture
def copy(out, tmp_path):
    return shutil.copytree(out, tmp_path / "runs")


def arrays(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files if "/" in name}


def contents(folder):
    names = ("model.npz", "results.json", "finetune.json", "finetuned.npz", "snn.npz")
    files = [folder / width / name for width in WIDTHS for name in names]
    return {str(file): file.read_bytes() for file in files if file.is_file()}


def test_every_width_leaves_its_files(out):
    for width in WIDTHS:
        names = {"config.json", "metrics.jsonl", "model.npz", "best.npz", "results.json"}
        if width != "alex_32bit":
            names |= {"snn.npz", "gaps.json", "certificates.json", "finetune.json"}
            names |= {"finetuned.npz", "snn_finetuned.npz"}
        assert names <= {path.name for path in (out / width).iterdir()}, width
        assert not (out / width / records.UNFINISHED).exists()


def test_each_width_starts_from_the_best_weights_of_the_last(out):
    for before, width in itertools.pairwise(WIDTHS):
        config, _ = from_json(Settings, (out / width / "config.json").read_text())
        assert config.init == str(out / before)
        assert config.learning_rate == 0.04
    decays = [
        from_json(Settings, (out / width / "config.json").read_text())[0].weight_decay
        for width in WIDTHS
    ]
    assert [*decays, Settings(dataset="digits", bit=2).weight_decay] == [5e-4, 1e-4, 1e-4, 3e-5]


def test_training_starts_at_the_weights_of_init(out, tmp_path):
    """Without a learning rate to speak of, nothing but the statistics moves."""
    flags = ("--init", str(out / "alex_4bit"), "--lr", "1e-30", "--wd", "0", "--epochs", "1")
    assert run("train", "--bit", "3", *flags, out=tmp_path) == 0
    start = arrays(out / "alex_4bit/best.npz")
    end = arrays(tmp_path / "alex_3bit/model.npz")
    assert start.keys() == end.keys()
    for name in start:
        if name.startswith("params"):
            np.testing.assert_array_equal(start[name], end[name], err_msg=name)


def test_the_fast_recipe_trains_from_whitening_filters_and_keeps_norm_scales(out, tmp_path):
    fast = ("--recipe", "fast", "--micro-batch", "8", "--final-statistics", "32")
    assert run("train", "--bit", "4", *fast, "--epochs", "1", out=tmp_path) == 0
    config, _ = from_json(Settings, (tmp_path / "alex_4bit/config.json").read_text())
    assert (config.recipe, config.optimiser, config.flip) == ("fast", "muon", "alternating")
    model = arrays(tmp_path / "alex_4bit/model.npz")
    scales = [leaf for name, leaf in model.items() if name.endswith("norm/scale")]
    assert len(scales) == 3
    assert all((leaf == 1).all() for leaf in scales)
    assert run("train", "--bit", "4", "--resume", "--recipe", "paper", out=tmp_path) == 2


def test_clips_start_at_their_defaults_behind_full_precision(out, tmp_path):
    flags = ("--init", str(out / "alex_32bit/best.npz"), "--lr", "1e-30", "--wd", "0")
    assert run("train", "--bit", "4", *flags, out=tmp_path) == 0
    end = arrays(tmp_path / "alex_4bit/model.npz")
    clips = {name: float(leaf) for name, leaf in end.items() if name.endswith("/clip")}
    weights = {name: float(leaf) for name, leaf in end.items() if name.endswith("/kernel_clip")}
    assert set(clips.values()) == {8.0}
    assert len(clips) == 3  # every layer with neurons
    assert set(weights.values()) == {3.0}
    assert len(weights) == 2  # all but the first and the last kernel


def kinds(results):
    """The variants of a result, each of which is there once."""
    every = [one.kind for one in results.variants]
    assert len(set(every)) == len(every)
    return set(every)


@pytest.mark.parametrize(("width", "steps"), [("alex_4bit", 15), ("alex_3bit", 7)])
def test_results_hold_the_variants_side_by_side(out, width, steps):
    results = read_results(out / width / "results.json")
    assert results.equality == "approximate"
    assert results.steps == steps == len(results.accuracy_per_step)
    assert results.test_examples == 40
    assert (results.settings.network, results.settings.bits) == ("alex", int(width[5]))
    assert results.training.recipe == "paper"
    assert results.training.parts["weight_decay"] == 1e-4
    assert results.conversion == {"negative_threshold": NEGATIVE_THRESHOLD}
    assert kinds(results) == {"signed", "unsigned", "settling", "fine-tuned"}
    for name in ("signed", "unsigned", "fine-tuned"):
        assert results.find(name).steps == steps
    assert results.find("settling").steps >= steps
    # At rest every count is the quantised network's, so that is its accuracy (10 of 40 certified).
    assert results.find("settling").accuracy == pytest.approx(results.ann_accuracy, abs=0.03)
    assert results.find("signed").accuracy == results.snn_accuracy
    assert results.layers[0]["mismatches"] == 0  # the first layer is exact


@pytest.mark.parametrize("width", WIDTHS[1:])
def test_certificates_say_what_each_variant_is(out, width):
    record = json.loads((out / width / "certificates.json").read_text())
    assert set(record) == {"signed", "unsigned", "settling"}
    for name in ("signed", "unsigned"):
        assert record[name]["equality"] == "approximate"
        assert record[name]["mismatches"]["conv1"] == 0  # the first layer is exact
    assert record["settling"]["equality"] == "exact after settling"
    assert set(record["settling"]["mismatches"].values()) == {0}
    assert record["settling"]["images"] == 10


def test_full_precision_is_reported_and_not_converted(out, capsys):
    results = read_results(out / "alex_32bit/results.json")
    assert results.snn_accuracy is None
    assert results.float_ann_accuracy is not None
    for stage in ("snn", "finetune"):
        assert run(stage, "--bit", "32", out=out) == 2
        assert "convert" in capsys.readouterr().err
    assert run("all", "--bit", "32", "--resume", out=out) == 0  # ends with what there is


def test_fine_tuning_is_written_with_before_and_after(out):
    record = json.loads((out / "alex_3bit/finetune.json").read_text())
    results = read_results(out / "alex_3bit/results.json")
    assert record["test_accuracy_before"] == results.find("signed").accuracy
    assert record["test_accuracy_after"] == results.find("fine-tuned").accuracy
    assert [layer["site"] for layer in record["layers"]] == ["conv2", "dense1"]
    trained, tuned = arrays(out / "alex_3bit/best.npz"), arrays(out / "alex_3bit/finetuned.npz")
    kept = [layer["site"] for layer in record["layers"] if layer["kept"]]
    for name in trained:
        moved = not np.array_equal(trained[name], tuned[name])
        assert not moved or name.split("/")[1] in kept, name


def test_resuming_a_finished_run_changes_nothing(copy):
    before = contents(copy)
    assert run("progressive", "--bit", "3", "--resume", out=copy) == 0
    assert contents(copy) == before


def test_progressive_resumes_where_it_was_stopped(copy, out, capsys):
    """The last width has been trained, and its fine-tuning stopped behind its first layer."""
    last = copy / "alex_3bit"
    for name in ("results.json", "finetune.json", "finetuned.npz", "snn_finetuned.npz"):
        (last / name).unlink()
    assert run("progressive", "--bit", "3", "--resume", out=copy) == 0
    capsys.readouterr()
    same = ("results.json", "finetuned.npz", "finetune.json")
    for name in same[1:]:
        assert (last / name).read_bytes() == (out / "alex_3bit" / name).read_bytes()


def test_a_run_is_not_trained_over(copy, capsys):
    assert run("progressive", "--bit", "3", out=copy) == 2
    assert "continue it with --resume" in capsys.readouterr().err


def test_fine_tuning_goes_on_behind_the_layers_that_are_done(copy, out, monkeypatch):
    folder, done = copy / "alex_3bit", []
    whole = finetune.finetune_layer

    def stopped(tuner, tuned, name, images, labels):
        done.append(name)
        if len(done) == 2:
            raise KeyboardInterrupt
        return whole(tuner, tuned, name, images, labels)

    monkeypatch.setattr(finetune, "finetune_layer", stopped)
    assert run("finetune", "--bit", "3", out=copy) == 130
    assert (folder / records.UNFINISHED).is_file()
    assert run("finetune", "--bit", "3", "--resume", out=copy) == 0
    assert done == ["conv2", "dense1", "dense1"]
    expected = arrays(out / "alex_3bit/finetuned.npz")
    actual = arrays(folder / "finetuned.npz")
    for name, leaf in expected.items():
        np.testing.assert_array_equal(actual[name], leaf, err_msg=name)
    assert not (folder / records.UNFINISHED).exists()


def test_unsigned_alone_keeps_what_the_signed_run_found(copy):
    before = read_results(copy / "alex_3bit/results.json")
    assert run("snn", "--bit", "3", "-e", "-u", out=copy) == 0
    after = read_results(copy / "alex_3bit/results.json")
    assert kinds(after) == kinds(before)
    assert after.snn_accuracy == before.snn_accuracy
    assert after.find("unsigned").accuracy == before.find("unsigned").accuracy


def test_the_original_switch_for_evaluation(copy, capsys):
    assert run("--bit", "3", "-e", out=copy) == 0
    results = read_results(copy / "alex_3bit/results.json")
    assert f"ANN test accuracy {results.ann_accuracy:.2%}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--bit", "3", "--init", "nowhere/model.npz"), "nowhere/model.npz"),
        (("snn", "--bit", "3", "--variants", "sparse"), "signed, unsigned, settling"),
        (("train", "--bit", "3", "--lr-factor", "0"), "lr_factor"),
        (("snn", "--bit", "4", "--arch", "vgg11"), "holds no trained network"),
    ],
)
def test_mistakes_are_one_line(copy, capsys, arguments, message):
    for width in WIDTHS[1:]:
        if arguments[0] == "train":
            shutil.rmtree(copy / width, ignore_errors=True)
    status = run(*arguments, out=copy)
    said = capsys.readouterr()
    assert status != 0
    assert message in said.err + said.out
    assert "Traceback" not in said.err + said.out


def test_weights_of_another_network_are_refused(copy, capsys, monkeypatch):
    other = parse("4C3s2p1-6C3s2p1-32nb", input_shape=(32, 32, 1), head_bias=True)
    monkeypatch.setitem(system.ARCHITECTURES, "alex", other)
    shutil.rmtree(copy / "alex_3bit")
    assert run("train", "--bit", "3", "--init", str(copy / "alex_4bit"), out=copy) == 2
    assert "params/conv2/kernel" in capsys.readouterr().err


def test_quantised_weights_do_not_start_a_network_of_32_bits(copy, capsys):
    shutil.rmtree(copy / "alex_32bit")
    assert run("train", "--bit", "32", "--init", str(copy / "alex_4bit"), out=copy) == 2
    assert "clip" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_refused(copy, capsys):
    path = copy / "alex_3bit/best.npz"
    broken = dict(np.load(path))
    broken["params/conv2/kernel"][0, 0, 0, 0] = np.nan
    np.savez(path, **broken)
    assert run("snn", "--bit", "3", out=copy) == 2
    assert "conv2" in capsys.readouterr().err


def test_published_figures_are_those_of_the_paper_alone():
    assert system.published("mnist", Settings(bit=3)) == {
        "ann_accuracy": 0.9898,
        "unsigned_accuracy": 0.7892,
        "snn_accuracy": 0.9890,
        "finetuned_accuracy": 0.9889,
    }
    assert system.published("digits", Settings(bit=3)) is None
    assert system.published("mnist", Settings(bit=4)) is None


def test_variants_of_other_test_images_are_not_set_beside_each_other(copy):
    fewer = (*LIMITS, "--certify", "5")
    assert run_script("snn", "--bit", "3", "-u", out=copy, tiny=fewer, script="fast_snn") == 0
    after = read_results(copy / "alex_3bit/results.json")
    assert kinds(after) == {"unsigned"}
    assert after.snn_accuracy is None  # that of the signed network, which was not simulated
    assert set(json.loads((copy / "alex_3bit/certificates.json").read_text())) == {"unsigned"}
    assert after.conversion is None  # an unsigned neuron has no negative threshold
    flags = ("snn", "--bit", "3", "--variants", "settling")
    assert run_script(*flags, out=copy, tiny=fewer, script="fast_snn") == 0
    after = read_results(copy / "alex_3bit/results.json")
    assert kinds(after) == {"unsigned", "settling"}
    assert after.conversion == {"negative_threshold": NEGATIVE_THRESHOLD}


def test_weights_of_another_width_are_refused_behind_training(out, tmp_path, capsys):
    flags = ("--bit", "3", "--variants", "signed")
    assert run("snn", *flags, "--init", str(out / "alex_4bit"), out=tmp_path) == 2
    assert "bit: 4" in capsys.readouterr().err
    assert run("snn", *flags, "--init", str(out / "alex_4bit"), out=out) == 2
    assert "holds its own run" in capsys.readouterr().err
    assert run("snn", *flags, "--init", str(out / "alex_3bit/best.npz"), out=tmp_path) == 0
    results = read_results(tmp_path / "alex_3bit/results.json")
    assert results.snn_accuracy == read_results(out / "alex_3bit/results.json").snn_accuracy


def rows(images):
    return {image.tobytes() for image in images}


def test_as_coded_every_stage_tests_on_images_that_another_was_trained_on(tmp_path, capsys):
    """As in the original's scripts for faces; the folder says so, and the weights stay there."""
    as_coded = ("--split", "as_coded")
    for stage in ("train", "snn", "finetune"):
        assert run(stage, "--bit", "3", *as_coded, out=tmp_path) == 0
    folder = tmp_path / "alex_3bit_as_coded"
    results = read_results(folder / "results.json")
    assert results.settings.variant == "as_coded"
    assert kinds(results) == {"signed", "unsigned", "settling", "fine-tuned"}
    config, _ = from_json(Settings, (folder / "config.json").read_text())
    one = system.FastSnn(config)
    everything = rows(one.data.train_images) | rows(one.data.test_images)
    seen = {}
    for stage in ("train", "evaluate", "snn", "finetune"):
        one.redraw(stage)
        seen[stage] = rows(one.data.train_images), rows(one.data.test_images)
        assert not seen[stage][0] & seen[stage][1], stage
        assert seen[stage][0] | seen[stage][1] == everything, stage
        assert len(one.images) == len(one.data.test_labels) == 40, stage
    for stage in ("evaluate", "snn", "finetune"):  # of 40, about 32
        assert len(seen[stage][1] & seen["train"][0]) > 20, stage
        assert seen[stage][1] != seen["train"][1], stage
    folder.rename(tmp_path / "alex_3bit")
    capsys.readouterr()
    assert run("snn", "--bit", "3", out=tmp_path) == 2
    assert "split" in capsys.readouterr().err


def test_layers_are_not_tuned_again_where_only_the_record_is_missing(copy, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "record", stopped)
        assert run("finetune", "--bit", "3", out=copy) == 130
    monkeypatch.setattr(finetune, "finetune_layer", stopped)
    assert run("finetune", "--bit", "3", "--resume", out=copy) == 0
    assert not (copy / "alex_3bit" / records.UNFINISHED).exists()


def test_what_is_tuned_is_measured_on_other_test_images_without_tuning(copy, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(finetune, "finetune_layer", stopped)
    before = json.loads((copy / "alex_3bit/finetune.json").read_text())
    more = (*LIMITS, "--limit-test", "60")
    flags = ("finetune", "--bit", "3", "--resume")
    assert run_script(*flags, out=copy, tiny=more, script="fast_snn") == 0
    results = read_results(copy / "alex_3bit/results.json")
    assert results.test_examples == 60
    assert kinds(results) == {"signed", "fine-tuned"}
    after = json.loads((copy / "alex_3bit/finetune.json").read_text())
    of_test = ("test_accuracy_before", "test_accuracy_after")
    assert {name: after[name] for name in after if name not in of_test} == {
        name: before[name] for name in before if name not in of_test
    }
    assert after["test_accuracy_after"] == results.find("fine-tuned").accuracy


def test_tuned_weights_that_are_gone_are_tuned_again(copy):
    path = copy / "alex_3bit/finetuned.npz"
    before = arrays(path)
    path.unlink()
    assert run("finetune", "--bit", "3", "--resume", out=copy) == 0
    after = arrays(path)
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_fine_tuning_alone_measures_the_accuracy_before(copy):
    for name in ("results.json", "simulated.json", "finetune.json"):
        (copy / "alex_3bit" / name).unlink()
    assert run("finetune", "--bit", "3", out=copy) == 0
    record = json.loads((copy / "alex_3bit/finetune.json").read_text())
    assert record["test_accuracy_before"] is not None


def test_fine_tuning_beside_the_unsigned_neuron_measures_the_signed_one_before(copy):
    for name in ("results.json", "simulated.json", "finetune.json"):
        (copy / "alex_3bit" / name).unlink()
    assert run("finetune", "--bit", "3", "-u", out=copy) == 0
    record = json.loads((copy / "alex_3bit/finetune.json").read_text())
    assert record["test_accuracy_before"] is not None
    assert kinds(read_results(copy / "alex_3bit/results.json")) == {"signed", "fine-tuned"}
