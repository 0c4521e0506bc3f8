"""Values of somebody else's file against the types of what takes them."""

import functools
import re
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from jaxsnn.errors import UserError
from jaxsnn.io.typed import call, conforms, entry


@dataclass(frozen=True)
class Made:
    name: str
    number: float = 1.0
    sizes: tuple[int, ...] = ()
    word: Literal["a", "b"] | None = None

    def __post_init__(self):
        if self.number < 0:
            raise UserError("number is below 0")


@functools.cache
def cached(k: int = 1, *, bound: float = 2.0) -> tuple[int, float]:
    return k, bound


def test_arguments_of_the_right_types_are_passed_on():
    assert call(Made, {"name": "x", "number": 3, "sizes": (1, 2)}, "m") == Made("x", 3, (1, 2))
    assert call(cached, {"bound": 1}, "m") == (1, 1)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (Made, [], "m is list, expected names with values"),
        (Made, None, "m is NoneType"),
        (Made, {}, "m.name is missing"),
        (Made, {"name": 3}, "m.name is 3, expected str"),
        (Made, {"name": "x", "number": True}, "m.number is True, expected float"),
        (Made, {"name": "x", "number": "1"}, "m.number is '1', expected float"),
        (Made, {"name": "x", "sizes": (1, "2")}, "m.sizes is tuple, expected tuple[int, ...]"),
        (Made, {"name": "x", "word": "c"}, "m.word is 'c'"),
        (Made, {"name": "x", "other": 1}, "m: 'other' is unknown; known: name, number"),
        (Made, {"name": "x", "number": -1}, "m: number is below 0"),
        (cached, {"k": 1.5}, "m.k is 1.5, expected int"),
        (cached, {"k": [1]}, "m.k is list, expected int"),
    ],
)
def test_refusals_name_place_value_and_type(function, arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        call(function, arguments, "m")


def test_a_fault_of_the_function_is_no_mistake_of_the_file():
    def broken(x: int) -> int:
        raise TypeError(x)

    with pytest.raises(TypeError):
        call(broken, {"x": 1}, "m")


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (1, float, True),
        (1.0, int, False),
        (True, int, False),
        (True, bool, True),
        ([1, 2], list[int], True),
        ([1, "2"], list[int], False),
        ((1, 2, 3), tuple[int, int, int], True),
        ((1, 2), tuple[int, int, int], False),
        ({"a": 1}, dict[str, Any], True),
        (None, None, True),
        (1, Literal[1], True),
        (True, Literal[1], False),
        (object(), Any, True),
    ],
)
def test_types(value, hint, fits):
    assert conforms(value, hint) is fits


def test_an_entry_is_there_and_of_its_type():
    assert entry({"a": 1}, "a", int, "p") == 1
    with pytest.raises(UserError, match=r"p\.b is missing"):
        entry({"a": 1}, "b", int, "p")
