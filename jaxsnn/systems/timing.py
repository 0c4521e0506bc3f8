"""Simulating a trained network's test set: its time taken apart, its accuracy under noise."""

import time
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from rich.console import Console

from jaxsnn.conversion.spiking import Spiking
from jaxsnn.io import processes
from jaxsnn.io.terminal import show
from jaxsnn.simulation.dataset import evaluate
from jaxsnn.simulation.sweep import sweep
from jaxsnn.simulation.totals import Evaluation
from jaxsnn.systems.settings.conversion import Conversion
from jaxsnn.types import JsonObject, PyTree


def timed(
    snn: Spiking,
    shown: Callable[[slice], PyTree],
    labels: np.ndarray,
    *,
    batch_size: int,
    devices: int = 1,
    steps: int = 1,
    settle: bool = False,
    block: int = 1,
) -> tuple[Evaluation, dict[str, float]]:
    """Simulate a test set; what came out, and the seconds that compiling and simulating took.

    A first batch of each process is simulated twice: what the second time did not need was
    compilation.

    Args:
        snn: the network.
        shown: what is simulated, given its rows.
        labels: of all of it.
        batch_size: images per compiled call.
        devices: local devices that share a batch.
        steps: time steps, at most.
        settle: end when all is silent.
        block: steps that are computed layer by layer.
    """
    simulated = partial(
        evaluate,
        snn,
        batch_size=batch_size,
        devices=devices,
        steps=steps,
        settle=settle,
        block=block,
    )
    first, everything = shown(slice(batch_size * processes.count())), shown(slice(None))
    times: list[float] = []
    for _ in range(2):
        began = time.perf_counter()
        simulated(first)
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    evaluation = simulated(everything, labels, progress="simulating")
    seconds = time.perf_counter() - began
    return evaluation, {"compile": max(times[0] - times[1], 0.0), "simulate": seconds}


def noisy(
    snn: Spiking, images: np.ndarray, labels: np.ndarray, config: Conversion, site: str, steps: int
) -> list[JsonObject]:
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
    swept = sweep(
        snn, images, labels, noise=ratios, keys=keys, site=site, steps=steps, progress="noise"
    )
    accuracies = np.asarray(swept.accuracy)[..., 0].tolist()
    return [{"ratio": r, "accuracy": row} for r, row in zip(ratios, accuracies, strict=True)]


def print_report(snn: Spiking, console: Console) -> None:
    """Print a line for each site: how it was converted."""
    for one in snn.report:
        show(
            f"{one.site}: kernel {one.kernel}; {one.norm}; {one.flipped} channels flipped, "
            f"{one.constant} constant; |sum| <= {one.bound:,} in {one.accumulator}",
            console,
        )
