"""Write the results tables of the README from the results.json files below a folder.

    python tools/results_table.py            # rewrite the sections between the markers
    python tools/results_table.py --check    # status 1 where a section is not current

Each ``results.json`` below ``results/`` gives a row; the ``config.json`` beside it has the commands
of its training. Runs of the papers' tables that are not there yet stand as "not run".
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxsnn.report import Results, read_results
from jaxsnn.report.results import Variant
from jaxsnn.report.variants import PAPER
from jaxsnn.systems import negative_spikes, scatter_gather
from jaxsnn.systems.bayesian_spike_fusion import system as bayesian_spike_fusion_system
from jaxsnn.systems.command_line import STAGES, parse_command
from jaxsnn.systems.config_file import from_json
from jaxsnn.systems.fast_snn import published as fast_snn_published
from jaxsnn.systems.fast_snn import system as fast_snn_system
from jaxsnn.systems.settings import (
    BayesianSpikeFusion,
    FastSnn,
    LeNetScatter,
    NegativeSpikesCnn1,
    NegativeSpikesCnn2,
    NegativeSpikesMnist,
    NmnistCsnn,
    Scripted,
)
from jaxsnn.systems.surrogate_csnn import system as surrogate_csnn_system

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = (
    *(LeNetScatter, NegativeSpikesMnist, NegativeSpikesCnn1, NegativeSpikesCnn2, NmnistCsnn),
    *(FastSnn, BayesianSpikeFusion),
)
CONFIGS: dict[str, type[Scripted]] = {one.experiment: one for one in SYSTEMS}
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
PROGRESSIVE = {**STAGES, "progressive": "every width"}


class Row(NamedTuple):
    """One setting: its settings, its results if it was run, the paper's, the commands it takes."""

    config: Scripted
    results: Results | None
    paper: dict[str, Any] | None
    commands: Sequence[Sequence[str]]


class Table(NamedTuple):
    """One system's table.

    Attributes:
        system: its name, in results and in the markers.
        columns: headings, and the cell of a row.
        wanted: the runs of the paper's table as a script's name and its words; done by as many
            epochs.
        published: ``(data set, config) -> the paper's figures``.
    """

    system: str
    columns: tuple[tuple[str, Callable[[Row], str]], ...]
    wanted: tuple[str, ...]
    published: Callable[[str, Any], dict[str, Any] | None]

    @property
    def markers(self) -> tuple[str, str]:
        """Where the section begins and ends."""
        return f"<!-- results: {self.system} -->", f"<!-- /results: {self.system} -->"


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


def wanted_row(line: str, table: Table) -> Row:
    """A run of the paper's table that is not there yet."""
    script, *words = line.split()
    _, config = parse_command(CONFIGS[script], words, PROGRESSIVE)
    return Row(config, None, table.published(Path(config.dataset).stem, config), [words])


def read_rows(folder: Path, table: Table) -> list[Row]:
    """Rows of a system's results below a folder, and of the paper's runs not among them."""
    done = [
        read_row(path, results)
        for path in sorted(folder.glob("**/results.json"))
        if (results := read_results(path)).system == table.system
    ]
    wanted = [wanted_row(line, table) for line in table.wanted]
    missing = [row for row in wanted if not _done(row.config, done)]
    return sorted(done + missing, key=_order)


def read_row(path: Path, results: Results) -> Row:
    """One results.json, with the config.json beside it.

    Raises:
        ValueError: a file that is missing or does not follow its schema, with its path.
    """
    kind = CONFIGS.get(results.experiment)
    if kind is None:
        known = ", ".join(CONFIGS)
        raise ValueError(f"{path}: unknown experiment {results.experiment!r}; known: {known}")
    place = path.with_name("config.json")
    if not place.is_file():
        raise ValueError(f"{place} is missing; keep it beside {path.name}")
    config, phases = from_json(kind, place.read_text(), str(place))
    words = [one["argv"] for one in phases]
    return Row(config, results, results.paper, words)


