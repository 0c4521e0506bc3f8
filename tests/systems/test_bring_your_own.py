"""``python -m jaxsnn convert``: flags, what arrays say of the network, and a run to its files."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxsnn import Net, hidden, load, neurons, parse, simulate
from jaxsnn.__main__ import main
from jaxsnn.arch.notation import format
from jaxsnn.errors import UserError
from jaxsnn.network import net as net_module
from jaxsnn.report.results import read_results
from jaxsnn.systems.bring_your_own import network, system
from jaxsnn.systems.bring_your_own.network import preprocessing_of, read_network
from jaxsnn.systems.bring_your_own.pictures import spikes_of
from jaxsnn.systems.command_line import parse_flags
from jaxsnn.systems.settings import BringYourOwn
from jaxsnn.training import Finetuned

SHAPE = (6, 6, 1)
FILES = {"arrays.txt", "certificate.txt", "comparison.json", "model.npz", "results.json", "snn.npz"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Somebody's weights in torch's order, and a data set whose labels are what they say."""
    folder = tmp_path_factory.mktemp("theirs")
    rng = np.random.default_rng(0)
    theirs = {
        "conv.weight": 0.4 * rng.normal(size=(3, 1, 3, 3)).astype(np.float32),
        "conv.bias": 0.1 * rng.normal(size=3).astype(np.float32),
        "hidden.weight": rng.normal(size=(6, 12)).astype(np.float32),
        "hidden.bias": np.zeros(6, np.float32),
        "out.weight": rng.normal(size=(4, 6)).astype(np.float32),
        "out.bias": np.zeros(4, np.float32),
    }
    np.savez(folder / "theirs.npz", **theirs)
    config = BringYourOwn(str(folder / "theirs.npz"), arch="3C3-AP2-6")
    brought = read_network(config, SHAPE, 4)
    images = rng.integers(0, 256, (120, *SHAPE), dtype=np.uint8)
    net = Net(brought.arch, hidden(neurons.relu()))
    shown = jnp.asarray(images) / np.float32(255)
    logits = np.array(net_module.forward(net, brought.variables, shown).readouts[-1][0])
    labels = logits.argmax(-1)
    labels[:4] = range(4)  # every class is there
    np.savez(
        folder / "data.npz",
        images=images[:80], labels=labels[:80], test_images=images[80:], test_labels=labels[80:],
    )  # fmt: skip
    return folder


def flags(folder, *more):
    named = (str(folder / "theirs.npz"), "--arch", "3C3-AP2-6", "--data", str(folder / "data.npz"))
    return [*named, *more]


@pytest.fixture(scope="module")
def ran(folder):
    """A run by one method: its folder, and what it printed."""
    out = folder / "run"
    few = ("--method", "negative_spikes", "--k", "3", "--certify", "8", "--batch-size", "40")
    assert main(["convert", *flags(folder, *few, "--out", str(out))]) == 0
    return out


@pytest.mark.slow
def test_a_run_leaves_network_table_certificate_and_pictures(ran):
    assert {path.name for path in ran.iterdir()} == FILES | {"figs"}
    pictures = {f"{name}.{kind}" for name in ("compare", "accuracy", "layers", "raster")
                for kind in ("png", "svg")}  # fmt: skip
    assert {path.name for path in (ran / "figs").iterdir()} == pictures
    assert (ran / "certificate.txt").read_text().startswith("exact after settling: 8 images")
    assert "conv.weight" in (ran / "arrays.txt").read_text()


@pytest.mark.slow
def test_results_are_those_of_the_network_that_is_kept(ran, folder):
    results = read_results(ran / "results.json")
    assert results.float_ann_accuracy == 1.0
    assert results.equality == "exact after settling"
    assert (results.settings.network, results.settings.k) == ("theirs", 3)
    assert results.argv[0] == str(folder / "theirs.npz")
    snn, data = load(ran / "snn.npz"), np.load(folder / "data.npz")
    trace = simulate(snn, data["test_images"], steps=results.steps)
    hits = np.mean(np.asarray(trace.predictions[-1]) == data["test_labels"])
    assert results.snn_accuracy == pytest.approx(hits)
    assert results.snn_accuracy == results.ann_accuracy
    (trial,) = json.loads((ran / "comparison.json").read_text())["trials"]
    assert trial["accuracy"] == results.snn_accuracy
    assert results.find(results.setting).spikes_per_image == trial["spikes_per_image"]
    assert "clip" in "".join(np.load(ran / "model.npz").files)


