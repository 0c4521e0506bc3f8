"""tools/results_table.py: every run becomes a row, wherever the markers of its table stand."""

import dataclasses
import json
from pathlib import Path

import pytest
import result_cells
import results_table as tool

from jaxsnn.data.by_name import load
from jaxsnn.report.results import Results, RunSettings, Variant, write_results
from jaxsnn.systems.config_file import to_json
from jaxsnn.systems.settings.bayesian_spike_fusion import BayesianSpikeFusion
from jaxsnn.systems.settings.conversion import LeNetScatter, NegativeSpikesCnn1
from jaxsnn.systems.settings.fast_snn import FastSnn
from jaxsnn.systems.settings.surrogate_csnn import NmnistCsnn


def test_the_results_table_is_current(capsys):
    assert tool.main(["--check"]) == 0, capsys.readouterr().out


SYSTEMS = (
    *("scatter_gather", "negative_spikes", "surrogate_csnn", "fast_snn"),
    "bayesian_spike_fusion",
)


SECTIONS = (*SYSTEMS, *(f"{one} runs" for one in SYSTEMS), "summary", "not run", "brought")


@pytest.fixture
def page(tmp_path):
    """A document with the markers of every section."""
    path = tmp_path / "page.md"
    sections = [f"<!-- results: {one} -->\nold\n<!-- /results: {one} -->\n" for one in SECTIONS]
    path.write_text("before\n" + "between\n".join(sections) + "after\n")
    return path


@pytest.fixture
def arguments(page, tmp_path):
    """What the tool is told: that document, and results of its own."""
    return ["--documents", str(page), "--results", str(tmp_path / "results")]


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


def rows_of(path, section="scatter_gather"):
    """Cells of a section's table, by heading."""
    start, end = tool.markers(section)
    lines = path.read_text(encoding="utf-8").split(start)[1].split(end)[0].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def summary_of(path, system):
    """The README's row of a system."""
    (row,) = [row for row in rows_of(path, "summary") if row["system"].startswith(system)]
    return row


def brought(folder, **changes):
    """What ``python -m jaxsnn convert`` leaves, for the tables."""
    named = {"experiment": "bring_your_own", "system": "signed_if", "dataset": "cifar10"}
    named |= {"settings": RunSettings(network="resnet20", bits=5), "test_examples": 10_000}
    named |= {"setting": "signed_if(bits=5)"}
    write_results(folder, results(**named, equality="exact after settling", paper=None, **changes))
    trial = {
        "method": "signed_if", "options": "bits=5", "reason": "", "quantised_accuracy": 0.9173,
        "accuracy": 0.9172, "equality": "exact after settling", "certified": 200,
        "settled_step": 40, "last_spike_step": 97,
    }  # fmt: skip
    refused = {"method": "scatter_gather", "reason": "units differ"}
    text = json.dumps({"accuracy": 0.9174, "images": 10_000, "trials": [refused, trial]})
    (folder / "comparison.json").write_text(text)


def test_networks_of_others_are_rows_of_their_own(arguments, page, tmp_path, capsys):
    folder = tmp_path / "results/bring_your_own/whatever"
    brought(folder, accuracy_settled_step=40, snn_accuracy=0.9172)
    assert tool.main(arguments) == 0
    (row,) = rows_of(page, "brought")
    assert list(row.values()) == [
        "resnet20, cifar10", "91.74 %", "signed_if (bits=5)", "91.73 %", "91.72 %",
        "exact after settling (200 images)", "40; 97",
    ]  # fmt: skip
    *_, last = rows_of(page, "summary")
    assert last["system"] == "Somebody's resnet20, cifar10, signed_if(bits=5)"
    assert (last["the paper's"], last["ours"]) == ("91.74 %", "91.72 % after 40 steps")
    assert not any("resnet20" in str(one) for one in rows_of(page, "negative_spikes"))
    brought(tmp_path / "results/bring_your_own/another", snn_accuracy=0.9126)
    assert tool.main(arguments) == 0
    assert len(rows_of(page, "brought")) == 2
    summary = [one["ours"] for one in rows_of(page, "summary") if "resnet20" in one["system"]]
    assert summary == ["91.72 % after 40 steps"]  # the better one
    (folder / "comparison.json").unlink()
    assert tool.main(arguments) == 2
    assert "comparison.json is missing" in capsys.readouterr().err


