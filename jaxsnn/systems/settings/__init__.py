"""Settings of an experiment: frozen dataclasses = command line = config.json (no jax).

One class per system, in a module of its kind: its fields are the flags, their docstrings the help,
its JSON the record of a run. :mod:`jaxsnn.systems.command_line` reads a command line into any such
class, :mod:`jaxsnn.systems.config_file` a config.json.
"""

from jaxsnn.systems.settings.base import Common, Scripted
from jaxsnn.systems.settings.bayesian_spike_fusion import BayesianSpikeFusion
from jaxsnn.systems.settings.bring_your_own import BringYourOwn
from jaxsnn.systems.settings.conversion import (
    Conversion,
    LeNetScatter,
    NegativeSpikes,
    NegativeSpikesCnn1,
    NegativeSpikesCnn2,
    NegativeSpikesMnist,
)
from jaxsnn.systems.settings.fast_snn import FastSnn
from jaxsnn.systems.settings.surrogate_csnn import NmnistCsnn

__all__ = [
    "BayesianSpikeFusion",
    "BringYourOwn",
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
]
