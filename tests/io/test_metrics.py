"""metrics.jsonl: the last record of each epoch, and wrong types by file, record and entry."""

import json

import pytest

from jaxsnn.errors import UserError
from jaxsnn.io.metrics import read_metrics

GOOD = {"epoch": 1, "step": 10, "train_loss": 0.5, "validation_accuracy": None, "seconds": 1}


def write(folder, *records):
    path = folder / "metrics.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def test_the_last_record_of_an_epoch_counts(tmp_path):
    path = write(tmp_path, GOOD, {**GOOD, "epoch": 2}, {**GOOD, "epoch": 2, "step": 20})
    assert [record["step"] for record in read_metrics(path)] == [10, 20]


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("epoch", "1"), ("epoch", None), ("epoch", -1), ("epoch", 1.5), ("epoch", [1]),
        ("step", True), ("train_loss", "0.5"), ("train_loss", {}), ("validation_accuracy", [0.5]),
        ("seconds", "long"), ("learning_rate", False), ("train_accuracy", float("nan")),
    ],
)  # fmt: skip
def test_wrong_types_are_named(tmp_path, entry, value):
    path = write(tmp_path, GOOD, {**GOOD, "epoch": 2, entry: value})
    with pytest.raises(UserError, match=rf"metrics\.jsonl, (record|line) 2: {entry} is"):
        read_metrics(path)


@pytest.mark.parametrize("line", ["[" * 100_000, "3", "{"])
def test_lines_that_are_no_objects_are_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n{json.dumps(GOOD)}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: "):
        read_metrics(path)
