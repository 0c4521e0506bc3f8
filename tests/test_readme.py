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
from jaxsnn.report.results import Results, RunSettings, Variant, write_results
from jaxsnn.systems.command_line import parse_command
from jaxsnn.systems.config_file import from_json, to_json
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
    named |= {"setting": "k1B2", "settings": RunSettings(network="lenet", k=1, bound=2)}
    return Results(**{**named, **fields, **changes})


def keep(folder, config, rows, *commands):
    """Write a run's files: what results.json has, and the words of each phase of its training."""
    named = {"experiment": config.experiment, "dataset": Path(config.dataset).stem}
    settings = {"setting": config.setting, "settings": config.described}
    write_results(folder, dataclasses.replace(rows, **named, **settings))
    phases = [{"epochs": 15, "argv": words.split()} for words in commands]
    (folder / "config.json").write_text(to_json(config, phases))


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
    config = LeNetScatter(batch_size=64, out="elsewhere")
    keep(folder, config, results(), "--k 1 B=2 --out elsewhere --batch-size 64")
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    (row,) = [row for row in rows_of(readme) if row[2] == "15"]
    assert row == [
        "mnist, k1B2", "`python experiments/mnist_lenet.py --k 1 B=2 --batch-size 64`", "15",
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
    named = {"experiment": "nmnist_csnn", "system": "surrogate_csnn", "dataset": dataset}
    named |= {"setting": config.setting, "settings": config.described}
    keep(folder, config, Results(**named, epochs_run=77, test_examples=count))
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    (row,) = [row for row in rows_of(readme, "surrogate_csnn") if row[2] == "77"]
    assert row[0] == shown


def test_the_whole_test_sets_have_the_sizes_of_their_papers(tool):
    sizes = {**tool.WHOLE}
    assert sizes.pop("digits") == len(load("digits").test_labels)
    assert sizes.pop("lfw") == 246  # a fifth of the 1,230 images of 29 people
    assert set(sizes.values()) == {10_000}


def test_the_long_run_is_done_by_its_epochs(tool, readme, tmp_path):
    keep(tmp_path / "results/long/k1B2", LeNetScatter(), results(epochs_run=200))
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
    path.write_text(json.dumps(record))
    assert tool.main(arguments) == 2
    assert "config.json is missing; keep it beside results.json" in capsys.readouterr().err
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
    settled = dataclasses.replace(
        results(), system="negative_spikes", epochs_run=3, equality="exact after settling",
        ann_accuracy=0.7, snn_accuracy=0.7, accuracy_settled_step=31, last_spike_step=62,
        mismatches={"neurons": 0, "predictions": 0, "compared": 500},
        paper={"ann_accuracy": 0.9277, "snn_accuracy": 0.9277},
    )  # fmt: skip
    folder = tmp_path / "results/cifar10_cnn1/anything"
    words = "--k 1 --epochs 3 --validation 0 --data-dir /home/me"
    keep(folder, NegativeSpikesCnn1(epochs=3, validation=0), settled, words)
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    (row,) = [row for row in rows_of(readme, "negative_spikes") if row[2] == "3"]
    assert row[:2] == [
        "cifar10 cnn1, k1",
        "`python experiments/cifar10_cnn1.py --k 1 --epochs 3 --validation 0`",
    ]
    assert row[7:11] == ["exact after settling", "0, 0 of 500", "31", "62"]
    # A second phase is a command of its own, and a run that was cut short has not settled.
    config = NegativeSpikesCnn1(epochs=2, learning_rate=1e-4, noise_ratio=())
    unsettled = dataclasses.replace(settled, accuracy_settled_step=None)
    second = "--k 1 --epochs 2 --learning-rate 0.0001 --resume"
    keep(folder, config, unsettled, "--k 1", second)
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    (row,) = [row for row in rows_of(readme, "negative_spikes") if row[2] == "3"]
    script = "python experiments/cifar10_cnn1.py"
    assert row[1] == f"`{script} --k 1`, then `{script} {second}`"
    assert row[9] == "not settled"
    assert row[-2] == "92.77 % (missed by 22.77), 92.77 % (missed by 22.77)"
    assert len(rows_of(readme)) == 8


def test_a_network_of_few_bits_becomes_a_row_with_all_its_variants(tool, readme, tmp_path):
    variants = [
        Variant(kind=kind, accuracy=accuracy, steps=steps)
        for kind, accuracy, steps in (
            ("unsigned", 0.80, 7), ("signed", 0.97, 7), ("fine-tuned", 0.985, 7),
            ("settling", 0.98, 31),
        )
    ]  # fmt: skip
    paper = ("ann_accuracy", "unsigned_accuracy", "snn_accuracy", "finetuned_accuracy")
    folder = tmp_path / "results/fast_snn/alex_3bit"
    found = dataclasses.replace(
        results(), system="fast_snn", epochs_run=3, ann_accuracy=0.98, snn_accuracy=0.97,
        paper=dict(zip(paper, (0.9898, 0.7892, 0.9890, 0.9889), strict=True)), variants=variants,
    )  # fmt: skip
    config = FastSnn(bit=3, init="runs/fast_snn/alex_4bit", validation=0)
    words = "progressive --bit 3 --arch alex --validation 0"
    keep(folder, config, found, words)
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    (row,) = [row for row in rows_of(readme, "fast_snn") if row[2] == "3"]
    assert row[:2] == ["mnist, alex_3bit", f"`python experiments/fast_snn.py {words}`"]
    assert row[5:10] == ["98.00 %", "80.00 %", "97.00 %", "98.50 %", "98.00 % (31)"]
    assert row[-1] == (
        "98.98 % (missed by 0.98), 78.92 %, 98.90 % (missed by 1.90), 98.89 % (missed by 0.39)"
    )
    assert len(rows_of(readme, "fast_snn")) == 9  # a short run stands beside the paper's eight
    keep(folder, config, dataclasses.replace(found, epochs_run=300), words)
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    assert len(rows_of(readme, "fast_snn")) == 8  # as long as the paper's, it is one of them


def test_a_fused_network_becomes_a_row_with_what_it_saves(tool, readme, tmp_path):
    def entry(kind, share, accuracy, steps, energy):
        pj = None if energy is None else {"spikesim": energy}
        known = {"accuracy": accuracy, "steps": steps, "energy_pj_per_image": pj}
        return Variant(kind=kind, share=share, **known)

    folder, config = tmp_path / "results/bsf", BayesianSpikeFusion(steps=1000, epochs=4)
    variants = [
        entry("final", None, 0.98, 1000, 1e9), entry("grid", None, 0.982, 1000, 1e9),
        entry("empirical", None, 0.983, 1000, 1e9),
        entry("stop per image", None, 0.981, 123.4, 1e8),
        entry("final", 0.97, 0.961, 200, 2e8),
        entry("grid", 0.97, 0.962, 110, 1.2e8),
        entry("empirical", 0.97, 0.963, 120, 1.3e8),
        entry("final", 0.99, None, None, None),
        entry("grid", 0.99, 0.982, 900, 9e8),
        entry("empirical", 0.99, None, None, None),
    ]  # fmt: skip
    found = dataclasses.replace(
        results(),
        system="bayesian_spike_fusion", ann_accuracy=0.99, snn_accuracy=0.98, steps=1000,
        noise=None, variants=variants, paper={"energy_saving_percent": 38.8}, test_examples=500,
        equality="approximate", mismatches=None,
    )  # fmt: skip
    keep(folder, config, found, "all mnist vgg11 --epochs 4 --steps 1000")
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    row = rows_of(readme, "bayesian_spike_fusion")[0]
    assert row[0] == "mnist, mnist_vgg11_ic3 (500 test images)"
    words = "all mnist vgg11 --epochs 4 --steps 1000"
    assert row[1] == f"`python experiments/bayesian_spike_fusion.py {words}`"
    assert row[7:13] == [
        "1,000", "98.20 %", "98.30 %", "200, 110 (40.0 %), 120 (35.0 %)", "not reached",
        "98.10 %, 123.4",
    ]  # fmt: skip
    assert row[-1] == "38.8 %"


def test_a_row_has_the_command_that_was_typed_or_none(tool, readme, tmp_path):
    """A run from before commands were kept: its settings are known, its command is not made up."""
    keep(tmp_path / "results/mnist_lenet/k1B2", LeNetScatter(), results())
    assert tool.main(["--readme", str(readme), "--results", str(tmp_path / "results")]) == 0
    (row,) = [row for row in rows_of(readme) if row[2] == "15"]
    assert row[1] == "–"


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("**/config.json")), ids=str)
def test_the_commands_that_are_kept_give_the_settings_that_are_kept(tool, path):
    kept = json.loads(path.read_text())
    kind = tool.CONFIGS[kept["experiment"]]
    config, phases = from_json(kind, path.read_text(), str(path))
    for phase in phases:
        stage, asked = parse_command(kind, phase["argv"], stages_of(kept["experiment"]))
        named = [config.described, asked.described]
        if stage == "progressive":  # every width: the last is the narrowest
            named[1] = asked.widths()[-1].described
        assert named[0] == named[1]
        for name in ("dataset", "batch_size", "learning_rate", "schedule", "validation", "seed"):
            assert getattr(asked, name) == getattr(config, name), name


def test_the_wanted_runs_name_only_flags_that_exist(tool):
    rows = [tool.wanted_row(line, table) for table in tool.TABLES for line in table.wanted]
    assert len(rows) == 8 + 24 + 2 + 8 + 3
    for row in rows:
        assert not row.commands[0] or row.commands[0][0].startswith(("--", "progressive"))
        assert row.paper is not None or row.config.dataset in ("mnist", "nmnist")
