"""Real MNIST through the whole pipeline: two epochs, conversion, certificate on the test set."""

from pathlib import Path

import pytest
from rich.console import Console

from jaxsnn.exchange.saved import load
from jaxsnn.report.results import Results
from jaxsnn.systems.scatter_gather import ScatterGather
from jaxsnn.systems.settings.conversion import LeNetScatter


@pytest.fixture(scope="module")
def results(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Path]:
    """Outcome and folder of two epochs on the 50,000 training images, k = 1 and B = 2."""
    out = tmp_path_factory.mktemp("mnist_lenet")
    config = LeNetScatter(data_dir=str(data_root), out=str(out), epochs=2, noise_ratio=())
    experiment = ScatterGather(config)
    experiment.train()
    return experiment.simulate(Console(quiet=True)), out / "k1B2"


@pytest.mark.realdata
def test_the_certificate_is_exact_on_all_test_images(results: tuple[Results, Path]) -> None:
    actual, _ = results
    assert actual.equality == "exact"
    assert actual.mismatches == {"neurons": 0, "predictions": 0, "compared": 10_000}


@pytest.mark.realdata
def test_two_epochs_reach_the_accuracy(results: tuple[Results, Path]) -> None:
    actual, _ = results
    assert actual.snn_accuracy == actual.ann_accuracy
    assert actual.snn_accuracy is not None
    assert actual.snn_accuracy > 0.98


@pytest.mark.realdata
def test_spikes_and_operations_are_of_the_published_size(results: tuple[Results, Path]) -> None:
    """The released weights give 16,844 spikes and 3,240,042 operations an image."""
    actual, folder = results
    assert actual.spikes_per_image == pytest.approx(16_844, rel=0.25)
    assert actual.sops_per_image == pytest.approx(3_240_042, rel=0.25)
    spikes = [int(line) for line in (folder / "spike_num.txt").read_text().split()]
    assert len(spikes) == 50
    assert sum(spikes) == round(actual.spikes_per_image * 10_000)
    operations = [int(line) for line in (folder / "sop_num.txt").read_text().split()]
    assert sum(operations) == round(actual.sops_per_image * 10_000 * 2 * 4)


@pytest.mark.realdata
def test_the_stored_network_is_integer_throughout(results: tuple[Results, Path]) -> None:
    snn = load(results[1] / "snn.npz")
    kernels = [tree["kernel"].dtype.kind for tree in snn.variables["params"].values()]
    thresholds = [tree["thresholds"].dtype.kind for tree in snn.variables["fixed"].values()]
    assert set(kernels) | set(thresholds) == {"i"}
