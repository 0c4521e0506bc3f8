"""What is shown to a network, examined before it runs."""

from collections.abc import Mapping
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsnn.errors import UserError
from jaxsnn.exchange.nir.operation import Shape

Samples: TypeAlias = Array | np.ndarray | Mapping[str, Array | np.ndarray]


def samples(expected: Mapping[str, Shape], x: Samples, leading: int) -> dict[str, Array]:
    """Each input's samples, with ``leading`` axes in front of the graph's shape.

    Args:
        expected: input -> shape of one sample.
        x: an array where there is one input, else by name.
        leading: 1 for ``[B, ...]``, 2 for ``[T, B, ...]``.

    Raises:
        UserError: an input is missing or unknown, or has another shape; NumPy arrays also where a
            value is not finite.
    """
    if isinstance(x, Mapping):
        named = dict(x)
    elif len(expected) == 1:
        named = dict.fromkeys(expected, x)
    else:
        raise UserError(f"the graph has inputs {list(expected)}; give a mapping from their names")
    if set(named) != set(expected):
        raise UserError(f"the graph has inputs {list(expected)}, not {sorted(named)}")
    axes = ("steps", "batch")[2 - leading :]
    fronts: set[Shape] = set()
    for name, value in named.items():
        wanted = expected[name]
        if value.ndim != leading + len(wanted) or value.shape[leading:] != wanted:
            raise UserError(
                f"input {name!r} has shape {tuple(value.shape)}; the graph takes "
                f"[{', '.join([*axes, *map(str, wanted)])}]"
            )
        if isinstance(value, np.ndarray) and not np.isfinite(value).all():
            raise UserError(f"input {name!r} holds a value that is not finite")
        fronts.add(tuple(value.shape[:leading]))
    if len(fronts) > 1 or 0 in next(iter(fronts)):
        raise UserError(f"inputs have {sorted(fronts)} {' and '.join(axes)}; give as many of each")
    return {name: jnp.asarray(value) for name, value in named.items()}
