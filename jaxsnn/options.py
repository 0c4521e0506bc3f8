"""Options as plain Python values, so that equal options are one key of a cache and can be saved.

A NumPy scalar equals the Python number of its value and has the same hash, so a cache hands out
whichever came first, and JSON knows only the Python one. Every cached factory and every frozen
dataclass of options therefore turns what it is given into plain values of the annotated types.
"""

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable
from typing import Any, TypeAlias, Union, cast, get_args, get_origin, get_type_hints

from jaxsnn.errors import UserError

Options: TypeAlias = tuple[tuple[str, Any], ...]  # a factory's arguments: names, plain values
NUMBERS = {bool, int, float}  # annotations whose values are checked


def plain(value: Any, annotation: Any, name: str) -> Any:
    """``value`` as a plain Python value of the annotated type.

    Scalars of NumPy and JAX become Python's; a number without a fraction becomes an int where an
    int is wanted, an int becomes a float where a float is wanted; lists become tuples.

    Args:
        value: what a user gave.
        annotation: type of the option, perhaps a union with None.
        name: the option's name, for the message.

    Raises:
        UserError: no number where one is wanted, a fraction where a whole number is wanted, or a
            value that cannot be hashed.

    >>> import numpy as np
    >>> plain(np.int64(2), int, "k"), plain(2.0, int | None, "k"), plain(1, float, "scale")
    (2, 2, 1.0)
    """
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    kinds = _kinds(annotation)
    if value is None and type(None) in kinds:
        return None
    if kinds - {type(None)} <= NUMBERS:
        return _number(value, kinds, name)
    value = tuple(cast("list[Any]", value)) if isinstance(value, list) else value
    try:
        hash(value)
    except TypeError:
        raise UserError(
            f"{name} is a {type(value).__name__}, which cannot be hashed; give a number, a text or "
            "a tuple"
        ) from None
    return value


def _kinds(annotation: Any) -> set[Any]:
    """The members of a union, or the one type."""
    union = get_origin(annotation) in (Union, types.UnionType)
    return set(get_args(annotation)) if union else {annotation}


def _number(value: Any, kinds: set[Any], name: str) -> bool | int | float:
    """A bool, int or float, the first of them that is wanted and fits."""
    if isinstance(value, bool | int | float):
        if bool in kinds and value in (True, False):
            return bool(value)
        if int in kinds and not isinstance(value, bool) and value == value // 1:
            return int(value)
        if float in kinds and not isinstance(value, bool):
            return float(value)
    wanted = {bool: "True or False", int: "a whole number", float: "a number"}
    choices = [word for kind, word in wanted.items() if kind in kinds]
    choices += ["None"] if type(None) in kinds else []
    raise UserError(f"{name}={value!r}: give {' or '.join(choices)}")


def plain_fields(instance: Any) -> None:
    """Make every field of a frozen dataclass plain; to be called by its ``__post_init__``.

    Raises:
        UserError: naming the field.
    """
    hints = _hints(instance.__class__)
    for field in dataclasses.fields(instance):
        value = plain(getattr(instance, field.name), hints[field.name], field.name)
        object.__setattr__(instance, field.name, value)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def binder(factory: Callable[..., Any]) -> Callable[..., Options]:
    """The function that binds a factory's arguments: ``(*args, **kwargs) -> ((name, value), ...)``.

    Defaults are filled in and values made plain, so that equal calls give equal tuples.
    """
    signature, hints = inspect.signature(factory), get_type_hints(factory)

    def bind(*args: Any, **kwargs: Any) -> Options:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return tuple(
            (name, plain(value, hints.get(name), f"{factory.__name__}: {name}"))
            for name, value in bound.arguments.items()
        )

    return bind
