"""Write the results tables of README.md and of the pages below docs/ from results.json files.

    python tools/results_table.py            # rewrite the sections between the markers
    python tools/results_table.py --check    # status 1 where a section is not current

Each ``results.json`` below ``results/`` gives a row; the ``config.json`` beside it has the commands
of its training. A section is written wherever its markers stand. Runs of the papers' tables that
have not been made are listed apart.
"""

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import result_cells as cell
from result_cells import Row

from jaxsnn.report import Results, read_results
from jaxsnn.systems import negative_spikes, scatter_gather
from jaxsnn.systems.bayesian_spike_fusion import system as bayesian_spike_fusion_system
from jaxsnn.systems.command_line import STAGES, parse_command
from jaxsnn.systems.config_file import from_json
from jaxsnn.systems.fast_snn import published as fast_snn_published
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
from jaxsnn.systems.settings.bring_your_own import BringYourOwn
from jaxsnn.systems.surrogate_csnn import system as surrogate_csnn_system

ROOT = Path(__file__).resolve().parent.parent
SYSTEMS = (
    *(LeNetScatter, NegativeSpikesMnist, NegativeSpikesCnn1, NegativeSpikesCnn2, NmnistCsnn),
    *(FastSnn, BayesianSpikeFusion),
)
CONFIGS: dict[str, type[Scripted]] = {one.experiment: one for one in SYSTEMS}
PROGRESSIVE = {**STAGES, "progressive": "every width"}
PAGES = "docs/systems"
BROUGHT = "docs/how_to/pytorch.md"
DOCUMENTS = (
    *(ROOT / "README.md", ROOT / "docs/results.md", ROOT / BROUGHT),
    *sorted((ROOT / PAGES).glob("*.md")),
)

Column = tuple[str, Callable[[Row], str]]


class Table(NamedTuple):
    """One system's table.

    Attributes:
        system: its name, in results and in the markers.
        columns: headings, and the cell of a row; at most seven.
        wanted: the runs of the paper's table as a script's name and its words; done by as many
            epochs.
        published: ``(data set, config) -> the paper's figures``.
    """

    system: str
    columns: tuple[Column, ...]
    wanted: tuple[str, ...]
    published: Callable[[str, Any], dict[str, Any] | None]


class Headline(NamedTuple):
    """One row of the README: the longest run of a setting.

    Attributes:
        title: the system in words.
        page: its page below ``docs/systems``.
        run: experiment, data set and setting.
        claim: the paper's result.
        ours: our result.
        equality: the certificate's word.
    """

    title: str
    page: str
    run: tuple[str, str, str]
    claim: Callable[[Row], str]
    ours: Callable[[Row], str]
    equality: Callable[[Row], str] = cell.equality


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
        and results.experiment != BringYourOwn.experiment
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
        experiments = ", ".join(CONFIGS)
        raise ValueError(f"{path}: unknown experiment {results.experiment!r}; known: {experiments}")
    place = path.with_name("config.json")
    if not place.is_file():
        raise ValueError(f"{place} is missing; keep it beside {path.name}")
    config, phases = from_json(kind, place.read_text(), str(place))
    words = [one["argv"] for one in phases]
    return Row(config, results, results.paper, words, path.parent)


def _names(config: Scripted) -> tuple[str, str]:
    return config.experiment, config.setting


