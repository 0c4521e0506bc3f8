"""Labels as class numbers: what is taken, and that every refusal names value, place and remedy."""

import numpy as np
import pytest

from jaxsnn.data.labels import class_numbers
from jaxsnn.errors import UserError


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_integers_of_any_width_become_int32(dtype):
    actual = class_numbers(np.array([2, 0, 1], dtype), 3, "labels")
    assert actual.dtype == np.int32
    assert actual.tolist() == [2, 0, 1]


def test_jax_arrays_and_lists_are_taken():
    import jax.numpy as jnp

    assert class_numbers(jnp.array([1, 0]), 2, "labels").tolist() == [1, 0]
    assert class_numbers([1, 0], None, "labels").tolist() == [1, 0]
    assert class_numbers([], 2, "labels").tolist() == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 3], r"test labels: label 3 at index 2 is outside 0\.\.2; .*1\.\.3.*subtract 1"),
        ([2, 3, 2], r"label 3 at index 1 is outside 0\.\.2; all lie in 2\.\.3.*subtract 1"),
        ([0, 1, 3], r"label 3 at index 2 is outside 0\.\.2$"),
        ([0, -1, 2], r"label -1 at index 1 is outside 0\.\.2$"),
        (np.array([0, 2**63], np.uint64), r"label 9223372036854775808 at index 1"),
        ([0.0, 1.0], r"dtype float64, the first is 0\.0; .*labels\.astype\(int\)$"),
        ([0.5, 1.0], r"dtype float64, the first is 0\.5; .*give integers$"),
        ([np.nan, 1.0], r"the first is nan; .*give integers$"),
        ([True, False], r"dtype bool, the first is True; .*astype\(int\)$"),
        (["cat", "dog"], r"dtype <U3, the first is 'cat'; .*return_inverse"),
        (np.eye(3), r"shape \(3, 3\); .*labels\.argmax\(axis=1\)$"),
        (np.zeros((3, 1), int), r"shape \(3, 1\); there must be one class number for each image$"),
        (2, r"shape \(\); "),
    ],
)
def test_refusals(labels, message):
    with pytest.raises(UserError, match=message):
        class_numbers(labels, 3, "test labels")


def test_without_classes_only_what_is_below_zero_is_refused():
    assert class_numbers([7], None, "labels").tolist() == [7]
    with pytest.raises(UserError, match=r"label -7 at index 0"):
        class_numbers([-7], None, "labels")
