"""One network converted by every method: a row for each, as a table, numbers for a figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from jaxsnn.conversion.method import Method
from jaxsnn.conversion.spiking import Spiking
from jaxsnn.equality.certificate import Certificate
from jaxsnn.errors import UserError
from jaxsnn.report.results import Energy
from jaxsnn.simulation.totals import Evaluation

WITHIN = 0.001  # of the images: accuracies that differ by no more are taken to be the same


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of the network under one method; None where it was not measured.

    Attributes:
        method: name of the method, and
        options: its options, those that are not the usual ones, as text.
        reason: why it does not apply; empty where it does.
        quantised_accuracy: of the network with the method's activations and weights, not spiking.
        accuracy_per_step: of the spiking network after every step.
        settled_step: first step from which the spiking network's accuracy stays within 0.1 point
            of the quantised network's; None: there is none.
        last_spike_step: over all images; None where the input never ends.
        spikes_per_image, operations_per_image: spikes, and synaptic operations without the heads'.
        energy_pj_per_image: by the lines of :mod:`jaxsnn.report.energy`.
        equality: the certificate's word; "approximate" without one where there is no theory.
        certified: images that were compared neuron by neuron; 0: none.
        given_predictions: of those, predictions other than the network's as it is.
        unsettled: images that still spike in the last step of a network that comes to rest.
        seconds: that converting, simulating and comparing took.
    """

    method: str
    options: str = ""
    reason: str = ""
    quantised_accuracy: float | None = None
    accuracy_per_step: tuple[float, ...] = ()
    settled_step: int | None = None
    last_spike_step: int | None = None
    spikes_per_image: float | None = None
    operations_per_image: float | None = None
    energy_pj_per_image: Energy | None = None
    equality: str | None = None
    certified: int = 0
    given_predictions: int | None = None
    unsettled: int = 0
    seconds: float | None = None

    @property
    def applies(self) -> bool:
        """Whether the network could be converted."""
        return not self.reason

    @property
    def accuracy(self) -> float | None:
        """Of the spiking network, after its last step."""
        return self.accuracy_per_step[-1] if self.accuracy_per_step else None

    @property
    def steps(self) -> int | None:
        """Time steps that were simulated."""
        return len(self.accuracy_per_step) or None

    @property
    def is_exact(self) -> bool:
        """Whether a certificate says so, at once or after settling."""
        return (self.equality or "").startswith("exact")

    @property
    def label(self) -> str:
        """Method and options."""
        return f"{self.method}({self.options})"


@dataclass(frozen=True, eq=False)
class Comparison:
    """A network under every method, tried on the same images.

    ``rich`` draws it as a table, ``print(comparison)`` writes it as text.

    Attributes:
        accuracy: of the network as it is, in full precision.
        images: number of test images.
        trials: a row for each method, in the order in which they were tried.
        networks, evaluations, certificates: of those that apply, by :attr:`Trial.label`.
        methods: all that were tried, by label.
    """

    accuracy: float
    images: int
    trials: tuple[Trial, ...]
    networks: Mapping[str, Spiking] = field(default_factory=dict[str, Spiking])
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict[str, Evaluation])
    certificates: Mapping[str, Certificate] = field(default_factory=dict[str, Certificate])
    methods: Mapping[str, Method] = field(default_factory=dict[str, Method])

    @property
    def best(self) -> Trial:
        """The trial to take: exact ones before others, then the most accurate.

        Of those within 0.1 point of the most accurate one it is that with the fewest synaptic
        operations.

        Raises:
            UserError: no method applies, with the reasons.
        """
        usable = [trial for trial in self.trials if trial.applies]
        if not usable:
            reasons = "\n".join(f"{trial.label}: {trial.reason}" for trial in self.trials)
            raise UserError(f"no method can convert the network:\n{reasons}")
        usable = [trial for trial in usable if trial.is_exact] or usable
        top = max(trial.accuracy or 0.0 for trial in usable)
        near = [trial for trial in usable if (trial.accuracy or 0.0) >= top - WITHIN - 1e-9]
        return min(near, key=lambda trial: trial.operations_per_image or 0.0)

    def find(self, method: str) -> Trial:
        """The trial of a method by its name, the first where there are several.

        Raises:
            UserError: it was not tried.
        """
        for trial in self.trials:
            if trial.method == method:
                return trial
        tried = ", ".join(dict.fromkeys(trial.method for trial in self.trials))
        raise UserError(f"method {method!r} was not tried; tried were {tried}")

    def to_json(self) -> dict[str, Any]:
        """Plain values: ``accuracy``, ``images``, ``trials``."""
        trials = [
            dataclasses.asdict(trial) | {"accuracy": trial.accuracy, "steps": trial.steps}
            for trial in self.trials
        ]
        return {"accuracy": self.accuracy, "images": self.images, "trials": trials}

    def __str__(self) -> str:
        """A heading, and a line for each method."""
        lines = [f"{_percent(self.accuracy)} as given, {self.images:,} images"]
        for trial in self.trials:
            if not trial.applies:
                lines.append(f"{trial.label}: does not apply: {trial.reason}")
                continue
            said = zip(_COLUMNS, _cells(trial), strict=True)
            lines.append(f"{trial.label}: " + ", ".join(f"{n} {v}" for n, v in said if v != "-"))
        return "\n".join(lines)

    def __rich__(self) -> Table:
        title = f"{_percent(self.accuracy)} as given, on {self.images:,} test images"
        if taking := {one for trial in self.trials if (one := _microjoules(trial, "ann")) != "-"}:
            title += f"; as an ANN {' or '.join(sorted(taking))} µJ"
        table = Table(
            title=Text(title), caption=_CAPTION, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0)
        )
        table.caption_justify = "left"
        table.add_column("method", overflow="fold", min_width=15)
        for name, (heading, _) in _COLUMNS.items():
            table.add_column(heading, justify="left" if name == "certificate" else "right")
        taken = self.best if any(trial.applies for trial in self.trials) else None
        for trial in self.trials:
            if trial.applies:
                options = [f"\n{one}" for one in trial.options.split(", ") if one]
                name = Text.assemble((trial.method, "bold"), *options)
                style = "green" if trial is taken else None
                table.add_row(name, *map(Text, _cells(trial)), style=style)
        return table

    @property
    def reasons(self) -> dict[str, str]:
        """Method and options -> why it does not apply."""
        return {trial.label: trial.reason for trial in self.trials if not trial.applies}