def _done(config: Scripted, rows: list[Row]) -> bool:
    """Whether a run of the paper's table is there: as long, and on the whole test set."""
    return any(
        (row.config.dataset, *_names(row.config)) == (config.dataset, *_names(config))
        and not cell.tested(row)
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


RUNS: tuple[Column, ...] = (
    ("data, setting", cell.setting),
    ("command", cell.commands),
    ("training", cell.training),
    ("spikes/image", cell.of("spikes_per_image", cell.count)),
    ("SOPs/image", cell.of("sops_per_image", cell.count)),
    ("ANN's MACs/image", cell.of("ann_macs_per_image", cell.count)),
)
START: tuple[Column, ...] = (("data, setting", cell.setting), ("epochs", cell.epochs))
SNN: Column = ("SNN", cell.of("snn_accuracy", cell.percent))


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
        (*START, ("ANN", cell.ann), SNN, ("equality", cell.equality),
         ("noise 10 %, 20 %", cell.noises), ("paper: ANN, SNN", cell.paper_accuracies)),
        (
            "mnist_lenet --precision fp32",
            *(f"mnist_lenet --k {k} --B {B}" for k in (0, 1) for B in (1, 2, 4)),
            "mnist_lenet --k 1 --B 2 --epochs 200 --learning-rate 0.0001 --schedule constant",
        ),
        scatter_gather.published,
    ),
    Table(
        "negative_spikes",
        (*START, ("ANN", cell.ann), SNN, ("equality", cell.equality),
         ("settles at step; last spike", cell.settles_and_ends),
         ("paper: ANN, SNN; settles", cell.paper_settling)),
        (*_mnist_runs(), *_cifar_runs()),
        negative_spikes.published,
    ),
    Table(
        "surrogate_csnn",
        (*START, SNN, ("steps", cell.of("steps", cell.count)), *RUNS[3:5],
         ("original program", cell.paper_accuracies)),
        ("nmnist_csnn", "nmnist_csnn --spike True"),
        surrogate_csnn_system.published,
    ),
    Table(
        "fast_snn",
        (START[0], ("ANN", cell.ann),
         *((name, cell.variant(name)) for name in ("unsigned", "signed", "fine-tuned")),
         ("settling (last spike)", cell.variant("settling")),
         ("paper: ANN, unsigned, signed, fine-tuned", cell.paper_variants)),
        tuple(_fast_runs()),
        fast_snn_published.published,
    ),
    Table(
        "bayesian_spike_fusion",
        (START[0], ("ANN", cell.ann), ("final, fused: grid, empirical", cell.fused),
         *((f"steps to {share:.0%} of the ANN: final, grid, empirical (energy saved)",
            cell.at(share)) for share in (0.97, 0.99)),
         ("stop per image: accuracy, mean steps", cell.stopped),
         ("paper: energy saved, of the family over all data sets", cell.paper_saving)),
        (
            "bayesian_spike_fusion --arch vgg11 --epochs 200",
            "bayesian_spike_fusion --dataset cifar10 --arch vgg19",
            "bayesian_spike_fusion --dataset cifar10 --arch resnet18",
        ),
        bayesian_spike_fusion_system.published,
    ),
)  # fmt: skip


def _in_steps(row: Row) -> str:
    after = _after(row.results.accuracy_settled_step if row.results else None)
    return SNN[1](row) + after + cell.tested(row)


def _claimed_in_steps(row: Row) -> str:
    paper = row.paper or {}
    return cell.percent(paper.get("snn_accuracy")) + _after(paper.get("accuracy_settled_step"))


def _after(steps: int | None) -> str:
    return f" after {steps} steps" if steps and steps > 1 else ""


def _variants(row: Row) -> str:
    shown = [cell.variant(kind)(row) for kind in ("signed", "fine-tuned")]
    examples = cell.tested(row).replace(" test ", " ")
    return f"ANN {cell.ann(row)}, signed {shown[0]}, fine-tuned {shown[1]}{examples}"


def _claimed_variants(row: Row) -> str:
    paper = row.paper or {}
    fields = ("ann_accuracy", "snn_accuracy", "finetuned_accuracy")
    shown = [cell.percent(paper.get(field)) for field in fields]
    return f"ANN {shown[0]}, signed {shown[1]}, fine-tuned {shown[2]}"


def _settling(row: Row) -> str:
    """The words of two certificates: signed, and settling."""
    place = row.folder / "certificates.json" if row.folder else None
    if place is None or not place.is_file():
        return cell.equality(row)
    proof = json.loads(place.read_text(encoding="utf-8"))["settling"]
    return f"approximate; settling: {proof['equality']} ({proof['images']:,} images)"


def _saving(row: Row) -> str:
    """The energy that fusion saves, and the steps where each image stops by itself."""
    alone, fused = (cell.find(row, kind, 0.97) for kind in ("final", "grid"))
    stop = cell.find(row, "stop per image")
    if alone is None or fused is None or not alone.steps or not fused.steps or stop is None:
        return "–"
    saved = 100 * (1 - cell.spikesim(fused) / cell.spikesim(alone))
    steps = f"{stop.steps:.0f} steps where each image stops by itself"
    return f"{saved:.1f} % after short training; {steps}{cell.tested(row).replace(' test ', ' ')}"


