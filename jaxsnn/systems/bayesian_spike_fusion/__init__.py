"""BayesianSpikeFusion: an early classifier's firing rate is the prior, the final spikes decide."""

from jaxsnn.systems.bayesian_spike_fusion.system import BayesianSpikeFusion

__all__ = [
    "BayesianSpikeFusion",
]
