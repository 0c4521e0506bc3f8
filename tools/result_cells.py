"""The cells of the results tables: what one run's results.json says, as text.

Every cell is a function of a :class:`Row`; a dash stands where there is nothing to say.
"""

import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxsnn.report import Results
from jaxsnn.report.results import Variant
from jaxsnn.report.variants import PAPER
from jaxsnn.systems.settings import NegativeSpikesCnn1, Scripted

WHOLE = {
    "mnist": 10_000,
    "fashion_mnist": 10_000,
    "cifar10": 10_000,
    "nmnist": 10_000,
    "cifar100": 10_000,
    "tiny_imagenet": 10_000,
    "digits": 360,
    "lfw": 246,
}
"""Test examples of the data sets whose number is known."""
PLACES = ("out", "root", "data_dir", "data_path")
"""Flags that say where files are on somebody's machine."""
FUSED = ("grid", "empirical")
FILES = {
    "results.json": "results",
    "certificates.json": "certificates",
    "config.json": "settings",
    "metrics.jsonl": "training",
}
"""A run's files, and what the tables call them."""


class Row(NamedTuple):
    """One setting: its settings, its results if it was run, the paper's, the commands it takes.

    Attributes:
        config: its settings.
        results: None: not run.
        paper: what the paper has for it.
        commands: the words of each phase of its training.
        folder: where its files lie; None: not run.
    """

    config: Scripted
    results: Results | None
    paper: dict[str, Any] | None
    commands: Sequence[Sequence[str]]
    folder: Path | None = None


def command(experiment: str, words: Iterable[str]) -> str:
    """A command line as it was typed, but for the places of files.

    >>> command("mnist_lenet", ["--k", "0", "--out", "/somewhere", "data-dir=/else", "--resume"])
    'python experiments/mnist_lenet.py --k 0 --resume'
    """
    kept: list[str] = []
    dropped = False
    for word in words:
        name, equals, _ = word.lstrip("-").replace("-", "_").partition("=")
        flag = word.startswith("-") or bool(equals)
        if name in PLACES and flag:
            dropped = not equals
        elif not dropped:
            kept.append(word)
        else:
            dropped = False
    return " ".join([f"python experiments/{experiment}.py", shlex.join(kept)]).rstrip()


def commands(row: Row) -> str:
    """The command of every phase of training, in their order."""
    lines = [command(row.config.experiment, words) for words in row.commands]
    return ", then ".join(f"`{line}`" for line in lines) or "–"


def files(row: Row, document: Path) -> str:
    """Links to a run's files, from the folder of a document."""
    if row.folder is None:
        return "–"
    there = [(name, word) for name, word in FILES.items() if (row.folder / name).is_file()]
    start = document.parent
    return ", ".join(
        f"[{word}]({Path(os.path.relpath(row.folder / name, start)).as_posix()})"
        for name, word in there
    )


def percent(value: float | None) -> str:
    """A fraction as a percentage."""
    return "–" if value is None else f"{100 * value:.2f} %"


def count(value: float | None) -> str:
    """A whole number, its thousands apart."""
    return "–" if value is None else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """A time in minutes, or in seconds where it is short."""
    if seconds is None:
        return "–"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def noise(results: Results, ratio: float) -> str:
    """Mean accuracy over the seeds of a noise ratio."""
    for entry in results.noise or []:
        if entry["ratio"] == ratio:
            accuracies = entry["accuracy"]
            seeds = f"{len(accuracies)} seed{'s' if len(accuracies) > 1 else ''}"
            return f"{percent(sum(accuracies) / len(accuracies))} ({seeds})"
    return "–"


def setting(row: Row) -> str:
    """Data set and setting; of a script with one network its name, which no setting repeats."""
    alone = isinstance(row.config, NegativeSpikesCnn1)
    network = f" {row.config.described.network}" if alone else ""
    return f"{Path(row.config.dataset).stem}{network}, {row.config.setting}{tested(row)}"


def tested(row: Row) -> str:
    """How many test examples there were, unless they are the data set's whole test set."""
    examples = row.results.test_examples if row.results else None
    if examples in (None, WHOLE.get(Path(row.config.dataset).stem)):
        return ""
    what = "recording" if getattr(row.config, "spike", False) else "image"
    return f" ({examples:,} test {what}{'s' if examples != 1 else ''})"


def epochs(row: Row) -> str:
    """Epochs of training, over all phases."""
    return "–" if row.results is None else count(row.results.epochs_run)


def ann(row: Row) -> str:
    """Accuracy of the quantised ANN, or of the float one where that is the run."""
    if row.results is None:
        return "–"
    quantised = row.results.ann_accuracy
    return percent(row.results.float_ann_accuracy if quantised is None else quantised)


def equality(row: Row) -> str:
    """The certificate's word, what differs if something does, and on how many images."""
    return "–" if row.results is None else equality_of(row.results)


def equality_of(results: Results) -> str:
    """The same of results alone."""
    word, compared = results.equality, results.mismatches
    if word is None:
        return "–"
    if compared is None:
        return word
    images = f"{compared['compared']:,} images"
    if not compared["neurons"] and not compared["predictions"]:
        return f"{word} ({images})"
    neurons, predictions = f"{compared['neurons']:,}", f"{compared['predictions']:,}"
    return f"{word}: {neurons} neurons, {predictions} predictions differ ({images})"