def _names(config: Scripted) -> tuple[str, str]:
    return config.experiment, config.setting


def _done(config: Scripted, rows: list[Row]) -> bool:
    """Whether a run of the paper's table is there: as long, and on the whole test set."""
    return any(
        (row.config.dataset, *_names(row.config)) == (config.dataset, *_names(config))
        and not _tested(row)
        and row.results is not None
        and (row.results.epochs_run or 0) >= (config.epochs or 0)
        for row in rows
    )


def _order(row: Row) -> tuple[Any, ...]:
    config = row.config
    away = config.dataset != config.home
    one = config.described
    numbers = one.bits or 0, -1 if one.k is None else one.k, one.bound or 0
    course = one.network, *numbers, config.setting, config.epochs or 0
    return list(CONFIGS).index(config.experiment), away, config.dataset, *course


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _noise(results: Results, ratio: float) -> str:
    for entry in results.noise or []:
        if entry["ratio"] == ratio:
            accuracies = entry["accuracy"]
            seeds = f"{len(accuracies)} seed{'s' if len(accuracies) > 1 else ''}"
            return f"{_percent(sum(accuracies) / len(accuracies))} ({seeds})"
    return "–"


def _setting(row: Row) -> str:
    """Data set and setting; of a script with one network its name, which no setting repeats."""
    alone = isinstance(row.config, NegativeSpikesCnn1)
    network = f" {row.config.described.network}" if alone else ""
    return f"{Path(row.config.dataset).stem}{network}, {row.config.setting}{_tested(row)}"


def _tested(row: Row) -> str:
    """How many test examples there were, unless they are the data set's whole test set."""
    count = row.results.test_examples if row.results else None
    if count in (None, WHOLE.get(Path(row.config.dataset).stem)):
        return ""
    what = "recording" if getattr(row.config, "spike", False) else "image"
    return f" ({count:,} test {what}{'s' if count != 1 else ''})"


def _epochs(row: Row) -> str:
    return "not run" if row.results is None else _count(row.results.epochs_run)


def _ann(row: Row) -> str:
    if row.results is None:
        return "–"
    quantised = row.results.ann_accuracy
    return _percent(row.results.float_ann_accuracy if quantised is None else quantised)


def _differ(row: Row) -> str:
    differ = row.results.mismatches if row.results else None
    if not differ:
        return "–"
    return f"{differ['neurons']:,}, {differ['predictions']:,} of {differ['compared']:,}"


def _of(name: str, shown: Callable[[Any], str]) -> Callable[[Row], str]:
    """The cell of one field of the results."""

    def cell(row: Row) -> str:
        value = getattr(row.results, name) if row.results else None
        return "–" if value is None else shown(value)

    return cell


def _settles(row: Row) -> str:
    step = row.results.accuracy_settled_step if row.results else None
    spiking = row.results is not None and row.results.snn_accuracy is not None
    return str(step) if step is not None else "not settled" if spiking else "–"


def _training(row: Row) -> str:
    return _duration((row.results.seconds or {}).get("train")) if row.results else "–"


def _paper_accuracies(row: Row) -> str:
    """The paper's accuracies, and by how many points ours misses them."""
    names = ("float_ann_accuracy", "ann_accuracy", "snn_accuracy")
    shown: list[str] = []
    for name in names:
        claimed, ours = (row.paper or {}).get(name), getattr(row.results, name, None)
        if claimed is not None:
            missed = f" (missed by {100 * (claimed - ours):.2f})" if ours and ours < claimed else ""
            shown.append(_percent(claimed) + missed)
    return ", ".join(shown) or "–"


def _find(row: Row, kind: str, share: float | None = None) -> Variant | None:
    return row.results.find(kind, share) if row.results else None


def _variant(kind: str) -> Callable[[Row], str]:
    """The accuracy of a variant, and where it settles the step of the last spike."""

    def cell(row: Row) -> str:
        entry = _find(row, kind)
        if entry is None:
            return "–"
        steps = f" ({entry.steps})" if kind == "settling" else ""
        return _percent(entry.accuracy) + steps

    return cell


