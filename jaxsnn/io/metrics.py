"""metrics.jsonl: what training writes after every epoch, read back with its types checked."""

from __future__ import annotations

import math
from pathlib import Path

from jaxsnn.errors import UserError, shown
from jaxsnn.io.files import read_jsonl
from jaxsnn.types import JsonObject

WHOLE = ("epoch", "step")  # from 0
NUMBERS = (
    *("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"),
    *("test_accuracy", "learning_rate", "seconds"),
)


def read_metrics(path: str | Path) -> list[JsonObject]:
    """The last record of each epoch, in order.

    Raises:
        UserError: a line is no JSON object, or an epoch, a step, a loss, an accuracy, a rate or a
            time in it is no number. The message names the file, the record and the entry.
        FileNotFoundError: there is no such file.
    """
    records = read_jsonl(path, "epoch")
    for number, record in enumerate(records, start=1):
        for name in (*WHOLE, *NUMBERS):
            if not _is_number(record.get(name), name in WHOLE, name in record):
                raise UserError(
                    f"{path}, record {number}: {name} is {shown(record[name])}, not a number; "
                    "restore the file, or remove the line"
                )
    return records


def _is_number(value: object, whole: bool, there: bool) -> bool:
    """Whether an entry is as training writes it; what does not apply is None, or not there."""
    if whole:
        return not there or (type(value) is int and value >= 0)
    return value is None or (type(value) in (int, float) and math.isfinite(float(str(value))))
