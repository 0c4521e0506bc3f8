"""The fields of one node of the ``nir`` package, examined as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from jaxsnn.errors import UserError

if TYPE_CHECKING:
    from jaxsnn.exchange.nir.operation import DType
    from jaxsnn.exchange.nir.rules import Rules
    from jaxsnn.exchange.nir.windows import Padding

Numbers: TypeAlias = npt.NDArray[np.float64]


class Fields:
    """Reads the fields of one node.

    Attributes:
        dt: length of a step, in the unit of the node's time constants.
        dtype: in which the network computes.
        rules: when spiking nodes fire and how they are reset.
    """

    def __init__(self, fields: Mapping[str, Any], dt: float, rules: Rules, dtype: DType) -> None:
        self.fields, self.dt, self.rules, self.dtype = fields, dt, rules, dtype

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def numbers(self, name: str, positive: bool = False) -> Numbers:
        """An array in float64.

        Raises:
            UserError: a value that is not finite, or, where it has to be, not positive.
        """
        value = np.asarray(self.fields[name], np.float64)
        if not np.isfinite(value).all():
            raise UserError(f"has a {name} that is not finite")
        if positive and not (value > 0).all():
            raise UserError(f"has a {name} of {value.min():g}; it must be above 0")
        return value

    def rate(self, name: str) -> Numbers:
        """``dt / tau``.

        Raises:
            UserError: a time constant below dt, whose Euler step would change the sign.
        """
        tau = self.numbers(name, positive=True)
        if (tau < self.dt).any():
            raise UserError(
                f"has a {name} of {tau.min():g}, shorter than a step of dt={self.dt:g}, for which "
                "forward Euler oscillates; give a smaller dt"
            )
        return self.dt / tau

    def whole(self, name: str, axes: int, least: int | None = None) -> tuple[int, ...]:
        """One number for each axis, from one or as many.

        Raises:
            UserError: another number of values, or a value that is not whole or is below the least.
        """
        value = np.asarray(self.fields[name]).ravel()
        if value.size not in (1, axes) or (value != value.astype(int)).any():
            raise UserError(f"has a {name} of {value.tolist()}; give 1 or {axes} whole numbers")
        if least is not None and value.min() < least:
            raise UserError(f"has a {name} of {value.min()}; it must be at least {least}")
        return tuple(int(one) for one in np.resize(value, axes))

    def padding(
        self, window: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]
    ) -> Padding:
        """Zeros in front of and behind each axis of a convolution, from numbers or a word.

        Raises:
            UserError: an unknown word, or "same" with strides.
        """
        padding = self.fields["padding"]
        word = padding.decode() if isinstance(padding, bytes) else padding
        if not isinstance(word, str):
            return tuple((pad, pad) for pad in self.whole("padding", len(window), 0))
        if word == "valid":
            return ((0, 0),) * len(window)
        if word != "same" or set(strides) != {1}:
            raise UserError(
                f"has the padding {word!r} with strides {strides}; give numbers, "
                "'valid', or 'same' with strides of 1"
            )
        total = [spread * (width - 1) for spread, width in zip(dilation, window, strict=True)]
        return tuple((zeros // 2, zeros - zeros // 2) for zeros in total)
