"""Spikes over time: the engine, when a simulation ends, counters, totals, sweeps.

``simulate`` computes so many steps, ``settle`` ends in silence, ``early_exit`` when the fusion of
two heads is sure; ``evaluate`` goes through a data set, ``sweep`` through many values in one
program.
"""

from jaxsnn.simulation import fusion, step_by_step
from jaxsnn.simulation.as_function import function
from jaxsnn.simulation.counters import Counters
from jaxsnn.simulation.dataset import Streams, evaluate
from jaxsnn.simulation.engine import Running, Trace, unpack
from jaxsnn.simulation.fixed_steps import simulate
from jaxsnn.simulation.one_step import Step, start, step
from jaxsnn.simulation.sweep import Sweep, sweep
from jaxsnn.simulation.totals import Evaluation
from jaxsnn.simulation.until_silent import settle
from jaxsnn.simulation.until_sure import EarlyExit, Rule, early_exit

__all__ = [
    "Counters",
    "EarlyExit",
    "Evaluation",
    "Rule",
    "Running",
    "Step",
    "Streams",
    "Sweep",
    "Trace",
    "early_exit",
    "evaluate",
    "function",
    "fusion",
    "settle",
    "simulate",
    "start",
    "step",
    "step_by_step",
    "sweep",
    "unpack",
]