@pytest.mark.slow
def test_a_certificate_of_an_earlier_run_does_not_stay(folder):
    out = folder / "again"
    out.mkdir()
    (out / "certificate.txt").write_text("exact: of another network")
    few = ("--method", "scatter_gather", "--k", "0", "--certify", "0", "--batch-size", "40")
    assert main(["convert", *flags(folder, *few, "--out", str(out))]) == 0
    assert (out / "snn.npz").is_file()
    assert not (out / "certificate.txt").exists()


@pytest.mark.slow
def test_spikes_of_one_image_add_up_to_its_counts(ran, folder):
    snn, data = load(ran / "snn.npz"), np.load(folder / "data.npz")
    spikes = spikes_of(snn, data["test_images"][:1], 100)
    trace = simulate(snn, data["test_images"][:1], steps=100, counts=True)
    for site, train in spikes.items():
        assert np.array_equal(train.sum(0), np.asarray(trace.counts[site])[0])
        negative = np.asarray(trace.counters.negative[site])[:, 0]
        assert -np.minimum(train, 0).sum() == negative.sum()
    assert any(train[-1].any() for train in spikes.values())  # it ends with the last spike
    with pytest.raises(UserError, match="2 images"):
        spikes_of(snn, data["test_images"][:2], 4)


@pytest.mark.slow
def test_fine_tuning_tries_the_method_once_more(folder, capsys):
    out = folder / "tuned"
    few = ("--method", "scatter_gather", "--k", "0", "--certify", "4", "--batch-size", "40")
    tuning = ("--finetune-epochs", "2", "--finetune-batch-size", "20", "--learning-rate", "0.003")
    assert main(["convert", *flags(folder, *few, *tuning, "--out", str(out))]) == 0
    trials = json.loads((out / "comparison.json").read_text())["trials"]
    assert ["2 epochs" in trial["options"] for trial in trials] == [True, False]
    assert {trial["equality"] for trial in trials} == {"exact"}
    assert "epoch 2/2" in capsys.readouterr().out


@pytest.fixture
def tried(folder, request):
    """A run that is to be fine-tuned, its calibration, and the methods that are named, tried."""
    few = ("--k", "3", "--certify", "0", "--rate-steps", "12", "--batch-size", "40")
    words = flags(folder, *few, "--finetune-epochs", "2")
    config = parse_flags(BringYourOwn, words, "convert", "")
    run = system._Run(config, Console(quiet=True))
    ready = run.calibrated(run.brought.variables, balance=False)
    some = [one for one in system._methods(config, ready) if one.name == request.param]
    return run, ready, run.compared(ready, some)


@pytest.mark.parametrize("tried", ["scatter_gather"], indirect=True)
def test_what_fine_tuning_spoils_is_not_taken(tried, monkeypatch):
    """Weights that are kept are those of the network that is kept."""
    run, ready, before = tried

    def spoilt(variables, *_, **__):
        readout = {name: leaf[..., ::-1] for name, leaf in variables["params"]["readout"].items()}
        return Finetuned({**variables, "params": {**variables["params"], "readout": readout}}, [])

    monkeypatch.setattr(system, "finetune_quantised", spoilt)
    taken, both = run.finetuned(ready, before)
    assert both.trials[0].label == "scatter_gather(k=3, bound=4, 2 epochs)"
    assert both.trials[0].accuracy < both.trials[1].accuracy
    assert both.best == both.trials[1]
    assert taken is ready


@pytest.mark.parametrize("tried", ["rate"], indirect=True)
def test_where_rates_are_taken_nothing_is_fine_tuned_and_everything_kept(tried):
    run, ready, before = tried
    run.to = Console(record=True)
    taken, after = run.finetuned(ready, before)
    assert (taken, after) == (ready, before)
    assert "nothing is fine-tuned" in run.to.export_text()


@pytest.mark.parametrize("balance", [True, False])
def test_activations_are_balanced_unless_it_is_refused(folder, balance):
    more = () if balance else ("--balance", "false")
    config = parse_flags(BringYourOwn, flags(folder, *more), "convert", "")
    run = system._Run(config, Console(quiet=True))
    ready = run.calibrated(run.brought.variables, config.balance)
    before = run.brought.variables["params"]["readout"]["kernel"]
    same = np.array_equal(ready.variables["params"]["readout"]["kernel"], before)
    assert same is not balance


