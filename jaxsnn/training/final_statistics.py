"""Statistics of batch norm computed anew when training has ended."""

import functools
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.arch.plan import plan
from jaxsnn.errors import UserError
from jaxsnn.inputs.preprocess import Moment, Preprocessing
from jaxsnn.network import net as net_module
from jaxsnn.network.arithmetic import Arithmetic
from jaxsnn.network.net import Net
from jaxsnn.training.one_pass import is_single_norm
from jaxsnn.types import PyTree, Tree, Variables

BATCH = 500


def final_statistics(
    net: Net, variables: Variables, preprocessing: Preprocessing, images: np.ndarray, seed: int = 0
) -> Tree:
    """The variables with the statistics of ``images``, in plain float32.

    Running statistics are those of weights that have moved on, in the arithmetic of training. Each
    layer's mean and variance here are over all images, of inputs that are normalised batch by batch
    (of 500; images that do not fill the last one are left out). Images of all classes have to be in
    every batch. Source: what cifar10-fast (Page) does at the end of training.

    Images are augmented as in training, since the weights have learned to live with statistics of
    such images: those of images as in the test took 2.9 points from a ResNet-20 whose windows reach
    over the edge.

    Args:
        net: the network, as trained; one without batch norm has no statistics.
        variables: its tree.
        preprocessing: augments the images as in training, in its first epoch.
        images: uint8 ``[N, H, W, C]``.
        seed: of the augmentation.
    """
    if "batch_stats" not in variables:
        return dict(variables)
    plain = net.clone(arithmetic=Arithmetic.PLAIN, norm_momentum=0.0, axis_name=None)

    @jax.jit
    def of_batch(variables: Variables, images: np.ndarray, number: Array) -> PyTree:
        key = jax.random.fold_in(jax.random.key(seed), number)
        rows = jnp.arange(len(images)) + number * len(images)
        seen = preprocessing.train(jnp.asarray(images), key, Moment(number, jnp.int32(0), rows))
        x = preprocessing.encoding.decode(seen)[None]
        state = net_module.initial_state(plain, variables, x.shape[1])
        return net_module.apply_training(plain, variables, x, state)[1]["batch_stats"]

    statistics = [
        jax.device_get(of_batch(variables, part, jnp.int32(number)))
        for number, part in enumerate(_batches(images))
    ]
    return {**variables, "batch_stats": jax.tree.map(_pooled, *statistics, is_leaf=_is_norm)}


def finishing(
    net: Net, preprocessing: Preprocessing, images: np.ndarray, count: int, seed: int
) -> Callable[[Variables], Tree] | None:
    """What ends a training: final statistics of ``count`` images drawn at random; None of none.

    At random, because those of a data set may be in the order of their classes.

    Args:
        net: the network, as trained.
        preprocessing: that of the training.
        images: all training images, uint8 ``[N, H, W, C]``.
        count: how many of them, or more than there are: all.
        seed: of the draw.

    Raises:
        UserError: a single image, and a batch norm that sees one value of each.
    """
    rows = np.random.default_rng(seed).permutation(len(images))[:count]
    single = next((site.name for site in plan(net.arch) if is_single_norm(site)), None)
    if len(rows) == 1 and single is not None:
        raise UserError(
            f"final_statistics = 1: batch norm at {single} has no variance over one image; give 2 "
            "or more, or 0 to keep the running statistics"
        )
    if not len(rows):
        return None
    return functools.partial(
        final_statistics, net, preprocessing=preprocessing, images=images[rows]
    )


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    """Equal batches; what does not fill the last one is left out."""
    size = min(BATCH, len(images))
    for first in range(0, len(images) - size + 1, size):
        yield images[first : first + size]


def _is_norm(tree: PyTree) -> bool:
    return isinstance(tree, Mapping) and set(tree) == {"mean", "var"}


def _pooled(*norms: Variables) -> Tree:
    """Mean and variance of all batches together, from those of each."""
    means = np.stack([norm["mean"] for norm in norms]).astype(np.float64)
    variances = np.stack([norm["var"] for norm in norms]).astype(np.float64)
    whole = {"mean": means.mean(0), "var": variances.mean(0) + means.var(0)}
    return {name: jnp.asarray(value, jnp.float32) for name, value in whole.items()}
