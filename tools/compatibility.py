"""Write docs/compatibility.md: which networks go into which simulator as a NIR graph.

    python tools/compatibility.py            # write the document
    python tools/compatibility.py --check    # status 1 where it is not current

Every cell is tried: ``jaxsnn.exchange.to_nir`` writes a small random network for the simulator or
refuses it, and the simulator runs what was written. That takes the extra ``simulators``.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import numpy as np

from jaxsnn import (
    Arch,
    Encoding,
    Net,
    SiteMap,
    Spiking,
    UserError,
    convert,
    directly_trained,
    hidden,
    methods,
    neurons,
    parse,
    plan,
    quantised_weights,
    spiking_net,
)
from jaxsnn.conversion.methods import Method
from jaxsnn.exchange.nir import NirExport, Simulator, to_nir
from jaxsnn.exchange.nir.simulators import IMPORTERS
from jaxsnn.inputs.preprocess import PIXELS
from jaxsnn.network.net import template
from jaxsnn.network.weight_quantisers import WeightQuantiser
from jaxsnn.neurons.leaky import Reset

if TYPE_CHECKING:
    from nir import NIRGraph, NIRGraphData

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "compatibility.md"
SHAPE = (8, 8, 1)
LAYERS = {
    "convolution, dense": "4C3p1-5C3s2same-8",
    "average pool": "4C3p1-AP2-8",
    "max pool": "4C3p1-MP2-8",
    "residual block": "4C3p1-[4C3p1-4C3p1]+identity-8",
    "side exit": "4C3p1-E-8",
}
HELD = Encoding("held", 1 / 256, 255)
Run = Callable[["NIRGraph", np.ndarray], np.ndarray]  # a graph and [T, B, ...] -> [T, B, ...]


class Network(NamedTuple):
    """A network, what it is shown, and for how long; or why there is none."""

    snn: Spiking | None
    images: np.ndarray
    steps: int
    refusal: str = ""


class Cell(NamedTuple):
    """What becomes of a network in a simulator.

    Attributes:
        word: "exact", "compared", or "" where it is refused.
        reason: why it is refused.
        values: outputs of all steps and images that were compared, and
        wrong: how many of them differ; None: the simulator did not run it.
    """

    word: str
    reason: str = ""
    values: int = 0
    wrong: int | None = None


def variables(net: Net, *, positive: bool) -> dict[str, Any]:
    """Random weights that are multiples of 1/256, so that no sum depends on its order.

    Args:
        net: whose tree they fill.
        positive: no weight is negative, and a layer's mean grows by half.
    """
    rng = np.random.default_rng(0)

    def leaf(path: Any, shape: Any) -> np.ndarray:
        names = [key.key for key in path]
        if names[-1] == "kernel":
            inputs, drawn = np.prod(shape.shape[:-1]), rng.normal(size=shape.shape)
            drawn = np.abs(drawn) * 2 / inputs if positive else drawn * 1.5 / np.sqrt(inputs)
            values = np.round(256 * drawn) / 256
        elif names[-2] == "norm":
            values = np.full(shape.shape, {"mean": 0.0, "bias": 0.125}.get(names[-1], 1.0))
        elif names[-1] == "bias":
            values = rng.integers(0, 3, shape.shape) / 16
        else:  # a learned clip
            values = np.full(shape.shape, 2.0)
        return values.astype(np.float32)

    tree = template(net)
    tree.pop("fixed", None)
    return jax.tree.map_with_path(leaf, tree)


def converted(
    text: str,
    activation: neurons.Neuron,
    method: Callable[[Arch], Method],
    *,
    weights: SiteMap[WeightQuantiser] | None = None,
    encoding: Encoding = PIXELS,
    norm: bool = True,
    head_bias: bool = True,
) -> Spiking:
    """A network of some layers by a method, which may depend on the architecture.

    Args:
        text: the layers.
        activation: of the network that is converted.
        method: for its architecture.
        weights: its weight quantisers, None: full precision.
        encoding: how images come in.
        norm: with batch norms; without them no weight is negative.
        head_bias: the heads have a bias.
    """
    arch = parse(text, input_shape=SHAPE, classes=3, norm=norm, head_bias=head_bias)
    net = Net(arch, hidden(activation))
    net = net if weights is None else net.clone(weights=weights)
    return convert(variables(net, positive=not norm), arch, method(arch), encoding=encoding)


def scatter_gather(text: str) -> Spiking:
    """One step."""
    method = methods.scatter_gather(k=1, bound=2, sums_below=2**21)
    return converted(text, neurons.quantised_relu(1, 2), lambda arch: method)


def negative_spikes(text: str) -> Spiking:
    """Net counts that follow their level; a bias of the head would end after the first step."""
    method = methods.negative_spikes(k=1, bound=2)
    return converted(text, neurons.quantised_relu(1, 2), lambda arch: method, head_bias=False)


def signed_if(text: str) -> Spiking:
    """Integrate and fire that takes spikes back."""
    method, weights = methods.signed_if(bits=2), quantised_weights(2)
    activation = neurons.clipped_relu(2)
    return converted(text, activation, lambda arch: method, weights=weights, encoding=HELD)


def rate(text: str) -> Spiking:
    """Integrate and fire, with weights of one sign, so that no potential falls."""

    def method(arch: Arch) -> Method:
        names = [site.name for site in plan(arch) if site.kernel_shape]
        scales = {name: 2.0 ** (1 + (n + 1) // 2) for n, name in enumerate(names)}
        return methods.rate(scales=scales, delay=0, initial=0.0)

    return converted(text, neurons.relu(), method, encoding=HELD, norm=False, head_bias=False)


def leaky(reset: Reset) -> Callable[[str], Spiking]:
    """Trained directly; half of a potential stays."""

    def build(text: str) -> Spiking:
        arch = parse(text, input_shape=SHAPE, classes=3, norm=False, head_bias=True)
        net = spiking_net(arch, neurons.leaky(0.5, reset=reset))
        return directly_trained(net, variables_of(net), Encoding("frames", 1.0))

    def variables_of(net: Net) -> dict[str, Any]:
        fixed = {
            site.name: net.neurons.at(site).fixed(site.drive_shape[-1]) for site in plan(net.arch)
        }
        return {**variables(net, positive=False), "fixed": {n: f for n, f in fixed.items() if f}}

    return build


METHODS: dict[str, tuple[Callable[[str], Spiking], int]] = {
    "`scatter_gather`": (scatter_gather, 1),
    "`negative_spikes`": (negative_spikes, 6),
    "`signed_if`": (signed_if, 3),
    "`rate`": (rate, 12),
    "trained, reset to zero": (leaky("zero"), 6),
    "trained, reset by subtraction": (leaky("subtract"), 6),
}


def networks() -> Iterator[tuple[str, str, Network]]:
    """Every method with all kinds of layers: (method, layers, network)."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (4, *SHAPE), dtype=np.uint8)
    frames = rng.integers(0, 3, (6, 4, *SHAPE)).astype(np.float32)
    for method, (build, steps) in METHODS.items():
        shown = frames if method.startswith("trained") else images
        for layers, text in LAYERS.items():
            try:
                yield method, layers, Network(build(text), shown, steps)
            except UserError as error:
                yield method, layers, Network(None, shown, steps, in_one_line(error))


