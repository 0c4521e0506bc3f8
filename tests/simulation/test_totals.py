"""Parts of a data set that were evaluated one by one are the whole data set."""

import chex
import numpy as np
import pytest
from helpers import fires

from jaxsnn import evaluate
from jaxsnn.simulation.totals import joined


def parts(steps=(4, 4), labelled=(True, True)):
    """Seven images in two parts, each simulated for so many steps."""
    snn, images, labels = fires()
    return [
        evaluate(snn, images[rows], labels[rows] if has_labels else None, steps=number)
        for rows, number, has_labels in zip(
            (slice(3), slice(3, None)), steps, labelled, strict=True
        )
    ]


def test_parts_are_joined_into_the_whole():
    snn, images, labels = fires()
    whole = evaluate(snn, images, labels, steps=4)
    chex.assert_trees_all_equal(joined(parts()), whole)
    without = joined(parts(labelled=(False, False)))
    assert without.correct is None
    np.testing.assert_array_equal(without.predictions, whole.predictions)


def test_parts_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="no part to join"):
        joined([])
    with pytest.raises(ValueError, match=r"parts of \[3, 4\] steps"):
        joined(parts(steps=(4, 3)))
    for labelled in ((True, False), (False, True)):
        with pytest.raises(ValueError, match="some parts have labels and some have none"):
            joined(parts(labelled=labelled))
