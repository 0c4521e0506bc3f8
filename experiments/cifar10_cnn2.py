"""Lossless conversion with negative spikes: CNN 2 on CIFAR-10.

Paper: C. Zou et al., Towards a Lossless Conversion for Spiking Neural Networks with Negative-Spike
Dynamics, Advanced Intelligent Systems, 2023. Claim: k=1 reaches 93.35 % on CIFAR-10, that of its
quantised ANN, after 40 time steps; full precision 93.20 % (200 epochs).

    python experiments/cifar10_cnn2.py --dataset digits   # minutes, no files
    python experiments/cifar10_cnn2.py --k 1              # CIFAR-10; about 4 hours on two cores
    python experiments/cifar10_cnn2.py --recipe paper --epochs 100 --schedule constant

The last is the first phase of the paper's training (with --validation 0), which is made for a GPU;
the second: --recipe paper --resume --learning_rate 0.0001 --schedule constant. Results go to
runs/cifar10_cnn2/<setting>/, figures over all settings to its figs/.
"""

import sys

from jaxsnn.systems import stages
from jaxsnn.systems.negative_spikes import NegativeSpikes
from jaxsnn.systems.settings import NegativeSpikesCnn2


def main() -> int:
    """Run the stage that the command line asks for."""
    return stages.main(NegativeSpikes, NegativeSpikesCnn2, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
