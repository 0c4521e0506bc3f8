"""Pictures of the first test samples, drawn from a run's samples.npz: GIFs, raster, membranes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxsnn.io.arrays import load_arrays, save_arrays
from jaxsnn.io.files import remove
from jaxsnn.report.figures import animation, rasters

FILE = "samples.npz"
FIGURES = "figs"


def keep(
    folder: Path,
    labels: np.ndarray,
    spikes: Mapping[str, np.ndarray],
    potentials: np.ndarray,
    threshold: np.ndarray,
    mask: np.ndarray | None = None,
) -> None:
    """Write what the pictures show.

    Args:
        folder: of the run.
        labels: int ``[N]``.
        spikes: site -> 0 or 1 ``[T, N, ...]``, the readout last.
        potentials: of the readout, float32 ``[T, N, classes]``.
        threshold: of the readout, ``[classes]``.
        mask: ``[T, N]``, 0 behind the end of a sample, where no spike counts; None: no sample ends.
    """
    arrays = {f"spikes/{site}": np.array(part, bool) for site, part in spikes.items()}
    if mask is not None:
        for part in arrays.values():
            part[mask == 0] = False
    steps, number = potentials.shape[:2]
    arrays["lengths"] = np.full(number, steps) if mask is None else mask.sum(0).astype(np.int64)
    arrays |= {"labels": labels, "potentials": np.asarray(potentials, np.float32)}
    arrays["threshold"] = np.asarray(threshold, np.float32)
    save_arrays(folder / FILE, arrays, {"sites": list(spikes)})


def draw(folder: Path) -> dict[str, Path]:
    """Draw the pictures of one run; nothing where it has kept no samples.

    Returns:
        One path of each kind by name.
    """
    if not (folder / FILE).is_file():
        return {}
    arrays, meta = load_arrays(folder / FILE)
    spikes = {site: arrays[f"spikes/{site}"] for site in meta["sites"]}
    readout = spikes[meta["sites"][-1]]
    paths = animation.spike_bar_files(np.cumsum(readout, axis=0), arrays["labels"], folder)
    _remove_others(folder, paths)
    label = int(arrays["labels"][0])
    classes = [f"class {number}" for number in range(readout.shape[-1])]
    end = int(arrays["lengths"][0])
    first = {site: part[:end, 0] for site, part in spikes.items()}
    title = f"Spikes of the first test sample, of class {label}"
    shown = slice(12)  # more neurons than classes of a data set of ten would not be readable
    return {
        "spike_bar": paths[0],
        "raster": rasters.raster(first, folder / FIGURES, title=title)[0],
        "membranes": rasters.membranes(
            arrays["potentials"][:end, 0, shown],
            readout[:end, 0, shown],
            arrays["threshold"][shown],
            folder / FIGURES,
            labels=classes[shown],
        )[0],
    }


def classes_of(folder: Path) -> int | None:
    """Number of classes of a run; None where it has kept no samples."""
    if not (folder / FILE).is_file():
        return None
    return load_arrays(folder / FILE)[0]["potentials"].shape[-1]


def _remove_others(folder: Path, paths: Sequence[Path]) -> None:
    """Remove the counts of earlier samples."""
    for old in set(folder.glob("spike_bar_*_target*.gif")) - set(paths):
        remove(old)
