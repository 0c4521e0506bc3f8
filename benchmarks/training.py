"""How many images a second does training take, beside the same network in PyTorch?

Trains the scatter-and-gather LeNet, quantised (k = 1, B = 2, ternary weights) and in full
precision, with the compiled step of `jaxsnn.train`, and the same networks in PyTorch eager: the
same layers, batch norm, quantisers with straight-through gradients, Adam, float32, batch 128, the
same images in the same run, in turn. PyTorch is measured in both memory formats; the faster counts.

    python benchmarks/training.py [--quick] [--dataset digits|mnist] [--cores 1] > training.jsonl

--quick measures the quantised network alone.

Without PyTorch (pip install '.[bench]') only our own numbers are taken.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from typing import Any

import common
import jax
import numpy as np
import optax

from jaxsnn import Net, Options, data, plan, train
from jaxsnn.arch import Site

FORMATS = ("contiguous", "channels_last")


def ours(net: Net, dataset: data.Dataset) -> Callable[[], float]:
    """One epoch of `jaxsnn.train`, in the seconds that it reports of itself."""
    task, optimiser = common.task_of(net), optax.adam(1e-3)
    examples = (dataset.train_images, dataset.train_labels, None, None)
    options = Options(epochs=1, batch_size=common.BATCH)

    def epoch() -> float:
        seconds = train(task, optimiser, examples, options, progress=False)[1][0]["seconds"]
        return float(seconds or math.nan)

    return epoch


def torch_network(net: Net, variables: dict[str, Any], quantised: bool) -> Any:
    """The same network as a torch module, with the same initial weights."""
    import torch

    def median(x: Any) -> Any:
        level = torch.clamp(torch.floor(x * 2 + 0.5), 0, 4) / 2
        soft = torch.clamp(x, 0, 2)
        return soft + (level - soft).detach()

    def ternary(kernel: Any) -> Any:
        magnitude = 0.7 * kernel.abs().mean()
        codes = (kernel >= magnitude).to(kernel.dtype) - (kernel <= -magnitude).to(kernel.dtype)
        return kernel + (codes - kernel).detach()

    class Layer(torch.nn.Module):
        def __init__(self, site: Site) -> None:
            super().__init__()
            self.site, channels = site, site.drive_shape[-1]
            kernel = np.array(variables["params"][site.name]["kernel"])
            self.kernel = torch.nn.Parameter(torch.from_numpy(_to_torch(kernel, site)))
            hidden = site.role == "activation"
            norm = torch.nn.BatchNorm1d if site.kind == "dense" else torch.nn.BatchNorm2d
            self.norm = norm(channels) if site.norm else torch.nn.Identity()
            if site.norm:
                scale = np.array(variables["params"][site.name]["norm"]["scale"])
                self.norm.weight.data = torch.from_numpy(scale)
            self.activation = (median if quantised else torch.relu) if hidden else lambda x: x
            self.ternary = quantised and hidden and site.source != "input"

        def forward(self, x: Any) -> Any:
            kernel = ternary(self.kernel) if self.ternary else self.kernel
            if self.site.kind == "dense":
                drive = torch.nn.functional.linear(x.flatten(1), kernel)
            else:
                stride, padding = self.site.strides, self.site.padding[0][0]
                drive = torch.nn.functional.conv2d(x, kernel, None, stride, padding)
            return self.activation(self.norm(drive))

    return torch.nn.Sequential(*(Layer(site) for site in plan(net.arch)))


def _to_torch(kernel: np.ndarray, site: Site) -> np.ndarray:
    """HWIO to OIHW; a dense kernel's input from (height, width, channel) to channels first."""
    if site.kind == "conv":
        return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    if len(site.in_shape) == 3:
        kernel = kernel.reshape(*site.in_shape, -1).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(kernel.reshape(-1, site.drive_shape[-1]).T)


def theirs(
    net: Net, dataset: data.Dataset, variables: dict[str, Any], quantised: bool, layout: str
) -> Callable[[], None]:
    """One epoch in PyTorch eager: gather, forward, backward, Adam."""
    import torch

    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    model = torch_network(net, variables, quantised).to(memory_format=memory)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    images = torch.from_numpy(dataset.train_images).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(dataset.train_labels).long()

    def epoch() -> None:
        order = torch.randperm(len(images))
        for start in range(0, len(images) - common.BATCH + 1, common.BATCH):
            rows = order[start : start + common.BATCH]
            x = (images[rows].float() / 256).contiguous(memory_format=memory)
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x), labels[rows]).backward()
            optimiser.step()

    return epoch


def loss_difference(net: Net, dataset: data.Dataset, variables: dict[str, Any]) -> float:
    """Loss of the full-precision network on our first batch minus PyTorch's: is it one network?"""
    import torch

    images, labels = dataset.train_images[: common.BATCH], dataset.train_labels[: common.BATCH]
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    loss = jax.jit(common.task_of(net).loss, static_argnames=("axis_name",), static_argnums=5)
    mine = loss(variables["params"], rest, images, labels, jax.random.key(0), True, axis_name=None)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 256
    with torch.no_grad():
        logits = torch_network(net, variables, quantised=False)(x)
        other = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long())
    return float(mine[0].mean()) - float(other)


def compare(report: common.Report, dataset: data.Dataset, options: Any, quantised: bool) -> None:
    """Measure one network, ours and PyTorch's in turn."""
    name, net = "k1B2" if quantised else "fp32", common.lenet(dataset, quantised)
    runs: dict[str, Callable[[], Any]] = {"jaxsnn": ours(net, dataset)}
    if options.torch:
        variables = common.task_of(net).init(jax.random.key(0))
        if not quantised:  # ternary layers make a different network of the last bit of a sum
            difference = loss_difference(net, dataset, dict(variables))
            report.record(f"{name} loss difference", f"{difference:.1e}", value=difference)
        for layout in FORMATS:
            runs[f"torch {layout}"] = theirs(net, dataset, dict(variables), quantised, layout)
    found = common.in_turn(runs, 1 if options.quick else 9)
    images = len(dataset.train_images) // common.BATCH * common.BATCH
    for who, timing in found.items():
        rate = images / timing.median
        report.record(f"{name} {who}", f"{rate:,.0f} images/s", **timing.record(images))
    compile_seconds = found["jaxsnn"].first - found["jaxsnn"].median
    report.goal(f"{name} compile", compile_seconds, 15, at_least=False, unit=" s")
    if options.torch:
        ratio = min(found[f"torch {layout}"].over(found["jaxsnn"]) for layout in FORMATS)
        report.goal(f"{name} images/s over torch's", ratio, 1, at_least=True)


def torch_version() -> str | None:
    """PyTorch's version, None if it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch.__version__


def _set_torch_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def main(argv: list[str] | None = None) -> None:
    """Measure both networks."""
    options = common.arguments(__doc__, argv)
    options.torch = torch_version()
    if options.torch is None:
        message = "PyTorch is not installed: no comparison (pip install '.[bench]')"
        print(message, file=sys.stderr)
    elif options.cores:
        _set_torch_threads(options.cores)
    dataset = common.images_of(options, 2 * common.BATCH if options.quick else 11 * common.BATCH)
    report = common.Report(
        "training",
        dataset=options.dataset,
        batch=common.BATCH,
        torch=options.torch,
        cores=options.cores or os.cpu_count(),
    )
    for quantised in (True,) if options.quick else (True, False):
        compare(report, dataset, options, quantised)
    report.show()


if __name__ == "__main__":
    main()
