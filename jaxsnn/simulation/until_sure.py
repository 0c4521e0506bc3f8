"""Early exit: each image stops as soon as the fusion of two heads is sure of it.

Habara, Sato and Awano (Frontiers in Neuroscience 18, 2024; BayesianSpikeFusion) fuse the spikes of
an early and of the final classifier after every step and end all images at a common one. Here each
image ends by itself: with the first step in which the confidence in the fused prediction reaches a
threshold. This is a criterion of :mod:`jaxsnn.simulation.image_by_image`, which lets such images
leave the batch.

For an input that nobody knows in advance, step by step, see :mod:`jaxsnn.simulation.step_by_step`.
"""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from jaxsnn.arch.plan import head_sites
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.errors import UserError, whole_number
from jaxsnn.simulation import counters as counters_module
from jaxsnn.simulation import image_by_image
from jaxsnn.simulation.counters import Counters
from jaxsnn.simulation.engine import Trace
from jaxsnn.simulation.fusion import bayes, confidence
from jaxsnn.simulation.fusion.bayes import Posterior
from jaxsnn.simulation.fusion.confidence import Calibration
from jaxsnn.simulation.horizon import MOST_STEPS

EVERY = 8  # steps between two looks


@flax.struct.dataclass
class Rule:
    """When an image stops. Another rule of the same shapes and heads compiles nothing.

    Attributes:
        alpha: first parameter of the prior at every step, float ``[T]``.
        threshold: of the confidence, from 0 to 1; it is reached at or above it.
        earliest: the first step (from 1) with which an image may stop.
        calibration: from scores to the probability of being right; None: the confidence is the
            score itself, :func:`jaxsnn.simulation.fusion.gap`, the probability that the predicted
            class's neuron fires more than the runner-up's.
        early: number of the head that is the early classifier (side exits come first), and
        final: of the one that is the final classifier (the readout comes last).
    """

    alpha: ArrayLike
    threshold: ArrayLike
    earliest: ArrayLike = 1
    calibration: Calibration | None = None
    early: int = flax.struct.field(pytree_node=False, default=0)
    final: int = flax.struct.field(pytree_node=False, default=-1)


class EarlyExit(NamedTuple):
    """What B images are classified as, each with its last step.

    Attributes:
        predictions: class of the highest posterior mean, int ``[B]``; the lowest of equal ones.
        confidence: in that class at that step, float32 ``[B]``.
        stops: each image's last step (from 1), int32 ``[B]``.
        done: whether the confidence ended it, bool ``[B]``; False where ``steps`` did.
        spikes: spikes of each image up to its last step, int64 ``[B]``.
        operations: synaptic operations likewise, without the heads'.
        sizes: images that each step was computed for, int ``[T]``.
        undecided: images of which no head has fired up to its last step, so that the prediction is
            class 0, bool ``[B]``.
        trace: every step up to the last of all; behind its own last step an image keeps its sums
            and counts nothing.
    """

    predictions: NDArray[np.integer]
    confidence: NDArray[np.floating]
    stops: NDArray[np.int32]
    done: NDArray[np.bool_]
    spikes: NDArray[np.integer]
    operations: NDArray[np.integer]
    sizes: NDArray[np.integer]
    undecided: NDArray[np.bool_]
    trace: Trace


def early_exit(
    snn: Spiking,
    images: Array | np.ndarray,
    rule: Rule,
    *,
    steps: int,
    every: int = EVERY,
    devices: int = 1,
) -> EarlyExit:
    """Simulate each image until the rule is sure of it, or for ``steps`` steps.

    Args:
        snn: a network with a side exit, whose heads spike at most once a step.
        images: ``[B, H, W, C]`` as for :func:`jaxsnn.simulate`.
        rule: when to stop; its alpha curve has at least ``steps`` values.
        steps: most steps to simulate.
        every: steps between two looks at who has stopped.
        devices: local devices to share the batch between (it must divide B).

    Raises:
        UserError: a rule that does not fit the network or the steps, or as ``simulate``.
    """
    rule = checked(snn, rule, whole_number("steps", steps, 1, MOST_STEPS))
    ended = image_by_image.run(snn, images, sure, rule, steps=steps, every=every, devices=devices)
    sums = tuple(one[-1] for one in ended.trace.readouts)
    predictions, reached = jax.device_get(_judged(rule, sums, jnp.asarray(ended.stops)))
    counters: Any = ended.trace.counters
    operations = counters_module.synaptic_operations(counters.events, snn.arch)
    heads = tuple(site.name for site in head_sites(snn.arch))
    return EarlyExit(
        predictions=predictions,
        confidence=reached,
        stops=ended.stops,
        done=ended.done,
        spikes=counters_module.total(counters.spikes).sum(0),
        operations=counters_module.total(operations, without=heads).sum(0),
        sizes=ended.sizes,
        undecided=~np.any([sums[rule.early].any(-1), sums[rule.final].any(-1)], axis=0),
        trace=ended.trace,
    )


