"""Max pools behind neurons: of one step, and of everything that has come so far."""

import functools
from typing import cast

import jax.numpy as jnp
from jax import Array

from jaxsnn.errors import UserError
from jaxsnn.neurons.max_pool import max_pool
from jaxsnn.neurons.neuron import Leaves, Neuron, Shape, State, neuron, no_leaves, no_state


@neuron
def maximum(size: int, stride: int, padding: int = 0, minima: bool = False) -> Neuron:
    """The largest of every window in this step: the pool of an ANN, or of spikes of one step.

    Args:
        size: of the windows.
        stride: from window to window.
        padding: rows and columns around the map, which are never the largest.
        minima: the leaf ``sign`` (fixed, int32 ``[C]``) is -1 where the smallest is wanted.

    >>> leaves = {"sign": jnp.array([1, -1])}
    >>> x = jnp.array([[3, 3], [1, 1]], jnp.int8).reshape(1, 2, 1, 2)
    >>> maximum(2, 2, 1, minima=True).step(leaves, (), x)[1].tolist()
    [[[[3, 3]], [[1, 1]]]]
    >>> x = jnp.array([[3, 3], [1, 1]], jnp.int8).reshape(1, 1, 2, 2)
    >>> maximum(2, 1, 1, minima=True).step(leaves, (), x)[1][0, 0].tolist()
    [[3, 3], [3, 1], [1, 1]]
    """

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        return state, _extreme(leaves, drive, size, stride, padding)

    return Neuron(no_state, step, fixed=_signs if minima else no_leaves)


@neuron
def running_maximum(
    size: int,
    stride: int,
    padding: int = 0,
    lowest: int = -1,
    highest: int = 1,
    minima: bool = False,
) -> Neuron:
    """Keeps the count of each of its inputs and emits the change of their largest.

    With ``n_i(t)`` the sum of what input i has given until step t, a window emits::

        out(t) = max_i n_i(t) - max_i n_i(t - 1)

    What it has emitted is therefore, at any time, the largest count of its window, and its rate the
    largest rate, whatever the order of the spikes. The largest rises by no more than the input that
    is the largest now has risen, and falls by no more than the one that was it has fallen: a step's
    output lies in the range of the inputs' (a spike +1, -1 or 0 where those are), and a step
    without a spike has none.

    State: counts ``[B, H, W, C]`` and their largest ``[B, H', W', C]``, int32.

    Args:
        size: of the windows.
        stride: from window to window.
        padding: rows and columns around the map, which are never the largest.
        lowest: spike count of an input in one step.
        highest: the same.
        minima: the leaf ``sign`` (fixed, int32 ``[C]``) is -1 where the smallest is wanted.

    Raises:
        UserError: a range of spikes without 0, or inputs that are no whole numbers.

    >>> pool = running_maximum(2, 2)
    >>> state, found = pool.init({}, (1, 2, 2, 1), None), []
    >>> for spikes in ([1, 1, 0, 0], [0, 1, 0, 0], [0, -1, 0, 0], [1, -1, 0, 0], [-1, 0, 0, 0]):
    ...     x = jnp.array(spikes, jnp.int8).reshape(1, 2, 2, 1)
    ...     state, out = pool.step({}, state, x)
    ...     found.append(int(out[0, 0, 0, 0]))
    >>> found
    [1, 1, -1, 1, -1]
    """
    if not lowest <= 0 <= highest:
        raise UserError(f"lowest={lowest}, highest={highest}: a step without a spike lies between")
    extreme = functools.partial(_extreme, size=size, stride=stride, padding=padding)

    def init(leaves: Leaves, shape: Shape, keys: Array | None) -> State:
        del keys
        counts = jnp.zeros(shape, jnp.int32)
        return counts, extreme(leaves, counts)

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        if not jnp.issubdtype(drive.dtype, jnp.integer):
            raise UserError(f"running_maximum counts spikes, but its inputs are {drive.dtype}")
        counts = state[0] + drive.astype(jnp.int32)
        largest = extreme(leaves, counts)
        return (counts, largest), (largest - state[1]).astype(drive.dtype)

    return Neuron(
        init,
        step,
        fixed=_signs if minima else no_leaves,
        spikes=(lowest, highest),
        settled=maximum(size, stride, padding, minima),
        rests=True,
        silence_is_final=True,
        silent_without_drive=True,
    )


def _extreme(leaves: Leaves, x: Array, size: int, stride: int, padding: int) -> Array:
    """The largest of every window of ``[..., H, W, C]``; where ``sign`` is -1 the smallest."""
    signs = leaves.get("sign")
    merged = x.reshape(-1, *x.shape[-3:])
    turned = merged if signs is None else merged * signs.astype(x.dtype)
    largest = cast("Array", max_pool(turned, size, stride, padding))
    largest = largest if signs is None else largest * signs.astype(x.dtype)
    return largest.reshape(*x.shape[:-3], *largest.shape[1:])


def _signs(channels: int) -> Leaves:
    return {"sign": jnp.ones(channels, jnp.int32)}
