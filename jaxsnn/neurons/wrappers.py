"""Neurons around a neuron: a pipeline delay, and spikes lost at random."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxsnn.errors import UserError
from jaxsnn.neurons.neuron import Leaves, Neuron, Shape, State, neuron


@neuron
def delayed(inner: Neuron, steps: int = 1) -> Neuron:
    """Pipeline delay: emit what ``inner`` emitted ``steps`` steps ago, zeros before that.

    State: the inner state and a queue of ``steps`` outputs ``[B, ..., C]``, oldest first.
    """
    if steps < 1:
        raise UserError(f"delayed: steps is {steps}; a delay takes at least 1 step (or no wrapper)")

    def init(leaves: Leaves, shape: Shape, keys: Array | None) -> State:
        state = inner.init(leaves, shape, keys)
        drive = jnp.zeros(shape, _drive_dtype(leaves))
        out = jax.eval_shape(inner.step, leaves, state, drive)[1]
        return state, (jnp.zeros(shape, out.dtype),) * steps

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        inner_state, queue = state
        inner_state, out = inner.step(leaves, inner_state, drive)
        return (inner_state, (*queue[1:], out)), queue[0]

    late = inner.delay + steps
    return inner._replace(init=init, step=step, settled=None, silence_is_final=False, delay=late)


def _drive_dtype(leaves: Leaves) -> jnp.dtype:
    """Integer where any leaf is: then thresholds are, and so are the drives they meet."""
    whole = [leaf for leaf in leaves.values() if jnp.issubdtype(leaf.dtype, jnp.integer)]
    return jnp.dtype(jnp.int32 if whole else jnp.float32)


@neuron
def unit_dropout(inner: Neuron) -> Neuron:
    """Delete every unit's spike independently with probability ``drop_ratio`` (a fixed leaf).

    A count of ``n`` stands for ``n`` units that spiked; each is kept if its uniform number is at
    least ``drop_ratio``, so 0 keeps all and 1 deletes all, exactly. Every image draws from a key of
    its own, so the result does not depend on batch size or device count.

    State: the inner state, the keys ``[B]`` and the step number ``[B]``, int32.
    """
    if inner.spikes is None:
        raise UserError(f"unit_dropout: {inner.name!r} emits no spikes; wrap a spiking neuron")
    units = max(abs(bound) for bound in inner.spikes)

    def init(leaves: Leaves, shape: Shape, keys: Array | None) -> State:
        if keys is None:
            raise UserError("unit_dropout draws random numbers; pass key= to the simulation")
        return inner.init(leaves, shape, keys), keys, jnp.zeros(shape[0], jnp.int32)

    def step(leaves: Leaves, state: State, drive: Array) -> tuple[State, Array]:
        inner_state, keys, time = state
        inner_state, out = inner.step(leaves, inner_state, drive)

        def draw(key: Array, time: Array) -> Array:
            uniform = jax.random.uniform(jax.random.fold_in(key, time), (units, *out.shape[1:]))
            return uniform >= leaves["drop_ratio"]

        kept = jax.vmap(draw, out_axes=1)(keys, time)
        fired = jnp.arange(units).reshape((-1,) + (1,) * out.ndim) < jnp.abs(out)
        number = jnp.sum(kept & fired, axis=0, dtype=out.dtype)
        return (inner_state, keys, time + 1), number * jnp.sign(out)

    def fixed(channels: int) -> Leaves:
        return inner.fixed(channels) | {"drop_ratio": jnp.zeros(())}

    # Spikes that are lost do not come back, so that what arrives is no level.
    return inner._replace(
        init=init,
        step=step,
        fixed=fixed,
        settled=None,
        rests=False,
        pays_out=False,
        silence_is_final=False,
        drops_spikes=True,
    )
