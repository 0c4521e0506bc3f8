"""Courses of the learning rate over one phase of training or several, and the optimiser."""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from jaxsnn.errors import UserError
from jaxsnn.types import Json, PyTree

Schedule = optax.Schedule
Phase = Mapping[str, Json]  # settings of one phase of a training, and where it begins

COURSES = ("constant", "cosine", "linear", "steps")
PHASE = ("epochs", "learning_rate", "schedule")  # what a phase says of itself,
STEPS = ("lr_step", "lr_factor")  # and where its course is "steps"
CLIPS = ("clip", "kernel_clip")  # leaves of the params: learned clips of quantisers
SMALLEST_CLIP = 1e-3  # weight decay and gradients move a learned clip no further down


def course(
    name: str,
    learning_rate: float,
    updates: int,
    milestones: Sequence[int] = (),
    factor: float = 1.0,
) -> Schedule:
    """Learning rate of every update of a phase, the first being number 0.

    Args:
        name: "constant", "cosine" or "linear" (both to zero over the updates), or "steps".
        learning_rate: its highest value.
        updates: of the phase.
        milestones: for "steps", the updates from which the rate is multiplied by
        factor: once more.

    Raises:
        UserError: an unknown name.

    >>> rates = course("steps", 1e-2, 20, (10, 15), 0.1)
    >>> [round(float(rates(update)), 7) for update in (0, 9, 10, 14, 15, 19)]
    [0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]
    """
    if name == "constant":
        return optax.constant_schedule(learning_rate)
    if name == "cosine":
        return optax.cosine_decay_schedule(learning_rate, max(updates, 1))
    if name == "linear":
        return optax.linear_schedule(learning_rate, 0.0, max(updates, 1))
    if name == "steps":
        return optax.piecewise_constant_schedule(learning_rate, dict.fromkeys(milestones, factor))
    raise UserError(f"schedule {name!r} is unknown; choose one of {', '.join(COURSES)}")


def joined(phases: Sequence[Phase]) -> Schedule:
    """Learning rate of every global update over phases that follow each other.

    Args:
        phases: each with "epochs", "learning_rate", "schedule", "steps_per_epoch" and its
            "first_step"; and where its schedule is "steps", "lr_step" (epochs of the phase before
            which the rate is multiplied) and "lr_factor".
    """
    return _joined(_key(phases))


def adam(phases: Sequence[Phase]) -> tuple[optax.GradientTransformation, Schedule]:
    """Adam (0.9, 0.999, 1e-8) without weight decay, and the learning rate of every global update.

    Args:
        phases: see :func:`joined`.
    """
    return _adam(_key(phases)), joined(phases)


def sgd(
    phases: Sequence[Phase],
    weight_decay: float,
    decay_clips: bool = True,
    nesterov: bool = False,
) -> tuple[optax.GradientTransformation, Schedule]:
    """Stochastic gradient descent with momentum 0.9, and the learning rate of every global update.

    Args:
        phases: see :func:`joined`.
        weight_decay: added to the gradient of every parameter, times the parameter.
        decay_clips: of learned clips, too, as in Fast-SNN. No clip falls below ``SMALLEST_CLIP``.
        nesterov: Nesterov's momentum.
    """
    return _sgd(_key(phases), weight_decay, decay_clips, nesterov), joined(phases)


def sgd_step(
    learning_rate: float, weight_decay: float, decay_clips: bool = True
) -> optax.GradientTransformation:
    """The same at a constant learning rate."""
    constant = {"epochs": 1, "learning_rate": learning_rate, "schedule": "constant"}
    phases = [{**constant, "steps_per_epoch": 1, "first_step": 0}]
    return sgd(phases, weight_decay, decay_clips)[0]


def keep_clips() -> optax.GradientTransformation:
    """Cut updates that would move a learned clip below ``SMALLEST_CLIP``."""

    def cut(updates: PyTree, params: PyTree) -> PyTree:
        def above(path: Sequence[PyTree], update: PyTree, param: PyTree) -> PyTree:
            return jnp.maximum(update, SMALLEST_CLIP - param) if is_clip(path) else update

        return jax.tree_util.tree_map_with_path(above, updates, params)

    return optax.stateless(cut)


def is_clip(path: Sequence[PyTree]) -> bool:
    """Whether a leaf of the params, by its path, is the learned clip of a quantiser."""
    return str(getattr(path[-1], "key", "")) in CLIPS


Key = tuple[tuple[tuple[Json, ...], int], ...]


def _key(phases: Sequence[Phase]) -> Key:
    return tuple((_course_of(phase), phase["first_step"]) for phase in phases)


def _course_of(phase: Phase) -> tuple[Json, ...]:
    updates = phase["steps_per_epoch"]
    milestones = tuple(epoch * updates for epoch in phase.get("lr_step", ()))
    fixed = (phase["schedule"], phase["learning_rate"], phase["epochs"] * updates)
    return (*fixed, milestones, phase.get("lr_factor", 1.0))


# Equal phases give the same optimiser, which compiles once.
@functools.lru_cache(maxsize=64)
def _joined(phases: Key) -> Schedule:
    rates = [course(*arguments) for arguments, _ in phases]
    return optax.join_schedules(rates, [first for _, first in phases[1:]])


@functools.lru_cache(maxsize=64)
def _adam(phases: Key) -> optax.GradientTransformation:
    return optax.adam(_joined(phases))


@functools.lru_cache(maxsize=64)
def _sgd(
    phases: Key, weight_decay: float, decay_clips: bool, nesterov: bool
) -> optax.GradientTransformation:
    def decayed(params: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: decay_clips or not is_clip(path), params
        )

    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=decayed),
        optax.sgd(_joined(phases), momentum=0.9, nesterov=nesterov),
        keep_clips(),
    )
