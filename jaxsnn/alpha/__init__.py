"""Choice of the fusion's alpha over time, on tuning data: grid search and empirical Bayes.

Habara, Sato and Awano, Frontiers in Neuroscience 18, 2024. Both take batches of cumulative spike
counts of the early and the final classifier with the labels, one batch at a time, and return a
curve of one alpha for every step (:mod:`jaxsnn.fusion` says what alpha means). Tuning data are
training images, never test images. On the host, in float64; what is held beside a batch grows with
``T`` times the number of candidates, not with the images.
"""

from jaxsnn.alpha.curve import knots, smoothed
from jaxsnn.alpha.evidence import Mode, empirical_bayes, log_evidence
from jaxsnn.alpha.search import CANDIDATES, grid_correct, grid_search
from jaxsnn.alpha.tuning_data import Batches

__all__ = [
    "CANDIDATES",
    "Batches",
    "Mode",
    "empirical_bayes",
    "grid_correct",
    "grid_search",
    "knots",
    "log_evidence",
    "smoothed",
]
