"""What touches disks, terminals and other processes; it knows no network.

Files that survive a kill, trees of arrays as npz files, checkpoints, progress bars, versions and
device of a run, and what a program of several processes must share.
"""

from jaxsnn.io import environment, files, processes
from jaxsnn.io.arrays import flatten, load_arrays, load_params, save_arrays, unflatten
from jaxsnn.io.checkpoints import Checkpoints
from jaxsnn.io.files import read_json, write_json
from jaxsnn.io.progress import bar, batches

__all__ = [
    "Checkpoints",
    "bar",
    "batches",
    "environment",
    "files",
    "flatten",
    "load_arrays",
    "load_params",
    "processes",
    "read_json",
    "save_arrays",
    "unflatten",
    "write_json",
]
