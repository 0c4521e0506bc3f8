"""The README and its companions say what is true: commands, example, table, modules, links."""

import dataclasses
import doctest
import functools
import importlib.util
import json
import re
from pathlib import Path

import pytest
from test_layers import ROOMS

from jaxsnn.data.by_name import load
from jaxsnn.report.results import Results, write_results
from jaxsnn.systems.command_line import parse_command
from jaxsnn.systems.config_file import to_json
from jaxsnn.systems.settings.bayesian_spike_fusion import BayesianSpikeFusion
from jaxsnn.systems.settings.conversion import LeNetScatter, NegativeSpikesCnn1
from jaxsnn.systems.settings.fast_snn import FastSnn
from jaxsnn.systems.settings.surrogate_csnn import NmnistCsnn
from jaxsnn.systems.stages import System, described

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = (
    *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"),
    *("docs/from_the_originals.md", "docs/csnn_one_change_at_a_time.md", "results/README.md"),
)


def loaded(path):
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tool():
    return loaded(ROOT / "tools/results_table.py")


@functools.cache
def stages_of(script):
    """The stages that a script has, with what each does: those of its system."""
    names = vars(loaded(ROOT / f"experiments/{script}.py")).values()
    (system,) = [one for one in names if isinstance(one, type) and issubclass(one, System)]
    return described(system)


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


def test_the_example_runs_and_is_short(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    # a blank line ends the last expected output, or doctest would read the fence as part of it
    assert all(block.endswith("\n\n") for block in blocks)
    assert len(doctest.DocTestParser().get_examples(blocks[1])) <= 15
    test = doctest.DocTestParser().get_doctest(README, {}, "README.md", "README.md", 0)
    report = []
    options = doctest.NORMALIZE_WHITESPACE
    failed = doctest.DocTestRunner(optionflags=options).run(test, out=report.append)
    assert not failed.failed, "".join(report)
    assert failed.attempted > 15


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_named_files_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / document).parent / target).exists(), f"{document} links to {target}"
    pattern = r"`((?:jaxsnn|tests|tools|experiments|benchmarks|docs|\.ci)/[\w./]*\w)`"
    for name in re.findall(pattern, text):
        assert (ROOT / name).exists(), f"{document} names {name}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_an_experiment_is_accepted(document, tool):
    text = (ROOT / document).read_text(encoding="utf-8")
    commands = re.findall(r"python experiments/(\w+)\.py([^`\n]*)", text)
    for script, words in commands:
        if "--help" not in words:
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


def test_the_results_table_is_current(tool, capsys):
    assert tool.main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("k", [0, 1, 2])
def test_the_figure_shows_the_results_that_are_kept(k):
    figure = (ROOT / "docs/figures/accuracy_lenet.svg").read_text(encoding="utf-8")
    path = ROOT / f"results/mnist_negative_spikes_fashion_mnist/lenet_k{k}/results.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    step = found["accuracy_settled_step"]
    legend = f"k = {k}: {100 * found['snn_accuracy']:.2f} %, settles at step {step}"
    assert f"<!-- {legend} -->" in figure  # so matplotlib writes a text beside its outlines


SYSTEMS = (
    *("scatter_gather", "negative_spikes", "surrogate_csnn", "fast_snn"),
    "bayesian_spike_fusion",
)


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "README.md"
    sections = [f"<!-- results: {one} -->\nold\n<!-- /results: {one} -->\n" for one in SYSTEMS]
    path.write_text("before\n" + "between\n".join(sections) + "after\n")
    return path


def results(**changes):
    fields = {
        "epochs_run": 15, "ann_accuracy": 0.993, "snn_accuracy": 0.993, "equality": "exact",
        "mismatches": {"neurons": 0, "predictions": 0, "compared": 10_000},
        "spikes_per_image": 16_843.9, "sops_per_image": 3_240_042.0, "device": "2 cores",
        "seconds": {"compile": 1.0, "train": 930.0, "simulate": 9.0},
        "noise": [{"ratio": 0.1, "accuracy": [0.99, 0.98]}, {"ratio": 0.2, "accuracy": [0.97]}],
        "paper": {"ann_accuracy": 0.9937, "snn_accuracy": 0.9937},
    }  # fmt: skip
    named = {"experiment": "mnist_lenet", "system": "scatter_gather", "dataset": "mnist"}
    return Results(**named, **{"setting": "k1B2", **fields, **changes})


