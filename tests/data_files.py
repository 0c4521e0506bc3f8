"""Small data sets on disk, written without the library that reads them."""

import gzip
import io
import json
import shutil
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from jaxsnn.data import prepared

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
# Made by: python tools/prepare_tfds.py digits --limit 20 --out FOLDER
#          cd FOLDER && python -m zipfile -c tfds_digits.zip digits
PREPARED = Path(__file__).parent / "files" / "tfds_digits.zip"


def isolate(tmp_path, monkeypatch):
    """No data but a test's own: an empty home and working folder, and no download."""
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home / "work")
    monkeypatch.delenv("JAXSNN_DATA", raising=False)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr(prepared, "tensorflow_installed", lambda: False)
    return home


def idx_bytes(array):
    """An IDX file by the format's definition, written without the library."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def pixels(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def put(folder, name, content, compress=True):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"{name}.gz" if compress else name)
    path.write_bytes(gzip.compress(content) if compress else content)
    return path


def write_set(folder, seed=0, compress=True):
    """A complete small data set: 30 training and 20 test images."""
    for (images, labels), count in ((TRAIN, 30), (TEST, 20)):
        put(folder, images, idx_bytes(pixels(count, seed)), compress)
        put(folder, labels, idx_bytes(np.arange(count) % 10), compress)
    return folder


def unpack_prepared(place, name="digits"):
    """The prepared digits under ``place``, as if they were the data set ``name``."""
    shutil.unpack_archive(PREPARED, place)
    if name != "digits":
        version = (place / "digits").rename(place / name) / "1.0.0"
        info = json.loads((version / "dataset_info.json").read_text())
        (version / "dataset_info.json").write_text(json.dumps({**info, "name": name}))
        for path in version.glob("digits-*"):
            path.rename(version / path.name.replace("digits", name))
    return place / name / "1.0.0"


_FEATURES = "tensorflow_datasets.core.features."
_COLOUR = {
    "id": {"text": {}, "pythonClassName": f"{_FEATURES}text_feature.Text"},
    "image": {
        "image": {"shape": {"dimensions": ["32", "32", "3"]}, "dtype": "uint8"},
        "pythonClassName": f"{_FEATURES}image_feature.Image",
    },
    "label": {
        "classLabel": {"numClasses": "10"},
        "pythonClassName": f"{_FEATURES}class_label_feature.ClassLabel",
    },
}


def _record(index, image, label):
    """One example as tensorflow-datasets stores it: a tf.train.Example with the image as a PNG."""
    from tensorflow_datasets.proto import tf_example_pb2

    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    example = tf_example_pb2.Example()
    features = example.features.feature
    features["id"].bytes_list.value.append(f"train_{index:05d}".encode())
    features["image"].bytes_list.value.append(file.getvalue())
    features["label"].int64_list.value.append(int(label))
    return example.SerializeToString()


def write_prepared_colours(place, splits):
    """A prepared ``cifar10`` under ``place``; ``splits`` maps a split to images and labels."""
    from array_record.python.array_record_module import ArrayRecordWriter

    version = place / "cifar10" / "3.0.2"
    version.mkdir(parents=True)
    described = []
    for split, (images, labels) in splits.items():
        path = version / f"cifar10-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            writer.write(_record(index, image, label))
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        shard = {"name": split, "shardLengths": [str(len(images))], "filepathTemplate": template}
        described.append(shard)
    info = {"name": "cifar10", "version": "3.0.2", "fileFormat": "array_record"}
    (version / "dataset_info.json").write_text(json.dumps({**info, "splits": described}))
    features = {"features": _COLOUR}
    whole = {"featuresDict": features, "pythonClassName": f"{_FEATURES}features_dict.FeaturesDict"}
    (version / "features.json").write_text(json.dumps(whole))
    return version
