"""How fast are networks with negative spikes simulated, beside SpikingJelly?

CNN 2 of the negative-spike system (or ``--network cnn1``, ``lenet_negative``) runs for T = 40 steps
in one call per row, every row on the same images, the rows in turn, so that their ratios hold:

- SpikingJelly: multi-step, channels-last, inference mode, in float32 and in bfloat16. Its layers
  hold our integer weights and thresholds, scaled so that every threshold is 1; the encoder's drive
  is computed once and given in the first step, as ours. ``IF`` is its integrate-and-fire neuron
  with soft reset: the same synaptic work (every layer's convolution at every step), but no negative
  spikes, so not the same network. ``ST-BIF`` is its signed neuron, which with these numbers is the
  tracking neuron: the same network, whose predictions are compared with ours (ours are exact);
- ours, every step computed: integers with weights of 7 bits (which int8 holds) and of 8, and the
  former weights as float32, each with all counters of spikes and synaptic events;
- ours with the settle stop, which returns the same numbers and leaves silent steps out.

    python benchmarks/negative_spikes.py [--weights RUN/model.npz --k 1] > negative_spikes.jsonl

Without --weights the network is fresh, with the batch statistics of real images (with others its
layers would be silent); such a network spikes more and settles later than a trained one. Equal work
does not depend on the weights, the row with the settle stop does: its goal is for trained ones.

Without SpikingJelly (pip install '.[bench]') only our own numbers are taken.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np
from simulation import compiled
from training import _to_torch as torch_kernel

from jaxsnn import (
    Net,
    Spiking,
    convert,
    data,
    hidden,
    init_variables,
    load_params,
    methods,
    neurons,
    plan,
    simulate,
)
from jaxsnn.arch import Arch, Site, parse, zoo
from jaxsnn.conversion import snapped
from jaxsnn.conversion.method import ALWAYS
from jaxsnn.inputs import Preprocessing, standardised, unchanged
from jaxsnn.network import apply_training, initial_state
from jaxsnn.neurons.tracking import FRACTION_BITS
from jaxsnn.simulation import settle

NETWORKS = ("cnn2", "cnn1", "lenet_negative")
BITS = 7  # significant bits of a weight that int8 holds
CALIBRATION = 64  # images of the batch statistics
FRACTION = 2.0**-FRACTION_BITS  # unit of the fractions of a threshold
HORIZONS = (10, 40, 160)  # steps at which memory is measured
DTYPES = ("float32", "bfloat16")
PEER, STOP = "SpikingJelly", "settle stop"
INTEGERS, WIDER = f"integers, {BITS} bits", f"integers, {BITS + 1} bits"
SKIPPED = f"{INTEGERS}, silent input skipped"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="cnn2", choices=NETWORKS)
    parser.add_argument("--dataset", default="", help="default: cifar10, mnist for a LeNet")
    parser.add_argument("--data-dir", default=None, help="folder of the data files")
    parser.add_argument("--steps", type=int, default=40, help="time steps T")
    parser.add_argument("--batch", type=int, default=16, help="images of a call, in every row")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, beside a warm-up")
    parser.add_argument("--weights", default="", help="model.npz of a run (training tree)")
    parser.add_argument("--k", type=int, default=1, help="fractional bits of the activations")
    parser.add_argument("--cores", type=int, default=0, help="use so many processor cores (0: all)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="the processor's seconds, not the clock's: on a busy machine, with --cores 1",
    )
    parser.add_argument("--quick", action="store_true", help="a small network, few steps")
    options = parser.parse_args(argv)
    if options.cores:
        common.use_cores(options.cores)
    if options.quick:
        options.network, options.dataset = "quick", "digits"
        options.steps, options.batch, options.repeats = 4, 4, 1
    options.dataset = options.dataset or ("cifar10" if "cnn" in options.network else "mnist")
    return options


class Case(NamedTuple):
    """What is measured: one network, converted several ways, and its images."""

    variables: dict[str, Any]  # the training tree
    integer: Spiking  # 7 significant bits, the weights of every row but the next
    eight: Spiking  # 8 significant bits
    floats: Spiking  # the integer network's weights, as float32
    units: np.ndarray


def architecture(options: argparse.Namespace, shape: tuple[int, int, int], classes: int) -> Arch:
    """The network for images of a shape; a small one for --quick."""
    size: dict[str, Any] = {"input_shape": shape, "classes": classes}
    if options.quick:
        return parse("8C3same-P2-64C3same-64C3-P2-16", pool="conv", **size)
    return dataclasses.replace(zoo.NAMES[options.network].arch, **size)


def recipe(options: argparse.Namespace) -> Preprocessing:
    """What the network is shown of an image."""
    return standardised() if "cnn" in options.network else unchanged()


def case(options: argparse.Namespace) -> Case:
    """Images, weights and the three conversions."""
    dataset = data.load(options.dataset, options.data_dir)
    seen = recipe(options)
    count = max(options.batch, CALIBRATION)
    units = np.asarray(seen.test(jnp.asarray(dataset.test_images[:count])))
    arch = architecture(options, units.shape[1:], dataset.classes)
    net = Net(arch, hidden(neurons.quantised_relu(options.k)))
    if options.weights:
        variables = load_params(options.weights, arch)
    else:
        variables = calibrated(net, seen.encoding.decode(jnp.asarray(units[:CALIBRATION])))
    method = methods.negative_spikes(k=options.k, weight_bits=BITS)
    to_spikes = functools.partial(convert, arch=arch, encoding=seen.encoding)
    integer = to_spikes(variables, method=method)
    as_floats = dataclasses.replace(method, float_weights=True)
    floats = to_spikes(snapped(variables, integer), method=as_floats)
    eight = to_spikes(variables, method=dataclasses.replace(method, weight_bits=BITS + 1))
    return Case(variables, integer, eight, floats, units[: options.batch])


def calibrated(net: Net, x: jax.Array) -> dict[str, Any]:
    """Fresh variables with the batch statistics of images ``x [N, H, W, C]``."""
    fresh = init_variables(net, jax.random.key(0))

    @jax.jit
    def statistics(x: jax.Array) -> Any:
        state = initial_state(net, fresh, len(x))
        return apply_training(net, fresh, x[None], state)[1]["batch_stats"]

    # The running average has taken a tenth of the new ones.
    whole = jax.tree.map(
        lambda new, old: old + 10 * (new - old), statistics(x), fresh["batch_stats"]
    )
    return {**fresh, "batch_stats": whole}


class Scaled(NamedTuple):
    """A site in units of its thresholds' distance: kernel, and the potential to start from."""

    kernel: np.ndarray
    initial: np.ndarray | None


