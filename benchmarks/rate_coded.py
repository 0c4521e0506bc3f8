"""How fast is a rate-coded network simulated, beside SpikingJelly, and what does stopping save?

VGG11 of BayesianSpikeFusion with its early classifier behind block 3, on MNIST, for ``--steps``
time steps in one call per row, every row on the same images, the rows in turn, so that ratios hold:

- SpikingJelly: integrate-and-fire nodes with soft reset and the pipeline delay, eager, inference
  mode, float32, with the same folded weights; step by step in both memory formats, and in blocks
  of steps (multi-step mode). The first layer's current is computed once, as ours. It counts
  nothing; the number of spikes of every layer is compared with ours in a run of its own;
- ours, every step computed, with all counters of spikes and synaptic events: weights on a grid of
  8 bits (7 and the sign), whose products with spikes are bfloat16 in wide layers where the
  processor multiplies it, else int8; the same with silent input skipped; and float weights;
- ours with the per-image stop: an image leaves the batch as soon as the fusion is sure of it. Alpha
  and the rule are chosen on training images: no more wrong than after all steps.

    python benchmarks/rate_coded.py [--weights RUN/best.npz] [--rule RUN] > rate_coded.jsonl

Without --weights the network is trained for a few epochs on a few images; without --rule, alpha and
the rule are tuned on a few images, too. Equal work does not depend on the weights, the stop does.

Without SpikingJelly (pip install '.[bench]') only our own numbers are taken.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import common
import numpy as np
from negative_spikes import _set_torch_threads as set_torch_threads
from training import _to_torch as torch_kernel

from jaxsnn import (
    FanInUniform,
    Net,
    Options,
    Spiking,
    convert,
    data,
    hidden,
    methods,
    neurons,
    plan,
    simulate,
    train,
    unpack,
)
from jaxsnn.arch import Arch, Site, head_sites, parse, zoo
from jaxsnn.conversion import percentiles
from jaxsnn.inputs import Preprocessing, units_of
from jaxsnn.io import load_arrays, load_params
from jaxsnn.network import net as net_module
from jaxsnn.simulation import Rule, early_exit
from jaxsnn.simulation import fusion as fusion_module
from jaxsnn.simulation.fusion import Calibration, confidence, judged
from jaxsnn.systems import recipes
from jaxsnn.systems.bayesian_spike_fusion.report import CURVES
from jaxsnn.training import Ramp, classification, schedules

BITS = 7  # significant bits of a weight that int8 holds
PERCENTILE = 99.9
SCALED = 200  # images of the percentiles
BLOCK = 8  # steps of a call in SpikingJelly's multi-step mode
PEER = "SpikingJelly"
LAYOUTS = ("channels_last", "contiguous_format")
INTEGERS, FLOATS = f"{BITS + 1}-bit grid weights", "float weights"
SKIPPED, STOP = f"{INTEGERS}, silent input skipped", f"{INTEGERS}, stop per image"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", default="mnist", help="mnist, fashion_mnist, digits")
    parser.add_argument("--data-dir", default=None, help="folder of the data files")
    parser.add_argument("--steps", type=int, default=200, help="time steps T")
    parser.add_argument("--batch", type=int, default=32, help="images of a call, in every row")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, beside a warm-up")
    parser.add_argument("--weights", default="", help="best.npz or model.npz of a run")
    parser.add_argument("--rule", default="", help="folder of a run whose stop rule is tuned")
    parser.add_argument(
        "--train", type=int, default=2000, help="training images, without --weights"
    )
    parser.add_argument("--epochs", type=int, default=3, help="of that training")
    parser.add_argument("--tune", type=int, default=64, help="images of the rule, without --rule")
    parser.add_argument("--cores", type=int, default=0, help="use so many processor cores (0: all)")
    parser.add_argument("--quick", action="store_true", help="a small network on digits")
    options = parser.parse_args(argv)
    if options.cores:
        common.use_cores(options.cores)
    if options.quick:
        options.dataset, options.steps, options.batch, options.repeats = "digits", 40, 6, 1
        options.train, options.epochs, options.tune = 512, 3, 24
    return options


class Case(NamedTuple):
    """What is measured: one network, converted in two ways, its images and when they stop."""

    integer: Spiking
    floats: Spiking
    units: np.ndarray
    labels: np.ndarray
    rule: Rule


def architecture(options: argparse.Namespace, shape: tuple[int, int, int], classes: int) -> Arch:
    """The network for images of a shape; a small one for --quick."""
    size: dict[str, Any] = {"input_shape": shape, "classes": classes}
    if options.quick:
        return parse("8C3s2p1-16C3s2p1-E-16C3p1", head_pool=True, head_bias=True, **size)
    return zoo.bsf("vgg11", 3, **size)


def case(options: argparse.Namespace) -> Case:
    """Images, weights, both conversions and the rule."""
    dataset = data.load(options.dataset, options.data_dir)
    seen = recipes.bayesian_spike_fusion(options.dataset)
    arch = architecture(options, seen.shape(dataset.input_shape), dataset.classes)
    net = Net(arch, hidden(neurons.relu()), initialiser=FanInUniform())
    if options.weights:
        variables = load_params(options.weights, net_module.template(net))
    else:
        variables = trained(net, seen, dataset, options)
    shown = units_of(seen, dataset.train_images[: max(SCALED, options.tune)])
    values = net, variables, shown[:SCALED], [PERCENTILE]
    (scales,) = percentiles.scales(*values, encoding=seen.encoding)
    # SpikingJelly's, with neurons behind the pools, as BayesianSpikeFusion has them
    rule = {"scales": scales, "initial": 0.0, "delay": 1, "spiking_pools": True}
    integer, floats = (
        convert(variables, arch, method, encoding=seen.encoding)
        for method in (
            methods.rate(**rule, weight_bits=BITS, spiking_heads=True),
            methods.rate(**rule, float_weights=True, spiking_heads=True),
        )
    )
    if options.rule:
        rule = rule_of(Path(options.rule))
    else:
        labels = dataset.train_labels[: options.tune]
        rule = tuned(integer, shown[: options.tune], labels, options)
    units = units_of(seen, dataset.test_images[: options.batch])
    labels = dataset.test_labels[: options.batch]
    return Case(integer, floats, units, labels, rule)


def trained(
    net: Net, seen: Preprocessing, dataset: data.Dataset, options: argparse.Namespace
) -> dict[str, Any]:
    """Variables after a short joint training, so that spikes are as sparse as they are."""
    images, labels = dataset.train_images[: options.train], dataset.train_labels[: options.train]
    batch = min(64, len(images))
    phase: dict[str, Any] = {"epochs": options.epochs, "learning_rate": 0.05, "first_step": 0}
    phase |= {"schedule": "cosine", "steps_per_epoch": len(images) // batch}
    optimiser, _ = schedules.sgd([phase], weight_decay=5e-4, nesterov=True)
    task = classification(net, seen, Ramp(1.0, options.epochs, len(images) // batch))
    settings = Options(epochs=options.epochs, batch_size=batch)
    training = (images, labels, None, None)
    return train(task, optimiser, training, settings, progress=False)[0].variables


def rule_of(folder: Path) -> Rule:
    """The rule that a run's stage tune has left."""
    arrays, meta = load_arrays(folder / "stop_rule.npz")
    coded = CURVES[meta["alpha"]]  # alpha is chosen in two ways, the rule says by which
    curve = load_arrays(folder / f"division_linear_alpha_{coded}.npz")[0]["y"]
    calibration = Calibration(arrays["scores"], arrays["probabilities"])
    return Rule(curve, arrays["threshold"], arrays["earliest"], calibration)


