"""One program in several processes: who writes, who computes what, and what all of them hold.

Every process runs the whole program. The primary process (index 0) alone writes files and shows
progress; a training step spans the devices of all; the batches of an evaluation are sharded, and
their results are gathered, so that every process goes on with the same numbers. With one process,
nothing here does anything. The names are JAX's, where it has one.
"""

import contextlib
import itertools
import os
import pickle
import sys
import threading
import zlib
from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar, cast

import jax
import numpy as np
from jax.sharding import Sharding

from jaxsnn.errors import UserError
from jaxsnn.types import PyTree, Untyped

T = TypeVar("T")

AUTO = "auto"
PATIENCE = 10.0  # seconds of waiting for the other processes, after which that is said
CHUNKS = 1 << 10, 1 << 22  # bytes gathered at once, of little and of much; few shapes, few programs


def join(
    coordinator: str,
    processes: int | None = None,
    process_id: int | None = None,
    heartbeat_timeout: int = 100,
) -> None:
    """Make this process one of several; before anything is computed.

    Args:
        coordinator: ``host:port`` of the first process, or "auto" where JAX finds all of this out
            by itself (SLURM, Open MPI, a TPU slice, ...).
        processes: how many there are.
        process_id: which one this is, from 0.
        heartbeat_timeout: seconds without a sign of life of a process, or of waiting for it at the
            end, after which the others are ended.

    Raises:
        UserError: "auto", and nothing was found; or no answer from the others.
    """
    explicit = coordinator != AUTO
    awaited = f"the coordinator, process 0 at {coordinator}" if explicit else "the cluster"
    if explicit and process_id == 0:
        awaited = f"the other {(processes or 1) - 1} processes, at {coordinator}"
    saying = threading.Timer(PATIENCE, _say_waiting, (process_id, awaited))
    saying.daemon = True
    saying.start()
    try:
        jax.distributed.initialize(
            coordinator if explicit else None,
            processes,
            process_id,
            heartbeat_timeout_seconds=heartbeat_timeout,
            shutdown_timeout_seconds=heartbeat_timeout,
        )
    except ValueError as error:
        if explicit:
            raise
        raise UserError(
            f"--coordinator auto: JAX finds no cluster here ({error}); give "
            "--coordinator HOST:PORT --processes N --process-id I"
        ) from None
    except RuntimeError as error:
        if not isinstance(error, jax.errors.JaxRuntimeError):
            raise
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"--coordinator {coordinator}: no answer from {awaited} ({reason}); start all "
            "processes with the same address, which must be reachable from each"
        ) from None
    finally:
        saying.cancel()


def _say_waiting(process_id: int | None, awaited: str) -> None:
    who = "this process" if process_id is None else f"process {process_id}"
    print(f"{who} waits for {awaited}", file=sys.stderr, flush=True)


def count() -> int:
    """Number of processes."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def index() -> int:
    """Which process this is, from 0."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_primary() -> bool:
    """Whether this is the primary process, which alone writes files."""
    return index() == 0


@contextlib.contextmanager
def primary_prints() -> Generator[None]:
    """Inside, standard output is that of the primary process alone; error messages are of each."""
    if is_primary():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


# ------------------------------------------------------------ devices


def devices_per_process(devices: int) -> int:
    """How many devices each process contributes to so many.

    Raises:
        UserError: they cannot be shared equally.
    """
    if devices % count():
        raise UserError(
            f"devices = {devices} cannot be shared equally by {count()} processes; give a multiple"
        )
    return devices // count()


def devices(number: int) -> list[Untyped]:
    """The first devices of every process, in the order of the processes; ``number`` of them.

    Raises:
        UserError: as :func:`devices_per_process`.
    """
    per_process = devices_per_process(number)
    local: list[list[Untyped]] = [jax.local_devices(process_index=p) for p in range(count())]
    return [one for of_process in local for one in of_process[:per_process]]


def replicated(tree: PyTree, sharding: Sharding) -> PyTree:
    """Arrays, equal in all processes, whole on every device of a replicating sharding."""

    def put(leaf: PyTree) -> jax.Array:
        # device_put on all devices would first send the whole array around, to compare it.
        devices = cast("Iterable[Untyped]", sharding.addressable_devices)
        copies = [jax.device_put(leaf, one) for one in devices]
        return jax.make_array_from_single_device_arrays(np.shape(leaf), sharding, copies)

    return jax.tree.map(put, tree)


# ------------------------------------------------------------ shared work


def shard(items: Iterable[T]) -> Iterator[T]:
    """This process's share of the items: each item goes to the next process in turn."""
    return itertools.islice(items, index(), None, count())


def unsharded(local: list[T]) -> list[T]:
    """The results for items that :func:`shard` split, of all processes, in the items' order."""
    parts = all_gather(local)
    total = sum(len(part) for part in parts)
    return [parts[n % len(parts)][n // len(parts)] for n in range(total)]


def all_gather(local: T) -> list[T]:
    """What each process holds, by process; anything that can be pickled, unchanged.

    All processes must call it, and in the same order as everything else that all take part in.
    """
    if count() == 1:
        return [local]
    content = np.frombuffer(pickle.dumps(local), np.uint8)
    sizes = _all(np.array(len(content)))
    most = int(sizes.max())
    chunk = CHUNKS[most > CHUNKS[0]]
    pieces: list[np.ndarray] = []
    for start in range(0, most, chunk):
        piece = content[start : start + chunk]
        pieces.append(_all(np.pad(piece, (0, chunk - len(piece)))))
    whole = np.concatenate(pieces, axis=1)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(whole, sizes, strict=True)]


def _all(local: np.ndarray) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(local))


# ------------------------------------------------------------ agreement


def barrier() -> None:
    """Wait for every process; then all can read what the primary has written."""
    all_gather(None)


@contextlib.contextmanager
def collective() -> Generator[None]:
    """Leave the block when every process has done it; where it fails in one, it fails in all.

    Inside, no process may wait for another.

    Raises:
        UserError: it failed in another process.
    """
    failed: Exception | None = None
    try:
        yield
    except Exception as error:  # whatever it is, the others wait for it
        failed = error
    reasons = all_gather(failed and str(failed))
    if failed is not None:
        raise failed
    for number, reason in enumerate(reasons):
        if reason is not None:
            raise UserError(f"process {number} has stopped: {reason}")


def same_arrays(what: str, tree: PyTree) -> None:
    """:func:`same` of all arrays of a tree, by their checksums."""
    if count() > 1:
        arrays = [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(tree)]
        same(what, [(one.shape, str(one.dtype), zlib.crc32(one.tobytes())) for one in arrays])


def same(what: str, value: object) -> None:
    """Refuse to go on where the processes hold different values.

    Raises:
        UserError: naming what differs, in which process, and both values.
    """
    for number, other in enumerate(all_gather(value)):
        if other != value:
            raise UserError(
                f"{what} differ between processes: {value!r} in process {index()}, {other!r} in "
                f"process {number}; start all of them alike, on the same files"
            )
