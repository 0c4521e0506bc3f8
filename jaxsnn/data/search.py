"""The registry of data sets, and where their files are looked for."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxsnn.data import cifar, idx, prepared, tiny_imagenet
from jaxsnn.data.base import Dataset
from jaxsnn.data.digits import load_digits
from jaxsnn.errors import UserError

Shape = tuple[int, int, int]

# The aligned faces come first; then those of torchvision and scikit-learn.
_FACES = (
    *("lfw-deepfunneled", "lfw_funneled", "lfw", "lfw-deepfunneled/lfw-deepfunneled"),
    *("lfw-py/lfw-deepfunneled", "lfw-py/lfw_funneled", "lfw-py/lfw", "lfw_home/lfw_funneled"),
)


@dataclass(frozen=True)
class Source:
    """One named data set. A new one is a new entry of ``SOURCES``.

    Attributes:
        name: as on the command line, and in tensorflow-datasets.
        classes: number of classes, for ``lfw`` of the whole published data: its own are counted.
        input_shape: ``(H, W, C)`` of an image.
        loader: takes this record and the reader's data folder and finds the data.
        files: what the authors call their files; empty if none are needed.
        packed: the form in which the files may also be there, for the message of what is wanted;
            empty if there is none.
        folders: usual names of the folder that holds them (ours, torchvision's, Keras's).
        read_folder: takes a folder, name, classes and shape; None if the folder has no such files.
        in_tfds: whether tensorflow-datasets has it in this form, too.
    """

    name: str
    classes: int
    input_shape: Shape
    loader: Callable[[Source, Path | None], Dataset]
    files: tuple[str, ...] = ()
    packed: str = ".gz"
    folders: tuple[str, ...] = ()
    read_folder: Callable[[Path, str, int, Shape], Dataset | None] | None = None
    in_tfds: bool = True


def search(source: Source, data_dir: Path | None) -> Dataset:
    """Take a data set from the first place that has it, downloading it if none does.

    Raises:
        UserError: files are there but damaged (the search does not go on, lest other data are
            used unnoticed), or nothing was found; then the message lists places and remedies.
    """
    notes: list[str] = []
    for folder, is_prepared in _candidates(source, data_dir):
        read = _read_prepared if is_prepared else _read_originals
        dataset = read(source, folder, notes)
        if dataset is not None:
            return dataset
    if source.in_tfds and prepared.tensorflow_installed():
        try:
            folder = prepared.download(source.name, _tfds_home())
        except RuntimeError as error:
            notes.append(str(error))
        else:
            return prepared.read(folder, source.name, source.classes, source.input_shape)
    raise UserError(_not_found(source, data_dir, notes))


def places(folders: tuple[str, ...], data_dir: Path | None) -> list[Path]:
    """Where a folder of one of these names may lie, in order: what the reader gave comes first."""
    first = [] if data_dir is None else [data_dir.expanduser()]
    named = [place / folder for place in (*first, *_usual_places()) for folder in folders]
    return list(dict.fromkeys([*first, *named]))


def folders_of(source: Source, data_dir: Path | None) -> list[Path]:
    """All folders that ``search`` looks at, in order, each once."""
    return list(dict.fromkeys(folder for folder, _ in _candidates(source, data_dir)))


def _read_originals(source: Source, folder: Path, notes: list[str]) -> Dataset | None:
    del notes  # the authors' files are either there, absent or damaged: nothing to add
    if source.read_folder is None:
        return None
    return source.read_folder(folder, source.name, source.classes, source.input_shape)


def _read_prepared(source: Source, folder: Path, notes: list[str]) -> Dataset | None:
    version = prepared.find(folder)
    if version is None:
        return None
    reason = prepared.unreadable(version)
    if reason is not None:
        notes.append(reason)
        return None
    return prepared.read(version, source.name, source.classes, source.input_shape)


def _candidates(source: Source, data_dir: Path | None) -> Iterator[tuple[Path, bool]]:
    """Folders to look at, in order; True marks one of tensorflow-datasets."""
    if not source.folders:
        return
    if data_dir is not None:
        root = data_dir.expanduser()
        if not _belongs_to_another(root, source):
            yield root, False
        yield from ((root / folder, False) for folder in source.folders)
        # A folder that the reader names outranks every usual place, prepared or not.
        if source.in_tfds:
            yield from ((folder / source.name, True) for folder in (root, root / "tfds"))
    usual = _usual_places()
    yield from ((place / folder, False) for place in usual for folder in source.folders)
    if source.in_tfds:
        yield from ((place / "tfds" / source.name, True) for place in usual)
        yield _tfds_home() / source.name, True


def _usual_places() -> list[Path]:
    variable = os.environ.get("JAXSNN_DATA")
    places = [Path(variable).expanduser()] if variable else []
    return [*places, Path("data"), Path.home() / ".cache" / "jaxsnn" / "data"]


def _tfds_home() -> Path:
    variable = os.environ.get("TFDS_DATA_DIR")
    return Path(variable).expanduser() if variable else Path.home() / "tensorflow_datasets"


def _belongs_to_another(folder: Path, source: Source) -> bool:
    """Whether the folder's name is that of another data set, whose files may be named alike."""
    path = folder.resolve().as_posix().lower()
    others = (other for other in SOURCES.values() if other is not source)
    return any(path.endswith(f"/{name.lower()}") for other in others for name in other.folders)


