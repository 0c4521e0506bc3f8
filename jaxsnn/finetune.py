"""Layer-wise fine-tuning of a converted network, on its spike rates (Hu et al., Fast-SNN, 2023).

Layer by layer, from the second to the last but one, the weights are moved so that the rate with
which the spiking layer answers to the spikes that it really gets comes near the activation of the
quantised ANN. The gradient is that of the quantised layer at the same input rate (a proxy). Labels
are never used for it; an epoch is kept if it raises the accuracy of the whole spiking network on
training images as they are.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxsnn import net as net_module
from jaxsnn.arch import Site, plan
from jaxsnn.clipped import levels
from jaxsnn.evaluation import batches
from jaxsnn.net import Net, Variables
from jaxsnn.neurons import clipped_spikes
from jaxsnn.preprocess import Preprocessing
from jaxsnn.progress import bar
from jaxsnn.quant import straight_through
from jaxsnn.schedules import sgd_step
from jaxsnn.sitemap import hidden

FROZEN = ("clip",)  # the threshold; running statistics are no params


@dataclass(frozen=True)
class Settings:
    """How to fine-tune.

    Attributes:
        bits: width of the quantised ANN; ``2**bits - 1`` time steps.
        epochs: passes over the training images for every layer.
        batch_size: images of an update.
        learning_rate, weight_decay: of stochastic gradient descent with a momentum of 0.9.
        force: keep the newest weights, without a look at the accuracy.
        seed: of data order and augmentation.
    """

    bits: int
    epochs: int = 1
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    force: bool = False
    seed: int = 0


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
        layers: what has been tuned, in order.
    """

    variables: Variables
    accuracy: float | None = None
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


def tuned_sites(ann: Net) -> list[str]:
    """The layers that are tuned, in order: all with neurons but the first, which is exact."""
    return [site.name for site in plan(ann.arch) if site.role == "activation"][1:]


def spiking_of(ann: Net, signed: bool = True) -> Net:
    """The spiking network over the same tree, in floats (:func:`jaxsnn.neurons.clipped_spikes`)."""
    return ann.clone(neurons=hidden(clipped_spikes(signed)))


