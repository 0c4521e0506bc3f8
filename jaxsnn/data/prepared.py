"""Data sets that tensorflow-datasets has prepared, read without TensorFlow.

A set prepared as ``array_record`` holds PNG images and labels that need only NumPy and Pillow. One
prepared as ``tfrecord``, the default of tensorflow-datasets, needs TensorFlow to be read; so does
downloading and preparing (extra ``tfds``). Preparing shuffles the training images, so that a
validation split of the same seed is one of other images than with the authors' files.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxsnn.data.base import Dataset, Images, Labels, check_images, check_labels
from jaxsnn.errors import UserError
from jaxsnn.io.files import read_object
from jaxsnn.types import Untyped

INFO = "dataset_info.json"
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def tensorflow_installed() -> bool:
    """Whether TensorFlow could be imported; it is not imported to find out."""
    return importlib.util.find_spec("tensorflow") is not None


def find(folder: Path) -> Path | None:
    """The newest version prepared below ``folder``, such as ``mnist/3.0.1`` below ``mnist``."""
    versions = [
        path.parent for path in folder.glob(f"*/{INFO}") if _VERSION.fullmatch(path.parent.name)
    ]
    return max(versions, key=lambda path: tuple(map(int, path.name.split("."))), default=None)


def unreadable(folder: Path) -> str | None:
    """Why an intact prepared folder cannot be read here, or None if it can.

    Raises:
        UserError: ``dataset_info.json`` is not a JSON object; the message names it.
    """
    try:
        file_format = read_object(folder / INFO).get("fileFormat", "tfrecord")
    except UserError as error:
        msg = f"{folder / INFO}: not a JSON object ({error}); delete {folder} and prepare it again"
        raise UserError(msg) from error
    if file_format == "array_record" or tensorflow_installed():
        return None
    return f"{folder} is in {file_format} format, which only TensorFlow reads"


def read(folder: Path, name: str, classes: int, shape: tuple[int, int, int]) -> Dataset:
    """Read the ``train`` and ``test`` splits of one prepared folder (10 s for MNIST).

    Args:
        folder: the version folder, with ``dataset_info.json`` in it.
        name: the data set that must be in there.
        classes: number of classes.
        shape: ``(H, W, C)`` that the images must have.

    Raises:
        UserError: another data set, a missing split, a damaged or missing file, images of
            another shape, or a label out of range. The message names the folder.
    """
    tfds = _import_tfds()
    try:
        builder = tfds.builder_from_directory(str(folder))
        stored_name, splits = str(builder.info.name), set(builder.info.splits)
    except Exception as error:  # whatever a damaged description raises, the remedy is the same
        raise _damaged(folder, error) from error
    if stored_name != name or not {"train", "test"} <= splits:
        has = f"holds {stored_name} with the splits {sorted(splits)}"
        msg = f"{folder} {has}; wanted {name} with train and test"
        raise UserError(msg)
    train = _read_split(tfds, builder, "train", folder)
    test = _read_split(tfds, builder, "test", folder)
    for split, (images, labels) in (("train", train), ("test", test)):
        check_images(images, f"{folder}: {split} images")
        check_labels(labels, classes, f"{folder}: {split} labels")
        if images.shape[1:] != shape:
            msg = f"{folder}: {split} images have shape {images.shape[1:]}, wanted {shape}"
            raise UserError(msg)
    return Dataset(*train, *test, classes, name, f"tensorflow-datasets, {folder}")


def download(name: str, data_dir: Path) -> Path:
    """Let tensorflow-datasets download and prepare a data set; needs TensorFlow and a network.

    Returns:
        The prepared version folder.

    Raises:
        RuntimeError: it failed, whatever the cause.
    """
    try:
        tfds = _import_tfds()
        builder = tfds.builder(name, data_dir=str(data_dir), file_format="array_record")
        builder.download_and_prepare()
        return Path(str(builder.data_dir))
    except Exception as error:  # network, disk, checksum, import: the caller reports and goes on
        msg = f"tensorflow-datasets could not download {name}: {type(error).__name__}: {error}"
        raise RuntimeError(msg) from error


def _import_tfds() -> Any:
    """Import late: it takes a second, and most runs read other files."""
    try:
        tfds = importlib.import_module("tensorflow_datasets")
        # Where one of its own imports fails it logs that and goes on as an empty module.
        tfds.builder_from_directory  # noqa: B018
    except (ImportError, AttributeError) as error:
        msg = f"tensorflow-datasets cannot be imported ({error}); run: pip install "
        raise UserError(
            f"{msg}--force-reinstall tensorflow-datasets importlib_resources"
        ) from error
    return tfds


def _damaged(folder: Path, error: Exception) -> UserError:
    reason = f"{type(error).__name__}: {error}"
    return UserError(f"{folder} cannot be read ({reason}); delete it and prepare it again")


def _read_split(tfds: Untyped, builder: Untyped, split: str, folder: Path) -> tuple[Images, Labels]:
    try:
        if str(builder.info.file_format.value) == "array_record":
            images, labels = _read_records(tfds, builder, split)
        else:
            whole = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
            images, labels = whole["image"], whole["label"]
    except Exception as error:  # array_record and TensorFlow have error types of their own
        raise _damaged(folder, error) from error
    return images, np.asarray(labels, np.int32)


def _read_records(tfds: Untyped, builder: Untyped, split: str) -> tuple[Images, list[int]]:
    # Decoded here, since tensorflow-datasets logs a plea for OpenCV when it decodes with Pillow.
    skip = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(split, decoders=skip)
    records = source.__getitems__(list(range(len(source))))
    images = np.stack([np.asarray(Image.open(io.BytesIO(record["image"]))) for record in records])
    images = images[..., None] if images.ndim == 3 else images
    return images, [int(record["label"]) for record in records]
