"""Fast-SNN: few bits, signed integrate-and-fire neurons, layer-wise fine-tuning."""

from jaxsnn.systems.fast_snn.system import FastSnn

__all__ = [
    "FastSnn",
]
