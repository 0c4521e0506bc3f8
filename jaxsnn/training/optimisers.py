"""From a recipe and the phases of training to an Optax optimiser."""

import functools
import math
from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp
import optax
from jax import Array
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from jaxsnn.training import schedules
from jaxsnn.training.recipe import Recipe
from jaxsnn.training.schedules import Phase, Schedule, keep_clips
from jaxsnn.types import PyTree

HEADS = ("readout", "exit")  # sites whose kernels are the readouts


def from_recipe(
    recipe: Recipe, phases: Sequence[Phase]
) -> tuple[optax.GradientTransformation, Schedule]:
    """The optimiser of all parameters, and the learning rate of every global update of a kernel.

    Args:
        recipe: see :class:`jaxsnn.training.Recipe`; equal ones give the same optimiser.
        phases: see :func:`jaxsnn.training.schedules.joined`; their learning rates are the kernels'.
    """
    rate = schedules.joined(phases)
    return _optimiser(recipe, rate), rate


@functools.lru_cache(maxsize=64)
def _optimiser(recipe: Recipe, rate: Schedule) -> optax.GradientTransformation:
    if recipe.optimiser == "adam":
        moving = optax.adam(rate)
        if not recipe.norm_scale:
            return moving
        return optax.partition({"all": moving, "fixed": optax.set_to_zero()}, _fixed_or_all)
    groups: dict[Hashable, optax.GradientTransformation] = {
        "kernel": _kernels(recipe, rate),
        "readout": _sgd(rate, recipe.readout_learning_rate / recipe.learning_rate, recipe),
        "bias": _sgd(rate, recipe.bias_learning_rate / recipe.learning_rate, recipe),
        "scale": optax.set_to_zero(),
    }
    if not recipe.norm_scale:
        groups["scale"] = groups["bias"]
    return optax.chain(optax.partition(groups, _groups), keep_clips())


def _kernels(recipe: Recipe, rate: Schedule) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(recipe.weight_decay)
    if recipe.optimiser == "sgd":
        return optax.chain(decay, optax.sgd(rate, recipe.momentum, nesterov=True))
    orthogonal = scale_by_muon(
        ns_steps=recipe.newton_schulz_steps,
        beta=recipe.momentum,
        weight_dimension_numbers=_dimensions,
    )
    return optax.chain(decay, orthogonal, optax.scale_by_learning_rate(rate), renormalised())


def _sgd(rate: Schedule, share: float, recipe: Recipe) -> optax.GradientTransformation:
    return optax.sgd(lambda update: share * rate(update), recipe.momentum, nesterov=True)


def renormalised() -> optax.GradientTransformation:
    """Bring every kernel to the norm ``sqrt(C_out)`` before its update.

    An update of fixed length then turns it by the same angle at all times; batch norm behind it
    does not see the length. Source: airbench94_muon.
    """

    def update(updates: PyTree, params: PyTree) -> PyTree:
        def one(update: Array, kernel: Array) -> Array:
            length = jnp.maximum(jnp.linalg.norm(kernel), jnp.finfo(kernel.dtype).tiny)
            return update + kernel * (math.sqrt(kernel.shape[-1]) / length - 1)

        return jax.tree.map(one, updates, params)

    return optax.stateless(update)


def _dimensions(params: PyTree) -> PyTree:
    """Of kernels ``[..., C_in, C_out]``: everything but the last axis is reduced."""
    return jax.tree.map(lambda leaf: MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), -1), params)


def _groups(params: PyTree) -> PyTree:
    """Every leaf's group: "kernel", "readout", "scale" or "bias"."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _group(path), params)


def _fixed_or_all(params: PyTree) -> PyTree:
    return jax.tree.map(lambda group: "fixed" if group == "scale" else "all", _groups(params))


def _group(path: Sequence[PyTree]) -> str:
    site, *_, leaf = (str(part.key) for part in path)
    if leaf == "kernel":
        return "readout" if site.startswith(HEADS) else "kernel"
    return "scale" if leaf == "scale" else "bias"
