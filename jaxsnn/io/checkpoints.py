"""Training checkpoints: the whole state of a run, optimiser included, written by Orbax.

Each is written under a temporary name and renamed once it is complete, so that a kill at any moment
leaves the ones before it intact. Weights alone travel in npz files; see ``jaxsnn.io.arrays``.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import jax
import numpy as np

from jaxsnn.errors import UserError
from jaxsnn.io import processes
from jaxsnn.io.arrays import (
    META,
    Arrays,
)
from jaxsnn.io.files import naming
from jaxsnn.types import Json, JsonObject, PyTree, Untyped

_UNFINISHED = ".orbax-checkpoint-tmp"
_OF_A_CHECKPOINT = "_CHECKPOINT_METADATA"  # a file that Orbax puts into each


def named_leaves(tree: PyTree) -> dict[str, PyTree]:
    """The leaves of any pytree by path, "/" between the parts, containers without leaves left out.

    >>> named_leaves({"params": {"kernel": 1}, "opt_state": (2, ())})
    {'opt_state/0': 2, 'params/kernel': 1}
    """
    leaves = cast("list[tuple[PyTree, PyTree]]", jax.tree_util.tree_flatten_with_path(tree)[0])
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


class Checkpoints:
    """The training checkpoints of one folder: one sub-folder per step, written by Orbax.

    A sub-folder appears under its name only when it is complete. The newest two are kept, so that
    one unreadable checkpoint never loses a run.
    """

    def __init__(
        self, directory: str | Path, meta: Mapping[str, Json] | None = None, keep: int = 2
    ) -> None:
        """Name the folder; nothing is written before the first ``save``.

        Args:
            directory: the folder of the checkpoints alone.
            meta: JSON description of the run (seed, batch size, ...); a checkpoint of a run with
              another description is refused. Empty: any is accepted.
            keep: how many of the newest checkpoints stay.
        """
        self.directory = Path(directory).absolute()
        self.meta = dict(meta or {})
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first; other files and folders do not count."""
        if not self.directory.is_dir():
            return []
        complete = (entry.parent.name for entry in self.directory.glob(f"*/{_OF_A_CHECKPOINT}"))
        return sorted(int(name) for name in complete if re.fullmatch(r"0|[1-9]\d*", name))

    def newest(self) -> int | None:
        """Step of the newest readable checkpoint, which is read whole to find out, or None."""
        for step in reversed(self.steps()):
            if self._read(step) is not None:
                return step
        return None

    def save(self, step: int, state: PyTree) -> None:
        """Write the state of one step, wait until it is complete, then drop the oldest ones.

        A checkpoint of the same or of a later step is removed after the new one stands: it belongs
        to a part of the run that could not be read and is being repeated. Of several processes
        the first alone writes, and the others do not wait for it.
        """
        if not processes.is_primary():
            return
        import orbax.checkpoint as ocp  # one second; a reader of weights does without it

        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in self.directory.glob(f"*{_UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        arrays = {name: np.asarray(leaf) for name, leaf in named_leaves(state).items()}
        # Orbax reads changed bytes without complaint, so the arrays carry their own checksums.
        description = {"run": self.meta, "crc32": _checksums(arrays)}
        arrays[META] = np.frombuffer(json.dumps(description).encode(), np.uint8)
        folder = self.directory / str(step)
        try:
            with naming(folder), _checkpointer() as writer:
                writer.save(folder, args=ocp.args.PyTreeSave(arrays), force=True)
        except ValueError as error:  # what tensorstore makes of the system's errors
            reason = next((line for line in str(error).splitlines() if line), "")[:200]
            raise OSError(errno.EIO, f"cannot be written: {reason}", str(folder)) from error
        older = [other for other in self.steps() if other < step]
        later = [other for other in self.steps() if other > step]
        for other in later + older[: max(0, len(older) - self.keep + 1)]:
            shutil.rmtree(self.directory / str(other), ignore_errors=True)

    def restore_latest(self, template: PyTree) -> PyTree | None:
        """The state of the newest readable checkpoint in the tree of ``template``, or None.

        Unreadable checkpoints are named on standard output and passed over.

        Args:
            template: pytree of the expected structure; its leaves have ``shape`` and ``dtype``.

        Raises:
            UserError: every checkpoint is unreadable, or the newest readable one belongs to a run
              with another description, or differs from the template in a name, shape or dtype.
        """
        steps = self.steps()
        for step in reversed(steps):
            if (content := self._read(step)) is None:
                continue
            folder = self.directory / str(step)
            self._compare_meta(folder, content[1])
            return _rebuild(folder, content[0], template)
        if steps:
            raise UserError(f"{self.directory}: no checkpoint of steps {steps} is readable")
        return None

    def _read(self, step: int) -> tuple[Arrays, JsonObject] | None:
        """Arrays and description of a checkpoint; None, and a line, where it is unreadable."""
        folder = self.directory / str(step)
        try:
            return _read(folder)
        except Exception as error:  # a broken file surfaces as many kinds of exception
            print(f"{folder} is unreadable ({type(error).__name__}); trying the one before")
            return None

    def _compare_meta(self, folder: Path, meta: Mapping[str, Json]) -> None:
        wanted = json.loads(json.dumps(self.meta))
        for name in wanted.keys() | meta.keys() if wanted else ():
            if wanted.get(name) != meta.get(name):
                raise UserError(
                    f"{folder} was written with {name} = {meta.get(name)!r}, not "
                    f"{wanted.get(name)!r}; use the same value or another folder"
                )


def _checkpointer() -> Untyped:
    """Orbax for this process alone: by itself it would wait for all others in every call."""
    import orbax.checkpoint as ocp

    rank = processes.index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=rank, active_processes={rank}, barrier_sync_key_prefix=f"process{rank}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _read(folder: Path) -> tuple[Arrays, JsonObject]:
    import orbax.checkpoint as ocp

    with _checkpointer() as reader:
        saved: Untyped = reader.metadata(folder).item_metadata
        as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in saved.tree}
        arrays: Arrays = reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    description = json.loads(arrays.pop(META).tobytes())
    if description["crc32"] != _checksums(arrays):
        raise UserError("an array differs from its checksum")
    return arrays, description["run"]


def _checksums(arrays: Arrays) -> dict[str, int]:
    return {name: zlib.crc32(array.tobytes()) for name, array in arrays.items()}


def _rebuild(folder: Path, arrays: Arrays, template: PyTree) -> PyTree:
    expected = named_leaves(template)
    for name in [*expected, *(name for name in arrays if name not in expected)]:
        if name not in arrays:
            raise UserError(f"{folder} lacks {name}; it holds another network or optimiser")
        if name not in expected:
            raise UserError(f"{folder} has an extra {name}; it holds another network or optimiser")
        stored = (arrays[name].shape, np.dtype(arrays[name].dtype))
        wanted = (tuple(expected[name].shape), np.dtype(expected[name].dtype))
        if stored != wanted:
            raise UserError(
                f"{folder}: {name} is {stored[1]}{list(stored[0])}, expected "
                f"{wanted[1]}{list(wanted[0])}; it belongs to another network or optimiser"
            )
    structure = cast("Untyped", jax.tree.structure(template))
    return jax.tree.unflatten(structure, [arrays[name] for name in expected])
