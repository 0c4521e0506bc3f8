"""How accurate is somebody's network after so many steps of rate coding, beside SpikingJelly?

The same weights, the same calibration images, the same test images: SpikingJelly's
``ann2snn.Converter`` with its two usual scales ("Max" and "99.9%"), and ours with the scales that
:func:`jaxsnn.calibrate` finds (99.9 %, first potential half a threshold). Its answer after T steps
is the class of the mean output of T steps, as in its tutorial.

    python benchmarks/converter.py [--networks digits resnet20 mnist_cnn mnist_params]
        [--images 1000] [--models DIR] > converter.jsonl

Weights other than those of the digits are the published files that experiments/bring_your_own.py
names, in DIR (default: models below $JAXSNN_DATA).
Without SpikingJelly (pip install '.[bench]') only our own numbers are taken.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np

from jaxsnn import data, evaluate
from jaxsnn.conversion.calibration import calibrate
from jaxsnn.data.splits import limited_rows
from jaxsnn.exchange.compare import accuracy
from jaxsnn.inputs.preprocess import Preprocessing, units_of
from jaxsnn.systems.bring_your_own.network import preprocessing_of, read_network
from jaxsnn.systems.command_line import parse_flags
from jaxsnn.systems.settings.bring_your_own import BringYourOwn

TIMES = (5, 10, 20, 50, 100)  # steps
MODES = ("Max", "99.9%")  # of SpikingJelly
CALIBRATED, BATCH = 500, 100  # images
EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def settings(name: str, models: Path | None) -> BringYourOwn:
    """A network as experiments/bring_your_own.py names it, its file in ``models`` where given."""
    words = runpy.run_path(str(EXPERIMENTS / "bring_your_own.py"))["NETWORKS"][name]
    config = parse_flags(BringYourOwn, words, "converter.py")
    if models is None or name == "digits":
        return config
    return dataclasses.replace(config, weights=str(models / Path(config.weights).name))


def ours(config: BringYourOwn, source: data.Dataset, images: int) -> dict[str, Any]:
    """Accuracy of the network as it is, and after every step; seconds."""
    preprocessing = preprocessing_of(config, source.input_shape)
    brought = read_network(config, preprocessing.shape(source.input_shape), source.classes)
    units = units_of(preprocessing, source.test_images[:images])
    labels = source.test_labels[:images]
    began = time.perf_counter()
    ready = calibrate(
        brought.variables,
        brought.arch,
        units_of(preprocessing, calibration_images(source)),
        encoding=preprocessing.encoding,
    )
    snn = ready.convert(ready.rate())
    converted = time.perf_counter()
    size = min(BATCH, len(units))
    spiking = evaluate(snn, units, labels, steps=max(TIMES), batch_size=size)
    return {
        "as_it_is": accuracy(ready.trained, ready.variables, units, labels, ready.encoding, size),
        "after": [float(spiking.accuracy_per_step[steps - 1]) for steps in TIMES],
        "conversion_s": round(converted - began, 2),
        "simulation_s": round(time.perf_counter() - converted, 2),
    }


def calibration_images(source: data.Dataset) -> np.ndarray:
    """Some training images, of every class its share."""
    return source.train_images[limited_rows(source.train_labels, CALIBRATED, 0)]


def spikingjelly(
    name: str, config: BringYourOwn, source: data.Dataset, images: int, mode: str
) -> dict[str, Any]:
    """The same of SpikingJelly's converter."""
    import torch
    from spikingjelly.activation_based import ann2snn, functional

    preprocessing = preprocessing_of(config, source.input_shape)
    network = module(name, config.weights)
    some = batches(preprocessing, calibration_images(source))
    labels = source.test_labels[:images]
    began = time.perf_counter()
    recipe = ann2snn.RateCodingRecipe([(each, None) for each in some], mode=mode)
    converted = ann2snn.Converter(recipe).convert(network).eval()
    ready = time.perf_counter()
    right, as_it_is = np.zeros(len(TIMES), int), 0
    with torch.inference_mode():
        for number, batch in enumerate(batches(preprocessing, source.test_images[:images])):
            expected = labels[number * BATCH :][: len(batch)]
            as_it_is += int(np.sum(network(batch).argmax(1).numpy() == expected))
            functional.reset_net(converted)
            total: Any = 0
            for step in range(1, max(TIMES) + 1):
                total = total + converted(batch)
                if step in TIMES:
                    hits = np.sum(total.argmax(1).numpy() == expected)
                    right[TIMES.index(step)] += int(hits)
    return {
        "as_it_is": as_it_is / len(labels),
        "after": (right / len(labels)).tolist(),
        "conversion_s": round(ready - began, 2),
        "simulation_s": round(time.perf_counter() - ready, 2),
    }


