"""Layer-wise fine-tuning of a converted network, on its spike rates (Hu et al., Fast-SNN, 2023).

Layer by layer, from the second to the last but one, the weights are moved so that the rate with
which the spiking layer answers to the spikes that it really gets comes near the activation of the
quantised ANN. The gradient is that of the quantised layer at the same input rate (a proxy). Labels
are never used for it; an epoch is kept if it raises the accuracy of the whole spiking network on
training images as they are.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.errors import UserError, finite_number, whole_number
from jaxsnn.inputs import class_numbers
from jaxsnn.inputs.preprocess import Moment, Preprocessing
from jaxsnn.io.progress import bar, batches
from jaxsnn.network import net as net_module
from jaxsnn.network.net import Net
from jaxsnn.neurons.integrate_and_fire import NEGATIVE_THRESHOLD
from jaxsnn.neurons.levels import levels
from jaxsnn.training.finetune_step import (
    at_once,
    merged,
    params_of,
    programs,
    spiking_of,
    unit_of,
)
from jaxsnn.types import PyTree, Variables


@dataclass(frozen=True)
class Settings:
    """How to fine-tune.

    Attributes:
        bits: width of the quantised ANN; ``2**bits - 1`` time steps.
        epochs: passes over the training images for every layer.
        batch_size: images of an update.
        learning_rate, weight_decay: of stochastic gradient descent with a momentum of 0.9.
        decay_clips: the decay acts on the learned clips of weights, too.
        negative_threshold: of the spiking neurons, in the units of the activations.
        force: keep the newest weights, without a look at the accuracy.
        seed: of data order and augmentation.
    """

    bits: int
    epochs: int = 1
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    decay_clips: bool = True
    negative_threshold: float = NEGATIVE_THRESHOLD
    force: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense.

        Raises:
            UserError: naming the number and what it may be.
        """
        for name in ("bits", "epochs", "batch_size"):
            whole_number(name, getattr(self, name))
        for name in ("learning_rate", "weight_decay"):
            finite_number(name, getattr(self, name), 0)
        finite_number("negative_threshold", self.negative_threshold, most=0)


@dataclass(frozen=True)
class LayerRecord:
    """What one layer's tuning did.

    Attributes:
        site: the layer.
        losses: mean squared difference between rate and activation, of each epoch.
        accuracies: of the spiking network on clean training images after each epoch; empty with
            ``force``.
        kept: whether any epoch was kept.
    """

    site: str
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    kept: bool


@dataclass(frozen=True)
class Tuned:
    """A network on its way through the layers.

    Attributes:
        variables: of the training tree.
        accuracy: of the spiking network on clean training images; None with ``force``.
        before: the same of the network that tuning began with.
        layers: what has been tuned, in order.
    """

    variables: Variables
    accuracy: float | None = None
    before: float | None = None
    layers: tuple[LayerRecord, ...] = field(default_factory=tuple)


class Tuner(NamedTuple):
    """What tuning does not change.

    Attributes:
        ann: the quantised ANN's network.
        reference: its variables as trained; every target comes from them.
        preprocessing: how it sees images.
        settings: how to fine-tune.
    """

    ann: Net
    reference: Variables
    preprocessing: Preprocessing
    settings: Settings


def begin(tuner: Tuner, images: np.ndarray, labels: np.ndarray) -> Tuned:
    """The network as converted, with the accuracy that no epoch may lower."""
    if tuner.settings.force:
        return Tuned(tuner.reference)
    accuracy = accuracy_of(tuner, tuner.reference, images, labels)
    return Tuned(tuner.reference, accuracy, accuracy)


