"""How many images a second does training take, beside the same network in PyTorch?

One update (gather, forward, backward, SGD with momentum) of each network, in float32 and, where it
can be, with operands of bfloat16; beside it the same network in PyTorch eager, channels last, in
float32 and under bfloat16 autocast: the same layers, batch norm and quantisers with
straight-through gradients, the same batch of real images, in turn. PyTorch's faster row counts.

    python benchmarks/training.py [--networks lenet cnn1 cnn2 vgg11 alex] [--quick] > training.jsonl

- lenet: scatter-and-gather (k = 1, B = 2, ternary weights); lenet_fp32: in full precision;
- cnn1, cnn2: negative spikes (k = 1); vgg11: BayesianSpikeFusion's; alex: Fast-SNN's, both with
  ReLUs and float weights.

Beside the images a second stands the share of the processor's peak, that of a large matrix product
in the same arithmetic, that the multiply-accumulates of an update amount to. --quick measures the
LeNet alone, once. Without PyTorch (pip install '.[bench]') only our own numbers are taken.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsnn import Net, data, hidden, neurons, plan, totals
from jaxsnn.arch import Arch, Site, zoo
from jaxsnn.network.arithmetic import Arithmetic, compute_of, onednn_convolves
from jaxsnn.training import classification
from jaxsnn.training.gradients import Plan
from jaxsnn.training.update import programs

NETWORKS = ("lenet", "lenet_fp32", "cnn1", "cnn2", "vgg11", "alex")
PEAK = 2048  # rows and columns of the matrix product that the peak is measured with
PASSES = 3  # forward, and the gradients of input and kernel


class Case(NamedTuple):
    """A network, and how its hidden neurons and kernels are quantised in PyTorch."""

    net: Net
    activation: str  # "relu" or "median", of one fractional bit
    bound: float | None = None  # of "median"
    ternary: bool = False


def case(name: str, shape: tuple[int, int, int], classes: int) -> Case:
    """The network of a name for images of a shape."""
    arches: dict[str, Arch] = {
        "cnn1": zoo.cnn1,
        "cnn2": zoo.cnn2,
        "vgg11": zoo.bsf("vgg11"),
        "alex": zoo.fast_alexnet,
    }
    if name not in arches:
        quantised = name == "lenet"
        net = common.lenet(shape, classes, quantised)
        return Case(net, "median" if quantised else "relu", 2 if quantised else None, quantised)
    arch = dataclasses.replace(arches[name], input_shape=shape, classes=classes)
    if name.startswith("cnn"):
        return Case(Net(arch, hidden(neurons.quantised_relu(1, None))), "median")
    return Case(Net(arch, hidden(neurons.relu())), "relu")


class Batch(NamedTuple):
    """Real images uint8 ``[B, H, W, C]``, of a network's size, and labels int32 ``[B]``."""

    images: np.ndarray
    labels: np.ndarray