def batches(preprocessing: Preprocessing, images: np.ndarray) -> list[Any]:
    """Batches ``[B, C, H, W]`` of what the network was trained on."""
    import torch

    values = np.asarray(preprocessing.encoding.decode(units_of(preprocessing, images)), np.float32)
    whole = torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))
    return list(whole.split(BATCH))


def module(name: str, weights: str) -> Any:
    """The network in PyTorch, with its weights, in evaluation."""
    import torch

    network = MODULES[name]()
    arrays = torch.load(weights, map_location="cpu", weights_only=True)
    arrays = arrays.get("state_dict", arrays)
    named = {key.removeprefix("module."): value for key, value in arrays.items()}
    expected = {key: v for key, v in network.state_dict().items() if ".shortcut." not in key}
    if named.keys() != expected.keys():  # the same layers in the same order under other names
        counted = [key for key in expected if key.rpartition(".")[2] != "num_batches_tracked"]
        values = [v for key, v in named.items() if key.rpartition(".")[2] != "num_batches_tracked"]
        named = dict(zip(counted, values, strict=True))
    network.load_state_dict(named, strict=False)
    return network.eval()


def _plain(channels: tuple[int, ...], kernel: tuple[int, ...], **options: Any) -> list[Any]:
    """Convolutions, each with a ReLU and a pool behind it."""
    from torch import nn

    pool, norm, layers, before = options.pop("pool"), options.pop("norm", False), list[Any](), 1
    for width, size in zip(channels, kernel, strict=True):
        layers.append(nn.Conv2d(before, width, size, **options))
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers += [nn.ReLU(), pool(2)]
        before = width
    return layers


def _digits() -> Any:
    from torch import nn

    layers = _plain((8, 16, 16), (3, 3, 3), norm=True, padding=1, pool=nn.AvgPool2d)[:-1]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def _mnist_cnn() -> Any:
    from torch import nn

    dense = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*_plain((6, 16), (3, 3), pool=nn.MaxPool2d), nn.Flatten(), *dense)


def _mnist_params() -> Any:
    from torch import nn

    layers = _plain((20, 32, 128), (5, 5, 3), bias=False, pool=nn.AvgPool2d)
    dense = [nn.Linear(128, 500, bias=False), nn.ReLU(), nn.Linear(500, 10, bias=False)]
    return nn.Sequential(*layers, nn.Flatten(), *dense)


def _resnet20() -> Any:
    import torch
    from torch import nn

    class Block(nn.Module):
        """Two convolutions beside the identity, at a stride with channels of zeros (option A)."""

        def __init__(self, before: int, width: int) -> None:
            super().__init__()
            stride = width // before
            self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
            self.shortcut = nn.Identity()
            if stride > 1:  # as a convolution, since the converter takes no slice and no padding
                ones = torch.eye(before).reshape(before, before, 1, 1)
                self.shortcut = nn.Conv2d(before, width, 1, stride, bias=False)
                self.shortcut.weight.data.zero_()
                self.shortcut.weight.data[(width - before) // 2 :][:before] = ones

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
            return self.relu2(out + self.shortcut(x))

    widths = (*3 * (16,), *3 * (32,), *3 * (64,))
    blocks = [Block(a, b) for a, b in zip((16, *widths), widths, strict=False)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*stem, *blocks, *head)


MODULES: dict[str, Callable[[], Any]] = {
    "digits": _digits,
    "resnet20": _resnet20,
    "mnist_cnn": _mnist_cnn,
    "mnist_params": _mnist_params,
}


def shown(row: dict[str, Any]) -> str:
    """A row in words."""
    after = ", ".join(f"T={t} {value:.2%}" for t, value in zip(TIMES, row["after"], strict=True))
    return f"{row['as_it_is']:.2%}; {after}; {row['simulation_s']:.0f} s"


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=[*MODULES], default=["digits"])
    parser.add_argument("--images", type=int, default=1000, help="test images")
    parser.add_argument("--models", type=Path, help="folder of the files")
    options = parser.parse_args(argv)
    compared = importlib.util.find_spec("spikingjelly") is not None
    if not compared:
        print("SpikingJelly is not installed: no comparison", file=sys.stderr)
    report = common.Report("converter", steps=TIMES, images=options.images)
    for name in options.networks:
        config = settings(name, options.models)
        source = data.load(config.dataset)
        row = ours(config, source, options.images)
        report.record(f"{name}, jaxsnn", shown(row), **row)
        best = np.zeros(len(TIMES))
        for mode in MODES if compared else ():
            other = spikingjelly(name, config, source, options.images, mode)
            report.record(f"{name}, SpikingJelly {mode}", shown(other), **other)
            best = np.maximum(best, other["after"])
        for steps, mine, its in zip(TIMES, row["after"], best, strict=True):
            if compared:
                report.goal(
                    f"{name}, T={steps}", 100 * mine, 100 * float(its), at_least=True, unit=" %"
                )
    report.show()


if __name__ == "__main__":
    main()