def begin(tuner: Tuner, images: np.ndarray, labels: np.ndarray) -> Tuned:
    """The network as converted, with the accuracy that no epoch may lower."""
    if tuner.settings.force:
        return Tuned(tuner.reference)
    return Tuned(tuner.reference, accuracy_of(tuner, tuner.reference, images, labels))


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
        ValueError: no such layer, fewer images than a batch, or a loss that is not finite.
    """
    unit = _unit(tuner.ann, name)
    settings = tuner.settings
    per_epoch = len(images) // settings.batch_size
    if not per_epoch:
        raise ValueError(f"{len(images)} images do not fill one batch of {settings.batch_size}")
    ann = cast("Any", tuner.ann)
    update, optimiser = _program(ann, name, settings.bits, tuner.preprocessing, _rates(settings))
    params = _params_of(tuned.variables, unit)
    state = optimiser.init(params)
    key = jax.random.fold_in(jax.random.key(settings.seed), len(tuned.layers))
    best, losses, accuracies = tuned, [], []
    for epoch in range(settings.epochs):
        own = jax.random.fold_in(key, epoch)
        order = np.asarray(jax.random.permutation(own, len(images)))
        total = jnp.zeros(())
        for number in bar(range(per_epoch), per_epoch, f"tuning {name}"):
            rows = order[number * settings.batch_size : (number + 1) * settings.batch_size]
            drawn = jax.random.fold_in(own, number)
            params, state, loss = update(
                params, state, tuned.variables, tuner.reference, images[rows], drawn
            )
            total = total + loss
        losses.append(_finite(float(total) / per_epoch, name))
        candidate = _merged(tuned.variables, params)
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
    predict = _predictions(cast("Any", tuner.ann), tuner.settings.bits, tuner.preprocessing, signed)
    right = 0
    for rows, real in batches(len(images), min(batch_size, len(images)), "accuracy"):
        found = np.asarray(predict(variables, images[rows]))[:real]
        right += int(np.sum(found == labels[rows[:real]]))
    return right / len(images)


# ---------------------------------------------------------------- one layer's update


def _rates(settings: Settings) -> tuple[float, float]:
    return settings.learning_rate, settings.weight_decay


def _unit(ann: Net, name: str) -> tuple[str, ...]:
    """The sites that are tuned together: a layer, and the projection that joins it."""
    if name not in tuned_sites(ann):
        raise ValueError(f"{name!r} is not tuned; known: {', '.join(tuned_sites(ann))}")
    sites = {site.name: site for site in plan(ann.arch)}
    shortcut = sites.get(sites[name].shortcut)
    joins = shortcut is not None and shortcut.role == "shortcut"
    return (name, shortcut.name) if joins and shortcut else (name,)


def _params_of(variables: Variables, unit: tuple[str, ...]) -> dict[str, Any]:
    """What is tuned: ``{site: leaves}``."""
    params = {
        site: {name: leaf for name, leaf in variables["params"][site].items() if name not in FROZEN}
        for site in unit
    }
    return jax.tree.map(jnp.asarray, params)


def _merged(variables: Variables, params: Mapping[str, Any]) -> dict[str, Any]:
    """Variables with the tuned params in their places."""
    own = {site: {**variables["params"][site], **tree} for site, tree in params.items()}
    return {**variables, "params": {**variables["params"], **own}}


def loss_of(
    ann: Net, name: str, bits: int, params: Any, rest: Variables, reference: Variables, x: Array
) -> Array:
    """Mean squared difference between a layer's spike rate and the ANN's activation.

    The value is that of the spiking layer; the gradient with respect to ``params`` that of the
    quantised layer which is given the same input rates.

    Args:
        ann: the quantised ANN's network.
        name: the layer.
        bits: its width.
        params: what is tuned, ``{site: leaves}``.
        rest: variables, from which everything else is taken.
        reference: variables of the quantised ANN as trained.
        x: images in the ANN's units, float32 ``[B, H, W, C]``.
    """
    variables, steps = _merged(rest, params), levels(bits)
    spiking = spiking_of(ann)
    frozen = jax.lax.stop_gradient(variables)
    state = net_module.initial_state(spiking, frozen, len(x))
    trains = net_module.apply(spiking, frozen, x[None], state, steps=steps).outs
    rates = {site: jnp.mean(train, axis=0) for site, train in trains.items()}
    before = _before(ann, tuple(params))
    given = {site: rates[site][None] for site in before}
    proxy = net_module.forward(ann, variables, x, forced=given).outs[name][0]
    target = net_module.forward(ann, reference, x).outs[name][0]
    return jnp.mean((straight_through(rates[name], proxy) - target) ** 2)


def _before(ann: Net, unit: tuple[str, ...]) -> list[str]:
    """Sites in front of a unit, whose rates it is given."""
    sites = plan(ann.arch)
    first = min(number for number, site in enumerate(sites) if site.name in unit)
    last = max(number for number, site in enumerate(sites) if site.name in unit)
    between: list[Site] = [site for site in sites[first:last] if site.name not in unit]
    return [site.name for site in (*sites[:first], *between)]


@functools.lru_cache(maxsize=32)
def _program(
    ann: Net, name: str, bits: int, preprocessing: Preprocessing, rates: tuple[float, float]
) -> tuple[Callable[..., Any], optax.GradientTransformation]:
    optimiser = sgd_step(*rates)
    loss = functools.partial(loss_of, ann, name, bits)

    @jax.jit
    def update(
        params: Any, state: Any, rest: Any, reference: Any, images: Array, key: Array
    ) -> tuple[Any, Any, Array]:
        x = preprocessing.encoding.decode(preprocessing.train(images, key))
        value, slopes = jax.value_and_grad(loss)(params, rest, reference, x)
        moved, state = optimiser.update(slopes, state, params)
        return optax.apply_updates(params, moved), state, value

    return update, optimiser


@functools.lru_cache(maxsize=8)
def _predictions(
    ann: Net, bits: int, preprocessing: Preprocessing, signed: bool
) -> Callable[..., Array]:
    spiking = spiking_of(ann, signed)

    @jax.jit
    def predict(variables: Variables, images: Array) -> Array:
        x = preprocessing.encoding.decode(preprocessing.test(images))
        state = net_module.initial_state(spiking, variables, len(x))
        out = net_module.apply(spiking, variables, x[None], state, steps=levels(bits))
        return jnp.argmax(jnp.mean(out.readouts[-1], axis=0), axis=-1)

    return predict


def _finite(loss: float, name: str) -> float:
    if not np.isfinite(loss):
        raise ValueError(
            f"the loss of {name} is {loss}: lower the learning rate, or look at the weights that "
            "tuning starts from"
        )
    return loss
