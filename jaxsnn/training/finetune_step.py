"""One update of a spiking layer by the gradient of its quantised counterpart (Fast-SNN, section 6).

The value of the loss is that of the spiking layer: the mean squared difference between the rate
with which it answers to the spikes it gets and the activation of the quantised ANN. Its gradient is
that of the quantised layer which is given the same input rates.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxsnn.arch.plan import plan
from jaxsnn.errors import UserError
from jaxsnn.network import net as net_module
from jaxsnn.network.net import Net
from jaxsnn.network.per_site import hidden
from jaxsnn.neurons.integrate_and_fire import NEGATIVE_THRESHOLD, clipped_spikes
from jaxsnn.neurons.levels import levels, straight_through
from jaxsnn.training.schedules import sgd_step
from jaxsnn.types import PyTree, Tree, Variables

FROZEN = ("clip",)  # the threshold; running statistics are no params
AT_ONCE = 200  # images times time steps of one pass of the spiking network


class Observed(NamedTuple):
    """What one update of a layer is made from, in the ANN's units.

    Attributes:
        inputs: site -> input rates of the layer (and of its projection) ``[B, ...]``.
        rate: of the spiking layer, ``[B, ...]``.
        target: activation of the quantised ANN as trained, ``[B, ...]``.
    """

    inputs: dict[str, Array]
    rate: Array
    target: Array


def tuned_sites(ann: Net) -> list[str]:
    """The layers that are tuned, in order: all with neurons but the first, which is exact."""
    return [site.name for site in plan(ann.arch) if site.role == "activation"][1:]


def unit_of(ann: Net, name: str) -> tuple[str, ...]:
    """The sites that are tuned together: a layer, and the projection that joins it.

    Raises:
        UserError: no such layer, naming those there are.
    """
    if name not in tuned_sites(ann):
        raise UserError(f"{name!r} is not tuned; known: {', '.join(tuned_sites(ann))}")
    sites = {site.name: site for site in plan(ann.arch)}
    added = sites.get(sites[name].shortcut)
    return (name, added.name) if added is not None and added.role == "shortcut" else (name,)


def spiking_of(
    ann: Net, signed: bool = True, negative_threshold: float = NEGATIVE_THRESHOLD
) -> Net:
    """The spiking network over the same tree, in floats (:func:`jaxsnn.neurons.clipped_spikes`).

    Raises:
        UserError: a max pool, which would pool the currents of every step; convert() puts it behind
            the neurons, where the largest count decides.
    """
    for site in plan(ann.arch):
        if site.max_pool or site.kind == "maxpool":
            raise UserError(
                f"{site.name}: layers with max pools are not fine-tuned one by one; train the "
                "quantised network on, or use strides or average pools"
            )
    return ann.clone(neurons=hidden(clipped_spikes(signed, negative_threshold)))


def params_of(variables: Variables, unit: tuple[str, ...]) -> Tree:
    """What is tuned: ``{site: leaves}``."""
    params = {
        site: {name: leaf for name, leaf in variables["params"][site].items() if name not in FROZEN}
        for site in unit
    }
    return jax.tree.map(jnp.asarray, params)


def merged(variables: Variables, params: Variables) -> Tree:
    """Variables with the tuned params in their places."""
    tuned = {site: {**variables["params"][site], **tree} for site, tree in params.items()}
    return {**variables, "params": {**variables["params"], **tuned}}


def observe(
    ann: Net,
    name: str,
    bits: int,
    variables: Variables,
    reference: Variables,
    x: Array,
    negative_threshold: float = NEGATIVE_THRESHOLD,
) -> Observed:
    """Run the spiking network up to a layer, all steps at once, and the quantised ANN.

    Args:
        ann: the quantised ANN's network.
        name: the layer.
        bits: its width; ``2**bits - 1`` steps.
        variables: of the spiking network.
        reference: variables of the quantised ANN as trained.
        x: images in the ANN's units, float32 ``[B, H, W, C]``.
        negative_threshold: of the spiking neurons.
    """
    spiking = spiking_of(ann, True, negative_threshold)
    state = net_module.initial_state(spiking, variables, len(x))
    trains = net_module.apply(spiking, variables, x[None], state, steps=levels(bits)).outs
    # Nothing behind the layer is used, so nothing behind it is computed.
    inputs = {site: jnp.mean(trains[site], axis=0) for site in _inputs(ann, name)}
    target = net_module.forward(ann, reference, x).outs[name][0]
    return Observed(inputs, jnp.mean(trains[name], axis=0), target)


def proxy_loss(
    ann: Net, name: str, params: PyTree, rest: Variables, observed: Observed, x: Array
) -> Array:
    """Mean squared difference of rate and target; the gradient of the quantised layer.

    Args:
        ann: the quantised ANN's network.
        name: the layer.
        params: what is tuned, ``{site: leaves}``.
        rest: variables, from which everything else is taken.
        observed: with these params, as constants.
        x: the images; of no use where the input rates are given.
    """
    inputs = {site: rate[None] for site, rate in observed.inputs.items()}
    proxy = net_module.forward(ann, merged(rest, params), x, forced=inputs).outs[name][0]
    return jnp.mean((straight_through(observed.rate, proxy) - observed.target) ** 2)


def loss_of(
    ann: Net, name: str, bits: int, params: PyTree, rest: Variables, reference: Variables, x: Array
) -> Array:
    """Both in one: observe, then the loss (arguments as there)."""
    frozen = jax.lax.stop_gradient(merged(rest, params))
    return proxy_loss(ann, name, params, rest, observe(ann, name, bits, frozen, reference, x), x)


@functools.lru_cache(maxsize=32)
def programs(
    ann: Net,
    name: str,
    bits: int,
    rates: tuple[float, float, bool],
    negative_threshold: float = NEGATIVE_THRESHOLD,
) -> tuple[
    Callable[..., Observed],
    Callable[..., tuple[PyTree, PyTree, Array]],
    optax.GradientTransformation,
]:
    """Compiled :func:`observe` and update of a layer, and the optimiser.

    Args:
        ann: the quantised ANN's network.
        name: the layer.
        bits: its width.
        rates: learning rate, weight decay, and whether it acts on learned clips.
        negative_threshold: of the spiking neurons.
    """
    optimiser = sgd_step(*rates)
    loss = functools.partial(proxy_loss, ann, name)

    @jax.jit
    def update(
        params: PyTree, state: PyTree, rest: Variables, observed: Observed, x: Array
    ) -> tuple[PyTree, PyTree, Array]:
        value, slopes = jax.value_and_grad(loss)(params, rest, observed, x)
        moved, state = optimiser.update(slopes, state, params)
        return optax.apply_updates(params, moved), state, value

    seen = functools.partial(observe, ann, name, bits, negative_threshold=negative_threshold)
    return jax.jit(seen), update, optimiser


def at_once(batch: int, steps: int) -> int:
    """Images of one pass: a divisor of the batch, so that memory does not grow with the steps.

    >>> [at_once(128, steps) for steps in (3, 7, 15)]
    [64, 16, 8]
    """
    if jax.default_backend() != "cpu":
        return batch
    most = max(AT_ONCE // steps, 1)
    return max(size for size in range(1, min(most, batch) + 1) if batch % size == 0)


def _inputs(ann: Net, name: str) -> list[str]:
    """Sites whose rates a layer and its projection, or its identity shortcut, are given."""
    sites = {site.name: site for site in plan(ann.arch)}
    unit = unit_of(ann, name)
    sources = {sites[one].source for one in unit} | {sites[name].shortcut}
    return sorted(source for source in sources if source and source not in unit)
