"""Numbers of steps, images and devices are whole, and are refused where they are not."""

import jax
import numpy as np
import pytest
from helpers import converted, fires, scatter

from jaxsnn import early_exit, evaluate, methods, settle, simulate, sweep
from jaxsnn.errors import UserError, finite_number, whole_number
from jaxsnn.simulation import Rule, step_by_step

WRONG = [0, -1, 1.5, 2.0, float("inf"), float("nan"), 2**40, True, None, "3", np.float32(2)]


def runs():
    snn, images, labels = scatter()
    return {
        "simulate": lambda **o: simulate(snn, images, **o),
        "evaluate": lambda **o: evaluate(snn, images, labels, **o),
        "sweep": lambda **o: sweep(snn, images, **o),
    }


@pytest.mark.parametrize("name", ["simulate", "evaluate", "sweep"])
@pytest.mark.parametrize("steps", WRONG)
def test_steps_that_are_no_number_of_steps(name, steps):
    with pytest.raises(UserError, match=r"steps=.*: give a whole number from 1 to 16,777,216"):
        runs()[name](steps=steps)


@pytest.mark.parametrize("steps", [1.5, float("inf"), 2**40])
def test_steps_of_runs_that_end_by_themselves(steps):
    snn, images, _ = fires()
    with pytest.raises(UserError, match=r"steps=.*: give a whole number"):
        early_exit(snn, images, Rule(np.ones(3), 0.5), steps=steps)
    *_, once, pixels = converted(3, 2, method=methods.negative_spikes, shape=(4, 4, 1), convs=())
    with pytest.raises(UserError, match=r"steps=.*: give a whole number"):
        settle(once, pixels, steps=steps)
    with pytest.raises(UserError, match=r"batch=.*: give a whole number of at least 1"):
        step_by_step.start(snn, 1.5)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("simulate", "block"),
        ("simulate", "devices"),
        ("evaluate", "block"),
        ("evaluate", "batch_size"),
        ("sweep", "batch_size"),
        ("sweep", "block"),
    ],
)
@pytest.mark.parametrize("value", [0, 1.5, float("inf"), True])
def test_other_whole_numbers(name, option, value):
    with pytest.raises(UserError, match=f"{option}=.*: give a whole number of at least 1"):
        runs()[name](steps=1, **{option: value})


def test_whole_numbers_of_numpy_and_jax_are_whole():
    plain = runs()["simulate"](steps=2)
    for two in (np.int64(2), np.uint8(2), jax.numpy.int32(2)):
        assert whole_number("steps", two) == 2
        actual = runs()["simulate"](steps=two)
        np.testing.assert_array_equal(actual.predictions, plain.predictions)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", None, -0.5, 2.5, True])
def test_numbers_in_a_range(value):
    with pytest.raises(UserError, match=r"share=.*: give a finite number .*0 and at most 2"):
        finite_number("share", value, 0, 2)


def test_a_range_without_its_lower_end():
    assert finite_number("scale", np.float32(0.5), 0, above=True) == 0.5
    with pytest.raises(UserError, match="scale=0: give a finite number above 0"):
        finite_number("scale", 0, 0, above=True)
