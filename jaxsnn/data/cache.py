"""Recordings kept on disk, so that the filter and the frames are computed once."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jaxsnn.data.recordings import Recordings, padded
from jaxsnn.errors import UserError
from jaxsnn.io import files
from jaxsnn.io.npz import read_npz
from jaxsnn.types import Json

FORMAT = 1  # a change of what is stored, or of how it is made, counts it up
ARRAYS = ("codes", "counts", "lengths", "labels")


def cache_folder() -> Path:
    """``$JAXSNN_CACHE``, or else ``~/.cache/jaxsnn/events``."""
    named = os.environ.get("JAXSNN_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "jaxsnn" / "events"


def cached(
    folder: Path, key: Mapping[str, Json], build: Callable[[], dict[str, Recordings]]
) -> dict[str, Recordings]:
    """Take recordings from the cache, or build them and leave them there.

    The file is named after the key and holds it, too. One that is damaged, broken off, or of
    another key or format is built anew. It is written whole and renamed, so that processes that
    build at once replace each other's file by the same.

    Args:
        folder: of the cache.
        key: whatever the recordings depend on, as JSON values; ``"name"`` starts the file's name.
        build: makes the recordings, by the name of their part.
    """
    text = json.dumps({"format": FORMAT, **files.plain(key)}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = folder / f"{key.get('name', 'events')}-{digest}.npz"
    stored = _read(path, text)
    if stored is not None:
        return stored
    built = build()
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, key=np.array(text), **_flat(built))
    try:
        files.write_bytes(path, content.getvalue())
    except OSError as error:
        warnings.warn(f"{path}: the events were not cached ({error})", stacklevel=2)
    return built


def _flat(parts: Mapping[str, Recordings]) -> dict[str, np.ndarray]:
    """Plain arrays without the padding, which is half of a set."""
    arrays: dict[str, np.ndarray] = {}
    for name, rows in parts.items():
        arrays[f"{name}/codes"] = rows.codes[rows.codes >= 0]
        arrays[f"{name}/counts"] = rows.event_counts
        arrays[f"{name}/lengths"], arrays[f"{name}/labels"] = rows.lengths, rows.labels
    return arrays


def _read(path: Path, key: str) -> dict[str, Recordings] | None:
    """What a cache file of this key holds; None if it is missing, damaged or another's."""
    try:
        arrays = read_npz(path)
        if str(arrays["key"]) != key:
            return None
        parts = {name.rpartition("/")[0] for name in arrays} - {""}
        return {part: padded(*(arrays[f"{part}/{name}"] for name in ARRAYS)) for part in parts}
    except (UserError, KeyError):
        return None
