"""Write the results tables of the README from the results.json files below a folder.

    python tools/results_table.py            # rewrite the sections between the markers
    python tools/results_table.py --check    # status 1 where a section is not current

Each ``results/<experiment>/<setting>/results.json`` gives a row; a ``config.json`` beside it gives
the flags of its command. Runs of the papers' tables that are not there yet stand as "not run".
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxsnn.report import Results, read_results
from jaxsnn.report.results import natural_key
from jaxsnn.report.variants import PAPER
from jaxsnn.systems import negative_spikes, scatter_gather
from jaxsnn.systems.bayesian_spike_fusion import system as bayesian_spike_fusion_system
from jaxsnn.systems.config_file import from_json
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
PLACES = frozenset(
    {
        *("data_dir", "out", "resume", "devices", "mode"),
        *("init", "evaluate", "unsigned", "variants", "run", "exps", "target"),
    }
)
"""Settings on which no result depends, or that a table shows in its columns."""


class Row(NamedTuple):
    """One setting: its settings if they are known, its results if it was run, the paper's.

    ``phases`` are those of its training, as config.json has them.
    """

    config: Scripted
    results: Results | None
    paper: dict[str, Any] | None
    phases: list[dict[str, Any]] | None = None


class Table(NamedTuple):
    """One system's table.

    Attributes:
        system: its name, in results and in the markers.
        columns: headings, and the cell of a row.
        wanted: the runs of the paper's table, in the order of the rows; done by as many epochs.
        published: ``(data set, config) -> the paper's figures``.
    """

    system: str
    columns: tuple[tuple[str, Callable[[Row], str]], ...]
    wanted: tuple[Scripted, ...]
    published: Callable[[str, Any], dict[str, Any] | None]

    @property
    def markers(self) -> tuple[str, str]:
        """Where the section begins and ends."""
        return f"<!-- results: {self.system} -->", f"<!-- /results: {self.system} -->"


def command(config: Scripted) -> str:
    """The command line of a run: what differs from the defaults for its data set.

    >>> command(LeNetScatter(k=0, B=1)), command(LeNetScatter(dataset="digits", epochs=2))
    ('python experiments/mnist_lenet.py --k 0 --B 1', \
'python experiments/mnist_lenet.py --dataset digits --k 1 --B 2 --epochs 2')
    >>> command(NegativeSpikesMnist(arch="mlp", precision="fp32"))
    'python experiments/mnist_negative_spikes.py --arch mlp --precision fp32'
    >>> command(FastSnn(bit=3, init="runs/fast_snn/alex_4bit", epochs=4))
    'python experiments/fast_snn.py progressive --bit 3 --arch alex --epochs 4'
    >>> command(NmnistCsnn(spike=True)), command(NmnistCsnn(dataset="digits", lr_step=(5,)))
    ('python experiments/nmnist_csnn.py --spike True', \
'python experiments/nmnist_csnn.py --dataset digits --lr-step 5')
    """
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    kind: dict[str, Any] = {"spike": True} if fields.get("spike") else {}
    kind |= {name: fields[name] for name in ("bit",) if name in fields}
    kind |= {"arch": fields["arch"]} if "ic_index" in fields else {}  # which follows from it
    defaults = type(config)(dataset=config.dataset, **kind)
    course = type(config)(dataset=config.dataset, epochs=config.epochs, **kind)
    own = type(config)(**kind).dataset == config.dataset
    flags = [] if own else [f"--dataset {Path(config.dataset).stem}"]
    leading = [*kind, *(["arch"] if "arch" in fields and "arch" not in kind else [])]
    leading += ["precision"] if fields.get("precision") == "fp32" else ["k", "B"]
    flags += [f"--{name} {fields[name]}" for name in leading if name in fields]
    for name, value in fields.items():
        shown = PLACES | {"dataset", "arch", "k", "B", "precision"}
        usual = getattr(course if name == "lr_step" else defaults, name)
        if name not in shown and value != usual:
            words = map(str, value or (0,)) if isinstance(value, tuple) else [str(value)]
            flags.append(f"--{name.replace('_', '-')} {' '.join(words)}")
    stage, before = [], _started_from(config)
    if before == _wider(config):
        stage = ["progressive"] if before else []
    elif before:
        flags.append(f"--init {before}")
    return " ".join([f"python experiments/{config.experiment}.py", *stage, *flags])


def _started_from(config: Scripted) -> str:
    """Name of the run whose weights a run started from."""
    return Path(config.init).name if isinstance(config, FastSnn) else ""


def _wider(config: Scripted) -> str:
    """Name of the run of the next wider network, from which a run of all widths starts this one."""
    if not isinstance(config, FastSnn) or config.bit == 32:
        return ""
    return config.widths()[-2].setting


def commands(row: Row) -> str:
    """The command of every phase of training, the later ones resumed."""
    settings = ("epochs", "learning_rate", "schedule", "lr_step", "lr_factor")
    phases = [{name: one[name] for name in settings if name in one} for one in row.phases or []]
    phases = [
        one | {"lr_step": tuple(one["lr_step"])} if "lr_step" in one else one for one in phases
    ]
    lines = [command(dataclasses.replace(row.config, **phase)) for phase in phases]
    lines = lines or [command(row.config)]
    return ", then ".join([f"`{lines[0]}`", *(f"`{line} --resume`" for line in lines[1:])])


def read_rows(folder: Path, table: Table) -> list[Row]:
    """Rows of a system's results below a folder, and of the paper's runs not among them."""
    found = [
        read_row(path, results, table)
        for path in sorted(folder.glob("**/results.json"))
        if (results := read_results(path)).system == table.system
    ]
    missing = [config for config in table.wanted if not _done(config, found)]
    rows = [Row(c, None, table.published(Path(c.dataset).stem, c)) for c in missing]
    return sorted(found + rows, key=_order)


def read_row(path: Path, results: Results, table: Table) -> Row:
    """One results.json, with the config.json beside it.

    Raises:
        ValueError: a file that does not follow its schema, with its path.
    """
    place = path.with_name("config.json")
    if place.is_file():
        kind = CONFIGS.get(results.experiment)
        if kind is None:
            known = ", ".join(CONFIGS)
            raise ValueError(f"{path}: unknown experiment {results.experiment!r}; known: {known}")
        config, phases = from_json(kind, place.read_text(), str(place))
        return Row(config, results, results.paper, phases)
    same = [c for c in table.wanted if _names(c) == (results.experiment, results.setting)]
    if not same:
        raise ValueError(f"{place} is missing, and {results.setting} is no run of the paper")
    return Row(dataclasses.replace(same[0], dataset=results.dataset), results, results.paper)


def _names(config: Scripted) -> tuple[str, str]:
    return config.experiment, config.setting


def _done(config: Scripted, found: list[Row]) -> bool:
    """Whether a run of the paper's table is there: as long, and on the whole test set."""
    return any(
        (row.config.dataset, *_names(row.config)) == (config.dataset, *_names(config))
        and not _tested(row)
        and row.results is not None
        and (row.results.epochs_run or 0) >= (config.epochs or 0)
        for row in found
    )


