"""How fast is a converted network simulated, and what do settled mode and a sweep cost?

Takes the scatter-and-gather LeNet (k = 1, B = 2, one time step) after a short training, or with the
weights of a run, on real images:

- images/s of `evaluate` in batches of 200, the latency of one image, compile time apart from both;
- settled mode beside our own compiled forward pass of the quantised ANN, same batch, in turn;
- a sweep over 16 noise seeds beside 16 runs of their own; how often it is compiled; the products
  that all seeds share, from its program (the encoder's drive);
- eight time steps in blocks of 1, 2, 4 and 8, with the memory that each needs.

    python benchmarks/simulation.py [--quick] [--dataset digits|mnist] [--weights model.npz]
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import common
import jax
import numpy as np

from jaxsnn import data
from jaxsnn.convert import Spiking, convert
from jaxsnn.net import Net, forward, stem
from jaxsnn.simulate import run, settled, simulate, with_unit_dropout
from jaxsnn.sweep import _swept, evaluate, sweep

BATCH, SEEDS, SWEEP_BATCH, STEPS = 200, 16, 50, 8
ENCODER, NOISE = "conv1", 0.1


def throughput(report: common.Report, snn: Spiking, dataset: data.Dataset, options: Any) -> None:
    """Images/s of an evaluation, and milliseconds for one image."""
    images, labels = dataset.test_images, dataset.test_labels
    for batch in (BATCH, 1):
        seconds, memory = compiled(snn, images[:batch])
        report.goal(f"compile, batch {batch}", seconds, 15, at_least=False, unit=" s")
        report.record(f"memory, batch {batch}", f"{memory / 2**20:.1f} MiB", bytes=memory)
    repeats = 3 if options.quick else 15
    whole = common.in_turn(
        {"evaluate": lambda: evaluate(snn, images, labels, batch_size=BATCH)}, repeats
    )["evaluate"]
    rate = len(images) / whole.median
    report.record("simulation", f"{rate:,.0f} images/s", **whole.record(len(images)))
    one = common.in_turn({"one": lambda: simulate(snn, images[:1], steps=1)}, 20 * repeats)["one"]
    report.record("latency, batch 1", f"{1e3 * one.median:.2f} ms", **one.record(1))


def compiled(snn: Spiking, images: np.ndarray, steps: int = 1, block: int = 1) -> tuple[float, int]:
    """Seconds to trace and compile a simulation, and the bytes it needs beside its arguments."""
    program = jax.jit(functools.partial(run, steps=steps, block=block))
    began = time.perf_counter()
    found = program.lower(snn, images, None).compile()
    seconds = time.perf_counter() - began
    memory = found.memory_analysis()
    return seconds, memory.temp_size_in_bytes + memory.output_size_in_bytes


def settled_mode(
    report: common.Report,
    snn: Spiking,
    net: Net,
    variables: dict[str, Any],
    images: np.ndarray,
    options: Any,
) -> None:
    """Settled mode, with all its counters, beside the forward pass of the quantised ANN."""

    @jax.jit
    def ann(variables: dict[str, Any], images: jax.Array) -> jax.Array:
        return forward(net, variables, common.PIXELS.decode(images)).readouts[-1]

    quick, batch = settled(snn), images[:BATCH]
    found = common.in_turn(
        {"ann": lambda: ann(variables, batch), "settled": lambda: simulate(quick, batch, steps=1)},
        5 if options.quick else 60,
    )
    for name, timing in found.items():
        text = f"{len(batch) / timing.median:,.0f} images/s"
        report.record(f"{name}, batch {len(batch)}", text, **timing.record(len(batch)))
    ratio = found["settled"].over(found["ann"])
    report.goal("settled mode over ANN forward", ratio, 1.2, at_least=False)


def noise_sweep(report: common.Report, snn: Spiking, dataset: data.Dataset, options: Any) -> None:
    """Sixteen noise seeds in one program beside sixteen runs."""
    images, labels = dataset.test_images, dataset.test_labels
    if options.quick:
        images, labels = images[:SWEEP_BATCH], labels[:SWEEP_BATCH]
    noisy, keys = with_unit_dropout(snn, ENCODER, NOISE), jax.random.split(jax.random.key(0), SEEDS)

    def together(keys: jax.Array = keys) -> Any:
        return sweep(snn, images, labels, noise=[NOISE], keys=keys, batch_size=SWEEP_BATCH)

    def apart() -> list[Any]:
        return [evaluate(noisy, images, labels, key=key, batch_size=SWEEP_BATCH) for key in keys]

    before = _swept._cache_size()
    found = common.in_turn({"apart": apart, "together": together}, 1 if options.quick else 5)
    together(jax.random.split(jax.random.key(1), SEEDS))
    same = np.array_equal(
        together().predictions[0, :, 0], np.stack([one.predictions[-1] for one in apart()])
    )
    compiles = _swept._cache_size() - before
    for name, timing in found.items():
        text = f"{SEEDS * len(images) / timing.median:,.0f} images/s"
        report.record(f"{SEEDS} seeds {name}", text, **timing.record(SEEDS * len(images)))
    report.record("sweep equals its single runs", "yes" if same else "NO", value=bool(same))
    report.goal("sweep: compiles", compiles, 1, at_least=False)
    drives = encoder_drives(snn, images[:SWEEP_BATCH], keys)
    report.goal("sweep: encoder drives per batch", drives, 1, at_least=False)
    ratio = found["together"].over(found["apart"])
    report.goal(f"sweep over {SEEDS} runs", ratio, 0.9, at_least=False)


def encoder_drives(snn: Spiking, images: np.ndarray, keys: jax.Array) -> float:
    """How often the sweep's program computes the encoder's drive for one batch.

    Counted in multiply-accumulates, however the layers are lowered: those of the whole program
    without what every seed must repeat (a single run without its encoder), over the encoder's.
    """
    noisy = with_unit_dropout(snn, ENCODER)
    values = (np.array([NOISE], np.float32), keys, None, None)
    program = functools.partial(_swept, where=(ENCODER, None), steps=1, block=1)
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


def blocks(report: common.Report, snn: Spiking, images: np.ndarray, options: Any) -> None:
    """Eight steps in blocks of several sizes: the speed and the memory of each."""
    batch, sizes = images[: BATCH // 4], (1, STEPS) if options.quick else (1, 2, 4, STEPS)
    runs = {
        f"{STEPS} steps, block {size}": functools.partial(
            simulate, snn, batch, steps=STEPS, block=size
        )
        for size in sizes
    }
    found = common.in_turn(runs, 2 if options.quick else 15)
    for size, (name, timing) in zip(sizes, found.items(), strict=True):
        memory = compiled(snn, batch, STEPS, size)[1]
        text = f"{len(batch) / timing.median:,.0f} images/s, {memory / 2**20:.1f} MiB"
        report.record(name, text, bytes=memory, **timing.record(len(batch)))


def main(argv: list[str] | None = None) -> None:
    """Measure everything."""
    options = common.arguments(__doc__, argv, weights=True)
    dataset = common.images_of(options, 2 * common.BATCH if options.quick else 2000)
    net = common.lenet(dataset)
    variables = common.trained(net, dataset, 2 if options.quick else 8, options.weights)
    snn = convert(variables, net.arch, k=1, bound=2, encoding=common.PIXELS)
    report = common.Report("simulation", dataset=options.dataset, network="lenet_scatter k1B2")
    accuracy = evaluate(snn, dataset.test_images, dataset.test_labels).accuracy_per_step[-1]
    report.record("accuracy of the weights", f"{accuracy:.1%}", value=accuracy)
    throughput(report, snn, dataset, options)
    settled_mode(report, snn, net, variables, dataset.test_images, options)
    noise_sweep(report, snn, dataset, options)
    blocks(report, snn, dataset.test_images, options)
    report.show()


if __name__ == "__main__":
    main()
