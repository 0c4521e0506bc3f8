"""Files that survive a kill, strict results, the environment and the closing table."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from jaxsnn.errors import UserError
from jaxsnn.io import environment, files
from jaxsnn.report import table
from jaxsnn.report.results import (
    Results,
    RunSettings,
    TrainedBy,
    Variant,
    read_results,
    write_results,
)
from jaxsnn.report.scan import Training, scan_results, scan_trainings
from jaxsnn.systems import original_files

# The fields of results.json in the order of the documentation.
# fmt: off
FIELDS = [
    "experiment", "system", "dataset", "setting", "settings", "argv", "training", "epochs_run",
    "test_examples",
    "float_ann_accuracy", "ann_accuracy", "snn_accuracy", "accuracy_per_step", "steps",
    "accuracy_settled_step", "last_spike_step", "undecided", "equality", "mismatches",
    "given_predictions",
    "spikes_per_image",
    "positive_spikes_per_image", "negative_spikes_per_image", "spikes_per_neuron",
    "sops_per_image", "ann_macs_per_image", "energy_pj_per_image", "layers", "variants",
    "noise", "paper", "seconds", "conversion", "precision", "device", "seed", "versions", "commit",
]
# fmt: on
LAYER = {
    "name": "conv1",
    "neurons": 10,
    "spikes_per_image": 4.0,
    "rate": 0.4,
    "silent": 0.1,
    "saturated": 0.0,
    "sops_per_image": None,
    "mismatches": 0,
}


def results(**changes: Any) -> Results:
    """A minimal record, with changes."""
    fields: dict[str, Any] = {
        "experiment": "mnist_lenet",
        "system": "scatter_gather",
        "dataset": "digits",
        "setting": "k1B2",
        "settings": RunSettings(network="lenet", k=1, bound=2),
    }
    return Results(**(fields | changes))


def test_json_converts_numpy_and_jax(tmp_path: Path):
    written = {
        "integer": np.int64(3),
        "half": np.float32(0.5),
        "flag": np.bool_(True),
        "array": np.arange(3, dtype=np.int8),
        "jax": jnp.ones((2, 1), jnp.float32),
        "pair": (1, None),
        "path": Path("a/b"),
    }
    expected = {
        "integer": 3,
        "half": 0.5,
        "flag": True,
        "array": [0, 1, 2],
        "jax": [[1.0], [1.0]],
        "pair": [1, None],
        "path": "a/b",
    }
    assert files.read_json(files.write_json(tmp_path / "new" / "a.json", written)) == expected


@pytest.mark.parametrize(
    ("obj", "where"),
    [
        ({"layers": [{"rate": 0.1}, {"rate": math.nan}]}, r"layers\[1\]\.rate is nan"),
        ({"a": {"b": np.array([1.0, np.inf])}}, r"a\.b\[1\] is inf"),
        (math.nan, "the value is nan"),
        ({"a": {1: 2}}, "key 1 in a"),
        ({"a": {1, 2}}, "a is a set"),
    ],
)
def test_json_refuses_by_key_path_and_keeps_the_old_file(tmp_path: Path, obj: Any, where: str):
    path = files.write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(ValueError, match=where):
        files.write_json(path, obj)
    assert files.read_json(path) == {"old": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = files.write_bytes(tmp_path / "a.txt", b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_bytes(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


KILLED_WRITER = """
import os, runpy, signal, sys
files = runpy.run_path(sys.argv[1])
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
files["write_bytes"](sys.argv[2], b"half")
"""


def test_the_next_write_removes_what_a_killed_one_has_left(tmp_path: Path):
    path = files.write_bytes(tmp_path / "model [1].npz", b"old")
    writer = subprocess.run(
        [sys.executable, "-c", KILLED_WRITER, files.__file__, str(path)], check=False
    )
    assert writer.returncode == -signal.SIGKILL
    (left,) = set(tmp_path.iterdir()) - {path}  # the killed process did write something
    assert left.name.startswith(".model [1].npz.")
    gone = left.name.split(".")[-2]
    others = {
        f".model [1].npz.{os.getppid()}.tmp",  # another process, which may still be writing
        f".other.npz.{gone}.tmp",
        ".model [1].npz.notes.tmp",
        f"model [1].npz.{gone}.tmp",
    }
    for name in others:
        (tmp_path / name).write_bytes(b"kept")
    files.write_bytes(path, b"new")
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, *others}
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b'{"a": 1} trailing'])
def test_a_broken_json_file_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        files.read_json(path)


@given(data=st.data())
def test_stream_survives_a_kill_at_any_byte(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    path = tmp_path_factory.mktemp("stream") / "metrics.jsonl"
    records = [{"step": step, "loss": 1.5 / (step + 1), "note": "größe"} for step in range(3)]
    for record in records:
        files.append_jsonl(path, record)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    # A record counts as soon as its closing brace is on disk.
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("}")]
    survivors = records[: sum(end <= cut for end in ends)]
    assert files.read_jsonl(path) == survivors
    files.append_jsonl(path, {"step": 99})
    assert files.read_jsonl(path) == [*survivors, {"step": 99}]


def test_stream_keeps_the_last_record_of_a_repeated_step(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    for step, loss in [(1, 0.9), (2, 0.8), (3, 0.7), (2, 0.6), (3, 0.5), (4, 0.4)]:
        files.append_jsonl(path, {"step": step, "loss": loss})
    expected = [(1, 0.9), (2, 0.6), (3, 0.5), (4, 0.4)]
    assert [(one["step"], one["loss"]) for one in files.read_jsonl(path)] == expected
    assert len(files.read_jsonl(path, key="epoch")) == 6


@pytest.mark.parametrize("line", ["{broken", "[1, 2]", ""])
def test_stream_with_a_broken_inner_line_is_refused(tmp_path: Path, line: str):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 2")):
        files.read_jsonl(path)


def test_stream_refuses_nan(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    files.append_jsonl(path, {"step": 1, "loss": 0.5})
    with pytest.raises(ValueError, match="loss is nan"):
        files.append_jsonl(path, {"step": 2, "loss": float("nan")})
    assert len(files.read_jsonl(path)) == 1


def test_results_has_exactly_the_documented_fields():
    assert [field.name for field in dataclasses.fields(Results)] == FIELDS
    assert list(results().to_json()) == FIELDS
    for name in FIELDS[5:]:
        assert results().to_json()[name] is None


def test_results_survive_the_file(tmp_path: Path):
    written = results(
        ann_accuracy=np.float32(0.5),
        steps=np.int64(1),
        layers=[LAYER],
        noise=[{"ratio": 0.1, "accuracy": [0.5, 0.25]}],
        mismatches={"neurons": 0, "predictions": 0, "compared": 10},
        variants=[Variant(kind="early", share=0.97, steps=31)],
        training=TrainedBy(recipe="fast", epochs=16, parts={"flip": "random", "lr_step": [1, 2]}),
        equality="exact",
    )
    path = write_results(tmp_path / "k1B2", written)
    assert path == tmp_path / "k1B2" / "results.json"
    assert read_results(path) == written


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda record: record.pop("settings"), "settings is missing"),
        (lambda record: record["settings"].pop("network"), "settings.network is missing"),
        (lambda record: record["settings"].update(k=True), "settings.k is True; expected a valid"),
        (lambda record: record.update(acuracy=1), "acuracy is unknown"),
        (lambda record: record.update(ann_accuracy=99.3), "ann_accuracy is 99.3; expected less"),
        (lambda record: record.update(steps="1"), "steps is '1'; expected a valid integer"),
        (lambda record: record.update(steps=True), "steps is True; expected a valid integer"),
        (lambda record: record.update(setting=3), "setting is 3; expected a valid string"),
        (lambda record: record.update(equality="equal"), "equality is 'equal'; expected 'exact'"),
        (lambda record: record["layers"][0].pop("silent"), "layers.0.silent is missing"),
        (lambda record: record["layers"][0].update(rat=1), "layers.0.rat is unknown"),
        (lambda record: record.update(layers=[3]), "layers.0 is 3"),
        (lambda record: record.update(paper={"accuracy": "x"}), "paper.accuracy is 'x'; expected"),
        (lambda record: record.update(seconds={"train": 1}), "seconds.compile is missing"),
        (lambda record: record.update(variants={"a": {}}), "variants is dict; expected a valid"),
        (lambda record: record.update(variants=[{}]), "variants.0.kind is missing"),
    ],
)
def test_results_refuse_what_is_not_in_the_schema(tmp_path: Path, edit: Any, message: str):
    record = results(layers=[LAYER]).to_json()
    edit(record)
    path = files.write_json(tmp_path / "results.json", record)
    with pytest.raises(UserError) as refusal:
        read_results(path)
    (line,) = str(refusal.value).splitlines()
    assert line.startswith(f"{path}: ")
    assert message in line


def test_results_that_could_not_be_read_again_are_not_written(tmp_path: Path):
    with pytest.raises(UserError, match=r"results.json: ann_accuracy is 99.3; expected"):
        write_results(tmp_path / "k1B2", results(ann_accuracy=99.3))
    assert list(tmp_path.iterdir()) == []


def test_a_variant_is_found_by_what_it_is():
    early, late = Variant(kind="final", share=0.97, steps=51), Variant(kind="final", steps=1000)
    row = results(variants=[early, late])
    assert (row.find("final"), row.find("final", 0.97)) == (late, early)
    assert row.find("final", 0.5) is row.find("early") is results().find("final") is None


def test_scan_sorts_settings_and_warns_of_broken_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for number, k in enumerate((10, None, 2)):  # as their numbers say, not as their folders do
        one = RunSettings(network="lenet", k=k, bound=None if k is None else 1)
        name = "fp32" if k is None else f"k{k}B1"
        write_results(tmp_path / f"run {number}", results(setting=name, settings=one))
    broken = tmp_path / "k0B1" / "results.json"
    broken.parent.mkdir()
    broken.write_text('{"experiment": "mnist')
    (tmp_path / "figs").mkdir()
    actual = scan_results(tmp_path)
    assert [row.setting for row in actual] == ["fp32", "k2B1", "k10B1"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert str(broken) in lines[0]
    assert scan_results(tmp_path / "missing") == []


def test_scan_trainings_leaves_out_broken_streams(tmp_path: Path):
    files.append_jsonl(tmp_path / "a" / "metrics.jsonl", {"epoch": 1})
    broken = tmp_path / "b" / "metrics.jsonl"
    broken.parent.mkdir()
    broken.write_text("x\n")
    warnings: list[str] = []
    expected = [Training(tmp_path / "a", "a", "", [{"epoch": 1}], [])]
    assert scan_trainings(tmp_path, warnings.append) == expected
    assert str(broken) in warnings[0]


def test_per_batch_files_have_one_integer_a_line(tmp_path: Path):
    total = 2**31 + 5  # beyond 32 bits
    paths = original_files.write_per_batch(
        tmp_path / "k1B2", np.array([199, 200]), [3_368_780.0, 3], np.array([total, 0])
    )
    assert [path.name for path in paths] == ["accuracy.txt", "spike_num.txt", "sop_num.txt"]
    assert [path.read_text() for path in paths] == [
        "199\n200\n",
        "3368780\n3\n",
        "2147483653\n0\n",
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([1], [2, 3], [4]), "'spike_num': 2"),
        (([1], [2.5], [4]), "spike_num: whole numbers"),
        (([1], [2], [float("nan")]), "sop_num: whole numbers"),
        (([-1], [2], [4]), "accuracy: -1 is negative"),
    ],
)
def test_per_batch_files_are_refused_before_any_is_written(
    tmp_path: Path, columns: Any, message: str
):
    with pytest.raises(ValueError, match=message):
        original_files.write_per_batch(tmp_path / "new", *columns)
    assert not (tmp_path / "new").exists()


def per_step(seed: int = 0) -> dict[str, np.ndarray]:
    """Random records of a simulation: 3 steps, 5 images."""
    rng = np.random.default_rng(seed)
    positive, negative = rng.integers(0, 2**31 - 1, (2, 3, 5))
    return {
        "correct": rng.integers(0, 2, (3, 5)) > 0,
        "spikes": positive + negative,
        "net": positive - negative,
        "operations": rng.integers(0, 2**40, (3, 5)),
    }


def test_per_step_files_are_batch_major_and_exact(tmp_path: Path):
    correct = np.array([[1, 0, 1, 1, 0], [1, 1, 1, 0, 0]], bool)
    spikes = np.array([[3, 1, 2, 4, 5], [2, 0, 1, 1, 1]])
    net = np.array([[3, 1, 2, 4, 5], [-2, 0, 1, -1, 1]])
    operations = np.array([[2**53, 1, 2, 3, 4], [1, 1, 1, 1, 10]])
    paths = original_files.write_per_step(
        tmp_path / "k1", correct, spikes, net, operations, batch=2
    )
    actual = {path.name: path.read_text().splitlines() for path in paths}
    # Batches of images 1-2, 3-4 and 5; two steps of each.
    assert actual == {
        "accuracy.txt": ["1", "2", "2", "1", "0", "0"],
        "spike_num.txt": ["4", "6", "6", "8", "5", "6"],
        "spike_collect.txt": ["4.0", "2.0", "6.0", "6.0", "5.0", "6.0"],
        "sop_num.txt": ["9007199254740993", "9007199254740995", "5", "7", "4", "14"],
    }
    assert sorted(file.name for file in (tmp_path / "k1").iterdir()) == sorted(actual)


@pytest.mark.parametrize("batch", [1, 2, 5, 7])
def test_per_step_files_hold_what_python_counts(tmp_path: Path, batch: int):
    arrays = per_step()
    narrow = arrays | {"net": arrays["net"].astype(np.int32)}  # their sums need 64 bits
    original_files.write_per_step(tmp_path, **narrow, batch=batch)
    expected: dict[str, list[str]] = {name: [] for name in arrays}
    for start in range(0, 5, batch):
        images = range(start, min(start + batch, 5))
        for step in range(3):
            for name, array in arrays.items():
                steps = [step] if name == "correct" else range(step + 1)
                total = sum(int(array[t, image]) for t in steps for image in images)
                expected[name].append(f"{total}.0" if name == "net" else str(total))
    files = ("accuracy", "spike_num", "spike_collect", "sop_num")
    for name, lines in zip(files, expected.values(), strict=True):
        assert (tmp_path / f"{name}.txt").read_text().splitlines() == lines


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net": np.zeros((3, 4), int)}, r"'net': \(3, 4\)"),
        ({name: np.zeros((0, 5), bool) for name in per_step()}, r"\[T, N\], is needed"),
        ({name: np.zeros(5, bool) for name in per_step()}, r"\[T, N\], is needed"),
        ({"correct": np.ones((3, 5))}, "correct is float64; give bool"),
        ({"spikes": np.ones((3, 5))}, "spikes is float64; give integers"),
        ({"spikes": np.full((3, 5), -1)}, "spikes: -1 is negative"),
        ({"spikes": np.zeros((3, 5), int)}, "more net spikes than spikes"),
        ({"batch": 0}, "batch is 0"),
    ],
)
def test_per_step_files_are_refused_before_any_is_written(
    tmp_path: Path, change: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        original_files.write_per_step(tmp_path / "new", **({**per_step(), "batch": 2} | change))
    assert not (tmp_path / "new").exists()


def test_phases_are_read_from_the_run_folders(tmp_path: Path):
    first = {"first_step": 0, "steps_per_epoch": 250}
    later = [{"first_step": 25_000, "steps_per_epoch": 250}, {"first_step": 30_000}]
    written = {"k0": [first], "k1": [first, later[0]], "k2": [first, later[1]]}
    for name, phases in written.items():
        files.write_json(tmp_path / name / "config.json", {"phases": phases})
    (tmp_path / "k3").mkdir()
    (tmp_path / "k3" / "config.json").write_text("{")
    for name in (*written, "k3"):
        files.append_jsonl(tmp_path / name / "metrics.jsonl", {"epoch": 1})
    begins = {run.name: run.begins for run in scan_trainings(tmp_path)}
    assert begins == {"k0": [], "k1": [100], "k2": [], "k3": []}


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder of a test."""
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_environment_names_the_commit_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text("x = 1\n")
    assert environment.environment(package)["commit"] is None
    git(tmp_path, "init", "--quiet")
    assert environment.environment(package)["commit"] is None  # no commit yet
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    assert environment.environment(package)["commit"] == head
    (tmp_path / "runs.txt").write_text("an output, not part of the program\n")
    assert environment.environment(package)["commit"] == head
    (package / "new.py").write_text("")
    assert environment.environment(package)["commit"] == f"{head}+dirty"
    (package / "new.py").unlink()
    (package / "module.py").write_text("x = 2\n")
    assert environment.environment(package)["commit"] == f"{head}+dirty"
    installed = tmp_path / "venv" / "site-packages" / "package"
    installed.mkdir(parents=True)
    assert environment.environment(installed)["commit"] is None