def scaled(kernel: np.ndarray, leaves: dict[str, Any]) -> Scaled:
    """Kernel and initial potential ``[C]`` of a neuron whose every threshold is 1.

    A neuron that starts at ``1 - first / step`` of its thresholds' distance and takes 1 away with
    each spike has the thresholds ``first``, ``first + step``, ... A channel that no drive moves
    starts half a step above its constant level. Without leaves it is a readout: no neuron.
    """
    kernel = np.asarray(kernel, np.float64)
    if not leaves:
        return Scaled(kernel, None)
    of = {name: np.asarray(leaf, np.float64) for name, leaf in leaves.items()}
    constant = (of["first"] <= ALWAYS) | (of["highest"] == 0)
    step = of["step"] + of["step_fraction"] * FRACTION
    step = np.where(step > 0, step, 1)
    first = of["first"] + of["first_fraction"] * FRACTION - (1 - FRACTION)  # without the ceiling
    initial = np.where(constant, of["highest"] + 0.5, 1 - first / step)
    return Scaled(np.where(constant, 0, kernel / step), initial)


class Theirs:
    """Our network in SpikingJelly; a call returns the predictions after every step ``[T, B]``."""

    def __init__(self, snn: Spiking, units: np.ndarray, steps: int, node: str, dtype: str) -> None:
        import torch
        from spikingjelly.activation_based import functional

        self.steps, self.dtype = steps, getattr(torch, dtype)
        self.initial: list[tuple[Any, Any]] = []
        modules: list[Any] = []
        for site in plan(snn.arch):
            leaves = snn.variables["fixed"].get(site.name, {})
            weight, initial = scaled(snn.variables["params"][site.name]["kernel"], leaves)
            modules += _layers(site, torch.from_numpy(torch_kernel(weight, site)))
            if initial is not None:
                modules.append(_node(node))
                start = np.broadcast_to(initial, (len(units), *site.out_shape)).astype(np.float32)
                self.initial.append((modules[-1], torch.from_numpy(start).movedim(-1, 1)))
        network = torch.nn.Sequential(*modules).to(self.dtype).eval()
        self.network = network.to(memory_format=torch.channels_last)
        functional.set_step_mode(self.network, "m")
        images = torch.from_numpy(units.astype(np.float32)).movedim(-1, 1)  # channels last
        self.images = images.to(self.dtype)

    def __call__(self) -> np.ndarray:
        """Simulate every step."""
        import torch
        from spikingjelly.activation_based import functional

        with torch.inference_mode():
            functional.reset_net(self.network)
            for node, potential in self.initial:
                _start(node, potential)
            drive = self.network[0](self.images[None])
            current = torch.zeros_like(drive.expand(self.steps, *drive.shape[1:]))
            current[0] = drive[0]
            readout = self.network[1:](current)
            return readout.float().cumsum(0).argmax(-1).numpy()


