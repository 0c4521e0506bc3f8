"""A NIR graph as a JAX program: one step as a pure function, all steps as one ``lax.scan``."""

# Fields of flax.struct and what jax.jit returns have no types.
# pyright: reportUnknownVariableType=false

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.errors import UserError
from jaxsnn.exchange.nir.delay import Delay
from jaxsnn.exchange.nir.operation import DType, Operation, Params, Shape, State
from jaxsnn.exchange.nir.samples import Samples, samples


@dataclass(frozen=True)
class Node:
    """One node of a network.

    Attributes:
        name: in the graph; ``outer/inner`` in a sub-graph.
        kind: its class in the ``nir`` package.
        operation: what it computes.
        shape: of one sample of its output, without batch.
        input_shape: of one sample of its input.
        sources: nodes whose outputs are added up to its input.
        back_sources: nodes whose outputs of the step before are added, too.
    """

    name: str
    kind: str
    operation: Operation
    shape: Shape
    input_shape: Shape
    sources: tuple[str, ...] = ()
    back_sources: tuple[str, ...] = ()

    @property
    def is_early(self) -> bool:
        """Whether its output does not depend on its input of the same step."""
        return isinstance(self.operation, Delay) and self.operation.shortest > 0


class NirState(NamedTuple):
    """A network between two steps; every leaf is an array.

    Attributes:
        nodes: node -> its state: of a membrane ``(v [B, ...],)``, with a synaptic current ``(v,
            i)``, of a delay ``(queue [steps, B, ...],)``, else ``()``.
        previous: node -> its output ``[B, ...]`` of the step before, of nodes with a back edge.
    """

    nodes: dict[str, State]
    previous: dict[str, Array]


class NirTrace(NamedTuple):
    """What a run returns.

    Attributes:
        recorded: node -> its output at every step, ``[T, B, ...]``.
        totals: node -> its output summed over the steps, ``[B, ...]``.
        state: after the last step, from which a further run goes on.
    """

    recorded: dict[str, Array]
    totals: dict[str, Array]
    state: NirState


