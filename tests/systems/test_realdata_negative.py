"""Conversion with negative spikes on the authors' data: the certificate of every network and k.

Training is short: what is claimed is that ANN and SNN agree, whatever the weights.
"""

import dataclasses
from pathlib import Path

import pytest
from rich.console import Console

from jaxsnn.report.results import Results
from jaxsnn.systems.negative_spikes import NegativeSpikes
from jaxsnn.systems.settings.conversion import NegativeSpikes as Config
from jaxsnn.systems.settings.conversion import (
    NegativeSpikesCnn1,
    NegativeSpikesCnn2,
    NegativeSpikesMnist,
)

# Every network and every k; the whole of MNIST has the MLP with k = 1 below, CIFAR-10 has the CNNs
# with k = 1 in test_realdata_kept.py, with trained weights.
MNIST = [
    NegativeSpikesMnist(data, arch=arch, k=k, limit_train=2_000, limit_test=500)
    for data, arch, k in (
        ("mnist", "lenet", 0),
        ("mnist", "lenet", 2),
        ("fashion_mnist", "lenet", 1),
        ("fashion_mnist", "mlp", 0),
        ("mnist", "mlp", 2),
    )
]
CIFAR = [
    kind(k=k, limit_train=256, limit_test=4, batch_size=64)
    for kind, k in ((NegativeSpikesCnn1, 0), (NegativeSpikesCnn2, 2))
]


def outcome(config: Config, data_root: Path, out: Path) -> Results:
    """Results of one epoch, conversion, simulation and certificate."""
    changes = {"data_dir": str(data_root), "out": str(out), "epochs": 1, "validation": 0}
    experiment = NegativeSpikes(dataclasses.replace(config, **changes))
    experiment.train()
    return experiment.simulate(Console(quiet=True))


def check(actual: Results, images: int) -> None:
    """Equal after settling, in every neuron and prediction."""
    assert actual.equality == "exact after settling"
    assert actual.mismatches == {"neurons": 0, "predictions": 0, "compared": images}
    assert actual.snn_accuracy is not None
    assert actual.ann_accuracy is not None
    # The certificate compares with the integer ANN; this one sums floats, and ties may cascade.
    assert abs(actual.snn_accuracy - actual.ann_accuracy) * images <= 1 + images / 2_000
    assert actual.last_spike_step is not None
    assert actual.steps == actual.last_spike_step + 1
    assert actual.accuracy_settled_step is not None
    assert actual.accuracy_settled_step <= actual.last_spike_step


@pytest.mark.realdata
@pytest.mark.parametrize("config", MNIST, ids=lambda c: f"{c.dataset}-{c.setting}")
def test_lenet_and_mlp_settle_on_their_ann(
    config: NegativeSpikesMnist, data_root: Path, tmp_path: Path
) -> None:
    check(outcome(config, data_root, tmp_path), config.limit_test or 0)


@pytest.mark.realdata
@pytest.mark.parametrize("config", CIFAR, ids=lambda c: f"{c.arch}-k{c.k}")
def test_cnn1_and_cnn2_settle_on_their_ann(
    config: NegativeSpikesCnn1, data_root: Path, tmp_path: Path
) -> None:
    actual = outcome(config, data_root, tmp_path)
    check(actual, config.limit_test or 0)
    # spec 2.1 and 2.6: neurons, and MACs without the encoder's
    neurons = {"cnn1": 336_128, "cnn2": 411_648}[config.arch]
    macs = {"cnn1": 399_190_016, "cnn2": 769_659_904}[config.arch]
    assert sum(layer["neurons"] for layer in actual.layers or []) == neurons
    assert actual.ann_macs_per_image == macs


@pytest.mark.realdata
def test_every_image_of_mnist_settles(data_root: Path, tmp_path: Path) -> None:
    """The whole test set through the MLP, with the accuracy of the paper's order."""
    config = NegativeSpikesMnist(arch="mlp", epochs=2)
    changes = {"data_dir": str(data_root), "out": str(tmp_path), "validation": 0}
    experiment = NegativeSpikes(dataclasses.replace(config, **changes))
    experiment.train()
    trace = experiment.simulate(Console(quiet=True))
    check(trace, 10_000)
    assert trace.snn_accuracy is not None
    assert trace.snn_accuracy > 0.96
    for name in ("accuracy", "spike_num", "spike_collect", "sop_num"):
        lines = (tmp_path / f"mlp_k1/{name}.txt").read_text().splitlines()
        assert len(lines) == 10_000 // 50 * (trace.steps or 0)
