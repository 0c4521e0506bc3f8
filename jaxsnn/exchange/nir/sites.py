"""One site of a spiking network as NIR nodes: synapse, bias, shortcut, neurons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsnn.arch.layers import Site
from jaxsnn.conversion.kernels import KernelForm
from jaxsnn.conversion.spiking import Folded, Spiking
from jaxsnn.errors import UserError
from jaxsnn.exchange.nir import cells
from jaxsnn.exchange.nir.draft import Draft, Signal
from jaxsnn.exchange.nir.kernels import as_map, channel_sums, outputs, padded_identity, synapse
from jaxsnn.exchange.nir.nir_neurons import integrate_in_sinabs, lif, weight_of
from jaxsnn.exchange.nir.reach import UNKNOWN
from jaxsnn.exchange.nir.simulators import Simulator
from jaxsnn.exchange.nir.threshold_units import add_units
from jaxsnn.exchange.nir.tracking import tracking
from jaxsnn.neurons.neuron import Neuron

RESETS_TO_VALUE = (Simulator.NORSE, Simulator.SPIKINGJELLY, Simulator.SNNTORCH)


class Walk:
    """Walks over the sites of a network and adds their nodes to a graph.

    Attributes:
        snn: the network.
        draft: the graph.
        simulator: who is to run it; None: whoever follows NIR's definition.
        one_step: the graph is run for one step.
        signals: site -> what it gives, and the input's.
    """

    def __init__(
        self, snn: Spiking, draft: Draft, simulator: Simulator | None, one_step: bool
    ) -> None:
        import nir

        self.snn, self.draft, self.simulator, self.one_step = snn, draft, simulator, one_step
        shape = as_map(snn.arch.input_shape)
        name = draft.add("input", nir.Input({"input": np.array(shape)}))
        self.signals = {"input": Signal((name,), shape)}

    def add(self, site: Site, record: Folded) -> None:
        """Add a site's nodes.

        Raises:
            UserError: what NIR, or the simulator, has no node for.
        """
        neuron, source = self.snn.neurons.at(site), self.signals[site.source]
        if neuron.name == "threshold_count":
            if site.shortcut:
                raise UserError(
                    f"{site.name}: threshold units behind a shortcut are not written as NIR nodes; "
                    "convert with methods.negative_spikes"
                )
            self.signals[site.name] = self._units(site, record, source)
            return
        if site.max_pool:
            raise UserError(
                f"{site.name}: NIR has no max pooling of currents; use strides or an average pool"
            )
        if site.kind == "maxpool":
            raise UserError(
                f"{site.name}: NIR has no node that keeps counts and compares them, as a max pool "
                "behind neurons does; use strides or an average pool"
            )
        leaves = self._leaves(site, neuron)
        drive, shape = self._drive(site, record, neuron, leaves, source)
        floats = record.form in (KernelForm.TRAINED, KernelForm.FLOAT)
        whole = _is_whole(leaves.values()) and not floats
        place = cells.Neurons(self.draft, site.name, shape, whole)
        bound = UNKNOWN if site.shortcut else record.bound
        self.signals[site.name] = self._neurons(place, neuron, leaves, drive, bound)

    def _units(self, site: Site, record: Folded, source: Signal) -> Signal:
        params, fixed = self._params(site), self.snn.variables["fixed"][site.name]
        return add_units(
            self.draft,
            site,
            np.asarray(params["kernel"], np.int64),
            np.asarray(fixed["thresholds"]),
            record.step_bound,
            source,
            self.simulator,
            self.one_step,
        )

    def _params(self, site: Site) -> Mapping[str, Any]:
        return self.snn.variables["params"].get(site.name, {})

    def _leaves(self, site: Site, neuron: Neuron) -> dict[str, np.ndarray]:
        """The leaves of a site's neurons, as the network has them or by default."""
        channels = site.drive_shape[-1]
        inner = dict(neuron.options)["inner"] if neuron.name == "delayed" else neuron
        leaves = {**inner.learned(channels), **inner.fixed(channels)}
        for collection in ("params", "fixed"):
            tree = self.snn.variables.get(collection, {}).get(site.name, {})
            leaves |= {name: leaf for name, leaf in tree.items() if name in leaves}
        return {name: np.asarray(leaf) for name, leaf in leaves.items()}

    def _drive(
        self,
        site: Site,
        record: Folded,
        neuron: Neuron,
        leaves: dict[str, np.ndarray],
        source: Signal,
    ) -> tuple[tuple[str, ...], tuple[int, int, int]]:
        """The nodes whose sum drives the neurons, and the shape of that drive."""
        params, draft = self._params(site), self.draft
        if site.kind == "avgpool":
            conv = channel_sums(draft, source, site.window, site.strides)
            if record.form is KernelForm.TRAINED:
                conv.weight = conv.weight / np.prod(site.window).astype(draft.dtype)
        else:
            factor = weight_of(neuron, leaves, self.simulator)
            kernel = np.asarray(params["kernel"], np.float64) * params.get("gain", 1) * factor
            bias = np.asarray(params.get("bias", np.zeros(kernel.shape[-1]))) * factor
            conv = synapse(draft, site, kernel, bias, source)
        drive = (draft.add(site.name, conv, *source.nodes),)
        if site.shortcut:
            gain = np.asarray(params.get("shortcut_gain", 1))
            drive += (self._shortcut(site, outputs(conv), gain),)
        return drive, outputs(conv)

    def _shortcut(self, site: Site, shape: tuple[int, int, int], gain: np.ndarray) -> str:
        """The node of what a shortcut adds to a drive of ``shape``."""
        source = self.signals[site.shortcut]
        if source.shape == shape:
            place = cells.Neurons(self.draft, site.name, shape, whole=False)
            return place.scale("shortcut", gain, *source.nodes)
        conv = padded_identity(self.draft, source, shape[0], site.shortcut_stride, gain)
        return self.draft.add(f"{site.name}_shortcut", conv, *source.nodes)

    def _neurons(
        self,
        place: cells.Neurons,
        neuron: Neuron,
        leaves: dict[str, np.ndarray],
        drive: tuple[str, ...],
        bound: int,
    ) -> Signal:
        options = dict(neuron.options)
        if neuron.name == "identity":
            return place.signal(*drive)
        if neuron.name == "delayed":
            spikes = self._neurons(place, options["inner"], leaves, drive, bound)
            return cells.delayed(place, spikes, options["steps"])
        if neuron.name == "integrate_and_fire":
            return self._integrate_and_fire(place, options, leaves, drive)
        if neuron.name == "leaky":
            return self._leaky(place, options, leaves, drive)
        if neuron.name == "tracking":
            return tracking(place, drive, leaves, bound, options["per_step"], options["rising"])
        raise UserError(
            f"{place.name}: its neurons are {neuron.name!r}; what can be written as NIR nodes are "
            "threshold_count, integrate_and_fire, tracking, leaky, and delays of them"
        )

    def _integrate_and_fire(
        self,
        place: cells.Neurons,
        options: Mapping[str, Any],
        leaves: dict[str, np.ndarray],
        drive: tuple[str, ...],
    ) -> Signal:
        if self.simulator is None:
            cap = options["levels"] if options["bounded"] else None
            return cells.integrate_and_fire(place, drive, leaves, options["signed"], cap)
        if self.simulator in RESETS_TO_VALUE:
            raise UserError(
                f"{place.name}: {self.simulator.value} resets nir.IF to a value, where these "
                "neurons subtract their threshold; write the graph with for_=None, or for sinabs"
            )
        return integrate_in_sinabs(place, options, leaves, drive)

    def _leaky(
        self,
        place: cells.Neurons,
        options: Mapping[str, Any],
        leaves: dict[str, np.ndarray],
        drive: tuple[str, ...],
    ) -> Signal:
        leak = np.clip(leaves["leak"].astype(np.float32), 0, 1)
        threshold = np.maximum(leaves["threshold"].astype(np.float32), cells.LEAST_THRESHOLD)
        emits_potential = options["emit"] == "potential"
        if options["reset"] == "zero":
            return lif(place, drive, leak, threshold, emits_potential, self.simulator)
        if self.simulator is not None:
            raise UserError(
                f"{place.name}: {self.simulator.value} has no leaky neuron with the reset "
                f"{options['reset']!r} in NIR; write the graph with for_=None, or train with the "
                "reset 'zero'"
            )
        return cells.leaky(place, drive, leak, threshold, options["reset"], emits_potential)


def _is_whole(leaves: Any) -> bool:
    return all(np.issubdtype(leaf.dtype, np.integer) for leaf in leaves)