def _at(share: float) -> Callable[[Row], str]:
    """Steps to a share of the ANN's accuracy, alone and fused, and the energy that fusion saves."""

    def cell(row: Row) -> str:
        final = _find(row, "final", share)
        if final is None:
            return "–"
        if final.steps is None:
            return "not reached"
        shown = [f"{final.steps:,}"]
        for kind in FUSED:
            entry = _find(row, kind, share)
            if entry is None or entry.steps is None:
                shown.append("not reached")
                continue
            saved = 1 - _spikesim(entry) / _spikesim(final)
            shown.append(f"{entry.steps:,} ({100 * saved:.1f} %)")
        return ", ".join(shown)

    return cell


def _spikesim(entry: Variant) -> float:
    return (entry.energy_pj_per_image or {})["spikesim"]


def _stopped(row: Row) -> str:
    """Accuracy and mean steps where each image stops when it is sure."""
    entry = _find(row, "stop per image")
    return f"{_percent(entry.accuracy)}, {entry.steps:.1f}" if entry else "–"


def _paper_saving(row: Row) -> str:
    saving = (row.paper or {}).get("energy_saving_percent")
    return "–" if saving is None else f"{saving:.1f} %"


def _paper_variants(row: Row) -> str:
    """The paper's accuracies of ANN and variants, and by how many points ours miss them."""
    shown: list[str] = []
    for name, field in PAPER.items():
        claimed = (row.paper or {}).get(field)
        if claimed is None:
            continue
        entry = _find(row, name)
        ours = entry and entry.accuracy
        if name == "quantised ANN":
            ours = row.results.ann_accuracy if row.results else None
        missed = ours is not None and ours < claimed
        shown.append(
            _percent(claimed) + (f" (missed by {100 * (claimed - ours):.2f})" if missed else "")
        )
    return ", ".join(shown) or "–"


def _paper_costs(row: Row) -> str:
    """The paper's settling step, spikes and operations."""
    paper = row.paper or {}
    if "spikes_per_image" not in paper:
        return "–"
    step = paper["accuracy_settled_step"]
    settled = "not settled" if step is None else str(step)
    return f"{settled}; {_count(paper['spikes_per_image'])}; {_count(paper['sops_per_image'])}"


def _noise_at(ratio: float) -> Callable[[Row], str]:
    return lambda row: _noise(row.results, ratio) if row.results else "–"


FUSED = ("grid", "empirical")
RUN = (
    ("data, setting", _setting),
    ("command", commands),
    ("epochs", _epochs),
    ("device", _of("device", str)),
    ("training", _training),
    ("ANN", _ann),
    ("SNN", _of("snn_accuracy", _percent)),
    ("equality", _of("equality", str)),
    ("differ: neurons, predictions, of images", _differ),
)
COSTS = (
    ("spikes/image", _of("spikes_per_image", _count)),
    ("SOPs/image", _of("sops_per_image", _count)),
)


def _mnist_runs() -> Iterator[str]:
    for data in ("mnist", "fashion_mnist"):
        words = "mnist_negative_spikes" + ("" if data == "mnist" else f" --dataset {data}")
        for arch in ("lenet", "mlp"):
            yield f"{words} --arch {arch} --precision fp32"
            yield from (f"{words} --arch {arch} --k {k}" for k in (0, 1, 2))


def _cifar_runs() -> Iterator[str]:
    course = "--recipe paper --epochs 100 --schedule constant --validation 0"
    for script in ("cifar10_cnn1", "cifar10_cnn2"):
        yield f"{script} --precision fp32 {course}"
        yield from (f"{script} --k {k} {course}" for k in (0, 1, 2))


def _fast_runs() -> Iterator[str]:
    """Every width of the published table, trained after the wider ones."""
    for data, arch, bit in fast_snn_published.QUANTISED:
        words = "fast_snn progressive" + ("" if data == "mnist" else f" --dataset {data}")
        batch = " --batch-size 512" if data == "mnist" else ""
        yield f"{words} --bit {bit} --arch {arch} --epochs 300{batch} --validation 0"


