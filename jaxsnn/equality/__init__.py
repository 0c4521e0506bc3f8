"""Where ANN and spiking network agree and where not: certificate, ties, gaps.

``certify`` compares every neuron's count with its level in the integer and in the float ANN, and
rates, which have none, with the normalised ANN; ``gaps`` splits by cause what a network of few
steps loses.
"""

from jaxsnn.equality.certificate import Certificate, Difference, LayerProof
from jaxsnn.equality.certify import certify
from jaxsnn.equality.gaps import Gap, gaps
from jaxsnn.equality.rate_certificate import RateCertificate, RateProof

__all__ = [
    "Certificate",
    "Difference",
    "Gap",
    "LayerProof",
    "RateCertificate",
    "RateProof",
    "certify",
    "gaps",
]
