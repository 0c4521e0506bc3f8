"""Options are plain Python values, whoever made them."""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import Encoding, UserError, neurons, weight_quantisers
from jaxsnn.options import plain

SCALARS = [
    (np.int64(3), int, 3),
    (np.uint8(3), int | None, 3),
    (np.array(3), int, 3),
    (jnp.int32(3), int, 3),
    (3.0, int, 3),
    (np.float32(0.5), float, 0.5),
    (2, float, 2.0),
    (np.float64(2), float | None, 2.0),
    (2, int | float, 2),
    (2.5, int | float, 2.5),
    (np.True_, bool, True),
    (1, bool, True),
    (None, int | None, None),
    (math.inf, float, math.inf),
    ("up", Literal["up", "even"], "up"),
    (["leak"], tuple[str, ...], ("leak",)),
    (np.str_("zero"), str, "zero"),
]


@pytest.mark.parametrize(("value", "annotation", "expected"), SCALARS)
def test_values_become_plain(value, annotation, expected):
    actual = plain(value, annotation, "k")
    assert actual == expected
    assert type(actual) is type(expected)


REFUSED = [
    (1.5, int, "k=1.5: give a whole number$"),
    (math.nan, int, "k=nan: give a whole number$"),
    (math.inf, int | None, "k=inf: give a whole number or None$"),
    (True, int, "k=True: give a whole number$"),
    (None, int, "k=None: give a whole number$"),
    ("1", float, "k='1': give a number$"),
    (2, bool, "k=2: give True or False$"),
    (np.arange(2), int, "give a whole number$"),
    (np.arange(2), object, "k is a ndarray, which cannot be hashed"),
    ({}, tuple[str, ...], "k is a dict, which cannot be hashed"),
]


@pytest.mark.parametrize(("value", "annotation", "message"), REFUSED)
def test_what_no_option_can_be_is_refused_by_name(value, annotation, message):
    with pytest.raises(UserError, match=message):
        plain(value, annotation, "k")


def test_equal_options_of_other_types_are_the_same_neuron_with_plain_options():
    one = neurons.quantised_relu(np.int64(5), np.float32(2))
    assert one is neurons.quantised_relu(5, 2)
    assert one is neurons.quantised_relu(k=5.0, bound=2.0)
    assert [type(value) for _, value in one.options] == [int, float]
    other = neurons.tracking(np.int16(5), np.int64(2), np.True_)
    assert other is neurons.tracking(5, 2, True)
    assert [type(value) for _, value in other.options] == [int, int, bool]
    assert neurons.leaky(learn=["leak"]) is neurons.leaky(learn=("leak",))
    with pytest.raises(UserError, match=r"leaky: learn is a dict, which cannot be hashed"):
        neurons.leaky(learn={})


def test_weight_quantisers_and_encodings_have_plain_options():
    one = weight_quantisers.symmetric(bits=np.int64(8))
    assert one is weight_quantisers.symmetric()
    assert [type(value) for _, value in one.options] == [int]
    encoding = Encoding("held", np.float32(0.25), np.int64(200), np.int8(3))
    assert encoding == Encoding("held", 0.25, 200, 3)
    assert [type(value) for value in vars(encoding).values()] == [str, float, int, int]