def rows_of(path, system="scatter_gather"):
    found = between(f"results: {system}", path.read_text(encoding="utf-8")).strip().splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found]


def test_without_results_all_rows_are_not_run(tool, readme, tmp_path):
    arguments = ["--readme", str(readme), "--results", str(tmp_path / "results")]
    assert tool.main([*arguments, "--check"]) == 1
    assert tool.main(arguments) == 0
    assert tool.main([*arguments, "--check"]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    rows = rows_of(readme)
    # full precision, six quantised settings, the paper's 200 epochs
    assert len(rows) == 8
    assert {row[2] for row in rows} == {"not run"}
    commands = [row[1] for row in rows]
    for k, bound in ((0, 2), (0, 4), (1, 1), (1, 4)):
        assert f"`python experiments/mnist_lenet.py --k {k} --B {bound}`" in commands
    (long,) = [command for command in commands if "--epochs 200" in command]
    assert "--learning-rate 0.0001 --schedule constant" in long
    negative = rows_of(readme, "negative_spikes")
    # four settings each: LeNet and MLP on two data sets, CNN 1, CNN 2
    assert len(negative) == 4 * 6
    assert {row[2] for row in negative} == {"not run"}
    (row,) = [row for row in negative if row[0] == "cifar10 cnn1, k1"]
    assert row[-2:] == ["92.77 %, 92.77 %", "57; 362,614; 414,151,035"]


def test_a_result_becomes_a_row(tool, readme, tmp_path):
    folder = tmp_path / "results/mnist_lenet/k1B2"
    write_results(folder, results())
    config = LeNetScatter(batch_size=64, out="elsewhere")
    (folder / "config.json").write_text(to_json(config, [{"epochs": 15}]))
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    (row,) = [row for row in rows_of(readme) if row[2] == "15"]
    assert row == [
        "mnist, k1B2", "`python experiments/mnist_lenet.py --k 1 --B 2 --batch-size 64`", "15",
        "2 cores", "15.5 min", "99.30 %", "99.30 %", "exact",
        "0, 0 of 10,000", "16,844", "3,240,042",
        "98.50 % (2 seeds)", "97.00 % (1 seed)",
        "99.37 % (missed by 0.07), 99.37 % (missed by 0.07)",
    ]  # fmt: skip
    assert len(rows_of(readme)) == 8  # the short run has a row; the long one is still not run


@pytest.mark.parametrize(
    ("config", "dataset", "count", "shown"),
    [
        (NmnistCsnn(spike=True), "nmnist", 100, "nmnist, spike (100 test recordings)"),
        (NmnistCsnn(spike=True), "nmnist", 10_000, "nmnist, spike"),
        (NmnistCsnn(dataset="digits", spike=True), "digits", 1, "digits, spike (1 test recording)"),
        (NmnistCsnn(limit_test=1000), "mnist", 1000, "mnist, static (1,000 test images)"),
        (NmnistCsnn(), "mnist", 10_000, "mnist, static"),
        (NmnistCsnn(dataset="digits"), "digits", 360, "digits, static"),
        (NmnistCsnn(dataset="digits"), "digits", None, "digits, static"),  # from before the field
    ],
)
def test_a_row_says_how_many_were_tested_where_not_all_were(
    tool, readme, tmp_path, config, dataset, count, shown
):
    folder = tmp_path / "results/any/one"
    named = {"experiment": "nmnist_csnn", "system": "surrogate_csnn", "setting": config.setting}
    write_results(folder, Results(**named, dataset=dataset, epochs_run=77, test_examples=count))
    (folder / "config.json").write_text(to_json(config))
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    (row,) = [row for row in rows_of(readme, "surrogate_csnn") if row[2] == "77"]
    assert row[0] == shown


def test_the_whole_test_sets_have_the_sizes_of_their_papers(tool):
    sizes = {**tool.WHOLE}
    assert sizes.pop("digits") == len(load("digits").test_labels)
    assert sizes.pop("lfw") == 246  # a fifth of the 1,230 images of 29 people
    assert set(sizes.values()) == {10_000}


def test_the_long_run_is_done_by_its_epochs(tool, readme, tmp_path):
    write_results(tmp_path / "results/long/k1B2", results(epochs_run=200))
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    assert not [row for row in rows_of(readme) if row[2] == "not run" and "200" in row[1]]


def test_broken_results_and_lost_markers_are_refused(tool, readme, tmp_path, capsys):
    path = write_results(tmp_path / "results/mnist_lenet/k1B2", results())
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "extra": 1}))
    arguments = ["--readme", str(readme), "--results", str(tmp_path / "results")]
    before = readme.read_text()
    assert tool.main(arguments) == 2
    assert str(path) in capsys.readouterr().err
    path.unlink()
    other = dataclasses.replace(results(), experiment="other")
    write_results(tmp_path / "results/other/k1", other)
    (tmp_path / "results/other/k1/config.json").write_text(to_json(LeNetScatter()))
    assert tool.main(arguments) == 2
    assert "unknown experiment 'other'; known: mnist_lenet" in capsys.readouterr().err
    (tmp_path / "results/other/k1/results.json").unlink()
    readme.write_text("nothing")
    assert tool.main(arguments) == 2
    assert "<!-- results: scatter_gather -->" in capsys.readouterr().err
    assert before != readme.read_text() == "nothing"


