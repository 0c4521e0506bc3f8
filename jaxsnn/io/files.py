"""Files that survive a kill: written whole and renamed, or appended line by line."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from jaxsnn.errors import UserError, shown
from jaxsnn.io import processes
from jaxsnn.types import Json, JsonObject


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file whole or not at all; missing folders are made.

    Of several processes the first alone writes, here and in ``append_jsonl``
    (``jaxsnn.io.processes``). The content goes to a temporary file in the same folder, which then
    replaces ``path``; temporary files of the same target that killed processes have left are
    removed first.
    """
    path = Path(path)
    if not processes.is_primary():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def naming(path: str | Path) -> Generator[None]:
    """Errors of the system say which file could not be written, a full disk's among them.

    Raises:
        OSError: that of the block, with ``path`` as its file.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error


def _remove_leftovers(path: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(path.name)}\.([1-9]\d*)\.tmp")
    for entry in path.parent.iterdir():
        if (match := pattern.fullmatch(entry.name)) and not _runs(int(match[1])):
            entry.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether a process of this machine exists; true where that cannot be asked."""
    if os.name != "posix":  # there signal 0 would not ask but interrupt
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def remove(path: str | Path) -> None:
    """Remove a file if it is there; of several processes the first alone does."""
    if processes.is_primary():
        Path(path).unlink(missing_ok=True)


@contextlib.contextmanager
def exclusive(folder: str | Path) -> Generator[None]:
    """Keep every other run out of a folder, which is made; the lock goes with the process.

    Of the several processes of one run, the first holds the lock for all.

    Raises:
        UserError: another run holds it.
    """
    with contextlib.ExitStack() as held:
        with processes.collective():
            if processes.is_primary():
                held.enter_context(_locked(Path(folder)))
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # a system without POSIX locks
        yield
        return
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder} is being trained by another process; wait for it, or give another --out"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield


def write_json(path: str | Path, obj: object) -> Path:
    """Write ``obj`` as indented JSON, atomically.

    NumPy and JAX scalars and arrays, tuples and paths become plain JSON values.

    Raises:
        UserError: a value is NaN or infinite, or of a kind that JSON lacks, or a key is not a
            string; the message names the path of keys. Nothing is written then.
    """
    text = json.dumps(plain(obj), indent=2, ensure_ascii=False, allow_nan=False)
    return write_bytes(path, (text + "\n").encode())


def read_json(path: str | Path) -> Json:
    """Read one JSON file.

    Raises:
        UserError: the file is not JSON (broken off, for example); the message names it.
        FileNotFoundError: there is no such file.
    """
    return parse_json(Path(path).read_bytes(), str(path))


def read_text(path: str | Path) -> str:
    """Read one text file.

    Raises:
        UserError: the file is no text in UTF-8; the message names it.
        FileNotFoundError: there is no such file.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file ({error}); delete it or restore it") from error


def read_object(path: str | Path) -> JsonObject:
    """Read one JSON file that holds an object.

    Raises:
        UserError: as ``read_json``, or it holds something else.
        FileNotFoundError: there is no such file.
    """
    return parse_object(Path(path).read_bytes(), str(path))


def parse_json(text: str | bytes, place: str) -> Json:
    """The value of a JSON text; ``place`` is where it comes from, for messages.

    Raises:
        UserError: the text is not JSON, or nested deeper than Python reads.
    """
    try:
        return json.loads(text)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        msg = f"{place}: not a complete JSON file ({error}); delete it or write it again"
        raise UserError(msg) from error
    except RecursionError:
        msg = f"{place}: JSON that is nested too deeply; delete it or write it again"
        raise UserError(msg) from None


def parse_object(text: str | bytes, place: str) -> JsonObject:
    """The object of a JSON text; see ``parse_json``.

    Raises:
        UserError: as ``parse_json``, or the text is another value.
    """
    value = parse_json(text, place)
    if not isinstance(value, dict):
        raise UserError(f"{place}: not a JSON object but {shown(value)}; write it again")
    return cast("JsonObject", value)


def append_jsonl(path: str | Path, record: Mapping[str, Json]) -> None:
    """Append one record as one line and flush it.

    A last line that a kill has broken off is removed first, or the new record would be lost in it.

    Raises:
        UserError: as ``write_json``.
    """
    line = json.dumps(plain(record), ensure_ascii=False, allow_nan=False)
    if not processes.is_primary():
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _end_last_line(path)
    with naming(path), path.open("ab") as file:
        file.write(line.encode() + b"\n")


def read_jsonl(path: str | Path, key: str = "step") -> list[JsonObject]:
    """Read the records of a stream, in order.

    A last line that breaks off is dropped: the writer was killed. Of several records with the same
    value under ``key`` (steps that were repeated after a resume) the last one is kept, in the place
    of the first; records without ``key`` are all kept.

    Raises:
        UserError: another line is not a JSON object; the message names file and line.
    """
    *lines, last = Path(path).read_bytes().split(b"\n")
    records: dict[object, JsonObject] = {}
    for number, line in enumerate([*lines, last] if _whole(last) else lines, start=1):
        record = parse_object(line, f"{path}, line {number}")
        value: object = record.get(key)
        if isinstance(value, list | dict):
            is_now = shown(record[key])
            raise UserError(f"{path}, line {number}: {key} is {is_now}; it must be a number")
        records[(key, value) if key in record else number] = record
    return list(records.values())


def plain(value: object, where: str = "") -> Json:
    """Turn a value into what JSON knows; ``where`` is the path of keys that leads to it.

    Raises:
        UserError: as ``write_json``.

    Examples:
        >>> plain({"rate": np.float32(0.5), "shape": (2, np.int64(3))})
        {'rate': 0.5, 'shape': [2, 3]}
    """
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UserError(f"{where or 'the value'} is {value}; JSON has finite numbers and null")
        return float(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {_key(key, where): plain(item, f"{where}.{key}".lstrip(".")) for key, item in items}
    if isinstance(value, list | tuple):
        sequence = cast("Sequence[object]", value)
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(sequence)]
    if isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    if hasattr(value, "__array__"):  # NumPy and JAX arrays and scalars
        return plain(np.asarray(value).tolist(), where)
    raise UserError(f"{where or 'the value'} is a {type(value).__name__}, which JSON lacks")


def _whole(line: bytes) -> bool:
    """Whether a line without its end is a whole record; a part of an object never is JSON."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _end_last_line(path: Path) -> None:
    """Complete or remove a last line that a kill has left without its end."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        last = content[content.rfind(b"\n") + 1 :]
        if _whole(last):
            file.write(b"\n")
        else:
            file.truncate(len(content) - len(last))


def _key(key: object, where: str) -> str:
    if not isinstance(key, str):
        raise UserError(f"key {key!r} in {where or 'the value'}: give a string")
    return key
