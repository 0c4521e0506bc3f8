"""What one operation costs: the table behind `jaxsnn.energy`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WeightKind = Literal["ternary", "int8", "float32"]


@dataclass(frozen=True)
class Prices:
    """Energy of one operation in picojoules; the defaults are a 45 nm process at 0.9 V.

    Source: M. Horowitz, "Computing's Energy Problem (and what we can do about it)", IEEE ISSCC
    2014, pages 10-14. Its table prices an access to an 8 KB cache at 10 pJ for 64 bits; half of
    that is charged here for a word of 32 bits.
    """

    float32_multiply: float = 3.7
    float32_add: float = 0.9
    int8_multiply: float = 0.2
    int8_add: float = 0.03
    int32_add: float = 0.1
    memory_word: float = 5.0
    source: str = "Horowitz, ISSCC 2014, 45 nm"

    @property
    def float32_mac(self) -> float:
        """A float32 multiplication and addition, in pJ (4.6 with the default prices)."""
        return self.float32_multiply + self.float32_add

    def multiply(self, weights: WeightKind) -> float:
        """Multiplication by a weight of this kind, in pJ; none for a ternary weight."""
        return {"ternary": 0.0, "int8": self.int8_multiply, "float32": self.float32_multiply}[
            weights
        ]

    def add(self, weights: WeightKind) -> float:
        """Addition to a sum of weights of this kind, in pJ."""
        return self.float32_add if weights == "float32" else self.int32_add


HOROWITZ = Prices()
