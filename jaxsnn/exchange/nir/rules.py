"""What NIR leaves open and a simulator has to decide: when a neuron fires, what a spike takes away.

NIR's nodes are differential equations with a jump condition. It names ``v > v_threshold`` and a
reset to ``v_reset``, and lets every backend depart from both; the defaults here are NIR's.
"""

import enum
import math
from dataclasses import dataclass

from jaxsnn.errors import UserError


class Reset(enum.Enum):
    """What becomes of a membrane potential after a spike."""

    TO_V_RESET = "v_reset"
    """It becomes the node's ``v_reset``, as NIR defines it."""
    ZERO = "zero"
    """It becomes 0, whatever ``v_reset`` is."""
    SUBTRACT = "subtract"
    """It loses ``v_threshold`` for every spike ("soft reset")."""


class Comparison(enum.Enum):
    """Which potentials fire."""

    ABOVE = ">"
    """Those above the threshold, as NIR defines it."""
    AT_OR_ABOVE = ">="
    """Those at the threshold, too."""


@dataclass(frozen=True)
class Rules:
    """How spiking nodes fire and reset.

    Attributes:
        reset: what becomes of a potential after a spike.
        comparison: whether a potential at the threshold fires; holds for ``nir.Threshold``, too.
        several_spikes: a step emits as many spikes as thresholds the potential holds, instead of at
            most one (sinabs); with ``Reset.SUBTRACT`` only.
        floor: after its reset a potential does not stay below ``-floor * v_threshold``; None: no
            such bound. sinabs has 1 for ``nir.IF``.

    Raises:
        UserError: several spikes with another reset, or a floor that is negative or not finite.

    >>> Rules(reset=Reset.SUBTRACT, comparison=Comparison.AT_OR_ABOVE).several_spikes
    False
    """

    reset: Reset = Reset.TO_V_RESET
    comparison: Comparison = Comparison.ABOVE
    several_spikes: bool = False
    floor: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.several_spikes and self.reset is not Reset.SUBTRACT:
            raise UserError(
                f"several_spikes=True with {self.reset}: after a reset to a value nothing is left "
                "for a second spike; take reset=Reset.SUBTRACT"
            )
        if self.floor is not None and not 0 <= self.floor < math.inf:
            raise UserError(f"floor={self.floor}: a number of thresholds, 0 or more, or None")