def _not_found(source: Source, data_dir: Path | None, notes: list[str]) -> str:
    lines = [f"{source.name} was not found. Looked in:"]
    lines += [f"  {folder}" for folder in folders_of(source, data_dir)]
    packed = f" (plain or {source.packed})" if source.packed else ""
    lines += [f"Files wanted{packed}: {', '.join(source.files)}", *notes]
    if source.in_tfds and not prepared.tensorflow_installed():
        lines.append("tensorflow-datasets downloads it after: pip install '.[tfds]'")
    lines.append("Pass --data-dir FOLDER, or --dataset digits, which needs nothing.")
    return "\n".join(lines)


def _read_faces(folder: Path, name: str, classes: int, shape: Shape) -> Dataset | None:
    # Imported here: what `python -m` runs must not be imported by its own package first.
    from jaxsnn.data import lfw

    if any((folder / inner).is_dir() for inner in _FACES):
        return None  # the folder above: whatever else lies in it, these are no people
    return lfw.load_folder(folder, name, classes, shape)


def _embedded(source: Source, data_dir: Path | None) -> Dataset:
    del source, data_dir  # digits come with scikit-learn
    return load_digits()


SOURCES = {
    source.name: source
    for source in (
        Source("digits", 10, (28, 28, 1), _embedded),
        Source(
            name="mnist",
            classes=10,
            input_shape=(28, 28, 1),
            loader=search,
            files=idx.FILES,
            folders=("mnist", "MNIST/raw", "MNIST"),
            read_folder=idx.load_folder,
        ),
        Source(
            name="fashion_mnist",
            classes=10,
            input_shape=(28, 28, 1),
            loader=search,
            files=idx.FILES,
            folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
            read_folder=idx.load_folder,
        ),
        Source(
            name="cifar10",
            classes=10,
            input_shape=(32, 32, 3),
            loader=search,
            files=cifar.CIFAR10.files,
            packed=f"in {cifar.CIFAR10.archive}",
            folders=(
                *("cifar-10-batches-py", "cifar10", "cifar10/cifar-10-batches-py"),
                *("CIFAR10", "CIFAR10/cifar-10-batches-py", "cifar-10"),
                "cifar-10-batches-py-target/cifar-10-batches-py",  # Keras
                ".",  # where torchvision puts the archive
            ),
            read_folder=functools.partial(cifar.load_folder, edition=cifar.CIFAR10),
        ),
        Source(
            name="cifar100",
            classes=100,
            input_shape=(32, 32, 3),
            loader=search,
            files=cifar.CIFAR100.files,
            packed=f"in {cifar.CIFAR100.archive}",
            folders=(
                *("cifar-100-python", "cifar100", "cifar100/cifar-100-python"),
                *("CIFAR100", "CIFAR100/cifar-100-python", "cifar-100"),
                "cifar-100-python-target/cifar-100-python",  # Keras
                ".",  # where torchvision puts the archive
            ),
            read_folder=functools.partial(cifar.load_folder, edition=cifar.CIFAR100),
        ),
        Source(
            name="tiny_imagenet",
            classes=200,
            input_shape=(64, 64, 3),
            loader=search,
            files=tiny_imagenet.FILES,
            packed="",
            folders=(
                *("tiny-imagenet-200", "tiny_imagenet", "tiny_imagenet/tiny-imagenet-200"),
                *("tiny-imagenet", "tiny-imagenet/tiny-imagenet-200", "TinyImageNet"),
                *("TinyImageNet/tiny-imagenet-200", "tiny-imagenet-200/tiny-imagenet-200"),
            ),
            read_folder=tiny_imagenet.load_folder,
            in_tfds=False,
        ),
        Source(
            name="lfw",
            classes=29,
            input_shape=(96, 96, 3),
            loader=search,
            files=("<Name>/*.jpg",),
            packed="",
            folders=_FACES,
            read_folder=_read_faces,
            in_tfds=False,  # there it has no split, and one label for each image
        ),
    )
}