def batch_of(dataset: data.Dataset, name: str, count: int) -> Batch:
    """The first images, cropped and repeated to what the network takes."""
    images = dataset.train_images[:count]
    size, channels = (28, 1) if name.startswith("lenet") else (24, 3)
    size = 32 if name in ("vgg11", "alex") else size
    height, width = images.shape[1:3]
    images = np.pad(images, ((0, 0), (0, max(size - height, 0)), (0, max(size - width, 0)), (0, 0)))
    images = images[:, :size, :size, :channels]
    images = np.repeat(images, channels // images.shape[-1], axis=-1)
    return Batch(images, dataset.train_labels[:count].astype(np.int32))


def ours(case: Case, batch: Batch, arithmetic: Arithmetic) -> Callable[[], Any]:
    """One update of ours."""
    task = classification(case.net.clone(arithmetic=arithmetic))
    count = len(batch.labels)
    plan_ = Plan(count, 1, 1, 1)
    initial, update = programs(task, optax.sgd(0.01, momentum=0.9), plan_)
    constants = (jnp.arange(count), *map(jnp.asarray, batch), jax.random.key(1))
    state = initial(jax.random.key(0))
    held = [jax.tree.map(lambda leaf: jnp.array(leaf, dtype=leaf.dtype), state)]

    def once() -> Any:
        held[0] = update(held[0], *constants, count=1, steps=None)
        return held[0].totals

    return once


def torch_network(case: Case, variables: dict[str, Any]) -> Any:
    """The same network as a torch module, with the same initial weights."""
    import torch

    def median(x: Any) -> Any:
        highest = None if case.bound is None else 2 * case.bound
        level = torch.clamp(torch.floor(x * 2 + 0.5), 0, highest) / 2
        soft = torch.clamp(x, 0, case.bound)
        return soft + (level - soft).detach()

    def ternary(kernel: Any) -> Any:
        magnitude = 0.7 * kernel.abs().mean()
        codes = (kernel >= magnitude).to(kernel.dtype) - (kernel <= -magnitude).to(kernel.dtype)
        return kernel + (codes - kernel).detach()

    class Layer(torch.nn.Module):
        def __init__(self, site: Site) -> None:
            super().__init__()
            self.site, channels = site, site.drive_shape[-1]
            tree = variables["params"].get(site.name, {})
            if site.kernel_shape:
                kernel = torch.from_numpy(_to_torch(np.array(tree["kernel"]), site))
                self.kernel = torch.nn.Parameter(kernel)
            bias = np.array(tree["bias"]) if site.bias else None
            self.bias = None if bias is None else torch.nn.Parameter(torch.from_numpy(bias))
            hidden = site.role == "activation"
            norm = torch.nn.BatchNorm1d if site.kind == "dense" else torch.nn.BatchNorm2d
            self.norm = norm(channels) if site.norm else torch.nn.Identity()
            if site.norm:
                self.norm.weight.data = torch.from_numpy(np.array(tree["norm"]["scale"]))
            activation = median if case.activation == "median" else torch.relu
            self.activation = activation if hidden else lambda x: x
            self.ternary = case.ternary and hidden and site.source != "input"

        def forward(self, x: Any) -> Any:
            if not self.site.kernel_shape:  # the average of the last map
                return x.mean((2, 3))
            kernel = ternary(self.kernel) if self.ternary else self.kernel
            if self.site.kind == "dense":
                drive = torch.nn.functional.linear(x.flatten(1), kernel, self.bias)
            else:
                stride, padding = self.site.strides, self.site.padding[0][0]
                drive = torch.nn.functional.conv2d(x, kernel, self.bias, stride, padding)
            return self.activation(self.norm(drive))

    return torch.nn.Sequential(*(Layer(site) for site in plan(case.net.arch)))


def _to_torch(kernel: np.ndarray, site: Site) -> np.ndarray:
    """HWIO to OIHW; a dense kernel's input from (height, width, channel) to channels first."""
    if site.kind == "conv":
        return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    if len(site.in_shape) == 3:
        kernel = kernel.reshape(*site.in_shape, -1).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(kernel.reshape(-1, site.drive_shape[-1]).T)


def theirs(case: Case, batch: Batch, variables: dict[str, Any], half: bool) -> Callable[[], None]:
    """One update in PyTorch eager, channels last; under bfloat16 autocast where ``half``."""
    import torch

    model = torch_network(case, variables).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = torch.from_numpy(batch.images).permute(0, 3, 1, 2)
    labels = torch.from_numpy(batch.labels).long()

    def once() -> None:
        x = (images.float() / 256).contiguous(memory_format=torch.channels_last)
        optimiser.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            logits = model(x)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        optimiser.step()

    return once


def loss_difference(case: Case, batch: Batch, variables: dict[str, Any]) -> float:
    """Our loss of a batch minus PyTorch's, both in float32: is it one network?"""
    import torch

    rest = {name: tree for name, tree in variables.items() if name != "params"}
    loss = jax.jit(common.task_of(case.net).loss, static_argnames=("axis_name",), static_argnums=5)
    mine = loss(variables["params"], rest, *batch, jax.random.key(0), True, axis_name=None)
    x = torch.from_numpy(batch.images).permute(0, 3, 1, 2).float() / 256
    with torch.no_grad():
        logits = torch_network(case, variables)(x)
        other = torch.nn.functional.cross_entropy(logits, torch.from_numpy(batch.labels).long())
    return float(mine[0].mean()) - float(other)


def peak(half: bool) -> float:
    """Operations a second of a large matrix product of ours."""
    dtype = jnp.bfloat16 if half else jnp.float32
    left, right = jnp.ones((PEAK, PEAK), dtype), jnp.ones((PEAK, PEAK), dtype)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
    timing = common.in_turn({"product": lambda: product(left, right)}, 7)["product"]
    return 2 * PEAK**3 / timing.best


def compare(
    report: common.Report, name: str, dataset: data.Dataset, peaks: dict[str, float], options: Any
) -> None:
    """Measure one network: every row of ours and of PyTorch's, in turn."""
    batch = batch_of(dataset, name, 8 if options.quick else common.BATCH)
    one = case(name, batch.images.shape[1:], dataset.classes)
    ways = [Arithmetic.FAST_FLOAT32]
    if onednn_convolves() or jax.default_backend() != "cpu":
        ways.append(Arithmetic.FAST_BFLOAT16)
    runs = {f"jaxsnn {compute_of(way)}": ours(one, batch, way) for way in ways}
    if options.torch:
        variables = dict(common.task_of(one.net).init(jax.random.key(0)))
        difference = loss_difference(one, batch, variables)
        report.record(f"{name} loss difference", f"{difference:.1e}", value=difference)
        for word in ("float32", "bfloat16"):
            runs[f"torch {word}"] = theirs(one, batch, variables, word == "bfloat16")
    timings = common.in_turn(runs, 1 if options.quick else options.rounds)
    images = len(batch.labels)
    operations = 2 * PASSES * totals(one.net.arch).macs
    for who, timing in timings.items():
        rate, word = images / timing.median, who.split()[-1]
        share = operations * rate / peaks[word]
        shown = f"{rate:,.0f} images/s, {share:.0%} of the peak"
        report.record(f"{name} {who}", shown, share_of_peak=share, **timing.record(images))
    if options.torch:
        goals(report, name, timings)


def goals(report: common.Report, name: str, timings: dict[str, common.Timing]) -> None:
    """Our speed over PyTorch's: of the best rows, and in float32."""
    mine = min((t for who, t in timings.items() if "jaxsnn" in who), key=lambda t: t.median)
    other = min((t for who, t in timings.items() if "torch" in who), key=lambda t: t.median)
    limit = 0.7 if name.startswith("lenet") else 1.0
    report.goal(f"{name}: ours over torch's best row", other.over(mine), limit, at_least=True)
    ratio = timings["torch float32"].over(timings["jaxsnn float32"])
    report.goal(f"{name}: ours over torch's, float32", ratio, limit, at_least=True)


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
    """Measure the networks."""
    options = common.arguments(
        __doc__,
        argv,
        lambda parser: (
            parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS),
            parser.add_argument("--rounds", type=int, default=7, help="beside a warm-up"),
        ),
    )
    options.torch = torch_version()
    if options.torch is None:
        message = "PyTorch is not installed: no comparison (pip install '.[bench]')"
        print(message, file=sys.stderr)
    elif options.cores:
        _set_torch_threads(options.cores)
    dataset = common.images_of(options, common.BATCH)
    report = common.Report(
        "training",
        dataset=options.dataset,
        batch=common.BATCH,
        torch=options.torch,
        jax=jax.__version__,
        cores=options.cores or os.cpu_count(),
    )
    peaks = {"float32": peak(half=False), "bfloat16": peak(half=True)}
    for word, value in peaks.items():
        report.record(f"peak {word}", f"{value / 1e9:,.0f} GFLOP/s", value=value)
    for name in ("lenet",) if options.quick else options.networks:
        compare(report, name, dataset, peaks, options)
    report.show()


if __name__ == "__main__":
    main()
