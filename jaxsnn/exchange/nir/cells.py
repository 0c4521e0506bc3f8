"""Neurons with a memory as NIR nodes.

NIR's own spiking nodes reset to a value. What subtracts, or takes a spike back, is built of
integrators and thresholds: a spike comes back through a ``Delay`` of one step and a ``Scale``, so
that the potential loses the threshold before it is compared again::

    v(t) = leak v(t-1) + drive(t) - weight S(t-1),    S(t) = [v(t) > threshold]

is the neuron that loses ``threshold`` right after its spike (``weight = leak * threshold``) or in
the next step (``weight = threshold``). Potentials start at 0 in NIR; where they start elsewhere,
the thresholds are moved instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxsnn.exchange.nir.draft import Draft, Signal

TINY = 1e-12  # of a step: what a potential without leak loses, less than any number can show
LEAST_THRESHOLD = 1e-3  # of a leaky neuron: see jaxsnn.neurons.leaky


class Neurons:
    """The neurons of one site, as they are added to a graph.

    Attributes:
        draft: the graph.
        name: of the site.
        shape: ``(C, H, W)``.
        whole: potentials are whole numbers, so that half a unit decides a tie.
    """

    def __init__(self, draft: Draft, name: str, shape: tuple[int, int, int], whole: bool) -> None:
        self.draft, self.name, self.shape, self.whole = draft, name, shape, whole

    def full(self, value: np.ndarray | float) -> np.ndarray:
        """An array for every neuron, from one value or one per channel."""
        return self.draft.full(self.shape, value)

    def signal(self, *nodes: str) -> Signal:
        """Their outputs."""
        return Signal(nodes, self.shape)

    def add(self, part: str, node: Any, *sources: str) -> str:
        """A node of this site."""
        return self.draft.add(f"{self.name}_{part}", node, *sources)

    def scale(self, part: str, factor: np.ndarray | float, *sources: str) -> str:
        """The sum of ``sources``, multiplied."""
        import nir

        return self.add(part, nir.Scale(self.full(factor)), *sources)

    def above(self, part: str, threshold: np.ndarray | float, *sources: str) -> str:
        """Where the sum of ``sources`` exceeds a threshold."""
        import nir

        return self.add(part, nir.Threshold(self.full(threshold)), *sources)

    def both(self, part: str, first: str, second: str) -> str:
        """Where two nodes spike together."""
        return self.above(part, 1.5, first, second)

    def before(self, part: str, *sources: str) -> str:
        """The sum of ``sources`` in the step before."""
        import nir

        return self.add(part, nir.Delay(self.full(self.draft.dt)), *sources)

    def each_before(self, *sources: str) -> tuple[str, ...]:
        """Each of ``sources`` in the step before, by itself.

        nirtorch closes a cycle only at a node that has several inputs.
        """
        import nir

        return tuple(
            self.draft.add(f"{source}_before", nir.Delay(self.full(self.draft.dt)), source)
            for source in sources
        )

    def integrator(self, part: str, *sources: str) -> str:
        """The sum of ``sources`` over all steps so far."""
        import nir

        return self.add(part, nir.I(self.full(1 / self.draft.dt)), *sources)

    def membrane(self, part: str, leak: np.ndarray, *sources: str) -> str:
        """A potential of which ``leak [C]`` is left after a step; the drive enters whole."""
        import nir

        tau = self.tau(leak)
        return self.add(part, nir.LI(tau, tau / self.draft.dt, 0 * tau), *sources)

    def tau(self, leak: np.ndarray) -> np.ndarray:
        """The time constant with which forward Euler leaves ``leak [C]``, in float64."""
        rate = np.maximum(1 - np.asarray(leak, np.float64), TINY)
        each = (self.draft.dt / rate).reshape(-1, *(1,) * (len(self.shape) - 1))
        return np.array(np.broadcast_to(each, self.shape))

    def below(self, threshold: np.ndarray) -> np.ndarray:
        """The number above which lies what reaches ``threshold``."""
        if self.whole:
            return np.asarray(threshold, np.float64) - 0.5
        return np.nextafter(threshold.astype(np.float32), np.float32(-np.inf))


def integrate_and_fire(
    cells: Neurons,
    drive: tuple[str, ...],
    leaves: dict[str, np.ndarray],
    signed: bool,
    cap: int | None,
) -> Signal:
    """:func:`jaxsnn.neurons.integrate_and_fire` of integrators, thresholds and feedback.

    Args:
        cells: where it goes.
        drive: nodes whose sum drives it.
        leaves: ``threshold``, ``initial`` and, where signed, ``negative_threshold``, each ``[C]``.
        signed: it takes spikes back.
        cap: net count at which it fires no more; None: none.
    """
    threshold, initial = leaves["threshold"], leaves["initial"]
    potential = cells.integrator("potential", *drive)
    up = cells.above("reached", cells.below(threshold - initial), potential)
    if not signed and cap is None:
        after = cells.before("before", up)
        cells.draft.connect((cells.scale("reset", -threshold, after),), potential)
        return cells.signal(up)
    count = cells.integrator("count")
    if cap is not None:
        room = cells.above("room", 0.5 - cap, cells.scale("left", -1.0, count))
        up = cells.both("up", up, room)
    spikes = cells.signal(up)
    if signed:
        lowest = initial - leaves["negative_threshold"]
        low = cells.above("low", cells.below(lowest), cells.scale("turned", -1.0, potential))
        some = cells.above("some", 0.5, count)
        spikes = cells.signal(up, cells.scale("down", -1.0, cells.both("back", low, some)))
    after = cells.each_before(*spikes.nodes)
    cells.draft.connect(after, count)
    cells.draft.connect((cells.scale("reset", -threshold, *after),), potential)
    return spikes


def leaky(
    cells: Neurons,
    drive: tuple[str, ...],
    leak: np.ndarray,
    threshold: np.ndarray,
    reset: str,
    emits_potential: bool,
) -> Signal:
    """:func:`jaxsnn.neurons.leaky` with any reset but to zero.

    Args:
        cells: where it goes.
        drive: nodes whose sum drives it.
        leak: ``[C]``.
        threshold: ``[C]``.
        reset: "delayed", "subtract" or "none".
        emits_potential: its output is the potential before the reset.
    """
    potential = cells.membrane("potential", leak, *drive)
    if reset == "none" and emits_potential:
        return cells.signal(potential)
    spikes = cells.above("spikes", threshold, potential)
    if reset != "none":
        weight = threshold if reset == "delayed" else leak * threshold
        back = cells.scale("reset", -weight, cells.before("before", spikes))
        cells.draft.connect((back,), potential)
    return cells.signal(potential if emits_potential else spikes)


def delayed(cells: Neurons, spikes: Signal, steps: int) -> Signal:
    """The same, ``steps`` later."""
    import nir

    later = cells.add("later", nir.Delay(cells.full(steps * cells.draft.dt)), *spikes.nodes)
    return cells.signal(later)