def _order(row: Row) -> tuple[Any, ...]:
    config = row.config
    away = config.dataset != config.home
    course = natural_key(config.setting), config.epochs or 0
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
    network = (
        f" {row.config.experiment.removeprefix('cifar10_')}"
        if row.config.experiment.startswith("cifar10_")
        else ""
    )
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


def _variant(name: str) -> Callable[[Row], str]:
    """The accuracy of a variant, and where it settles the step of the last spike."""

    def cell(row: Row) -> str:
        entry = ((row.results and row.results.variants) or {}).get(name)
        if not entry:
            return "–"
        steps = f" ({entry['steps']})" if name == "settling" else ""
        return _percent(entry["accuracy"]) + steps

    return cell


def _at(share: str) -> Callable[[Row], str]:
    """Steps to a share of the ANN's accuracy, alone and fused, and the energy that fusion saves."""

    def cell(row: Row) -> str:
        variants = (row.results and row.results.variants) or {}
        own = {name: variants.get(f"{name}, {share} of the ANN") for name in FUSED}
        if own["final"] is None:
            return "–"
        if own["final"]["steps"] is None:
            return "not reached"
        alone = own["final"]["energy_pj_per_image"]["spikesim"]
        shown = [f"{own['final']['steps']:,}"]
        for name in FUSED[1:]:
            entry = own[name]
            if entry is None or entry["steps"] is None:
                shown.append("not reached")
                continue
            saved = 1 - entry["energy_pj_per_image"]["spikesim"] / alone
            shown.append(f"{entry['steps']:,} ({100 * saved:.1f} %)")
        return ", ".join(shown)

    return cell


