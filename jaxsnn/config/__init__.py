"""Settings of an experiment: frozen dataclasses = command line = config.json (no jax).

One class per system, in a module of its kind: its fields are the flags, their docstrings the help,
its JSON the record of a run. How a command line is read stands in :mod:`jaxsnn.command`, how
config.json is read in :mod:`jaxsnn.configfile`; both work on any such class and are offered here.
"""

from jaxsnn.command import STAGES, parse_command
from jaxsnn.config.base import Common, Scripted
from jaxsnn.config.bayesian_spike_fusion import BayesianSpikeFusion
from jaxsnn.config.conversion import (
    Conversion,
    LeNetScatter,
    NegativeSpikes,
    NegativeSpikesCnn1,
    NegativeSpikesCnn2,
    NegativeSpikesMnist,
)
from jaxsnn.config.csnn import NmnistCsnn
from jaxsnn.config.fast_snn import FastSnn
from jaxsnn.configfile import differences, from_json, to_json

__all__ = [
    "STAGES",
    "BayesianSpikeFusion",
    "Common",
    "Conversion",
    "FastSnn",
    "LeNetScatter",
    "NegativeSpikes",
    "NegativeSpikesCnn1",
    "NegativeSpikesCnn2",
    "NegativeSpikesMnist",
    "NmnistCsnn",
    "Scripted",
    "differences",
    "from_json",
    "parse_command",
    "to_json",
]