def test_a_settled_run_becomes_a_row(tool, readme, tmp_path):
    fields = {
        "experiment": "cifar10_cnn1", "system": "negative_spikes", "dataset": "cifar10",
        "setting": "k1", "epochs_run": 3, "equality": "exact after settling", "ann_accuracy": 0.7,
        "snn_accuracy": 0.7, "accuracy_settled_step": 31, "last_spike_step": 62,
        "mismatches": {"neurons": 0, "predictions": 0, "compared": 500},
        "paper": {"ann_accuracy": 0.9277, "snn_accuracy": 0.9277},
    }  # fmt: skip
    folder = tmp_path / "results/cifar10_cnn1/k1"
    write_results(folder, Results(**fields))
    (folder / "config.json").write_text(to_json(NegativeSpikesCnn1(epochs=3, validation=0), []))
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    (row,) = [row for row in rows_of(readme, "negative_spikes") if row[2] == "3"]
    assert row[:2] == [
        "cifar10 cnn1, k1",
        "`python experiments/cifar10_cnn1.py --k 1 --epochs 3 --validation 0`",
    ]
    assert row[7:11] == ["exact after settling", "0, 0 of 500", "31", "62"]
    # A second phase is a command of its own, and a run that was cut short has not settled.
    write_results(folder, Results(**{**fields, "accuracy_settled_step": None}))
    config = NegativeSpikesCnn1(epochs=2, learning_rate=1e-4, noise_ratio=())
    first = {"epochs": 30, "learning_rate": 1e-3, "schedule": "cosine"}
    phases = [first, {**first, "epochs": 2, "learning_rate": 1e-4}]
    (folder / "config.json").write_text(to_json(config, phases))
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    (row,) = [row for row in rows_of(readme, "negative_spikes") if row[2] == "3"]
    script = "python experiments/cifar10_cnn1.py --k 1"
    assert row[1] == f"`{script}`, then `{script} --epochs 2 --learning-rate 0.0001 --resume`"
    assert row[9] == "not settled"
    assert row[-2] == "92.77 % (missed by 22.77), 92.77 % (missed by 22.77)"
    assert len(rows_of(readme)) == 8