def finetune_layer(
    tuner: Tuner, tuned: Tuned, name: str, images: np.ndarray, labels: np.ndarray
) -> Tuned:
    """Tune one layer, and keep its best epoch, or the state before where no epoch is better.

    Args:
        tuner: networks and settings.
        tuned: the state after the layers before.
        name: the layer; one of :func:`tuned_sites`.
        images: training images uint8 ``[N, H, W, C]``.
        labels: int32 ``[N]``, for the accuracy alone.

    Raises:
        UserError: no such layer, fewer images than a batch, or a loss that is not finite.
    """
    unit, settings = unit_of(tuner.ann, name), tuner.settings
    per_epoch = len(images) // settings.batch_size
    if not per_epoch:
        raise UserError(f"{len(images)} images do not fill one batch of {settings.batch_size}")
    params = params_of(tuned.variables, unit)
    step = _Step(tuner, tuned.variables, name, params)
    key = jax.random.fold_in(jax.random.key(settings.seed), len(tuned.layers))
    best, losses, accuracies = tuned, [], []
    for epoch in range(settings.epochs):
        epoch_key = jax.random.fold_in(key, epoch)
        order = np.asarray(jax.random.permutation(epoch_key, len(images)))
        total = jnp.zeros(())
        for number in bar(range(per_epoch), per_epoch, f"tuning {name}"):
            rows = order[number * settings.batch_size : (number + 1) * settings.batch_size]
            update = jnp.int32(epoch * per_epoch + number)
            moment = Moment(update, jnp.int32(epoch), jnp.asarray(rows))
            loss = step(images[rows], jax.random.fold_in(epoch_key, number), moment)
            total = total + loss
        losses.append(_finite(float(total) / per_epoch, name))
        candidate = merged(tuned.variables, step.params)
        if settings.force:
            best = replace(best, variables=candidate)
            continue
        accuracies.append(accuracy_of(tuner, candidate, images, labels))
        if accuracies[-1] > (best.accuracy or 0.0):
            best = replace(best, variables=candidate, accuracy=accuracies[-1])
    kept = best is not tuned
    record = LayerRecord(name, tuple(losses), tuple(accuracies), kept)
    return replace(best, layers=(*tuned.layers, record))


def accuracy_of(
    tuner: Tuner,
    variables: Variables,
    images: np.ndarray,
    labels: np.ndarray,
    signed: bool = True,
    batch_size: int = 50,
) -> float:
    """Accuracy of the spiking network over a training tree, after ``2**bits - 1`` steps."""
    spiking = spiking_of(tuner.ann, signed, tuner.settings.negative_threshold)
    predict = _predictions(spiking, tuner.settings.bits, tuner.preprocessing)
    labels = class_numbers(labels, tuner.ann.arch.classes, "fine-tuning labels")
    right = 0
    for rows, real in batches(len(images), min(batch_size, len(images)), "accuracy"):
        predicted = np.asarray(predict(variables, images[rows]))[:real]
        right += int(np.sum(predicted == labels[rows[:real]]))
    return right / len(images)


class _Step:
    """The updates of one layer: its params, and the state of the optimiser."""

    def __init__(self, tuner: Tuner, rest: Variables, name: str, params: PyTree) -> None:
        settings = tuner.settings
        rates = settings.learning_rate, settings.weight_decay, settings.decay_clips
        below = settings.negative_threshold
        compiled = programs(tuner.ann, name, settings.bits, rates, below)
        self.observe, self.update, optimiser = compiled
        self.tuner, self.rest, self.params = tuner, rest, params
        self.state = optimiser.init(params)
        self.size = at_once(settings.batch_size, levels(settings.bits))

    def __call__(self, images: np.ndarray, key: Array, moment: Moment) -> Array:
        """Update once on these images, augmented; the loss before."""
        x = _augmented(self.tuner.preprocessing)(images, key, moment)
        variables = merged(self.rest, self.params)
        parts = [
            self.observe(variables, self.tuner.reference, x[first : first + self.size])
            for first in range(0, len(x), self.size)
        ]
        observed = jax.tree.map(lambda *some: jnp.concatenate(some), *parts)
        updated = self.update(self.params, self.state, self.rest, observed, x)
        self.params, self.state, loss = updated
        return loss


@functools.lru_cache(maxsize=8)
def _augmented(preprocessing: Preprocessing) -> Callable[..., Array]:
    def augmented(images: Array, key: Array, moment: Moment) -> Array:
        return preprocessing.encoding.decode(preprocessing.train(images, key, moment))

    return jax.jit(augmented)


@functools.lru_cache(maxsize=8)
def _predictions(spiking: Net, bits: int, preprocessing: Preprocessing) -> Callable[..., Array]:
    @jax.jit
    def predict(variables: Variables, images: Array) -> Array:
        x = preprocessing.encoding.decode(preprocessing.test(images))
        state = net_module.initial_state(spiking, variables, len(x))
        out = net_module.apply(spiking, variables, x[None], state, steps=levels(bits))
        return jnp.argmax(jnp.mean(out.readouts[-1], axis=0), axis=-1)

    return predict


def _finite(loss: float, name: str) -> float:
    if not np.isfinite(loss):
        raise UserError(
            f"the loss of {name} is {loss}: lower the learning rate, or look at the weights that "
            "tuning starts from"
        )
    return loss
