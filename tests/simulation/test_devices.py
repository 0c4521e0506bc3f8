"""Two devices give what one gives, bit by bit, whenever a simulation ends.

All checks share one process with two virtual devices, whose start takes longer than any of them.
"""

from pathlib import Path

import chex
import jax
import numpy as np
import pytest
import test_image_by_image as by_image
import test_until_sure as until_sure
from helpers import converted

from jaxsnn import methods, settle, simulate, start


def network():
    """Negative spikes of one convolution and a dense layer, and 12 images."""
    options = {"shape": (4, 4, 1), "convs": ((4, 3, 1, "same"),), "dense": (8,)}
    *_, snn, images = converted(33, 12, method=methods.negative_spikes, bound=None, **options)
    return snn, images


def image_by_image():
    """Batches that shrink in the middle of a run."""
    (snn, images), (trace, spikes) = by_image.held(12), by_image.everything(12)
    options = {"record": by_image.SITES, "counts": True, "devices": 2}
    values = by_image.values(1.0)
    many = by_image.run(
        snn, images, by_image.ahead, values, steps=by_image.STEPS, every=2, **options
    )
    assert set(many.sizes.tolist()) >= {12, 6}
    assert many.trace.records
    assert many.trace.counts
    by_image.check(many, trace, spikes, by_image.leads(trace.readout, 1.0))


def when_sure():
    """Images that stop as soon as two heads are sure."""
    net, shown, rule = until_sure.network(), until_sure.images(12), until_sure.rule()
    many = until_sure.early_exit(net, shown, rule, steps=until_sure.STEPS, every=2, devices=2)
    assert set(many.sizes.tolist()) >= {12, 6}
    until_sure.check(many, 12, 0.9, 1)


def when_silent():
    """Until no neuron spikes any more; half of the images are dark and end early."""
    snn, images = network()
    images[::2] //= 32
    one, many = (
        settle(snn, images, steps=60, every=1, counts=True, **options)
        for options in ({}, {"devices": 2})
    )
    assert len(jax.tree.leaves(one)) > 5
    chex.assert_trees_all_equal(one, many, strict=True)


def a_run_that_goes_on():
    """From a state that two devices share."""
    snn, images = network()
    whole = simulate(snn, images, steps=5)
    state = simulate(snn, images, steps=3, devices=2, state=start(snn, len(images))).state
    rest = simulate(snn, images, steps=2, devices=2, state=state)
    np.testing.assert_array_equal(rest.readout, whole.readout[3:])
    assert int(rest.state.steps) == 5


CHECKS = (image_by_image, when_sure, when_silent, a_run_that_goes_on)


def every():
    """Run every check on two devices, and say which have passed."""
    assert jax.local_device_count() == 2
    for check in CHECKS:
        check()
        print(check.__name__)


@pytest.mark.slow
def test_two_devices_give_the_same(run_python):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_devices; test_devices.every()"
    passed = run_python(code, Path(__file__).parent, devices=2)
    assert passed.split() == [check.__name__ for check in CHECKS]
