"""Weights scaled before training, so that every layer of a spiking network fires from the start.

A surrogate gradient is largest at the threshold. Where potentials stay far below it, as under
the sparse frames of an event camera, hardly any gradient passes, and a silent layer leaves nothing
to learn from to all that follow it. The remedy is to set the spread of the potentials against the
threshold: Rossbroich, Gygax and Zenke, "Fluctuation-driven initialization for spiking neural
network training", Neuromorphic Computing and Engineering 2, 2022; here layer by layer from a few
examples, as Mishkin and Matas, "All you need is a good init", ICLR 2016, do it for rectifiers.
"""

import jax.numpy as jnp
from jax import Array

from jaxsnn.arch.plan import plan
from jaxsnn.errors import UserError, finite_number
from jaxsnn.inputs.stimulus import Shown
from jaxsnn.network.net import Net
from jaxsnn.training.through_time import threshold, watch
from jaxsnn.types import Tree, Variables

SCALED = ("kernel", "bias")


def firing_start(net: Net, variables: Variables, shown: Shown, rate: float) -> Tree:
    """The tree with kernel and bias of each layer multiplied by one factor, first layer first.

    The factor puts the threshold at the ``1 - rate`` quantile of the layer's potentials over all
    neurons, examples and steps, padding left out. Potentials of neurons that have not spiked grow
    in proportion, so that the layer then spikes about ``rate`` times a neuron and step, less what
    resets and leaks behind them take away. A layer whose quantile is not above 0 stays as it is:
    no factor would make it fire that often.

    Args:
        net: a network of leaky neurons, from :func:`jaxsnn.training.through_time.spiking_net`,
            without batch norm, which would undo the factor in training.
        variables: its tree.
        shown: some training examples.
        rate: spikes per neuron and step, above 0, at most 0.5.

    Raises:
        UserError: a rate out of range, or a layer with batch norm.
    """
    finite_number("rate", rate, 0, 0.5, above=True)
    if normed := [site.name for site in plan(net.arch) if site.norm]:
        raise UserError(
            f"{', '.join(normed)}: batch norm undoes a factor of the weights; take the network "
            "with norm=False, or its weights as drawn"
        )
    params = {name: dict(tree) for name, tree in variables["params"].items()}
    for site in plan(net.arch):
        tree = {**variables, "params": params}
        level = threshold(tree, site.name)
        if level is None or net.neurons.at(site).spikes is None:
            continue
        potentials = watch(net, tree, shown.x, shown.steps, (site.name,))[0][site.name]
        reached = _quantile(potentials, shown.mask, 1 - rate)
        factor = jnp.where(reached > 0, jnp.max(level) / reached, 1)
        scaled = {
            name: factor * params[site.name][name] for name in SCALED if name in params[site.name]
        }
        params[site.name] |= scaled
    return {**variables, "params": params}


def _quantile(values: Array, mask: Array | None, share: float) -> Array:
    """Value of ``[T, B, ...]`` below which a share lies, of the steps that the mask holds."""
    if mask is None:
        return jnp.quantile(values, share)
    held = mask.reshape(*mask.shape, *(1,) * (values.ndim - 2)) > 0
    ordered = jnp.sort(jnp.where(held, values, jnp.inf).ravel())
    count = jnp.sum(mask) * (values.size // mask.size)
    return ordered[jnp.minimum(share * count, ordered.size - 1).astype(jnp.int32)]
