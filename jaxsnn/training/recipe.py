"""A recipe of optimisation as one value: what of training is neither the network nor the data.

``PAPER`` is what the published systems do, ``FAST`` is made for a tenth of their epochs,
``FINETUNE`` goes on from weights that are trained. The parts of ``FAST`` are those of
cifar10-airbench (K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498,
and its Muon variant), carried over to networks whose neurons are quantised and whose pools are
learned.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from jaxsnn.errors import UserError

Name = Literal["paper", "fast"]
Flip = Literal["none", "random", "alternating"]
Optimiser = Literal["adam", "sgd", "muon"]
Schedule = Literal["constant", "cosine", "linear", "steps"]
Start = Literal["normal", "dirac"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the weights are moved, from where, and what is shown on the way.

    Learning rates are those of the mean loss of a batch; each falls as the schedule says.

    Attributes:
        optimiser: of the kernels. "adam" moves everything; beside "sgd" and "muon" biases, norms
            and readout are moved by SGD, and beside "muon" every kernel that has no batch norm
            behind it, since its length matters.
        learning_rate: of the kernels (adam: of everything).
        bias_learning_rate: of biases, norm parameters and learned clips; None: the kernels'.
        readout_learning_rate: of the kernels of readout and side exits; None: the kernels'.
        momentum: of sgd and muon.
        nesterov: whether it is Nesterov's momentum.
        newton_schulz_steps: iterations that make muon's update orthogonal.
        weight_decay: added to the gradient, times the weight; under sgd and muon.
        decay_all: it acts on all parameters; otherwise on the kernels of hidden layers alone.
        decay_clips: with decay_all, on learned clips, too.
        schedule: course of the learning rates over the epochs; cosine and linear end at zero,
            "steps" multiplies them at the epochs that the run names.
        batch_size: images of an update.
        micro_batch: images whose gradient, and batch statistics, are computed at once; 0: all.
        label_smoothing: share of the target that is spread over all classes.
        crop_radius: most pixels between a training window and the central one; None: anywhere.
        flip: which images are mirrored, where the data set allows it.
        colours: draw brightness and contrast.
        whitened: the first layer starts as pairs of whitening filters of the training images.
        start: "normal": the original's cut normals; "dirac": every 3x3 convolution passes its input
            on, every learned pool averages, beside noise.
        norm_scale: value at which every scale of batch norm is fixed; 0: it is trained.
        norm_momentum: share that running statistics keep in an update.
        averaging: share that the average of the weights keeps in an update; 0: no average.
        final_statistics: training images on which the statistics of batch norm are computed anew
            at the end, in float32; 0: the running ones stay.
        spike_penalty: weight in the loss of the mean activation of all hidden neurons.

    Raises:
        UserError: a value out of range.

    >>> PAPER.optimiser, FAST.optimiser, FAST.norm_scale
    ('adam', 'muon', 1.0)
    """

    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    bias_learning_rate: float | None = 1e-3
    readout_learning_rate: float | None = 1e-3
    momentum: float = 0.9
    nesterov: bool = True
    newton_schulz_steps: int = 3
    weight_decay: float = 0.0
    decay_all: bool = False
    decay_clips: bool = True
    schedule: Schedule = "cosine"
    batch_size: int = 128
    micro_batch: int = 0
    label_smoothing: float = 0.0
    crop_radius: int | None = None
    flip: Flip = "random"
    colours: bool = True
    whitened: bool = False
    start: Start = "normal"
    norm_scale: float = 0.0
    norm_momentum: float = 0.9
    averaging: float = 0.0
    final_statistics: int = 0
    spike_penalty: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values out of range, by name."""
        positive = ("learning_rate", "bias_learning_rate", "readout_learning_rate")
        for name in positive:
            rate = getattr(self, name)
            fits = name != "learning_rate" if rate is None else 0 < rate < math.inf
            _require(self, name, fits, "a number above 0")
        for name in ("momentum", "label_smoothing", "norm_momentum", "averaging"):
            _require(self, name, 0 <= getattr(self, name) < 1, "0 or more, and less than 1")
        for name in ("weight_decay", "spike_penalty", "norm_scale"):
            _require(self, name, 0 <= getattr(self, name) < math.inf, "0 or more")
        for name in ("newton_schulz_steps", "batch_size"):
            _require(self, name, getattr(self, name) >= 1, "1 or more")
        for name in ("crop_radius", "final_statistics"):
            _require(self, name, (getattr(self, name) or 0) >= 0, "0 or more")
        micro = self.micro_batch
        fits = micro == 0 or (micro >= 1 and self.batch_size % micro == 0)
        _require(self, "micro_batch", fits, f"a divisor of the batch size {self.batch_size}, or 0")


def _require(recipe: Recipe, name: str, holds: bool, remedy: str) -> None:
    if not holds:
        raise UserError(f"{name} is {getattr(recipe, name)!r} in the recipe; give {remedy}")


PAPER = Recipe()
FAST = Recipe(
    optimiser="muon",
    learning_rate=0.05,
    bias_learning_rate=0.03,
    readout_learning_rate=0.03,
    schedule="linear",
    batch_size=512,
    micro_batch=64,
    label_smoothing=0.2,
    crop_radius=4,
    flip="alternating",
    colours=False,
    whitened=True,
    start="dirac",
    norm_scale=1.0,
    norm_momentum=0.6,
    final_statistics=5000,
)
FINETUNE = Recipe(
    learning_rate=3e-4,
    schedule="linear",
    colours=False,
    final_statistics=5000,
)
RECIPES: dict[Name, Recipe] = {"paper": PAPER, "fast": FAST}

PARTS = tuple(field.name for field in dataclasses.fields(Recipe))
AUGMENTATION = ("crop_radius",)  # those that a later phase of a training may change
