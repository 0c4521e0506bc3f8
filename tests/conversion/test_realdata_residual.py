"""A residual network that somebody else trained, converted as it is: exact after settling."""

import dataclasses

import numpy as np
import pytest

from jaxsnn import certify, convert, data, methods, settle
from jaxsnn.arch.plan import parse
from jaxsnn.exchange.fitting import Fitting
from jaxsnn.exchange.read import read_weights
from jaxsnn.inputs.preprocess import normalised, units_of
from jaxsnn.network.per_site import SiteMap
from jaxsnn.network.weight_quantisers import full_precision

pytestmark = pytest.mark.realdata

STAGES = (
    "16C3p1-[16C3p1-16C3p1]+identity-[16C3p1-16C3p1]+identity-[16C3p1-16C3p1]+identity"
    "-[32C3s2p1-32C3p1]+padded-[32C3p1-32C3p1]+identity-[32C3p1-32C3p1]+identity"
    "-[64C3s2p1-64C3p1]+padded-[64C3p1-64C3p1]+identity-[64C3p1-64C3p1]+identity"
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGES = 20


def test_resnet20_without_training(data_root):
    """91.73 % of all test images in float32; the last spikes of these images come in step 77."""
    path = data_root / "models" / "resnet20-12fca82f.th"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    arch = parse(STAGES, input_shape=(32, 32, 3), head_pool=True, head_bias=True)
    variables = Fitting(read_weights(path), arch).variables()
    cifar, recipe = data.load("cifar10", data_root), normalised(MEAN, STD, 32)
    encoding = dataclasses.replace(recipe.encoding, presentation="onset")
    images = units_of(recipe, cifar.test_images[:IMAGES])
    method = methods.negative_spikes(k=2, highest=127)  # the largest level of all images is 104
    weights = SiteMap(full_precision())
    snn = convert(variables, arch, method, weights=weights, encoding=encoding)
    errors = [record.gain_error for record in snn.report]
    assert max(errors) <= 2.0**-12
    proof = certify(snn, variables, images, steps=300, settle=True, batch_size=IMAGES)
    assert proof.equality == "exact after settling"
    assert (proof.mismatches, proof.cut) == (0, 0)
    assert proof.settled_step < 150
    readout = np.asarray(settle(snn, images, steps=300).readout[-1])
    assert (readout.argmax(-1) == cifar.test_labels[:IMAGES]).sum() >= 17
