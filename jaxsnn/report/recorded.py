"""Files that a run leaves beside its results, read with their types checked."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import TypedDict

from jaxsnn.io.files import read_object
from jaxsnn.io.typed_json import from_text
from jaxsnn.types import JsonObject


class LayerGap(TypedDict):
    """A spiking layer's distance from the ANN in the parts of :class:`jaxsnn.equality.gaps.Gap`."""

    site: str
    clipping: float
    quantisation: float
    wrong_order: float
    inherited: float


class LayerTuned(TypedDict):
    """Fine-tuning of a layer: losses and accuracies by epoch, and whether its weights were kept."""

    site: str
    losses: list[float]
    accuracies: list[float]
    kept: bool


@dataclass(frozen=True)
class _Drawn:
    """What figures need of fine-tuning; its file has more."""

    layers: list[LayerTuned]
    test_accuracy_before: float | None = None
    test_accuracy_after: float | None = None


def read_gaps(path: str | Path) -> list[LayerGap]:
    """Content of ``gaps.json``: site and four parts of every layer.

    Raises:
        UserError: a broken file, or an entry of another type; the message names both.
        FileNotFoundError: there is no such file.
    """
    return from_text(list[LayerGap], Path(path).read_bytes(), path)


def read_finetune(path: str | Path) -> JsonObject:
    """Content of ``finetune.json``, which has a record of every tuned layer in ``layers``.

    Raises:
        UserError: a broken file, or an entry of another type; the message names both.
        FileNotFoundError: there is no such file.
    """
    content = read_object(path)
    names = {field.name for field in dataclasses.fields(_Drawn)}
    drawn = {name: value for name, value in content.items() if name in names}
    from_text(_Drawn, json.dumps(drawn), path)
    return content
