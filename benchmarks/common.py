"""What every benchmark shares: timing, real images, trained weights, records and goals.

Records go to stdout, one JSON object a line, each with device, versions and commit; a table of the
same numbers, with every goal as met or not met, goes to stderr.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import optax
from rich.table import Table
from rich.text import Text

from jaxsnn import Net, Options, Task, data, hidden, load_params, neurons, train
from jaxsnn.arch import zoo
from jaxsnn.conversion import float_ends
from jaxsnn.io.environment import environment
from jaxsnn.io.terminal import console, show
from jaxsnn.network import weight_quantisers
from jaxsnn.training import classification

BATCH = 128  # images of a training step


def arguments(
    description: str | None,
    argv: list[str] | None,
    more: Callable[[argparse.ArgumentParser], object] | None = None,
    weights: bool = False,
) -> Any:
    """Read the command line: --quick, --dataset, --data-dir, --weights where asked for, and more.

    ``more`` adds the arguments that one benchmark alone has.
    """
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few repeats on few images")
    parser.add_argument("--dataset", default="digits", help="digits, mnist, fashion_mnist, x.npz")
    parser.add_argument("--data-dir", default=None, help="folder of the data files")
    parser.add_argument("--cores", type=int, default=0, help="use so many processor cores (0: all)")
    if weights:
        parser.add_argument("--weights", default="", help="model.npz of a run with k=1, B=2")
    if more is not None:
        more(parser)
    options = parser.parse_args(argv)
    if options.cores:
        use_cores(options.cores)
    return options


def use_cores(count: int) -> None:
    """Stay on ``count`` processor cores; to be called before anything is computed.

    On a busy machine, numbers from one core are the comparable ones: threads that wait for each
    other lose far more time to other programs than a single thread does.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("--cores: this system cannot bind a process to cores; leave it away")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-count:])


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated calls, in order; ``first`` is the warm-up (with compilation)."""

    first: float
    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The fastest call."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The middle call."""
        return statistics.median(self.seconds)

    def over(self, other: Timing) -> float:
        """How many times as long as ``other``: median over the rounds in which both ran in turn."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return statistics.median(mine / its for mine, its in pairs)

    def record(self, images: int) -> dict[str, float | int]:
        """Fields of a record, for calls that take so many images."""
        return {
            "images": images,
            "repeats": len(self.seconds),
            "first_call_s": round(self.first, 4),
            "best_ms": round(1e3 * self.best, 4),
            "median_ms": round(1e3 * self.median, 4),
            "images_per_s": round(images / self.median, 1),
            "best_images_per_s": round(images / self.best, 1),
        }


def in_turn(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Timing]:
    """Time several functions one after the other, round by round, after a warm-up of each.

    A machine that gets slower or faster meanwhile does so for all, so that ratios stay meaningful.
    A function that returns a float has timed itself.
    """
    first = {name: once(run) for name, run in runs.items()}
    rounds = [{name: once(run) for name, run in runs.items()} for _ in range(repeats)]
    return {name: Timing(first[name], tuple(row[name] for row in rounds)) for name in runs}


def once(run: Callable[[], Any]) -> float:
    """Seconds of one call, until its result is there."""
    began = time.perf_counter()
    result = jax.block_until_ready(run())
    return result if isinstance(result, float) else time.perf_counter() - began


class Report:
    """Collects records and goals of one benchmark."""

    def __init__(self, benchmark: str, **about: Any) -> None:
        """``about`` goes into every record, beside where it was measured."""
        self.about = {"benchmark": benchmark, **about}
        self.where = environment()
        self.table = Table("what", "result", "goal", "", title=Text(benchmark))

    def record(self, name: str, shown: str, **fields: Any) -> None:
        """Print a JSON line; ``shown`` is its text in the table."""
        self._line(name, fields)
        self.table.add_row(name, shown)

    def goal(
        self, name: str, value: float, limit: float, *, at_least: bool, unit: str = ""
    ) -> bool:
        """Record a number beside its goal; returns whether it is met."""
        met = value >= limit if at_least else value <= limit
        sign = ">=" if at_least else "<="
        self._line(name, {"value": round(value, 4), "goal": f"{sign} {limit:g}", "met": met})
        word = Text("met", "green") if met else Text("not met", "red")
        self.table.add_row(name, f"{value:.3g}{unit}", f"{sign} {limit:g}{unit}", word)
        return met

    def show(self) -> None:
        """Print the table."""
        to = console(stderr=True)
        show(self.table, to)
        show(f"{self.where['device']}; commit {self.where['commit']}", to)
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        if load > cores + 1:
            warning = (
                f"load {load:.1f} on {cores} cores: other programs ran; comparisons of programs "
                "with several threads mean little, use --cores 1"
            )
            show(Text(warning, "yellow"), to)

    def _line(self, name: str, fields: Mapping[str, Any]) -> None:
        line = {**self.about, "name": name, **fields, **self.where, "load": os.getloadavg()[0]}
        print(json.dumps(line), flush=True)


def images_of(options: Any, limit: int) -> data.Dataset:
    """The data set with at most ``limit`` training and test images."""
    whole = data.load(options.dataset, options.data_dir)
    return dataclasses.replace(
        whole,
        train_images=whole.train_images[:limit],
        train_labels=whole.train_labels[:limit],
        test_images=whole.test_images[:limit],
        test_labels=whole.test_labels[:limit],
    )


def lenet(shape: tuple[int, int, int], classes: int, quantised: bool = True) -> Net:
    """The scatter-and-gather LeNet with k = 1, B = 2 and ternary weights, or in full precision."""
    arch = dataclasses.replace(zoo.lenet_scatter, input_shape=shape, classes=classes)
    if not quantised:
        return Net(arch, hidden(neurons.relu()))
    return Net(arch, hidden(neurons.quantised_relu(1, 2)), float_ends(weight_quantisers.ternary()))


def task_of(net: Net) -> Task:
    """The training task of a benchmark's network."""
    return classification(net)


def trained(net: Net, dataset: data.Dataset, epochs: int, weights: str = "") -> dict[str, Any]:
    """Variables from a file, or after a short training, so that spikes are as sparse as they are.

    Raises:
        ValueError: weights that do not fit the network.
    """
    if weights:
        return load_params(weights, net.arch)
    images, labels = dataset.train_images, dataset.train_labels
    optimiser = optax.adam(1e-3)
    options = Options(epochs=epochs, batch_size=min(BATCH, len(images)))
    state, _ = train(task_of(net), optimiser, (images, labels, None, None), options, progress=False)
    return state.variables