def in_one_line(error: UserError) -> str:
    """What an error says."""
    return " ".join(str(error).split())


def cell(network: Network, simulator: Simulator | None, run: Run | None) -> Cell:
    """Write a network for a simulator, and let it run there."""
    if network.snn is None:
        return Cell("", network.refusal)
    images, steps = network.images, network.steps
    try:
        export = to_nir(network.snn, for_=simulator, steps=steps, images=images)
    except UserError as error:
        return Cell("", in_one_line(error))
    word = "exact" if export.is_exact else "compared"
    return Cell(word, "", *(compared(export, run) if run else (0, None)))


def output_of(sample: "NIRGraphData") -> np.ndarray:
    """What the last head gives, ``[B, T, classes]``."""
    return sample.nodes["output"].observables["output"].data


def compared(export: NirExport, run: Run) -> tuple[int, int]:
    """How many outputs the sample has, and how many of a simulator's are others."""
    sample = cast("NIRGraphData", export.sample)
    shape = tuple(int(n) for n in export.graph.nodes["input"].output_type["output"])
    shown = sample.nodes["input"].observables["input"].data
    x = np.asarray(shown, np.float32).swapaxes(0, 1)
    expected = output_of(sample).swapaxes(0, 1)
    assert len(np.unique(expected)) > 1, "a network that says nothing"
    actual = run(export.graph, x.reshape(*x.shape[:2], *shape))
    return expected.size, int((np.asarray(actual).reshape(expected.shape) != expected).sum())


def document(runners: dict[Simulator, Run]) -> str:
    """The whole page: a table for each method."""
    columns = [None, *Simulator]
    heads = ["NIR itself", *(f"{one.value} {IMPORTERS[one].version}" for one in Simulator)]
    rows, reasons = [["layers", *heads], ["---"] * (1 + len(heads))], dict[str, int]()
    tables = {method: list(rows) for method in METHODS}
    for method, layers, network in networks():
        cells = [cell(network, one, runners.get(one) if one else None) for one in columns]
        tables[method].append([layers, *(text(each, reasons) for each in cells)])
    notes = "\n".join(f"{number}. {reason}" for reason, number in reasons.items())
    return "\n".join([HEAD, *map(table, tables, tables.values()), "## Why not\n", notes, ""])


def table(method: str, rows: list[list[str]]) -> str:
    """The table of a method, with its heading."""
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## {method[0].upper()}{method[1:]}\n\n{lines}\n"


def text(each: Cell, reasons: dict[str, int]) -> str:
    """A cell of the table; a reason that is new gets the next number."""
    if not each.word:
        return f"no ({reasons.setdefault(each.reason, len(reasons) + 1)})"
    return each.word if each.wrong is None else f"{each.word}: {each.wrong} of {each.values}"


HEAD = """# Networks and simulators

What `jaxsnn.exchange.to_nir` writes for whom, by conversion method and kind of layer. The command
`python tools/compatibility.py` makes this page from what is really refused, and from what the
simulators really give.

*Exact*: the graph is the network by construction. *Compared*: every spike of every step was
compared on the images that were shown, and a difference would have been refused; on other images it
may differ. *0 of n*: so many of n outputs (all steps and images) differ when that simulator runs
the graph. "NIR itself" is for whoever follows NIR's own definition, as `jaxsnn.exchange.from_nir`
does. A number in brackets says why there is no graph.
"""


def installed() -> dict[Simulator, Run]:
    """What runs a graph in each simulator that runs some: the functions of the tests."""
    sys.path.insert(0, str(ROOT / "tests"))
    import nir_simulators

    runs = {**nir_simulators.RUN, "snntorch": nir_simulators.in_snntorch}
    return {Simulator(name): run for name, run in runs.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the document; status 1 where it is not current."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    page = document(installed())
    if not check:
        DOCUMENT.write_text(page, encoding="utf-8")
        return 0
    return int(DOCUMENT.read_text(encoding="utf-8") != page)


if __name__ == "__main__":
    sys.exit(main())
