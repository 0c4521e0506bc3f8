"""Settings of the directly trained spiking network."""

import functools
import itertools
import math
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import ClassVar, Literal

from jaxsnn.inputs.augment_events import FARTHEST, LATEST
from jaxsnn.report.results import RunSettings
from jaxsnn.systems.settings.base import Scripted, require
from jaxsnn.types import JsonObject

OF_EVENTS = (
    *("time_window", "event_count", "frames", "filter_time"),
    *("rotation", "dropped_events", "time_jitter", "padded_loss"),
)
"""Settings of recordings alone."""
OF_STEPS = ("lr_step", "lr_factor")
"""Settings of a learning rate that falls in steps."""


@dataclass(frozen=True)
class NmnistCsnn(Scripted):
    """A convolutional network of leaky integrate-and-fire neurons, trained by surrogate gradients.

    >>> NmnistCsnn().dataset, NmnistCsnn(spike=True).dataset, NmnistCsnn(spike=True).setting
    ('mnist', 'nmnist', 'spike')
    >>> NmnistCsnn(spike=True).out, NmnistCsnn(dataset="digits").batch_size
    ('runs/nmnist_csnn', 64)
    """

    experiment = "nmnist_csnn"
    usual_epochs: ClassVar[dict[str, int]] = {"": 20}
    before: ClassVar[JsonObject] = {"initial_rate": 0.0}
    parts_of_training = (
        *Scripted.parts_of_training,
        *("lr_step", "lr_factor", "loss", "surrogate", "slope", "subset"),
        *("checkpoint", "initial_rate", "shift", "dropped_events", "time_jitter"),
    )
    aliases: ClassVar[dict[str, str]] = {
        "model.slope": "slope",
        "model.beta": "beta",
        "model.checkpoint": "checkpoint",
        "data.root": "data_dir",
        "data.spike": "spike",
        "data.subset": "subset",
        "data.num_workers": "num_workers",
        "train.batch_size": "batch_size",
        "train.num_steps": "num_steps",
        "train.num_epochs": "epochs",
        "num_epochs": "epochs",
        "train.lr": "learning_rate",
        "train.lr_step": "lr_step",
        "train.lr_factor": "lr_factor",
    }
    usual_batch: ClassVar[dict[str, int]] = {"digits": 64, "nmnist": 128, "": 1024}

    exp_id: str = ""
    """Name of the run's folder below --out. Empty: static, or spike with --spike."""
    spike: bool = False
    """Events of a neuromorphic camera instead of static images."""
    dataset: str = ""
    """Data set: mnist, fashion_mnist, nmnist (with --spike), or digits (embedded: no files,
    minutes; with --spike as events that a moving camera would see). Empty: mnist, or nmnist with
    --spike."""
    epochs: int | None = None
    """Passes over the training examples of this phase. None: 20."""
    batch_size: int = 0
    """Examples per training step. 0: 1024 (nmnist 128, digits 64)."""
    learning_rate: float = 1e-2
    """Adam's step size at the beginning."""
    schedule: Literal["steps", "cosine", "constant"] = "steps"
    """Course of the learning rate: steps (see --lr_step), cosine (to zero), or constant."""
    lr_step: tuple[int, ...] = (10, 15)
    """Epochs before which the learning rate is multiplied by --lr_factor."""
    lr_factor: float = 0.1
    """What the learning rate is multiplied by at each of --lr_step."""
    num_steps: int = 50
    """Time steps that a static image is shown for; events take as many as they have frames."""
    beta: float = 0.5
    """Leak: what is left of a membrane potential after one step."""
    slope: float | None = None
    """Slope of the surrogate. None: that of its source, which is 25 for fast_sigmoid."""
    surrogate: Literal[
        "fast_sigmoid", "arctan", "sigmoid", "triangular", "straight_through", "superspike"
    ] = "fast_sigmoid"
    """Derivative that stands for that of the step."""
    reset: Literal["delayed", "subtract", "zero", "none"] = "delayed"
    """Reset: delayed (the threshold, one step after the spike: the original's), subtract (at once),
    zero (the whole potential, at once) or none."""
    learn: tuple[str, ...] = ()
    """Neuron parameters to be learned, per channel: leak, threshold."""
    loss: Literal["ce_rate", "mse_count", "ce_membrane"] = "ce_rate"
    """Loss: cross entropy of the spikes at every step, squared error of the spike counts, or cross
    entropy of the membrane potentials at every step."""
    padded_loss: bool = False
    """Let the empty steps behind a recording's end enter the loss, as the original does."""
    rotation: float = 10.0
    """Recordings are turned by up to so many degrees in training; 0: not."""
    shift: int = 0
    """Images and recordings are moved by up to so many pixels in training, up or down and left or
    right; 0: not."""
    dropped_events: float = 0.0
    """Recordings lose a share of their events in training, drawn for each uniformly from 0 to this;
    0: none."""
    time_jitter: float = 0.0
    """Every event is moved in time in training, by a normally distributed number of frames of this
    standard deviation; 0: not."""
    time_window: int | None = None
    """Microseconds of a frame of events. None: 1000, unless --event_count or --frames is given."""
    event_count: int | None = None
    """Events of a frame, instead of a time window."""
    frames: int | None = None
    """Frames of a recording, of equal duration, instead of a time window."""
    filter_time: int | None = 10_000
    """Microseconds: an event is dropped as noise if no neighbouring pixel had one within this time
    before it; None: keep all."""
    initial_rate: float | None = None
    """Spikes per neuron and step that every layer starts with on some training examples, by one
    factor for its weights; 0: weights as drawn. None: 0.02 for events in frames of a time window,
    which hold so few that the network would not fire at all, else 0; 0 with --checkpoint."""
    checkpoint: str = ""
    """Start from these weights: the folder of a run, or its model.npz or best.npz."""
    subset: int = 1
    """Train on one of so many static images, of every class its share; 1: on all."""
    num_workers: int = 32
    """Accepted for the original's sake, without effect: the data lie on the device."""
    micro_batch: int | None = None
    """Examples whose gradient is computed at once. None: 2 on a CPU, on an accelerator all."""
    time_block: int | None = None
    """Steps that are computed again on the way back, block by block, to save memory; None: all are
    kept."""
    test_every_epoch: bool = False
    """Test after every epoch and draw the curve, as the original does; nothing is chosen by it."""

    def __post_init__(self) -> None:
        """Fill in what follows from the data set; refuse values out of range."""
        put = functools.partial(object.__setattr__, self)
        if not self.dataset:
            put("dataset", "nmnist" if self.spike else "mnist")
        name = PurePath(self.dataset).stem
        require(name != "nmnist" or self.spike, "dataset", name, "--spike true with it: events")
        require(self.batch_size >= 0, "batch_size", self.batch_size, "1 or more")
        put("batch_size", self.batch_size or self.usual_batch.get(name, self.usual_batch[""]))
        if name == "nmnist" and not self.out:
            put("out", f"runs/{self.experiment}")
        if self.initial_rate is None:
            sparse = self.spike and not (self.event_count or self.frames or self.checkpoint)
            put("initial_rate", 0.02 if sparse else 0.0)
        put("exp_id", self.exp_id or ("spike" if self.spike else "static"))
        plain = PurePath(self.exp_id).name == self.exp_id and self.exp_id not in ("..", "figs")
        require(plain, "exp_id", self.exp_id, "a plain name other than figs")
        super().__post_init__()
        self._refuse_numbers()
        for one in self.learn:
            require(one in ("leak", "threshold"), "learn", self.learn, "leak, threshold or both")

    def _refuse_numbers(self) -> None:
        for name in ("num_steps", "subset", "micro_batch", "time_block"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")
        require(0 <= self.beta <= 1, "beta", self.beta, "a number from 0 to 1")
        for name in ("slope", "lr_factor"):
            value = getattr(self, name)
            positive = value is None or (math.isfinite(value) and value > 0)
            require(positive, name, value, "a number above 0")
        rate = self.initial_rate
        require(rate is None or 0 <= rate <= 0.5, "initial_rate", rate, "a number from 0 to 0.5")
        drawn = not (rate and self.checkpoint)
        require(drawn, "initial_rate", rate, "0 with --checkpoint, whose weights are not drawn")
        require(self.num_workers >= 0, "num_workers", self.num_workers, "0 or more")
        require(len(set(self.learn)) == len(self.learn), "learn", self.learn, "each name once")
        require(0 <= self.rotation <= 180, "rotation", self.rotation, "degrees from 0 to 180")
        require(0 <= self.shift <= FARTHEST, "shift", self.shift, f"pixels from 0 to {FARTHEST}")
        share, jitter = self.dropped_events, self.time_jitter
        require(0 <= share <= 1, "dropped_events", share, "a share from 0 to 1")
        require(0 <= jitter <= LATEST, "time_jitter", jitter, f"frames from 0 to {LATEST}")
        steps = self.lr_step
        rising = all(a < b for a, b in itertools.pairwise((0, *steps)))
        require(rising, "lr_step", steps, "ascending epochs of at least 1")
        cuts = [name for name in ("time_window", "event_count", "frames") if getattr(self, name)]
        require(len(cuts) <= 1, " and ".join(cuts) or "frames", cuts, "one way to cut frames")
        for name in ("time_window", "event_count", "frames", "filter_time"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")

    def refuse_idle(self) -> None:
        """Refuse flags that were set and would change nothing.

        Apart from the values themselves, so that config.json of an earlier run can still be read.

        Raises:
            UserError: it names the flag, and what it needs.
        """
        needs = {} if self.spike else dict.fromkeys(OF_EVENTS, "--spike true")
        if self.schedule != "steps":
            needs |= dict.fromkeys(OF_STEPS, "--schedule steps")
        for one in fields(self):
            value, need = getattr(self, one.name), needs.get(one.name)
            remedy = f"{need} with it, or leave the flag out: it would have no effect"
            require(need is None or value == one.default, one.name, value, remedy)

    @property
    def setting(self) -> str:
        """What the run is called, and its folder below ``out``."""
        return self.exp_id

    @property
    def described(self) -> RunSettings:
        """What tells the run from others of its system, for results.json and figures."""
        return RunSettings(network="csnn", precision="fp32", variant=self.exp_id)