def tuned(
    snn: Spiking, images: np.ndarray, labels: np.ndarray, options: argparse.Namespace
) -> Rule:
    """Alpha by empirical Bayes; the lowest threshold that loses no image which is right at last."""
    batches = list(spike_counts(snn, images, labels, options))
    curve = fusion_module.smoothed(fusion_module.empirical_bayes(batches))
    outcomes = judged(batches, curve)
    calibration = confidence.fit(outcomes.scores.ravel(), outcomes.correct.ravel())
    sure = np.asarray(calibration.probability(outcomes.scores))
    levels = np.unique(np.asarray(calibration.probabilities, np.float64))
    wanted = float(outcomes.correct[-1].mean())
    # Before, no spike that an image has caused can have come through all layers and both heads.
    earliest = sum(site.role == "activation" for site in plan(snn.arch)) + 3
    choice = sure, outcomes.correct, wanted, levels
    threshold = confidence.choose_threshold(*choice, earliest=earliest)
    return Rule(curve, 1.0 if threshold is None else threshold, earliest, calibration)


def spike_counts(
    snn: Spiking, images: np.ndarray, labels: np.ndarray, options: argparse.Namespace
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Cumulative counts ``[T, B, C]`` of the early and the final classifier, and labels."""
    heads = [site.name for site in head_sites(snn.arch)]
    for first in range(0, len(images), options.batch):
        rows = slice(first, first + options.batch)
        trace = simulate(snn, images[rows], steps=options.steps, record=heads)
        trains = (unpack(trace.records[name], snn, name) for name in heads)
        early, final = (np.asarray(fusion_module.counts(spikes)) for spikes in trains)
        yield early, final, labels[rows]


class Theirs:
    """Our network in SpikingJelly; a call returns the classes after the last step ``[B]``.

    Every neuron's spike is held back for one step, as ours, so that spikes are the same step by
    step, up to rounding. With ``block`` above 1 so many steps are computed layer by layer.
    """

    def __init__(
        self, snn: Spiking, units: np.ndarray, steps: int, layout: str, block: int = 1
    ) -> None:
        import torch
        from spikingjelly.activation_based import functional

        self.steps, self.block, self.sites = steps, block, plan(snn.arch)
        self.before: dict[str, Any] = {}  # the spike each layer holds back for one step
        layers = {site.name: _layer(site, snn) for site in self.sites}
        nodes = {site.name: _node(site, snn) for site in self.sites}
        self.layers = {
            name: layer.to(memory_format=_format(layout)) for name, layer in layers.items()
        }
        self.nodes = nodes
        for part in (*layers.values(), *nodes.values()):
            functional.set_step_mode(part.eval(), "s" if block == 1 else "m")
        images = torch.from_numpy(units.astype(np.float32)).movedim(-1, 1)
        self.images = images.contiguous(memory_format=_format(layout))

    def __call__(self) -> np.ndarray:
        """Simulate every step."""
        import torch

        self.reset()
        with torch.inference_mode():
            drive, total = self.drive(), 0
            for spikes in self.blocks(drive):
                total = total + spikes["readout"].sum(0)
        return np.asarray(total).argmax(-1)

    def spikes(self) -> dict[str, np.ndarray]:
        """Number of spikes of every layer on every image, site -> ``[B]``."""
        import torch

        self.reset()
        sums: dict[str, Any] = {}
        with torch.inference_mode():
            for spikes in self.blocks(self.drive()):
                for name, one in spikes.items():
                    sums[name] = sums.get(name, 0) + one.sum(0).flatten(1).sum(1)
        return {name: one.numpy() for name, one in sums.items()}

    def reset(self) -> None:
        """Membrane potentials and spikes on their way, as before the first step."""
        from spikingjelly.activation_based import functional

        self.before = {}
        for node in self.nodes.values():
            functional.reset_net(node)

    def drive(self) -> Any:
        """The first layer's current, computed once: ``[B, ...]``, or ``[block, B, ...]``."""
        first = self.layers[self.sites[0].name]
        if self.block == 1:
            return first(self.images)
        drive = first(self.images[None])
        return drive.expand(self.block, *drive.shape[1:])

    def blocks(self, drive: Any) -> Iterator[dict[str, Any]]:
        """Spikes of every layer, ``[block, B, ...]``, of one block of steps after the other."""
        for first in range(0, self.steps, self.block):
            count = min(self.block, self.steps - first)
            part = drive if self.block == 1 else drive[:count]
            values: dict[str, Any] = {}
            for site in self.sites:
                if site.source != "input":
                    part = self.layers[site.name](values[site.source])
                values[site.name] = self.delayed(site.name, self.nodes[site.name](part))
            yield {name: one[None] if self.block == 1 else one for name, one in values.items()}

    def delayed(self, name: str, fired: Any) -> Any:
        """What was emitted one step earlier; zeros at first."""
        import torch

        if self.block == 1:
            held = self.before.get(name)
            self.before[name] = fired
            return torch.zeros_like(fired) if held is None else held
        held = self.before.get(name, torch.zeros_like(fired[:1]))
        self.before[name] = fired[-1:]
        return torch.cat([held, fired[:-1]])


def _format(layout: str) -> Any:
    import torch

    return getattr(torch, layout)


def _layer(site: Site, snn: Spiking) -> Any:
    """SpikingJelly's layer of a synapse with gain and bias folded in; a pool sums."""
    import torch
    from spikingjelly.activation_based import layer

    leaves = snn.variables["params"].get(site.name, {})
    if "kernel" not in leaves:
        return layer.AvgPool2d(site.window, divisor_override=1)
    gain = np.asarray(leaves.get("gain", 1), np.float64)
    weight = torch_kernel(np.asarray(leaves["kernel"], np.float64) * gain, site).astype(np.float32)
    outputs, inputs = weight.shape[:2]
    if site.kind == "dense":
        module = torch.nn.Sequential(layer.Flatten(), layer.Linear(inputs, outputs))
    else:
        shape = {"kernel_size": site.window, "stride": site.strides, "padding": site.padding[0][0]}
        module = torch.nn.Sequential(layer.Conv2d(inputs, outputs, **shape))
    module[-1].weight.data = torch.from_numpy(weight)
    module[-1].bias.data = torch.from_numpy(np.array(leaves["bias"], np.float32))
    return module


def _node(site: Site, snn: Spiking) -> Any:
    """A neuron with soft reset that starts at 0; the threshold is the same for all channels."""
    from spikingjelly.activation_based import neuron

    (threshold,) = np.unique(np.asarray(snn.variables["fixed"][site.name]["threshold"])).tolist()
    return neuron.IFNode(float(threshold), None)


def ours(case: Case, options: argparse.Namespace) -> dict[str, Callable[[], np.ndarray]]:
    """Our own simulations; a call returns classes ``[B]``."""

    def every_step(snn: Spiking) -> np.ndarray:
        return np.asarray(simulate(snn, case.units, steps=options.steps).predictions[-1])

    skipped = dataclasses.replace(case.integer, skip_silent=True)
    return {
        INTEGERS: functools.partial(every_step, case.integer),
        SKIPPED: functools.partial(every_step, skipped),
        FLOATS: functools.partial(every_step, case.floats),
        STOP: lambda: (
            early_exit(case.integer, case.units, case.rule, steps=options.steps).predictions
        ),
    }


def theirs(case: Case, options: argparse.Namespace) -> dict[str, Theirs]:
    """SpikingJelly's rows; none where it is not installed."""
    if importlib.util.find_spec("spikingjelly") is None:
        message = "SpikingJelly is not installed: no comparison (pip install '.[bench]')"
        print(message, file=sys.stderr)
        return {}
    if options.cores:
        set_torch_threads(options.cores)
    make = functools.partial(Theirs, case.floats, case.units, options.steps)
    peers = {f"{PEER}, step by step, {layout}": make(layout) for layout in LAYOUTS}
    return peers | {f"{PEER}, blocks of {BLOCK}, {LAYOUTS[0]}": make(LAYOUTS[0], BLOCK)}


def compare(report: common.Report, case: Case, peers: dict[str, Theirs], steps: int) -> None:
    """Spikes of every layer and head of the network with float weights, ours beside theirs."""
    trace = simulate(case.floats, case.units, steps=steps)
    mine = {name: np.asarray(one).sum(0) for name, one in trace.counters.spikes.items()}
    for site, sums in zip(head_sites(case.floats.arch), trace.readouts, strict=True):
        mine[site.name] = np.asarray(sums[-1]).sum(-1)
    for title, peer in peers.items():
        their = peer.spikes()
        layers = {
            name: {"ours": int(spikes.sum()), "theirs": int(their[name].sum())}
            for name, spikes in mine.items()
        }
        apart = [
            np.abs(their[name] - spikes).sum() / max(spikes.sum(), 1)
            for name, spikes in mine.items()
        ]
        shown = f"at most {max(apart):.2%} of a layer's"
        report.record(f"{title}: spikes apart", shown, value=float(max(apart)), layers=layers)


def measure(
    report: common.Report,
    case: Case,
    runs: dict[str, Callable[[], np.ndarray]],
    options: argparse.Namespace,
) -> dict[str, common.Timing]:
    """Every row in turn, and how many images each classifies rightly."""
    timings = common.in_turn(runs, options.repeats)
    work = 2e-9 * sum(site.macs for site in plan(case.integer.arch)[1:]) * options.steps
    for name, timing in timings.items():
        rate = options.batch / timing.median
        whole = name not in (STOP, SKIPPED)
        speed = f", {work * rate:.1f} GFLOP/s" if whole else ""
        right = int(np.sum(runs[name]() == case.labels))
        shown = f"{rate:,.2f} images/s{speed}; {right} of {options.batch} right"
        report.record(name, shown, correct=right, **timing.record(options.batch))
    return timings


def stopping(report: common.Report, case: Case, steps: int) -> None:
    """When images stopped."""
    stopped = early_exit(case.integer, case.units, case.rule, steps=steps)
    mean, ended = float(stopped.stops.mean()), int(stopped.done.sum())
    shown = f"{mean:.1f} of {steps}; {ended} of {len(stopped.stops)} stopped"
    report.record("steps of an image", shown, mean=mean, stopped=ended, of=len(stopped.stops))


def goals(report: common.Report, timings: dict[str, common.Timing]) -> None:
    """Ratios to the fastest of SpikingJelly's rows."""
    peer = min((name for name in timings if PEER in name), key=lambda name: timings[name].median)
    report.record("fastest of SpikingJelly", peer.removeprefix(f"{PEER}, "))
    for mine, limit in ((INTEGERS, 1.3), (SKIPPED, 1.3), (STOP, 3)):
        ratio = timings[peer].over(timings[mine])
        report.goal(f"{mine} over {PEER}", ratio, limit, at_least=True)
    ratio = timings[peer].over(timings[FLOATS])
    report.record(f"{FLOATS} over {PEER}", f"{ratio:.3g}", value=ratio)


def main(argv: list[str] | None = None) -> None:
    """Measure everything."""
    options = arguments(argv)
    chosen = case(options)
    report = common.Report(
        "rate_coded",
        network="quick" if options.quick else "vgg11 ic 3",
        dataset=options.dataset,
        weights=options.weights or f"{options.epochs} epochs on {options.train} images",
        rule=options.rule or f"tuned on {options.tune} images",
        steps=options.steps,
        batch=options.batch,
        cores=options.cores or os.cpu_count(),
    )
    peers = theirs(chosen, options)
    compare(report, chosen, peers, options.steps)
    timings = measure(report, chosen, {**ours(chosen, options), **peers}, options)
    stopping(report, chosen, options.steps)
    if peers:
        goals(report, timings)
    report.show()


if __name__ == "__main__":
    main()
