"""What Fast-SNN leaves in a run's folder beside results.json; fine-tuning goes on after a kill."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from rich.console import Console
from rich.table import Table

from jaxsnn.equality.certificate import Certificate
from jaxsnn.equality.gaps import Gap
from jaxsnn.io import typed
from jaxsnn.io.arrays import (
    META,
    checksum,
    flatten,
    load_arrays,
    load_params,
    save_arrays,
    unflatten,
)
from jaxsnn.io.files import read_object, remove, write_json
from jaxsnn.io.terminal import show
from jaxsnn.report.results import Results, Variant, read_results, write_results
from jaxsnn.training import finetune, finetune_step
from jaxsnn.training.finetune import LayerRecord, Tuned, Tuner
from jaxsnn.types import Json, JsonObject

RECORD = "finetune.json"
WEIGHTS = "finetuned.npz"
GAPS = "gaps.json"
CERTIFICATES = "certificates.json"
UNFINISHED = "finetune_progress.npz"
SIMULATED = "simulated.json"


def tune(folder: Path, tuner: Tuner, images: np.ndarray, labels: np.ndarray, resume: bool) -> Tuned:
    """Fine-tune every layer; after each, what is done is kept, and ``resume`` goes on from there.

    What is done already is returned as it is.

    Raises:
        UserError: as :func:`jaxsnn.training.finetune.finetune_layer`, or a damaged file to go on
            from.
    """
    path, of = folder / UNFINISHED, identity(tuner, labels)
    if resume and tuned_alike(folder, of):
        return _finished(folder, tuner)
    tuned = _earlier(path, tuner, of) if resume and path.is_file() else None
    if tuned is None:
        tuned = finetune.begin(tuner, images, labels)
    for name in finetune_step.tuned_sites(tuner.ann)[len(tuned.layers) :]:
        tuned = finetune.finetune_layer(tuner, tuned, name, images, labels)
        reached = {"accuracy": tuned.accuracy, "before": tuned.before, **_layers(tuned)}
        save_arrays(path, _arrays(tuned), {"of": of, **reached})
    save_arrays(folder / WEIGHTS, _arrays(tuned), {})
    return tuned


def tuned_alike(folder: Path, of: JsonObject) -> bool:
    """Whether fine-tuning that began as ``of`` says is done, and none has begun since."""
    path = folder / RECORD
    done = path.is_file() and (folder / WEIGHTS).is_file() and not (folder / UNFINISHED).is_file()
    return done and read_object(path).get("of") == of


def reported(folder: Path) -> bool:
    """Whether results.json has the fine-tuned network beside the others."""
    results = _results(folder)
    return results is not None and results.find("fine-tuned") is not None


def record(
    folder: Path,
    tuner: Tuner,
    labels: np.ndarray,
    tuned: Tuned,
    variant: Variant,
    console: Console,
) -> None:
    """Write finetune.json with the accuracy before and after, and the variant of results.json.

    What a stopped run would have gone on from is then of no use.
    """
    results = _results(folder)
    signed = results and results.find("signed")
    before = signed and signed.accuracy
    content = {
        "test_accuracy_before": before,
        "test_accuracy_after": variant.accuracy,
        "training_accuracy_before": tuned.before,
        "training_accuracy_after": tuned.accuracy,
        **dataclasses.asdict(tuner.settings),
        **_layers(tuned),
        "of": identity(tuner, labels),
    }
    write_json(folder / RECORD, content)
    if results is not None:
        others = [one for one in results.variants or [] if one.kind != variant.kind]
        write_results(folder, dataclasses.replace(results, variants=[*others, variant]))
    remove(folder / UNFINISHED)
    shown = "" if before is None else f"{before:.2%} before, "
    show(f"fine-tuned: test accuracy {shown}{variant.accuracy or 0:.2%}", console)


def keep_certificate(folder: Path, variant: str, proof: Certificate, beside: bool) -> None:
    """Put a variant's verdict into certificates.json, beside those of others or alone."""
    path = folder / CERTIFICATES
    verdicts = read_object(path) if beside and path.is_file() else {}
    verdict = {
        "equality": proof.equality,
        "images": proof.images,
        "steps": proof.steps,
        "settled_step": proof.settled_step,
        "mismatches": {layer.site: layer.integer for layer in proof.layers},
        "predictions": proof.predictions,
        "given_predictions": proof.given_predictions,
    }
    write_json(path, {**verdicts, variant: verdict})