def _layers(site: Site, weight: Any) -> list[Any]:
    """SpikingJelly's layers of a synapse."""
    from spikingjelly.activation_based import layer

    outputs, inputs = weight.shape[:2]
    if site.kind == "dense":
        flatten = [layer.Flatten()] if len(site.in_shape) == 3 else []
        layers = [*flatten, layer.Linear(inputs, outputs, bias=False)]
    else:
        shape = {"kernel_size": site.window, "stride": site.strides, "padding": site.padding[0][0]}
        layers = [layer.Conv2d(inputs, outputs, **shape, bias=False)]
    layers[-1].weight.data = weight
    return layers


def _node(name: str) -> Any:
    """A neuron with threshold 1, soft reset; the signed one keeps its net count in 0..127."""
    from spikingjelly.activation_based import neuron

    return neuron.STBIFNode(1.0, level=128) if name == "ST-BIF" else neuron.IFNode(1.0, None)


def _start(node: Any, potential: Any) -> None:
    """Let a neuron begin with this potential; the signed one keeps its state in float32."""
    import torch

    if hasattr(node, "acc_q"):
        node.q = potential
        node.acc_q, node.cur_output = torch.zeros_like(potential), torch.zeros_like(potential)
    else:
        node.v = potential


def ours(case: Case, options: argparse.Namespace) -> dict[str, Callable[[], np.ndarray]]:
    """Our own simulations; a call returns the predictions after every step ``[T, B]``."""

    def every_step(snn: Spiking, skip_silent: bool = False) -> np.ndarray:
        snn = dataclasses.replace(snn, skip_silent=skip_silent)
        return np.asarray(simulate(snn, case.units, steps=options.steps).predictions)

    def until_settled() -> np.ndarray:
        readouts = settle(case.integer, case.units, steps=options.steps).readouts
        return np.argmax(readouts[-1], axis=-1)

    return {
        INTEGERS: functools.partial(every_step, case.integer),
        WIDER: functools.partial(every_step, case.eight),
        "float32": functools.partial(every_step, case.floats),
        SKIPPED: functools.partial(every_step, case.integer, skip_silent=True),
        STOP: until_settled,
    }


def rows(case: Case, options: argparse.Namespace) -> dict[str, Callable[[], np.ndarray]]:
    """Everything that is measured, by name."""
    calls = ours(case, options)
    if importlib.util.find_spec("spikingjelly") is None:
        message = "SpikingJelly is not installed: no comparison (pip install '.[bench]')"
        print(message, file=sys.stderr)
        return calls
    if options.cores:
        _set_torch_threads(options.cores)
    for node in ("IF", "ST-BIF"):
        for dtype in DTYPES:
            call = Theirs(case.integer, case.units, options.steps, node, dtype)
            calls[f"{PEER} {node}, {dtype}"] = call
    return calls


