"""Lossless conversion with negative spikes: LeNet and an MLP on MNIST, Fashion-MNIST.

Paper: C. Zou et al., Towards a Lossless Conversion for Spiking Neural Networks with Negative-Spike
Dynamics, Advanced Intelligent Systems, 2023. Claim: k=1 reaches 99.32 % on MNIST after 14 time
steps and 89.99 % on Fashion-MNIST after 17, the accuracy of its quantised ANN.

    python experiments/mnist_negative_spikes.py --dataset digits   # minutes, no files
    python experiments/mnist_negative_spikes.py --k 1              # MNIST, about 20 minutes
    python experiments/mnist_negative_spikes.py --dataset fashion_mnist --arch mlp --k 2

The second phase of the paper's training: --resume --learning_rate 0.0001. Results go to
runs/mnist_negative_spikes/<arch>_<setting>/, figures over all settings to its figs/.
"""

import sys

from jaxsnn.systems import stages
from jaxsnn.systems.negative_spikes import NegativeSpikes
from jaxsnn.systems.settings import NegativeSpikesMnist


def main() -> int:
    """Run the stage that the command line asks for."""
    return stages.main(NegativeSpikes, NegativeSpikesMnist, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
