"""``jax.jit`` as a decorator that keeps the signature: JAX's own says that anything comes back."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import jax

P = ParamSpec("P")
R = TypeVar("R")


def jitted(*static: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a function on its first call, and for every other value of its static arguments.

    Args:
        static: names of arguments that are part of the program; their values must be hashable.

    >>> @jitted("times")
    ... def repeated(x: float, times: int) -> list[jax.Array]: return [x] * times
    >>> [float(x) for x in repeated(1.0, 2)]
    [1.0, 1.0]
    """

    def compiled(function: Callable[P, R]) -> Callable[P, R]:
        return cast("Callable[P, R]", jax.jit(function, static_argnames=static))

    return compiled
