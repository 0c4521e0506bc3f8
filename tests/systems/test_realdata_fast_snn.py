"""Fast-SNN's AlexNet on real digits: every width, its spiking network, fine-tuning, in little time.

The original's 300 epochs a width on 60,000 images are days of a processor; two epochs on
a few thousand images show that the whole works, and the order of the variants.
"""

import itertools
import json
import os

import pytest
from experiment_runs import run

from jaxsnn.report.results import read_results

IMAGES = os.environ.get("JAXSNN_FAST_SNN_IMAGES", "1000")
LIMITS = (
    *("--dataset", "mnist", "--epochs", "2", "--limit-train", IMAGES, "--validation", "0"),
    *("--limit-test", "200", "--batch-size", "50", "--certify", "10", "--lr-step", "1"),
)

pytestmark = [pytest.mark.realdata, pytest.mark.slow]


@pytest.fixture(scope="module")
def out(data_root, tmp_path_factory):
    """All widths trained, each from the last; the narrow ones simulated, the narrowest tuned."""
    folder = tmp_path_factory.mktemp("fast_snn")

    def stage(name, bits, *more):
        flags = ("--bit", str(bits), "--data-dir", str(data_root), *more)
        assert run(name, *flags, out=folder, tiny=LIMITS, script="fast_snn") == 0

    # The paper's rates are for batches of 512: with 50 images, rounding decides whether it learns.
    stage("train", 32, "--lr", "0.02")
    for before, bits in itertools.pairwise((32, 4, 3, 2)):
        stage("train", bits, "--lr", "0.01", "--init", str(folder / f"alex_{before}bit"))
    stage("snn", 3)
    stage("snn", 2)
    stage("finetune", 2, "--force")
    return folder


def accuracies(out, bits):
    results = read_results(out / f"alex_{bits}bit/results.json")
    return results, {one.kind: one.accuracy for one in results.variants}


@pytest.mark.parametrize("bits", [3, 2])
def test_a_width_behaves_as_the_paper_says(out, bits):
    actual, variants = accuracies(out, bits)
    assert actual.steps == 2**bits - 1
    assert actual.ann_accuracy > 0.8
    assert actual.layers[0]["mismatches"] == 0  # the first layer is exact
    assert actual.equality == "approximate"
    # At rest it is the quantised network, up to the rounding of halves.
    assert variants["settling"] == pytest.approx(actual.ann_accuracy, abs=0.02)
    assert actual.find("settling").steps >= actual.steps
    verdict = json.loads((out / f"alex_{bits}bit/certificates.json").read_text())["settling"]
    assert verdict["equality"] == "exact after settling"


def test_the_order_of_the_variants_is_that_of_the_paper(out):
    """Up to a few of 200 images: unsigned neurons lose more, and fine-tuning does not harm."""
    _, variants = accuracies(out, 2)
    assert variants["unsigned"] <= variants["signed"] + 0.02
    assert variants["fine-tuned"] >= variants["signed"] - 0.05


def test_every_layer_between_the_first_and_the_last_is_tuned(out):
    record = json.loads((out / "alex_2bit/finetune.json").read_text())
    assert [layer["site"] for layer in record["layers"]] == [
        *("conv2", "conv3", "conv4", "conv5", "dense1"),
    ]
    assert all(layer["kept"] for layer in record["layers"])
