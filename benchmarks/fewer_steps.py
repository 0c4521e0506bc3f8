"""How many steps and spikes does a network with negative spikes need, and the other ways?

Every row converts the same trained network in another way and runs the same test images until they
are silent: the plain neuron, several counts in one step (``per_step``), no positive spike while the
potential falls (``rising``), both, and levels cut at a cap (``bound``, which makes it another ANN,
that was not trained so). What a row says, per image: the first step from which the accuracy stays
within 99 % of its final value, the last step with a spike, spikes (a spike of size m counts as m),
their number whatever their size, and synaptic operations of both; and the certificate's verdict
against the quantised ANN. Steps and spikes saved are relative to the plain neuron.

    python benchmarks/fewer_steps.py RUN [--network cnn2] [--images 1000] > fewer_steps.jsonl

RUN is the folder of one setting of experiments/cifar10_cnn1.py, cifar10_cnn2.py or
mnist_negative_spikes.py (config.json and model.npz). Without it, or with --quick, a small fresh
network is taken.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np
from negative_spikes import calibrated

from jaxsnn import (
    Net,
    Spiking,
    certify,
    convert,
    data,
    evaluate,
    hidden,
    load_params,
    methods,
    neurons,
    plan,
    simulate,
)
from jaxsnn.arch import Arch, consumers, fan_out_windows, parse, spiking_sites, zoo
from jaxsnn.inputs import Preprocessing, standardised, unchanged, units_of

PLAIN = "plain"
WAYS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "per_step=2": {"per_step": 2},
    "per_step=3": {"per_step": 3},
    "per_step=4": {"per_step": 4},
    "rising": {"rising": True},
    "per_step=2, rising": {"per_step": 2, "rising": True},
    "bound=2": {"bound": 2},
    "bound=4": {"bound": 4},
}
NETWORKS = {
    "lenet": zoo.lenet_negative,
    "mlp": zoo.mlp_negative,
    "cnn1": zoo.cnn1,
    "cnn2": zoo.cnn2,
}
MOST_STEPS = 1000
RECORD_BITS = 2**32  # of the spikes that are looked at in one call


class Case(NamedTuple):
    """A trained network and what it is tested on."""

    arch: Arch
    variables: dict[str, Any]
    k: int
    bits: int
    seen: Preprocessing
    units: np.ndarray
    labels: np.ndarray


class Row(NamedTuple):
    """What one way needs; numbers of spikes and operations are per image."""

    accuracy: float
    steps_99: int
    last_mean: float
    last_max: int
    spikes: float
    negative: float
    events: float
    operations: float
    event_operations: float
    equality: str


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", nargs="?", default="", help="folder of one trained setting")
    parser.add_argument("--network", default="cnn1", choices=("cnn1", "cnn2"), help="on CIFAR-10")
    parser.add_argument("--data-dir", default=None, help="folder of the data files")
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument("--batch", type=int, default=100, help="images of a call")
    parser.add_argument("--cores", type=int, default=0, help="use so many processor cores (0: all)")
    parser.add_argument("--quick", action="store_true", help="a small fresh network")
    options = parser.parse_args(argv)
    if options.cores:
        common.use_cores(options.cores)
    options.quick = options.quick or not options.run
    return options


def case(options: argparse.Namespace) -> Case:
    """Network, weights and test images of a run."""
    if options.quick:
        return quick_case(options.data_dir)
    folder = Path(options.run)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dataset = data.load(config["dataset"], options.data_dir)
    name = config.get("arch", options.network)
    seen = standardised() if name.startswith("cnn") else unchanged()
    arch = NETWORKS[name]
    if name == "lenet" and config["dataset"] == "fashion_mnist":
        arch = zoo.lenet_negative_fashion
    shape = seen.shape(dataset.input_shape)
    arch = dataclasses.replace(arch, input_shape=shape, classes=dataset.classes)
    variables = load_params(str(folder / "model.npz"), arch)
    units = units_of(seen, dataset.test_images[: options.images])
    labels = dataset.test_labels[: options.images]
    return Case(arch, variables, config["k"], config["weight_bits"], seen, units, labels)


def quick_case(data_dir: str | None) -> Case:
    """A small network with the batch statistics of 64 digits."""
    dataset, seen = data.load("digits", data_dir), unchanged()
    units, labels = dataset.test_images[:64], dataset.test_labels[:64]
    size: dict[str, Any] = {"input_shape": dataset.input_shape, "classes": dataset.classes}
    arch = parse("8C3same-P2-16C3same-32", pool="conv", **size)
    net = Net(arch, hidden(neurons.quantised_relu(1)))
    variables = calibrated(net, seen.encoding.decode(jnp.asarray(units)))
    return Case(arch, variables, 1, 7, seen, units, labels)


def converted(chosen: Case, way: dict[str, Any]) -> Spiking:
    """The network converted in one way."""
    method = methods.negative_spikes(**{"k": chosen.k, "weight_bits": chosen.bits} | way)
    return convert(chosen.variables, chosen.arch, method, encoding=chosen.seen.encoding)


def row(chosen: Case, way: dict[str, Any], batch: int) -> Row:
    """Run, count and certify one way."""
    snn, batch = converted(chosen, way), min(batch, len(chosen.units))
    run = {"steps": MOST_STEPS, "settle": True, "batch_size": batch}
    evaluation = evaluate(snn, chosen.units, chosen.labels, **run)
    proof = certify(snn, chosen.variables, chosen.units, **run)
    events, event_operations = sizeless(snn, chosen.units, evaluation.steps)
    accuracy, last = np.array(evaluation.accuracy_per_step), evaluation.last_spike_step
    everything = evaluation.image_operations + evaluation.image_head_operations
    return Row(
        accuracy=float(accuracy[-1]),
        steps_99=within(accuracy, 0.99),
        last_mean=float(last.mean()),
        last_max=int(last.max()),
        spikes=float(evaluation.per_image_spikes.mean()),
        negative=float(evaluation.image_negative.sum(dtype=np.int64) / evaluation.images),
        events=events / evaluation.images,
        operations=float(everything.sum(dtype=np.int64) / evaluation.images),
        event_operations=event_operations / evaluation.images,
        equality=proof.equality,
    )


def within(accuracy: np.ndarray, share: float) -> int:
    """First step (from 1) from which the accuracy stays at or above a share of its last value."""
    below = np.flatnonzero(accuracy < share * accuracy[-1])
    return int(below.max(initial=-1)) + 2


def sizeless(snn: Spiking, units: np.ndarray, steps: int) -> tuple[int, int]:
    """Spikes and synaptic operations if a spike counts once, whatever its size."""
    sites = spiking_sites(snn.arch)
    lowest, highest = snn.neurons.at(sites[0]).spikes or (-1, 1)
    planes = steps * (highest - lowest) * sum(int(np.prod(site.out_shape)) for site in sites)
    size = int(np.clip(RECORD_BITS // planes, 1, len(units)))
    names = [site.name for site in sites]
    spikes = operations = 0
    for first in range(0, len(units) - len(units) % size, size):
        batch = units[first : first + size]
        records = simulate(snn, batch, steps=steps, record=names).records
        one, two = counted(records, snn.arch, highest)
        spikes, operations = spikes + one, operations + two
    rest = len(units) % size
    if rest:
        one, two = sizeless(snn, units[-rest:], steps)
        spikes, operations = spikes + one, operations + two
    return spikes, operations


def counted(records: dict[str, jax.Array], arch: Arch, highest: int) -> tuple[int, int]:
    """Spikes of any size and their operations; plane 0 holds +1 and more, ``highest`` -1 and less.

    Bits after the last channel of a packed byte are zero.
    """
    places: dict[str, np.ndarray] = {}  # spikes of every position, all channels and steps together
    for name, record in records.items():
        spikes = jax.lax.population_count(record[:, 0] | record[:, highest])
        places[name] = np.asarray(spikes.astype(jnp.int32).sum((0, 1, -1)), np.int64)
    channels = {site.name: site.drive_shape[-1] for site in plan(arch)}
    operations = sum(
        int((places[site.source] * fan_out_windows(site)).sum()) * channels[site.name]
        for site in consumers(arch)
    )
    return sum(int(place.sum()) for place in places.values()), operations


def text(tried: Row, plain: Row) -> str:
    """One line of the table."""
    return (
        f"{tried.accuracy:.2%}, 99 % at step {tried.steps_99}, last spike {tried.last_mean:.1f} "
        f"(at most {tried.last_max}; {1 - tried.last_mean / plain.last_mean:+.0%} saved), "
        f"{tried.spikes:,.0f} spikes ({1 - tried.spikes / plain.spikes:+.1%} saved), "
        f"{tried.negative:,.0f} negative, {tried.events:,.0f} events, "
        f"{tried.operations / 1e6:,.2f} (events {tried.event_operations / 1e6:,.2f}) MSOP; "
        f"{tried.equality}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print a record and a table row for every way."""
    options = arguments(None if argv is None else list(argv))
    chosen = case(options)
    about = {"run": Path(options.run).name or "quick", "k": chosen.k, "images": len(chosen.units)}
    report = common.Report("fewer_steps", **about)
    plain = None
    for name, way in WAYS.items():
        measured = row(chosen, way, options.batch)
        plain = plain or measured
        report.record(name, text(measured, plain), **measured._asdict())
        print(f"{name}: {text(measured, plain)}", file=sys.stderr, flush=True)
    report.show()


if __name__ == "__main__":
    main()