def test_a_network_of_few_bits_becomes_a_row_with_all_its_variants(tool, readme, tmp_path):
    empty = dict.fromkeys(("spikes_per_image", "sops_per_image", "energy_pj_per_image"))
    variants = {
        name: {"accuracy": accuracy, "steps": steps, **empty}
        for name, accuracy, steps in (
            ("unsigned", 0.80, 7), ("signed", 0.97, 7), ("fine-tuned", 0.985, 7),
            ("settling", 0.98, 31),
        )
    }  # fmt: skip
    paper = ("ann_accuracy", "unsigned_accuracy", "snn_accuracy", "finetuned_accuracy")
    folder = tmp_path / "results/fast_snn/alex_3bit"
    fields = {
        "experiment": "fast_snn", "system": "fast_snn", "dataset": "mnist",
        "setting": "alex_3bit", "epochs_run": 3, "ann_accuracy": 0.98, "snn_accuracy": 0.97,
        "paper": dict(zip(paper, (0.9898, 0.7892, 0.9890, 0.9889), strict=True)),
    }  # fmt: skip
    write_results(folder, Results(**fields, variants=variants))
    config = FastSnn(bit=3, init="runs/fast_snn/alex_4bit", validation=0)
    (folder / "config.json").write_text(to_json(config, []))
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    (row,) = [row for row in rows_of(readme, "fast_snn") if row[2] == "3"]
    script = "python experiments/fast_snn.py progressive --bit 3 --arch alex --validation 0"
    assert row[:2] == ["mnist, alex_3bit", f"`{script}`"]
    assert row[5:10] == ["98.00 %", "80.00 %", "97.00 %", "98.50 %", "98.00 % (31)"]
    assert row[-1] == (
        "98.98 % (missed by 0.98), 78.92 %, 98.90 % (missed by 1.90), 98.89 % (missed by 0.39)"
    )
    assert len(rows_of(readme, "fast_snn")) == 9  # a short run stands beside the paper's eight
    write_results(folder, Results(**{**fields, "epochs_run": 300}, variants=variants))
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    assert len(rows_of(readme, "fast_snn")) == 8  # as long as the paper's, it is one of them


def test_a_fused_network_becomes_a_row_with_what_it_saves(tool, readme, tmp_path):
    def entry(accuracy, steps, energy):
        pj = None if energy is None else {"spikesim": energy}
        known = {"accuracy": accuracy, "steps": steps, "energy_pj_per_image": pj}
        return known | {"spikes_per_image": None, "sops_per_image": None}

    folder, config = tmp_path / "results/bsf", BayesianSpikeFusion(steps=1000, epochs=4)
    variants = {
        "final": entry(0.98, 1000, 1e9), "grid": entry(0.982, 1000, 1e9),
        "empirical": entry(0.983, 1000, 1e9), "stop per image": entry(0.981, 123.4, 1e8),
        "final, 97% of the ANN": entry(0.961, 200, 2e8),
        "grid, 97% of the ANN": entry(0.962, 110, 1.2e8),
        "empirical, 97% of the ANN": entry(0.963, 120, 1.3e8),
        "final, 99% of the ANN": entry(None, None, None),
        "grid, 99% of the ANN": entry(0.982, 900, 9e8),
        "empirical, 99% of the ANN": entry(None, None, None),
    }  # fmt: skip
    found = dataclasses.replace(
        results(),
        experiment="bayesian_spike_fusion", system="bayesian_spike_fusion", dataset="mnist",
        setting=config.setting, ann_accuracy=0.99, snn_accuracy=0.98, steps=1000, noise=None,
        variants=variants, paper={"energy_saving_percent": 38.8}, test_examples=500,
        equality="approximate", mismatches=None,
    )  # fmt: skip
    write_results(folder, found)
    (folder / "config.json").write_text(to_json(config, []))
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    row = rows_of(readme, "bayesian_spike_fusion")[0]
    assert row[0] == "mnist, mnist_vgg11_ic3 (500 test images)"
    command = "`python experiments/bayesian_spike_fusion.py --arch vgg11 --epochs 4 --steps 1000`"
    assert row[1] == command
    assert row[7:13] == [
        "1,000", "98.20 %", "98.30 %", "200, 110 (40.0 %), 120 (35.0 %)", "not reached",
        "98.10 %, 123.4",
    ]  # fmt: skip
    assert row[-1] == "38.8 %"


def test_the_tool_names_only_flags_that_exist(tool):
    for table in tool.TABLES:
        for config in table.wanted:
            words = tool.command(config).split()[2:]
            stage, found = parse_command(type(config), words, stages_of(config.experiment))
            if isinstance(config, FastSnn):  # all widths: the wider ones say where each starts
                assert (stage, found.widths()[-2].setting) == ("progressive", config.init)
                config = dataclasses.replace(config, init="")
            assert (stage, found) == (stage if stage == "progressive" else "all", config)
    for ratios in ((0.1, 0.3), ()):
        changed = dataclasses.replace(LeNetScatter(), noise_ratio=ratios, limit_train=7)
        words = tool.command(changed).split()[2:]
        assert parse_command(LeNetScatter, words)[1] == changed
