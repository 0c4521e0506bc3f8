"""The README's picture shows what its network does with its image."""

import json
from pathlib import Path

import pytest
import settling_picture as tool
from PIL import Image

import jaxsnn
from jaxsnn.data import load

ROOT = Path(__file__).resolve().parent.parent


def test_the_readme_says_what_the_picture_shows():
    with Image.open(tool.PICTURE) as picture:
        told = json.loads(picture.info["comment"])
        assert picture.n_frames == len(told["differ"])
    settled = told["differ"].index(0)
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"in {settled} time steps the spike counts of all {told['neurons']:,} neurons" in text
    assert f"{told['differ'][0]:,} of {told['neurons']:,} differ before the first step" in text
    assert f"none after the {settled}th" in text


@pytest.mark.realdata
def test_the_picture_is_what_the_network_does(data_root):
    image = load("mnist", data_root).test_images[0]
    run = tool.settled_run(jaxsnn.load(tool.NETWORK), image)
    with Image.open(tool.PICTURE) as picture:
        told = json.loads(picture.info["comment"])
    assert told == {"neurons": run.neurons, "differ": run.differing()}
