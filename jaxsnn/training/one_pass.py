"""Networks as training tasks: cross entropy on the readouts of one pass."""

import functools
import math

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxsnn.arch.plan import Site, plan
from jaxsnn.inputs.preprocess import Moment, Preprocessing, unchanged
from jaxsnn.network import net as net_module
from jaxsnn.network.arithmetic import Arithmetic
from jaxsnn.network.net import Net
from jaxsnn.training.early_loss_weight import Ramp
from jaxsnn.training.task import Task
from jaxsnn.types import PyTree


def classification(
    net: Net,
    preprocessing: Preprocessing | None = None,
    early: Ramp | None = None,
    *,
    label_smoothing: float = 0.0,
    spike_penalty: float = 0.0,
) -> Task:
    """Mean softmax cross entropy of the readout's logits; equal arguments give the same task.

    Args:
        net: the unfolded network (batch norm, float masters).
        preprocessing: what becomes of the uint8 images before the network sees them, augmentation
            included; by default grey values are divided by 256.
        early: weight of the side exits' cross entropies in training; None: they are not trained.
            What is evaluated is the readout.
        label_smoothing: share of the target that is spread over all classes, in training.
        spike_penalty: weight of the mean activation of all hidden neurons in the loss of training.
    """
    shown = preprocessing or unchanged()
    return _classification(net, shown, early, label_smoothing, spike_penalty)


@functools.cache
def _classification(
    net: Net,
    preprocessing: Preprocessing,
    early: Ramp | None,
    label_smoothing: float,
    spike_penalty: float,
) -> Task:
    evaluated = net.clone(arithmetic=Arithmetic.PLAIN)  # fast arithmetic is for training alone
    hidden = [site for site in plan(net.arch) if site.role == "activation"]
    neurons = sum(site.neurons for site in hidden)

    def loss(
        params: PyTree,
        rest: PyTree,
        images: Array,
        labels: Array,
        key: Array,
        train: bool,
        /,
        *,
        axis_name: str | None,
        steps: int | None = None,
        moment: Moment | None = None,
    ) -> tuple[Array, tuple[Array, PyTree]]:
        del steps  # one pass
        body = (net if train else evaluated).clone(axis_name=axis_name)
        units = preprocessing.train(images, key, moment) if train else preprocessing.test(images)
        x = preprocessing.encoding.decode(units)[None]
        state = net_module.initial_state(body, {"params": params, **rest}, images.shape[0])
        variables = {"params": params, **rest}
        if train:
            out, updated = net_module.apply_training(body, variables, x, state)
            rest = {**rest, **updated}
        else:
            out = net_module.apply(body, variables, x, state)
        *exits, losses = (
            _cross_entropy(readout[-1], labels, label_smoothing if train else 0.0)
            for readout in out.readouts
        )
        if early is not None and moment is not None:
            losses = losses + early(moment.update) * sum(exits)
        if train and spike_penalty:
            active = sum(_total(out.outs[site.name][-1]) for site in hidden)
            losses = losses + spike_penalty / neurons * active
        return losses, (out.readouts[-1][-1], rest)

    init = functools.partial(net_module.init_variables, net)
    paced = early is not None or preprocessing.paced
    alone = next((site.name for site in plan(net.arch) if is_single_norm(site)), None)
    return Task(
        init,
        loss,
        paced=paced,
        classes=net.arch.classes,
        single_norm=alone,
        arithmetic=net.arithmetic,
    )


def is_single_norm(site: Site) -> bool:
    """Whether batch norm at this site sees a single value of each example and step."""
    return site.norm and math.prod(site.drive_shape[:-1]) == 1


def _cross_entropy(logits: Array, labels: Array, smoothing: float) -> Array:
    """Softmax cross entropy ``[B]``; the mean over all classes counts for ``smoothing``."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not smoothing:
        return losses
    spread = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
    return (1 - smoothing) * losses + smoothing * spread


def _total(activations: Array) -> Array:
    """Sum over each image's neurons, float32 ``[B]``."""
    return jnp.sum(activations.reshape(len(activations), -1), axis=-1, dtype=jnp.float32)
