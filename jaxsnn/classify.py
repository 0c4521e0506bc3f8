"""Networks as training tasks: cross entropy on the readout of one pass."""

import functools
from typing import Any, cast

import optax
from jax import Array

from jaxsnn import net as net_module
from jaxsnn.net import Net
from jaxsnn.preprocess import Preprocessing, unchanged
from jaxsnn.task import Task


def classification(net: Net, preprocessing: Preprocessing | None = None) -> Task:
    """Mean softmax cross entropy of the readout's logits; equal arguments give the same task.

    Args:
        net: the unfolded network (batch norm, float masters).
        preprocessing: what becomes of the uint8 images before the network sees them, augmentation
            included; by default grey values are divided by 256.
    """
    return _classification(cast("Any", net), preprocessing or unchanged())


@functools.cache
def _classification(net: Net, preprocessing: Preprocessing) -> Task:

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
        logits = out.readouts[-1][-1]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses, (logits, rest)

    return Task(functools.partial(net_module.init_variables, net), loss)