def test_without_results_all_rows_are_not_run(arguments, page):
    assert tool.main([*arguments, "--check"]) == 1
    assert tool.main(arguments) == 0
    assert tool.main([*arguments, "--check"]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert not any(rows_of(page, name) for name in (*SYSTEMS, *(f"{one} runs" for one in SYSTEMS)))
    assert {row["ours"] for row in rows_of(page, "summary")} == {"not run"}
    rows = rows_of(page, "not run")
    # scatter-and-gather: full precision, six settings, the paper's 200 epochs; negative spikes:
    # four settings each of LeNet and MLP on two data sets, of CNN 1 and of CNN 2
    assert len(rows) == 8 + 4 * 6 + 2 + 8 + 3
    commands = [row["command"] for row in rows]
    for k, bound in ((0, 2), (0, 4), (1, 1), (1, 4)):
        assert f"`python experiments/mnist_lenet.py --k {k} --B {bound}`" in commands
    (long,) = [command for command in commands if "--epochs 200 --learn" in command]
    assert "--learning-rate 0.0001 --schedule constant" in long
    papers = {row["data, setting"]: row["paper"] for row in rows}
    assert papers["cifar10 cnn1, k1"] == "92.77 %, 92.77 %; 57"
    assert papers["cifar10 cnn2, k2"] == "93.09 %, 93.09 %; not settled"
    assert papers["mnist, alex_2bit"] == "98.93 %, 14.62 %, 62.72 %, 81.78 %"
    assert papers["mnist, mnist_vgg11_ic3"] == "38.8 %"


def test_a_result_becomes_a_row_and_a_run(arguments, page, tmp_path):
    folder = tmp_path / "results/mnist_lenet/k1B2"
    config = LeNetScatter(batch_size=64, out="elsewhere")
    keep(folder, config, results(), "--k 1 B=2 --out elsewhere --batch-size 64")
    (folder / "metrics.jsonl").write_text("")
    assert tool.main(arguments) == 0
    (row,) = rows_of(page)
    assert row == {
        "data, setting": "mnist, k1B2", "epochs": "15", "ANN": "99.30 %", "SNN": "99.30 %",
        "equality": "exact (10,000 images)",
        "noise 10 %, 20 %": "98.50 % (2 seeds), 97.00 % (1 seed)",
        "paper: ANN, SNN": "99.37 % (missed by 0.07), 99.37 % (missed by 0.07)",
    }  # fmt: skip
    (run,) = rows_of(page, "scatter_gather runs")
    links = {name: f"[{name}](results/mnist_lenet/k1B2/" for name in ("results", "settings")}
    assert run == {
        "data, setting": "mnist, k1B2",
        "command": "`python experiments/mnist_lenet.py --k 1 B=2 --batch-size 64`",
        "training": "15.5 min, 2 cores", "spikes/image": "16,844", "SOPs/image": "3,240,042",
        "ANN's MACs/image": "–",
        "files": f"{links['results']}results.json), {links['settings']}config.json), "
        "[training](results/mnist_lenet/k1B2/metrics.jsonl)",
    }  # fmt: skip
    lists = [row["command"] for row in rows_of(page, "not run")]
    assert len([line for line in lists if "mnist_lenet" in line]) == 7  # the long one is not run


def test_the_readme_has_the_longest_run_of_each_system(arguments, page, tmp_path):
    for epochs, accuracy in ((15, 0.993), (30, 0.9925), (2, 0.995)):
        folder = tmp_path / f"results/mnist_lenet/{epochs}"
        actual = results(epochs_run=epochs, snn_accuracy=accuracy)
        keep(folder, LeNetScatter(), actual, f"--epochs {epochs}")
    assert tool.main(arguments) == 0
    row, *others = rows_of(page, "summary")
    assert row["ours"] == "99.25 %"
    assert row["the paper's"] == "99.37 %"
    assert row["equality"] == "exact (10,000 images)"
    assert {one["ours"] for one in others} == {"not run"}


def test_what_differs_is_said(arguments, page, tmp_path):
    differ = {"neurons": 1234, "predictions": 2, "compared": 100}
    actual = results(equality="approximate", mismatches=differ)
    keep(tmp_path / "results/mnist_lenet/k1B2", LeNetScatter(), actual)
    assert tool.main(arguments) == 0
    (row,) = rows_of(page)
    expected = "approximate: 1,234 neurons, 2 predictions differ (100 images)"
    assert row["equality"] == expected


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
    arguments, page, tmp_path, config, dataset, count, shown
):
    folder = tmp_path / "results/any/one"
    named = {"experiment": "nmnist_csnn", "system": "surrogate_csnn", "dataset": dataset}
    named |= {"setting": config.setting, "settings": config.described}
    keep(folder, config, Results(**named, epochs_run=77, test_examples=count))
    assert tool.main(arguments) == 0
    (row,) = rows_of(page, "surrogate_csnn")
    assert row["epochs"] == "77"
    assert row["data, setting"] == shown


