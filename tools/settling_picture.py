"""Draw the README's picture: one image's spikes settle on the values of the quantised ANN.

    python tools/settling_picture.py                  # writes docs/figures/settling.gif

The network is the LeNet with negative spikes whose integers lie below ``results/``, the image a
test image of MNIST, which is read from ``--data-dir``, ``$JAXSNN_DATA`` or the usual places.
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

import jaxsnn
from jaxsnn.arch.plan import spiking_sites
from jaxsnn.data import load
from jaxsnn.report.figures.settling import Settling, settling

ROOT = Path(__file__).resolve().parent.parent
NETWORK = ROOT / "results/mnist_negative_spikes/lenet_k1/snn.npz"
PICTURE = ROOT / "docs/figures/settling.gif"


def settled_run(snn: jaxsnn.Spiking, image: np.ndarray) -> Settling:
    """Simulate one image until a step is silent, with the spikes of every neuron.

    Args:
        snn: a network that comes to rest.
        image: uint8 ``[H, W, C]``.
    """
    units = image[None]
    sites = tuple(site.name for site in spiking_sites(snn.arch))
    steps = len(jaxsnn.settle(snn, units, steps=200).readout)
    trace = jaxsnn.simulate(snn, units, steps=steps, record=sites)
    ann = jaxsnn.simulate(jaxsnn.settled(snn), units, steps=1, counts=True)
    unit = snn.unit(jaxsnn.plan(snn.arch)[-1].name)
    return Settling(
        image[..., 0],
        {
            site: np.asarray(jaxsnn.unpack(packed, snn, site))[:, 0].cumsum(0)
            for site, packed in trace.records.items()
        },
        {site: np.asarray(counts[0]) for site, counts in ann.counts.items()},
        unit * np.asarray(trace.readout[:, 0], np.float64),
        unit * np.asarray(ann.readout[0, 0], np.float64),
    )


def main(arguments: list[str] | None = None) -> int:
    """Simulate, draw, and say what is seen."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--image", type=int, default=0, help="number of MNIST's test image")
    parser.add_argument("--data-dir", type=Path, help="where MNIST's files are")
    parser.add_argument("--out", type=Path, default=PICTURE, help="file to write")
    chosen = parser.parse_args(arguments)
    data = load("mnist", chosen.data_dir)
    run = settled_run(jaxsnn.load(NETWORK), data.test_images[chosen.image])
    path = settling(run, chosen.out)
    print(f"{path}: {path.stat().st_size / 1000:.0f} KB, JAX {jax.__version__}")
    print(f"neurons that differ, of {run.neurons:,}: {run.differing()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