def test_environment_names_versions_and_device():
    actual = environment.environment()
    assert set(actual["versions"]) == {"python", "jax", "flax", "optax", "numpy", "jaxsnn"}
    assert actual["versions"]["numpy"] == np.__version__
    assert re.match(r"\d+ x \S", actual["device"])
    assert json.loads(json.dumps(actual)) == actual


def printed(*rows: Results) -> str:
    """The closing table as text, 80 characters wide."""
    file = io.StringIO()
    table.print_table(rows, console=Console(width=80, file=file))
    return file.getvalue()


def test_table_shows_the_papers_values_beside_ours_and_says_what_was_missed():
    line = {"snn": 4.36e6, "ann": 2.38e7, "encoder": 1e6, "break_even_rate": 4.79}
    text = printed(
        results(
            epochs_run=15,
            ann_accuracy=0.9935,
            snn_accuracy=0.9935,
            equality="exact",
            mismatches={"neurons": 0, "predictions": 0, "compared": 10_000},
            spikes_per_image=16_843.9,
            sops_per_image=3_240_042,
            energy_pj_per_image={"convention": line},
            seconds={"compile": 3.0, "train": 600.0, "simulate": None},
            paper={"snn_accuracy": 0.9937, "spikes_per_image": 17_000},
        ),
        results(setting="fp32", float_ann_accuracy=0.9953),
    )
    assert re.search(r"setting +k1B2 +paper +fp32", text)
    assert re.search(r"epochs +15 +- +-", text)
    assert re.search(r"SNN +99\.35 % +99\.37 % +-", text)
    assert re.search(r"float ANN +- +- +99\.53 %", text)
    assert re.search(r"equality +exact +- +-", text)
    assert re.search(r"neurons differ +0 +- +-", text)
    assert re.search(r"spikes/image +16,844 +17,000 +-", text)
    assert re.search(r"SOPs/image +3,240,042 +- +-", text)
    assert re.search(r"convention +4\.36/23\.8 +- +-", text)
    assert re.search(r"train \(s\) +600\.0 +- +-", text)
    assert text.count("missed") == 1
    assert "missed -0.02" in text
    assert "simulate" not in text  # no setting has a value


