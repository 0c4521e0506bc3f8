"""Courses of the learning rate over one phase of training or several, and the optimiser."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax

Schedule = Callable[[Any], Any]

COURSES = ("constant", "cosine", "steps")
PHASE = ("epochs", "learning_rate", "schedule")  # what a phase says of itself,
STEPS = ("lr_step", "lr_factor")  # and where its course is "steps"


def course(
    name: str,
    learning_rate: float,
    updates: int,
    milestones: Sequence[int] = (),
    factor: float = 1.0,
) -> Schedule:
    """Learning rate of every update of a phase, the first being number 0.

    Args:
        name: "constant", "cosine" (to zero over the updates), or "steps".
        learning_rate: its highest value.
        updates: of the phase.
        milestones: for "steps", the updates from which the rate is multiplied by
        factor: once more.

    Raises:
        ValueError: an unknown name.

    >>> rates = course("steps", 1e-2, 20, (10, 15), 0.1)
    >>> [round(float(rates(update)), 7) for update in (0, 9, 10, 14, 15, 19)]
    [0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]
    """
    if name == "constant":
        return optax.constant_schedule(learning_rate)
    if name == "cosine":
        return optax.cosine_decay_schedule(learning_rate, max(updates, 1))
    if name == "steps":
        return optax.piecewise_constant_schedule(learning_rate, dict.fromkeys(milestones, factor))
    raise ValueError(f"schedule {name!r} is unknown; choose one of {', '.join(COURSES)}")


def adam(phases: Sequence[Mapping[str, Any]]) -> tuple[optax.GradientTransformation, Schedule]:
    """Adam (0.9, 0.999, 1e-8) without weight decay, and the learning rate of every global update.

    Args:
        phases: one after the other, each with "epochs", "learning_rate", "schedule",
            "steps_per_epoch" and its "first_step"; and where its schedule is "steps", "lr_step"
            (epochs of the phase before which the rate is multiplied) and "lr_factor".
    """
    return _adam(tuple((_course_of(phase), phase["first_step"]) for phase in phases))


def _course_of(phase: Mapping[str, Any]) -> tuple[Any, ...]:
    updates = phase["steps_per_epoch"]
    milestones = tuple(epoch * updates for epoch in phase.get("lr_step", ()))
    fixed = (phase["schedule"], phase["learning_rate"], phase["epochs"] * updates)
    return (*fixed, milestones, phase.get("lr_factor", 1.0))


@functools.lru_cache(maxsize=64)  # equal phases give the same optimiser, which compiles once
def _adam(
    phases: tuple[tuple[tuple[Any, ...], int], ...],
) -> tuple[optax.GradientTransformation, Schedule]:
    rates = [course(*arguments) for arguments, _ in phases]
    joined = optax.join_schedules(rates, [first for _, first in phases[1:]])
    return optax.adam(joined), joined
