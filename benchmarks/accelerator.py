"""How fast is a graphics card, what share of its peak is reached, and what bounds it?

One script and one table; a processor runs it, too, only far more slowly.

- ``peak``: matrix products in bfloat16, float32 and int8, and reading and writing memory; whether
  sums of bfloat16 products are exact up to 2^24 here.
- ``simulate``: CNN 2 with negative spikes (k = 1, T = 40, every step computed, spikes and synaptic
  operations counted) on the test images, in blocks of 1 to T steps, then at the fastest block with
  float32 and int8 products; predictions are compared, and some images certified. Beside each row
  stands which of the two its time is bound by, products or memory traffic, and what share of that
  bound is reached: an estimate from the peaks, in which every array is written and read.
- ``train``: CNN 2, images a second of ``jaxsnn.train``.
- ``csnn``, ``linear``: training through time beside snnTorch and spyx where those are installed
  (``surrogate_training.py``), ``linear`` also beside spyx's published seconds. Their rows are
  processes of their own, which share the card with this one.

    python benchmarks/accelerator.py [--cases peak simulate train csnn linear] [--images 10000]
        [--weights RUN/model.npz] [--data-dir DIR] [--batch 500] [--quick] > accelerator.jsonl
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # before JAX is imported

import common
import jax
import jax.numpy as jnp
import negative_spikes
import numpy as np
import optax
import surrogate_training

from jaxsnn import Net, Options, Spiking, certify, data, evaluate, hidden, neurons, plan, train
from jaxsnn.arch import Site
from jaxsnn.network import initial_state
from jaxsnn.network import synapse as lowering_module
from jaxsnn.training import classification

CASES = ("peak", "simulate", "train", "csnn", "linear")
SUMS = {"bfloat16": jnp.float32, "float32": jnp.float32, "int8": jnp.int32}
LARGEST = 1039  # products of 127 and 127: the largest odd sum of them below 2^24
SETTLED = 400  # steps that a certificate waits at most; fresh weights settle late
GOAL = 1000.0  # images a second: 10,000 in 10 s
FASTER = 5.0  # than snnTorch, in training the convolutional network
PUBLISHED = 0.076  # s: spyx 0.1.18 in float32, 16k neurons (Open Neuromorphic, card not certain)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; --quick takes a small network, few images and few steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    parser.add_argument("--images", type=int, default=10_000, help="test images to simulate")
    parser.add_argument("--batch", type=int, default=500, help="images of a simulated batch")
    parser.add_argument("--steps", type=int, default=40, help="time steps T")
    parser.add_argument("--certify", type=int, default=500, help="images of the certificate")
    parser.add_argument("--weights", default="", help="model.npz of a run of CNN 2 with k = 1")
    parser.add_argument("--data-dir", default=None, help="folder of the data files")
    parser.add_argument("--quick", action="store_true", help="the same on a small network")
    options = parser.parse_args(argv)
    options.network, options.dataset, options.k = "cnn2", "cifar10", 1
    if options.quick:
        options.dataset, options.images, options.batch = "digits", 8, 4
        options.steps, options.certify = 4, 4
    return options


class Peak(NamedTuple):
    """What the device does at best: operations a second by dtype, and bytes a second."""

    operations: dict[str, float]
    bytes: float


def best(run: Callable[[], Any]) -> float:
    """The least seconds of five calls, after a warm-up."""
    return common.in_turn({"run": run}, 5)["run"].best


def unless_missing(report: common.Report, name: str, measure: Callable[[], Any]) -> Any:
    """What is measured; where the backend has no such operation a row says so, and it is None."""
    try:
        return measure()
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        report.record(name, f"not computed: {str(error).splitlines()[0][:60]}", error=str(error))
        return None


def peak(report: common.Report, size: int) -> Peak:
    """Products of matrices of ``size``, a copy of as many bytes, and the exactness of sums."""
    rates = {}
    for dtype, sums in SUMS.items():
        left = jnp.ones((size, size), dtype)
        product = functools.partial(jnp.matmul, preferred_element_type=sums, precision="highest")
        run = functools.partial(jax.jit(product), left, left)
        seconds = unless_missing(report, f"peak {dtype}", functools.partial(best, run))
        if seconds is not None:
            rates[dtype] = 2 * size**3 / seconds
            shown = f"{rates[dtype] / 1e12:,.3g} TFLOP/s"
            report.record(f"peak {dtype}", shown, value=rates[dtype])
    numbers = jnp.ones((4, size, size), jnp.float32)
    rate = 2 * numbers.nbytes / best(functools.partial(jax.jit(lambda x: x + 1), numbers))
    report.record("peak memory", f"{rate / 1e9:,.0f} GB/s", value=rate)
    exact = sums_are_exact()
    report.record("sums of bfloat16 products exact up to 2^24", str(exact), value=exact)
    return Peak(rates, rate)


def sums_are_exact() -> bool:
    """Whether odd sums next to 2^24, of products of 127 and 127, come out whole."""
    kernel = np.zeros((2048, 256), np.int8)
    kernel[:LARGEST], kernel[LARGEST] = 127, 2
    x = np.where(np.arange(64)[:, None] % 2, -127, 127) * np.ones((64, 2048), np.int8)
    product = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
    sums = product(jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16))
    return bool(np.array_equal(np.asarray(sums, np.int64), x.astype(np.int64) @ kernel))


@contextlib.contextmanager
def computed_in(dtype: str) -> Iterator[None]:
    """Let every product of spikes be of this dtype, whatever the lowering would choose."""
    chosen = lowering_module._compute_dtype

    def compute(spikes: Any, kernel: Any, site: Site, accumulator: Any) -> Any:
        small = spikes == jnp.int8 and kernel.dtype in (jnp.int8, jnp.bfloat16)
        other = small and accumulator == "float32"
        return jnp.dtype(dtype) if other else chosen(spikes, kernel, site, accumulator)

    lowering_module._compute_dtype = compute
    jax.clear_caches()
    try:
        yield
    finally:
        lowering_module._compute_dtype = chosen
        jax.clear_caches()


def seconds_at_peak(snn: Spiking, dtype: str, steps: int, peaks: Peak) -> tuple[float, float]:
    """Seconds for one image, were there only products, and were there only memory traffic.

    Windows are written and read in the dtype of the products, currents (4 bytes), states and
    spikes as well; the first synapse is computed once, its current is read in every step, and
    kernels stay in the cache.
    """
    operations, moved, width = 0, 0, jnp.dtype(dtype).itemsize
    states = jax.eval_shape(lambda: initial_state(snn.net, snn.variables, 1))
    first, *others = plan(snn.arch)
    for site in (first, *others):
        state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(states[site.name]))
        moved += 4 * math.prod(site.drive_shape) + 2 * (state + math.prod(site.out_shape))
    for site in others:
        outputs = math.prod(site.drive_shape)
        taps = math.prod(site.kernel_shape[:-1]) if site.kind == "conv" else 0
        windows = outputs // site.drive_shape[-1] * taps * width
        operations += 2 * site.macs
        moved += 4 * outputs + 2 * windows
    return steps * operations / peaks.operations[dtype], steps * moved / peaks.bytes


class Row(NamedTuple):
    """One way to simulate."""

    dtype: str
    block: int

    @property
    def name(self) -> str:
        """Its name in the table."""
        return f"simulate, {self.dtype}, blocks of {self.block}"


def simulated(
    report: common.Report, row: Row, run: Callable[[int], Any], images: int, alone: Any
) -> tuple[float, Any]:
    """Time one row, after a warm-up; images a second and the last predictions."""
    trace = run(row.block)
    began = time.perf_counter()
    trace = run(row.block)
    seconds = time.perf_counter() - began
    products, memory = (images * one for one in alone)
    bound = "products" if products > memory else "memory"
    share = max(products, memory) / seconds
    shown = f"{images / seconds:,.1f} images/s, {share:.0%} of the bound by {bound}"
    fields = {"seconds": seconds, "products_s": products, "memory_s": memory, "bound": bound}
    report.record(row.name, shown, **row._asdict(), **fields, images_per_s=images / seconds)
    return images / seconds, trace.predictions[-1]


def blocks(steps: int) -> list[int]:
    """Block sizes from 1 to all steps."""
    return sorted({1, 2, 4, 8, steps // 2, steps} & set(range(1, steps + 1)))


def simulate(report: common.Report, options: argparse.Namespace, peaks: Peak) -> None:
    """Every block size, then the other dtypes at the fastest; the certificate."""
    case = negative_spikes.case(options)
    snn = dataclasses.replace(case.integer, skip_silent=False)
    dataset = data.load(options.dataset, options.data_dir)
    seen = negative_spikes.recipe(options)
    units = np.asarray(seen.test(jnp.asarray(dataset.test_images[: options.images])))
    labels = dataset.test_labels[: options.images]

    def run(block: int) -> Any:
        return evaluate(
            snn, units, labels, steps=options.steps, block=block, batch_size=options.batch
        )

    results: dict[Row, tuple[float, Any]] = {}

    def measure(row: Row) -> tuple[float, Any]:
        alone = seconds_at_peak(snn, row.dtype, options.steps, peaks)
        with computed_in(row.dtype):
            return simulated(report, row, run, len(units), alone)

    def measured(row: Row) -> None:
        result = unless_missing(report, row.name, functools.partial(measure, row))
        if result is not None:
            results[row] = result

    for block in blocks(options.steps):
        measured(Row("bfloat16", block))
    fastest = max(results, key=lambda row: results[row][0])
    for dtype in [dtype for dtype in peaks.operations if dtype != "bfloat16"]:
        measured(Row(dtype, fastest.block))
    for row, (_, predictions) in results.items():
        differ = int(np.sum(predictions != results[fastest][1]))
        report.record(f"{row.name}: predictions that differ", f"{differ}", value=differ)
    units = units[: options.certify]
    proof = certify(snn, case.variables, units, steps=SETTLED, settle=True)
    shown = f"{proof.equality}, {proof.mismatches} neurons differ on {len(units)} images"
    report.record("certificate", shown, equality=proof.equality, mismatches=proof.mismatches)
    name = f"simulate, blocks of {fastest.block}"
    report.goal(name, results[fastest][0], GOAL, at_least=True, unit=" images/s")


def training(report: common.Report, options: argparse.Namespace) -> None:
    """CNN 2 with quantised activations and augmentation, as its experiment trains it."""
    dataset = data.load(options.dataset, options.data_dir)
    seen = negative_spikes.recipe(options)
    shape = seen.shape(dataset.input_shape)
    arch = negative_spikes.architecture(options, shape, dataset.classes)
    task = classification(Net(arch, hidden(neurons.quantised_relu(options.k))), seen)
    for batch, updates in ((8, 2),) if options.quick else ((128, 128), (512, 64)):
        count = batch * updates
        examples = (dataset.train_images[:count], dataset.train_labels[:count], None, None)
        chosen = Options(epochs=3, batch_size=batch)
        history = train(task, optax.adam(1e-3), examples, chosen, progress=False)[1]
        rate = count / min(float(epoch["seconds"] or math.inf) for epoch in history[1:])
        report.record(f"train, batch {batch}", f"{rate:,.0f} images/s", images_per_s=rate)


def through_time(report: common.Report, options: argparse.Namespace, case: str) -> None:
    """The rows of ``surrogate_training.py``; beside the published time where it is of that size."""
    chosen = surrogate_training.arguments(["--quick"] if options.quick else [])
    chosen.data_dir = options.data_dir
    versions = surrogate_training.versions(chosen)
    report.record(f"{case}: beside it", ", ".join(chosen.peers) or "nothing installed", **versions)
    with tempfile.TemporaryDirectory() as folder:
        surrogate_training.images(chosen, Path(folder))
        limit = FASTER if case == "csnn" else 1.0
        timings = surrogate_training.compare(report, case, chosen, Path(folder), limit)
    for name, timing in timings.items():
        if case == "linear" and name.startswith("jaxsnn, N 16384"):
            ratio = PUBLISHED / timing.median
            shown = f"{ratio:.3g} (another card)"
            report.record(f"spyx 0.1.18 as published over {name}", shown, value=ratio)


def main(argv: list[str] | None = None) -> None:
    """Measure the cases that were asked for."""
    options = arguments(argv)
    report = common.Report("accelerator")
    weights = "trained" if options.weights else "fresh, batch statistics of real images"
    about = {"network": options.network, "dataset": options.dataset, "batch": options.batch}
    report.record("what is simulated", f"{options.network}, {weights}", weights=weights, **about)
    if {"peak", "simulate"} & set(options.cases):
        peaks = peak(report, 256 if options.quick else 8192)
        if "simulate" in options.cases:
            simulate(report, options, peaks)
    if "train" in options.cases:
        training(report, options)
    for case in ("csnn", "linear"):
        if case in options.cases:
            through_time(report, options, case)
    report.show()


if __name__ == "__main__":
    main()
