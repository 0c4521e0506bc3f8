"""Networks that other people published, converted by every method without training."""

import importlib.util
from pathlib import Path

import pytest

from jaxsnn import calibrate, compare, data
from jaxsnn.data.splits import limited
from jaxsnn.inputs import units_of
from jaxsnn.systems.bring_your_own.network import preprocessing_of, read_network
from jaxsnn.systems.command_line import parse_flags
from jaxsnn.systems.settings import BringYourOwn

pytestmark = pytest.mark.realdata

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "bring_your_own.py"
POINT = 0.01


@pytest.fixture
def compared(data_root, request):
    """A network of the experiment under methods of some names, on so many test images."""
    spec = importlib.util.spec_from_file_location("bring_your_own", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def compared(name, images, methods):
        config = parse_flags(BringYourOwn, script.NETWORKS[name], "convert")
        if not Path(config.weights).exists() and not request.config.getoption("--require-data"):
            pytest.skip(f"{config.weights} is not there")
        images_of = limited(data.load(config.dataset, data_root), None, images)
        seen = preprocessing_of(config, images_of.input_shape)
        net = read_network(config, seen.shape(images_of.input_shape), images_of.classes)
        some = units_of(seen, images_of.train_images[:300])
        ready = calibrate(net.variables, net.arch, some, encoding=seen.encoding)
        tried = [method for method in ready.candidates if method.name in methods]
        shown, labels = units_of(seen, images_of.test_images), images_of.test_labels
        options = {"calibration": ready, "methods": tried, "certified": 40}
        return compare(net.variables, net.arch, shown, labels, encoding=seen.encoding, **options)

    return compared


def test_a_network_of_max_pools_by_units_and_by_negative_spikes(compared):
    actual = compared("mnist_cnn", 500, ("scatter_gather", "negative_spikes"))
    assert actual.accuracy > 0.98
    units, negative = actual.find("scatter_gather"), actual.find("negative_spikes")
    assert units.equality == "exact"
    assert units.steps == 1
    assert units.accuracy >= actual.accuracy - 0.1 * POINT
    assert negative.equality == "exact after settling"
    assert negative.accuracy >= actual.accuracy - 0.3 * POINT
    assert negative.settled_step < 20