def test_arrays_say_whether_there_are_norms_and_biases(folder):
    config = BringYourOwn(str(folder / "theirs.npz"), arch="3C3-AP2-6")
    brought = read_network(config, SHAPE, 4)
    assert format(brought.arch) == "3C3-AP2-6"
    assert (brought.arch.norm, brought.arch.head_bias) == (False, True)
    assert brought.arch == parse(
        "3C3-AP2-6", input_shape=SHAPE, classes=4, norm=False, head_bias=True
    )
    said = BringYourOwn(str(folder / "theirs.npz"), arch="3C3-AP2-6", head_bias=False)
    with pytest.raises(UserError, match="out has a bias, readout has none"):
        read_network(said, SHAPE, 4)


def test_images_are_seen_as_the_network_saw_them():
    grey = np.array([[0, 51], [204, 255]], np.uint8).reshape(1, 2, 2, 1)
    plain = preprocessing_of(BringYourOwn("w.pt", arch="8"), (2, 2, 1))
    assert plain.test(grey) is grey
    assert plain.encoding.scale == 1 / 255
    half = preprocessing_of(BringYourOwn("w.pt", arch="8", white=127.5), (2, 2, 1))
    assert half.encoding.decode(jnp.asarray(grey)).max() == 2
    normal = BringYourOwn("w.pt", arch="8", mean=(0.5,), std=(0.25,))
    seen = preprocessing_of(normal, (2, 2, 1))
    decoded = np.asarray(seen.encoding.decode(seen.test(grey))).ravel()
    assert decoded == pytest.approx([-2, -1.2, 1.2, 2], abs=2**-9)
    colour = np.repeat(grey, 3, axis=-1)
    seen = preprocessing_of(BringYourOwn("w.pt", arch="8", size=4), (2, 2, 3))
    decoded = np.asarray(seen.encoding.decode(seen.test(colour)))
    assert decoded.shape == (1, 4, 4, 3)
    assert decoded[0, 1:3, 1:3, 2].ravel() == pytest.approx([0, 0.2, 0.8, 1], abs=2**-9)


def mirrored(flip):
    """Whether each of 16 training images, which grow brighter to the right, is mirrored."""
    columns = np.arange(10, 90, 10, dtype=np.uint8)
    images = np.tile(columns[None, None, :, None], (16, 8, 1, 3))
    seen = preprocessing_of(BringYourOwn("w.pt", arch="8", finetune_epochs=1, flip=flip), (8, 8, 3))
    shown = np.asarray(seen.train(images, jax.random.key(0), None))
    brightness = shown.sum((1, 3), dtype=np.int64)  # [image, column], zeros of the frame among them
    slopes = [np.diff(row[row > 0]) for row in brightness]
    assert all((slope > 0).all() or (slope < 0).all() for slope in slopes)
    return [bool((slope < 0).all()) for slope in slopes]


def test_colour_images_are_mirrored_in_fine_tuning_unless_left_and_right_matter():
    assert not any(mirrored("none"))
    assert len(set(mirrored("random"))) == 2


def test_images_far_smaller_than_the_size_lie_in_the_middle_in_fine_tuning_too():
    colour = np.full((2, 4, 4, 3), 255, np.uint8)
    config = BringYourOwn("w.pt", arch="8", finetune_epochs=1, flip="none", size=16)
    seen = preprocessing_of(config, (4, 4, 3))
    shown = np.asarray(seen.train(colour, jax.random.key(0), None))
    np.testing.assert_array_equal(shown, seen.test(colour))
    assert np.count_nonzero(shown) == colour.size


def test_a_size_that_is_one_side_of_the_images_cuts_the_other():
    grey = np.arange(8, dtype=np.uint8).reshape(1, 2, 4, 1)
    seen = preprocessing_of(BringYourOwn("w.pt", arch="8", size=2), (2, 4, 1))
    assert np.asarray(seen.test(grey)).shape == (1, 2, 2, 1)
    whole = preprocessing_of(BringYourOwn("w.pt", arch="8"), (2, 4, 1))
    assert whole.test(grey).shape == (1, 2, 4, 1)