def _set_torch_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def _processor_seconds(run: Callable[[], Any]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def measure(
    report: common.Report,
    case: Case,
    runs: dict[str, Callable[[], np.ndarray]],
    options: argparse.Namespace,
) -> dict[str, common.Timing]:
    """Every row in turn, and its predictions after the last step beside those of our integers."""
    timed: dict[str, Callable[[], Any]] = dict(runs)
    if options.processor_time:
        timed = {name: functools.partial(_processor_seconds, run) for name, run in runs.items()}
    timings = common.in_turn(timed, options.repeats)
    work = 2e-9 * sum(site.macs for site in plan(case.integer.arch)[1:]) * options.steps
    for name, timing in timings.items():
        rate = options.batch / timing.median
        speed = "" if name in (STOP, SKIPPED) else f", {work * rate:.0f} GFLOP/s"
        report.record(name, f"{rate:,.2f} images/s{speed}", **timing.record(options.batch))
    exact = runs[INTEGERS]()[-1]
    for name, run in runs.items():
        if name not in (INTEGERS, WIDER):  # that one has other weights
            differ = int(np.sum(run()[-1] != exact))
            title = f"{name}: predictions that differ"
            report.record(title, f"{differ} of {len(exact)}", value=differ)
    return timings


def memory(report: common.Report, case: Case) -> None:
    """Bytes of the compiled programs for several horizons, beside inputs and results."""
    needed = []
    for steps in HORIZONS:
        program = compiled(case.integer, case.units, steps).program
        needed.append(int(program.memory_analysis().temp_size_in_bytes))
        mebibytes = f"{needed[-1] / 2**20:.1f} MiB"
        report.record(f"temporary memory, T = {steps}", mebibytes, bytes=needed[-1])
    ratio = needed[-1] / max(needed[0], 1)
    name = f"temporary memory, T = {HORIZONS[-1]} over T = {HORIZONS[0]}"
    report.goal(name, ratio, 1.05, at_least=False)


def goals(report: common.Report, timings: dict[str, common.Timing], trained: bool) -> None:
    """Ratios of the rows' times."""
    wanted = [
        (INTEGERS, "IF, float32", 1.5),
        (WIDER, "IF, float32", 1.5),
        ("float32", "IF, float32", 1),
        (SKIPPED, "IF, float32", 1.5),
        (STOP, "IF, float32", 3),
        (INTEGERS, "IF, bfloat16", 1),
        (INTEGERS, "ST-BIF, float32", 1.5),
        (INTEGERS, "ST-BIF, bfloat16", 1),
    ]
    for mine, other, limit in wanted:
        name = f"{mine} over {PEER} {other}"
        ratio = timings[f"{PEER} {other}"].over(timings[mine])
        if mine in (STOP, SKIPPED) and not trained:
            report.record(name, f"{ratio:.3g} (fresh weights)", value=ratio)
        else:
            report.goal(name, ratio, limit, at_least=True)


def main(argv: list[str] | None = None) -> None:
    """Measure everything."""
    options = arguments(argv)
    chosen = case(options)
    weights = "trained" if options.weights else "fresh, batch statistics of real images"
    report = common.Report(
        "negative_spikes",
        network=f"{options.network} k{options.k}",
        dataset=options.dataset,
        weights=weights,
        steps=options.steps,
        batch=options.batch,
        cores=options.cores or os.cpu_count(),
        clock="processor" if options.processor_time else "wall",
    )
    report.record("weights", weights)
    runs = rows(chosen, options)
    timings = measure(report, chosen, runs, options)
    memory(report, chosen)
    if any(PEER in name for name in timings):
        goals(report, timings, bool(options.weights))
    report.show()


if __name__ == "__main__":
    main()