def of(name: str, shown: Callable[[Any], str]) -> Callable[[Row], str]:
    """The cell of one field of the results."""

    def cell(row: Row) -> str:
        value = getattr(row.results, name) if row.results else None
        return "–" if value is None else shown(value)

    return cell


def settles(row: Row) -> str:
    """The first step from which the accuracy stays."""
    step = row.results.accuracy_settled_step if row.results else None
    spiking = row.results is not None and row.results.snn_accuracy is not None
    return str(step) if step is not None else "not settled" if spiking else "–"


def settles_and_ends(row: Row) -> str:
    """The step from which the accuracy stays, and that of the last spike."""
    last = row.results.last_spike_step if row.results else None
    return settles(row) if last is None else f"{settles(row)}; {last:,}"


def training(row: Row) -> str:
    """How long the training took, and on what."""
    if row.results is None:
        return "–"
    return f"{duration((row.results.seconds or {}).get('train'))}, {row.results.device or '–'}"


def paper_accuracies(row: Row) -> str:
    """The paper's accuracies, and by how many points ours misses them."""
    names = ("float_ann_accuracy", "ann_accuracy", "snn_accuracy")
    shown: list[str] = []
    for name in names:
        claimed, ours = (row.paper or {}).get(name), getattr(row.results, name, None)
        if claimed is not None:
            missed = f" (missed by {100 * (claimed - ours):.2f})" if ours and ours < claimed else ""
            shown.append(percent(claimed) + missed)
    return ", ".join(shown) or "–"


def find(row: Row, kind: str, share: float | None = None) -> Variant | None:
    """A variant of the run, if it has it."""
    return row.results.find(kind, share) if row.results else None


def variant(kind: str) -> Callable[[Row], str]:
    """The accuracy of a variant, and where it settles the step of the last spike."""

    def cell(row: Row) -> str:
        entry = find(row, kind)
        if entry is None:
            return "–"
        steps = f" ({entry.steps})" if kind == "settling" else ""
        return percent(entry.accuracy) + steps

    return cell


def at(share: float) -> Callable[[Row], str]:
    """Steps to a share of the ANN's accuracy, alone and fused, and the energy that fusion saves."""

    def cell(row: Row) -> str:
        final = find(row, "final", share)
        if final is None:
            return "–"
        if final.steps is None:
            return "not reached"
        shown = [f"{final.steps:,}"]
        for kind in FUSED:
            entry = find(row, kind, share)
            if entry is None or entry.steps is None:
                shown.append("not reached")
                continue
            saved = 1 - spikesim(entry) / spikesim(final)
            shown.append(f"{entry.steps:,} ({100 * saved:.1f} %)")
        return ", ".join(shown)

    return cell


def spikesim(entry: Variant) -> float:
    """Energy of an image by SpikeSim's numbers, in pJ."""
    return (entry.energy_pj_per_image or {})["spikesim"]


def stopped(row: Row) -> str:
    """Accuracy and mean steps where each image stops when it is sure."""
    entry = find(row, "stop per image")
    return f"{percent(entry.accuracy)}, {entry.steps:.1f}" if entry else "–"


def paper_saving(row: Row) -> str:
    """The energy that the paper's fusion saves."""
    saving = (row.paper or {}).get("energy_saving_percent")
    return "–" if saving is None else f"{saving:.1f} %"


def paper_variants(row: Row) -> str:
    """The paper's accuracies of ANN and variants, and by how many points ours miss them."""
    shown: list[str] = []
    for name, field in PAPER.items():
        claimed = (row.paper or {}).get(field)
        if claimed is None:
            continue
        entry = find(row, name)
        ours = entry and entry.accuracy
        if name == "quantised ANN":
            ours = row.results.ann_accuracy if row.results else None
        missed = ours is not None and ours < claimed
        shown.append(
            percent(claimed) + (f" (missed by {100 * (claimed - ours):.2f})" if missed else "")
        )
    return ", ".join(shown) or "–"


def paper_settling(row: Row) -> str:
    """The paper's accuracies, and the step from which its accuracy stays."""
    paper = row.paper or {}
    if "accuracy_settled_step" not in paper:
        return paper_accuracies(row)
    step = paper["accuracy_settled_step"]
    return f"{paper_accuracies(row)}; {'not settled' if step is None else step}"


def fused(row: Row) -> str:
    """Accuracy after all steps: the final classifier alone, and both fusions."""
    shown = [row.results.snn_accuracy if row.results else None]
    shown += [entry.accuracy if (entry := find(row, kind)) else None for kind in FUSED]
    return ", ".join(map(percent, shown))


def paper(row: Row) -> str:
    """What the paper has for a run that is not there."""
    published = row.paper or {}
    if "energy_saving_percent" in published:
        return paper_saving(row)
    return paper_variants(row) if "finetuned_accuracy" in published else paper_settling(row)


def noises(row: Row) -> str:
    """Mean accuracies at 10 and 20 % noise."""
    if row.results is None or not row.results.noise:
        return "–"
    return ", ".join(noise(row.results, ratio) for ratio in (0.1, 0.2))
