"""Weights of somebody's network from a file of any kind, without running anything in it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from jaxsnn.errors import UserError
from jaxsnn.exchange import checkpoints, keras_files, plain_files, torch_files
from jaxsnn.exchange.torch_files import Checkpoint
from jaxsnn.exchange.weights import LIMIT, Budget, Weights

_HDF5 = b"\x89HDF\r\n\x1a\n"
_NO_WEIGHTS = {
    b"version https://git-lfs": "a pointer of Git LFS, which stands for the file",
    b"<": "a web page",
}
_KINDS = "torch (.pt, .pth), safetensors, Keras (.keras, .h5) or NumPy's npz"


def read_weights(path: str | Path, *, entry: str | None = None, limit: int = LIMIT) -> Weights:
    """Read the arrays of a network that somebody trained, whatever saved them.

    Files of ``torch.save`` (both containers), safetensors, Keras (``.keras`` and ``.h5``; extra
    ``keras``) and ``numpy.savez`` are told apart by their content. No other framework is needed,
    and no code in a file is run: a pickle that asks for anything but tensors is refused.

    Of a checkpoint the state dict is taken (:data:`jaxsnn.exchange.checkpoints.ENTRIES`), and
    ``module.`` in front of every name, which ``nn.DataParallel`` adds, is left out.

    Args:
        path: of the file.
        entry: the entry of a checkpoint to take, if it has several with tensors.
        limit: bytes that the file, and the arrays in it, may take.

    Returns:
        Arrays by name; those of bfloat16 and 8-bit floats as float32, others as stored.

    Raises:
        UserError: it is missing, of another kind, damaged, too large, holds no tensors, or asks
            for something to be run; the message names the file and the entry.

    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/net.npz", **{"fc.weight": np.ones((2, 3), np.float32)})
    ...     {name: array.shape for name, array in read_weights(f"{folder}/net.npz").items()}
    {'fc.weight': (2, 3)}
    """
    path = Path(path)
    weights = _by_content(path, _content(path, limit), entry, Budget(str(path), limit))
    if not weights:
        raise UserError(
            f"{path}: {weights.container} without arrays of a network; give its weights"
        )
    return weights


def _by_content(path: Path, content: bytes, entry: str | None, budget: Budget) -> Weights:
    """The weights in a file, whose first bytes say of what kind it is."""
    place = str(path)
    if content.startswith(b"PK\x03\x04"):
        return _from_archive(content, path, entry, budget)
    if content.startswith(_HDF5):
        return keras_files.read_hdf5(content, place, budget)
    if content.startswith(b"\x80"):
        checkpoint = torch_files.read_legacy(content, place, budget)
        return _from_checkpoint(checkpoint, place, entry, "torch, legacy container")
    if content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content):
        return plain_files.read_safetensors(content, place, budget)
    for start, what in _NO_WEIGHTS.items():
        if content.lstrip().lower().startswith(start):
            raise UserError(f"{path}: {what}; download the file itself")
    raise UserError(f"{path}: no file of weights that is recognised; wanted one of {_KINDS}")


def _content(path: Path, limit: int) -> bytes:
    """All of a file, if it is not too large."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise UserError(
                f"{path}: has {size:,} bytes, more than the {limit:,} that a file may take; pass "
                "limit= if it is meant to be so large"
            )
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _from_archive(content: bytes, path: Path, entry: str | None, budget: Budget) -> Weights:
    """The three kinds of weights that are zip archives."""
    place = str(path)
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: incomplete archive ({error}); get the file again") from error
    with archive:
        names = archive.namelist()
        if {keras_files.CONFIG, keras_files.CONTENT} <= set(names):
            return keras_files.read_keras(archive, place, budget)
        if names and all(name.endswith(".npy") for name in names):
            return plain_files.read_npz(archive, path, budget)
        if any(name.endswith("data.pkl") for name in names):
            checkpoint = torch_files.read_archive(archive, place, budget)
            return _from_checkpoint(checkpoint, place, entry, "torch, zip container")
    raise UserError(f"{path}: an archive without weights; wanted one of {_KINDS}")


def _from_checkpoint(
    checkpoint: Checkpoint, place: str, entry: str | None, container: str
) -> Weights:
    tensors, skipped = checkpoints.state_dict(checkpoint.value, place, entry)
    arrays = {name: checkpoint.array(name, tensor) for name, tensor in tensors.items()}
    return Weights(arrays, place, container, skipped=skipped)
