"""Energy per image from counted operations: a spiking network beside its quantised ANN.

``ledger`` prices a simulated network, ``energy_ledger`` counts that were made anywhere.
"""

from jaxsnn.report.energy.network import counts, ledger
from jaxsnn.report.energy.pricing import (
    HOROWITZ,
    LINES,
    EnergyLedger,
    LayerCounts,
    Line,
    Prices,
    WeightKind,
    Words,
    break_even_rate,
    energy_ledger,
)

__all__ = [
    "HOROWITZ",
    "LINES",
    "EnergyLedger",
    "LayerCounts",
    "Line",
    "Prices",
    "WeightKind",
    "Words",
    "break_even_rate",
    "counts",
    "energy_ledger",
    "ledger",
]
