"""Values from a file of somebody else's, checked against the types of what they are given to."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import (
    Any,
    Literal,
    TypeAlias,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from jaxsnn.errors import UserError, shown
from jaxsnn.types import Json, JsonObject

T = TypeVar("T")
Hint: TypeAlias = Any  # a type as an annotation says it; `type` has no room for unions


def call(function: Callable[..., T], arguments: object, place: str) -> T:
    """Call a function, or make a dataclass, with arguments of the names and types that it takes.

    Args:
        function: whose parameters have type hints.
        arguments: what a file holds: a mapping of values by name.
        place: where they stand, for messages.

    Raises:
        UserError: no mapping, an unknown or missing name, or a value of another type; and what the
            function itself refuses. The message names the place and the entry.

    Example:
        >>> def power(base: float, exponent: int = 2) -> float: return base**exponent
        >>> call(power, {"base": 3}, "numbers")
        9
        >>> call(power, {"base": "3"}, "numbers")
        Traceback (most recent call last):
        ...
        jaxsnn.errors.UserError: numbers.base is '3', expected float
    """
    parameters, hints = inspect.signature(function).parameters, get_type_hints(function)
    values = checked_mapping(arguments, {name: hints.get(name, Any) for name in parameters}, place)
    for name, parameter in parameters.items():
        if name not in values and parameter.default is parameter.empty:
            raise UserError(f"{place}.{name} is missing")
    try:
        return function(**values)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def checked(value: Json, hint: Hint, place: str) -> Json:
    """The value, if it is of the type.

    Raises:
        UserError: it is not; naming the place, the value and the type.
    """
    if not conforms(value, hint):
        expected = getattr(hint, "__name__", None) if not get_args(hint) else str(hint)
        raise UserError(f"{place} is {shown(value)}, expected {expected or hint}")
    return value


def conforms(value: object, hint: Hint) -> bool:
    """Whether a value is of a type; a whole number is a float, a truth value is no number.

    >>> conforms((1, 2.5), tuple[float, ...]), conforms(True, int), conforms(None, int | None)
    (True, False, True)
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(conforms(value, one) for one in arguments)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in arguments)
    if hint is float:
        return type(value) in (int, float)
    if hint in (int, bool, str):
        return type(value) is hint
    if hint is None or hint is types.NoneType:
        return value is None
    if origin is tuple and isinstance(value, tuple):
        return _all_conform(cast("tuple[object, ...]", value), arguments)
    if origin in (list, Sequence) and isinstance(value, list | tuple):
        return all(conforms(one, arguments[0]) for one in cast("Iterable[object]", value))
    kind = origin or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def _all_conform(values: tuple[object, ...], hints: tuple[Hint, ...]) -> bool:
    """Whether the parts of a tuple are of their types; ``...`` is any number of the first."""
    if len(hints) == 2 and hints[1] is Ellipsis:
        return all(conforms(value, hints[0]) for value in values)
    return len(values) == len(hints) and all(map(conforms, values, hints))


def mapping(value: object, place: str) -> JsonObject:
    """The value, if it is a mapping of names.

    Raises:
        UserError: it is not.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{place} is {shown(value)}, expected names with values")
    return dict(cast("Mapping[str, Json]", value))


def checked_mapping(value: object, hints: Mapping[str, Hint], place: str) -> JsonObject:
    """The value, if it is a mapping of some of these names to values of their types.

    Raises:
        UserError: it is not; naming the first entry that does not fit.
    """
    values = mapping(value, place)
    if unknown := [name for name in values if name not in hints]:
        raise UserError(f"{place}: {shown(unknown[0])} is unknown; known: {', '.join(hints)}")
    return {name: checked(one, hints[name], f"{place}.{name}") for name, one in values.items()}


def entry(record: Mapping[str, Json], name: str, hint: Hint, place: str) -> Json:
    """What stands under a name, if it is there and of the type.

    Raises:
        UserError: it is not.
    """
    if name not in record:
        raise UserError(f"{place}.{name} is missing")
    return checked(record[name], hint, f"{place}.{name}")
