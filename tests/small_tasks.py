"""Small tasks and their data for the tests of training; also run in processes of their own.

The weights and the noise come from the bits of a key through a sine: they serve as well as those of
a generator, whose compilation takes longer than the training here.
"""

import functools
import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsnn.training.options import Options
from jaxsnn.training.task import Task
from jaxsnn.training.train import train


@functools.cache
def digits() -> tuple[Any, Any, Any, Any]:
    """Real handwritten digits, uint8 [N, 8, 8]: 1,500 to train on and 297 to validate."""
    from sklearn.datasets import load_digits  # half a second, which a killed process need not spend

    loaded = load_digits()
    images, labels = (loaded.images * 15).astype(np.uint8), loaded.target
    return images[:1500], labels[:1500], images[1500:], labels[1500:]


def spread(key: jax.Array, *shape: int) -> jax.Array:
    """Numbers in -1..1 without visible order; another key gives others."""
    start = (jax.random.key_data(key)[-1] % 4093).astype(jnp.float32)
    numbers = jnp.arange(math.prod(shape), dtype=jnp.float32).reshape(shape)
    return jnp.sin((numbers + start) ** 2 * 0.37)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def as_rows(images: jax.Array) -> jax.Array:
    return images.reshape(len(images), -1).astype(jnp.float32) / 255


def perceptron(hidden: int = 32, ballast: int = 1) -> Task:
    """Two dense layers with dropout, so that a resume must also continue the random numbers."""

    def init(key):
        return {
            "params": {
                "dense1": {"kernel": 0.1 * spread(key, 64, hidden)},
                "readout": {"kernel": 0.1 * spread(key, hidden, 10)},
            },
            "ballast": {"noise": spread(key, ballast)},
        }

    def loss(params, rest, images, labels, key, train, *, axis_name, steps=None, moment=None):
        hidden = jax.nn.relu(as_rows(images) @ params["dense1"]["kernel"])
        if train:
            hidden = jnp.where(spread(key, *hidden.shape) < 0.8, hidden, 0.0)
        logits = hidden @ params["readout"]["kernel"]
        return cross_entropy(logits, labels), (logits, rest)

    return Task(init, loss)


PERCEPTRON, ADAM = perceptron(), optax.adam(1e-2)  # the same objects compile once


def linear(calls: Counter[Any] | None = None) -> Task:
    """One dense layer without noise; ``calls`` counts the traces of its loss."""

    def init(key):
        return {"params": {"kernel": 0.5 * spread(key, 64, 10)}}

    def loss(params, rest, images, labels, key, train, *, axis_name, steps=None, moment=None):
        if calls is not None:
            calls[train] += 1
        logits = as_rows(images) @ params["kernel"]
        return cross_entropy(logits, labels), (logits, rest)

    return Task(init, loss)


def batch_norm_task() -> Task:
    """A dense layer with batch norm, its statistics averaged over the devices if there are any."""

    def init(key):
        return {
            "params": {
                "kernel": 0.1 * spread(key, 64, 16),
                "scale": jnp.ones(16),
                "readout": 0.1 * spread(key, 16, 10),
            },
            "batch_stats": {"mean": jnp.zeros(16), "count": jnp.zeros((), jnp.int32)},
        }

    def loss(params, rest, images, labels, key, train, *, axis_name, steps=None, moment=None):
        drive = as_rows(images) @ params["kernel"]
        mean, square = jnp.mean(drive, axis=0), jnp.mean(drive**2, axis=0)
        if axis_name is not None:
            mean, square = jax.lax.pmean((mean, square), axis_name)
        gain = jax.lax.rsqrt(square - mean**2 + 1e-3) * params["scale"]
        logits = jax.nn.relu((drive - mean[None]) * gain[None]) @ params["readout"]
        stats = rest["batch_stats"]
        kept = {"mean": 0.9 * stats["mean"] + 0.1 * mean, "count": stats["count"] + 1}
        return cross_entropy(logits, labels), (logits, {"batch_stats": kept} if train else rest)

    return Task(init, loss)


LONG = {"epochs": 8, "batch_size": 6, "seed": 2}
LONG_STEPS = 8 * 250
LONG_TASK = perceptron(256, 1_000_000)


def long_run(directory: str | None, resume: bool = False, checkpoint_seconds: float = 0.01) -> Any:
    """Seconds of training on noise, with checkpoints of four megabytes, many in an epoch."""
    rng = np.random.default_rng(0)
    data = (rng.integers(0, 256, (1500, 8, 8), np.uint8), rng.integers(0, 10, 1500), None, None)
    options = Options(
        **LONG, directory=directory, resume=resume, checkpoint_seconds=checkpoint_seconds
    )
    return train(LONG_TASK, ADAM, data, options, False)[0]


def compare_devices() -> None:
    """Three epochs of plain gradient descent on one device and on four."""
    result = {}
    for devices in (1, 4):
        options = Options(3, 60, devices=devices)
        result[devices] = train(batch_norm_task(), optax.sgd(0.1), digits(), options, False)
    (one, alone), (four, together) = result[1], result[4]
    assert len(four.params["kernel"].sharding.device_set) == 4
    assert int(four.rest["batch_stats"]["count"]) == 75
    jax.tree.map(
        lambda left, right: np.testing.assert_allclose(left, right, atol=1e-5),
        jax.device_get(one.variables),
        jax.device_get(four.variables),
    )
    for left, right in zip(alone, together, strict=True):
        for name, tolerance in (("train_accuracy", 1e-3), ("train_loss", 1e-5)):
            np.testing.assert_allclose(left[name], right[name], rtol=0, atol=tolerance)
    assert alone[-1]["train_loss"] < alone[0]["train_loss"] / 2  # the parameters did move
