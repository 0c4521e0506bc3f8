"""Buckets: the least padding, by trying everything; every example at most once."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsnn.training import length_buckets as module
from jaxsnn.training.length_buckets import MOST, bucket_lengths, in_batches

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=14)


def padded_steps(lengths, buckets):
    """Steps of all examples when each is padded to the shortest bucket that holds it."""
    return sum(min(long for long in buckets if long >= length) for length in lengths)


def least(lengths, most):
    """By trying every choice of at most so many lengths, the longest among them."""
    values = sorted(set(lengths))
    return min(
        padded_steps(lengths, (*chosen, values[-1]))
        for number in range(most)
        for chosen in itertools.combinations(values[:-1], min(number, len(values) - 1))
    )


@given(LENGTHS, st.integers(1, 5))
def test_padding_is_the_least_possible(lengths, most):
    actual = bucket_lengths(np.array(lengths), most)
    assert 1 <= len(actual) <= most
    assert list(actual) == sorted(set(actual))
    assert actual[-1] == max(lengths)
    assert padded_steps(lengths, actual) == least(lengths, most)


def test_buckets_of_a_data_set_are_computed_once(monkeypatch):
    """However often it is gone through, in whatever order; another data set has its own."""
    lengths = np.random.default_rng(0).integers(40, 90, 500)
    actual = bucket_lengths(lengths)
    inner, calls = module._ended, []
    monkeypatch.setattr(module, "_ended", lambda *values: calls.append(1) or inner(*values))
    assert bucket_lengths(lengths[::-1].copy()) == bucket_lengths(lengths) == actual
    assert not calls
    assert bucket_lengths(lengths + 1) == tuple(length + 1 for length in actual)
    assert bucket_lengths(lengths, 1) == (lengths.max(),)
    assert calls


def test_buckets_by_hand():
    lengths = np.array([10, 11, 12, 50, 52, 100])
    assert bucket_lengths(lengths, 1) == (100,)
    assert bucket_lengths(lengths, 2) == (12, 100)  # 36 + 300; (52, 100): 260 + 100
    assert bucket_lengths(lengths, 3) == (12, 52, 100)
    assert bucket_lengths(lengths, 9) == (10, 11, 12, 50, 52, 100)
    assert len(bucket_lengths(np.arange(1, 301))) == MOST == 4


@pytest.mark.parametrize("lengths", [[], [3, 0], [-1]])
def test_lengths_that_make_no_sense_are_refused(lengths):
    with pytest.raises(ValueError, match=r"lengths .*: there must be examples, each of at least 1"):
        bucket_lengths(np.array(lengths, int))


@given(LENGTHS, st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))
def test_batches_hold_every_row_at_most_once_and_long_enough(lengths, most, size, seed):
    lengths = np.array(lengths)
    buckets = bucket_lengths(lengths, most)
    order = np.random.default_rng(seed).permutation(len(lengths))
    actual = in_batches(order, lengths, buckets, size, seed)
    assert len(actual.steps) == len(lengths) // size  # none but the last partial batch is lost
    assert len(actual.order) == size * len(actual.steps)
    assert len(set(actual.order.tolist())) == len(actual.order)
    assert set(actual.order.tolist()) <= set(range(len(lengths)))
    assert set(actual.steps) <= set(buckets)
    for rows, steps in zip(actual.order.reshape(-1, size), actual.steps, strict=True):
        assert lengths[rows].max() <= steps
    again = in_batches(order, lengths, buckets, size, seed)
    np.testing.assert_array_equal(actual.order, again.order)
    assert actual.steps == again.steps


def test_the_order_of_the_batches_is_drawn_from_the_seed():
    lengths = np.repeat([3, 8], 40)
    order = np.random.default_rng(0).permutation(80)
    actual = [in_batches(order, lengths, (3, 8), 4, seed) for seed in range(3)]
    assert len({one.steps for one in actual}) == 3
    assert all(sorted(one.steps) == [3] * 10 + [8] * 10 for one in actual)  # no batch is mixed
    assert len({tuple(one.order.tolist()) for one in actual}) == 3
    rows = [set(map(frozenset, one.order.reshape(-1, 4).tolist())) for one in actual]
    assert rows[0] == rows[1] == rows[2]  # the order of the examples alone says who goes with whom


def test_rows_of_a_batch_follow_the_given_order():
    lengths = np.array([2, 9, 2, 9, 2, 9])
    actual = in_batches(np.array([5, 4, 3, 2, 1, 0]), lengths, (2, 9), 3, 0)
    batches = dict(zip(actual.steps, actual.order.reshape(2, 3).tolist(), strict=True))
    assert batches == {2: [4, 2, 0], 9: [5, 3, 1]}


def test_what_fills_no_batch_goes_to_the_next_longer_bucket():
    lengths = np.array([2, 2, 2, 5, 9])
    actual = in_batches(np.arange(5), lengths, (2, 5, 9), 2, 0)
    batches = dict(zip(actual.steps, actual.order.reshape(2, 2).tolist(), strict=True))
    assert batches == {2: [0, 1], 5: [2, 3]}


def test_long_examples_are_seen_as_often_as_short_ones():
    """What fills no batch is left out by chance: here 16 of 144 in every epoch, long or short."""
    lengths = np.array([20] * 40 + [5] * 104)
    buckets, rng, seen = bucket_lengths(lengths, 2), np.random.default_rng(1), np.zeros(144)
    for epoch in range(200):
        actual = in_batches(rng.permutation(144), lengths, buckets, 64, seed=epoch)
        assert len(actual.order) == 128
        seen[actual.order] += 1
    long, short = seen[:40].mean() / 200, seen[40:].mean() / 200
    assert abs(long - 8 / 9) < 0.02
    assert abs(short - 8 / 9) < 0.02
