"""Simulating a trained network's test set: its time taken apart, its accuracy under noise."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxsnn.conversion.spiking import Spiking
from jaxsnn.io import processes
from jaxsnn.io.terminal import show
from jaxsnn.simulation.dataset import evaluate
from jaxsnn.simulation.sweep import sweep
from jaxsnn.simulation.totals import Evaluation


def timed(
    snn: Spiking,
    shown: Callable[[slice], Any],
    labels: np.ndarray,
    *,
    batch_size: int,
    **options: Any,
) -> tuple[Evaluation, dict[str, float]]:
    """Simulate a test set; what came out, and the seconds that compiling and simulating took.

    A first batch of each process is simulated twice: what the second time did not need was
    compilation.

    Args:
        snn: the network.
        shown: what is simulated, given its rows.
        labels: of all of it.
        batch_size: images per compiled call.
        options: further arguments of :func:`jaxsnn.simulation.evaluate`.
    """
    options["batch_size"] = batch_size
    first, everything = shown(slice(batch_size * processes.count())), shown(slice(None))
    times: list[float] = []
    for _ in range(2):
        began = time.perf_counter()
        evaluate(snn, first, **options)
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    found = evaluate(snn, everything, labels, progress="simulating", **options)
    simulated = time.perf_counter() - began
    return found, {"compile": max(times[0] - times[1], 0.0), "simulate": simulated}


def noisy(
    snn: Spiking, images: np.ndarray, labels: np.ndarray, config: Any, site: str, steps: int
) -> list[dict[str, Any]]:
    """Accuracy under noise after ``steps``, for every ratio and seed, in one program.

    Args:
        snn: the network.
        images: test images in whole units.
        labels: of the images.
        config: settings, with ``noise_ratio``, ``noise_seeds`` and ``seed``.
        site: where noise enters.
        steps: time steps.
    """
    if not config.noise_ratio:
        return []
    keys = jax.random.split(jax.random.key(config.seed), config.noise_seeds)
    ratios = config.noise_ratio
    found = sweep(
        snn, images, labels, noise=ratios, keys=keys, site=site, steps=steps, progress="noise"
    )
    accuracies = np.asarray(found.accuracy)[..., 0].tolist()
    return [{"ratio": r, "accuracy": row} for r, row in zip(ratios, accuracies, strict=True)]


def print_report(snn: Spiking, console: Console) -> None:
    """Print a line for each site: how it was converted."""
    for one in snn.report:
        show(
            f"{one.site}: kernel {one.kernel}; {one.norm}; {one.flipped} channels flipped, "
            f"{one.constant} constant; |sum| <= {one.bound:,} in {one.accumulator}",
            console,
        )
