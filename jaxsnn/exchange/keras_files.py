"""Weights that Keras saved: ``.keras``, ``.weights.h5`` and the older ``.h5`` (extra ``keras``).

A ``.keras`` file is a zip archive of ``config.json`` and ``model.weights.h5``, whose arrays are
numbered in ``<path>/vars``. The older file has names: its attributes list the layers in their
order, and every layer's weights. Both come as ``<layer>/kernel``, ``bias``, ``gamma``, ``beta``,
``moving_mean`` and ``moving_variance``; weights of other kinds of layers keep the kind or the
number in their name.

Source: Keras 3.15, ``saving/saving_lib.py`` and ``legacy/saving/legacy_h5_format.py``.
"""

from __future__ import annotations

import itertools
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxsnn.errors import UserError, shown
from jaxsnn.exchange import hdf5
from jaxsnn.exchange.weights import Budget, Weights, natural

CONFIG, CONTENT = "config.json", "model.weights.h5"
ACTIVATIONS = ("linear", "relu", "softmax")  # softmax keeps the order of the logits
OTHERS = ("LeakyReLU", "ELU", "ThresholdedReLU")  # layers without arrays
KINDS = ("Conv2D", "Dense", "BatchNormalization")
_NUMBERED = re.compile(r"(?:(.+)/)?vars/([0-9]{1,9})")
_TOGETHER = re.compile(r"layers/[^/]+")
_OTHER = re.compile("transpose|depthwise|separable|embedding|layer_norm|group_norm|lstm|gru|rnn")


class _Layer(NamedTuple):
    """A layer of the network's description: its kind (a class of Keras) and its settings."""

    kind: str
    settings: Mapping[str, Any]


class _Entry(NamedTuple):
    """An array of a file, of which layer, and its name there."""

    layer: str
    variable: str
    array: np.ndarray


def read_keras(archive: zipfile.ZipFile, place: str, budget: Budget) -> Weights:
    """Read a ``.keras`` archive.

    Raises:
        UserError: it is damaged or too large, or :func:`read_hdf5` refuses the weights in it.
    """
    members: dict[str, bytes] = {}
    for name in (CONFIG, CONTENT):
        budget.spend(archive.getinfo(name).file_size, name)
        try:
            members[name] = archive.read(name)
        except Exception as error:  # whatever a damaged archive makes zipfile and zlib raise
            raise UserError(f"{place}, {name}: damaged ({error}); get the file again") from error
    return read_hdf5(members[CONTENT], place, budget, members[CONFIG])


def read_hdf5(content: bytes, place: str, budget: Budget, config: bytes | None = None) -> Weights:
    """Read an HDF5 file that Keras wrote.

    Args:
        content: of the file.
        place: for messages.
        budget: of memory.
        config: the network's description (JSON), where it lies beside the weights.

    Raises:
        UserError: h5py is missing; the file is damaged, refers to other files, says that it is
            larger than it may be; or images have their channels first.
    """
    file = hdf5.read(content, place, budget, without=("optimizer", "optimizer_weights"))
    inside = file.texts.get("", {}).get("model_config", [])
    if config is None:
        config = inside[0].encode() if inside else b"{}"
    layers = _described(config, place)
    root = "model_weights" if "model_weights" in file.texts else ""
    listed = _chunks(file, root, "layer_names")
    if listed:
        entries, ordered = list(_listed(file, root, listed, place)), True
    else:
        entries, ordered = _numbered(file, layers)
    arrays: dict[str, np.ndarray] = {}
    for layer, variable, array in entries:
        kind = layers[layer].kind if layer in layers else ""
        name = f"{layer}/{variable}" if kind in ("", *KINDS) else f"{layer}/{kind}.{variable}"
        if name in arrays:
            raise UserError(f"{place}: two arrays {shown(name)}; give every layer its own name")
        arrays[name] = array
    return Weights(arrays, place, "Keras", "keras", ordered, _epsilons(layers))


def _epsilons(layers: Mapping[str, _Layer]) -> dict[str, float]:
    return {
        name: float(layer.settings["epsilon"])
        for name, layer in layers.items()
        if type(layer.settings.get("epsilon")) in (int, float)
    }


