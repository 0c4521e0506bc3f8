"""What the original of Fast-SNN reports."""

from jaxsnn.systems.setting import Paper
from jaxsnn.systems.settings.fast_snn import FastSnn

# Accuracy on MNIST and LFW of the quantised ANN, and of unsigned, signed and fine-tuned SNN.
QUANTISED: dict[tuple[str, str, int], tuple[float, float, float, float]] = {
    ("mnist", "alex", 3): (0.9898, 0.7892, 0.9890, 0.9889),
    ("mnist", "alex", 2): (0.9893, 0.1462, 0.6272, 0.8178),
    ("mnist", "vgg11", 3): (0.9775, 0.9698, 0.9746, 0.9754),
    ("mnist", "vgg11", 2): (0.9818, 0.9710, 0.9811, 0.9818),
    ("lfw", "alex", 4): (0.9623, 0.5409, 0.9732, 0.9772),
    ("lfw", "alex", 3): (0.9905, 0.6827, 0.9841, 0.9881),
    ("lfw", "vgg11", 4): (0.9436, 0.1151, 0.9277, 0.9453),
    ("lfw", "vgg11", 3): (0.9711, 0.2622, 0.9700, 0.9884),
}


def published(dataset: str, config: FastSnn) -> Paper | None:
    """What the original reports of a setting on a data set; None where it reports nothing."""
    where = dataset, config.arch, config.bit
    if where not in QUANTISED:
        return None
    names = ("ann_accuracy", "unsigned_accuracy", "snn_accuracy", "finetuned_accuracy")
    return dict(zip(names, QUANTISED[where], strict=True))
