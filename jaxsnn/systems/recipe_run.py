"""Training the network of a run folder as its recipe says."""

import functools
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.arch.plan import plan
from jaxsnn.inputs.preprocess import Preprocessing, units_of
from jaxsnn.network.initialisers import Dirac, FixedScale, Initialiser
from jaxsnn.network.net import Net, template
from jaxsnn.systems.run_folder import Run, start_from, train_run
from jaxsnn.systems.settings.training import Trained
from jaxsnn.training import optimisers
from jaxsnn.training.final_statistics import finishing
from jaxsnn.training.recipe import PARTS, Recipe
from jaxsnn.training.schedules import AUGMENTATION, PHASE
from jaxsnn.training.task import Task
from jaxsnn.training.train import Data
from jaxsnn.training.update import TrainState
from jaxsnn.training.whitening import IMAGES, whitened
from jaxsnn.types import Variables

TrainedConfig = TypeVar("TrainedConfig", bound=Trained)
FIXED_PARTS = tuple(part for part in PARTS if part not in (*PHASE, *AUGMENTATION))
"""Parts of a recipe that no later phase of a run may change."""
CLIPS = ("clip", "kernel_clip")
"""Learned clips: weights to start from may lack them, as those of full precision do."""


def initialiser(recipe: Recipe, usual: Initialiser) -> Initialiser:
    """Where weights start: as the recipe says, or as the system does.

    Args:
        recipe: of the training.
        usual: the system's.
    """
    if recipe.start == "dirac":
        return Dirac(recipe.norm_scale or 1.0)
    return FixedScale(usual, recipe.norm_scale) if recipe.norm_scale else usual


def train_recipe(
    run: Run[TrainedConfig],
    task: Task,
    net: Net,
    preprocessing: Preprocessing,
    data: Data,
) -> TrainState:
    """Train, or resume, as ``run.config.training`` says; writes the run's files.

    Args:
        run: the folder and its settings, with a recipe.
        task: what is trained, a classification by ``net``.
        net: the network.
        preprocessing: what becomes of the images.
        data: training images and labels, validation images and labels.

    Raises:
        UserError: weights to start from that are missing, damaged or of another network.
    """
    recipe, place = run.config.training, run.config.init
    if place and not run.config.resume:
        task = start_from(task, place, template(net), newly=CLIPS)
    elif recipe.whitened and not place:
        task = _whitened(task, net, preprocessing, data)
    return train_run(
        run,
        task,
        data,
        micro_batch=recipe.micro_batch or None,
        optimiser=functools.partial(optimisers.from_recipe, recipe),
        averaging=recipe.averaging,
        finish=finishing(net, preprocessing, data[0], recipe.final_statistics, run.config.seed),
    )


def _whitened(task: Task, net: Net, preprocessing: Preprocessing, data: Data) -> Task:
    """The task whose first convolution starts from whitening filters of the training images."""
    site = plan(net.arch)[0]
    if site.kind != "conv":
        return task
    units = units_of(preprocessing, data[0][:IMAGES])
    images = np.asarray(preprocessing.encoding.decode(jnp.asarray(units)))

    def init(key: Array) -> Variables:
        variables = task.init(key)
        first = variables["params"][site.name]
        kernel = whitened(first["kernel"], site, images)
        return {
            **variables,
            "params": {**variables["params"], site.name: {**first, "kernel": kernel}},
        }

    return task._replace(init=init)
