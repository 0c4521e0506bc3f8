"""Where a network of few steps departs from its ANN, split as by slow sums in float64."""

import dataclasses

import numpy as np
import pytest
import reference as ref
from clipped_networks import SMALL, cached, network

from jaxsnn import neurons
from jaxsnn.equality.gaps import gaps
from jaxsnn.errors import UserError
from jaxsnn.network.per_site import hidden

PARTS = ("clipping", "quantisation", "wrong_order", "inherited")


POOLED = "4C3p1-AP2-5C3b-8b"
TO_REST = 20  # times as many steps as the input is shown for: all is silent long before


def by_hand(net, signed):
    """Site -> the four parts, each a mean over images and neurons, as a share of the clip.

    No drive here is halfway between two levels, where ANN and spiking network round differently.
    """
    highest = net.steps
    levels, scaled, _ = ref.clipped_ann(net.layers, net.shown, net.bits, up=True)
    spiking = ref.signed_if(net.layers, net.shown, highest, signed).layers
    rates, result = net.shown, {}
    for layer, level, drive, one in zip(net.hidden, levels, scaled, spiking, strict=True):
        count = one.spikes.sum(0)
        fired = ref.clipped_level(ref.charge(layer, rates), layer["clip"], net.bits, up=True)
        errors = (
            np.maximum(drive - highest, 0),
            np.clip(drive, 0, highest) - level,
            count - fired,
            fired - level,
        )
        result[layer["name"]] = [np.abs(error).mean() / highest for error in errors]
        rate = layer["clip"] * count / highest  # in the units of the ANN
        rates = ref.mean_pool(rate, layer.get("avg_pool", 1))
    return result


@pytest.mark.parametrize("text", [SMALL, POOLED])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [2, 3])
def test_every_part_is_that_of_the_slow_sums(bits, signed, text):
    net = network(3, text, bits=bits)
    snn = net.snn(signed=signed)
    shares = gaps(snn, net.variables, net.images, steps=net.steps, batch_size=3)  # 8 images: padded
    expected = by_hand(net, signed)
    assert [one.site for one in shares] == list(expected)
    for one in shares:
        parts = [getattr(one, name) for name in PARTS]
        np.testing.assert_allclose(parts, expected[one.site], rtol=1e-5, atol=1e-7)
    assert np.all(np.sum(list(expected.values()), axis=0) > 0)  # no part is compared with nothing


def test_a_constant_drive_has_no_order():
    net = cached(0)
    first = gaps(net.snn(), net.variables, net.images, steps=net.steps)[0]
    assert (first.wrong_order, first.inherited) == (0, 0)
    assert first.quantisation > 0


def test_at_rest_only_the_anns_own_errors_are_left():
    net = cached(0)
    early = gaps(net.snn(), net.variables, net.images, steps=net.steps)
    shares = gaps(net.snn(settling=True), net.variables, net.images, steps=TO_REST * net.steps)
    assert len(shares) == len(early) == len(net.hidden)
    assert sum(one.wrong_order for one in early) > 0
    assert sum(one.inherited for one in early) > 0
    for one, before in zip(shares, early, strict=True):
        assert (one.wrong_order, one.inherited) == (0, 0)
        assert one.quantisation == pytest.approx(before.quantisation)
        assert one.quantisation > 0


def test_no_images_are_refused():
    net = cached(0)
    with pytest.raises(ValueError, match="no images to compare on; give one or more"):
        gaps(net.snn(), net.variables, net.images[:0], steps=net.steps)


def test_a_network_without_an_integer_ann_is_refused():
    net = cached(0)
    leaky = dataclasses.replace(net.snn(), neurons=hidden(neurons.leaky()))
    with pytest.raises(ValueError, match="conv1"):
        gaps(leaky, net.variables, net.images, steps=net.steps)


def test_variables_of_another_network_are_refused():
    net = cached(0)
    foreign = network(0, POOLED, bits=3).variables
    with pytest.raises(UserError, match="cannot have been converted from these"):
        gaps(net.snn(), foreign, net.images, steps=net.steps)