TABLES = (
    Table(
        "scatter_gather",
        (*RUN, *COSTS, *((f"noise {100 * r:.0f} %", _noise_at(r)) for r in (0.1, 0.2)),
         ("paper: ANN, SNN", _paper_accuracies)),
        (
            "mnist_lenet --precision fp32",
            *(f"mnist_lenet --k {k} --B {B}" for k in (0, 1) for B in (1, 2, 4)),
            "mnist_lenet --k 1 --B 2 --epochs 200 --learning-rate 0.0001 --schedule constant",
        ),
        scatter_gather.published,
    ),
    Table(
        "negative_spikes",
        (*RUN, ("settles at step", _settles),
         ("last spike at", _of("last_spike_step", _count)), *COSTS,
         ("paper: ANN, SNN", _paper_accuracies), ("paper: settles; spikes; SOPs", _paper_costs)),
        (*_mnist_runs(), *_cifar_runs()),
        negative_spikes.published,
    ),
    Table(
        "surrogate_csnn",
        (*RUN[:5], RUN[6], ("steps", _of("steps", _count)), *COSTS,
         ("original program", _paper_accuracies)),
        ("nmnist_csnn", "nmnist_csnn --spike True"),
        surrogate_csnn_system.published,
    ),
    Table(
        "fast_snn",
        (*RUN[:6], *((name, _variant(name)) for name in ("unsigned", "signed", "fine-tuned")),
         ("settling (last spike)", _variant("settling")), ("signed: equality", RUN[7][1]), RUN[8],
         *COSTS, ("paper: ANN, unsigned, signed, fine-tuned", _paper_variants)),
        tuple(_fast_runs()),
        fast_snn_system.published,
    ),
    Table(
        "bayesian_spike_fusion",
        (*RUN[:7], ("steps", _of("steps", _count)),
         ("fused: grid", _variant("grid")), ("fused: empirical", _variant("empirical")),
         *((f"steps to {share:.0%} of the ANN: final, grid, empirical (energy saved)", _at(share))
           for share in (0.97, 0.99)),
         ("stop per image: accuracy, mean steps", _stopped), *COSTS,
         ("paper: energy saved, of the family over all data sets", _paper_saving)),
        (
            "bayesian_spike_fusion --arch vgg11 --epochs 200",
            "bayesian_spike_fusion --dataset cifar10 --arch vgg19",
            "bayesian_spike_fusion --dataset cifar10 --arch resnet18",
        ),
        bayesian_spike_fusion_system.published,
    ),
)  # fmt: skip


def section(table: Table, rows: list[Row]) -> str:
    """The section's Markdown, markers included."""
    start, end = table.markers
    headings = [heading for heading, _ in table.columns]
    cells = [[cell(row) for _, cell in table.columns] for row in rows]
    body = "\n".join(
        f"| {' | '.join(line)} |" for line in [headings, ["---"] * len(headings), *cells]
    )
    return f"{start}\n{body}\n{end}"


def replaced(text: str, section: str, markers: tuple[str, str], place: str) -> str:
    """The text with its section between the markers replaced.

    Raises:
        ValueError: the markers do not stand there once each, in order.
    """
    before, start, rest = text.partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not (start and end) or start in rest or end in after:
        both = " and ".join(markers)
        raise ValueError(f"{place} must hold {both}, once each and in this order")
    return before + section + after


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the sections, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of results")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="file to write")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    chosen = parser.parse_args(arguments)
    old = new = chosen.readme.read_text(encoding="utf-8")
    try:
        for table in TABLES:
            text = section(table, read_rows(chosen.results, table))
            new = replaced(new, text, table.markers, str(chosen.readme))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if chosen.check:
        if old != new:
            print(f"{chosen.readme}: results are not current; run tools/results_table.py")
        return int(old != new)
    chosen.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
