"""A network as plain integers for those who build it: raw arrays, a description, test vectors.

A folder holds ``network.json`` and one file of raw numbers for each array: little end first, the
last axis fastest, no header. The description has the entries of an ``snn.npz`` (``sites``,
``encoding``, ``units``, ``report``), says of each array its file, dtype, shape and axes, and so of
the test vectors: an input, every spike of every site and step, and the summed heads.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError
from jaxsnn.exchange.nir.metadata import fingerprint
from jaxsnn.exchange.site_records import folded_record, site_records
from jaxsnn.inputs.checks import AnyArray
from jaxsnn.io.arrays import flatten
from jaxsnn.io.files import write_bytes
from jaxsnn.simulation.engine import encode_axis, unpack
from jaxsnn.simulation.fixed_steps import check_input, simulate

FORMAT = "jaxsnn integers"
VERSION = 1
HEADS = ("exit", "readout")


class ArrayRecord(TypedDict):
    """Where an array is, and how it is read: dtype as NumPy names it, axes by name."""

    file: str
    dtype: str
    shape: list[int]
    axes: list[str]


def to_integers(snn: Spiking, images: AnyArray, steps: int, folder: str | Path) -> Path:
    """Write a network of whole numbers and what it gives for some images.

    Args:
        snn: converted; every number of it whole.
        images: the test vectors' input, as :func:`jaxsnn.simulate` takes it.
        steps: time steps T of the test vectors.
        folder: new or empty.

    Returns:
        The path of ``network.json``.

    Raises:
        UserError: a number is a float, or spikes are lost at random, naming the site and the
            remedy; the folder holds something; or as :func:`jaxsnn.simulate`.
    """
    _check_whole(snn)
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is not empty, and its files would be mixed; give a new folder")
    vectors = _vectors(snn, images, steps)  # refuses before anything is written
    description = {
        "format": FORMAT,
        "version": VERSION,
        "byte_order": "little",
        "hash": fingerprint(snn),
        "sites": site_records(snn),
        "encoding": dataclasses.asdict(snn.encoding),
        "units": dict(snn.units),
        "report": [folded_record(record) for record in snn.report],
        "arrays": _leaves(snn, target),
        "steps": steps,
        "vectors": {
            kind: {
                name: _write(target, f"vectors/{kind}.{name}.bin", *vector)
                for name, vector in each.items()
            }
            for kind, each in vectors.items()
        },
    }
    return write_bytes(target / "network.json", json.dumps(description, indent=1).encode())


def _check_whole(snn: Spiking) -> None:
    for site in plan(snn.arch):
        if snn.neurons.at(site).drops_spikes:
            raise UserError(
                f"{site.name} loses spikes at random, which no test vector can say; export the "
                "network without noise"
            )
    for path, leaf in flatten(snn.variables).items():
        if not np.issubdtype(leaf.dtype, np.integer):
            raise UserError(
                f"{path} is {leaf.dtype}, and an export of integers has none; convert by "
                "scatter_gather, negative_spikes or signed_if, with whole weights"
            )


def _leaves(snn: Spiking, folder: Path) -> dict[str, dict[str, ArrayRecord]]:
    """Write the network's arrays: site -> leaf -> where it is."""
    arrays: dict[str, dict[str, ArrayRecord]] = {}
    for path, leaf in flatten(snn.variables).items():
        _, site, name = path.split("/")
        file = f"arrays/{site}.{name}.bin"
        record = _write(folder, file, np.asarray(leaf), _leaf_axes(name, leaf.ndim))
        arrays.setdefault(site, {})[name] = record
    return arrays


Vector = tuple[np.ndarray, list[str]]  # and its axes


def _vectors(snn: Spiking, images: AnyArray, steps: int) -> dict[str, dict[str, Vector]]:
    """Input, spikes of every step, and the heads' sums after every step."""
    spiking = [site for site in plan(snn.arch) if snn.neurons.at(site).spikes]
    heads = [site for site in plan(snn.arch) if site.role in HEADS]
    trace = simulate(snn, images, steps=steps, record=[site.name for site in spiking])
    shown = np.asarray(check_input(snn, images))
    front = ["step"] * encode_axis(snn)
    return {
        "input": {"input": (shown, [*front, "image", "row", "column", "channel"])},
        "spikes": {
            site.name: (np.asarray(unpack(trace.records[site.name], snn, site.name)), _axes(site))
            for site in spiking
        },
        "sums": {
            site.name: (np.asarray(readout), _axes(site))
            for site, readout in zip(heads, trace.readouts, strict=True)
        },
    }


def _axes(site: Site) -> list[str]:
    """Of what a site gives over time."""
    place = ["row", "column", "channel"] if len(site.out_shape) == 3 else ["unit"]
    return ["step", "image", *place]


def _leaf_axes(name: str, rank: int) -> list[str]:
    if name == "kernel":
        return ["row", "column", "in", "out"] if rank == 4 else ["in", "out"]
    return ["level", "channel"] if name == "thresholds" else ["channel"]


def _smallest(values: np.ndarray) -> np.dtype[Any]:
    lowest, highest = int(values.min(initial=0)), int(values.max(initial=0))
    kinds = (np.dtype(kind) for kind in (np.int8, np.int16, np.int32, np.int64))
    return next(k for k in kinds if np.iinfo(k).min <= lowest and highest <= np.iinfo(k).max)


def _write(folder: Path, name: str, values: np.ndarray, axes: list[str]) -> ArrayRecord:
    """One array in the fewest bytes of a signed integer; pixels stay what they are."""
    array = values if values.dtype == np.uint8 else values.astype(_smallest(values))
    little = array.astype(array.dtype.newbyteorder("<"))
    write_bytes(folder / name, little.tobytes())
    return {"file": name, "dtype": array.dtype.name, "shape": list(array.shape), "axes": axes}