def test_words_without_a_flag_name_the_weights():
    config = parse_flags(BringYourOwn, ["net.pt", "--data", "mnist", "--arch=8C3-8"], "convert")
    assert (config.weights, config.dataset, config.arch) == ("net.pt", "mnist", "8C3-8")
    several = ["--arch", "8", "--mean", "0.1,0.2,-0.3", "--std", "1", "1", "1", "--weights", "w.pt"]
    config = parse_flags(BringYourOwn, several, "convert")
    assert config.mean == (0.1, 0.2, -0.3)
    assert config.std == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "arch is ''.*--arch NOTATION or --module FILE:NAME"),
        ({"arch": "8", "module": "a.py:Net"}, "one of them"),
        ({"module": "a.py"}, "module is 'a.py'"),
        ({"arch": "8", "std": (1.0,)}, "as many numbers as --mean"),
        ({"arch": "8", "bits": 6}, "bits is 6.*2 to 5"),
        ({"arch": "8", "method": "rate", "finetune_epochs": 1}, "method is 'rate'.*as it is"),
        ({"arch": "8", "white": 0.0}, "white is 0"),
        ({"arch": "8", "white": 1.0, "mean": (0.5,), "std": (1.0,)}, "white is 1.*without --mean"),
        ({"arch": "8", "finetune_epochs": 1, "finetune_batch_size": 0}, "finetune_batch_size is 0"),
        ({"arch": "8", "learning_rate": 1e-3}, "learning_rate is .* with --finetune-epochs"),
        ({"arch": "8", "flip": "none"}, "flip is 'none'.* with --finetune-epochs"),
        ({"arch": "8", "resume": True}, "resume is True.* with --finetune-epochs"),
        ({"arch": "8", "limit_test": 0}, "limit_test is 0"),
        ({"arch": "8", "seed": -1}, "seed is -1.*0 to 4294967295"),
        ({"module": "a.py:Net", "norm": False}, "norm is False.*with a notation; a.py:Net"),
        ({"module": "a.py:Net", "head_pool": True}, "head_pool is True.*with a notation"),
        ({"arch": "lenet_scatter", "pool": "max"}, "pool is 'max'.*lenet_scatter says it"),
    ],
)
def test_flags_out_of_range_are_refused_by_name(options, message):
    with pytest.raises(UserError, match=message):
        BringYourOwn("weights.pt", **options)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--arch", "3C3-AP2-7"), "stands for dense1"),
        (("--data", "nothing.npz"), "nothing.npz"),
    ],
)
def test_what_cannot_be_used_is_one_line(folder, capsys, more, message):
    assert main(["convert", *flags(folder, "--out", str(folder / "none"), *more)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert not (folder / "none").exists()


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_computed(folder, capsys):
    assert main(["convert", *flags(folder, "--out", str(folder / "data.npz"))]) == 2
    said = capsys.readouterr()
    assert "data.npz" in said.err
    assert not said.out


def test_flags_that_contradict_each_other_end_the_command(folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["convert", *flags(folder, "--module", "a.py:Net")])
    assert stopped.value.code == 2
    assert "--module" in capsys.readouterr().err


def test_a_file_of_modules_that_is_none_is_named(folder):
    config = BringYourOwn(str(folder / "theirs.npz"), module="none.py:Net")
    with pytest.raises((UserError, ImportError), match=r"none\.py|torch"):
        read_network(config, SHAPE, 4)


PYTHON = """from __future__ import annotations
from dataclasses import dataclass
from beside import Base

@dataclass
class Net(Base):
    width: int = 3

def wide(): return Net(7)
def needs(width): return Net(width)
def nothing(): return 1
ready = Net(5)
number = 4
"""


@pytest.fixture
def modules(tmp_path):
    """A file of modules, which imports one beside it and has a dataclass."""
    (tmp_path / "beside.py").write_text("class Base:\n    def state_dict(self): return {}\n")
    (tmp_path / "theirs.py").write_text(PYTHON)
    return tmp_path / "theirs.py"


@pytest.mark.parametrize(("name", "width"), [("Net", 3), ("wide", 7), ("ready", 5)])
def test_a_module_is_a_class_a_function_or_itself(modules, name, width):
    before = list(sys.path)
    assert network._made(f"{modules}:{name}").width == width
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("needs", "without arguments .*'width'"),
        ("nothing", "is a int, not a module of torch"),
        ("number", "cannot be called"),
        ("other", "the file has no 'other'"),
    ],
)
def test_what_makes_no_module_is_refused(modules, name, message):
    with pytest.raises(UserError, match=message):
        network._made(f"{modules}:{name}")


def test_without_torch_the_remedy_is_named(folder, modules, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    config = BringYourOwn(str(folder / "theirs.npz"), module=f"{modules}:Net")
    with pytest.raises(UserError, match=r"pip install 'jaxsnn-conversion\[torch\]'"):
        read_network(config, SHAPE, 4)
