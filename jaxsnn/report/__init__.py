"""What is told of a run: results.json, energy, tables; the figures are ``jaxsnn.report.figures``.

A run's numbers are one :class:`Results`, read and written strictly; tables and figures are made
from such files alone.
"""

from jaxsnn.report import crossbar_energy, energy
from jaxsnn.report.comparison import Comparison, Trial
from jaxsnn.report.energy import EnergyLedger, LayerCounts, Prices, energy_ledger
from jaxsnn.report.results import Results, RunSettings, Variant, read_results, write_results
from jaxsnn.report.scan import scan_results
from jaxsnn.report.table import print_table
from jaxsnn.report.variants import print_variants

__all__ = [
    "Comparison",
    "EnergyLedger",
    "LayerCounts",
    "Prices",
    "Results",
    "RunSettings",
    "Trial",
    "Variant",
    "crossbar_energy",
    "energy",
    "energy_ledger",
    "print_table",
    "print_variants",
    "read_results",
    "scan_results",
    "write_results",
]
