"""Operation counts to energy per image: a spiking network beside its quantised ANN.

One ledger, three lines, because papers differ in what they count and the answer depends on it:

1. *convention*: what the field quotes. A float32 multiply-accumulate (MAC) for the ANN, a float32
   addition (AC) for every synaptic operation of the SNN; nothing else is charged.
2. *integer*: the arithmetic that both networks really need once they are quantised. The ANN pays
   an 8-bit multiplication and a 32-bit addition per MAC, or the addition alone where weights are
   ternary; the SNN pays a 32-bit addition per synaptic operation and the additions of each neuron
   update (threshold comparisons, subtraction of the reset). The ANN's quantiser is not charged,
   which favours the ANN. A layer of float32 weights keeps float32 prices.
3. *words*: the memory traffic, at one 32-bit word per value whatever its width, no cache reuse.

   ====================  ==========================================  =========================
   for each              the SNN moves                               the quantised ANN moves
   ====================  ==========================================  =========================
   synaptic operation    1 weight read, 1 potential read, 1 written  -
   MAC                   -                                           1 weight, 1 activation read
   MAC of the encoder    1 weight, 1 pixel read                      the same
   neuron update         1 potential read, 1 written                 -
   spike                 1 word written, 1 read                      -
   neuron                -                                           1 activation written
   ====================  ==========================================  =========================

   Partial sums of a MAC stay in a register.

The encoding layer receives an image, not spikes, so both networks pay its MACs. Where every step
shows another frame, it computes them anew in each step, and the ANN beside it runs on each frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, get_args

from jaxsnn.errors import UserError
from jaxsnn.types import JsonObject

WeightKind = Literal["ternary", "int8", "float32"]


@dataclass(frozen=True)
class Prices:
    """Energy of one operation in picojoules; the defaults are a 45 nm process at 0.9 V.

    Source: M. Horowitz, "Computing's Energy Problem (and what we can do about it)", IEEE ISSCC
    2014, pages 10-14. Its table prices an access to an 8 KB cache at 10 pJ for 64 bits; half of
    that is charged here for a word of 32 bits.
    """

    float32_multiply: float = 3.7
    float32_add: float = 0.9
    int8_multiply: float = 0.2
    int8_add: float = 0.03
    int32_add: float = 0.1
    memory_word: float = 5.0
    source: str = "Horowitz, ISSCC 2014, 45 nm"

    @property
    def float32_mac(self) -> float:
        """A float32 multiplication and addition, in pJ (4.6 with the default prices)."""
        return self.float32_multiply + self.float32_add

    def multiply(self, weights: WeightKind) -> float:
        """Multiplication by a weight of this kind, in pJ; none for a ternary weight."""
        return {"ternary": 0.0, "int8": self.int8_multiply, "float32": self.float32_multiply}[
            weights
        ]

    def add(self, weights: WeightKind) -> float:
        """Addition to a sum of weights of this kind, in pJ."""
        return self.float32_add if weights == "float32" else self.int32_add


HOROWITZ = Prices()
LINES = ("convention", "integer", "words")


@dataclass(frozen=True)
class LayerCounts:
    """What one layer does for one image, averaged over images.

    Attributes:
        name: the site's name, for messages.
        macs: multiply-accumulates of one pass of the ANN.
        synaptic_operations: spikes that reach the layer, each times its fan-out; 0 for an encoder.
        neurons: neurons of the layer, 0 for a readout without neurons.
        updates: neuron updates, that is neurons times simulated steps.
        spikes: spikes that the layer emits.
        weights: how a weight is stored.
        encoder: whether the layer receives the image, so that the SNN pays its MACs too.
        passes: runs of the ANN, and of the encoder: 1 for an image, all steps where each shows
            another frame.
        adds_per_update: additions of one update: 2 for a comparison and a subtraction, the number
            of threshold units (``2^k * B``) for a stateless scatter-and-gather neuron.

    Raises:
        UserError: a count is negative or not finite, the kind of weight is unknown, or an encoder
            has synaptic operations.
    """

    name: str
    macs: float
    synaptic_operations: float
    neurons: int
    updates: float
    spikes: float
    weights: WeightKind
    encoder: bool = False
    passes: float = 1
    adds_per_update: int = 2

    def __post_init__(self) -> None:
        """Refuse counts that no network can have."""
        counted = ("macs", "synaptic_operations", "neurons", "updates", "spikes", "passes")
        for field in (*counted, "adds_per_update"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value >= 0):
                self._refuse(f"{field} is {value}; give a finite count of 0 or more")
        if self.weights not in get_args(WeightKind):
            self._refuse(f"weights are {self.weights!r}; known: {', '.join(get_args(WeightKind))}")
        if self.encoder and self.synaptic_operations:
            self._refuse("an encoder receives no spikes; give 0 synaptic operations and its macs")

    @property
    def all_macs(self) -> float:
        """Multiply-accumulates of all passes."""
        return self.macs * self.passes

    def _refuse(self, why: str) -> NoReturn:
        raise UserError(f"layer {self.name!r}: {why}")


@dataclass(frozen=True)
class Line:
    """One line of the ledger, in pJ per image.

    Attributes:
        snn: the spiking network.
        ann: the quantised ANN.
        snn_fixed: the part of ``snn`` that does not depend on the spikes (encoder, updates).
        encoder: the part that both sides pay for the encoder's MACs.
    """

    snn: float
    ann: float
    snn_fixed: float
    encoder: float


@dataclass(frozen=True)
class Words:
    """32-bit words read and written per image; ``activations`` are spikes on the SNN's side."""

    weights: float
    potentials: float
    activations: float

    @property
    def total(self) -> float:
        """All words."""
        return self.weights + self.potentials + self.activations