HEADLINES = (
    Headline(
        "Scatter-and-gather: LeNet, MNIST, one step", "scatter_gather",
        ("mnist_lenet", "mnist", "k1B2"), _claimed_in_steps, _in_steps,
    ),
    Headline(
        "Negative spikes: LeNet, Fashion-MNIST", "negative_spikes",
        ("mnist_negative_spikes", "fashion_mnist", "lenet_k1"), _claimed_in_steps, _in_steps,
    ),
    Headline(
        "Negative spikes: CNN 1, CIFAR-10", "negative_spikes",
        ("cifar10_cnn1", "cifar10", "k1"), _claimed_in_steps, _in_steps,
    ),
    Headline(
        "Negative spikes: CNN 2, CIFAR-10", "negative_spikes",
        ("cifar10_cnn2", "cifar10", "k1"), _claimed_in_steps, _in_steps,
    ),
    Headline(
        "CSNN trained directly, MNIST", "surrogate_csnn",
        ("nmnist_csnn", "mnist", "static"), _claimed_in_steps, _in_steps,
    ),
    Headline(
        "Fast-SNN: AlexNet, MNIST, 2 bits, 3 steps", "fast_snn",
        ("fast_snn", "mnist", "alex_2bit"), _claimed_variants, _variants, _settling,
    ),
    Headline(
        "BayesianSpikeFusion: VGG11, MNIST", "bayesian_spike_fusion",
        ("bayesian_spike_fusion", "mnist", "mnist_vgg11_ic3"),
        lambda row: f"{cell.paper_saving(row)} less energy (VGGs)", _saving,
    ),
)  # fmt: skip
Sections = dict[str, Callable[[Path], str]]


def sections(results: Path) -> Sections:
    """Every section by its name: what it says in a document."""
    rows = {table.system: read_rows(results, table) for table in TABLES}
    every = [row for part in rows.values() for row in part]
    made: Sections = {
        table.system: functools.partial(_own, table, rows[table.system]) for table in TABLES
    }
    brought = list(_brought(results / BringYourOwn.experiment))
    made["summary"] = functools.partial(_summary, every, brought)
    made["brought"] = functools.partial(_methods, brought)
    for table in TABLES:
        made[f"{table.system} runs"] = functools.partial(_runs, rows[table.system])
    made["not run"] = functools.partial(_not_run, every)
    return made


def _table(columns: Iterable[Column], rows: Iterable[Row]) -> str:
    columns = list(columns)
    return _markdown(
        [name for name, _ in columns], [[of(row) for _, of in columns] for row in rows]
    )