def test_the_whole_test_sets_have_the_sizes_of_their_papers():
    sizes = {**result_cells.WHOLE}
    assert sizes.pop("digits") == len(load("digits").test_labels)
    assert sizes.pop("lfw") == 246  # a fifth of the 1,230 images of 29 people
    assert set(sizes.values()) == {10_000}


def test_the_long_run_is_done_by_its_epochs(arguments, page, tmp_path):
    keep(tmp_path / "results/long/k1B2", LeNetScatter(), results(epochs_run=200))
    assert tool.main(arguments) == 0
    lists = [row["command"] for row in rows_of(page, "not run") if "mnist_lenet" in row["command"]]
    assert len(lists) == 6
    assert not [line for line in lists if "--epochs 200" in line]


def test_broken_results_and_lost_markers_are_refused(arguments, page, tmp_path, capsys):
    path = write_results(tmp_path / "results/mnist_lenet/k1B2", results())
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "extra": 1}))
    before = page.read_text()
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
    page.write_text("nothing")
    assert tool.main(arguments) == 2
    assert "no document holds <!-- results: bayesian_spike_fusion -->" in capsys.readouterr().err
    page.write_text(before.replace("<!-- /results: fast_snn -->", ""))
    assert tool.main(arguments) == 2
    assert "must hold <!-- results: fast_snn --> and" in capsys.readouterr().err


def test_a_settled_run_becomes_a_row(arguments, page, tmp_path):
    settled = dataclasses.replace(
        results(), system="negative_spikes", epochs_run=3, equality="exact after settling",
        ann_accuracy=0.7, snn_accuracy=0.7, accuracy_settled_step=31, last_spike_step=62,
        mismatches={"neurons": 0, "predictions": 0, "compared": 500},
        paper={"ann_accuracy": 0.9277, "snn_accuracy": 0.9277},
    )  # fmt: skip
    folder = tmp_path / "results/cifar10_cnn1/anything"
    words = "--k 1 --epochs 3 --validation 0 --data-dir /home/me"
    keep(folder, NegativeSpikesCnn1(epochs=3, validation=0), settled, words)
    assert tool.main(arguments) == 0
    (row,) = rows_of(page, "negative_spikes")
    assert row["data, setting"] == "cifar10 cnn1, k1"
    assert row["equality"] == "exact after settling (500 images)"
    assert row["settles at step; last spike"] == "31; 62"
    (run,) = rows_of(page, "negative_spikes runs")
    script = "python experiments/cifar10_cnn1.py"
    assert run["command"] == f"`{script} --k 1 --epochs 3 --validation 0`"
    # A second phase is a command of its own, and a run that was cut short has not settled.
    config = NegativeSpikesCnn1(epochs=2, learning_rate=1e-4, noise_ratio=())
    unsettled = dataclasses.replace(settled, accuracy_settled_step=None)
    second = "--k 1 --epochs 2 --learning-rate 0.0001 --resume"
    keep(folder, config, unsettled, "--k 1", second)
    assert tool.main(arguments) == 0
    (row,) = rows_of(page, "negative_spikes")
    (run,) = rows_of(page, "negative_spikes runs")
    assert run["command"] == f"`{script} --k 1`, then `{script} {second}`"
    assert row["settles at step; last spike"] == "not settled; 62"
    missed = "92.77 % (missed by 22.77), 92.77 % (missed by 22.77)"
    assert row["paper: ANN, SNN; settles"] == missed


