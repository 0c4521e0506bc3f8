"""How fast is a converted network simulated, and what do settled mode and a sweep cost?

Takes the scatter-and-gather LeNet (k = 1, B = 2, one time step) after a short training, or with the
weights of a run, on real images:

- images/s of ``evaluate`` in batches of 200, the latency of one image, compile time apart from
  both;
- settled mode beside our own compiled forward pass of the quantised ANN, same batch, in turn;
- a sweep over 16 noise seeds beside 16 runs of their own; how often it is compiled; the products
  that all seeds share, from its program (the encoder's drive);
- eight time steps in blocks of 1, 2, 4 and 8, with the memory that each needs.

    python benchmarks/simulation.py [--quick] [--dataset digits|mnist] [--weights model.npz]
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import common
import jax
import numpy as np

from jaxsnn import (
    Net,
    Spiking,
    convert,
    data,
    evaluate,
    forward,
    methods,
    settled,
    simulate,
    sweep,
    with_unit_dropout,
)
from jaxsnn.inputs import PIXELS
from jaxsnn.network.net import stem
from jaxsnn.simulation.engine import run
from jaxsnn.simulation.sweep import _swept

ENCODER, NOISE = "conv1", 0.1
STEPS = 8  # of the runs in blocks


class Size(NamedTuple):
    """How much is measured."""

    images: int  # of the data set
    epochs: int  # of training before it
    batch: int
    repeats: int
    seeds: int
    swept: int  # images of the sweep, and
    swept_batch: int  # of one of its batches


FULL = Size(2000, 8, 200, 11, 16, 200, 50)
QUICK = Size(256, 1, 100, 2, 4, 20, 10)


def throughput(report: common.Report, snn: Spiking, dataset: data.Dataset, size: Size) -> None:
    """Images/s of an evaluation, and milliseconds for one image."""
    whole = max(len(dataset.test_images) // size.batch, 1) * size.batch
    images, labels = dataset.test_images[:whole], dataset.test_labels[:whole]
    for batch in (size.batch, 1):
        program = compiled(snn, images[:batch])
        report.goal(f"compile, batch {batch}", program.seconds, 15, at_least=False, unit=" s")
        mebibytes = f"{program.memory / 2**20:.1f} MiB"
        report.record(f"memory, batch {batch}", mebibytes, bytes=program.memory)

    def everything() -> Any:
        return evaluate(snn, images, labels, batch_size=size.batch)

    timing = common.in_turn({"evaluate": everything}, size.repeats)["evaluate"]
    rate = len(images) / timing.median
    report.record("simulation", f"{rate:,.0f} images/s", **timing.record(len(images)))
    one = common.in_turn({"one": lambda: simulate(snn, images[:1], steps=1)}, 20 * size.repeats)
    latency = f"{1e3 * one['one'].median:.2f} ms"
    report.record("latency, batch 1", latency, **one["one"].record(1))


class Compiled(NamedTuple):
    """A simulation's program, the seconds to get it, and the bytes it needs beside its inputs."""

    program: Callable[..., Any]
    seconds: float
    memory: int


def compiled(snn: Spiking, images: np.ndarray, steps: int = 1, block: int = 1) -> Compiled:
    """Trace and compile a simulation of one batch."""
    began = time.perf_counter()
    traced = jax.jit(functools.partial(run, steps=steps, block=block)).lower(snn, images, None)
    program = traced.compile()
    memory = program.memory_analysis()
    total = memory.temp_size_in_bytes + memory.output_size_in_bytes
    return Compiled(program, time.perf_counter() - began, total)


def settled_mode(
    report: common.Report,
    snn: Spiking,
    net: Net,
    variables: dict[str, Any],
    images: np.ndarray,
    size: Size,
) -> None:
    """Settled mode, with all its counters, beside the forward pass of the quantised ANN."""

    @jax.jit
    def ann(variables: dict[str, Any], images: jax.Array) -> jax.Array:
        return forward(net, variables, PIXELS.decode(images)).readouts[-1]

    at_rest, batch = settled(snn), images[: size.batch]
    timings = common.in_turn(
        {
            "ann": lambda: ann(variables, batch),
            "settled": lambda: simulate(at_rest, batch, steps=1),
        },
        5 * size.repeats,
    )
    for name, timing in timings.items():
        text = f"{len(batch) / timing.median:,.0f} images/s"
        report.record(f"{name}, batch {len(batch)}", text, **timing.record(len(batch)))
    ratio = timings["settled"].over(timings["ann"])
    report.goal("settled mode over ANN forward", ratio, 1.2, at_least=False)


