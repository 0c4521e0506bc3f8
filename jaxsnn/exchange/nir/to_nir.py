"""From a spiking network to a NIR graph that computes the same, or a refusal that says why not."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.kernels import KernelForm
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError
from jaxsnn.exchange.nir.draft import Draft
from jaxsnn.exchange.nir.metadata import metadata
from jaxsnn.exchange.nir.objections import objections
from jaxsnn.exchange.nir.reach import dtype_for
from jaxsnn.exchange.nir.sample import Sample, compare
from jaxsnn.exchange.nir.simulators import IMPORTERS, Simulator, resolve
from jaxsnn.exchange.nir.sites import Walk
from jaxsnn.neurons.neuron import Neuron

if TYPE_CHECKING:
    from nir import NIRGraph, NIRGraphData

HEADS = ("exit", "readout")


@dataclass(frozen=True)
class NirExport:
    """A graph, and what it gives for sample images.

    Attributes:
        graph: the graph.
        sample: input, spikes of every layer and outputs, by the names of the graph's nodes; None
            where no images were given.
        is_exact: the graph is the network by construction, and not only on the images.
    """

    graph: NIRGraph
    sample: NIRGraphData | None
    is_exact: bool

    def write(self, path: str | PathLike[str]) -> Path | None:
        """Write the graph, and beside it the sample as ``<name>_sample<suffix>``.

        nir 1.0.8 takes every window for a square one when it checks shapes. Where maps are no
        squares, read the file with ``nir.read(path, type_check=False)``; :func:`from_nir` always
        does, and finds the shapes itself.

        Returns:
            The path of the sample, None where there is none.
        """
        import nir

        target = Path(path)
        nir.write(target, self.graph)
        if self.sample is None:
            return None
        beside = target.with_name(f"{target.stem}_sample{target.suffix}")
        nir.write_data(beside, self.sample)
        return beside


def to_nir(
    snn: Spiking,
    *,
    for_: Simulator | str | None = None,
    steps: int | None = None,
    images: np.ndarray | None = None,
) -> NirExport:
    """Write a spiking network as a NIR graph.

    One-step scatter-and-gather networks are exact in every simulator named here but spyx
    (:mod:`jaxsnn.exchange.nir.threshold_units`). Neurons that subtract their threshold or emit
    negative spikes become integrators, thresholds and delayed feedback
    (:mod:`jaxsnn.exchange.nir.cells`, :mod:`jaxsnn.exchange.nir.tracking`), which :func:`from_nir`
    runs and other importers do not have. Where whole numbers leave float32, the graph has float64
    arrays and is run with ``from_nir(..., dtype=np.float64)``. Every head is an output, whose sum
    over time counts in units of ``metadata["unit_of_<output>"]``.

    With ``images`` the graph is run by :func:`from_nir`, under the rules of the simulator that it
    is written for, and every spike of every step is compared with :func:`jaxsnn.simulate`. Networks
    with float weights are never written without that comparison.

    Args:
        snn: converted or directly trained.
        for_: who is to run the graph; None: whoever follows NIR's own definition.
        steps: time steps; None: 1, for networks whose neurons have no memory.
        images: sample input as :func:`jaxsnn.simulate` takes it.

    Raises:
        UserError: NIR has no node for something, the simulator would compute something else, its
            numbers are too large, or spikes differ on the images. The message names the site, the
            reason and what to do.
    """
    simulator, steps = resolve(for_), _steps(snn, steps)
    if simulator is not None and IMPORTERS[simulator].refusal:
        raise UserError(f"{simulator.value} cannot run it: {IMPORTERS[simulator].refusal}")
    _check_biases(snn, steps)
    dt = 1.0 if simulator is None else IMPORTERS[simulator].dt
    draft = Draft(dtype_for(snn, steps, simulator), dt)
    walk = Walk(snn, draft, simulator, steps == 1)
    sites = plan(snn.arch)
    for site, record in zip(sites, snn.report, strict=True):
        walk.add(site, record)
    heads = _add_outputs(draft, walk, sites)
    graph = draft.graph({})
    if reasons := objections(graph, simulator):
        raise UserError(f"{simulator.value if simulator else 'NIR'}: {'; '.join(reasons)}")
    exact = _is_exact(snn, simulator, steps)
    if images is None and not exact:
        raise UserError(
            "this network equals its graph only up to rounding or under conditions that its input "
            "decides; give images=, on which every spike is compared"
        )
    sample: Sample | None = None
    if images is not None:
        sample = compare(snn, graph, draft.dtype, simulator, walk.signals, heads, images, steps)
    shown = 0 if sample is None else sample.images
    graph.metadata = metadata(snn, simulator, steps, dt, heads, exact, shown)
    return NirExport(graph, None if sample is None else sample.data, exact)


def _steps(snn: Spiking, steps: int | None) -> int:
    if steps is None:
        for site in plan(snn.arch):
            if not snn.neurons.at(site).stateless:
                raise UserError(f"{site.name} has a memory; say for how many steps= it runs")
        return 1
    if steps < 1:
        raise UserError(f"steps={steps}: at least 1 is needed")
    return steps


def _check_biases(snn: Spiking, steps: int) -> None:
    """Refuse biases that end before the run does: NIR's enter at every step."""
    ends = snn.encoding.ends
    if ends is None or steps <= ends:
        return
    for name, tree in snn.variables["params"].items():
        if "bias" in tree and np.any(np.asarray(tree["bias"])):
            raise UserError(
                f"{name}: its biases end after {ends} of {steps} steps, and those of a NIR graph "
                f"never do; write it with steps={ends}"
            )


def _add_outputs(draft: Draft, walk: Walk, sites: tuple[Site, ...]) -> dict[str, str]:
    """An output for each head: site -> its name in the graph."""
    import nir

    heads: dict[str, str] = {}
    for site in sites:
        if site.role in HEADS:
            signal = walk.signals[site.name]
            name = "output" if site.role == "readout" else f"output_{site.name}"
            node = nir.Output({"output": np.array(signal.node_shape)})
            heads[site.name] = draft.add(name, node, *signal.nodes)
    return heads


def _is_exact(snn: Spiking, simulator: Simulator | None, steps: int) -> bool:
    """Whether all numbers are whole and no rule of the simulator is left to the input."""
    if any(record.form in (KernelForm.TRAINED, KernelForm.FLOAT) for record in snn.report):
        return False
    neurons = [_inner(snn.neurons.at(site)) for site in plan(snn.arch)]
    if steps == 1 and all(one.name in ("threshold_count", "identity") for one in neurons):
        return True
    leaves = [leaf for tree in snn.variables["fixed"].values() for leaf in tree.values()]
    params = [leaf for tree in snn.variables["params"].values() for leaf in tree.values()]
    return simulator is None and all(
        np.issubdtype(np.asarray(leaf).dtype, np.integer) for leaf in (*leaves, *params)
    )


def _inner(neuron: Neuron) -> Neuron:
    return dict(neuron.options)["inner"] if neuron.name == "delayed" else neuron