def test_table_shows_when_a_simulation_settles():
    text = printed(
        results(
            setting="k1",
            steps=100,
            accuracy_settled_step=56,
            last_spike_step=93,
            spikes_per_image=362_614.2,
            negative_spikes_per_image=92_766.7,
            snn_accuracy=0.93,
            paper={"snn_accuracy": 0.9277, "accuracy_settled_step": 57},
        ),
        results(setting="fp32"),
    )
    assert re.search(r"SNN +93\.00 % +92\.77 % +-", text)
    assert re.search(r"settles at step +56 +57 +-", text)
    assert re.search(r"last spike at +93 +- +-", text)
    assert re.search(r"negative +92,767 +- +-", text)
    assert "missed" not in text
    single = results(steps=1, accuracy_settled_step=1, last_spike_step=1)
    assert "settles" not in printed(single)
    assert "last spike" not in printed(single)


def test_table_of_two_settings_with_their_paper_fits_into_80_characters():
    line = {"snn": 1.29e9, "ann": 5.79e8, "encoder": 1e5, "break_even_rate": 0.917}
    paper = {"snn_accuracy": 0.9335, "spikes_per_image": 425_411.6, "sops_per_image": 649_162_632}
    fields = {"paper": paper, "energy_pj_per_image": {"integer": line}}
    rows = [results(setting=name, sops_per_image=1_240_000_042, **fields) for name in ("k1", "k2")]
    text = printed(*rows)
    assert re.search(r"SOPs/image( +1,240,000,042 +649,162,632){2}", text)
    assert max(map(len, text.splitlines())) <= 80


def test_table_of_four_settings_fits_into_80_characters():
    line = {"snn": 4.29e5, "ann": 5.79e5, "encoder": 1e5, "break_even_rate": 0.917}
    rows = [
        results(setting=setting, sops_per_image=3_240_042, energy_pj_per_image={"integer": line})
        for setting in ("k0B1", "k0B2", "k1B1", "k1B2")
    ]
    text = printed(*rows)
    assert re.search(r"integer( +0\.429/0\.579){4}", text)
    assert re.search(r"SOPs/image( +3,240,042){4}", text)
