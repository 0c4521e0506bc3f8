"""What every system can be asked for that trains by a recipe (:mod:`jaxsnn.training.recipe`)."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import ClassVar, Literal

from jaxsnn.systems.settings.base import Scripted
from jaxsnn.training.recipe import PARTS, RECIPES, Name, Recipe
from jaxsnn.types import JsonObject


@dataclass(frozen=True)
class Trained(Scripted):
    """What every experiment that trains a network can be asked for; None: as the recipe says."""

    usual_recipe: ClassVar[dict[str, Name]] = {"": "paper"}  # by data set; "" for all others
    fast_epochs: ClassVar[dict[str, int]] = {"": 16}
    parts_of_training = (*PARTS, "init")
    before: ClassVar[JsonObject] = {"recipe": "paper", "compute": "float32"}

    recipe: Name | None = None
    """How to train: paper, as the original does, or fast, which is made for a tenth of its
    epochs. Its parts are the flags from --optimiser on. None: the usual one of the data set, but
    paper where --learning-rate or --schedule is among the flags given."""
    compute: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the training (what is certified is not affected): auto takes what is fastest
    here, bfloat16 where a processor's XLA has it from oneDNN, or on a graphics card."""
    init: str = ""
    """Start from these weights, with a new optimiser: the folder of a run (its best epoch, or what
    was kept of it: results/cifar10_cnn1/k1), or an npz file of one."""
    learning_rate: float | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Step size at the beginning, of the kernels (adam: of everything)."""
    schedule: Literal["constant", "cosine", "linear"] | None = None
    """Course of the learning rate; cosine and linear fall to zero over the epochs."""
    batch_size: int | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Images per update."""
    optimiser: Literal["adam", "sgd", "muon"] | None = None
    """What moves the kernels; beside sgd and muon, biases and readout are moved by SGD."""
    bias_learning_rate: float | None = None
    """Step size of biases, norms and learned clips, beside sgd and muon."""
    readout_learning_rate: float | None = None
    """Step size of the readout's kernel, beside sgd and muon."""
    momentum: float | None = None
    """Momentum of sgd and muon."""
    nesterov: bool | None = None
    """Whether it is Nesterov's momentum."""
    newton_schulz_steps: int | None = None
    """Iterations that make an update of muon orthogonal."""
    weight_decay: float | None = None
    """Weight decay, of sgd and muon."""
    decay_all: bool | None = None
    """Let the weight decay act on all parameters, not on the kernels of hidden layers alone."""
    decay_clips: bool | None = None
    """With --decay-all: on learned clips, too."""
    micro_batch: int | None = None
    """Images whose gradient and batch statistics are computed at once; 0: a whole batch."""
    label_smoothing: float | None = None
    """Share of the target that is spread over all classes."""
    crop_radius: int | None = None
    """Most pixels between a training window and the central one, where images are cropped; a
    resumed run may change it, which begins a new phase."""
    flip: Literal["none", "random", "alternating"] | None = None
    """Mirror training images: at random, or alternately from epoch to epoch (colour images)."""
    colours: bool | None = None
    """Draw brightness and contrast in training, where images are standardised."""
    whitened: bool | None = None
    """Start the first convolution from whitening filters of the training images."""
    start: Literal["normal", "dirac"] | None = None
    """Start of the weights: the original's normals, or layers that pass their input on."""
    norm_scale: float | None = None
    """Value at which the scales of batch norm are fixed: smaller is fewer spikes; 0: trained."""
    norm_momentum: float | None = None
    """Share that the running statistics of batch norm keep in an update."""
    averaging: float | None = None
    """Share that the average of the weights keeps in an update; 0: no average."""
    final_statistics: int | None = None
    """Training images on which the statistics of batch norm are computed anew at the end."""
    spike_penalty: float | None = None
    """Weight in the loss of the mean activation of the hidden neurons: fewer spikes."""
    paper_implied: bool = field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Fill in the recipe and its parts; refuse values out of range."""
        chosen, name = self.recipe, PurePath(self.dataset).stem
        if chosen is None:
            implied = not (self.learning_rate is self.schedule is None)
            usual = self.usual_recipe.get(name, self.usual_recipe[""])
            object.__setattr__(self, "paper_implied", implied and usual != "paper")
            chosen = "paper" if implied else usual
            object.__setattr__(self, "recipe", chosen)
        if chosen == "fast" and self.epochs is None:
            epochs = self.fast_epochs.get(name, self.fast_epochs[""])
            object.__setattr__(self, "epochs", epochs)
        asked = {part: getattr(self, part) for part in PARTS if getattr(self, part) is not None}
        for part, value in dataclasses.asdict(
            dataclasses.replace(self.usual_training(chosen), **asked)
        ).items():
            object.__setattr__(self, part, value)
        super().__post_init__()

    def usual_training(self, name: Name) -> Recipe:
        """The recipe of that name for these settings, before any flag changes a part."""
        return RECIPES[name]

    @property
    def training(self) -> Recipe:
        """The recipe with every part that a flag changed."""
        return Recipe(**{part: getattr(self, part) for part in PARTS})