def noise_sweep(report: common.Report, snn: Spiking, dataset: data.Dataset, size: Size) -> None:
    """All noise seeds in one program beside as many runs."""
    images, labels = dataset.test_images[: size.swept], dataset.test_labels[: size.swept]
    noisy, batch = with_unit_dropout(snn, ENCODER, NOISE), size.swept_batch
    keys, others = (jax.random.split(jax.random.key(seed), size.seeds) for seed in (0, 1))

    def together(keys: jax.Array = keys) -> Any:
        return sweep(snn, images, labels, noise=[NOISE], keys=keys)  # its own batch

    def apart() -> list[Any]:
        return [evaluate(noisy, images, labels, key=key, batch_size=batch) for key in keys]

    before = _swept._cache_size()
    timings = common.in_turn({"apart": apart, "together": together}, size.repeats)
    together(others)
    same = np.array_equal(
        together().predictions[0, :, 0], np.stack([one.predictions[-1] for one in apart()])
    )
    compiles = _swept._cache_size() - before
    for name, timing in timings.items():
        text = f"{size.seeds * len(images) / timing.median:,.0f} images/s"
        report.record(f"{size.seeds} seeds {name}", text, **timing.record(size.seeds * len(images)))
    report.record("sweep equals its single runs", "yes" if same else "NO", value=bool(same))
    report.goal("sweep: compiles", compiles, 1, at_least=False)
    drives = encoder_drives(snn, images[:batch], keys)
    report.goal("sweep: encoder drives per batch", drives, 1, at_least=False)
    ratio = timings["together"].over(timings["apart"])
    report.goal(f"sweep over {size.seeds} runs", ratio, 0.9, at_least=False)


def encoder_drives(snn: Spiking, images: np.ndarray, keys: jax.Array) -> float:
    """How often the sweep's program computes the encoder's drive for one batch.

    Counted in multiply-accumulates, however the layers are lowered: those of the whole program
    without what every seed must repeat (a single run without its encoder), over the encoder's.
    """
    noisy = with_unit_dropout(snn, ENCODER)
    values = (np.array([NOISE], np.float32), keys, None, None)
    program = functools.partial(_swept, where=(ENCODER, None), horizons=(1,), block=1)
    swept = _products(program, noisy, images, np.arange(len(images)), values)
    encoder = _products(functools.partial(stem, snn.net), snn.variables, images)
    single = _products(functools.partial(run, steps=1, block=1), snn, images, None)
    return (swept - len(keys) * (single - encoder)) / encoder


def _products(program: Callable[..., Any], *operands: Any) -> float:
    return macs(jax.make_jaxpr(program)(*operands).jaxpr)


def macs(jaxpr: Any) -> float:
    """Multiply-accumulates of every product in a program, however deep."""
    total = 0.0
    for equation in jaxpr.eqns:
        size = math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            total += size * math.prod(kernel) / outputs
        elif equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            total += size * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(macs(inner) for inner in _inner(equation))
    return total


def _inner(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "jaxpr"):
                yield item.jaxpr
            elif hasattr(item, "eqns"):
                yield item


def blocks(report: common.Report, snn: Spiking, images: np.ndarray, size: Size) -> None:
    """Eight steps in blocks of several sizes: the speed and the memory of each."""
    batch, sizes = images[: size.batch // 4], (STEPS,) if size is QUICK else (1, 2, 4, STEPS)
    programs = {block: compiled(snn, batch, STEPS, block) for block in sizes}
    runs = {
        str(block): functools.partial(built.program, snn, batch, None)
        for block, built in programs.items()
    }
    timings = common.in_turn(runs, size.repeats)
    for block, built in programs.items():
        timing, memory = timings[str(block)], built.memory
        text = f"{len(batch) / timing.median:,.0f} images/s, {memory / 2**20:.1f} MiB"
        name = f"{STEPS} steps, block {block}"
        report.record(name, text, bytes=memory, **timing.record(len(batch)))


def main(argv: list[str] | None = None) -> None:
    """Measure everything."""
    options = common.arguments(__doc__, argv, weights=True)
    size = QUICK if options.quick else FULL
    dataset = common.images_of(options, size.images)
    net = common.lenet(dataset.input_shape, dataset.classes)
    variables = common.trained(net, dataset, size.epochs, options.weights)
    method = methods.scatter_gather(k=1, bound=2)
    snn = convert(variables, net.arch, method, trained=net, encoding=PIXELS)
    report = common.Report(
        "simulation",
        dataset=options.dataset,
        network="lenet_scatter k1B2",
        cores=options.cores or os.cpu_count(),
    )
    test = dataset.test_images, dataset.test_labels
    accuracy = evaluate(snn, *test, batch_size=size.batch).accuracy_per_step[-1]
    report.record("accuracy of the weights", f"{accuracy:.1%}", value=accuracy)
    throughput(report, snn, dataset, size)
    settled_mode(report, snn, net, variables, dataset.test_images, size)
    noise_sweep(report, snn, dataset, size)
    blocks(report, snn, dataset.test_images, size)
    report.show()


if __name__ == "__main__":
    main()