def checked(snn: Spiking, rule: Rule, steps: int) -> Rule:
    """The rule as arrays, if it may stop a simulation of ``steps`` steps of ``snn``.

    Raises:
        UserError: a curve that is too short, a threshold outside 0 to 1, an earliest step outside
            1 to ``steps``, or a head that is not there, is the other one, or counts no spikes.
    """
    check_heads(snn, rule)
    alpha, threshold, earliest = map(np.asarray, (rule.alpha, rule.threshold, rule.earliest))
    if alpha.ndim != 1 or len(alpha) < steps:
        raise UserError(
            f"the rule's alpha has shape {alpha.shape}, the simulation {steps} steps: give a curve "
            f"of at least {steps} values, or simulate fewer steps"
        )
    bayes.check_curve(alpha, len(alpha))
    if threshold.ndim or not 0 <= threshold <= 1:
        raise UserError(f"threshold={rule.threshold}: a confidence is a number from 0 to 1")
    whole = earliest.ndim == 0 and int(earliest) == earliest
    if not whole or not 1 <= earliest <= max(steps, 1):
        raise UserError(f"earliest={rule.earliest}: the first step to stop at is 1 to {steps}")
    return rule.replace(  # pyright: ignore[reportAttributeAccessIssue] - added by the decorator
        alpha=jnp.asarray(alpha, jnp.float32),
        threshold=jnp.asarray(threshold, jnp.float32),
        earliest=jnp.asarray(earliest, jnp.int32),
    )


def check_heads(snn: Spiking, rule: Rule) -> None:
    """Refuse a rule of heads that the network does not have, or that do not spike.

    Raises:
        UserError: naming the head and the remedy.
    """
    sites = head_sites(snn.arch)
    for which, number in (("early", rule.early), ("final", rule.final)):
        if not -len(sites) <= number < len(sites):
            raise UserError(
                f"{which}={number}: the network has {len(sites)} heads, "
                f"{', '.join(site.name for site in sites)}; count them from 0"
            )
        neuron, name = snn.neurons.at(sites[number]), sites[number].name
        if neuron.spikes != (0, 1):
            raise UserError(
                f"{name}: {neuron.name!r} does not fire at most one spike a step, which the fusion "
                "counts; convert with methods.rate(spiking_heads=True)"
            )
    if sites[rule.early] == sites[rule.final]:
        raise UserError(
            f"early={rule.early} and final={rule.final} are one head, {sites[rule.final].name}: "
            "the fusion takes two; give the network a side exit"
        )


def fused(rule: Rule, sums: tuple[Array, ...], steps: Array) -> Posterior:
    """The posterior of the final neurons' firing probabilities after some steps.

    Args:
        rule: its alpha curve and heads are used.
        sums: spike counts of every head, ``[..., classes]``.
        steps: number of steps so far (from 1), int, of the axes before the classes.
    """
    alpha = jnp.asarray(rule.alpha)[steps - 1]
    early, final = sums[rule.early], sums[rule.final]
    return bayes.posterior(early, final, alpha[..., None], steps[..., None])


def certainty(rule: Rule, posterior: Posterior) -> Array:
    """Confidence in the class of the highest mean, float ``[...]`` of ``[..., classes]``."""
    return calibrated(rule, confidence.gap(posterior))


def calibrated(rule: Rule, score: Array) -> Array:
    """The confidence that a score stands for; it is the score where nothing was calibrated."""
    return score if rule.calibration is None else rule.calibration.probability(score)


def sure(rule: Rule, sums: tuple[Array, ...], counters: Counters, numbers: Array) -> Array:
    """The criterion: which images have reached the rule's confidence, bool ``[K, B]``.

    >>> counts = jnp.array([[[0, 3], [1, 2]]])  # two images, two classes, after step 3
    >>> nothing = Counters({}, {}, {})
    >>> sure(Rule(jnp.ones(3), 0.9), (counts, counts), nothing, jnp.array([2])).tolist()
    [[True, False]]
    """
    del counters
    steps = numbers[:, None] + 1
    reached = certainty(rule, fused(rule, sums, steps)) >= jnp.asarray(rule.threshold)
    return reached & (steps >= rule.earliest)


@jax.jit
def _judged(rule: Rule, sums: tuple[Array, ...], stops: Array) -> tuple[Array, Array]:
    """Prediction and confidence ``[B]`` from the counts ``[B, classes]`` at each last step."""
    posterior = fused(rule, sums, stops)
    return jnp.argmax(posterior.mean, axis=-1), certainty(rule, posterior)
