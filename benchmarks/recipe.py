"""What each part of the recipe ``fast`` is worth: CNN 1 with one part changed at a time.

A quarter of the network's channels, 6 epochs, trained on all training images but 5,000 of CIFAR-10;
accuracy of the ANN on those 5,000, and spikes of the first 500 of them until all is silent. The
test images are never seen.

    python benchmarks/recipe.py [--rows NAME ...] [--seeds 2] [--out runs/recipe] > recipe.jsonl
    python benchmarks/recipe.py --rows "as it is" norm_scale spike_penalty --seeds 5
    python benchmarks/recipe.py --show   # the table of what is done, in Markdown; computes nothing

A row's name may be its beginning: "norm_scale" is all rows of that part. A row and seed that is
done (record.json in its folder below --out) is not done again, and training that was stopped goes
on, so that the hours this takes may be spread; a folder holds runs of one width and one number of
epochs. --quick: two epochs on the embedded digits.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import numpy as np

from jaxsnn import data, evaluate, load_params
from jaxsnn.inputs import preprocess
from jaxsnn.io.files import read_object, write_json
from jaxsnn.systems.negative_spikes import NegativeSpikes
from jaxsnn.systems.settings import NegativeSpikesCnn1
from jaxsnn.training.task import evaluate as evaluate_ann

PLAIN = "as it is"
CHANGES: dict[str, dict[str, Any]] = {
    "optimiser adam": {"optimiser": "adam", "learning_rate": 2e-3},
    "optimiser sgd": {"optimiser": "sgd"},
    "learning_rate halved": {"learning_rate": 0.025},
    "learning_rate doubled": {"learning_rate": 0.1},
    "bias_learning_rate a third": {"bias_learning_rate": 0.01},
    "readout_learning_rate a third": {"readout_learning_rate": 0.01},
    "schedule cosine": {"schedule": "cosine"},
    "schedule constant": {"schedule": "constant"},
    "batch_size 128": {"batch_size": 128},
    "label_smoothing 0": {"label_smoothing": 0.0},
    "crop_radius 2": {"crop_radius": 2},
    "crop_radius 0": {"crop_radius": 0},
    "flip random": {"flip": "random"},
    "flip none": {"flip": "none"},
    "whitened no": {"whitened": False},
    "start normal": {"start": "normal"},
    "norm_scale trained": {"norm_scale": 0.0},
    "norm_scale 0.5": {"norm_scale": 0.5},
    "norm_scale 0.7": {"norm_scale": 0.7},
    "norm_scale 1.4": {"norm_scale": 1.4},
    "norm_momentum 0.9": {"norm_momentum": 0.9},
    "averaging 0.98": {"averaging": 0.98},
    "final_statistics 0": {"final_statistics": 0},
    "spike_penalty 0.01": {"spike_penalty": 0.01},
    "spike_penalty 0.03": {"spike_penalty": 0.03},
    "spike_penalty 0.1": {"spike_penalty": 0.1},
}
ROWS: dict[str, dict[str, Any]] = {PLAIN: {}, **CHANGES}
HELD = 5000  # images that accuracy is measured on
SPIKING = 500  # of them, those that are simulated
RECORD, COMMON = "record.json", "common.json"  # of a run, of all runs of a folder


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), help="names, or their beginnings")
    parser.add_argument("--seeds", type=int, default=2, help="runs of every row")
    parser.add_argument("--epochs", type=int, default=6, help="of a run")
    parser.add_argument("--width", type=float, default=0.25, help="of the network")
    parser.add_argument("--out", type=Path, default=Path("runs/recipe"), help="folder of the runs")
    parser.add_argument("--data-dir", default=None, help="folder of the data files")
    parser.add_argument("--show", action="store_true", help="the table of what is done, no more")
    parser.add_argument("--quick", action="store_true", help="two epochs on the embedded digits")
    options = parser.parse_args(argv)
    for name in options.rows:
        if not any(row.startswith(name) for row in ROWS):
            parser.error(f"--rows: none begins with {name!r}; there are {', '.join(ROWS)}")
    options.rows = [row for row in ROWS if row.startswith(tuple(options.rows))]
    path = options.out / COMMON
    if not options.show and path.is_file() and (held := read_object(path)) != common_to(options):
        parser.error(f"{options.out} holds runs of {held}; give the same, or another --out")
    return options


def common_to(options: argparse.Namespace) -> dict[str, Any]:
    """What all runs below a folder have in common."""
    return {"epochs": options.epochs, "width": options.width, "quick": options.quick}


def settings_of(options: argparse.Namespace, row: str, seed: int) -> NegativeSpikesCnn1:
    """The run of a row and a seed, below a folder of its own."""
    out = str(options.out / row.replace(" ", "_") / f"seed{seed}")
    asked: dict[str, Any] = {
        "dataset": "digits" if options.quick else "cifar10",
        "epochs": 2 if options.quick else options.epochs,
        "validation": 200 if options.quick else HELD,
        "width": 0.125 if options.quick else options.width,
        "limit_train": 712 if options.quick else None,
        **({"batch_size": 64} if options.quick else {}),
    }
    config = NegativeSpikesCnn1(
        recipe="fast", seed=seed, data_dir=options.data_dir, out=out, **asked | ROWS[row]
    )
    begun = (Path(out) / config.setting / "checkpoints").is_dir()
    return dataclasses.replace(config, resume=begun)


def measured(config: NegativeSpikesCnn1) -> dict[str, float]:
    """Train, or go on, and measure on the images that were held out, after the last epoch."""
    one = NegativeSpikes(config)
    with contextlib.redirect_stdout(sys.stderr):  # records alone go to stdout
        one.train()
    variables = load_params(one.run.folder / "model.npz", one.arch)
    held = data.split_validation(one.data, config.validation or 0)[2:]
    images, labels = preprocess.units_of(one.preprocessing, held[0]), held[1]
    accuracy = evaluate_ann(one.task, variables, held[0], labels, one.batch)["accuracy"]
    some, steps = slice(0, SPIKING), one.horizon.steps
    spiking = evaluate(
        one.converted(variables),
        images[some],
        labels[some],
        steps=steps,
        settle=True,
        batch_size=min(100, len(labels[some])),
    )
    history = [json.loads(line) for line in _lines(one.run.folder / "metrics.jsonl")]
    return {
        "accuracy": accuracy,
        "spikes": float(spiking.per_image_spikes.mean()),
        "last_spike": int(np.max(spiking.last_spike_step)),
        "train_accuracy": history[-1]["train_accuracy"],
        "seconds": round(sum(epoch["seconds"] for epoch in history), 1),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def of_row(options: argparse.Namespace, row: str) -> list[dict[str, Any]]:
    """Records of a row that are done, by seed."""
    folder = options.out / row.replace(" ", "_")
    return [read_object(path) for path in sorted(folder.glob(f"seed*/{RECORD}"))]


def table(options: argparse.Namespace) -> str:
    """What is done, in Markdown: means, and differences from the recipe as it is.

    Differences are between runs of the same seed; behind them stands half their range.
    """
    plain = {record["seed"]: record for record in of_row(options, PLAIN)}
    lines = [
        "| change | flags | runs | accuracy | difference | spikes an image | difference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in options.rows:
        records = of_row(options, row)
        if records:
            lines.append(_line(row, records, plain))
    return "\n".join(lines)


def _line(row: str, records: list[dict[str, Any]], plain: Mapping[int, dict[str, Any]]) -> str:
    flags = " ".join(f"`--{name.replace('_', '-')} {value}`" for name, value in ROWS[row].items())
    accuracy = statistics.mean(record["accuracy"] for record in records)
    spikes = statistics.mean(record["spikes"] for record in records)
    pairs = [(record, plain[record["seed"]]) for record in records if record["seed"] in plain]
    points = [100 * (one["accuracy"] - other["accuracy"]) for one, other in pairs]
    shares = [100 * (one["spikes"] / other["spikes"] - 1) for one, other in pairs]
    compared = bool(pairs) and row != PLAIN
    cells = (
        row,
        flags or "–",
        str(len(records)),
        f"{accuracy:.2%}",
        _difference(points, "points") if compared else "–",
        f"{spikes:,.0f}",
        _difference(shares, "%") if compared else "–",
    )
    return "| " + " | ".join(cells) + " |"


def _difference(values: list[float], unit: str) -> str:
    return f"{statistics.mean(values):+.2f} ± {(max(values) - min(values)) / 2:.2f} {unit}"


def main(argv: list[str] | None = None) -> int:
    """Run what is not done, and print the table."""
    options = arguments(argv)
    if not options.show:
        write_json(options.out / COMMON, common_to(options))
        report = common.Report("recipe", **common_to(options))
        for seed in range(options.seeds):  # every row once before any row twice
            for row in options.rows:
                config = settings_of(options, row, seed)
                path = Path(config.out) / RECORD
                if not path.is_file():
                    write_json(path, {"row": row, "seed": seed, **measured(config)})
                record = read_object(path)
                shown = f"{record['accuracy']:.2%}, {record['spikes']:,.0f} spikes"
                report.record(f"{row}, seed {seed}", shown, **record)
        report.show()
    print(table(options), file=sys.stdout if options.show else sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
