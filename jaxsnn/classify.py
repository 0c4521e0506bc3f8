"""Networks as training tasks: cross entropy on the readouts of one pass."""

import functools
from typing import Any, cast

import optax
from jax import Array

from jaxsnn import net as net_module
from jaxsnn.exits import Ramp
from jaxsnn.net import Net
from jaxsnn.preprocess import Preprocessing, unchanged
from jaxsnn.task import Task


def classification(
    net: Net, preprocessing: Preprocessing | None = None, early: Ramp | None = None
) -> Task:
    """Mean softmax cross entropy of the readout's logits; equal arguments give the same task.

    Args:
        net: the unfolded network (batch norm, float masters).
        preprocessing: what becomes of the uint8 images before the network sees them, augmentation
            included; by default grey values are divided by 256.
        early: weight of the side exits' cross entropies in training; None: they are not trained.
            What is evaluated is the readout.
    """
    return _classification(cast("Any", net), preprocessing or unchanged(), early)


@functools.cache
def _classification(net: Net, preprocessing: Preprocessing, early: Ramp | None) -> Task:

    def loss(
        params: Any,
        rest: Any,
        images: Array,
        labels: Array,
        key: Array,
        train: bool,
        /,
        *,
        axis_name: str | None,
        steps: int | None = None,
        update: Array | None = None,
    ) -> tuple[Array, tuple[Array, Any]]:
        del steps  # one pass
        body = net.clone(axis_name=axis_name)
        units = preprocessing.train(images, key) if train else preprocessing.test(images)
        x = preprocessing.encoding.decode(units)[None]
        state = net_module.initial_state(body, {"params": params, **rest}, images.shape[0])
        variables = {"params": params, **rest}
        if train:
            out, updated = net_module.apply_training(body, variables, x, state)
            rest = {**rest, **updated}
        else:
            out = net_module.apply(body, variables, x, state)
        *exits, final = (
            optax.softmax_cross_entropy_with_integer_labels(readout[-1], labels)
            for readout in out.readouts
        )
        losses = final
        if early is not None and update is not None:
            losses = final + early(update) * sum(exits)
        return losses, (out.readouts[-1][-1], rest)

    init = functools.partial(net_module.init_variables, net)
    return Task(init, loss, paced=early is not None)
