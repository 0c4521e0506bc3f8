"""JSON text as a typed value: checked by pydantic against a dataclass, refused in one line."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from jaxsnn.errors import UserError, shown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Record = TypeVar("Record")
_EXTRA = ("unexpected_keyword_argument", "extra_forbidden")
_PREFIXES = ("Input should be ", "Value error, ")
_MEMBERS = ("bool", "int", "float", "str", "list")  # what pydantic calls the members of a union


def from_text(kind: type[Record], text: str | bytes, place: object) -> Record:
    """Read a dataclass from JSON.

    Strict: a number is no string and no bool, a whole number may stand for a float, a field that
    the dataclass lacks is refused.

    Args:
        kind: the dataclass.
        text: a JSON object with its fields.
        place: path of the file, for the message.

    Returns:
        The dataclass, with the defaults of fields that the text lacks.

    Raises:
        UserError: it names the file, every field at fault, its value and what is expected.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Point:
    ...     x: int
    >>> from_text(Point, '{"x": 3}', "point.json")
    Point(x=3)
    >>> from_text(Point, '{"x": "3"}', "point.json")
    Traceback (most recent call last):
    jaxsnn.errors.UserError: point.json: x is '3'; expected a valid integer
    """
    try:
        return cast("Record", _adapter(kind).validate_json(text, strict=True, extra="forbid"))
    except ValidationError as error:
        raise UserError(f"{place}: {_told(error.errors())}") from None


@functools.cache
def _adapter(kind: type[object]) -> TypeAdapter[object]:
    return TypeAdapter(kind)


def _told(errors: Sequence[ErrorDetails]) -> str:
    """All errors in one line, each field once: of a union pydantic reports every member."""
    told: dict[str, str] = {}
    for one in errors:
        place = ".".join(str(part) for part in one["loc"] if part not in _MEMBERS)
        told.setdefault(place, _sentence(place, one))
    return "; ".join(told.values())


def _sentence(place: str, error: Mapping[str, object]) -> str:
    kind, message = error["type"], str(error["msg"])
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    if kind in _EXTRA:
        return f"{place} is unknown"
    if kind == "missing":
        return f"{place} is missing"
    if kind == "value_error" or not place:
        return str(error["msg"]).removeprefix("Value error, ")
    return f"{place} is {shown(error['input'])}; expected {message}"
