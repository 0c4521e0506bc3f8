"""Somebody's network under every method: which can convert it, how well, at what cost."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.arch.notation import Arch
from jaxsnn.arch.plan import spiking_sites
from jaxsnn.conversion.calibration import Calibration, calibrate
from jaxsnn.conversion.float_reference import snapped
from jaxsnn.conversion.method import Method
from jaxsnn.conversion.spiking import Spiking, comes_to_rest, settled
from jaxsnn.equality.certificate import Certificate
from jaxsnn.equality.certify import certify
from jaxsnn.equality.rates import is_rate_coded
from jaxsnn.errors import UserError
from jaxsnn.inputs import class_numbers
from jaxsnn.inputs.encoding import Encoding
from jaxsnn.inputs.preprocess import PIXELS
from jaxsnn.io.progress import batches
from jaxsnn.network import net as net_module
from jaxsnn.network.jitted import jitted
from jaxsnn.network.net import Net
from jaxsnn.report import energy
from jaxsnn.report.comparison import Comparison, Trial, described, within_step
from jaxsnn.simulation.dataset import checked_labels, evaluate
from jaxsnn.simulation.totals import Evaluation
from jaxsnn.simulation.until_silent import restless
from jaxsnn.types import Variables

CALIBRATED = 500  # images that are enough for percentiles
SETTLING_STEPS = 1024
RATE_STEPS = 100

After = Callable[[Trial], object]


def compare(
    variables: Variables,
    arch: Arch,
    images: Array | np.ndarray,
    labels: Array | np.ndarray,
    *,
    encoding: Encoding = PIXELS,
    calibration: Calibration | None = None,
    methods: Sequence[Method] | None = None,
    rate_steps: int = RATE_STEPS,
    settling_steps: int = SETTLING_STEPS,
    certified: int = 200,
    batch_size: int = 100,
    progress: bool = False,
    after: After | None = None,
) -> Comparison:
    """Convert a trained network by every method, and measure each on the same images.

    Nothing is trained. A method that cannot convert the network has its reason in the table.

    Args:
        variables: ``params`` and ``batch_stats`` of a network of ReLUs.
        arch: its architecture.
        images: ``[N, H, W, C]`` test images in whole input units.
        labels: whole numbers ``[N]``.
        encoding: what one input unit is worth.
        calibration: of this network, on training images; None: on the first 500 of ``images``.
        methods: to try; None: every one, with the options that the calibration gives.
        rate_steps: steps of a network whose input never ends.
        settling_steps: most steps of one that comes to rest.
        certified: images that are compared neuron by neuron; 0: no certificate.
        batch_size: images per compiled call.
        progress: show bars, with the time that is left, on a terminal.
        after: called with each row as soon as it is there.

    Raises:
        UserError: no images, not as many labels, labels that are no classes, or images that are no
            whole units.
    """
    images = np.asarray(images)
    labels = class_numbers(labels, arch.classes, "labels")
    checked_labels(images, labels, arch.classes)
    if calibration is None:
        named = "calibrating" if progress else ""
        some = images[:CALIBRATED]
        calibration = calibrate(variables, arch, some, encoding=encoding, progress=named)
    tried = calibration.candidates if methods is None else tuple(methods)
    sizes = _Sizes(rate_steps, settling_steps, certified, batch_size)
    outcomes: list[tuple[Trial, _Measured | None]] = []
    for number, method in enumerate(tried, 1):
        name = f"{number}/{len(tried)} {method.name}" if progress else ""
        row, measured = _tried(calibration, method, images, labels, sizes, name)
        before = sum(_text(one) == _text(method) for one in tried[: number - 1])
        if before:  # they differ in what the text leaves out, such as scales
            row = replace(row, options=f"{row.options}, no. {before + 1}".removeprefix(", "))
        outcomes.append((row, measured))
        if after is not None:
            after(outcomes[-1][0])
    kept = {trial.label: measured for trial, measured in outcomes if measured is not None}
    return Comparison(
        accuracy=accuracy(calibration.trained, variables, images, labels, encoding, batch_size),
        images=len(images),
        trials=tuple(trial for trial, _ in outcomes),
        networks={label: one[0] for label, one in kept.items()},
        evaluations={label: one[1] for label, one in kept.items()},
        certificates={label: one[2] for label, one in kept.items() if one[2] is not None},
        methods={trial.label: one for (trial, _), one in zip(outcomes, tried, strict=True)},
    )


_Measured = tuple[Spiking, Evaluation, Certificate | None]


class _Sizes(NamedTuple):
    """How much is simulated; fields as the arguments of :func:`compare`."""

    rate_steps: int
    settling_steps: int
    certified: int
    batch_size: int


def _tried(
    calibration: Calibration,
    method: Method,
    images: np.ndarray,
    labels: np.ndarray,
    sizes: _Sizes,
    name: str,
) -> tuple[Trial, _Measured | None]:
    """The row of one method, and its network and what was measured; None where it has none."""
    began, row = time.perf_counter(), Trial(method=method.name, options=described(method))
    try:
        snn = calibration.convert(method)
        steps, settle = _horizon(snn, method, sizes)
        measured = _measured(calibration, snn, images, labels, sizes, (steps, settle), name)
    except UserError as error:  # the images and labels are known to be right
        return replace(row, reason=_short(error)), None
    weights, size = snapped(calibration.variables, snn), sizes.batch_size
    quantised = accuracy(snn.float_ann, weights, images, labels, snn.encoding, size)
    filled = _filled(row, measured, quantised, settle)
    return replace(filled, seconds=time.perf_counter() - began), measured


def _horizon(snn: Spiking, method: Method, sizes: _Sizes) -> tuple[int, bool]:
    """Steps to simulate, and whether the run ends in silence before."""
    if all(snn.neurons.at(site).stateless for site in spiking_sites(snn.arch)):
        return 1, False
    if comes_to_rest(snn) and not restless(snn):
        return sizes.settling_steps, True
    return method.duration or sizes.rate_steps, False


def _measured(
    calibration: Calibration,
    snn: Spiking,
    images: np.ndarray,
    labels: np.ndarray,
    sizes: _Sizes,
    horizon: tuple[int, bool],
    name: str,
) -> _Measured:
    """Simulation of all images, certificate of some."""
    run: dict[str, Any] = dict(zip(("steps", "settle"), horizon, strict=True))
    size, some = min(sizes.batch_size, len(images)), images[: sizes.certified]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the row says what has not settled
        spiking = evaluate(
            snn, images, labels, batch_size=size, progress=_named(name, "simulating"), **run
        )
        if not len(some) or not _has_reference(snn):
            return snn, spiking, None
        size = min(size, len(some))
        run |= {"batch_size": size, "progress": _named(name, "certifying")}
        return snn, spiking, certify(snn, calibration.variables, some, **run)


def _has_reference(snn: Spiking) -> bool:
    """Whether theory gives every final count, or every rate, which a certificate needs."""
    if is_rate_coded(snn):
        return True
    try:
        settled(snn)
    except UserError:
        return False
    return True


def _filled(row: Trial, measured: _Measured, quantised: float, settle: bool) -> Trial:
    """The row with what was measured."""
    snn, spiking, proof = measured
    per_step = tuple(spiking.accuracy_per_step)
    rests = snn.encoding.ends is not None
    word = None if _has_reference(snn) else "approximate"
    return replace(
        row,
        quantised_accuracy=quantised,
        accuracy_per_step=per_step,
        settled_step=within_step(per_step, quantised),
        last_spike_step=int(spiking.last_spike_step.max()) if rests else None,
        spikes_per_image=float(spiking.per_image_spikes.mean()),
        operations_per_image=float(spiking.per_image_operations.mean()),
        energy_pj_per_image=energy.ledger(snn, spiking, settle=settle).to_json(),
        equality=word if proof is None else proof.equality,
        certified=0 if proof is None else proof.images,
        given_predictions=None if proof is None else proof.given_predictions,
        unsettled=int(spiking.unsettled.sum()) if settle else 0,
    )


def accuracy(
    net: Net,
    variables: Variables,
    images: np.ndarray,
    labels: np.ndarray,
    encoding: Encoding,
    batch_size: int = 100,
) -> float:
    """Share of the images that a network that does not spike predicts rightly.

    Args:
        net: the network.
        variables: its tree.
        images: ``[N, H, W, C]`` whole input units.
        labels: ``[N]``.
        encoding: what one unit is worth.
        batch_size: images per compiled call.
    """
    hits = 0
    for rows, real in batches(len(images), min(batch_size, len(images))):
        batch = encoding.decode(jnp.asarray(images[rows]))
        predicted = np.asarray(_classes(cast("Any", net), variables, batch))
        hits += int(np.sum(predicted[:real] == labels[rows[:real]]))
    return hits / len(images)


@jitted("net")
def _classes(net: Net, variables: Variables, images: Array) -> Array:
    return jnp.argmax(net_module.forward(net, variables, images).readouts[-1][0], axis=-1)


def _text(method: Method) -> tuple[str, str]:
    """What a table says of a method."""
    return method.name, described(method)


def _named(name: str, what: str) -> str:
    return f"{name}: {what}" if name else ""


def _short(error: UserError) -> str:
    """A refusal on one line, without its heading."""
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(lines[1:] if lines[0].endswith("cannot convert:") else lines)