def _stopped(row: Row) -> str:
    """Accuracy and mean steps where each image stops when it is sure."""
    entry = ((row.results and row.results.variants) or {}).get("stop per image")
    return f"{_percent(entry['accuracy'])}, {entry['steps']:.1f}" if entry else "–"


def _paper_saving(row: Row) -> str:
    saving = (row.paper or {}).get("energy_saving_percent")
    return "–" if saving is None else f"{saving:.1f} %"


def _paper_variants(row: Row) -> str:
    """The paper's accuracies of ANN and variants, and by how many points ours miss them."""
    variants = (row.results and row.results.variants) or {}
    shown: list[str] = []
    for name, field in PAPER.items():
        claimed = (row.paper or {}).get(field)
        if claimed is None:
            continue
        ours = variants.get(name, {}).get("accuracy")
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


FUSED = ("final", "grid", "empirical")
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


def _mnist_runs() -> Iterator[NegativeSpikesMnist]:
    for data in ("mnist", "fashion_mnist"):
        for arch in ("lenet", "mlp"):
            yield NegativeSpikesMnist(data, arch=arch, precision="fp32")
            yield from (NegativeSpikesMnist(data, arch=arch, k=k) for k in (0, 1, 2))


def _fast_runs() -> Iterator[FastSnn]:
    """Every width of the published table, trained after the wider ones."""
    for data, arch, bit in fast_snn_system.QUANTISED:
        batch = {"mnist": 512, "lfw": 128}[data]
        plain = FastSnn(data, arch=arch, bit=bit, epochs=300, batch_size=batch, validation=0)
        yield dataclasses.replace(plain, init=_wider(plain))


def _fused_runs() -> Iterator[BayesianSpikeFusion]:
    yield BayesianSpikeFusion(epochs=200)
    yield from (BayesianSpikeFusion("cifar10", arch=arch) for arch in ("vgg19", "resnet18"))


def _cifar_runs() -> Iterator[NegativeSpikesCnn1]:
    for kind in (NegativeSpikesCnn1, NegativeSpikesCnn2):
        full = kind(precision="fp32", epochs=100, schedule="constant", validation=0)
        yield full
        yield from (dataclasses.replace(full, precision="quantised", k=k) for k in (0, 1, 2))


TABLES = (
    Table(
        "scatter_gather",
        (*RUN, *COSTS, *((f"noise {100 * r:.0f} %", _noise_at(r)) for r in (0.1, 0.2)),
         ("paper: ANN, SNN", _paper_accuracies)),
        (
            LeNetScatter(precision="fp32"),
            *(LeNetScatter(k=k, B=B) for k in (0, 1) for B in (1, 2, 4)),
            LeNetScatter(k=1, B=2, epochs=200, learning_rate=1e-4, schedule="constant"),
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
        (NmnistCsnn(), NmnistCsnn(spike=True)),
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
         *((f"steps to {share} of the ANN: final, grid, empirical (energy saved)", _at(share))
           for share in ("97%", "99%")),
         ("stop per image: accuracy, mean steps", _stopped), *COSTS,
         ("paper: energy saved, of the family over all data sets", _paper_saving)),
        tuple(_fused_runs()),
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