def test_a_network_of_few_bits_becomes_a_row_with_all_its_variants(arguments, page, tmp_path):
    variants = [
        Variant(kind=kind, accuracy=accuracy, steps=steps)
        for kind, accuracy, steps in (
            ("unsigned", 0.80, 7), ("signed", 0.97, 7), ("fine-tuned", 0.985, 7),
            ("settling", 0.98, 31),
        )
    ]  # fmt: skip
    paper = ("ann_accuracy", "unsigned_accuracy", "snn_accuracy", "finetuned_accuracy")
    folder = tmp_path / "results/fast_snn/alex_3bit"
    actual = dataclasses.replace(
        results(), system="fast_snn", epochs_run=3, ann_accuracy=0.98, snn_accuracy=0.97,
        paper=dict(zip(paper, (0.9898, 0.7892, 0.9890, 0.9889), strict=True)), variants=variants,
    )  # fmt: skip
    config = FastSnn(bit=3, init="runs/fast_snn/alex_4bit", validation=0)
    words = "progressive --bit 3 --arch alex --validation 0"
    keep(folder, config, actual, words)
    assert tool.main(arguments) == 0
    (row,) = rows_of(page, "fast_snn")
    assert [*row.values()] == [
        "mnist, alex_3bit", "98.00 %", "80.00 %", "97.00 %", "98.50 %", "98.00 % (31)",
        "98.98 % (missed by 0.98), 78.92 %, 98.90 % (missed by 1.90), 98.89 % (missed by 0.39)",
    ]  # fmt: skip
    (run,) = rows_of(page, "fast_snn runs")
    assert run["command"] == f"`python experiments/fast_snn.py {words}`"
    assert len(_wanted(page, "fast_snn")) == 8  # a short run stands beside the paper's eight
    keep(folder, config, dataclasses.replace(actual, epochs_run=300), words)
    assert tool.main(arguments) == 0
    assert len(_wanted(page, "fast_snn")) == 7  # as long as the paper's, it is one of them


def _wanted(page, script):
    return [row for row in rows_of(page, "not run") if f"/{script}.py" in row["command"]]


def test_a_certificate_of_another_variant_is_in_the_readme(arguments, page, tmp_path):
    folder = tmp_path / "results/fast_snn/alex_2bit"
    proof = {"equality": "exact after settling", "images": 100}
    differ = {"neurons": 3, "predictions": 0, "compared": 100}
    actual = results(system="fast_snn", equality="approximate", mismatches=differ)
    keep(folder, FastSnn(bit=2), actual, "progressive --bit 2")
    (folder / "certificates.json").write_text(json.dumps({"settling": proof}))
    assert tool.main(arguments) == 0
    row = summary_of(page, "Fast-SNN")
    assert row["equality"] == "approximate; settling: exact after settling (100 images)"
    (run,) = rows_of(page, "fast_snn runs")
    assert "[certificates](results/fast_snn/alex_2bit/certificates.json)" in run["files"]


def test_a_fused_network_becomes_a_row_with_what_it_saves(arguments, page, tmp_path):
    def entry(kind, share, accuracy, steps, energy):
        pj = None if energy is None else {"spikesim": energy}
        fields = {"accuracy": accuracy, "steps": steps, "energy_pj_per_image": pj}
        return Variant(kind=kind, share=share, **fields)

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
    actual = dataclasses.replace(
        results(),
        system="bayesian_spike_fusion", ann_accuracy=0.99, snn_accuracy=0.98, steps=1000,
        noise=None, variants=variants, paper={"energy_saving_percent": 38.8}, test_examples=500,
        equality="approximate", mismatches=None,
    )  # fmt: skip
    keep(folder, config, actual, "all mnist vgg11 --epochs 4 --steps 1000")
    assert tool.main(arguments) == 0
    (row,) = rows_of(page, "bayesian_spike_fusion")
    assert [*row.values()] == [
        "mnist, mnist_vgg11_ic3 (500 test images)", "99.00 %", "98.00 %, 98.20 %, 98.30 %",
        "200, 110 (40.0 %), 120 (35.0 %)", "not reached", "98.10 %, 123.4", "38.8 %",
    ]  # fmt: skip
    row = summary_of(page, "BayesianSpikeFusion")
    assert row["ours"].startswith("40.0 % after short training; 123 steps where each image")


def test_a_row_has_the_command_that_was_typed_or_none(arguments, page, tmp_path):
    """A run from before commands were kept: its settings are known, its command is not made up."""
    keep(tmp_path / "results/mnist_lenet/k1B2", LeNetScatter(), results())
    assert tool.main(arguments) == 0
    (run,) = rows_of(page, "scatter_gather runs")
    assert run["command"] == "–"


def test_the_wanted_runs_name_only_flags_that_exist():
    rows = [tool.wanted_row(line, table) for table in tool.TABLES for line in table.wanted]
    assert len(rows) == 8 + 24 + 2 + 8 + 3
    for row in rows:
        assert not row.commands[0] or row.commands[0][0].startswith(("--", "progressive"))
        assert row.paper is not None or row.config.dataset in ("mnist", "nmnist")


def test_no_table_is_wider_than_seven_columns():
    assert all(len(table.columns) <= 7 for table in tool.TABLES)
    assert len(tool.RUNS) == 6  # and the files