@dataclass(frozen=True)
class EnergyLedger:
    """Three lines, SNN and quantised ANN side by side, in pJ per image (module docstring).

    ``spikes_per_neuron`` is the rate per image at which all this was counted.
    """

    convention: Line
    integer: Line
    words: Line
    snn_words: Words
    ann_words: Words
    spikes_per_neuron: float
    source: str

    def break_even(self) -> dict[str, float | None]:
        """``break_even_rate`` of every line, by the line's name."""
        return {
            name: break_even_rate(getattr(self, name), self.spikes_per_neuron) for name in LINES
        }

    def to_json(self) -> JsonObject:
        """Return the content of ``energy_pj_per_image`` in results.json."""
        record: JsonObject = {}
        for name, rate in self.break_even().items():
            line: Line = getattr(self, name)
            record[name] = {"snn": line.snn, "ann": line.ann, "encoder": line.encoder}
            record[name]["break_even_rate"] = rate
        record["words"] |= {"snn_words": self.snn_words.total, "ann_words": self.ann_words.total}
        return record | {"source": self.source}


def energy_ledger(layers: Sequence[LayerCounts], prices: Prices = HOROWITZ) -> EnergyLedger:
    """Price the counts of a network's layers, per image.

    Args:
        layers: every layer that shall be charged, the encoder among them.
        prices: energy of one operation.

    Returns:
        The ledger, in pJ per image.

    Raises:
        UserError: no layers, or none of them has neurons.

    Examples:
        >>> layer = LayerCounts("conv2", macs=1000, synaptic_operations=500, neurons=100,
        ...                     updates=100, spikes=50, weights="ternary")
        >>> ledger = energy_ledger([layer])
        >>> round(ledger.convention.ann), round(ledger.convention.snn)
        (4600, 450)
        >>> round(ledger.integer.ann), round(ledger.integer.snn)
        (100, 70)
        >>> round(ledger.ann_words.total), round(ledger.snn_words.total)
        (2100, 1800)
    """
    neurons = sum(layer.neurons for layer in layers)
    if neurons == 0:
        raise UserError(f"no neurons in {len(layers)} layers; give the counts of every layer")
    snn_words, ann_words = _words(layers)
    return EnergyLedger(
        convention=_convention(layers, prices),
        integer=_integer(layers, prices),
        words=_words_line(layers, snn_words, ann_words, prices.memory_word),
        snn_words=snn_words,
        ann_words=ann_words,
        spikes_per_neuron=sum(layer.spikes for layer in layers) / neurons,
        source=prices.source,
    )


def break_even_rate(line: Line, spikes_per_neuron: float) -> float | None:
    """Spike rate at which the SNN stops being cheaper than its quantised ANN.

    What spikes cost is proportional to their number as long as they are spread over the layers as
    they were when they were counted, so the SNN costs ``fixed + (snn - fixed) * rate / measured``.

    Args:
        line: one line of the ledger.
        spikes_per_neuron: the rate, in spikes per neuron and image, that the line was counted at.

    Returns:
        The rate in spikes per neuron and image; 0 if the SNN is dearer even without a spike; None
        if no spike was counted, so that nothing is known about what a spike costs.

    Examples:
        >>> break_even_rate(Line(snn=7.0, ann=13.0, snn_fixed=1.0, encoder=0.0), 0.5)
        1.0
    """
    by_spikes = line.snn - line.snn_fixed
    if by_spikes <= 0 or spikes_per_neuron <= 0:
        return None
    return max(0.0, spikes_per_neuron * (line.ann - line.snn_fixed) / by_spikes)


def _convention(layers: Sequence[LayerCounts], prices: Prices) -> Line:
    encoder = prices.float32_mac * sum(layer.all_macs for layer in layers if layer.encoder)
    macs = sum(layer.all_macs for layer in layers if not layer.encoder)
    operations = sum(layer.synaptic_operations for layer in layers)
    snn = encoder + prices.float32_add * operations
    return Line(snn, encoder + prices.float32_mac * macs, encoder, encoder)


def _integer(layers: Sequence[LayerCounts], prices: Prices) -> Line:
    encoder = ann = fixed = by_spikes = 0.0
    for layer in layers:
        add = prices.add(layer.weights)
        arithmetic = layer.all_macs * (prices.multiply(layer.weights) + add)
        ann += arithmetic
        encoder += arithmetic if layer.encoder else 0.0
        fixed += add * layer.updates * layer.adds_per_update
        by_spikes += add * layer.synaptic_operations
    fixed += encoder
    return Line(fixed + by_spikes, ann, fixed, encoder)


def _words(layers: Sequence[LayerCounts]) -> tuple[Words, Words]:
    """Words moved by the SNN and by the ANN: the table of the module docstring."""
    operations = sum(layer.synaptic_operations for layer in layers)
    updates = sum(layer.updates for layer in layers)
    spikes = sum(layer.spikes for layer in layers)
    encoder = sum(layer.all_macs for layer in layers if layer.encoder)
    macs = sum(layer.all_macs for layer in layers)
    neurons = sum(layer.neurons * layer.passes for layer in layers)
    snn = Words(operations + encoder, 2 * operations + 2 * updates, 2 * spikes + encoder)
    return snn, Words(macs, 0.0, macs + neurons)


def _words_line(layers: Sequence[LayerCounts], snn: Words, ann: Words, price: float) -> Line:
    encoder = 2 * sum(layer.all_macs for layer in layers if layer.encoder)
    fixed = encoder + 2 * sum(layer.updates for layer in layers)
    return Line(price * snn.total, price * ann.total, price * fixed, price * encoder)
