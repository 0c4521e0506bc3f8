"""Fast-SNN's AlexNet on real digits: every width, its spiking network, fine-tuning, in little time.

The original's 300 epochs a width on 60,000 images are days of a processor; two epochs on
a few thousand images show that the whole works, and the order of the variants.
"""

import json
import os

import pytest
from experiment_runs import run

from jaxsnn.results import read_results

IMAGES = os.environ.get("JAXSNN_FAST_SNN_IMAGES", "1500")
LIMITS = (
    *("--dataset", "mnist", "--epochs", "2", "--limit-train", IMAGES, "--validation", "0"),
    *("--limit-test", "500", "--batch-size", "50", "--certify", "50", "--lr-step", "1"),
)

pytestmark = [pytest.mark.realdata, pytest.mark.slow]


@pytest.fixture(scope="module")
def out(data_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fast_snn")
    given = ("--bit", "2", "--data-dir", str(data_root), "--force")
    assert run("progressive", *given, out=folder, tiny=LIMITS, script="fast_snn") == 0
    return folder


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_a_width_behaves_as_the_paper_says(out, bits):
    found = read_results(out / f"alex_{bits}bit/results.json")
    variants = {name: one["accuracy"] for name, one in found.variants.items()}
    assert found.steps == 2**bits - 1
    assert found.layers[0]["mismatches"] == 0  # the first layer is exact
    assert found.equality == "approximate"
    # At rest it is the quantised network, up to the rounding of halves.
    assert variants["settling"] == pytest.approx(found.ann_accuracy, abs=0.01)
    assert found.variants["settling"]["steps"] > found.steps
    assert variants["unsigned"] <= variants["signed"] + 0.02
    assert variants["fine-tuned"] >= variants["signed"] - 0.02


def test_the_float_network_learned_and_the_order_is_that_of_the_paper(out):
    assert read_results(out / "alex_32bit/results.json").float_ann_accuracy > 0.8
    found = read_results(out / "alex_2bit/results.json")
    variants = {name: one["accuracy"] for name, one in found.variants.items()}
    assert variants["unsigned"] < variants["signed"] <= variants["fine-tuned"] + 0.02


def test_fine_tuning_lowers_the_error_of_what_it_tunes(out):
    found = json.loads((out / "alex_2bit/finetune.json").read_text())
    assert [layer["site"] for layer in found["layers"]] == [
        *("conv2", "conv3", "conv4", "conv5", "dense1"),
    ]
    assert all(layer["kept"] for layer in found["layers"])
