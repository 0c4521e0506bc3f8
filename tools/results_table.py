"""Write the results table of the README from the results.json files below a folder.

    python tools/results_table.py            # rewrite the section between the markers
    python tools/results_table.py --check    # status 1 where the section is not current

Each ``results/<experiment>/<setting>/results.json`` gives a row; a ``config.json`` beside it gives
the flags of its command. Runs of the paper's table that are not there yet stand as "not run".
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import NamedTuple

from jaxsnn.config import LeNetScatter, from_json
from jaxsnn.pipelines.scatter_gather import PAPER
from jaxsnn.results import Results, natural_key, read_results

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- results -->", "<!-- /results -->"
SCRIPT = "python experiments/mnist_lenet.py"
HEADINGS = (
    "data, setting", "command", "epochs", "device", "training", "ANN", "SNN", "equality",
    "differ: neurons, predictions", "spikes/image", "SOPs/image", "noise 10 %", "noise 20 %",
    "paper: ANN, SNN",
)  # fmt: skip
PLACES = frozenset({"data_dir", "out", "resume", "devices", "mode"})  # no result depends
PAPER_RUN = LeNetScatter(k=1, B=2, epochs=200, learning_rate=1e-4, schedule="constant")
WANTED = (
    LeNetScatter(precision="fp32"),
    *(LeNetScatter(k=k, B=B) for k in (0, 1) for B in (1, 2, 4)),
    PAPER_RUN,
)


class Row(NamedTuple):
    """One setting: its settings if they are known, and its results if it was run."""

    config: LeNetScatter
    results: Results | None


def command(config: LeNetScatter) -> str:
    """The command line of a run: what differs from the defaults for its data set.

    >>> command(LeNetScatter(k=0, B=1)), command(LeNetScatter(dataset="digits", epochs=2))
    ('python experiments/mnist_lenet.py --k 0 --B 1', \
'python experiments/mnist_lenet.py --dataset digits --k 1 --B 2 --epochs 2')
    """
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    defaults = LeNetScatter(dataset=config.dataset)
    flags = [] if config.dataset == "mnist" else [f"--dataset {Path(config.dataset).stem}"]
    if config.precision == "fp32":
        flags.append("--precision fp32")
    else:
        flags.append(f"--k {config.k} --B {config.B}")
    for name, value in fields.items():
        shown = PLACES | {"dataset", "k", "B", "precision"}
        if name not in shown and value != getattr(defaults, name):
            words = map(str, value) if isinstance(value, tuple) else [str(value)]
            flags.append(f"--{name.replace('_', '-')} {' '.join(words)}")
    return " ".join([SCRIPT, *flags])


def read_rows(folder: Path) -> list[Row]:
    """Rows of all results below a folder, and of the paper's runs that are not among them."""
    found = [read_row(path) for path in sorted(folder.glob("**/results.json"))]
    rows = found + [Row(config, None) for config in WANTED if not _done(config, found)]
    return sorted(rows, key=_order)


def read_row(path: Path) -> Row:
    """One results.json, with the config.json beside it.

    Raises:
        ValueError: a file that does not follow its schema, with its path.
    """
    results, place = read_results(path), path.with_name("config.json")
    if place.is_file():
        return Row(from_json(LeNetScatter, place.read_text(), str(place))[0], results)
    quantised = results.setting != "fp32"
    if not quantised:
        return Row(LeNetScatter(results.dataset, precision="fp32"), results)
    k, bound = results.setting.removeprefix("k").split("B")
    return Row(LeNetScatter(results.dataset, k=int(k), B=int(bound)), results)


def _done(config: LeNetScatter, found: list[Row]) -> bool:
    """Whether a run of the paper's table is there: the long one needs its many epochs."""
    same = [
        row.results
        for row in found
        if (row.config.dataset, row.config.setting) == ("mnist", config.setting)
    ]
    if config is not PAPER_RUN:
        return bool(same)
    return any((results.epochs_run or 0) >= (config.epochs or 0) for results in same if results)


def _order(row: Row) -> tuple[bool, str, list[tuple[int, str]], int]:
    config = row.config
    return (
        config.dataset != "mnist",
        config.dataset,
        natural_key(config.setting),
        config.epochs or 0,
    )


def cells(row: Row) -> list[str]:
    """The cells of a row, in the order of `HEADINGS`."""
    config, results = row
    name = f"{Path(config.dataset).stem}, {config.setting}"
    called = f"`{command(config)}`"
    if results is None:
        paper = PAPER.get(config.setting)
        return [name, called, "not run", *["–"] * (len(HEADINGS) - 4), _paper(paper)]
    differ = results.mismatches or {}
    ann = results.ann_accuracy if results.ann_accuracy is not None else results.float_ann_accuracy
    return [
        name,
        called,
        _count(results.epochs_run),
        results.device or "–",
        _duration((results.seconds or {}).get("train")),
        _percent(ann),
        _percent(results.snn_accuracy),
        results.equality or "–",
        f"{_count(differ['neurons'])}, {_count(differ['predictions'])}" if differ else "–",
        _count(results.spikes_per_image),
        _count(results.sops_per_image),
        _noise(results, 0.1),
        _noise(results, 0.2),
        _paper(results.paper, results),
    ]


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


def _paper(paper: dict[str, float] | None, results: Results | None = None) -> str:
    """The paper's accuracies, and by how many points ours misses them."""
    shown: list[str] = []
    for name, claimed in (paper or {}).items():
        ours = getattr(results, name) if results else None
        missed = ours is not None and ours < claimed
        shown.append(
            _percent(claimed) + (f" (missed by {100 * (claimed - ours):.2f})" if missed else "")
        )
    return ", ".join(shown) or "–"


def table(rows: list[Row]) -> str:
    """The section's Markdown, markers included."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(cells(row) for row in rows)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{START}\n{body}\n{END}"


def replaced(text: str, section: str, place: str) -> str:
    """The text with its section between the markers replaced.

    Raises:
        ValueError: the markers do not stand there once each, in order.
    """
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or START in rest or END in after:
        raise ValueError(f"{place} must hold {START} and {END}, once each and in this order")
    return before + section + after


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the section, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="folder of results")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="file to write")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    chosen = parser.parse_args(arguments)
    old = chosen.readme.read_text(encoding="utf-8")
    try:
        new = replaced(old, table(read_rows(chosen.results)), str(chosen.readme))
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
