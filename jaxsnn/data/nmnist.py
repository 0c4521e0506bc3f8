"""N-MNIST as its authors publish it: one file per recording, by digit, unpacked or in two zips."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np

from jaxsnn.data.events import Events, decode_nmnist
from jaxsnn.data.search import places
from jaxsnn.errors import UserError
from jaxsnn.io.progress import bar

FOLDERS = ("nmnist", "N-MNIST", "NMNIST")
PARTS = ("Train", "Test")
CLASSES = 10
LARGEST = 1 << 24  # bytes of a recording; the published ones have some 20,000
File: TypeAlias = tuple[str, str, int, int]  # class folder, path, size, and what marks a change


@dataclass(frozen=True, eq=False)
class Part:
    """The files of the training or of the test set, not yet read.

    Attributes:
        place: the folder or the zip file.
        names: path of each file below the folder or within the zip, in a fixed shuffled order.
        labels: digit of each file.
        digest: of every file's path below the folder, its size and when it was changed; in a zip of
            its path, size and checksum.
    """

    place: Path
    names: list[str]
    labels: list[int]
    digest: str

    def read(self) -> Iterator[tuple[Events, int]]:
        """Yield each recording with its digit, under a progress bar.

        Raises:
            UserError: a file is damaged, or the zip is; the message names it.
        """
        files = zip(self.names, self.labels, strict=True)
        what = f"reading N-MNIST's {self.place.name}"
        if not zipfile.is_zipfile(self.place):
            for name, label in bar(files, len(self.names), what):
                path = self.place / name
                yield decode_nmnist(path.read_bytes(), str(path)), label
            return
        with zipfile.ZipFile(self.place) as archive:
            for name, label in bar(files, len(self.names), what):
                yield (
                    decode_nmnist(_member(archive, name, self.place), f"{self.place}:{name}"),
                    label,
                )


def find(data_dir: Path | None = None) -> dict[str, Part]:
    """Look for N-MNIST in the reader's folder and the usual places; the first that has it counts.

    A place holds ``Train/<digit>/*.bin`` and ``Test/<digit>/*.bin``, or ``Train.zip`` and
    ``Test.zip``, which are read without unpacking them.

    Args:
        data_dir: the folder of the files, or one above it.

    Returns:
        The parts ``"train"`` and ``"test"``. The files stand in a shuffled order that is the same
        everywhere, so that a part of them holds every digit.

    Raises:
        UserError: nothing was found (the message lists the places), only one of the two parts, a
            digit without a recording, a folder that is no digit, or a damaged zip.
    """
    for folder in (looked := places(FOLDERS, data_dir)):
        parts = {name: part for name in PARTS if (part := _part(folder, name)) is not None}
        if missing := [name for name in PARTS if name not in parts]:
            if not parts:
                continue
            there = next(iter(parts.values())).place
            raise UserError(f"{there} is there, but neither {folder / missing[0]} nor its zip")
        return {name.lower(): part for name, part in parts.items()}
    lines = ["nmnist was not found. Looked in:", *(f"  {folder}" for folder in looked)]
    lines.append(
        "Files wanted: Train/<digit>/*.bin and Test/<digit>/*.bin, or Train.zip and Test.zip"
    )
    lines.append("Pass --data-dir FOLDER, or --dataset digits, which needs nothing.")
    raise UserError("\n".join(lines))


def _part(folder: Path, name: str) -> Part | None:
    """The files of one part below ``folder``, unpacked or not."""
    if (folder / name).is_dir():
        return _listed(folder / name, _unpacked(folder / name))
    for packed in (f"{name}.zip", f"{name.lower()}.zip"):
        if (folder / packed).is_file():
            return _listed(folder / packed, _packed(folder / packed, name))
    return None


def _unpacked(place: Path) -> Iterator[File]:
    """Every file below a folder."""
    for folder in place.iterdir():
        if folder.is_dir():
            for path in folder.glob("*.bin"):
                status = path.stat()
                name = f"{folder.name}/{path.name}"
                yield folder.name, name, status.st_size, status.st_mtime_ns


def _packed(place: Path, part: str) -> list[File]:
    """Every file in a zip."""
    try:
        with zipfile.ZipFile(place) as archive:
            members = archive.infolist()
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{place}: not a readable zip file ({error}); fetch it again") from error
    recordings: list[File] = []
    for member in members:
        parts = PurePosixPath(member.filename).parts
        hidden = "__MACOSX" in parts  # what macOS adds to a zip
        if len(parts) >= 3 and parts[-3] == part and parts[-1].endswith(".bin") and not hidden:
            recordings.append((parts[-2], member.filename, member.file_size, member.CRC))
    return recordings


def _listed(place: Path, files: Iterable[File]) -> Part:
    """A part of these files, after a look at the digits."""
    ordered = sorted(file for file in files if not file[1].rpartition("/")[2].startswith("."))
    digits = [str(digit) for digit in range(CLASSES)]
    present = {folder for folder, *_ in ordered}
    if unknown := sorted(present - set(digits)):
        raise UserError(f"{place}: folder {unknown[0]!r} is no digit; N-MNIST has 0 to 9")
    if empty := [digit for digit in digits if digit not in present]:
        wanted = f"{empty[0]}/*.bin holds no recording"
        raise UserError(f"{place}: {wanted}; N-MNIST has all ten digits: unpack it again")
    # RandomState's stream is frozen for good, unlike that of a Generator.
    order = np.random.RandomState(0).permutation(len(ordered))
    shuffled = [ordered[index] for index in map(int, order)]
    digest = hashlib.sha256(repr(ordered).encode()).hexdigest()
    names, labels = [file[1] for file in shuffled], [int(file[0]) for file in shuffled]
    return Part(place, names, labels, digest)


def _member(archive: zipfile.ZipFile, name: str, place: Path) -> bytes:
    try:
        if archive.getinfo(name).file_size > LARGEST:
            raise UserError(f"{place}: {name} announces over {LARGEST:,} bytes; fetch it again")
        return archive.read(name)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{place}: {name} is damaged ({error}); fetch the zip again") from error
