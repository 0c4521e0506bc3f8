"""What a neuron is: two pure functions with their default leaves, and the register of factories."""

import functools
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, cast

import jax.numpy as jnp
from jax import Array

from jaxsnn.errors import UserError
from jaxsnn.options import Options, binder
from jaxsnn.types import PyTree

P = ParamSpec("P")

Leaves = dict[str, Array]
State = PyTree
Shape = tuple[int, ...]


def no_leaves(channels: int) -> Leaves:
    """Of a neuron without parameters of this kind."""
    del channels
    return {}


def no_state(leaves: Leaves, shape: Shape, keys: Array | None) -> State:
    """Of an activation: the empty tuple."""
    del leaves, shape, keys
    return ()


def one_clip(start: float, channels: int) -> Leaves:
    """The leaf ``clip``, a float32 scalar for all channels."""
    del channels
    return {"clip": jnp.float32(start)}


class Neuron(NamedTuple):
    """A pair of pure functions ``(init, step)`` with its default leaves.

    Attributes:
        init: ``(leaves, shape [B, ..., C], keys [B] or None) -> state``; ``keys`` are one PRNG key
            per image, needed by random neurons only. Every array of a state has the batch as its
            first axis, so that images can leave a running batch.
        step: ``(leaves, state, drive [B, ..., C]) -> (state, out [B, ..., C])``. A neuron with an
            empty state also takes a block ``[K, B, ..., C]``.
        learned: ``channels -> leaves`` that training may change (clip range, leak).
        fixed: ``channels -> leaves`` that it may not (threshold, initial potential).
        spikes: lowest and highest spike count of one step, None for an ANN's activation.
        settled: the stateless neuron that gives the final net count from the whole drive, if
            theory has one (settled mode; the integer ANN of the certificate). It reads the same
            leaves.
        rests: the net count comes to rest there, and only there, once its drive has ended.
        silence_is_final: after a step without drive and without a spike it stays silent until a
            drive comes.
        holds_back: in a step with a drive it may be silent, and spike later without one.
        pays_out: it fires once in every step in which the sum of its drives, less a threshold for
            each of its spikes so far, has reached the threshold, and keeps the rest.
        delay: steps by which its spikes come later.
        silent_without_drive: in a step without a drive it never spikes, whatever its state.
        drops_spikes: it deletes spikes at random (the leaf ``drop_ratio``).
        name: the factory's name, and
        options: its arguments; together they rebuild the neuron (saved networks).
    """

    init: Callable[[Leaves, Shape, Array | None], State]
    step: Callable[[Leaves, State, Array], tuple[State, Array]]
    learned: Callable[[int], Leaves] = no_leaves
    fixed: Callable[[int], Leaves] = no_leaves
    spikes: tuple[int, int] | None = None
    settled: "Neuron | None" = None
    rests: bool = False
    silence_is_final: bool = False
    holds_back: bool = False
    pays_out: bool = False
    delay: int = 0
    silent_without_drive: bool = False
    drops_spikes: bool = False
    name: str = ""
    options: Options = ()

    @property
    def stateless(self) -> bool:
        """Whether the state is empty, so that a block of time is one call."""
        return self.init is no_state


FACTORIES: dict[str, Callable[..., Neuron]] = {}


def neuron(factory: Callable[P, Neuron]) -> Callable[P, Neuron]:
    """Register a factory; equal options give the same object, so jit compiles once."""

    @functools.cache
    def build(options: Options) -> Neuron:
        return rebuilt(**dict(options))._replace(name=factory.__name__, options=options)

    bind, rebuilt = binder(factory), cast("Callable[..., Neuron]", factory)

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> Neuron:
        return build(bind(*args, **kwargs))

    FACTORIES[factory.__name__] = make
    return make


def count_dtype(highest: int) -> jnp.dtype:
    """int8 while counts fit it, int32 beyond: a count above 127 must not enter an int8 product."""
    return jnp.dtype(jnp.int8 if highest <= 127 else jnp.int32)


def refuse_truncation(threshold: Array, drive: Array) -> None:
    """Refuse integer thresholds for a drive of floats.

    Raises:
        UserError: naming both dtypes.
    """
    integer, floating = jnp.integer, jnp.floating
    if jnp.issubdtype(threshold.dtype, integer) and jnp.issubdtype(drive.dtype, floating):
        raise UserError(
            f"the threshold is {threshold.dtype} but the drive {drive.dtype}, which it would "
            "truncate; give integer kernels, or float thresholds"
        )
