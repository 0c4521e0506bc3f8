"""Build a data set of tensorflow-datasets from files that are already here (extra ``tfds``).

    python tools/prepare_tfds.py mnist --files FOLDER
    python tools/prepare_tfds.py cifar10 --files FOLDER
    python tools/prepare_tfds.py digits --limit 20 --out FOLDER

The first takes the authors' ``.gz`` files, without a network, and writes below tensorflow-datasets'
own folder, where ``jaxsnn.data.load`` finds it. The second does so with ``cifar-10-binary.tar.gz``,
the archive that tensorflow-datasets takes; the one of Python batches ``jaxsnn.data.load`` reads as
it is. The same holds for ``cifar100``.
The third writes the first 20 training and the first 20 test images of scikit-learn's digits, enough
for a test. All write ``array_record``, the format that is read without TensorFlow.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from jaxsnn import data

# tensorflow-datasets takes another of the author's archives than `jaxsnn.data` reads.
ARCHIVES = {
    "cifar10": ("cifar-10-binary.tar.gz",),
    "cifar100": ("cifar-100-binary.tar.gz",),
}
# The others are read as they are, and tensorflow-datasets has no builder for them.
NAMES = [name for name, source in data.SOURCES.items() if source.in_tfds]


class Digits(tfds.core.GeneratorBasedBuilder):
    """Scikit-learn's digits as ``jaxsnn.data`` enlarges and splits them."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            description="UCI handwritten digits as shipped by scikit-learn, 8x8 made 28x28.",
            homepage="https://scikit-learn.org/stable/datasets/toy_dataset.html",
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        digits = data.load("digits")
        return {
            "train": self._generate_examples(digits.train_images, digits.train_labels),
            "test": self._generate_examples(digits.test_images, digits.test_labels),
        }

    def _generate_examples(self, images: Any, labels: Any) -> Iterator[tuple[int, Any]]:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": image, "label": int(label)}


def prepare(name: str, files: Path | None, out: Path | None, limit: int | None) -> Path:
    """Write the prepared folder and return it.

    Args:
        name: a data set of ``jaxsnn.data``.
        files: folder of the authors' ``.gz`` files; by default the places of ``jaxsnn.data`` are
            tried.
        out: tensorflow-datasets' data folder; by default its own.
        limit: keep only the first so many examples of every split.

    Raises:
        ValueError: the ``.gz`` files are not all in one folder, or a shortened set would be written
            where a later run would take it for the whole.
    """
    if limit is not None and (limit < 1 or out is None):
        msg = f"--limit {limit} must be at least 1 and needs --out, so that no run takes the "
        raise ValueError(f"{msg}shortened data set for the whole")
    place = None if out is None else str(out)
    if name == "digits":
        builder, manual = Digits(data_dir=place, file_format="array_record"), None
    else:
        manual = files_folder(name, files)
        builder = tfds.builder(name, data_dir=place, file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=manual, max_examples_per_split=limit)
    with tempfile.TemporaryDirectory() as scratch:  # the unpacked originals are of no later use
        builder.download_and_prepare(download_dir=scratch, download_config=config)
    return Path(str(builder.data_dir))


def files_folder(name: str, files: Path | None) -> Path:
    """The folder that holds all the authors' files, compressed as they were published.

    Raises:
        ValueError: there is none; tensorflow-datasets would download instead.
    """
    wanted = ARCHIVES.get(name) or [f"{file}.gz" for file in data.SOURCES[name].files]
    places = data.locations(name) if files is None else [files]
    for place in places:
        if all((place / file).is_file() for file in wanted):
            return place
    looked = ", ".join(map(str, places))
    msg = f"no folder with all of {', '.join(wanted)} (looked in {looked}); unpacked files will not"
    raise ValueError(f"{msg} do, since tensorflow-datasets checks the compressed ones")


def main() -> int:
    """Read the command line, prepare, and print where the data set lies."""
    parser = argparse.ArgumentParser(
        description=__doc__.replace("``", ""), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--files", type=Path, help="folder of the authors' .gz files")
    parser.add_argument("--out", type=Path, help="data folder; default: tensorflow-datasets' own")
    parser.add_argument("--limit", type=int, help="examples kept of every split (with --out)")
    chosen = parser.parse_args()
    try:
        if importlib.util.find_spec("tensorflow") is None:
            raise ValueError("TensorFlow is not installed; run: pip install '.[tfds]'")
        print(prepare(chosen.name, chosen.files, chosen.out, chosen.limit))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
