"""Spiking networks as training tasks: backpropagation through time with surrogate gradients.

All steps of a micro-batch are computed at once, layer by layer. With ``time_block`` they are
computed block by block and only the states between blocks are kept; the rest is computed again on
the way back, so that memory grows with the number of blocks and not with that of steps.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from jaxsnn import neurons
from jaxsnn.arch import notation as arch_module
from jaxsnn.arch.plan import plan
from jaxsnn.errors import UserError
from jaxsnn.inputs.preprocess import Moment
from jaxsnn.inputs.stimulus import Shown, Stimulus
from jaxsnn.network import net as net_module
from jaxsnn.network.arithmetic import Arithmetic
from jaxsnn.network.initialisers import FanInUniform
from jaxsnn.network.jitted import jitted
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import SiteMap
from jaxsnn.neurons.leaky import LEAST_THRESHOLD
from jaxsnn.neurons.neuron import Neuron
from jaxsnn.training.losses_over_time import LOSSES
from jaxsnn.training.one_pass import is_single_norm
from jaxsnn.training.task import Task
from jaxsnn.types import PyTree, Variables


def spiking_net(arch: arch_module.Arch, cell: Neuron, readout: Neuron | None = None) -> Net:
    """A network whose hidden sites and readout are spiking neurons, to be trained directly.

    Args:
        arch: the architecture; max pools act on currents, before the neurons (``BP``: on the spikes
            of a step).
        cell: the neuron of every hidden site.
        readout: that of the readout; None: the same if ``arch.head_neuron``, else none.
    """
    head = readout or (cell if arch.head_neuron else neurons.identity())
    silent = tuple((role, neurons.identity()) for role in ("pool", "shortcut", "exit"))
    mapped = SiteMap(cell, (*silent, ("readout", head)))
    return Net(arch, mapped, arithmetic=Arithmetic.IN_LOOP, initialiser=FanInUniform())


def through_time(
    net: Net, stimulus: Stimulus, loss: str = "ce_rate", time_block: int | None = None
) -> Task:
    """The training task of a spiking network; equal arguments give the same task.

    The loss is that of the last readout over time; its prediction is the class that spiked most
    often, the lowest at a tie. With ``loss="ce_membrane"`` the readout emits its membrane potential
    (``leaky(emit="potential")``), and spikes are counted where that exceeds the threshold; a
    readout without neurons, whose currents are its output, predicts by their sum.

    Args:
        net: from :func:`spiking_net`.
        stimulus: how examples are shown.
        loss: name in ``jaxsnn.training.LOSSES``.
        time_block: steps of a block that is computed again on the way back; None: keep everything.

    Raises:
        UserError: an unknown loss, one that does not fit what the readout emits, a block below 1,
            or batch norm with ``time_block`` (its statistics are over all steps).
    """
    _check(net, loss, time_block)
    return _through_time(net, stimulus, loss, time_block)


def _check(net: Net, loss: str, time_block: int | None) -> None:
    if loss not in LOSSES:
        raise UserError(f"loss {loss!r} is unknown; choose one of {', '.join(LOSSES)}")
    emitted = "spike" if net.neurons.at(plan(net.arch)[-1]).spikes else "potential"
    wanted = "potential" if loss == "ce_membrane" else "spike"
    if emitted != wanted:
        raise UserError(
            f"loss {loss!r} is of a readout that emits its {wanted}, this one emits its {emitted}; "
            f"give spiking_net() the readout leaky(emit={wanted!r})"
        )
    if time_block is not None and time_block < 1:
        raise UserError(f"time_block={time_block}: give a whole number of at least 1, or None")
    if time_block is not None and any(site.norm for site in plan(net.arch)):
        raise UserError("time_block does not go with batch norm, whose statistics are of all steps")


@functools.cache
def _through_time(net: Net, stimulus: Stimulus, loss: str, time_block: int | None) -> Task:
    head = plan(net.arch)[-1].name

    def of_batch(
        params: PyTree,
        rest: PyTree,
        images: PyTree,
        labels: Array,
        key: Array,
        train: bool,
        /,
        *,
        axis_name: str | None,
        steps: int | None = None,
        moment: Moment | None = None,
    ) -> tuple[Array, tuple[Array, PyTree]]:
        del moment  # the loss stays what it is
        body, variables = net.clone(axis_name=axis_name), {"params": params, **rest}
        shown = stimulus.show(images, key if train else None, steps)
        readout, rest = _readout(body, variables, rest, shown, train, time_block)
        losses = LOSSES[loss](readout, labels, None if shown.padded_loss else shown.mask)
        if loss == "ce_membrane":
            level = threshold(variables, head)
            readout = readout if level is None else readout > level
        return losses, (_counted(readout, shown.mask), rest)

    init = functools.partial(net_module.init_variables, net)
    # Statistics are over all steps; the drive of a held image alone is computed for one.
    first = plan(net.arch)[0]
    alone = first.name if stimulus.lengths is None and is_single_norm(first) else None
    return Task(
        init,
        of_batch,
        stimulus.lengths,
        classes=net.arch.classes,
        single_norm=alone,
        arithmetic=net.arithmetic,
    )


def _readout(
    net: Net, variables: Variables, rest: PyTree, shown: Shown, train: bool, block: int | None
) -> tuple[Array, PyTree]:
    """The last readout ``[T, B, classes]``, and the collections after the batch."""
    state = net_module.initial_state(net, variables, shown.x.shape[1])
    if block is not None:
        return _in_blocks(net, variables, shown, state, block), rest
    steps = shown.steps if shown.x.shape[0] == 1 else 1
    if not train:
        return net_module.apply(net, variables, shown.x, state, steps=steps).readouts[-1], rest
    out, updated = net_module.apply_training(net, variables, shown.x, state, steps=steps)
    return out.readouts[-1], {**rest, **updated}


def _in_blocks(net: Net, variables: Variables, shown: Shown, state: PyTree, block: int) -> Array:
    """The readout, with the steps of a block computed again on the way back."""
    blocks, steps = -(-shown.steps // block), block
    x, stem = shown.x, None
    if x.shape[0] == 1:
        stem = net_module.stem(net, variables, x[0])[None]
        parts = None
    else:
        missing = blocks * block - x.shape[0]
        padded = jnp.pad(x, ((0, missing), *((0, 0),) * (x.ndim - 1)))
        parts, steps = padded.reshape(blocks, block, *x.shape[1:]), 1

    @jax.checkpoint
    def following(state: PyTree, part: Array | None) -> tuple[PyTree, Array]:
        block_input = x if part is None else part
        out = net_module.apply(net, variables, block_input, state, steps=steps, stem=stem)
        return out.state, out.readouts[-1]

    _, readouts = jax.lax.scan(following, state, parts, length=blocks)
    return readouts.reshape(-1, *readouts.shape[2:])[: shown.steps]


@jitted("net", "steps", "sites")
def watch(
    net: Net, variables: Variables, x: Array, steps: int, sites: tuple[str, ...]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Membrane potentials and outputs of some sites after every step.

    Args:
        net: a network whose neurons at ``sites`` have the potential as first part of their state.
        variables: its tree.
        x: ``[T, B, H, W, C]``, or ``[1, B, H, W, C]`` held for ``steps``.
        steps: T.
        sites: names.

    Returns:
        Potentials and outputs, each site -> ``[T, B, ...]``. A neuron with a delayed reset shows
        the potential that it compared with its threshold.
    """
    if x.shape[0] not in (1, steps):
        raise UserError(f"x has {x.shape[0]} steps; give one image, or as many frames as {steps}")

    def following(state: PyTree, number: Array) -> tuple[PyTree, PyTree]:
        shown = x if x.shape[0] == 1 else jax.lax.dynamic_slice_in_dim(x, number, 1)
        out = net_module.apply(net, variables, shown, state)
        potentials = {name: out.state[name][0] for name in sites}
        return out.state, (potentials, {name: out.outs[name][0] for name in sites})

    state = net_module.initial_state(net, variables, x.shape[1])
    return jax.lax.scan(following, state, jnp.arange(steps))[1]


def threshold(variables: Variables, site: str) -> Array | None:
    """Threshold ``[C]`` that a site's leaky neurons use, learned or fixed; None without neurons."""
    trees = (variables.get(name, {}).get(site, {}) for name in ("params", "fixed"))
    thresholds = [tree["threshold"] for tree in trees if "threshold" in tree]
    return jnp.maximum(thresholds[0], LEAST_THRESHOLD) if thresholds else None


def _counted(spikes: Array, mask: Array | None) -> Array:
    """Spike counts ``[B, classes]`` of ``[T, B, classes]``, padding left out."""
    spikes = spikes.astype(jnp.float32)
    return jnp.sum(spikes if mask is None else spikes * mask[..., None], axis=0)
