"""What other simulators make of a NIR graph: which nodes they import, and by which rules they run.

Read from their importers and neurons, and compared with what they compute (``tests``, marker
``simulators``). One ``nir.IF`` resets to zero in the first, subtracts in the second and leaks in a
third, so a graph is written for one of them, or for whoever follows NIR's own definition.
"""

import enum
from dataclasses import dataclass

from jaxsnn.errors import UserError
from jaxsnn.exchange.nir.rules import Comparison, Reset, Rules


class Simulator(enum.Enum):
    """Who is to run a graph."""

    NORSE = "norse"
    SINABS = "sinabs"
    SPIKINGJELLY = "spikingjelly"
    SNNTORCH = "snntorch"
    SPYX = "spyx"


@dataclass(frozen=True)
class Importer:
    """How one simulator imports graphs.

    Attributes:
        version: the one that this was read from.
        nodes: kinds of nodes that it imports as NIR defines them, but for ``rules``.
        rules: how its spiking nodes fire and reset.
        dt: length of a step that it has, or that a graph is written for.
        load: the call that loads a graph written for it.
        uniform_threshold: all neurons of a node need the same.
        unit_resistance: it takes the resistance of a node as 1, whatever it is.
        refusal: why no graph at all runs in it as here; empty where some do.
    """

    version: str
    nodes: frozenset[str]
    rules: Rules
    dt: float
    load: str
    uniform_threshold: bool = False
    unit_resistance: bool = False
    refusal: str = ""


_ALL = ("Input", "Output", "Conv2d", "Affine")  # of all importers

IMPORTERS = {
    Simulator.NORSE: Importer(
        version="1.1.0",
        nodes=frozenset((*_ALL, "Linear", "IF", "LIF", "CubaLIF", "SumPool2d")),
        rules=Rules(Reset.ZERO, Comparison.ABOVE),
        dt=1.0,
        load="norse.torch.from_nir(graph, dt=1.0)",
        unit_resistance=True,
    ),
    Simulator.SINABS: Importer(
        version="3.1.3",
        nodes=frozenset((*_ALL, "IF", "SumPool2d", "Flatten")),
        rules=Rules(Reset.SUBTRACT, Comparison.AT_OR_ABOVE, several_spikes=True, floor=1.0),
        dt=1.0,
        load="sinabs.nir.from_nir(graph, batch_size=...)",
        unit_resistance=True,
    ),
    Simulator.SPIKINGJELLY: Importer(
        version="2.0.0",
        nodes=frozenset(
            (*_ALL, "Linear", "Conv1d", "AvgPool2d", "Flatten", "IF", "LIF", "CubaLIF")
        ),
        rules=Rules(Reset.TO_V_RESET, Comparison.AT_OR_ABOVE),
        dt=1.0,
        load="spikingjelly.activation_based.nir_exchange.import_from_nir(graph, dt=1.0)",
        uniform_threshold=True,
    ),
    Simulator.SNNTORCH: Importer(
        version="1.0.0",
        nodes=frozenset((*_ALL, "Linear", "AvgPool2d", "LIF")),  # its IF leaks 10 % a step
        rules=Rules(Reset.ZERO, Comparison.ABOVE),
        dt=1e-4,
        load="snntorch.import_nir.import_from_nir(graph)",
        uniform_threshold=True,
    ),
    Simulator.SPYX: Importer(
        version="1.0.0",
        nodes=frozenset(_ALL),
        rules=Rules(Reset.SUBTRACT, Comparison.ABOVE),
        dt=1.0,
        load="",
        refusal=(
            "its neurons fire by the potential of the step before, so that every layer comes a "
            "step later than in this network, while biases enter from the first step on"
        ),
    ),
}


def resolve(simulator: "Simulator | str | None") -> Simulator | None:
    """The simulator of that name.

    Raises:
        UserError: there is none; the known names are listed.
    """
    if simulator is None or isinstance(simulator, Simulator):
        return simulator
    try:
        return Simulator(simulator)
    except ValueError:
        names = ", ".join(repr(one.value) for one in Simulator)
        raise UserError(f"for_={simulator!r} is no simulator known here: {names}") from None
