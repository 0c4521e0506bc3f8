"""A convolutional network that is trained as it spikes, on images or on events."""

from jaxsnn.systems.surrogate_csnn.system import Csnn

__all__ = [
    "Csnn",
]
