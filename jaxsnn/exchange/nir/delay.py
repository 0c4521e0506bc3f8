"""``Delay``: ``y(t) = x(t - tau)``, zeros before that."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from jaxsnn.exchange.nir.operation import DType, Params, Shape, State


@dataclass(frozen=True)
class Delay:
    """A queue of the last inputs; every element may have a delay of its own.

    State: ``(queue [longest, B, ...],)``, the newest input first. Params: ``steps`` int32, whole
    steps of delay, the shape of an input or one value; 0 lets the input through.

    Attributes:
        shortest, longest: of the delays, in steps.
    """

    shortest: int
    longest: int

    def output_shape(self, shape: Shape, params: Params) -> Shape:
        """That of the input."""
        del params
        return shape

    def start(self, params: Params, shape: Shape, dtype: DType) -> State:
        """An empty queue."""
        del params
        return (jnp.zeros((self.longest, *shape), dtype),)

    def read(self, params: Params, state: State) -> Array:
        """What this step emits, if no delay is 0: it does not depend on this step's input."""
        return self._at(params, state[0], 1)

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """Put the input in; take out what is due."""
        queue = jnp.concatenate([x[None], state[0]])
        return (queue[:-1],), self._at(params, queue, 0)

    def _at(self, params: Params, queue: Array, newest: int) -> Array:
        """Each element's input of ``steps`` ago; ``newest`` is the age of the queue's first."""
        if self.shortest == self.longest:
            return queue[self.longest - newest]
        age = jnp.broadcast_to(params["steps"] - newest, queue.shape[1:])
        return jnp.take_along_axis(queue, age[None], axis=0)[0]
