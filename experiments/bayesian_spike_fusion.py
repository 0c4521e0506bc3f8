"""BayesianSpikeFusion: an early classifier's firing rate is the prior, the final spikes decide.

Paper: T. Habara, T. Sato, H. Awano, BayesianSpikeFusion: accelerating spiking neural network
inference via Bayesian fusion of early prediction, Frontiers in Neuroscience 18, 2024. Claim: for
equal accuracy 38.8 % (VGG) and 48.0 % (ResNet) less energy than the final classifier alone.

    python experiments/bayesian_spike_fusion.py --dataset digits --steps 300   # minutes, no files
    python experiments/bayesian_spike_fusion.py all mnist vgg11 --steps 1000   # MNIST, VGG11
    python experiments/bayesian_spike_fusion.py train cifar10 vgg19 --ic_index 6

Results go to runs/bayesian_spike_fusion/<data>_<network>_ic<block>/, figures to its Plot/.
"""

import sys

from jaxsnn.systems import stages
from jaxsnn.systems.bayesian_spike_fusion import BayesianSpikeFusion
from jaxsnn.systems.settings import BayesianSpikeFusion as Settings


def main() -> int:
    """Run the stage that the command line asks for."""
    return stages.main(BayesianSpikeFusion, Settings, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