def _markdown(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _own(table: Table, rows: list[Row], document: Path) -> str:
    del document
    return _table(table.columns, [row for row in rows if row.results])


def _runs(rows: list[Row], document: Path) -> str:
    links: Column = ("files", functools.partial(cell.files, document=document))
    return _table([*RUNS, links], [row for row in rows if row.results])


def _not_run(rows: list[Row], document: Path) -> str:
    del document
    columns: list[Column] = [RUNS[0], ("paper", cell.paper), RUNS[1]]
    return _table(columns, [row for row in rows if row.results is None])


class Brought(NamedTuple):
    """A network that somebody else trained, under every method that was tried.

    Attributes:
        results: of the method that was taken.
        accuracy: of the network as it is.
        trials: a row for each method, as ``comparison.json`` has it.
    """

    results: Results
    accuracy: float
    trials: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """Data and network, and how many test images where it is not all of them."""
        data, tested = self.results.dataset, self.results.test_examples
        part = "" if tested == cell.WHOLE.get(data) else f" ({tested:,} test images)"
        return f"{self.results.settings.network}, {data}{part}"


def _brought(folder: Path) -> Iterator[Brought]:
    """Every network below a folder, whatever its runs' folders are called."""
    networks = [read_brought(path) for path in sorted(folder.glob("*/results.json"))]
    yield from sorted(networks, key=lambda one: one.title)


def read_brought(path: Path) -> Brought:
    """One results.json of ``python -m jaxsnn convert``, with the comparison.json beside it.

    Raises:
        ValueError: a file that is missing or does not follow its schema, with its path.
    """
    place = path.with_name("comparison.json")
    if not place.is_file():
        raise ValueError(f"{place} is missing; keep it beside {path.name}")
    compared = json.loads(place.read_text(encoding="utf-8"))
    return Brought(read_results(path), compared["accuracy"], compared["trials"])


def _methods(networks: list[Brought], document: Path) -> str:
    """A row for each network and method that applies."""
    del document
    headings = ["network, data", "as given", "method", "quantised", "spiking", "equality",
                "within 0.1 point from step; last spike"]  # fmt: skip
    return _markdown(
        headings,
        [
            [one.title, cell.percent(one.accuracy), *_method(trial)]
            for one in networks
            for trial in one.trials
            if not trial["reason"]
        ],
    )


def _method(trial: dict[str, Any]) -> list[str]:
    options = f" ({trial['options']})" if trial["options"] else ""
    images = f" ({trial['certified']:,} images)" if trial["certified"] else ""
    ends = [cell.count(trial[name]) for name in ("settled_step", "last_spike_step")]
    return [
        f"{trial['method']}{options}",
        *(cell.percent(trial[name]) for name in ("quantised_accuracy", "accuracy")),
        f"{trial['equality'] or '–'}{images}",
        "; ".join(ends),
    ]


def _taken(one: Brought, document: Path) -> list[str]:
    """The README's row of a network that somebody else trained: the method that was taken."""
    page = Path(os.path.relpath(ROOT / BROUGHT, document.parent)).as_posix()
    proof = cell.equality_of(one.results)
    spiking = cell.percent(one.results.snn_accuracy)
    after = _after(one.results.accuracy_settled_step)
    title = f"Somebody's {one.title}, {one.results.setting}"
    return [title, cell.percent(one.accuracy), spiking + after, proof, f"[page]({page})"]


def _best(networks: list[Brought]) -> list[Brought]:
    """Of every network the way to convert it that came out most accurate."""
    best: dict[str, Brought] = {}
    for one in networks:
        if one.title not in best or _accuracy(one) > _accuracy(best[one.title]):
            best[one.title] = one
    return list(best.values())


def _accuracy(one: Brought) -> float:
    return one.results.snn_accuracy or 0.0


def _summary(rows: list[Row], brought: list[Brought], document: Path) -> str:
    lines = [_headline(one, rows, document) for one in HEADLINES]
    lines += [_taken(one, document) for one in _best(brought) if one.results.dataset == "cifar10"]
    return _markdown(["system", "the paper's", "ours", "equality", ""], lines)


def _headline(one: Headline, rows: list[Row], document: Path) -> list[str]:
    page = Path(os.path.relpath(ROOT / PAGES / f"{one.page}.md", document.parent)).as_posix()
    made = [row for row in rows if row.results and _run(row) == one.run]
    row = max(made, key=lambda row: row.results.epochs_run or 0) if made else None
    if row is None:
        return [one.title, "–", "not run", "–", f"[page]({page})"]
    published = next(table for table in TABLES if table.system == one.page).published
    claimed = row._replace(paper=row.paper or published(one.run[1], row.config))
    return [one.title, one.claim(claimed), one.ours(row), one.equality(row), f"[page]({page})"]


def _run(row: Row) -> tuple[str, str, str]:
    return row.config.experiment, Path(row.config.dataset).stem, row.config.setting


def markers(name: str) -> tuple[str, str]:
    """Where a section begins and ends."""
    return f"<!-- results: {name} -->", f"<!-- /results: {name} -->"


def replaced(text: str, name: str, section: str, place: str) -> str:
    """The text with what stands between a section's markers replaced.

    Raises:
        ValueError: the markers do not stand there once each, in order.
    """
    first, last = markers(name)
    before, start, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (start and end) or first in rest or last in after:
        raise ValueError(f"{place} must hold {first} and {last}, once each and in this order")
    return f"{before}{first}\n\n{section}\n\n{last}{after}"


def written(documents: Iterable[Path], made: Sections) -> dict[Path, tuple[str, str]]:
    """What every document says, and what it shall say.

    Raises:
        ValueError: a section whose markers stand in no document, or are broken.
    """
    texts: dict[Path, tuple[str, str]] = {}
    missing = set(made)
    for path in documents:
        old = new = path.read_text(encoding="utf-8")
        for name, section in made.items():
            if any(marker in old for marker in markers(name)):
                new = replaced(new, name, section(path), str(path))
                missing.discard(name)
        texts[path] = old, new
    if missing:
        lost = ", ".join(markers(name)[0] for name in sorted(missing))
        raise ValueError(f"no document holds {lost}")
    return texts


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the sections, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of results")
    parser.add_argument(
        "--documents", type=Path, nargs="+", default=DOCUMENTS, help="files with markers"
    )
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    chosen = parser.parse_args(arguments)
    try:
        texts = written(chosen.documents, sections(chosen.results))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    changed = {path: new for path, (old, new) in texts.items() if old != new}
    for path, new in changed.items():
        if chosen.check:
            print(f"{path}: results are not current; run tools/results_table.py")
        else:
            path.write_text(new, encoding="utf-8")
    return int(chosen.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
