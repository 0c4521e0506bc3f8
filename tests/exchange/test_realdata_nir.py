"""The NIR paper's own network, trained and published by others, on N-MNIST recordings.

``cnn_sinabs.nir`` (github.com/neuromorphs/NIR, paper/02_cnn; Pedersen et al., Nature Communications
15:8122, 2024) was published with its accuracy on the 10,000 test recordings on eight platforms:
95.40 (speck), 97.12 (spyx), 97.85 (snntorch), 98.11 (norse, nengo), 98.15 (lava), 98.20
(SpiNNaker2) and 98.47 % (sinabs). Frames of 1 ms, all events, the neuron with most spikes wins.
"""

import numpy as np
import pytest

from jaxsnn.data import nmnist
from jaxsnn.data.events import Framing, frame_numbers
from jaxsnn.exchange.nir.read import from_nir
from jaxsnn.exchange.nir.rules import Comparison, Reset, Rules

pytestmark = pytest.mark.realdata

SINABS = Rules(Reset.SUBTRACT, Comparison.AT_OR_ABOVE, several_spikes=True, floor=1.0)
RULES = {"NIR": Rules(), "spikingjelly": Rules(comparison=Comparison.AT_OR_ABOVE), "sinabs": SINABS}


@pytest.fixture(scope="module")
def recordings(data_root):
    """Frames ``[T, N, polarity, height, width]`` uint8 of the test recordings, and their digits."""
    part = nmnist.find(data_root)["test"]
    frames = np.zeros((360, len(part.names), 2, 34, 34), np.uint8)
    digits = []
    for number, (events, digit) in enumerate(part.read()):
        step, kept, _ = frame_numbers(events, Framing(time_window=1000, filter_time=None))
        one = events[kept]
        places = (step, number, *(a.astype(int) for a in (one.polarity, one.y, one.x)))
        np.add.at(frames, places, 1)
        digits.append(digit)
    return frames, np.array(digits)


@pytest.mark.parametrize("rules", RULES)
def test_the_papers_network_on_real_recordings(data_root, recordings, rules):
    """No less accurate than on the least accurate of the eight platforms, whatever the reset."""
    network = from_nir(data_root / "models" / "cnn_sinabs.nir", dt=1.0, rules=RULES[rules])
    frames, digits = recordings
    hits = []
    for first in range(0, len(digits), 50):
        shown = frames[:, first : first + 50]
        counts = network.run(shown, record=(), total=["output"]).totals["output"]
        hits += (np.argmax(counts, axis=1) == digits[first : first + 50]).tolist()
    print(f"{rules}: {sum(hits)} of {len(hits)}")
    assert sum(hits) >= 0.954 * len(hits) - 2 * np.sqrt(0.954 * 0.046 * len(hits))
    if len(hits) == 100:
        assert sum(hits) >= {"NIR": 99, "spikingjelly": 99, "sinabs": 95}[rules]


def test_frames_in_a_wrong_order_of_axes_are_not_recognised(data_root, recordings):
    """The check above sees whether an image lies as the network's authors laid it."""
    network = from_nir(data_root / "models" / "cnn_sinabs.nir", dt=1.0)
    frames, digits = (
        part[..., :50, :, :, :] if part.ndim > 1 else part[:50] for part in recordings
    )
    counts = network.run(frames.swapaxes(3, 4), record=(), total=["output"]).totals["output"]
    assert (np.argmax(counts, axis=1) == digits).mean() < 0.7