def write_gaps(folder: Path, split: Sequence[Gap], console: Console) -> None:
    """Write gaps.json, and print where the spiking network departs from its ANN."""
    write_json(folder / GAPS, [gap._asdict() for gap in split])
    table = Table(title="mean error as a share of the clip", box=None, pad_edge=False)
    for name in Gap._fields:
        table.add_column(name.replace("_", " "), justify="left" if name == "site" else "right")
    for gap in split:
        table.add_row(gap.site, *(f"{value:.4f}" for value in gap[1:]))
    show(table, console)


def _results(folder: Path) -> Results | None:
    path = folder / "results.json"
    return read_results(path) if path.is_file() else None


def _layers(tuned: Tuned) -> JsonObject:
    return {"layers": [dataclasses.asdict(one) for one in tuned.layers]}


def _arrays(tuned: Tuned) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in flatten(tuned.variables).items()}


def identity(tuner: Tuner, labels: np.ndarray) -> JsonObject:
    """What fine-tuning begins with: its settings, and checksums of weights and labels."""
    return {
        **dataclasses.asdict(tuner.settings),
        "weights": checksum(tuner.reference),
        "labels": zlib.crc32(np.ascontiguousarray(labels).tobytes()),
    }


def simulated_alike(folder: Path, of: JsonObject) -> JsonObject:
    """What results.json was made from, if that is ``of``; else nothing."""
    path = folder / SIMULATED
    content = read_object(path) if path.is_file() and (folder / "results.json").is_file() else {}
    return content if content.get("of") == of else {}


def note_simulated(folder: Path, of: JsonObject, variants: Sequence[str]) -> None:
    """Say what results.json was made from."""
    earlier = simulated_alike(folder, of).get("variants", [])
    write_json(folder / SIMULATED, {"of": of, "variants": sorted({*earlier, *variants})})


def _earlier(path: Path, tuner: Tuner, of: JsonObject) -> Tuned | None:
    """What an earlier call left, if it began alike."""
    arrays, meta = load_arrays(path)
    if meta.get("of") != of:
        return None
    variables = load_params(unflatten(arrays), tuner.reference)
    place = f"{path}, {META}"
    after = typed.entry(meta, "accuracy", float | None, place)
    before = typed.entry(meta, "before", float | None, place)
    return Tuned(variables, after, before, _records(meta, place))


def _finished(folder: Path, tuner: Tuner) -> Tuned:
    """What a run that came to its end has left."""
    variables = load_params(unflatten(load_arrays(folder / WEIGHTS)[0]), tuner.reference)
    content = read_object(folder / RECORD)
    place = str(folder / RECORD)
    after = typed.entry(content, "training_accuracy_after", float | None, place)
    before = typed.entry(content, "training_accuracy_before", float | None, place)
    return Tuned(variables, after, before, _records(content, place))


def _records(content: Mapping[str, Json], place: str) -> tuple[LayerRecord, ...]:
    layers = typed.entry(content, "layers", list[JsonObject], place)
    return tuple(
        typed.call(LayerRecord, {**one, **_tuples(one)}, f"{place}.layers[{number}]")
        for number, one in enumerate(layers)
    )


def _tuples(record: Mapping[str, Json]) -> JsonObject:
    """The lists of a record, as tuples."""
    return {
        name: tuple(cast("list[Json]", value))
        for name, value in record.items()
        if isinstance(value, list)
    }
