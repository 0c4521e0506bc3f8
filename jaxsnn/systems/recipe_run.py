"""Training the network of a run folder as its recipe says."""

import functools
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.arch.plan import plan
from jaxsnn.errors import UserError
from jaxsnn.inputs.preprocess import Preprocessing, units_of
from jaxsnn.io.arrays import flatten, load_arrays, load_params, unflatten
from jaxsnn.io.files import read_text
from jaxsnn.network.initialisers import Dirac, FixedScale, Initialiser
from jaxsnn.network.net import Net, template
from jaxsnn.systems.config_file import from_json
from jaxsnn.systems.run_folder import Run, held_out, train_run, weights_at
from jaxsnn.systems.settings.training import Trained
from jaxsnn.training import optimisers
from jaxsnn.training.final_statistics import finishing
from jaxsnn.training.recipe import AUGMENTATION, PARTS, Recipe
from jaxsnn.training.schedules import CLIPS, PHASE
from jaxsnn.training.task import Task
from jaxsnn.training.train import Data
from jaxsnn.training.update import TrainState
from jaxsnn.training.whitening import IMAGES, whitened
from jaxsnn.types import Variables

TrainedConfig = TypeVar("TrainedConfig", bound=Trained)
FIXED_PARTS = tuple(part for part in PARTS if part not in (*PHASE, *AUGMENTATION))
"""Parts of a recipe that no later phase of a run may change."""


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
        UserError: weights to start from that are missing, damaged or of another network, or have
            seen what is held out.
    """
    recipe, place = run.config.training, run.config.init
    if place and not run.config.resume:
        _refuse_seen(place, run.config, data)
        task = start_from(task, place, template(net))
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


def start_from(task: Task, place: str, template: Variables) -> Task:
    """The task whose training starts from trained weights, strictly as ``template``.

    Args:
        task: what is trained.
        place: the folder of a run, or an npz file of one. It may lack learned clips, as those of
            full precision do; they start where the task starts them.
        template: the tree of variables, as shapes.

    Raises:
        UserError: a missing or damaged file, or arrays that do not fit, each named.
    """
    path = weights_at(place)
    arrays, expected = load_arrays(path)[0], flatten(template)
    lacking = [n for n in expected if n.rpartition("/")[2] in CLIPS and n not in arrays]
    wanted = {name: leaf for name, leaf in expected.items() if name not in lacking}
    loaded = flatten(load_params(path, unflatten(wanted)))

    def init(key: Array) -> Variables:
        return unflatten({**flatten(task.init(key)), **loaded})

    return task._replace(init=init)


def _refuse_seen(place: str, config: Trained, data: Data) -> None:
    """Refuse weights that were trained on images which are held out now.

    Raises:
        UserError: the run that they are of held out others, or none.
    """
    beside, held = weights_at(place).parent / "config.json", len(data[3])
    if not held or not beside.is_file():
        return
    before, _ = from_json(type(config), read_text(beside), str(beside))
    if before.dataset != config.dataset:
        return
    then = held_out(len(data[1]) + held, before.validation)
    if (before.limit_train, then) != (config.limit_train, held):
        raise UserError(
            f"--init {place} has seen some of the {held:,} training images that are held out here "
            f"to choose the epoch ({beside} held out {then:,}); --validation 0 trains on all and "
            "takes the last epoch"
        )
