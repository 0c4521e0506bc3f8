"""From a recipe and the phases of training to an Optax optimiser."""

import functools
import math
from collections.abc import Collection, Hashable, Sequence

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
        moving = _above_clips(optax.adam(rate))
        if not recipe.norm_scale:
            return moving
        return optax.partition({"all": moving, "fixed": optax.set_to_zero()}, _fixed_or_all)
    readout, bias = (
        1.0 if one is None else one / recipe.learning_rate
        for one in (recipe.readout_learning_rate, recipe.bias_learning_rate)
    )
    plain = _sgd(rate, readout, recipe, recipe.decay_all)
    groups: dict[Hashable, optax.GradientTransformation] = {
        "kernel": _kernels(recipe, rate),
        "readout": plain,
        "bias": _sgd(rate, bias, recipe, recipe.decay_all),
        "clip": _sgd(rate, bias, recipe, recipe.decay_all and recipe.decay_clips),
        "scale": optax.set_to_zero(),
    }
    if not recipe.norm_scale:
        groups["scale"] = groups["bias"]
    # An update of a given length is for kernels whose length a batch norm takes away.
    groups["free kernel"] = plain if recipe.optimiser == "muon" else groups["kernel"]
    return optax.chain(optax.partition(groups, _groups), keep_clips())


def _above_clips(moving: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser with :func:`keep_clips` behind it, which has no state, and the same state."""
    cut = keep_clips()

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        updates, state = moving.update(updates, state, params)
        return cut.update(updates, optax.EmptyState(), params)[0], state

    return optax.GradientTransformation(moving.init, update)


def _kernels(recipe: Recipe, rate: Schedule) -> optax.GradientTransformation:
    if recipe.optimiser == "sgd":
        return _sgd(rate, 1.0, recipe, decayed=True)
    orthogonal = scale_by_muon(
        ns_steps=recipe.newton_schulz_steps,
        beta=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_dimension_numbers=_dimensions,
    )
    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay),
        orthogonal,
        optax.scale_by_learning_rate(rate),
        renormalised(),
    )


def _sgd(
    rate: Schedule, share: float, recipe: Recipe, decayed: bool
) -> optax.GradientTransformation:
    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay if decayed else 0.0),
        optax.sgd(lambda update: share * rate(update), recipe.momentum, nesterov=recipe.nesterov),
    )


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
    """Every leaf's group: "kernel", "free kernel", "readout", "scale", "clip" or "bias"."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    normed = {tuple(path[:-2]) for path, _ in leaves if len(path) > 1 and _key(path[-2]) == "norm"}
    return jax.tree_util.tree_map_with_path(lambda path, _: _group(path, normed), params)


def _fixed_or_all(params: PyTree) -> PyTree:
    return jax.tree.map(lambda group: "fixed" if group == "scale" else "all", _groups(params))


def _group(path: Sequence[PyTree], normed: Collection[Sequence[PyTree]]) -> str:
    if schedules.is_clip(path):
        return "clip"
    match _key(path[-1]):
        case "kernel" if _key(path[0]).startswith(HEADS):
            return "readout"
        case "kernel":
            return "kernel" if tuple(path[:-1]) in normed else "free kernel"
        case "scale":
            return "scale"
        case _:
            return "bias"


def _key(part: object) -> str:
    return str(getattr(part, "key", part))
