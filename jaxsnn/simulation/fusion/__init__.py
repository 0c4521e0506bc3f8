"""Two heads of one spiking network fused: counts, alpha over time, when to stop.

Habara, Sato and Awano, Frontiers in Neuroscience 18, 2024. ``posterior`` fuses the counts of the
early and the final classifier with one parameter, alpha. ``grid_search`` and ``empirical_bayes``
choose alpha for every step from tuning data: both take batches of cumulative spike counts of both
classifiers with the labels, one batch at a time, and return a curve of one alpha for every step.
Tuning data are training images, never test images. On the host, in float64; what is held beside a
batch grows with ``T`` times the number of candidates, not with the images. The calibrated
confidence says when the fusion is sure enough.
"""

from jaxsnn.simulation.fusion.accuracy import Judged, accuracies, judged, undecided
from jaxsnn.simulation.fusion.alpha import Batches, knots, smoothed
from jaxsnn.simulation.fusion.bayes import (
    SILENT_RATE,
    Posterior,
    counts,
    fused,
    posterior,
    posterior_mean,
    predictions,
)
from jaxsnn.simulation.fusion.confidence import (
    Calibration,
    choose_threshold,
    expected_calibration_error,
    fit,
    gap,
    stopped_accuracy,
    stopping,
)
from jaxsnn.simulation.fusion.empirical_bayes import Mode, empirical_bayes, log_evidence
from jaxsnn.simulation.fusion.grid_search import CANDIDATES, grid_correct, grid_search

__all__ = [
    "CANDIDATES",
    "SILENT_RATE",
    "Batches",
    "Calibration",
    "Judged",
    "Mode",
    "Posterior",
    "accuracies",
    "choose_threshold",
    "counts",
    "empirical_bayes",
    "expected_calibration_error",
    "fit",
    "fused",
    "gap",
    "grid_correct",
    "grid_search",
    "judged",
    "knots",
    "log_evidence",
    "posterior",
    "posterior_mean",
    "predictions",
    "smoothed",
    "stopped_accuracy",
    "stopping",
    "undecided",
]
