"""Quantisation-aware fine-tuning: from trained weights to those of a network that converts well.

A network of ReLUs loses accuracy when its activations are quantised; some epochs with the
quantised activations in place win part of it back, because the weights learn to live with the
steps. The network as it was can be their teacher.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import plan
from jaxsnn.conversion.convert import refuse
from jaxsnn.conversion.method import Method
from jaxsnn.conversion.methods import rate
from jaxsnn.errors import UserError, whole_number
from jaxsnn.inputs.preprocess import Moment, Preprocessing, unchanged
from jaxsnn.io.arrays import checksum, flatten, unflatten
from jaxsnn.network import net as net_module
from jaxsnn.network.net import Net, Variables
from jaxsnn.network.per_site import SiteMap, hidden
from jaxsnn.network.weight_quantisers import WeightQuantiser, full_precision
from jaxsnn.neurons import relu
from jaxsnn.training import optimisers
from jaxsnn.training.distillation import distilled
from jaxsnn.training.final_statistics import finishing
from jaxsnn.training.finetune_record import begin_or_go_on
from jaxsnn.training.one_pass import classification
from jaxsnn.training.options import Options
from jaxsnn.training.recipe import FINETUNE, Recipe
from jaxsnn.training.run_files import Record
from jaxsnn.training.schedules import Schedule
from jaxsnn.training.task import Task
from jaxsnn.training.train import Data, train
from jaxsnn.types import PyTree, Tree

OF_LABELS = ("spike_penalty", "label_smoothing")  # parts of the loss that a teacher replaces
FIRST = 16  # training images that tell a folder's from others


class Finetuned(NamedTuple):
    """What fine-tuning leaves.

    Attributes:
        variables: the training tree, to be converted by the same method.
        history: a record of each epoch, as :func:`jaxsnn.train` makes them.
    """

    variables: Tree
    history: list[Record]


def finetune_quantised(
    variables: Variables,
    arch: Arch,
    data: Data,
    method: Method,
    *,
    preprocessing: Preprocessing | None = None,
    recipe: Recipe = FINETUNE,
    epochs: int = 4,
    distillation: float = 1.0,
    weights: SiteMap[WeightQuantiser] | None = None,
    seed: int = 0,
    directory: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Finetuned:
    """Train on from trained weights, with the activations that a method converts.

    What to choose:

    - ``k`` (scatter-and-gather, negative spikes): the spiking network settles twice as fast with
      one bit less. Without training take :attr:`jaxsnn.Calibration.k`.
    - ``bound``: none for negative spikes, whose steps it does not change; for scatter-and-gather
      :meth:`jaxsnn.Calibration.bound`, or less, since every doubling doubles the thresholds.
    - ``bits`` of ``signed_if``: 4 or 5; clips start where :func:`jaxsnn.calibrate` puts them, and
      are learned.
    - learning rate: a tenth of what the weights were trained with, falling to zero.

    Args:
        variables: ``params`` and ``batch_stats``; for ``signed_if`` with clips.
        arch: the architecture.
        data: training images uint8 ``[N, H, W, C]`` and labels ``[N]``, validation images and
            labels or None.
        method: that the network is to be converted by.
        preprocessing: what becomes of the images; default: grey values over 256.
        recipe: of optimisation.
        epochs: passes over the training images.
        distillation: share of the loss, 0 to 1, that is the distance to the logits of the network
            as given, of ReLUs and weights in full precision (:func:`jaxsnn.training.distilled`);
            the rest is the cross entropy of the labels and the recipe's spike penalty.
        weights: weight quantisers to train with; None: full precision.
        seed: of the order of the images and the augmentation.
        directory: where checkpoints and metrics go; None writes nothing.
        resume: go on from the newest checkpoint in ``directory``.
        progress: say on the terminal how far it is.

    Raises:
        UserError: all that stands against converting the network by this method, or fine-tuning
            for it, before anything is trained; a folder that was begun with other settings, weights
            or images; or as :func:`jaxsnn.train`.
    """
    _check(epochs, distillation, recipe, method, len(data[1]))
    weights, shown = weights or SiteMap(full_precision()), preprocessing or unchanged()
    refuse(variables, arch, method, weights)
    net = Net(arch, hidden(method.activation), weights, norm_momentum=recipe.norm_momentum)
    start = _start(variables, net)
    task = _task(net, shown, recipe, variables, distillation)._replace(init=lambda key: start)
    size = min(recipe.batch_size, len(data[1]))
    moved, schedule = _optimiser(recipe, epochs, len(data[1]) // size)
    options = _options(recipe, epochs, size, seed, directory, resume)
    if directory is not None:
        asked: dict[str, object] = {"method": method, "recipe": recipe, "seed": seed}
        asked |= {"epochs": epochs, "distillation": distillation}
        asked |= _brought(variables, arch, weights, shown, data[0])
        begin_or_go_on(directory, asked, resume)
    finish = finishing(net, shown, data[0], recipe.final_statistics, seed)
    state, history = train(
        task, moved, data, options, progress=progress, schedule=schedule, finish=finish
    )
    return Finetuned(dict(jax.device_get(state.variables)), history)


def _check(epochs: int, distillation: float, recipe: Recipe, method: Method, images: int) -> None:
    whole_number("epochs", epochs)
    if not images:
        raise UserError("there are no training images to fine-tune on")
    if isinstance(method, rate):
        raise UserError("rate codes the ReLUs of the network as it is: there is nothing to tune")
    if not 0 <= distillation <= 1:
        raise UserError(f"distillation={distillation}: a share of the loss is 0 to 1")
    for name in OF_LABELS if distillation == 1 else ():
        if value := getattr(recipe, name):
            raise UserError(
                f"{name}={value}: distillation=1 leaves nothing of it in the loss; give a "
                "distillation below 1"
            )


def _task(
    net: Net, shown: Preprocessing, recipe: Recipe, variables: Variables, distillation: float
) -> Task:
    """What is learned: the labels, the answers of the network as given, or both."""
    task = classification(
        net, shown, label_smoothing=recipe.label_smoothing, spike_penalty=recipe.spike_penalty
    )
    if not distillation:
        return task
    teacher = Net(net.arch, hidden(relu()))
    return distilled(task, teacher, _start(variables, teacher), shown, share=distillation)


def _optimiser(
    recipe: Recipe, epochs: int, steps_per_epoch: int
) -> tuple[optax.GradientTransformation, Schedule]:
    """One phase of the recipe, and its learning rate by step."""
    phase = {"epochs": epochs, "learning_rate": recipe.learning_rate, "schedule": recipe.schedule}
    phases = [phase | {"steps_per_epoch": steps_per_epoch, "first_step": 0}]
    return optimisers.from_recipe(recipe, phases)


def _brought(
    variables: Variables,
    arch: Arch,
    weights: SiteMap[WeightQuantiser],
    shown: Preprocessing,
    images: PyTree,
) -> dict[str, object]:
    """What tells network and images from others; images as training shows them."""
    first = jnp.asarray(images[:FIRST])
    moment = Moment(jnp.int32(0), jnp.int32(0), jnp.arange(len(first)))
    units = shown.train(first, jax.random.key(0), moment)
    quantisers = dict.fromkeys(weights.at(site).name for site in plan(arch) if site.kernel_shape)
    return {
        "weights with checksum": checksum(variables),
        "weight quantisers": ", ".join(quantisers),
        "images with checksum": checksum({"images": shown.encoding.decode(units)}),
    }


def _options(
    recipe: Recipe,
    epochs: int,
    batch_size: int,
    seed: int,
    directory: str | Path | None,
    resume: bool,
) -> Options:
    return Options(
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        directory=directory,
        resume=resume,
        micro_batch=recipe.micro_batch or None,
        averaging=recipe.averaging,
    )


def _start(variables: Variables, net: Net) -> Tree:
    """Those of the arrays that the network has, float32; clips of other methods stay behind."""
    arrays, wanted = flatten(variables), flatten(net_module.template(net))
    return unflatten({name: jnp.asarray(arrays[name], leaf.dtype) for name, leaf in wanted.items()})
