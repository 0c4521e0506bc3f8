"""What every node of a NIR graph is to the executor: pure functions over its parameters."""

from typing import Protocol, TypeAlias

import numpy as np
from jax import Array

Params: TypeAlias = dict[str, Array]
Shape: TypeAlias = tuple[int, ...]
State: TypeAlias = tuple[Array, ...]
DType: TypeAlias = np.dtype


class Operation(Protocol):
    """One node: options that change the program are attributes, numbers are in ``params``.

    Operations are frozen dataclasses: equal ones are the same program, which jit compiles once.
    """

    def output_shape(self, shape: Shape, params: Params) -> Shape:
        """The shape of one sample's output, without batch.

        Raises:
            UserError: a sample of ``shape`` is no input of this node; the message names both.
        """
        ...

    def start(self, params: Params, shape: Shape, dtype: DType) -> State:
        """The state before the first step; ``shape`` is that of an input, ``[B, ...]``."""
        ...

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """One step of time: ``(state, input [B, ...]) -> (state, output [B, ...])``."""
        ...


class Stateless:
    """Of an operation without memory: the empty state."""

    def start(self, params: Params, shape: Shape, dtype: DType) -> State:
        """Nothing."""
        del params, shape, dtype
        return ()
