"""Direct training of a spiking network: 12C5-MP2-64C5-MP2-10 on MNIST, or on N-MNIST's events.

Method: surrogate gradients through leaky integrate-and-fire neurons (J. K. Eshraghian et al.,
Training Spiking Neural Networks Using Lessons From Deep Learning, Proc. IEEE, 2023). The original
program claims 99.12 % on static MNIST and 97.05 % on N-MNIST after 20 epochs.

    python experiments/nmnist_csnn.py --dataset digits                # a minute or two, no files
    python experiments/nmnist_csnn.py --dataset digits --spike true   # as events; minutes
    python experiments/nmnist_csnn.py                                 # MNIST; hours on two cores
    python experiments/nmnist_csnn.py exp_id=spike data.spike=true    # N-MNIST; made for a GPU

Results go to runs/nmnist_csnn/<exp_id>/.
"""

import sys

from jaxsnn.systems import stages
from jaxsnn.systems.settings import NmnistCsnn
from jaxsnn.systems.surrogate_csnn import Csnn


def main() -> int:
    """Run the stage that the command line asks for."""
    return stages.main(Csnn, NmnistCsnn, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
