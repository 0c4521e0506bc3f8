"""Nodes without memory: identity, ``Linear``, ``Affine``, ``Scale``, ``Flatten``."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from jaxsnn.errors import UserError
from jaxsnn.exchange.nir.operation import Params, Shape, State, Stateless


@dataclass(frozen=True)
class Identity(Stateless):
    """``y = x``: ``Input`` and ``Output``, whose shape the graph states."""

    shape: Shape

    def output_shape(self, shape: Shape, params: Params) -> Shape:
        """The stated shape."""
        del params
        if shape != self.shape:
            raise UserError(f"is declared with shape {self.shape}, but gets {shape}")
        return shape

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """What came in."""
        del params
        return state, x


@dataclass(frozen=True)
class Linear(Stateless):
    """``y = W x + b`` on the last axis: ``Linear`` (without ``b``) and ``Affine``.

    Params: ``weight [..., out, in]``, ``bias [..., out]``. Leading axes are matrices of their own.
    """

    def output_shape(self, shape: Shape, params: Params) -> Shape:
        """``[..., in] -> [..., out]``."""
        *several, outputs, inputs = params["weight"].shape
        if shape != (*several, inputs):
            raise UserError(f"has a weight for inputs of shape {(*several, inputs)}, gets {shape}")
        return (*several, outputs)

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """The product, in full precision."""
        product = jnp.einsum("b...i,...oi->b...o", x, params["weight"], precision="highest")
        return state, product + params["bias"] if "bias" in params else product


@dataclass(frozen=True)
class Scale(Stateless):
    """``y = scale * x``, element by element. Params: ``scale``, the shape of ``x`` or one value."""

    def output_shape(self, shape: Shape, params: Params) -> Shape:
        """That of the input."""
        del params
        return shape

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """The product."""
        return state, params["scale"] * x


@dataclass(frozen=True)
class Flatten(Stateless):
    """Axes ``first`` to ``last`` of a sample (the batch is not counted) become one."""

    first: int
    last: int

    def output_shape(self, shape: Shape, params: Params) -> Shape:
        """The shape with these axes as one."""
        del params
        first, last = (axis + len(shape) if axis < 0 else axis for axis in (self.first, self.last))
        if not 0 <= first <= last < len(shape):
            raise UserError(
                f"flattens axes {self.first} to {self.last}, which a sample of shape {shape} lacks"
            )
        return (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])

    def step(self, params: Params, state: State, x: Array) -> tuple[State, Array]:
        """The same numbers."""
        return state, x.reshape(x.shape[0], *self.output_shape(x.shape[1:], params))
