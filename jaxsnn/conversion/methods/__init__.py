"""Conversion methods: what :func:`jaxsnn.convert` makes of a trained network.

- ``scatter_gather(k=, bound=)``: ``2**k * bound`` thresholds on one drive, in one step; exact.
- ``negative_spikes(k=)``: net counts follow their level by +1 and -1; exact after settling.
- ``signed_if(bits=)``: integrate and fire for ``2**bits - 1`` steps; a spike may be taken back;
  approximate, with ``settling=True`` exact after settling.
- ``rate(scales=)``: integrate and fire for as many steps as one likes; approximate.

A method is a frozen dataclass, and its fields are its options: what each is for stands in its
docstring. To add one, derive a class from :class:`Method` in a module of this package that is named
by its mathematics, and name it below.
"""

from jaxsnn.conversion.method import Method
from jaxsnn.conversion.methods.even_thresholds import NegativeSpikes as negative_spikes  # noqa: N813
from jaxsnn.conversion.methods.fixed_point import SignedIF as signed_if  # noqa: N813
from jaxsnn.conversion.methods.rates import Rate as rate  # noqa: N813
from jaxsnn.conversion.methods.threshold_tables import ScatterGather as scatter_gather  # noqa: N813

__all__ = ["Method", "negative_spikes", "rate", "scatter_gather", "signed_if"]
