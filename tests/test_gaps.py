"""Where a network of few steps departs from its ANN, split as by slow sums in float64."""

import numpy as np
import pytest
import reference as ref
from clipped_networks import cached, network

from jaxsnn.gaps import gaps

PARTS = ("clipping", "quantisation", "wrong_order", "inherited")


def by_hand(net, signed):
    """Site -> the four parts, each a mean over images and neurons, as a share of the clip."""
    highest = net.steps
    levels, scaled, _ = ref.clipped_ann(net.layers, net.shown, net.bits, up=True)
    spiking = ref.signed_if(net.layers, net.shown, highest, signed).layers
    given, found = net.shown, {}
    for layer, level, drive, one in zip(net.hidden, levels, scaled, spiking, strict=True):
        count = one.spikes.sum(0)
        own = ref.clipped_level(ref.charge(layer, given), layer["clip"], net.bits, up=True)
        errors = (
            np.maximum(drive - highest, 0),
            np.clip(drive, 0, highest) - level,
            count - own,
            own - level,
        )
        found[layer["name"]] = [np.abs(error).mean() / highest for error in errors]
        given = layer["clip"] * count / highest  # the rate, in the units of the ANN
    return found


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 3])
def test_every_part_is_that_of_the_slow_sums(bits, signed):
    net = network(3, bits=bits)
    snn = net.snn(signed=signed)
    found = gaps(snn, net.variables, net.images, steps=net.steps, batch_size=3)  # 8 images: padded
    expected = by_hand(net, signed)
    assert [one.site for one in found] == list(expected)
    for one in found:
        parts = [getattr(one, name) for name in PARTS]
        np.testing.assert_allclose(parts, expected[one.site], rtol=1e-3, atol=1e-4)
    assert sum(values[2] for values in expected.values()) > 0  # some spikes come in a wrong order


def test_a_constant_drive_has_no_order():
    net = cached(0)
    first = gaps(net.snn(), net.variables, net.images, steps=net.steps)[0]
    assert (first.wrong_order, first.inherited) == (0, 0)
    assert first.quantisation > 0


def test_at_rest_only_the_anns_own_errors_are_left():
    net = cached(0)
    found = gaps(net.snn(settling=True), net.variables, net.images, steps=60)
    assert all((one.wrong_order, one.inherited) == (0, 0) for one in found)


def test_what_cannot_be_compared_is_refused():
    net = cached(0)
    with pytest.raises(ValueError, match="no images"):
        gaps(net.snn(), net.variables, net.images[:0], steps=net.steps)
