"""What a graph says of itself: dictionary of strings and numbers, which nobody needs to run it."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from jaxsnn.conversion.kernels import KernelForm
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.exchange.nir.rules import Rules
from jaxsnn.exchange.nir.simulators import IMPORTERS, Simulator
from jaxsnn.io.arrays import flatten

PACKAGES = {"jaxsnn": "jaxsnn-conversion", "nir": "nir", "jax": "jax"}


def fingerprint(snn: Spiking) -> str:
    """SHA-256 of every array of a network, by name, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for name, leaf in sorted(flatten(snn.variables).items()):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def metadata(
    snn: Spiking,
    simulator: Simulator | None,
    steps: int,
    dt: float,
    heads: dict[str, str],
    exact: bool,
    images: int,
) -> dict[str, str | float | int]:
    """Of a graph; strings and numbers, as NIR recommends.

    Args:
        snn: the network.
        simulator: who it is written for.
        steps: for which it was written.
        dt: length of a step.
        heads: site of each head -> name of its output.
        exact: the graph is the network by construction; else compared on images.
        images: how many were compared.
    """
    importer = None if simulator is None else IMPORTERS[simulator]
    rules = Rules() if importer is None else importer.rules
    encoding = snn.encoding
    entries: dict[str, str | float | int] = {
        "dt": dt,
        "steps": steps,
        "reset": rules.reset.value,
        "comparison": rules.comparison.value,
        "several_spikes": int(rules.several_spikes),
        "bias_schedule": "once" if steps == 1 else "every step",
        "presentation": encoding.presentation,
        "input": f"whole numbers up to {encoding.highest}, channels first",
        "input_unit": encoding.scale,
        "made_for": _made_for(simulator),
        "load": "" if importer is None else importer.load,
        "equality": "exact" if exact else "compared",
        "images_compared": images,
        "hash": fingerprint(snn),
    }
    if snn.report and snn.report[0].form is KernelForm.TRAINED:
        entries["input"] = "numbers as in training, channels first"
    entries |= {f"unit_of_{name}": snn.unit(site) for site, name in heads.items()}
    return entries | {f"version_of_{name}": _version(package) for name, package in PACKAGES.items()}


def _made_for(simulator: Simulator | None) -> str:
    return "any" if simulator is None else f"{simulator.value} {IMPORTERS[simulator].version}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