def _described(config: bytes, place: str) -> dict[str, _Layer]:
    """Layers of a network by name, in order, those of networks inside it among them.

    Raises:
        UserError: damaged, or a layer that is another here (:func:`_refuse_others`).
    """
    layers: dict[str, _Layer] = {}
    try:
        waiting: list[Any] = [json.loads(config)]
        while waiting:
            each = waiting.pop()
            settings = each.get("config", {})
            if "layers" in settings:
                waiting += reversed(settings["layers"])
            elif "name" in settings:
                layers[str(settings["name"])] = _Layer(str(each.get("class_name")), settings)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{place}: damaged {CONFIG} ({error!s:.60}); get the file again") from error
    _refuse_others(layers, place)
    return layers


def _refuse_others(layers: Mapping[str, _Layer], place: str) -> None:
    """Refuse layers that are others here although their arrays have the same shapes."""
    for name, layer in layers.items():
        where, activation = f"{place}, layer {shown(name)}", layer.settings.get("activation")
        if layer.settings.get("data_format") == "channels_first":
            raise UserError(
                f"{where}: channels_first; build the network with channels_last, give it these "
                "weights and save it again"
            )
        if any(each != 1 for each in np.ravel(layer.settings.get("dilation_rate", 1))):
            raise UserError(f"{where}: a dilated convolution, which no notation has")
        if layer.kind in OTHERS or (isinstance(activation, str) and activation not in ACTIVATIONS):
            raise UserError(
                f"{where}: {shown(activation or layer.kind)} is no activation that is converted; "
                f"train with ReLU ({', '.join(ACTIVATIONS)} are read)"
            )


def _listed(file: hdf5.Hdf5, root: str, layers: list[str], place: str) -> Iterator[_Entry]:
    """Arrays of the older file, in the order of its lists."""
    for layer in layers:
        group = f"{root}/{layer}".lstrip("/")
        for name in _chunks(file, group, "weight_names"):
            if f"{group}/{name}" not in file.arrays:
                raise UserError(f"{place}, {shown(name)}: listed but missing; get the file again")
            *above, variable = name.split(":")[0].split("/")
            yield _Entry(above[-1] if above else layer, variable, file.arrays[f"{group}/{name}"])


def _chunks(file: hdf5.Hdf5, group: str, name: str) -> list[str]:
    """A list of names; a long one is kept in pieces, ``name0`` and so on."""
    texts = file.texts.get(group, {})
    if name in texts:
        return texts[name]
    pieces = itertools.takewhile(texts.__contains__, (f"{name}{n}" for n in itertools.count()))
    return [text for piece in pieces for text in texts[piece]]


def _numbered(file: hdf5.Hdf5, layers: Mapping[str, _Layer]) -> tuple[list[_Entry], bool]:
    """Arrays of the newer file, with the names that their numbers stand for; whether in order.

    Without a description the layers of one kind are in order where they are numbered together.
    """
    groups: dict[str, dict[int, np.ndarray]] = {}
    for path in sorted(file.arrays, key=natural):
        match = _NUMBERED.fullmatch(path)
        if match and match[1] and not match[1].endswith("seed_generator"):
            groups.setdefault(match[1], {})[int(match[2])] = file.arrays[path]
    names = {path: (file.texts.get(f"{path}/vars", {}).get("name") or [path])[0] for path in groups}
    if len(set(names.values())) < len(names):
        names = {path: path for path in groups}
    entries: list[_Entry] = []
    for path, arrays in groups.items():
        variables = _variables(path, layers.get(names[path]), list(arrays.values()))
        entries += map(_Entry, [names[path]] * len(arrays), variables, arrays.values())
    if all(entry.layer in layers for entry in entries):
        position = {name: number for number, name in enumerate(layers)}
        return sorted(entries, key=lambda entry: position[entry.layer]), True
    return entries, all(_TOGETHER.fullmatch(path) for path in groups)


def _variables(path: str, layer: _Layer | None, arrays: list[np.ndarray]) -> list[str]:
    """What the numbered arrays of a layer are called."""
    axes = [array.ndim for array in arrays]
    if axes in ([4], [4, 1], [2], [2, 1]) and not _OTHER.search(path.rsplit("/", 1)[-1]):
        return ["kernel", "bias"][: len(axes)]
    settings: Mapping[str, Any] = {} if layer is None else layer.settings
    norm = ["gamma"] if settings.get("scale", True) else []
    norm += ["beta"] if settings.get("center", True) else []
    norm += ["moving_mean", "moving_variance"]
    if axes == [1] * len(norm) and (layer is None or layer.kind == "BatchNormalization"):
        return norm
    return [f"vars/{number}" for number in range(len(axes))]