@flax.struct.dataclass
class NirNetwork:
    """A NIR graph that can be run, from :func:`jaxsnn.exchange.from_nir`.

    A pytree whose leaves are the parameters; two networks of one structure share their compiled
    program.

    Attributes:
        params: node -> its arrays.
        nodes: in the order in which they are computed.
        inputs, outputs: names of the ``Input`` and ``Output`` nodes.
        dt: length of a step, in the unit of the graph's time constants.
        dtype: in which it computes, float32 or float64.
    """

    params: dict[str, Params]
    nodes: tuple[Node, ...] = flax.struct.field(pytree_node=False)
    inputs: tuple[str, ...] = flax.struct.field(pytree_node=False)
    outputs: tuple[str, ...] = flax.struct.field(pytree_node=False)
    dt: float = flax.struct.field(pytree_node=False)
    dtype: DType = flax.struct.field(pytree_node=False)

    def __getitem__(self, name: str) -> Node:
        """The node of that name.

        Raises:
            UserError: there is none; the known names are listed.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise UserError(f"no node {name!r}; known: {', '.join(n.name for n in self.nodes)}")

    def _expected(self) -> dict[str, Shape]:
        return {name: self[name].shape for name in self.inputs}

    def start(self, batch: int) -> NirState:
        """The state before the first step of ``batch`` samples."""
        if batch < 1:
            raise UserError(f"batch={batch}: at least 1 sample is needed")
        with precision(self.dtype):
            return start(self, batch)

    def step(self, state: NirState, x: Samples) -> tuple[NirState, dict[str, Array]]:
        """One step, compiled once.

        Args:
            state: from :meth:`start` or the step before.
            x: ``[B, ...]``; by the names of the inputs where there are several.

        Returns:
            The next state, and each output's ``[B, ...]``.

        Raises:
            UserError: ``x`` does not fit the graph, or ``state`` is another graph's or batch's.
        """
        with precision(self.dtype):
            state, values = _step(self, state, samples(self._expected(), x, leading=1))
        return state, {name: values[name] for name in self.outputs}

    def run(
        self,
        x: Samples,
        *,
        steps: int | None = None,
        record: Sequence[str] | None = None,
        total: Sequence[str] = (),
        state: NirState | None = None,
    ) -> NirTrace:
        """All steps, compiled once per number of them.

        Memory grows with the number of steps by the input and what is recorded alone.

        Args:
            x: ``[T, B, ...]``, any dtype (it is cast step by step); by the names of the
                inputs where there are several. With ``steps``: ``[B, ...]``, shown in each.
            steps: number of steps of an input that is held.
            record: nodes whose outputs are returned step by step; None: the outputs.
            total: nodes whose outputs are returned as sums over time.
            state: to go on from; None: the start.

        Raises:
            UserError: ``x`` does not fit the graph, ``steps`` is below 1, a name is no node, or
                ``state`` is another graph's or batch's.
        """
        recorded = self.outputs if record is None else tuple(record)
        for name in (*recorded, *total):
            self[name]  # refuses what is no node
        if steps is not None and steps < 1:
            raise UserError(f"steps={steps}: at least 1 is needed")
        with precision(self.dtype):
            examined = samples(self._expected(), x, leading=2 if steps is None else 1)
            if state is None:
                state = start(self, next(iter(examined.values())).shape[1 if steps is None else 0])
            return _run(self, examined, state, steps=steps, record=recorded, total=tuple(total))


def precision(dtype: DType) -> AbstractContextManager[object]:
    """Lets JAX compute in ``dtype``; outside, its setting stays as it is."""
    return jax.enable_x64(True) if dtype == np.float64 else nullcontext()


def start(network: NirNetwork, batch: int) -> NirState:
    """See :meth:`NirNetwork.start`."""
    nodes = {
        node.name: node.operation.start(
            network.params[node.name], (batch, *node.input_shape), network.dtype
        )
        for node in network.nodes
    }
    behind = {name for node in network.nodes for name in node.back_sources}
    previous = {
        node.name: jnp.zeros((batch, *node.shape), network.dtype)
        for node in network.nodes
        if node.name in behind
    }
    return NirState(nodes, previous)


def step(
    network: NirNetwork, state: NirState, x: Mapping[str, Array]
) -> tuple[NirState, dict[str, Array]]:
    """One step: the next state, and what every node gave, ``[B, ...]``. Pure."""
    _check_state(network, state, len(next(iter(x.values()))))
    values: dict[str, Array] = {}
    after: dict[str, State] = {}
    early: list[Node] = []
    for node in network.nodes:
        params, before = network.params[node.name], state.nodes[node.name]
        if isinstance(node.operation, Delay) and node.is_early:
            values[node.name] = node.operation.read(params, before)
            early.append(node)
        elif node.name in network.inputs:
            values[node.name] = x[node.name].astype(network.dtype)
            after[node.name] = before
        else:
            drive = _drive(node, values, state)
            after[node.name], values[node.name] = node.operation.step(params, before, drive)
    for node in early:
        params, before = network.params[node.name], state.nodes[node.name]
        after[node.name], _ = node.operation.step(params, before, _drive(node, values, state))
    return NirState(after, {name: values[name] for name in state.previous}), values


def _check_state(network: NirNetwork, state: NirState, batch: int) -> None:
    """Refuse a state that :func:`start` could not have given for as many samples."""
    begun = jax.eval_shape(lambda: start(network, batch))
    if jax.tree.map(_kind, state) != jax.tree.map(_kind, begun):
        raise UserError(
            f"the state is not one of this graph with {batch} samples in {network.dtype}; begin "
            f"with start({batch})"
        )


def _kind(leaf: Array | jax.ShapeDtypeStruct) -> tuple[Shape, str]:
    return tuple(leaf.shape), leaf.dtype.name


def _drive(node: Node, values: Mapping[str, Array], state: NirState) -> Array:
    """What comes in, added up in the order of the edges."""
    terms = [values[name] for name in node.sources]
    terms += [state.previous[name] for name in node.back_sources]
    drive = terms[0]
    for term in terms[1:]:
        drive = drive + term
    return drive


def _all_steps(
    network: NirNetwork,
    x: Mapping[str, Array],
    state: NirState,
    *,
    steps: int | None,
    record: tuple[str, ...],
    total: tuple[str, ...],
) -> NirTrace:
    batch = jax.tree.leaves(x)[0].shape[1 if steps is None else 0]
    sums = {name: jnp.zeros((batch, *network[name].shape), network.dtype) for name in total}

    def advance(
        carry: tuple[NirState, dict[str, Array]], shown: Mapping[str, Array] | None
    ) -> tuple[tuple[NirState, dict[str, Array]], dict[str, Array]]:
        state, sums = carry
        state, values = step(network, state, x if shown is None else shown)
        sums = {name: value + values[name] for name, value in sums.items()}
        return (state, sums), {name: values[name] for name in record}

    xs = x if steps is None else None
    (state, sums), recorded = jax.lax.scan(advance, (state, sums), xs, length=steps)
    return NirTrace(recorded, sums, state)


_run = jax.jit(_all_steps, static_argnames=("steps", "record", "total"))
_step = jax.jit(step)
