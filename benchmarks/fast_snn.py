"""What do the few steps of a signed integrate-and-fire network cost, beside its quantised ANN?

AlexNet of Fast-SNN (or ``--arch vgg11``) on MNIST, ``--bits`` wide, every row on the same images,
the rows in turn, so that their ratios hold:

- the quantised ANN, jitted, in float32: one forward pass with its weight quantisers and norms;
- the spiking network, 2^b - 1 steps: integers, layer by layer (block = T) and step by step, and
  with the settle stop, until every neuron is at rest; the first layer's current is computed once;
- fine-tuning: one update of a layer, beside what it is made of: the forward pass of the spiking
  network and of the ANN up to that layer, and forward and backward of the layer itself.

    python benchmarks/fast_snn.py [--weights RUN/best.npz] [--bits 2] > fast_snn.jsonl

Without --weights the network is fresh, with the batch statistics of real images.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np
from negative_spikes import calibrated

from jaxsnn import (
    Net,
    convert,
    data,
    hidden,
    methods,
    neurons,
    plan,
    quantised_weights,
    simulate,
)
from jaxsnn.arch import Arch, parse, zoo
from jaxsnn.inputs import Preprocessing
from jaxsnn.io import load_params
from jaxsnn.network import net as net_module
from jaxsnn.neurons.levels import levels
from jaxsnn.simulation import settle
from jaxsnn.systems import recipes
from jaxsnn.training import finetune, finetune_step

ARCHITECTURES = {"alex": zoo.fast_alexnet, "vgg11": zoo.fast_vgg11}
ANN, LAYERS, STEPS, STOP = "quantised ANN", "SNN, block = T", "SNN, block = 1", "SNN, settling"
LIMIT = 40  # a settling network is given so many times 2^b - 1 steps


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arch", default="alex", choices=ARCHITECTURES)
    parser.add_argument("--bits", type=int, default=2, help="width")
    parser.add_argument("--dataset", default="mnist", help="digits, mnist, cifar10, lfw")
    parser.add_argument("--data-dir", default=None, help="folder of the data files")
    parser.add_argument("--batch", type=int, default=64, help="images of a call, in every row")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, beside a warm-up")
    parser.add_argument("--weights", default="", help="best.npz or model.npz of a run")
    parser.add_argument("--cores", type=int, default=0, help="use so many processor cores (0: all)")
    parser.add_argument("--quick", action="store_true", help="a small network on digits")
    options = parser.parse_args(argv)
    if options.cores:
        common.use_cores(options.cores)
    if options.quick:
        options.dataset, options.batch, options.repeats = "digits", 8, 1
    return options


class Case(NamedTuple):
    """What is measured."""

    ann: Net
    variables: dict[str, Any]
    seen: Preprocessing
    pixels: np.ndarray
    units: np.ndarray


def architecture(options: argparse.Namespace, shape: tuple[int, ...], classes: int) -> Arch:
    """The network for images of a shape; a small one for --quick."""
    size: dict[str, Any] = {"input_shape": shape, "classes": classes}
    if options.quick:
        return parse("8C3s2p1-16C3s2p1-16C3p1-32nb", head_bias=True, **size)
    return dataclasses.replace(ARCHITECTURES[options.arch], **size)


def case(options: argparse.Namespace) -> Case:
    """Images, weights and the quantised ANN."""
    dataset = data.load(options.dataset, options.data_dir)
    seen = recipes.fast_snn(options.dataset)
    pixels = dataset.test_images[: options.batch]
    units = np.asarray(seen.test(jnp.asarray(pixels)))
    arch = architecture(options, units.shape[1:], dataset.classes)
    ann = Net(arch, hidden(neurons.clipped_relu(options.bits)), quantised_weights(options.bits))
    if options.weights:
        variables = load_params(options.weights, net_module.template(ann))
    else:
        variables = calibrated(ann, seen.encoding.decode(jnp.asarray(units)))
    return Case(ann, variables, seen, pixels, units)


def evaluations(chosen: Case, options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """The quantised ANN and the spiking network, each a call that returns predictions ``[B]``."""
    steps = levels(options.bits)
    x = chosen.seen.encoding.decode(jnp.asarray(chosen.units))
    snn, settling = (
        convert(
            chosen.variables,
            chosen.ann.arch,
            methods.signed_if(bits=options.bits, settling=at_rest),
            encoding=chosen.seen.encoding,
        )
        for at_rest in (False, True)
    )

    @jax.jit
    def forward(variables: Any, x: jax.Array) -> jax.Array:
        return jnp.argmax(net_module.forward(chosen.ann, variables, x).readouts[-1][0], -1)

    def spiking(block: int) -> np.ndarray:
        return np.asarray(simulate(snn, chosen.units, steps=steps, block=block).predictions[-1])

    def until_settled() -> np.ndarray:
        return np.asarray(settle(settling, chosen.units, steps=LIMIT * steps).predictions[-1])

    return {
        ANN: lambda: forward(chosen.variables, x),
        LAYERS: functools.partial(spiking, steps),
        STEPS: functools.partial(spiking, 1),
        STOP: until_settled,
    }


def tuning(chosen: Case, options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """One update of a middle layer, and its parts."""
    names = finetune_step.tuned_sites(chosen.ann)
    name = names[len(names) // 2]
    settings = finetune.Settings(bits=options.bits, batch_size=options.batch, force=True)
    tuner = finetune.Tuner(chosen.ann, chosen.variables, chosen.seen, settings)
    labels = np.zeros(options.batch, np.int32)  # without effect
    start = finetune.Tuned(chosen.variables)
    x = chosen.seen.encoding.decode(jnp.asarray(chosen.units))
    spiking, steps = finetune_step.spiking_of(chosen.ann), levels(options.bits)
    before = next(site.source for site in plan(chosen.ann.arch) if site.name == name)

    @jax.jit
    def trains(variables: Any, x: jax.Array) -> jax.Array:
        state = net_module.initial_state(spiking, variables, len(x))
        return net_module.apply(spiking, variables, x[None], state, steps=steps).outs[name]

    @jax.jit
    def target(variables: Any, x: jax.Array) -> jax.Array:
        return net_module.forward(chosen.ann, variables, x).outs[name]

    @jax.jit
    def layer(variables: Any, x: jax.Array, rate: jax.Array) -> Any:
        def squared(leaves: Any) -> jax.Array:
            params = {**variables["params"], name: leaves}
            forced = {before: rate}
            tree = {**variables, "params": params}
            out = net_module.forward(chosen.ann, tree, x, forced=forced)
            return jnp.mean(out.outs[name] ** 2)

        return jax.grad(squared)(variables["params"][name])

    rate = jax.jit(lambda v, x: net_module.forward(chosen.ann, v, x).outs[before])(
        chosen.variables, x
    )
    return {
        f"update of {name}": lambda: finetune.finetune_layer(
            tuner, start, name, chosen.pixels, labels
        ).variables["params"],
        "spiking network up to it": lambda: trains(chosen.variables, x),
        "ANN up to it": lambda: target(chosen.variables, x),
        "forward and backward of it": lambda: layer(chosen.variables, x, rate),
    }


def main(argv: list[str] | None = None) -> None:
    """Measure, and print records and goals."""
    options = arguments(argv)
    chosen = case(options)
    report = common.Report(
        "fast_snn",
        arch="quick" if options.quick else options.arch,
        bits=options.bits,
        weights=bool(options.weights),
    )
    runs = evaluations(chosen, options)
    times = common.in_turn(runs, options.repeats)
    for name, timing in times.items():
        rate = options.batch / timing.median
        report.record(name, f"{rate:,.1f} images/s", **timing.record(options.batch))
    for name in (LAYERS, STEPS, STOP):
        differ = int(np.sum(np.asarray(runs[name]()) != np.asarray(runs[ANN]())))
        title = f"{name}: predictions that differ from the ANN's"
        report.record(title, f"{differ} of {options.batch}", value=differ)
    best = min((LAYERS, STEPS), key=lambda name: times[name].median)
    title = f"{levels(options.bits)} steps over the ANN's time ({best})"
    report.goal(title, times[best].over(times[ANN]), 2.5, at_least=False)
    parts = common.in_turn(tuning(chosen, options), options.repeats)
    for name, timing in parts.items():
        report.record(name, f"{1e3 * timing.median:,.0f} ms", **timing.record(options.batch))
    whole, *rest = parts.values()
    total = sum(timing.median for timing in rest)
    report.goal("update over the sum of its parts", whole.median / total, 1.2, at_least=False)
    report.show()


if __name__ == "__main__":
    main()
