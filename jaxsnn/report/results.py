"""results.json: the outcome of one setting of an experiment, typed and read strictly."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from jaxsnn.io.files import plain, write_json
from jaxsnn.io.typed_json import from_text
from jaxsnn.types import JsonObject

Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["quantised", "fp32"]
Equality = Literal["exact", "exact after settling", "approximate"]
Part = bool | int | float | str | list[int] | None
Energy = dict[str, dict[str, float | None] | float | str | None]


class Mismatches(TypedDict):
    """What a certificate found: neurons and predictions that differ, of the images compared."""

    neurons: int
    predictions: int
    compared: int


class Layer(TypedDict):
    """Counts of one layer; ``rate`` is per threshold unit, ``silent``, ``saturated`` fractions."""

    name: str
    neurons: int
    spikes_per_image: float
    rate: float | None
    silent: float | None
    saturated: float | None
    sops_per_image: float | None
    mismatches: int | None


class Noise(TypedDict):
    """Accuracy of every repetition at a noise ratio."""

    ratio: float
    accuracy: list[float]


class Seconds(TypedDict):
    """Durations of a run's parts."""

    compile: float | None
    train: float | None
    simulate: float | None


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What tells a run from the others of its system. Names are made from it and never read back.

    Attributes:
        network: name of the network, without precision and data set.
        precision: whether the trained network is quantised.
        k: fractional bits of an activation, of a quantised network in steps of ``2^-k``.
        bound: highest activation.
        bits: bits of activations and weights.
        width: channels and units of the hidden layers, times those of the paper.
        variant: what the user or the system calls this way to train or run the network.

    >>> RunSettings(network="lenet", k=1, bound=2).units, RunSettings(network="cnn1", k=1).units
    (4, None)
    """

    network: str
    precision: Precision = "quantised"
    k: int | None = None
    bound: int | None = None
    bits: int | None = None
    width: float = 1.0
    variant: str | None = None

    @property
    def units(self) -> int | None:
        """Threshold units per neuron, ``2^k * bound``; None without both."""
        return None if self.k is None or self.bound is None else 2**self.k * self.bound


@dataclass(frozen=True, kw_only=True)
class TrainedBy:
    """How the weights were trained, as the run's folder has it.

    Attributes:
        recipe: name of the recipe; None: the system has one way to train.
        compute: arithmetic of the training.
        epochs: passes over the training images that were asked for, of all phases together.
        parts: every part of the recipe by its flag's name; of the last phase, where there are
            several.
        phases: what each phase had of its own, such as epochs and learning rate, and the update
            that it began with (the one before ended there, however long it was to be); empty where
            there was one.
    """

    recipe: str | None = None
    compute: str | None = None
    epochs: int
    parts: dict[str, Part]
    phases: tuple[dict[str, Part], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Another way to run the network, and what it costs; None where it was not measured.

    Attributes:
        kind: which way.
        share: of the ANN's accuracy; the other fields are of the first step that reaches it. None:
            they are of the last step.
        accuracy: on the test set.
        steps: time steps, in the mean over the images where each ends by itself.
        spikes_per_image: of all layers.
        sops_per_image: synaptic operations.
        energy_pj_per_image: by the name of the ledger.
    """

    kind: str
    share: float | None = None
    accuracy: Fraction | None = None
    steps: int | float | None = None
    spikes_per_image: float | None = None
    sops_per_image: float | None = None
    energy_pj_per_image: Energy | None = None


@dataclass(frozen=True, kw_only=True)
class Results:
    """The content of results.json: one setting of one experiment.

    Accuracies are fractions, steps are 1-based, counts are means per image over the test set
    unless said otherwise, energies are picojoules; what does not apply is None. ``setting`` is what
    the run is called in tables, ``settings`` what it is. ``argv`` is the command that wrote the
    file. ``test_examples`` is the number of images or recordings that were tested.
    ``sops_per_image`` is the hardware-free count, and ``ann_macs_per_image`` counts the same
    synapses. ``conversion`` has the settings, by the names of their flags, that the spiking network
    was made with beyond those in ``settings``; they differ by system. ``undecided`` is the share of
    images without a spike or a sum to decide on after the last step, whose prediction is class 0.
    ``given_predictions`` differ from those of the ANN as it was trained, of the images that the
    certificate compared.

    >>> results = Results(experiment="mnist_lenet", system="scatter_gather", dataset="digits",
    ...                   setting="k1B2", settings=RunSettings(network="lenet", k=1, bound=2))
    >>> results.find("signed") is None
    True
    """

    experiment: str
    system: str
    dataset: str
    setting: str
    settings: RunSettings
    argv: list[str] | None = None
    training: TrainedBy | None = None
    epochs_run: int | None = None
    test_examples: int | None = None
    float_ann_accuracy: Fraction | None = None
    ann_accuracy: Fraction | None = None
    snn_accuracy: Fraction | None = None
    accuracy_per_step: list[float] | None = None
    steps: int | None = None
    accuracy_settled_step: int | None = None
    last_spike_step: int | None = None
    undecided: Fraction | None = None
    equality: Equality | None = None
    mismatches: Mismatches | None = None
    given_predictions: int | None = None
    spikes_per_image: float | None = None
    positive_spikes_per_image: float | None = None
    negative_spikes_per_image: float | None = None
    spikes_per_neuron: float | None = None
    sops_per_image: float | None = None
    ann_macs_per_image: float | None = None
    energy_pj_per_image: Energy | None = None
    layers: list[Layer] | None = None
    variants: list[Variant] | None = None
    noise: list[Noise] | None = None
    paper: dict[str, float | int | None] | None = None
    seconds: Seconds | None = None
    conversion: dict[str, Part] | None = None
    precision: str | None = None
    device: str | None = None
    seed: int | None = None
    versions: dict[str, str | None] | None = None
    commit: str | None = None

    def find(self, kind: str, share: float | None = None) -> Variant | None:
        """The variant of a kind at a share of the ANN's accuracy; None where there is none."""
        same = (one for one in self.variants or [] if (one.kind, one.share) == (kind, share))
        return next(same, None)

    def to_json(self) -> JsonObject:
        """Return a dictionary of plain JSON values, every field present."""
        return plain(asdict(self))


def write_results(folder: str | Path, results: Results) -> Path:
    """Write ``results.json`` into the folder of its setting.

    Raises:
        UserError: a value does not follow the schema, and could not be read again.
    """
    path, record = Path(folder) / "results.json", results.to_json()
    from_text(Results, json.dumps(record), path)
    return write_json(path, record)


def read_results(path: str | Path) -> Results:
    """Read one ``results.json``.

    Raises:
        UserError: the file is broken or does not follow the schema; the message names file, field
            and what is expected.
    """
    return from_text(Results, Path(path).read_bytes(), path)


def sort_key(row: Results) -> tuple[object, ...]:
    """By network, then bits, ``k`` and bound as numbers; full precision before ``k`` of 0."""
    one = row.settings
    numbers = (-1 if one.k is None else one.k, one.bound or 0, one.width)
    return one.network, one.bits or 0, *numbers, row.setting