def described(method: Method) -> str:
    """The options of a method that are not the usual ones, as text.

    Tables of numbers are left out, and that weights keep all their bits.

    >>> from jaxsnn.conversion import methods
    >>> described(methods.scatter_gather(k=1, bound=2)), described(methods.rate(scales={}))
    ('k=1, bound=2', '')
    """
    parts: list[str] = []
    for one in dataclasses.fields(method):
        value = getattr(method, one.name)
        finest = one.name == "weight_bits" and value is None
        if value != one.default and not isinstance(value, Mapping) and not finest:
            parts.append(f"{one.name}={value}")
    return ", ".join(parts)


def within_step(accuracies: tuple[float, ...], wanted: float) -> int | None:
    """First step (from 1) from which an accuracy stays within 0.1 point of what is wanted.

    >>> within_step((0.5, 0.9, 0.7, 0.9, 0.9995), 0.9), within_step((0.5,), 0.9)
    (None, None)
    >>> within_step((0.5, 0.9, 0.7, 0.9, 0.9005), 0.9)
    4
    """
    near = [abs(one - wanted) <= WITHIN + 1e-9 for one in accuracies]
    if not near or not near[-1]:
        return None
    return len(near) - next((n for n, good in enumerate(reversed(near)) if not good), len(near)) + 1


def _cells(trial: Trial) -> list[str]:
    return [of(trial) for _, of in _COLUMNS.values()]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def in_short(value: float | None) -> str:
    """A count in few characters.

    >>> in_short(None), in_short(0.0), in_short(950.0), in_short(12345.0), in_short(2.5e6)
    ('-', '0', '950', '12.3 k', '2.5 M')
    """
    if value is None:
        return "-"
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if value >= least:
            return f"{value / unit:.3g} {letter}"
    return f"{value:.0f}"


def _microjoules(trial: Trial, side: str = "snn") -> str:
    """Energy by the field's convention, of the spiking network or of the quantised one."""
    line = (trial.energy_pj_per_image or {}).get("convention")
    value = line.get(side) if isinstance(line, Mapping) else None
    return "-" if value is None else f"{value / 1e6:.3g}"


def _steps(trial: Trial) -> str:
    """From which step the accuracy stays, and of how many."""
    return f"{_count(trial.settled_step)}/{_count(trial.steps)}"


def _unlike(trial: Trial) -> str:
    """Predictions other than those of the network as it is, of the images that were certified."""
    number = trial.given_predictions
    return "-" if number is None else f"{number:,}/{trial.certified:,}"


def _certificate(trial: Trial) -> str:
    left = f"\n{trial.unsettled:,} unsettled" if trial.unsettled else ""
    return f"{trial.equality or '-'}{left}"


_COLUMNS: Mapping[str, tuple[str, Callable[[Trial], str]]] = {
    "quantised": ("quan-\ntised %", lambda trial: _points(trial.quantised_accuracy)),
    "spiking": ("spiking\n%", lambda trial: _points(trial.accuracy)),
    "steps": ("steps", _steps),
    "spikes": ("spikes", lambda trial: in_short(trial.spikes_per_image)),
    "operations": ("opera-\ntions", lambda trial: in_short(trial.operations_per_image)),
    "energy": ("µJ", _microjoules),
    "unlike given": ("unlike\ngiven", _unlike),
    "certificate": ("certificate", _certificate),
}
_CAPTION = (
    "steps: from which the accuracy stays within 0.1 point of the quantised network's, and of how "
    "many; per image: spikes, synaptic operations without the readout's, energy of its additions "
    "(of the ANN: of float multiplications; Horowitz 2014); unlike given: predictions other than "
    "those of the network as it is, of the images that the certificate compares"
)
