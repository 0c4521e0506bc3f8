"""The README and its companions say what is true: commands, example, table, modules, links."""

import doctest
import functools
import importlib.util
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import results_table as tool
from containers import both
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from test_layers import ROOMS

from jaxsnn.data.by_name import load
from jaxsnn.systems.command_line import parse_command, parse_flags
from jaxsnn.systems.config_file import from_json
from jaxsnn.systems.settings import BringYourOwn
from jaxsnn.systems.stages import System, described

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = (
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
)


def loaded(path):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def stages_of(script):
    """The stages that a script has, with what each does: those of its system."""
    names = vars(loaded(ROOT / f"experiments/{script}.py")).values()
    (system,) = [one for one in names if isinstance(one, type) and issubclass(one, System)]
    return described(system)


def brought():
    """The networks of others that an experiment names, each with its flags."""
    return loaded(ROOT / "experiments/bring_your_own.py").NETWORKS


def between(name, text=README):
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    assert text.count(start) == text.count(end) == 1
    return text.split(start)[1].split(end)[0]


def test_the_test_command_can_be_read_by_the_checks():
    lines = [line for line in between("test-command").splitlines() if line.strip()]
    assert lines[0] == "```sh"
    assert lines[2:] == ["```"]
    assert lines[1].startswith("python -m pip install ")
    assert lines[1].endswith(" && python -m pytest")


@pytest.fixture(scope="module")
def somebodys_network():
    """A network of two hidden layers that scikit-learn trained, as PyTorch would have saved it."""
    data = load("digits")
    pixels = data.train_images.reshape(len(data.train_images), -1) / 255
    network = MLPClassifier((64, 32), max_iter=12, learning_rate_init=3e-3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(pixels, data.train_labels)
    arrays = {}
    for number, layer in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        weight, bias = (np.ascontiguousarray(array.T, np.float32) for array in layer)
        arrays |= {f"{2 * number + 1}.weight": weight, f"{2 * number + 1}.bias": bias}
    return both(arrays)["zip"]


def test_the_example_runs_and_is_short(somebodys_network, tmp_path, monkeypatch):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    # a blank line ends the last expected output, or doctest would read the fence as part of it
    assert block.endswith("\n\n")
    assert len(doctest.DocTestParser().get_examples(block)) == 11
    (tmp_path / "model.pt").write_bytes(somebodys_network)
    monkeypatch.chdir(tmp_path)
    names = {}
    test = doctest.DocTestParser().get_doctest(README, names, "README.md", "README.md", 0)
    report = []
    failed = doctest.DocTestRunner().run(test, out=report.append, clear_globs=False)
    assert not failed.failed, "".join(report)
    assert failed.attempted == 11
    assert test.globs["proof"].images == 360


def test_the_readme_is_read_in_one_sitting():
    assert len(README.encode()) < 6_000


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_named_files_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"
    pattern = r"`((?:jaxsnn|tests|tools|experiments|benchmarks|docs|\.ci)/[\w./]*\w)`"
    for name in re.findall(pattern, text):
        assert (ROOT / name).exists(), f"{document} names {name}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_an_experiment_is_accepted(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    commands = re.findall(r"python experiments/(\w+)\.py([^`\n#]*)", text)
    for script, words in commands:
        if script == "bring_your_own":
            name, *more = words.split()
            assert parse_flags(BringYourOwn, [*brought()[name], *more], script)
        elif "--help" not in words:
            kind = tool.CONFIGS[script]
            words, stages = words.replace("'", "").split(), stages_of(script)
            stage, config = parse_command(kind, words, stages)
            assert stage in stages
            assert type(config) is kind


def test_the_architecture_lists_the_rooms_and_what_each_may_import():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = [row.strip("|").split("|") for row in between("rooms", text).strip().splitlines()[2:]]
    names = [re.findall(r"`(\w+)`", cells[0])[0] for cells in rows]
    assert names == list(ROOMS)
    for number, (name, (_, _, may)) in enumerate(zip(names, rows, strict=True)):
        above = names[:number] if may.strip() == "all rooms above" else []
        assert set(ROOMS[name]) == {*above, *re.findall(r"`(\w+)`", may)}


def test_the_architecture_is_read_in_one_sitting():
    assert len((ROOT / "ARCHITECTURE.md").read_bytes()) < 12_000


@pytest.mark.parametrize("k", [0, 1, 2])
def test_the_figure_shows_the_results_that_are_kept(k):
    figure = (ROOT / "docs/figures/accuracy_lenet.svg").read_text(encoding="utf-8")
    path = ROOT / f"results/mnist_negative_spikes_fashion_mnist/lenet_k{k}/results.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    step = record["accuracy_settled_step"]
    legend = f"k = {k}: {100 * record['snn_accuracy']:.2f} %, settles at step {step}"
    assert f"<!-- {legend} -->" in figure  # so matplotlib writes a text beside its outlines


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("**/config.json")), ids=str)
def test_the_commands_that_are_kept_give_the_settings_that_are_kept(path):
    kept = json.loads(path.read_text())
    kind = tool.CONFIGS[kept["experiment"]]
    config, phases = from_json(kind, path.read_text(), str(path))
    for phase in phases:
        stage, asked = parse_command(kind, phase["argv"], stages_of(kept["experiment"]))
        named = [config.described, asked.described]
        if stage == "progressive":  # every width: the last is the narrowest
            named[1] = asked.widths()[-1].described
        assert named[0] == named[1]
        for name in ("dataset", "batch_size", "validation", "seed"):
            assert getattr(asked, name) == getattr(config, name), name
        for name in ("learning_rate", "schedule"):  # each phase has its own
            assert getattr(asked, name) == phase[name], name
