"""Scatter-and-gather LeNet on MNIST: every neuron becomes 2^k*B threshold units, one time step.

Paper: C. Zou et al., A Scatter-and-Gather Spiking CNN on a Reconfigurable Neuromorphic Hardware,
Frontiers in Neuroscience 15:694170, 2021. Claim: k=1, B=2 reaches 99.37 % on MNIST in one time
step, the accuracy of its quantised ANN; full precision 99.52 % (200 epochs).

    python experiments/mnist_lenet.py --dataset digits   # under 3 minutes, no files
    python experiments/mnist_lenet.py --k 1 --B 2        # MNIST, about 20 minutes
    python experiments/mnist_lenet.py --k 1 --B 2 --epochs 200 --lr 1e-4 --schedule constant

Results go to runs/mnist_lenet/<setting>/, figures over all settings to runs/mnist_lenet/figs/.
"""

import sys

from jaxsnn.systems import stages
from jaxsnn.systems.scatter_gather import ScatterGather
from jaxsnn.systems.settings import LeNetScatter


def main() -> int:
    """Run the stage that the command line asks for."""
    return stages.main(ScatterGather, LeNetScatter, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
